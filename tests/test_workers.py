"""`together` sums exactly, names what goes wrong, and leaves nothing; ddp.py trains the same."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from utils.course import ROOT
from utils.workers import together

NOTEBOOK = (ROOT / "notebooks/06_scale.ipynb").read_text("utf-8")
ONE_MACHINE, _ = re.findall(r'^ *"torchrun (.*?)(?:\\n)?",?$', NOTEBOOK, re.MULTILINE)
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
    assert left() == before


@pytest.mark.parametrize(
    ("worker_2", "error", "words"),
    [
        (lambda end: 1 / 0, ZeroDivisionError, "division by zero"),
        (lambda end: sys.exit(3), SystemExit, "3"),
        (lambda end: None, TimeoutError, r"workers \[0, 1, 3\] have not returned"),
        (lambda end: end.wait(60), TimeoutError, r"workers \[0, 1, 2, 3\] have not returned"),
    ],
)
def test_a_worker_that_fails_is_reported_and_the_next_run_works(worker_2, error, words):
    end = threading.Event()
    with pytest.raises(error, match=words):
        together(lambda rank, group: worker_2(end) if rank == 2 else add(rank, group), 4, timeout=2)
    end.set()
    assert len(together(add, 4)) == 4


def run(*command: str) -> str:
    """Return what a command prints; fail if it does."""
    how = {"cwd": ROOT, "env": os.environ | {"CUDA_VISIBLE_DEVICES": ""}, "timeout": 240}
    command = [sys.executable, *command]
    return subprocess.run(command, **how, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_a_process_that_fails_ends_without_waiting_or_aborting():
    assert run("-c", FAILURE) == ""


@pytest.mark.skipif(sys.platform == "win32", reason="PyTorch for Windows comes without libuv")
def test_ddp_script_trains_two_workers_like_each_other_and_like_one_process():
    printed = run("-m", "torch.distributed.run", *ONE_MACHINE.split())
    said = re.findall(r"of 2: differs from worker 0 by (.{5}), from one process by (.{5})", printed)
    assert len(said) == 2 and all(float(a) == 0 and float(b) < 1e-14 for a, b in said)
