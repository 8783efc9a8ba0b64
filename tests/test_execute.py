"""`make run` and `make refresh`, on small notebooks; a cell is a tuple of source and tags."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.reader import NotJSONError

from tools import execute

KERNEL = """import os, sys, ipykernel.connect as kernel
assert kernel.get_connection_info(unpack=True)["transport"] == "ipc" or os.name == "nt"
assert [sys.executable, os.getcwd(), os.environ["PYTHONHASHSEED"]] == """
NO_GPU = "import os\nassert os.environ['CUDA_VISIBLE_DEVICES'] == ''"
DIGITS = 'print("Data set: scikit-learn\'s bundled digits (1,797)")'
ERROR = "1 / 0", "raises-exception"


@pytest.fixture(autouse=True)
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty course and return its folder."""
    for folder in ("build", "figures", "notebooks"):
        (tmp_path / folder).mkdir()
        monkeypatch.setattr(execute, folder.upper(), tmp_path / folder)
    return tmp_path


def write(**notebooks: list[tuple]) -> None:
    for name, cells in notebooks.items():
        code = [nbformat.v4.new_code_cell(text, metadata={"tags": tags}) for text, *tags in cells]
        code[-1].execution_count = 9  # as an earlier run stored it
        nbformat.write(nbformat.v4.new_notebook(cells=code), execute.NOTEBOOKS / f"{name}.ipynb")


def show(**metadata: str) -> str:
    return f"display({{'image/png': 'UE5H'}}, metadata={{'image/png': {metadata}}}, raw=True)"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_run_says_what_became_of_each_notebook(course, monkeypatch, capsys):
    here = [sys.executable, str(course / "notebooks"), "0"]
    sound = [(f"{KERNEL}{here}",), ERROR, ("print('Data set: A (x)')",)]
    error = [("1",), ("raise ValueError('two\\nlines')",), ("print('not reached')",)]
    write(n1=sound, n2=error, n3=[("1", "raises-exception")], n4=[("import os\nos._exit(1)",)])
    bogus = course / "jupyter/kernels/python3/kernel.json"
    bogus.parent.mkdir(parents=True)
    bogus.write_text('{"argv": ["nonesuch"], "display_name": "x", "language": "x"}')
    monkeypatch.setenv("JUPYTER_PATH", str(course / "jupyter"))
    with pytest.raises(SystemExit, match="^\nn2 and n3 and n4 failed. The executed copies lie in"):
        execute.main("run")
    rows = [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()]
    assert [(row[0], row[1], row[3]) for row in rows[1:]] == [
        ("n1", "3", "A"),
        ("n2", "2", "FAILED in In[2]: raised ValueError: two"),
        ("n3", "1", "FAILED in In[1]: is tagged raises-exception, but raised nothing"),
        ("n4", "1", "FAILED in In[1]: Kernel died"),
    ]
    copy = nbformat.read(course / "build/n2.ipynb", as_version=4).cells
    assert copy[1].outputs[0].ename == "ValueError" and copy[2].execution_count is None
    with pytest.raises(SystemExit, match=r"There is no notebook n7\*.ipynb in "):
        execute.main("run", "n1", "n7")


def test_refresh_stores_the_same_clean_outputs_and_figures_twice(course, capsys):
    pytest.importorskip("IPython", "8.7")  # older ones name frames after temporary files
    saved, second = show(alt="A", save="a"), show(alt="B")
    shown = f"print(1, flush=True)\nprint(2)\n{saved}\nprint(3)\n{second}"
    write(n1_a=[(shown,), ERROR], n2_b=[(NO_GPU,), (show(save="b"),)])
    path = course / "notebooks/n1_a.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {"language_info": {"name": "python", "version": "3.1"}, "widgets": {}}
    notebook.cells[1].metadata |= {"execution": {"started": "2026"}, "mystnb": {"image": {}}}
    nbformat.write(notebook, path)
    (course / "figures/stale.png").touch()
    execute.main("refresh")
    assert "\nEvery cell ran. See what changed with: git diff" in capsys.readouterr().out
    stored, figures = contents(path.parent), contents(course / "figures")
    assert figures == {"a.png": b"PNG", "b.png": b"PNG"}
    cells = nbformat.read(path, as_version=4).cells
    assert [output.get("text") for output in cells[0].outputs] == ["1\n2\n", None, "3\n", None]
    assert cells[0].metadata["mystnb"] == {"image": {"alt": "A B"}}
    assert "ZeroDivisionError" in cells[1].outputs[0].traceback[-1]
    text = path.read_text("utf-8")
    assert [dirt for dirt in ("2026", "3.1", "widgets", "u001b") if dirt in text] == []
    assert text.count("mystnb") == 1
    execute.main("refresh", "n1")
    assert (contents(path.parent), contents(course / "figures")) == (stored, figures)
    (course / "notebooks/n2_b.ipynb").write_text("<<<<<<< HEAD")
    with pytest.raises(NotJSONError):
        execute.main("refresh", "n1")
    assert contents(course / "figures") == figures


def test_refresh_stores_all_or_nothing(course):
    write(n1_a=[(show(save="a"),)], n2_b=[("1 / 0",)], n3_c=[(DIGITS,)])
    before = contents(course / "notebooks")
    with pytest.raises(SystemExit, match="n2_b and n3_c failed. Nothing was stored"):
        execute.main("refresh")
    assert contents(course / "notebooks") == before and contents(course / "figures") == {}
