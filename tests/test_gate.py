"""The gate's own test: `conftest.py` and the rules of `test_structure.py` let what is sound pass
and refuse what is broken.
"""

import base64
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import nbformat.v4 as v4
import pytest
from nbformat import NotebookNode
from PIL import Image
from test_structure import RULES

Gate = tuple[dict[str, str], str]
CONFTEST = Path(__file__).parents[1] / "conftest.py"
OPTIONS = (
    "-m pytest --nbval --nbval-cell-timeout 5 -n 1 --dist loadfile --continue-on-collection-errors"
    " -p no:cacheprovider --color no --junitxml report.xml"
)


def png(level: int, size: int = 8) -> str:
    """A gray square as base64 PNG."""
    buffer = io.BytesIO()
    Image.new("L", (size, size), level).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def cell(source: str, *outputs: dict, tags: tuple[str, ...] = (), count: int | None = 1) -> dict:
    """A code cell with its stored outputs."""
    metadata = {"tags": list(tags)}
    return v4.new_code_cell(source, outputs=list(outputs), metadata=metadata, execution_count=count)


def out(text: str) -> dict:
    """What `print` stores."""
    return v4.new_output("stream", name="stdout", text=text + "\n")


def err(message: str) -> dict:
    """What an exception stores: the message, and none of the library's frames."""
    return v4.new_output("error", ename="ValueError", evalue=message, traceback=[message])


def fig(picture: str, alt: str = "square", text: str = "square") -> dict:
    """What `utils.plotting.show` stores."""
    data = {"image/png": picture, "text/plain": text}
    return v4.new_output("display_data", data, metadata={"image/png": {"alt": alt}})


SHOW = (
    f"display({{'image/png': '{png(200)}', 'text/plain': 'square'}},"
    " metadata={'image/png': {'alt': 'square'}}, raw=True)"
)
RAISE = "raise ValueError('in-place')"
COUNT = "calls = globals().get('calls', 0) + 1; print(calls)"
FALLBACK = 'print("Data set: scikit-learn\'s bundled digits")'

SOUND = {
    "result": cell("1 + 1", v4.new_output("execute_result", {"text/plain": "2"})),
    "earlier result": cell("print(Out[1])", out("2")),
    "semicolon": cell("1 + 1;"),
    "two prints": cell("print(1, flush=True)\nprint(2)", out("1\n2")),
    "picture within tolerance": cell(SHOW, fig(png(201))),
    "picture of measured times": cell(SHOW, fig(png(100)), tags=("measured",)),
    "expected error": cell(RAISE, err("in-place"), tags=("raises-exception",)),
    "not idempotent, tagged": cell(COUNT, out("1"), tags=("not-idempotent",)),
    "inline figures": cell("import os; print(os.environ['MPLBACKEND'][-6:])", out("inline")),
}
BROKEN = {
    "wrong number": (cell("print(2 + 2)", out("5")), r"text differs.*-'5\\n'\n\+'4\\n'"),
    "wrong number, MNIST there": (cell("print(4)", out("5"), tags=("mnist",)), "text differs"),
    "wrong picture": (cell(SHOW, fig(png(100))), "RMS difference 86.6 > 2.0"),
    "measured, other text": (cell(SHOW, fig(png(9), "no"), tags=("measured",)), "metadata"),
    "measured, other size": (cell(SHOW, fig(png(200, 9)), tags=("measured",)), "sizes"),
    "other size": (cell(SHOW, fig(png(200, 9))), "sizes"),
    "no picture stored": (cell(SHOW, fig("")), "not a picture"),
    "other alternative text": (cell(SHOW, fig(png(200), "circle")), "metadata differs"),
    "missing picture": (cell("print('square')", fig(png(200))), "kinds of outputs differ"),
    "swapped outputs": (cell(f"print(1)\n{SHOW}", fig(png(200)), out("1")), "kinds of outputs"),
    "deleted output": (cell("print(1)"), "kinds of outputs differ"),
    "never executed": (cell("print(1)", count=None), "never executed"),
    "ignore comment": (cell("# NBVAL_IGNORE_OUTPUT\nprint(1)", out("2")), "markers"),
    "skip tag": (cell("print(1)", out("2"), tags=("nbval-skip",)), "markers"),
    "skip tag of nbclient": (cell("print(1)", tags=("skip-execution",)), "kinds of outputs"),
    "error gone": (cell("1;", err("in-place"), tags=("raises-exception",)), "raised nothing"),
    "other error": (
        cell(RAISE, err("leaf"), tags=("raises-exception",)),
        r"text of this error has changed between stored and now \(PyTorch \d.*\): "
        "was 'ValueError: leaf', is 'ValueError: in-place'$",
    ),
    "error not tagged": (cell(RAISE, err("in-place")), "raised ValueError: in-place"),
    "error without output": (cell("%nonsense"), "raised UsageError"),
    "not idempotent": (cell(COUNT.replace("calls", "again"), out("1")), "first run and second run"),
    "working directory": (
        cell("import os; print(os.path.basename(os.getcwd()))", out("notebooks")),
        "text differs",
    ),
    "hash seed": (cell("print(*set('gradients'))", out("g r a d i e n t s")), "text differs"),
    "stderr": (cell("import sys; print('careful', file=sys.stderr)"), "stderr.*careful"),
    "dead kernel": (cell("import os; os._exit(1)"), "lost the kernel: Kernel died"),
    "after a dead kernel": (cell("1;"), "not run, because an earlier cell lost the kernel"),
}
NOTEBOOKS = {
    "cells": [*SOUND.values(), *(broken for broken, _ in BROKEN.values())],
    "fallback": [
        cell(FALLBACK, out("Data set: MNIST"), tags=("mnist",)),
        cell("print(90)", out("98"), tags=("mnist",)),
        cell("print(90)", out("98")),
        cell(RAISE, out("98"), tags=("mnist",)),
        cell(COUNT, out("98"), tags=("mnist",)),
    ],
    "empty": [],
    "endless": [cell("import time; time.sleep(60)")],
}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """One run of the gate: for each cell why it was refused ("" if it passed), and the screen."""
    root = tmp_path_factory.mktemp("course")
    shutil.copy(CONFTEST, root)
    (root / "notebooks").mkdir()
    for name, cells in NOTEBOOKS.items():
        nbformat.write(v4.new_notebook(cells=cells), root / "notebooks" / f"{name}.ipynb")
    run = subprocess.run(
        [sys.executable, *OPTIONS.split(), "notebooks"],
        cwd=root,
        env=os.environ | {"MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    refusals = {}
    for case in ElementTree.parse(root / "report.xml").iter("testcase"):
        place = f"{case.get('classname')} {case.get('name')}".strip()
        texts = [child.text or "" for child in case if child.tag in ("failure", "error")]
        refusals[place.removeprefix("notebooks.")] = "".join(texts)
    return refusals, run.stdout


@pytest.mark.parametrize("number", range(len(SOUND)), ids=list(SOUND))
def test_sound_cell_passes(gate: Gate, number: int) -> None:
    assert gate[0][f"cells.ipynb Cell {number}"] == ""


@pytest.mark.parametrize("number", range(len(BROKEN)), ids=list(BROKEN))
def test_broken_cell_is_refused(gate: Gate, number: int) -> None:
    refusal = gate[0][f"cells.ipynb Cell {len(SOUND) + number}"]
    assert f"cells.ipynb, In[{len(SOUND) + number + 1}]" in refusal
    assert re.search(list(BROKEN.values())[number][1], refusal, re.DOTALL)


def test_empty_notebook_is_refused(gate: Gate) -> None:
    assert "no code cell" in gate[0]["empty.ipynb"]


def test_endless_cell_is_refused(gate: Gate) -> None:
    assert "lost the kernel: A cell timed out" in gate[0]["endless.ipynb Cell 0"]


def test_without_mnist_only_tagged_outputs_are_not_compared(
    gate: Gate,
) -> None:
    refusals, screen = gate
    load, tagged, untagged, raising, unstable = (
        refusals[f"fallback.ipynb Cell {n}"] for n in range(5)
    )
    assert load == tagged == ""
    assert "text differs" in untagged
    assert "raised ValueError" in raising
    assert "first run and second run" in unstable
    said = [line for line in screen.splitlines() if "MNIST could not be had" in line]
    assert said == ["fallback: MNIST could not be had, 3 data-dependent outputs were not compared"]


def notebook() -> NotebookNode:
    """A notebook that keeps all rules; cells[3] is a code cell with a picture, cells[5] prints."""
    alt = "A gray square that is here to be described by forty characters."
    hidden = {"jupyter": {"source_hidden": True}, "cellView": "form"}
    code = [cell("import torch", tags=("setup",)), cell("show(fig)", fig(png(200), alt, alt))]
    code += [cell("print(1 + 1)", out("2")) for _ in range(11)]
    code += [cell("check(f)", out("f: not done yet"), tags=("exercise",))]
    code += [cell("check(f)", out("f: correct"), tags=("solution", "hide-cell"))]
    code[-1].metadata.update(hidden)
    prose = ["# 1. Square it\nYou will be able to. You need 5 minutes.", "**Predict** it."]
    prose += ["Two."] * 10 + ["## Check yourself", "## 1.8 Exercises", "<details>hint</details>"]
    texts = [v4.new_markdown_cell(text) for text in prose]
    cells = [cell for pair in zip(texts, code, strict=True) for cell in pair]
    cells += [v4.new_markdown_cell("## Summary")]
    for number, code_cell in enumerate(code, 1):
        code_cell.execution_count = number
    for each in cells:
        each.metadata["slideshow"] = {"slide_type": "-"}
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernelspec, "language_info": {"name": "python"}}
    return v4.new_notebook(cells=cells, metadata=metadata)


# The words with which a notebook is refused, and what was done to it.
SPOILED: dict[str, Callable[[NotebookNode], object]] = {
    "not 4.5": lambda nb: nb.update(nbformat_minor=4),
    "ids are not unique": lambda nb: nb.cells[1].update(id=nb.cells[3].id),
    "not kernelspec": lambda nb: nb.metadata.update(widgets={}),
    "kernelspec {": lambda nb: nb.metadata.kernelspec.update(name="ir"),
    "has another number": lambda nb: nb.cells[5].outputs.append(
        v4.new_output("execute_result", execution_count=99)
    ),
    "widget": lambda nb: nb.cells[5].outputs.append(
        v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}})
    ),
    "not just a name": lambda nb: nb.metadata.language_info.update(version="3.12"),
    "timing in cell metadata": lambda nb: nb.cells[3].metadata.update(execution={}),
    "execution counts": lambda nb: nb.cells[3].update(execution_count=None),
    "memory address": lambda nb: nb.cells[5].outputs[0].update(text="<node at 0x7f00aa00bb>"),
    "absolute path": lambda nb: nb.cells[5].outputs[0].update(text="in /home/me/x.py"),
    "ANSI": lambda nb: nb.cells[5].outputs[0].update(text="\x1b[31mred"),
    "carriage return": lambda nb: nb.cells[5].outputs[0].update(text="50 %\r100 %"),
    "timing '3.2 s'": lambda nb: nb.cells[5].outputs[0].update(text="took 3.2 s"),
    "decimals": lambda nb: nb.cells[5].outputs[0].update(text=str(0.1 + 0.2)),
    "stderr": lambda nb: nb.cells[5].outputs[0].update(name="stderr"),
    "21 printed lines": lambda nb: nb.cells[5].outputs[0].update(text="1\n" * 21),
    "go together": lambda nb: nb.cells[5].outputs.append(err("no tag")),
    "library frames": lambda nb: nb.cells[5].outputs.append(err("in lib/site-packages/torch")),
    "markers": lambda nb: nb.cells[5].update(source="# NBVAL_SKIP"),
    "more than 2 cells": lambda nb: [
        nb.cells[n].metadata.update(tags=["not-idempotent"]) for n in (5, 7, 9)
    ],
    "more than 1 cell": lambda nb: [nb.cells[n].metadata.update(tags=["measured"]) for n in (5, 7)],
    "shorter than 40": lambda nb: nb.cells[3].outputs[0].metadata["image/png"].update(alt="A"),
    "not the alternative text": lambda nb: nb.cells[3].outputs[0].data.pop("text/plain"),
    "not a PNG": lambda nb: nb.cells[3].outputs[0].data.update({"image/png": "AAAA"}),
    "picture > 80 kB": lambda nb: (
        nb.cells[3].outputs[0].data.update({"image/png": base64.b64encode(bytes(80_001)).decode()})
    ),
    "without its picture": lambda nb: (
        nb.cells[3].outputs[0].update(data={"text/plain": "<Figure size 800x450>"})
    ),
    "magic": lambda nb: nb.cells[5].update(source="!ls"),
    "sys.exit": lambda nb: nb.cells[5].update(source="sys.exit(1)"),
    "w.data": lambda nb: nb.cells[5].update(source="w.data -= lr * w.grad"),
    "color='red'": lambda nb: nb.cells[5].update(source="plot(x, color='red')"),
    "median": lambda nb: [nb.cells[n].update(source="x = 1\n" * 7) for n in range(5, 25, 2)],
    "max of lines": lambda nb: nb.cells[5].update(source="x = 1\n" * 21),
    "14 code cells": lambda nb: nb.cells.pop(5),
    "three code cells": lambda nb: [nb.cells.pop(n) for n in (4, 5)],
    "first line": lambda nb: nb.cells[0].update(source="# Square it"),
    "'You will be able to'": lambda nb: nb.cells[0].update(source="# 1. Square it"),
    "**Predict**": lambda nb: nb.cells[2].update(source="Guess it."),
    "setup cells are": lambda nb: nb.cells[1].metadata.update(tags=[]),
    "! or pip": lambda nb: nb.cells[1].update(source="# pip install torch"),
    "last sections": lambda nb: nb.cells.pop(),
    "not in this order": lambda nb: nb.cells[-3].update(source="No hint."),
    "stub does not": lambda nb: nb.cells[-4].outputs.clear(),
    "solution does not": lambda nb: nb.cells[-2].outputs[0].update(text="f: incorrect"),
    "not collapsed": lambda nb: nb.cells[-2].metadata.pop("cellView"),
    "spelling": lambda nb: nb.cells[4].update(source="The colour is normalised."),
    "without alternative text": lambda nb: nb.cells[4].update(source="![](../conftest.py)"),
    "heading ####": lambda nb: nb.cells[4].update(source="#### Deep"),
    "no slide_type": lambda nb: nb.cells[4].metadata.pop("slideshow"),
    "link to #gone": lambda nb: nb.cells[4].update(source='<a id="here"></a> [more](#gone)'),
    "which is not there": lambda nb: nb.cells[4].update(source="[more](missing.md)"),
}


def test_rules_let_a_sound_notebook_pass() -> None:
    assert [problem for rule in RULES for problem in rule(notebook())] == []


@pytest.mark.parametrize("words", SPOILED)
def test_rules_refuse(words: str) -> None:
    nb = notebook()
    SPOILED[words](nb)
    assert any(words in problem for rule in RULES for problem in rule(nb))
