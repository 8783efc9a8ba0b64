"""The strict comparison of `conftest.py` lets sound cells pass and refuses broken ones.

A case is a cell as it is stored; a broken one has a pattern of the words that refuse it.
"""

import base64
import io
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import version
from xml.etree import ElementTree

import pytest
from nbformat import NotebookNode, v4
from PIL import Image, ImageDraw

from utils.course import ROOT


def png(level: int = 200, size: tuple[int, int] = (64, 48), text: str = "") -> str:
    """Return a gray picture with a text on it, in base64."""
    picture = Image.new("RGB", size, (level, level, level))
    ImageDraw.Draw(picture).text((20, 20), text, fill="black")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def cell(source: str, *outputs: NotebookNode, tag: str = "-") -> NotebookNode:
    metadata = {"tags": [tag]}
    return v4.new_code_cell(source, outputs=[*outputs], metadata=metadata, execution_count=1)


def out(text: str, name: str = "stdout") -> NotebookNode:
    return v4.new_output("stream", name=name, text=text)


def err(message: str, name: str = "ValueError") -> NotebookNode:
    return v4.new_output("error", ename=name, evalue=message, traceback=["any traceback"])


def data(bundle: dict[str, str], kind: str = "display_data", **metadata: str) -> NotebookNode:
    return v4.new_output(kind, bundle, metadata={"image/png": metadata} if metadata else {})


def fig(picture: str, alt: str = "A square.", **more: str) -> NotebookNode:
    return data({"image/png": picture, "text/plain": alt}, alt=alt, **more)


def show(output: NotebookNode) -> str:
    return f"display({dict(output.data)}, metadata={dict(output.metadata)}, raw=True)"


def counter(name: str) -> str:
    """Return code that prints how often it ran."""
    return f"{name} = globals().get({name!r}, 0) + 1\nprint({name})"


def variables(*names: str) -> str:
    return f"import os\nprint(*(os.environ[name] for name in {names}))"


RAISE, EXPECTED = "raise ValueError('in-place')", "raises-exception"
GRAY, DARK = fig(png()), fig(png(90))
ONE, TWO = out("1\n"), data({"text/plain": "2"}, "execute_result")
LONG = {"text/plain": "table", "text/html": "0" * 300 + "1"}
WIDE, DIGITS = (800, 450), 'print("Data set: scikit-learn\'s bundled digits (1,797)")'
LOAD = cell(DIGITS, out("Data set: MNIST (60,000)\n"), tag="mnist")
DIES = cell("import os\nos._exit(1)")
CHANGES = f"n = globals().get('n', 0) + 1\n{show(GRAY)} if n < 2 else {show(DARK)}"
NOW = r"differs between stored and now \(PyTorch \d.*"
PICTURE = "a picture differs between stored and now by"

SOUND = {
    "streams in pieces": cell("print(1, flush=True)\nprint(2)", out("1"), out("\n2\n")),
    "print, picture, print": cell(f"print(1)\n{show(GRAY)}\nprint(1)", ONE, GRAY, ONE),
    "updated display": cell(
        "shown = display('a', display_id='x')\nshown.update('b')", data({"text/plain": "'b'"})
    ),
    "expected error": cell(f"print(1)\n{RAISE}", ONE, err("in-place"), tag=EXPECTED),
    "picture smoothed differently": cell(show(GRAY), fig(png(204))),
    "environment": cell(
        variables("OMP_NUM_THREADS", "TQDM_DISABLE", "CUDA_VISIBLE_DEVICES"), out("1 1 \n")
    ),
}
BROKEN = {
    "wrong number": (cell("print(4)", ONE), NOW + r"-stdout: '1\\n'\n\+stdout: '4\\n'"),
    "wrong value": (cell("4", TWO), NOW + r"-text/plain: '2'\n\+text/plain: '4'"),
    "other order": (cell(f"print(1)\n{show(GRAY)}", GRAY, ONE), NOW),
    "other stream": (cell("print(1)", out("1\n", "stderr")), NOW),
    "output not stored": (cell("print(1)"), NOW),
    "output of a blank cell": (cell("", ONE), NOW),
    "HTML": (cell(show(data(LONG)), data(LONG | {"text/html": "0" * 301})), NOW + "'0+1'"),
    "name of the file": (cell(show(fig(png(), save="a")), GRAY), NOW + r'\+metadata: .*"save"'),
    "other size": (cell(show(GRAY), fig(png(size=(65, 48)))), "the size"),
    "other picture": (cell(show(GRAY), fig(png(188))), f"{PICTURE} 10.4 gray levels"),
    "one digit": (cell(show(fig(png(250, WIDE, "9"))), fig(png(250, WIDE, "8"))), PICTURE),
    "error gone": (cell("1;", err("in-place"), tag=EXPECTED), "but raised nothing"),
    "error of another text": (cell(RAISE, err("leaf"), tag=EXPECTED), NOW + "-error: .*: leaf"),
    "error not tagged": (cell(RAISE, err("in-place")), "raised ValueError: in-place\n.*----> 1"),
    "not idempotent": (cell(counter("b"), ONE), r"first run and second run .*\+stdout: '2"),
    "picture, not idempotent": (cell(CHANGES, GRAY), "a picture differs between first run"),
    "hash seed": (cell(variables("PYTHONHASHSEED"), out("0\n")), NOW + "12345"),
    "folder": (cell("from pathlib import Path\nprint(Path.cwd().name)", out("notebooks\n")), NOW),
    "comment that skips": (cell("# NBVAL_SKIP\nprint(4)", ONE), "a marker that skips"),
    "tag that ignores": (cell("print(4)", ONE, tag="nbval-ignore-output"), "a marker that skips"),
    "tag that skips": (cell("print(4)", tag="skip-execution"), NOW),
    "never executed": (v4.new_code_cell("1;"), "was never executed"),
}
ALONE = {  # each in a notebook of its own
    "counts": ([cell("1;"), cell("2", TWO), cell("print(Out[2])", out("2\n"))], ""),
    "digits": ([LOAD, cell("print(90)", ONE, tag="mnist")], ""),
    "digits, not tagged": ([LOAD, cell("print(90)", ONE)], NOW),
    "digits, not idempotent": ([LOAD, cell(counter("c"), tag="mnist")], "first run and second"),
    "dead kernel": ([DIES, cell("1;")], r"In\[1\]: .*Kernel died.*In\[2\]: not run, because"),
    "no code cell": ([], "has no code cell"),
    "no notebook": (None, "is not a notebook"),
}
PATTERNS = dict.fromkeys(SOUND, "") | {name: words for name, (_, words) in (BROKEN | ALONE).items()}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], str]:
    """Run pytest once on all cases; return the refusal of each by its name, and the screen."""
    root = tmp_path_factory.mktemp("course")
    (root / "notebooks").mkdir()
    text = (ROOT / "conftest.py").read_text("utf-8")  # these pictures are not Matplotlib's
    (root / "conftest.py").write_text(f"{text}\nSAME_PIXELS = True\n", "utf-8")
    names = {"together": [*SOUND, *BROKEN]} | {f"n{i}": [name] for i, name in enumerate(ALONE)}
    cells = {"together": [*SOUND.values(), *(stored for stored, _ in BROKEN.values())]}
    cells |= {f"n{i}": stored for i, (stored, _) in enumerate(ALONE.values())}
    for stem, stored in cells.items():
        path = root / f"notebooks/{stem}.ipynb"
        path.write_text("{" if stored is None else json.dumps(v4.new_notebook(cells=stored)))
    env = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    env.pop("OMP_NUM_THREADS", None)
    command = "-m pytest --nbval --nbval-cell-timeout 5 -n 2 --dist loadfile -p no:cacheprovider"
    command += " --color no --continue-on-collection-errors --junitxml report.xml notebooks"
    args = [sys.executable, *command.split()]
    run = subprocess.run(args, cwd=root, env=env, capture_output=True, text=True)
    refusals = defaultdict(str)
    for case in ElementTree.parse(root / "report.xml").iter("testcase"):
        place = f"{case.get('classname')} {case.get('name')}"
        stem, number = re.search(r"(\w+)\.ipynb(?: Cell (\d+))?", place).groups()
        name = names[stem][int(number) if stem == "together" else 0]
        refusals[name] += "".join(c.text or "" for c in case if c.tag in ("failure", "error"))
    return refusals, run.stdout


@pytest.mark.parametrize("name", PATTERNS)
def test_sound_cells_pass_and_broken_ones_are_refused(gate, name: str) -> None:
    refusal = gate[0][name]
    assert re.search(PATTERNS[name], refusal, re.DOTALL) if PATTERNS[name] else refusal == ""


def test_it_says_what_was_not_compared_and_which_cell_and_line_changed(gate) -> None:
    assert "MNIST is missing: 4 outputs were not compared" in gate[1].splitlines()
    place = f"together.ipynb, In[{[*SOUND, *BROKEN].index('HTML') + 1}]"
    first, *_, old, new = gate[0]["HTML"].splitlines()
    assert first == f"{place}: differs between stored and now (PyTorch {version('torch')})"
    assert (old, new) == (f"-text/html: '{'0' * 4}'", f"+text/html: '{'0' * 3}1'")
