"""How the benchmark measures: processor seconds, both sides of a ratio in turn, medians count."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tools.execute import environment
from tools.stamp import NOTEBOOKS, ROOT


class Row(NamedTuple):
    """What was compared, the course's figure and the other, and their ratio with its bar."""

    what: str
    course: str
    against: str
    ratio: float
    bar: float


class Run(NamedTuple):
    """What a finished process printed, and the processor seconds that it used."""

    printed: str
    processor: float


def seconds(work: Callable[[], object], repeat: int) -> float:
    """Return the processor seconds of one call of `work`, as the mean of `repeat` calls."""
    start = time.process_time()
    for _ in range(repeat):
        work()
    return (time.process_time() - start) / repeat


def side_by_side(
    ours: Callable[[], object], theirs: Callable[[], object], repeat: tuple[int, int], rounds: int
) -> tuple[float, float, float]:
    """Return the median seconds of both, and the median over the rounds of ours / theirs."""
    ours(), theirs()
    pairs = [(seconds(ours, repeat[0]), seconds(theirs, repeat[1])) for _ in range(rounds)]
    return medians(*zip(*pairs, strict=True))


def medians(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Return the medians of both, and that of the ratios ours / theirs in each round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ours), statistics.median(theirs), statistics.median(ratios)


def exponent(sizes: list[int], times: list[float]) -> float:
    """Return k of the law time = c size^k that fits best: least squares on the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(times), deg=1)[0])


def run(args: list[str]) -> Run:
    """Run a fresh Python in `notebooks/`, and return what it printed and used; it must not fail."""
    env = environment() | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    before = _children()
    command = [sys.executable, "-W", "ignore", *args]
    done = subprocess.run(
        command, cwd=NOTEBOOKS, env=env, check=True, stdout=subprocess.PIPE, text=True
    )
    return Run(done.stdout, _children() - before)


def in_turn(commands: dict[str, list[str]], rounds: int) -> dict[str, list[Run]]:
    """Return the runs of each command, one per round."""
    runs = [{name: run(args) for name, args in commands.items()} for _ in range(rounds)]
    return {name: [each[name] for each in runs] for name in commands}


def _children() -> float:
    """Return the processor seconds of all processes started from here that have ended."""
    times = os.times()
    return times.children_user + times.children_system
