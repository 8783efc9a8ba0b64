"""Killed at random moments, `make run` and `make refresh` leave whole files and work the next time.

`make test-all` runs it; test_faults.py kills the same commands before each step, without kernels.
"""

import contextlib
import os
import random
import signal
import subprocess
import time

import nbformat
import pytest
from small_course import contents
from test_faults import NEW, ODD, OLD, cell, make, posix, real_course, visible

from tools import stamp

SEED = 0


@posix
@pytest.mark.parametrize("name", ["run", "refresh"])
def test_make_killed_at_ten_random_moments_works_the_next_time(name, tmp_path):
    root = real_course(tmp_path / ODD, **{"01_a": [("", "setup"), cell(OLD)]})
    assert make(root, "refresh").returncode == 0
    notebook = nbformat.read(path := root / "notebooks/01_a.ipynb", as_version=4)
    notebook.cells[-1].source = cell(NEW)
    stamp.write(path, stamp.dump(notebook))
    stored, start = contents(root), time.perf_counter()
    assert make(root, name).returncode == 0
    seconds, expected = time.perf_counter() - start, contents(root)
    chance = random.Random(f"{SEED} {name}")
    for number in range(10):
        for path, text in stored.items():
            (root / path).write_bytes(text)
        (root / ".venv/installed").touch()
        process = subprocess.Popen(
            ["make", name], cwd=root, stdout=-3, stderr=-3, start_new_session=True
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, seconds))
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            os.killpg(process.pid, [signal.SIGKILL, signal.SIGTERM][number % 2])
        process.wait()
        for path, text in visible(contents(root)).items():
            assert text in (stored.get(path), expected.get(path)), path
    assert make(root, name).returncode == 0
    assert contents(root) == expected
