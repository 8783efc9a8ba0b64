"""What every notebook looks like, as rules. Each takes a notebook and yields what is wrong with it.

No kernel runs here: conftest.py executes the notebooks and compares their outputs.
"""

import ast
import base64
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import nbformat.reader
import pytest
from nbformat import NotebookNode, v4
from nbformat.validator import iter_validate

from utils.course import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
Problems = Iterator[str]

UNSTABLE = {
    "memory address": r"\b0x[0-9a-fA-F]{6,}",
    "absolute path": r"(?<![\w.+/])/(home|root|tmp|usr|opt|var|mnt|content|Users)/|\b[A-Z]:\\\w",
    "color or carriage return": r"\x1b\[|\r",
    "timing": r"\b\d+(\.\d+)? (s|ms|µs|us|ns|seconds)\b|\dit/s|Wall time",
    "warning": r":\d+: \w*Warning\b",
    "more than 6 decimals": r"\d\.\d{7,}",
}
NOT_OURS = (  # not American, or translated word for word from another language
    r"colour|favour|behaviour|(label|model|travel)l(ed|ing)|\bgrey|centre|analys(e[ds]?\b|ing)"
    r"|(normal|optim|visual|recogn|vector|minim|maxim|initial|regular|summar)is(e|ing|ation)"
    r"|\b(anew|dearer|to and fro|be had|all the same|one and the same|of one (size|shape)|whoever"
    r"|beforehand|without a word|for want of|stands? (in|on|at|between|behind))\b"
)
TAGS = {"setup", "remove-cell", "exercise", "solution", "hide-cell", "mnist"}
TAGS |= {"raises-exception", "slide-output", "slide-picture"}
SLIDES = {"slide", "subslide", "fragment", "skip", "notes", "-"}
METADATA = {"tags", "slideshow", "cellView", "jupyter", "mystnb"}
SHOWN = {"text/plain", "text/html", "image/png"}
MODULES = {"collections", "contextlib", "copy", "functools", "itertools", "math", "sys", "warnings"}
MODULES |= {"matplotlib", "numpy", "sklearn", "torch", "torchvision", "tqdm", "utils"}
REFUSED = r"(sys\.)?exit|os\._exit|quit|get_ipython|exec|eval|compile|__import__|open|input"
REFUSED += r"|.*\bhub|torch\.load|.*\.modules"
SCRIPT = r"<script|<iframe|javascript:|<[^>]*\son\w+\s*="
MOST_LINES = 25  # of a code cell: what is longer fits on no slide, and makes more than one move


@cache
def read(path: Path) -> NotebookNode:
    """The notebook as it is on disk: `nbformat.read` would repair it silently."""
    return nbformat.reader.reads(path.read_text(encoding="utf-8"))


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def prose(cell: NotebookNode) -> str:
    """Markdown without code and formulas, in which anything may look like a link or a heading."""
    if cell.cell_type != "markdown":
        return ""
    return re.sub(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$", "", cell.source, flags=re.DOTALL)


def shown(cell: NotebookNode) -> str:
    """All text among the cell's outputs, without the pictures that are embedded in HTML."""
    texts = []
    for out in cell.outputs:
        texts += [text for mime, text in out.get("data", {}).items() if mime.startswith("text/")]
        texts += [out.get("text", ""), out.get("evalue", ""), *out.get("traceback", [])]
    return re.sub(r"base64,[\w+/=]+", "", "\n".join(texts))


def format_is_canonical(nb: NotebookNode) -> Problems:
    """nbformat 4.5, unique ids, and no metadata that changes from run to run."""
    yield from (error.message for error in iter_validate(nb, version=4, version_minor=5))
    if len({cell.get("id") for cell in nb.cells}) < len(nb.cells):
        yield "cell ids are not unique"
    if nb.metadata.get("kernelspec", {}).get("name") != "python3":
        yield f"kernelspec {nb.metadata.get('kernelspec')}"
    if nb.metadata.get("language_info") != {"name": "python"} or len(nb.metadata) > 2:
        yield f"metadata {nb.metadata}: run `make refresh`"
    for number, cell in enumerate(nb.cells, 1):
        if unknown := (set(cell.metadata) - METADATA) | (set(tags(cell)) - TAGS):
            yield f"cell {number}: unknown metadata or tags {sorted(unknown)}"
        if cell.metadata.get("slideshow", {}).get("slide_type", "skip") not in SLIDES:
            yield f"cell {number}: unknown slide_type"


def executed_in_order(nb: NotebookNode) -> Problems:
    """Every code cell was executed once, from top to bottom, in a fresh kernel."""
    counts = [cell.execution_count for cell in code_cells(nb)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts {counts}: run `make refresh`"


def outputs_are_clean(nb: NotebookNode) -> Problems:
    """Nothing that differs from machine to machine, nothing that a frontend would run."""
    for number, cell in enumerate(code_cells(nb), 1):
        for name, pattern in UNSTABLE.items():
            if match := re.search(pattern, shown(cell)):
                yield f"In[{number}]: {name} {match[0]!r}"
        for out in cell.outputs:
            if out.get("name") == "stderr":
                yield f"In[{number}]: stderr"
            if unknown := set(out.get("data", {})) - SHOWN:
                yield f"In[{number}]: shows {sorted(unknown)}, not one of {sorted(SHOWN)}"


def errors_are_wanted(nb: NotebookNode) -> Problems:
    """A stored error is announced by its tag and shows the cell's own frame, not the library's."""
    for number, cell in enumerate(code_cells(nb), 1):
        errors = [out for out in cell.outputs if out.output_type == "error"]
        if bool(errors) != ("raises-exception" in tags(cell)):
            yield f"In[{number}]: an error output and the tag raises-exception go together"
        frames = "\n".join(line for out in errors for line in out.traceback)
        if re.search(r"site-packages|\bFile [\"']?[/~]", frames):
            yield f"In[{number}]: library frames in the traceback"
        if "NBVAL_" in cell.source:
            yield f"In[{number}]: a marker that skips or ignores"


def pictures_are_described(nb: NotebookNode) -> Problems:
    """Alternative text, the same in text/plain and in metadata, and none without its picture."""
    for number, cell in enumerate(code_cells(nb), 1):
        if "<Figure" in shown(cell):
            yield f"In[{number}]: a figure without its picture: use show(fig, alt)"
        for out in (out for out in cell.outputs if "image/png" in out.get("data", {})):
            alt = out.metadata.get("image/png", {}).get("alt", "")
            if len(alt) < 40 or alt != out.data.get("text/plain"):
                yield f"In[{number}]: alternative text {alt!r}"


def code_is_plain(nb: NotebookNode) -> Problems:
    """Short cells of plain Python that fetch nothing, and asserts that can fail."""
    for number, cell in enumerate(code_cells(nb), 1):
        if (lines := len(cell.source.splitlines())) > MOST_LINES:
            yield f"In[{number}]: {lines} lines, more than {MOST_LINES}"
        if "setup" in tags(cell):
            continue
        for node in ast.walk(ast.parse(cell.source)):  # magics and shell commands do not parse
            if isinstance(node, ast.Name | ast.Attribute) and re.fullmatch(
                REFUSED, ast.unparse(node)
            ):
                yield f"In[{number}]: {ast.unparse(node)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [getattr(node, "module", None) or alias.name for alias in node.names]
                modules += [f"{modules[0]}.{alias.name}" for alias in node.names]
                if any(m.split(".")[0] not in MODULES or m.endswith(".hub") for m in modules):
                    yield f"In[{number}]: imports {modules[0]}"
            if isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant):
                yield f"In[{number}]: cannot fail: {ast.unparse(node)}"
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None or ast.unparse(node.type) in ("Exception", "AssertionError")
            ):
                yield f"In[{number}]: an except that swallows every error"


def skeleton_is_complete(nb: NotebookNode) -> Problems:
    """A numbered title, the setup cell first, and exercises, summary, and solutions at the end."""
    if not re.match(r"# \d\. \w", nb.cells[0].source):
        yield "the first line is not `# N. Verb and object`"
    if [n for n, cell in enumerate(code_cells(nb), 1) if "setup" in tags(cell)] != [1]:
        yield "the setup cell is not In[1]"
    text = "\n".join(map(prose, nb.cells))
    titles = re.findall(r"^## (?:[\d.]+ )?(.*?)\s*$", text, re.MULTILINE)
    if titles[-3:] != ["Exercises", "Summary", "Solutions"]:
        yield "the last three sections are not Exercises, Summary, and Solutions"


def exercises_are_complete(nb: NotebookNode) -> Problems:
    """As many stubs that say so, with hints, as folded solutions that are found correct."""
    stubs, solutions = (
        [cell for cell in code_cells(nb) if tag in tags(cell)] for tag in ("exercise", "solution")
    )
    if len(stubs) != len(solutions) or not stubs:
        yield f"{len(stubs)} exercises, {len(solutions)} solutions"
    if sum("<details" in cell.source for cell in nb.cells) < len(stubs):
        yield "an exercise has no hint in <details>"
    if any("not done yet" not in shown(cell) for cell in stubs):
        yield "a stub does not print `not done yet`"
    for cell in solutions:
        if not {"hide-cell"} <= set(tags(cell)) or not cell.metadata.jupyter.source_hidden:
            yield "a solution is not folded (tag hide-cell, jupyter.source_hidden)"
        if not re.search(r"\bcorrect\b", shown(cell)) or "not done yet" in shown(cell):
            yield "a solution does not print `correct`"


def prose_is_clean(nb: NotebookNode) -> Problems:
    """American words, no script, pictures with alternative text, headings that skip no level."""
    level = 0
    for number, cell in enumerate(nb.cells, 1):
        text = re.sub(r"\]\([^)]*\)|https?://\S+", "", prose(cell) or cell.source)
        if match := re.search(NOT_OURS, text, re.IGNORECASE):
            yield f"cell {number}: the words {match[0]!r}"
        if cell.cell_type != "code" and (match := re.search(SCRIPT, cell.source, re.IGNORECASE)):
            yield f"cell {number}: a script, {match[0]!r}"
        if re.search(r"!\[\s*\]\(|<img(?![^>]*alt=\"[^\"])", prose(cell)):
            yield f"cell {number}: picture without alternative text"
        for hashes in re.findall(r"^(#+) ", prose(cell), re.MULTILINE):
            if len(hashes) > level + 1:
                yield f"cell {number}: heading {hashes} after level {level}"
            level = len(hashes)


def links_resolve(nb: NotebookNode) -> Problems:
    """A relative link leads to a file, seen from the folder of notebooks; `#name` to an anchor."""
    anchors = re.findall(r'<a id="([^"]+)"></a>', "\n".join(map(prose, nb.cells)))
    for number, cell in enumerate(nb.cells, 1):
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(cell)):
            path, _, name = target.partition("#")
            if re.match(r"\w+:", target):
                continue
            if (
                path
                and not (ROOT / "notebooks" / path).exists()
                or not path
                and name not in anchors
            ):
                yield f"cell {number}: link to {target}, which is not there"


RULES: list[Callable[[NotebookNode], Problems]] = [
    format_is_canonical,
    executed_in_order,
    outputs_are_clean,
    errors_are_wanted,
    pictures_are_described,
    code_is_plain,
    skeleton_is_complete,
    exercises_are_complete,
    prose_is_clean,
    links_resolve,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_rule(path: Path, rule: Callable[[NotebookNode], Problems]) -> None:
    problems = list(rule(read(path)))
    assert not problems, "\n".join([path.name, *problems])


@pytest.mark.parametrize(
    "cell",
    [
        v4.new_code_cell("import requests, torch"),
        v4.new_code_cell("def f():\n    from subprocess import run"),
        v4.new_code_cell("from torch import hub"),
        v4.new_code_cell("torch.hub.load('a/b', 'c')"),
        v4.new_code_cell("run = eval"),
        v4.new_code_cell("assert True"),
        v4.new_code_cell("try:\n    f()\nexcept Exception:\n    pass"),
        v4.new_code_cell("a = 1\n" * (MOST_LINES + 1)),
        v4.new_markdown_cell("<img src='x' onerror='alert()'>"),
        v4.new_markdown_cell("[x](javascript:alert())"),
        v4.new_markdown_cell("[x](no_such_file.md)"),
        v4.new_markdown_cell("a grey picture"),
        v4.new_markdown_cell("The gradients stand in the boxes."),
    ],
    ids=lambda cell: cell.source[:20],
)
def test_rules_refuse(cell: NotebookNode) -> None:
    nb = v4.new_notebook(cells=[cell])
    assert [*code_is_plain(nb), *prose_is_clean(nb), *links_resolve(nb)]


PATTERNS = "Makefile", "*.md", "data/*.md", "site/*.md", "utils/*.py", "tools/*.py"
PAGES = [path for pattern in PATTERNS for path in ROOT.glob(pattern)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_words_of_pages_and_messages(path: Path) -> None:
    words = re.finditer(NOT_OURS, path.read_text("utf-8"), re.IGNORECASE)
    assert not [match[0] for match in words]


def test_notebooks_are_numbered_and_share_the_setup_cell() -> None:
    numbers = [read(path).cells[0].source[2] for path in NOTEBOOKS]
    assert [f"0{number}" for number in numbers] == [path.stem[:2] for path in NOTEBOOKS]
    assert len({code_cells(read(path))[0].source for path in NOTEBOOKS}) == 1


def test_index_of_pitfalls_quotes_every_stored_error() -> None:
    nb = read(ROOT / "notebooks/03_pitfalls.ipynb")
    quotes = tuple(
        re.findall(r"^\| `([^`]+)`", "\n".join(c.source for c in nb.cells), re.MULTILINE)
    )
    errors = [out for cell in code_cells(nb) for out in cell.outputs if out.output_type == "error"]
    assert errors and not [out.evalue for out in errors if not out.evalue.startswith(quotes)]


def test_every_figure_is_the_picture_of_one_output() -> None:
    outputs = [out for path in NOTEBOOKS for cell in code_cells(read(path)) for out in cell.outputs]
    saved = [
        (out.metadata["image/png"]["save"], base64.b64decode(out.data["image/png"]))
        for out in outputs
        if "save" in out.get("metadata", {}).get("image/png", {})
    ]
    files = {path.stem: path.read_bytes() for path in (ROOT / "figures").glob("*.png")}
    assert sorted(name for name, _ in saved) == sorted(files), "outputs' names and figures/*.png"
    changed = [name for name, picture in saved if picture != files[name]]
    assert not changed, "run `make refresh`: figures differ from the notebooks' outputs"
