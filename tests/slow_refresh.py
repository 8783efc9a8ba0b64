"""Restart and run all, from cleared notebooks, gives what is stored. `make test-all` runs it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tools.execute import FALL_BACK
from utils.course import DATA_DIR

ROOT = Path(__file__).parents[1]


def without_pictures(path: Path) -> NotebookNode:
    """The notebook less its pictures, whose bytes are another machine's; the gate compares them."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/png", None)
    return notebook


def test_refresh_in_a_copy_gives_what_is_stored(tmp_path: Path) -> None:
    for folder in ("notebooks", "figures", "utils", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    environment = os.environ | {"COURSE_DATA": str(DATA_DIR), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONWARNINGS", None)
    command = [sys.executable, "-m", "tools.execute", "refresh"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    if FALL_BACK in run.stderr:
        pytest.skip("MNIST could not be had")
    assert run.returncode == 0, run.stdout + run.stderr
    changed = [
        path.name
        for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
        if without_pictures(path) != without_pictures(tmp_path / "notebooks" / path.name)
    ]
    assert not changed, "what is stored is not what `make refresh` gives"
    stored, refreshed = (sorted(os.listdir(root / "figures")) for root in (ROOT, tmp_path))
    assert stored == refreshed
