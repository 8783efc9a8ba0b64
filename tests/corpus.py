"""Notebooks that the gate must let pass and notebooks that it must refuse.

Each is one sound notebook with one thing changed, and stands here by its name as what was done to
it: a cell, to be put in place of `In[3]`, or a function that changes the notebook or returns the
bytes of another file. What must be refused has beside it words of the refusal, as a regular
expression.
"""

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from datetime import date

import nbformat.v4 as v4
import numpy as np
from nbformat import NotebookNode
from PIL import Image, ImageDraw
from test_structure import ASSERTS

Change = NotebookNode | Callable[[NotebookNode], object]
Broken = dict[str, tuple[Change, str]]
HERE = 5  # where In[3] stands among the cells
ALT = "A gray square, here to be described by forty characters."


def png(level: int = 200, size: tuple[int, int] = (64, 48), text: str = "", colors: int = 0) -> str:
    """A gray picture as base64 PNG, with `text` on it, in so many colors."""
    picture = Image.new("RGB", size, (level, level, level))
    ImageDraw.Draw(picture).text((20, 20), text, fill="black")
    buffer = io.BytesIO()
    (picture.quantize(colors) if colors else picture).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def cell(source: str, *outputs: NotebookNode, tags: tuple[str, ...] = ()) -> NotebookNode:
    """A code cell with its stored outputs."""
    metadata = {"tags": list(tags), "slideshow": {"slide_type": "-"}}
    return v4.new_code_cell(source, outputs=list(outputs), metadata=metadata, execution_count=3)


def prose(source: str) -> NotebookNode:
    """A markdown cell."""
    return v4.new_markdown_cell(source, metadata={"slideshow": {"slide_type": "-"}})


def out(text: str, end: str = "\n", name: str = "stdout") -> NotebookNode:
    """What `print` stores."""
    return v4.new_output("stream", name=name, text=text + end)


def value(text: str, count: int = 3) -> NotebookNode:
    """What the value of a cell's last line stores."""
    return v4.new_output("execute_result", {"text/plain": text}, execution_count=count)


def data(bundle: dict[str, str], metadata: dict | None = None) -> NotebookNode:
    """What `display` stores."""
    return v4.new_output("display_data", bundle, metadata=metadata or {})


def fig(picture: str, alt: str = ALT, **more: str) -> NotebookNode:
    """What `utils.plotting.show` stores."""
    metadata = {"image/png": {"alt": alt, **more}}
    return data({"image/png": picture, "text/plain": alt}, metadata)


def show(*args: str, **more: str) -> str:
    """The code that displays `fig(...)` of the same arguments."""
    output = fig(*args, **more)
    return f"display({dict(output.data)}, metadata={json.dumps(output.metadata)}, raw=True)"


def err(message: str, line: str) -> NotebookNode:
    """What a ValueError stores: the frame of a cell that says `line`, and the message."""
    frame = f"Cell In[3], line 1\n----> 1 {line}\n"
    traceback = ["-" * 75, "Traceback (most recent call last)", frame, f"ValueError: {message}"]
    return v4.new_output("error", ename="ValueError", evalue=message, traceback=traceback)


def sound() -> NotebookNode:
    """A notebook that keeps all rules and needs no import."""
    code = [cell("x = 2", tags=("setup",)), cell(show(png()), fig(png()))]
    code += [cell("print(1 + 1)", out("2")) for _ in range(10)]
    code += [cell("\n".join(f"assert {n} + {n} == {2 * n}" for n in range(ASSERTS[1])))]
    code += [cell("print('f: not done yet')", out("f: not done yet"), tags=("exercise",))]
    code += [cell("print('f: correct')", out("f: correct"), tags=("solution", "hide-cell"))]
    code[-1].metadata |= {"jupyter": {"source_hidden": True}, "cellView": "form"}
    texts = ["# 1. Square it\nYou will be able to. You need 5 minutes.", "**Predict** it."]
    texts += ["Two."] * 10 + ["## Check yourself", "## 1.8 Exercises", "<details>hint</details>"]
    cells = [each for pair in zip(map(prose, texts), code, strict=True) for each in pair]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernelspec, "language_info": {"name": "python"}}
    notebook = v4.new_notebook(cells=[*cells, prose("## Summary")], metadata=metadata)
    renumber(notebook)
    return notebook


def renumber(nb: NotebookNode) -> None:
    """Make the counts those of one run from top to bottom."""
    for number, each in enumerate((c for c in nb.cells if c.cell_type == "code"), 1):
        each.execution_count = number


def put(*cells: NotebookNode) -> Callable[[NotebookNode], None]:
    """The change of In[3] and the code cells that follow, in a kernel of their own."""

    def change(nb: NotebookNode) -> None:
        for place, new in enumerate(cells):
            old = nb.cells[HERE + 2 * place]
            old.update(deepcopy(new), id=old.id, execution_count=old.execution_count)

    return change


def also(*changes: Callable[[NotebookNode], object]) -> Callable[[NotebookNode], None]:
    """Several changes, one after the other."""

    def change(nb: NotebookNode) -> None:
        for one in changes:
            one(nb)

    return change


def swap(nb: NotebookNode) -> None:
    """Exchange In[3] and In[4]."""
    nb.cells[HERE], nb.cells[HERE + 2] = nb.cells[HERE + 2], nb.cells[HERE]


def dump(nb: NotebookNode) -> str:
    """The text of the file as it is: `nbformat.writes` would repair it."""
    return json.dumps(nb, indent=1, ensure_ascii=False)


def file(edit: Callable[[str], str]) -> Callable[[NotebookNode], bytes]:
    """The change of the file's text."""
    return lambda nb: edit(dump(nb)).encode()


def made(change: Change) -> bytes:
    """The file of the sound notebook after the change."""
    notebook = sound()
    new = (put(change) if isinstance(change, NotebookNode) else change)(notebook)
    return new if isinstance(new, bytes) else dump(notebook).encode()


def hashed(seed: str) -> str:
    """What a cell that depends on PYTHONHASHSEED prints."""
    environment = os.environ | {"PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", "print(hash('gradients'))"]
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip()


def says(text: str) -> NotebookNode:
    """A cell that prints `text`, and that this is stored of."""
    return cell(f"print({text!r})", out(text))


def count(name: str) -> str:
    """The code that prints how often it was run."""
    return f"{name} = globals().get({name!r}, 0) + 1\nprint({name})"


RAISE = "raise ValueError('in-place')"
STORED = err("in-place", RAISE)
TABLE = "<table>\n<tr><th>lr</th></tr>\n<tr><td>0.1</td></tr>\n</table>"
SHOW_TABLE = f"display({{'text/html': {TABLE!r}, 'text/plain': 'lr 0.1'}}, raw=True)"
FALLBACK = 'print("Data set: scikit-learn\'s bundled digits")'
LOAD = cell(FALLBACK, out("Data set: MNIST"), tags=("mnist",))
EXPECTED, TWICE, MNIST = ("raises-exception",), ("not-idempotent",), ("mnist",)
KINDS, TEXT = "kinds of outputs differ", "stdout: text differs between stored and now"

SOUND: dict[str, Change] = {
    "unchanged": lambda nb: None,
    "value": cell("1 + 1", value("2")),
    "earlier value": put(cell("1 + 1", value("2")), cell("print(Out[3])", out("2"))),
    "semicolon": cell("1 + 1;"),
    "only a comment": cell("# nothing to see"),
    "no code": cell(""),
    "flushed prints": cell("print(1, flush=True)\nprint(2)", out("1\n2")),
    "streams split differently": cell("print('ab')\nprint('cd')", out("a", ""), out("b\ncd")),
    "no newline at the end": cell("print(1, end='')", out("1", "")),
    "spaces at the end of a line": cell("print('a  ')\nprint()", out("a  \n")),
    "Greek, accents, emoji": cell("print('∂f/∂α = ½, Gauß 🙂')", out("∂f/∂α = ½, Gauß 🙂")),
    "nan, infinity, signed zero": cell("print(float('nan'), -1e999, -0.0)", out("nan -inf -0.0")),
    "sorted set": cell("print(*sorted(set('gradients')))", out("a d e g i n r s t")),
    "dictionary": cell("print({'w': 1, 'b': 2})", out("{'w': 1, 'b': 2}")),
    "training with its own seed": cell(
        "import numpy as np\nrng, w = np.random.default_rng(0), 0.0\n"
        "for x in rng.normal(size=500):\n    w -= 0.1 * (w * x - 2 * x) * x\nprint(f'{w:.4f}')",
        out("2.0000"),
    ),
    "progress bar that is off": cell(
        "from tqdm import tqdm\nfor step in tqdm(range(3)):\n    pass\nprint(step)", out("2")
    ),
    "asynchronous": cell("async def two():\n    return 2\nprint(await two())", out("2")),
    "long computation": cell("print(sum(range(10**7)))", out("49999995000000")),
    "twenty printed lines": cell("print('\\n'.join('ab' * 10))", out("\n".join("ab" * 10))),
    "relative path": cell("print('dw/home/x, data/MNIST/raw')", out("dw/home/x, data/MNIST/raw")),
    "short hexadecimal": cell("print(hex(31), 1e-07)", out("0x1f 1e-07")),
    "line that begins with %": cell("print(\n    7\n    % 4\n)", out("3")),
    "string like a shell command": cell("print('''a\n!ls''')", out("a\n!ls")),
    "comment about exit": cell("print(1)  # exit() would end the kernel", out("1")),
    "caught error": cell(
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    print(error)",
        out("division by zero"),
    ),
    "expected error": cell(RAISE, STORED, tags=EXPECTED),
    "expected error after a print": cell(f"print(1)\n{RAISE}", out("1"), STORED, tags=EXPECTED),
    "expected error in an earlier function": put(
        cell(f"def f():\n    {RAISE}"), cell("f()", STORED, tags=EXPECTED)
    ),
    "expected error of two lines": cell(
        "raise ValueError('a\\nb')", err("a\nb", "raise ValueError('a\\nb')"), tags=EXPECTED
    ),
    "not idempotent, tagged": cell(count("a"), out("1"), tags=TWICE),
    "two that are not idempotent": put(
        cell(count("b"), out("1"), tags=TWICE), cell(count("b"), out("2"), tags=TWICE)
    ),
    "table in HTML": cell(SHOW_TABLE, data({"text/html": TABLE, "text/plain": "lr 0.1"})),
    "formula": cell(
        "display({'text/latex': '$x^2$', 'text/plain': 'x^2'}, raw=True)",
        data({"text/latex": "$x^2$", "text/plain": "x^2"}),
    ),
    "updated display": cell(
        "shown = display('first', display_id='it')\nshown.update('last')",
        data({"text/plain": "'last'"}),
    ),
    "picture smoothed differently": cell(show(png(200)), fig(png(204))),
    "picture in fewer colors": cell(
        show(png(text="f(x) = 9")), fig(png(text="f(x) = 9", colors=64))
    ),
    "picture of measured times": cell(show(png(200)), fig(png(100)), tags=("measured",)),
    "picture, text, picture": cell(
        f"{show(png(9))}\nprint(1)\n{show(png(90))}", fig(png(9)), out("1"), fig(png(90))
    ),
    "saved picture": cell(show(png(), save="square"), fig(png(), save="square")),
    "figures drawn inline": cell(
        "import matplotlib\nprint(matplotlib.get_backend()[-6:])", out("inline")
    ),
    "raw cell": lambda nb: nb.cells.insert(
        4, v4.new_raw_cell("raw", metadata={"slideshow": {"slide_type": "notes"}})
    ),
    "picture in the text": lambda nb: nb.cells[4].update(
        source="![gray](attachment:a.png)", attachments={"a.png": {"image/png": png()}}
    ),
    "Windows line ends": file(lambda text: text.replace("\n", "\r\n")),
    "keys in another order": file(
        lambda text: json.dumps(dict(reversed(json.loads(text).items())))
    ),
    "digits in place of MNIST": put(LOAD, cell("print(90)", out("98"), tags=MNIST)),
}

OUTPUTS: Broken = {
    "wrong number": (cell("print(2 + 2)", out("5")), rf"{TEXT}\n.*-'5\\n'\n\+'4\\n'"),
    "wrong value": (cell("2 + 2", value("5")), "execute_result .*text/plain differs"),
    "wrong last digit": (cell("print(f'{2 / 3:.4f}')", out("0.6666")), TEXT),
    "wrong number, MNIST there": (cell("print(4)", out("5"), tags=MNIST), TEXT),
    "other spaces": (cell("print('a  b')", out("a b")), TEXT),
    "tab for spaces": (cell("print('a    b')", out("a\tb")), TEXT),
    "missing newline": (cell("print(1)", out("1", "")), TEXT),
    "number for nan": (cell("print(float('nan'))", out("0.0")), TEXT),
    "zero without its sign": (cell("print(-0.0)", out("0.0")), TEXT),
    "Cyrillic letter": (cell("print('x = 1')", out("\u0445 = 1")), TEXT),
    "typographic minus": (cell("print(-1)", out("\u22121")), TEXT),
    "accent of two characters": (cell("print('\\u00e9')", out("e\u0301")), TEXT),
    "no-break space": (cell("print('a b')", out("a\u00a0b")), TEXT),
    "invisible character": (cell("print('ab')", out("a\u200bb")), TEXT),
    "cut output": (cell("print('1\\n2\\n3')", out("1\n2")), TEXT),
    "lines in another order": (cell("print('b')\nprint('a')", out("a\nb")), TEXT),
    "output not stored": (cell("print(1)"), KINDS),
    "output of a silent cell": (cell("x = 1", out("1")), KINDS),
    "semicolon lost": (cell("1 + 1"), KINDS),
    "semicolon added": (cell("1 + 1;", value("2")), KINDS),
    "print in place of a value": (cell("print(2)", value("2")), KINDS),
    "value in place of a display": (cell("display(2)", value("2")), KINDS),
    "HTML not stored": (cell(SHOW_TABLE, data({"text/plain": "lr 0.1"})), KINDS),
    "HTML not displayed": (
        cell("display(2)", data({"text/html": "2", "text/plain": "2"})),
        KINDS,
    ),
    "wrong number in HTML": (
        cell(SHOW_TABLE, data({"text/html": TABLE.replace("0.1", "0.2"), "text/plain": "lr 0.1"})),
        "text/html differs",
    ),
    "color codes": (says("\x1b[31mred\x1b[0m"), "ANSI escape"),
    "progress bar": (says("50 %\r100 %"), "carriage return"),
    "21 printed lines": (says("\n".join("1" * 21)), "21 printed lines"),
    "endless line": (says("9" * 10_000), "a line of 10000 characters"),
    "seven decimals": (says(str(0.1 + 0.2)), "more than 6 decimals"),
    "memory address": (says("at 0x7f00aa00bb"), "memory address"),
    "live memory address": (cell("object()", value("<object at 0x7f00aa00bb>")), "text/plain diff"),
    "absolute path": (says("in /home/me/x.py"), "absolute path"),
    "path on Windows": (says("C:\\me\\x.py"), "absolute path"),
    "timing": (says("took 3.2 s"), "timing '3.2 s'"),
    "stderr": (cell("import sys\nprint('careful', file=sys.stderr)"), "stderr.*careful"),
    "stderr, stored": (
        cell("import sys\nprint(1, file=sys.stderr)", out("1", name="stderr")),
        r"In\[3\]: stderr",
    ),
    "warning, stored": (
        cell("import warnings\nwarnings.warn('old')", out("x.py:1: UserWarning: old")),
        "warning ':1: UserWarning'",
    ),
    "widget": (
        cell(
            "display({'application/vnd.jupyter.widget-view+json': {}}, raw=True)",
            data({"application/vnd.jupyter.widget-view+json": {}}),
        ),
        "shows .*widget",
    ),
    "script": (
        cell(
            "display({'application/javascript': '1'}, raw=True)",
            data({"application/javascript": "1"}),
        ),
        "shows .*javascript",
    ),
}

DEPENDS: Broken = {
    "not idempotent": (cell(count("c"), out("1")), "between first run and second run"),
    "shared random generator": (
        cell(
            "import numpy as np\nshared = globals().get('shared', np.random.default_rng(0))\n"
            "print(shared.integers(10**9))",
            out(str(np.random.default_rng(0).integers(10**9))),
        ),
        "between first run and second run",
    ),
    "random state": (cell("import numpy as np\nprint(np.random.rand() < 0)", out("True")), TEXT),
    "hash seed": (cell("print(hash('gradients'))", out(hashed("0"))), TEXT),
    "order of a set": (cell("print(*set('gradients'))", out("g r a d i e n t s")), TEXT),
    "working directory": (
        cell("from pathlib import Path\nprint(Path.cwd().name)", out("notebooks")),
        TEXT,
    ),
    "environment": (cell("import os\nprint(os.environ['PYTHONHASHSEED'])", out("0")), TEXT),
    "user": (cell("import getpass\nprint(getpass.getuser())", out("teacher")), "imports"),
    "processors": (
        cell("import os\nprint(os.cpu_count())", out(str(os.cpu_count()))),
        r"imports \['os'\]",
    ),
    "threads": (cell("import os\nprint(os.environ['OMP_NUM_THREADS'])", out("1")), TEXT),
    "wall clock": (cell("import time\nprint(time.time_ns())", out("1")), TEXT),
    "year": (
        cell("from datetime import date\nprint(date.today().year)", out(str(date.today().year))),
        r"imports \['datetime'\]",
    ),
    "warning": (cell("import warnings\nwarnings.warn('new')"), "stderr.*UserWarning: new"),
    "warning that Python hides": (
        cell("import warnings\nexec('warnings.warn(\"old\", DeprecationWarning)',"
            " {'__name__': 'library', 'warnings': warnings})"),
        "raised DeprecationWarning: old",
    ),
    "name of a deleted cell": (cell("print(deleted)", out("1")), "raised NameError"),
    "name of a later cell": (
        put(cell("print(later)", out("1")), cell("later = 1")),
        "raised NameError",
    ),
}  # fmt: skip

ERRORS: Broken = {
    "error gone": (cell("1;", STORED, tags=EXPECTED), "but raised nothing"),
    "error gone, none stored": (cell("1;", tags=EXPECTED), "but raised nothing"),
    "error of another type": (
        cell("raise TypeError('in-place')", STORED, tags=EXPECTED),
        "was 'ValueError: in-place', is 'TypeError: in-place'",
    ),
    "error of another text": (
        cell(RAISE, err("leaf", RAISE), tags=EXPECTED),
        r"text of this error has changed between stored and now \(PyTorch \d.*\): "
        "was 'ValueError: leaf', is 'ValueError: in-place'$",
    ),
    "error not tagged": (cell(RAISE, STORED), "raised ValueError: in-place"),
    "error with a misspelled tag": (
        cell(RAISE, STORED, tags=("raise-exception",)),
        "raised ValueError: in-place",
    ),
    "error not stored": (cell(RAISE, tags=EXPECTED), KINDS),
    "print before an error not stored": (
        cell(f"print(1)\n{RAISE}", STORED, tags=EXPECTED),
        KINDS,
    ),
    "traceback of other code": (
        cell(RAISE, err("in-place", "raise ValueError(1)"), tags=EXPECTED),
        r"traceback shows 'raise ValueError\(1\)', which no cell says",
    ),
    "traceback of another error": (
        also(
            put(cell(RAISE, STORED, tags=EXPECTED)),
            lambda nb: nb.cells[HERE].outputs[0].traceback.append("ValueError: leaf"),
        ),
        "traceback ends with another error",
    ),
    "frame of a library": (
        also(
            put(cell(RAISE, STORED, tags=EXPECTED)),
            lambda nb: nb.cells[HERE].outputs[0].traceback.insert(2, "lib/site-packages/torch"),
        ),
        "library frames",
    ),
    "assert that fails": (cell("assert 1 + 1 == 3"), "raised AssertionError"),
    "assert removed": (lambda nb: nb.cells[-6].update(source="x = 1"), "0 asserts, not"),
    "assert turned into a comment": (
        lambda nb: nb.cells[-6].update(source=nb.cells[-6].source.replace("assert 1", "# 1")),
        "asserts, not",
    ),
    "assert that cannot fail": (cell("assert True"), "cannot fail: assert True"),
    "assert of a pair": (cell("assert (1 == 2, 'wrong')"), "stderr.*SyntaxWarning"),
    "failure swallowed": (
        cell("try:\n    assert 1 == 2\nexcept AssertionError:\n    print('fine')", out("fine")),
        "except swallows AssertionError",
    ),
    "every error swallowed": (
        cell("try:\n    1 / 0\nexcept Exception:\n    print('fine')", out("fine")),
        "except swallows Exception",
    ),
    "error passed over": (
        cell("try:\n    1 / 0\nexcept ZeroDivisionError:\n    pass"),
        "except swallows ZeroDivisionError",
    ),
    "error suppressed": (
        cell("from contextlib import suppress\nwith suppress(ValueError):\n    int('a')"),
        r"imports \['contextlib'\]",
    ),
    "typing error": (cell("print(1))"), "raised SyntaxError"),
}

MARKED: Broken = {
    "comment NBVAL_SKIP": (cell("# NBVAL_SKIP\nprint(1)", out("2")), "markers that skip"),
    "comment NBVAL_IGNORE_OUTPUT": (
        cell("# NBVAL_IGNORE_OUTPUT\nprint(1)", out("2")),
        "markers that skip",
    ),
    "comment PYTEST_VALIDATE_IGNORE_OUTPUT": (
        cell("# PYTEST_VALIDATE_IGNORE_OUTPUT\nprint(1)", out("2")),
        "markers that skip",
    ),
    "comment NBVAL_RAISES_EXCEPTION": (
        cell(f"# NBVAL_RAISES_EXCEPTION\n{RAISE}", STORED),
        "raised ValueError",
    ),
    "tag nbval-skip": (cell("print(1)", out("2"), tags=("nbval-skip",)), "markers that skip"),
    "tag nbval-ignore-output": (
        cell("print(1)", out("2"), tags=("nbval-ignore-output",)),
        "markers that skip",
    ),
    "tag skip-execution": (cell("print(1)", tags=("skip-execution",)), KINDS),
    "tag remove-output": (
        cell("print(1)", out("1"), tags=("remove-output",)),
        r"unknown tags \['remove-output'\]",
    ),
    "three that are not idempotent": (
        lambda nb: [nb.cells[n].metadata.update(tags=list(TWICE)) for n in (5, 7, 9)],
        "more than 2 cells are not-idempotent",
    ),
    "two of measured times": (
        lambda nb: [nb.cells[n].metadata.update(tags=["measured"]) for n in (5, 7)],
        "more than 1 cell draws measured times",
    ),
    "no MNIST, cell not tagged": (put(LOAD, cell("print(90)", out("98"))), TEXT),
    "no MNIST, tagged cell raises": (
        put(LOAD, cell(RAISE, out("98"), tags=MNIST)),
        "raised ValueError",
    ),
    "no MNIST, tagged cell not idempotent": (
        put(LOAD, cell(count("d"), out("98"), tags=MNIST)),
        "between first run and second run",
    ),
}

CELLS: Broken = {
    "never executed": (
        lambda nb: nb.cells[HERE].update(execution_count=None, outputs=[]),
        "was never executed",
    ),
    "all outputs cleared": (
        lambda nb: [c.update(execution_count=None, outputs=[]) for c in nb.cells if "outputs" in c],
        "was never executed",
    ),
    "executed again": (lambda nb: nb.cells[HERE].update(execution_count=17), "execution counts"),
    "value of another count": (
        cell("1 + 1", value("2", count=2)),
        r"Out\[n\] has another number",
    ),
    "two cells exchanged": (swap, r"execution counts \[1, 2, 4, 3, 5"),
    "two cells exchanged, renumbered": (
        also(put(cell("y = 5"), cell("print(y)", out("5"))), swap, renumber),
        "raised NameError",
    ),
    "cell deleted": (lambda nb: nb.cells.pop(HERE), r"execution counts \[1, 2, 4"),
    "cell deleted, renumbered": (
        also(
            put(cell("y = 5"), cell("print(y)", out("5"))), lambda nb: nb.cells.pop(HERE), renumber
        ),
        "raised NameError",
    ),
    "cell twice": (
        lambda nb: nb.cells.insert(HERE, deepcopy(nb.cells[HERE])),
        "ids are not unique",
    ),
    "code turned into text": (
        lambda nb: nb.cells.__setitem__(HERE, prose("print(1 + 1)")),
        "execution counts",
    ),
    "two outputs exchanged": (cell(f"print(1)\n{show(png())}", fig(png()), out("1")), KINDS),
}

CODE: Broken = {
    "failing shell command": (cell("!false"), "a shell command"),
    "shell command's result": (cell("files = !ls"), "a shell command"),
    "magic": (put(cell("%precision 3", value("'%.3f'"))), "a magic"),
    "magic of the cell": (cell("%%capture\nprint(1)"), "a magic"),
    "magic that is not there": (cell("%nonsense"), "raised UsageError"),
    "magic by function": (cell("get_ipython().run_line_magic('time', '1')"), "get_ipython"),
    "question to the help": (cell("print?"), "not plain Python"),
    "question to the user": (cell("input('x: ')"), "raised StdinNotImplementedError"),
    "exit": (put(cell("exit()")), r"In\[3\]: exit"),
    "sys.exit": (cell("import sys\nsys.exit(1)"), r"In\[3\]: sys.exit"),
    "dead kernel": (put(cell("import os\nos._exit(1)")), "lost the kernel: Kernel died"),
    "cell after a dead kernel": (
        put(cell("import os\nos._exit(1)"), cell("1;")),
        r"In\[4\] '1;': not run, because an earlier cell lost the kernel",
    ),
    "endless cell": (put(cell("while True:\n    pass")), "lost the kernel: A cell timed out"),
    "print after the end": (
        put(cell("from threading import Timer\nTimer(0.05, print, ['late']).start()")),
        r"imports \['threading'\]",
    ),
}

PICTURES: Broken = {
    "other picture": (cell(show(png(200)), fig(png(100))), "gray levels"),
    "picture slightly darker": (cell(show(png(200)), fig(png(188))), "gray levels"),
    "one digit in a picture": (
        cell(show(png(250, (800, 450), "f(x) = 9")), fig(png(250, (800, 450), "f(x) = 8"))),
        "gray levels",
    ),
    "point in a picture moved": (
        cell(show(png(250, (800, 450), " o")), fig(png(250, (800, 450), "o "))),
        "gray levels",
    ),
    "two pictures exchanged": (
        cell(f"{show(png(9))}\n{show(png(90))}", fig(png(90)), fig(png(9))),
        "gray levels",
    ),
    "picture of another size": (cell(show(png()), fig(png(size=(65, 48)))), "sizes"),
    "picture not stored": (cell(show(png())), KINDS),
    "picture not drawn": (cell("print(1)", fig(png()), out("1")), KINDS),
    "picture drawn once more": (cell(f"{show(png())}\n{show(png())}", fig(png())), KINDS),
    "picture only as text": (cell(show(png()), data({"text/plain": ALT})), KINDS),
    "empty picture": (cell(show(png()), fig("")), "not a picture"),
    "half a picture": (cell(show(png()), fig(png()[:80])), "not a picture"),
    "no base64": (cell(show(png()), fig("iVBORw0KGgo*")), "not a picture"),
    "JPEG": (
        cell(
            show("").replace("image/png", "image/jpeg"),
            data({"image/jpeg": "", "text/plain": ALT}, {"image/jpeg": {"alt": ALT}}),
        ),
        r"shows \['image/jpeg'\]",
    ),
    "other kind of file": (cell(show("R0lGODlh"), fig("R0lGODlh")), "not a PNG"),
    "picture of 81 kB": (
        lambda nb: nb.cells[3].outputs[0].data.update({"image/png": png()[:11] + "A" * 108_000}),
        "picture > 80 kB",
    ),
    "other alternative text": (cell(show(png()), fig(png(), f"{ALT}.")), "text/plain differs"),
    "short alternative text": (
        cell(show(png(), "square"), fig(png(), "square")),
        "shorter than 40",
    ),
    "alternative text not as text": (
        lambda nb: nb.cells[3].outputs[0].data.pop("text/plain"),
        "text/plain is not the alternative text",
    ),
    "name of the file lost": (cell(show(png(), save="a"), fig(png())), "metadata differs"),
    "figure left to matplotlib": (
        says("<Figure size 800x450>"),
        "a figure without its picture",
    ),
    "measured, other text": (
        cell(show(png()), fig(png(), f"{ALT}."), tags=("measured",)),
        "text/plain differs",
    ),
    "measured, other size": (
        cell(show(png()), fig(png(size=(65, 48))), tags=("measured",)),
        "sizes",
    ),
}

FILES: Broken = {
    "no cell": (lambda nb: nb.cells.clear(), "has no code cell"),
    "no code cell": (
        lambda nb: nb.update(cells=[c for c in nb.cells if c.cell_type != "code"]),
        "has no code cell",
    ),
    "empty file": (lambda nb: b"", "is not a notebook"),
    "half a file": (file(lambda text: text[:2000]), "is not a notebook"),
    "merge conflict": (
        file(lambda text: text.replace(' "cells"', '<<<<<<< HEAD\n "cells"')),
        "is not a notebook",
    ),
    "something after the end": (file(lambda text: f"{text}\n]"), "is not a notebook"),
    "byte order mark": (file(lambda text: f"\ufeff{text}"), "is not a notebook"),
    "format 3": (lambda nb: dump(v4.downgrade(nb)).encode(), "nbformat 3, not 4.5"),
}

METADATA: Broken = {
    "format 4.4": (lambda nb: nb.update(nbformat_minor=4), "nbformat 4.4, not 4.5"),
    "id missing": (lambda nb: nb.cells[1].pop("id"), "'id' is a required property"),
    "id twice": (lambda nb: nb.cells[1].update(id=nb.cells[3].id), "ids are not unique"),
    "id with a space": (lambda nb: nb.cells[1].update(id="a b"), "'a b' does not match"),
    "outputs missing": (
        lambda nb: nb.cells[HERE].pop("outputs"),
        "'outputs' is a required property",
    ),
    "state of widgets": (lambda nb: nb.metadata.update(widgets={}), "not kernelspec and language"),
    "kernel of another language": (
        lambda nb: nb.metadata.kernelspec.update(name="ir", language="R"),
        "kernelspec {.*'ir'",
    ),
    "no kernel named": (lambda nb: nb.metadata.pop("kernelspec"), "not kernelspec and language"),
    "version of Python": (
        lambda nb: nb.metadata.language_info.update(version="3.12"),
        "not just a name",
    ),
    "time of execution": (
        lambda nb: nb.cells[3].metadata.update(execution={}),
        r"cell 4: unknown metadata \['execution'\]",
    ),
    "output collapsed": (
        lambda nb: nb.cells[3].metadata.update(collapsed=True),
        r"unknown metadata \['collapsed'\]",
    ),
    "output hidden": (
        lambda nb: nb.cells[3].metadata.update(jupyter={"outputs_hidden": True}),
        "cell 4: hidden outputs",
    ),
}


STYLE: Broken = {
    "w.data": (cell("w.data -= 1"), r"In\[3\]: w.data"),
    "red": (cell("plot(x, color='red')"), "color='red'"),
    "long cells": (
        lambda nb: [nb.cells[n].update(source="x = 1\n" * 7) for n in range(5, 25, 2)],
        "median of lines",
    ),
    "long cell": (cell("x = 1\n" * 21), "max of lines"),
    "few cells": (lambda nb: nb.cells.pop(HERE), "14 code cells"),
    "three code cells in a row": (lambda nb: [nb.cells.pop(n) for n in (4, 5)], "three code cells"),
    "no number in the title": (lambda nb: nb.cells[0].update(source="# Square"), "the first line"),
    "no aims": (lambda nb: nb.cells[0].update(source="# 1. Square it"), "'You will be able to'"),
    "no prediction": (lambda nb: nb.cells[2].update(source="Guess it."), r"\*\*Predict"),
    "no setup": (lambda nb: nb.cells[1].metadata.update(tags=[]), "setup cells are"),
    "pip": (lambda nb: nb.cells[1].update(source="# pip install torch"), "! or pip"),
    "no summary": (lambda nb: nb.cells.pop(), "the last sections"),
    "no hint": (lambda nb: nb.cells[-3].update(source="No hint."), "not in this order"),
    "silent stub": (lambda nb: nb.cells[-4].outputs.clear(), "a stub does not"),
    "wrong solution": (
        lambda nb: nb.cells[-2].outputs[0].update(text="f: incorrect"),
        "a solution does not",
    ),
    "open solution": (lambda nb: nb.cells[-2].metadata.pop("cellView"), "not collapsed"),
    "British spelling": (lambda nb: nb.cells[4].update(source="The colour."), "spelling 'colour'"),
    "picture without text": (
        lambda nb: nb.cells[4].update(source="![](../conftest.py)"),
        "without alternative text",
    ),
    "level left out": (lambda nb: nb.cells[4].update(source="#### Deep"), "heading ####"),
    "no slide type": (lambda nb: nb.cells[4].metadata.pop("slideshow"), "no slide_type"),
    "dead anchor": (
        lambda nb: nb.cells[4].update(source='<a id="here"></a> [more](#gone)'),
        "link to #gone",
    ),
    "dead link": (lambda nb: nb.cells[4].update(source="[more](gone.md)"), "which is not there"),
}

BROKEN = OUTPUTS | DEPENDS | ERRORS | MARKED | CELLS | CODE | PICTURES | FILES
WITHOUT_KERNEL = METADATA | STYLE  # what no kernel can see, only the rules read
