"""`together` sums exactly, names what goes wrong, and leaves nothing; ddp.py trains the same."""

import os
import re
import shutil
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
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
FAILURE = """from tests.test_workers import add, sys, together
together(lambda rank, group: add(rank, group) if rank else sys.exit(0), 4, timeout=300)"""
MACHINES = """
for k in 1 2; do ip netns add $PREFIX$k; done
ip link add eth0 netns ${PREFIX}1 type veth peer name eth0 netns ${PREFIX}2
for k in 1 2; do
    ip -n $PREFIX$k addr add 10.0.0.$k/24 dev eth0
    for device in lo eth0; do ip -n $PREFIX$k link set $device up; done
done
"""


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


def run_all(commands: list[list[str]], **environment: str) -> str:
    """Run all commands at once, command k with RANK k, and return what they print, or fail."""
    common = os.environ | {"CUDA_VISIBLE_DEVICES": ""} | environment
    started = [
        subprocess.Popen(c, cwd=ROOT, env=common | {"RANK": str(k)}, stdout=-1, text=True)
        for k, c in enumerate(commands)
    ]
    try:
        printed = "".join(process.communicate(timeout=240)[0] for process in started)
    finally:
        [process.kill() for process in started]
    assert [process.returncode for process in started] == [0] * len(started)
    return printed


def test_a_process_that_fails_ends_without_waiting_or_aborting():
    assert run_all([[sys.executable, "-c", FAILURE]]) == ""


def agree(printed: str) -> bool:
    """Return whether two workers say that they trained like each other and like one process."""
    said = re.findall(r"of 2: differs from worker 0 by (.{5}), from one process by (.{5})", printed)
    return len(said) == 2 and all(float(a) == 0 and float(b) < 1e-14 for a, b in said)


def start_by_hand() -> str:
    """Start two workers as the notebook says for Windows, where PyTorch comes without libuv."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    return run_all([[sys.executable, "notebooks/ddp.py"]] * 2, **where)


def test_ddp_script_on_one_machine():
    by_hand = sys.platform == "win32"
    assert agree(start_by_hand() if by_hand else run_all([[*TORCHRUN, *ONE_MACHINE.split()]]))


@pytest.mark.skipif(not shutil.which("ip") or os.geteuid(), reason="needs root and iproute2")
def test_ddp_script_on_two_machines():
    prefix = f"course{os.getpid()}-"
    try:
        subprocess.run(["sh", "-ec", MACHINES], check=True, env=os.environ | {"PREFIX": prefix})
        machine, start = ["ip", "netns", "exec"], [*TORCHRUN, *TWO_MACHINES.split()]
        first, second = ([*machine, f"{prefix}{k}", *start] for k in (1, 2))
        second[second.index("--node-rank") + 1] = "1"
        assert agree(run_all([first, second], GLOO_SOCKET_IFNAME="eth0"))
    finally:
        [subprocess.run(["ip", "netns", "del", f"{prefix}{k}"]) for k in (1, 2)]
