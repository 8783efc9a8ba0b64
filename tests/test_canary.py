"""The report of the weekly run names the cell that broke and the text that changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from nbformat import v4

from tools.canary import describe
from tools.stamp import dump

ROOT = Path(__file__).parents[1]


def test_report_names_cell_and_changed_text(tmp_path):
    cell = v4.new_code_cell("print('is three')", execution_count=1)
    cell.outputs = [v4.new_output("stream", name="stdout", text="was two\n")]
    (tmp_path / "01_x.ipynb").write_text(dump(v4.new_notebook(cells=[cell])), "utf-8")
    shutil.copy(ROOT / "conftest.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider"]
    report = tmp_path / "report.xml"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command += [f"--junitxml={report}"]
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    text = describe(report)
    assert text.splitlines()[0].startswith("The newest versions: 01_x.ipynb, In[1]")
    assert "-'was two" in text and "+'is three" in text and "torch 2" in text


def test_report_without_tests_says_so(tmp_path):
    assert "no test ran" in describe(tmp_path / "missing.xml")
    (tmp_path / "empty.xml").write_text("<testsuites/>")
    assert "no test ran" in describe(tmp_path / "empty.xml")
