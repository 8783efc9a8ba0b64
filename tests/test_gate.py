"""The strict comparison of `conftest.py` lets sound cells pass and refuses broken ones.

A case is a cell as it is stored, and a pattern of the words that refuse it, empty for a sound one.
"""

import base64
import io
import json
import os
import re
import subprocess
import sys
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
    return v4.new_code_cell(source, outputs=[*outputs], metadata={"tags": [tag]})


def out(text: str) -> NotebookNode:
    return v4.new_output("stream", name="stdout", text=text)


def err(message: str) -> NotebookNode:
    return v4.new_output("error", ename="ValueError", evalue=message, traceback=["any traceback"])


def data(mime: str, text: str, **metadata: str) -> NotebookNode:
    return v4.new_output("display_data", {mime: text}, metadata=metadata)


def fig(*picture: int | tuple | str, **metadata: str) -> NotebookNode:
    return data("image/png", png(*picture), **metadata)


def show(output: NotebookNode) -> str:
    return f"display({dict(output.data)}, metadata={dict(output.metadata)}, raw=True)"


RAISES, EXPECTED = "raise ValueError('in-place')", "raises-exception"
ONE, GRAY, WIDE = out("1\n"), fig(200), (800, 450)
COUNT = "runs = globals().get('runs', 0) + 1\nprint(runs)"
DIGITS = 'print("Data set: scikit-learn\'s bundled digits (1,797)")'
ENVIRONMENT = """import os
names = "OMP_NUM_THREADS", "TQDM_DISABLE", "PYTHONHASHSEED", "CUDA_VISIBLE_DEVICES"
print(os.path.basename(os.getcwd()), *(os.environ[name] for name in names), sep=",")"""
UPDATE = "shown = display('a', display_id='x')\nshown.update('b')"
NOW = r"differs between stored and now \(PyTorch \d.*"
HTML = "display({'text/html': '0' * 300 + '1'}"
LAST_LINE = rf"^cases.ipynb, In\[8\]: {NOW}\n-text/html: '0000'\n\+text/html: '0001'$"
PICTURE = "a picture differs between stored and now by"

CASES = {
    "streams in pieces": (cell("print(1, flush=True)\nprint(2)", out("1"), out("\n2\n")), ""),
    "updated display": (cell(UPDATE, data("text/plain", "'b'")), ""),
    "expected error": (cell(f"print(1)\n{RAISES}", ONE, err("in-place"), tag=EXPECTED), ""),
    "picture smoothed differently": (cell(show(GRAY), fig(204)), ""),
    "environment": (cell(ENVIRONMENT, out(f"{ROOT.name},1,1,12345,\n")), ""),
    "wrong number": (cell("print(4)", ONE), NOW + r"-stdout: '1\\n'\n\+stdout: '4\\n'"),
    "other order": (cell(f"print(1)\n{show(GRAY)}", GRAY, ONE), NOW),
    "HTML": (cell(f"{HTML}, raw=True)", data("text/html", "0" * 301)), LAST_LINE),
    "name of the file": (cell(show(fig(save="a")), fig()), NOW + r'\+metadata: .*"save"'),
    "other size": (cell(show(GRAY), fig(200, (65, 48))), "the size of a picture differs"),
    "other picture": (cell(show(GRAY), fig(188)), f"{PICTURE} 10.4 gray levels"),
    "one digit": (cell(show(fig(250, WIDE, "9")), fig(250, WIDE, "8")), PICTURE),
    "error gone": (cell("1;", err("in-place"), tag=EXPECTED), "but raised nothing"),
    "error of another text": (cell(RAISES, err("leaf"), tag=EXPECTED), NOW + "-error: .*: leaf"),
    "error not tagged": (cell(RAISES, err("in-place")), "raised ValueError: in-place\n.*----> 1"),
    "not idempotent": (cell(COUNT, ONE), r"first run and second run .*\+stdout: '2"),
    "skipped": (cell("# NBVAL_SKIP\nprint(4)", tag="skip-execution"), NOW),
}
WITHOUT_MNIST = {
    "digits": (cell(DIGITS, out("Data set: MNIST (60,000)\n"), tag="mnist"), ""),
    "digits, not tagged": (cell("print(90)", ONE), NOW),
    "digits, not idempotent": (cell(COUNT, tag="mnist"), "first run and second"),
}
DEAD_KERNEL = {
    "dead kernel": (cell("import os\nos._exit(1)"), r"In\[1\]: .*Kernel died"),
    "after a dead kernel": (cell("1;"), r"In\[2\]: not run, because an earlier cell"),
}
NOTEBOOKS = {"cases": CASES, "without_mnist": WITHOUT_MNIST, "dead_kernel": DEAD_KERNEL}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], str]:
    """Run pytest once on all cases; return the refusal of each by its name, and the screen."""
    root = tmp_path_factory.mktemp("course")
    text = (ROOT / "conftest.py").read_text("utf-8")  # these pictures are not Matplotlib's
    (root / "conftest.py").write_text(f"{text}\nSAME_PIXELS = True\n", "utf-8")
    for stem, cases in NOTEBOOKS.items():
        cells = [stored for stored, _ in cases.values()]
        (root / f"{stem}.ipynb").write_text(json.dumps(v4.new_notebook(cells=cells)))
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    env.pop("OMP_NUM_THREADS", None)
    options = ["--nbval", "-n", "2", "--dist=loadfile", "--color=no", "--junitxml=report.xml"]
    command = [sys.executable, "-m", "pytest", *options]
    run = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    refusals = {}
    for case in ElementTree.parse(root / "report.xml").iter("testcase"):
        stem, number = case.get("classname").split(".")[0], case.get("name").split()[-1]
        name = [*NOTEBOOKS[stem]][int(number)]
        refusals[name] = "".join(refusal.text for refusal in case.iter("failure"))
    return refusals, run.stdout


PATTERNS = {name: case[1] for cases in NOTEBOOKS.values() for name, case in cases.items()}


@pytest.mark.parametrize("name", PATTERNS)
def test_sound_cells_pass_and_broken_ones_are_refused(gate, name: str) -> None:
    refusal, pattern = gate[0][name], PATTERNS[name]
    assert re.search(pattern, refusal, re.DOTALL) if pattern else refusal == ""


def test_it_says_how_much_was_not_compared(gate) -> None:
    assert "MNIST is missing: 1 outputs were not compared" in gate[1].splitlines()
