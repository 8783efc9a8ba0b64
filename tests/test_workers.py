"""`together` sums exactly, names what goes wrong, and leaves nothing; ddp.py trains the same."""

import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from utils.course import ROOT
from utils.workers import together

NOTEBOOK = (ROOT / "notebooks/06_scale.ipynb").read_text("utf-8")
ONE_MACHINE, TWO_MACHINES = re.findall(r'^ *"torchrun (.*?)(?:\\n)?",?$', NOTEBOOK, re.MULTILINE)
WAYS = ["by hand"] if sys.platform == "win32" else ["one machine", "two machines"]
TORCHRUN = "-m torch.distributed.run"
FAILURE = """from tests.test_workers import add, sys, together
together(lambda rank, group: add(rank, group) if rank else sys.exit(0), 4, timeout=300)"""


def add(rank, group):
    """Twenty sums, so that a message that is lost or swapped would be seen."""
    sums = [torch.full((3,), rank + 1.0 + k) for k in range(20)]
    for t in sums:
        group.allreduce([t]).wait()
    return torch.stack(sums)


def left() -> tuple[int, int]:
    """Return the number of threads, and of open files and sockets where the system tells."""
    return threading.active_count(), len(list(Path("/proc/self/fd").glob("*")))


@pytest.mark.parametrize("num_workers", [1, 2, 3, 4, 8])
def test_every_worker_has_the_sum_and_nothing_is_left(num_workers):
    together(add, num_workers)
    before = left()
    results = together(add, num_workers)
    want = sum(torch.arange(1.0, 21) + rank for rank in range(num_workers))
    assert [r.equal(want[:, None].expand(20, 3)) for r in results] == [True] * num_workers
    assert together(lambda rank, group: rank, num_workers) == [*range(num_workers)]
    assert left() == before


@pytest.mark.parametrize(
    ("worker_2", "error", "words"),
    [
        (lambda end: 1 / 0, ZeroDivisionError, "division by zero"),
        (lambda end: sys.exit(3), SystemExit, "3"),
        (lambda end: None, TimeoutError, r"workers \[0, 1, 3\] are late"),
        (lambda end: end.wait(60), TimeoutError, r"workers \[0, 1, 2, 3\] are late"),
    ],
)
def test_a_worker_that_fails_is_reported_and_the_next_run_works(worker_2, error, words):
    end = threading.Event()
    with pytest.raises(error, match=words):
        together(lambda rank, group: worker_2(end) if rank == 2 else add(rank, group), 4, timeout=2)
    end.set()
    assert len(together(add, 4)) == 4


def run_all(*commands: list[str], **environment: str) -> str:
    """Run Python with each list of arguments at once, list k with RANK k; return what it prints."""
    started = []
    for k, arguments in enumerate(commands):
        env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "RANK": str(k)} | environment
        command = [sys.executable, *arguments]
        started.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=-1, text=True))
    try:
        printed = "".join(process.communicate(timeout=240)[0] for process in started)
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * len(started)
    return printed


def test_a_process_that_fails_ends_without_waiting_or_aborting():
    assert run_all(["-c", FAILURE]) == ""


@pytest.mark.parametrize("way", WAYS)
def test_ddp_script_trains_like_one_process(way):
    """Start it as the notebook says; the second machine is this one, too."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    first = TWO_MACHINES.replace("10.0.0.1:29500", f"127.0.0.1:{port}")
    lines = {
        "by hand": ["notebooks/ddp.py"] * 2,
        "one machine": [f"{TORCHRUN} {ONE_MACHINE}"],
        "two machines": [f"{TORCHRUN} {first}", f"{TORCHRUN} {first}".replace("rank 0", "rank 1")],
    }
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    printed = run_all(*(line.split() for line in lines[way]), **where)
    said = re.findall(r"of 2: differs from worker 0 by (.{5}), from one process by (.{5})", printed)
    assert [float(to_first) for to_first, _ in said] == [0, 0]
    assert all(float(to_one_process) < 1e-14 for _, to_one_process in said)
