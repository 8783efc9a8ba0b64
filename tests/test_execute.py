"""`make run` and `make refresh`, on small notebooks; a cell is a tuple of source and tags."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from utils.course import ROOT

COMMAND = [sys.executable, "-m", "tools.execute"]
KERNEL = """import os, sys, ipykernel.connect as kernel
assert kernel.get_connection_info(unpack=True)["transport"] == "ipc" or os.name == "nt"
assert [sys.executable, os.getcwd(), os.environ["PYTHONHASHSEED"]] == """
NO_GPU = "import os\nassert os.environ['CUDA_VISIBLE_DEVICES'] == ''"


def show(**metadata: str | int) -> str:
    return f"display({{'image/png': 'UE5H'}}, metadata={{'image/png': {metadata}}}, raw=True)"


def make_course(root: Path, **notebooks: list) -> None:
    for folder in ("notebooks", "figures", "tools", "utils"):
        (root / folder).mkdir()
    for name in ("tools/execute.py", "utils/course.py"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    for name, cells in notebooks.items():
        code = [nbformat.v4.new_code_cell(text, metadata={"tags": tags}) for text, *tags in cells]
        code[-1].execution_count = 9  # as an earlier run stored it
        nbformat.write(nbformat.v4.new_notebook(cells=code), root / f"notebooks/{name}.ipynb")


def command(root: Path, *names: str, **more: str) -> subprocess.CompletedProcess:
    how = {"cwd": root, "env": os.environ | more, "capture_output": True, "text": True}
    return subprocess.run([*COMMAND, *names], **how)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_run_says_what_became_of_each_notebook(tmp_path):
    here = [sys.executable, str(tmp_path / "notebooks"), "0"]
    sound = [(f"{KERNEL}{here}",), ("1 / 0", "raises-exception"), ("print('Data set: A (x)')",)]
    error = [("1",), ("raise ValueError('two\\nlines')",), ("print('not reached')",)]
    silent, dies = [("1", "raises-exception")], [("import os\nos._exit(1)",)]
    make_course(tmp_path, n1=sound, n2=error, n3=silent, n4=dies)
    bogus = tmp_path / "jupyter/kernels/python3/kernel.json"
    bogus.parent.mkdir(parents=True)
    bogus.write_text('{"argv": ["nonesuch"], "display_name": "x", "language": "x"}')
    done = command(tmp_path, "run", JUPYTER_PATH=str(bogus.parents[2]))
    rows = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    assert [(row[0], row[1], row[3]) for row in rows[1:]] == [
        ("n1", "3", "A"),
        ("n2", "2", "FAILED in In[2]: raised ValueError: two"),
        ("n3", "1", "FAILED in In[1]: is tagged raises-exception, but raised nothing"),
        ("n4", "1", "FAILED in In[1]: Kernel died"),
    ]
    assert done.returncode == 1 and "\nn2 and n3 and n4 failed. The executed copies" in done.stderr
    copy = nbformat.read(tmp_path / "build/n2.ipynb", as_version=4).cells
    assert copy[1].outputs[0].ename == "ValueError" and copy[2].execution_count is None


def test_run_says_what_to_do_next_or_what_is_wrong(tmp_path):
    make_course(tmp_path, n1_a=[("1",)])
    assert "\nThe notebook ran. Open JupyterLab with: make lab" in command(tmp_path, "run").stdout
    assert "There is no notebook n7*.ipynb in " in command(tmp_path, "run", "n1", "n7").stderr
    (tmp_path / "notebooks/n2_b.ipynb").write_text("{")
    assert command(tmp_path, "run").stderr == "n2_b.ipynb is not a notebook: NotJSONError\n"


def test_refresh_stores_the_same_clean_outputs_and_figures_twice(tmp_path):
    pytest.importorskip("IPython", "8.7")  # older ones name frames after temporary files
    first, second = show(alt="A", save="a"), show(alt="B")
    shown = f"print(1, flush=True)\nprint(2)\n{first}\nprint(3)\n{second}"
    frames = ("def inner():\n    1 / 0\ninner()", "raises-exception")
    make_course(tmp_path, n1_a=[(shown,), frames], n2_b=[(NO_GPU,), (show(save="b"),)])
    path = tmp_path / "notebooks/n1_a.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {"language_info": {"name": "python", "version": "3.1"}, "widgets": {}}
    notebook.cells[1].metadata |= {"execution": {"started": "2026"}, "mystnb": {"image": {}}}
    nbformat.write(notebook, path)
    (tmp_path / "figures/stale.png").touch()
    assert "\nAll 2 notebooks ran. See what changed" in command(tmp_path, "refresh").stdout
    first, figures = contents(path.parent), contents(tmp_path / "figures")
    assert figures == {"a.png": b"PNG", "b.png": b"PNG"}
    cells = nbformat.read(path, as_version=4).cells
    assert [output.get("text") for output in cells[0].outputs] == ["1\n2\n", None, "3\n", None]
    assert cells[0].metadata["mystnb"] == {"image": {"alt": "A B"}}
    text = first["n1_a.ipynb"].decode()
    assert "in inner()" in text and text.count("mystnb") == 1 and "language_info" in text
    assert [dirt for dirt in ("2026", "3.1", "widgets", "u001b", "File ") if dirt in text] == []
    assert "\nThe notebook ran. See what changed" in command(tmp_path, "refresh", "n1").stdout
    assert (contents(path.parent), contents(tmp_path / "figures")) == (first, figures)


def test_refresh_writes_all_or_nothing(tmp_path):
    digits = 'print("Data set: scikit-learn\'s bundled digits (1,797)")'
    make_course(tmp_path, n1_a=[(show(save="a"),)], n2_b=[("1 / 0",)], n3_c=[(digits,)])
    before = contents(tmp_path / "notebooks")
    assert command(tmp_path, "refresh").stderr == "\nn2_b and n3_c failed. Nothing was written.\n"
    assert contents(tmp_path / "notebooks") == before and contents(tmp_path / "figures") == {}
