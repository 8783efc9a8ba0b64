"""What every notebook looks like. No kernel runs here: conftest.py compares the outputs."""

import ast
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tools.execute import FIGURES, clean, find, saved_pictures
from utils.course import ROOT

TAGS = {"setup", "remove-cell", "exercise", "solution", "hide-cell", "mnist"}
TAGS |= {"raises-exception", "slide-output", "slide-picture", "slide-title"}
MODULES = {"matplotlib", "numpy", "sklearn", "torch", "torchvision", "tqdm", "utils"}
MOST_LINES = 25  # of a code cell: what is longer fits on no slide, and makes more than one move
THIS_MACHINE = r"(?<![\w.+/])(~|/(home|root|tmp|usr|opt|var|mnt|content|Users))/|\b[A-Z]:\\"
UNWANTED = [  # patterns of what no stored output may have, each with an example
    (r"\b0x[0-9a-fA-F]{6,}", "<object at 0x7f1c2a9b3c10>"),
    (rf"{THIS_MACHINE}|site-packages", "File ~/course/a.py"),
    (r"\b\d+(\.\d+)? (s|ms|µs|us|ns|seconds)\b|\dit/s|Wall time", "took 3.1 s"),
    (r"\d\.\d{7,}", "0.1234567"),
    (r'"stderr"', '"name": "stderr"'),  # a warning
    (r"<Figure", "<Figure size 640x480 with 1 Axes>"),  # not shown by show(fig, alt)
    (r'(?<!\\)"(application|image|text)/(?!plain|html|png)', '"image/svg+xml": "<svg/>"'),
]
NOT_OURS = (  # not American, or translated word for word from another language
    r"colour|favour|behaviour|(label|model|travel)l(ed|ing)|\bgrey|centre|analys(e[ds]?\b|ing)"
    r"|(normal|optim|visual|recogn|vector|minim|maxim|initial|regular|summar)is(e|ing|ation)"
    r"|\b(anew|dearer|to and fro|be had|all the same|one and the same|of one (size|shape)|whoever"
    r"|beforehand|without a word|for want of|stands? (in|on|at|between|behind))\b"
)
PAGES = "Makefile", "*.md", "data/*.md", "site/*.md", "utils/*.py", "tools/*.py"
NOTEBOOKS = find([])


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def notebook(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode, tag: str = "") -> list[NotebookNode]:
    """Return the code cells, or those of them with a tag."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if not tag or tag in cell.metadata.get("tags", [])]


def text_of(path: Path) -> str:
    """Return what a person wrote: a notebook without its outputs, or any other file."""
    if path.suffix == ".ipynb":
        return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    return path.read_text("utf-8")


def test_it_is_stored_as_make_refresh_stores_it(path: Path, notebook: NotebookNode) -> None:
    """It is valid, has unique cell ids and no other metadata, and ran once from top to bottom."""
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == [*range(1, len(counts) + 1)], "run `make refresh`"
    clean(notebook)
    assert nbformat.writes(notebook) + "\n" == path.read_text("utf-8"), "run `make refresh`"


def test_outputs_show_nothing_of_this_machine_or_this_run(notebook: NotebookNode) -> None:
    for cell in code_cells(notebook):
        shown = json.dumps(cell.outputs, ensure_ascii=False).replace("\\n", "\n")
        shown = re.sub(r"[\w+/=]{200,}", "", shown)  # pictures
        unwanted = [match[0] for pattern, _ in UNWANTED if (match := re.search(pattern, shown))]
        assert not unwanted, f"In[{cell.execution_count}]"


@pytest.mark.parametrize("pattern, example", UNWANTED)
def test_unwanted_patterns_find_their_examples(pattern: str, example: str) -> None:
    assert re.search(pattern, example)


def test_code_is_short_and_imports_what_colab_has(notebook: NotebookNode) -> None:
    for cell in code_cells(notebook):
        lines = len(cell.source.splitlines())
        assert lines <= MOST_LINES, f"In[{cell.execution_count}]: {lines} lines"
        nodes = [*ast.walk(ast.parse(cell.source))]  # magics and shell commands do not parse
        names = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
        names += [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
        assert {name.split(".")[0] for name in names} <= MODULES | sys.stdlib_module_names


def test_title_sections_and_tags_are_those_of_every_notebook(path, notebook) -> None:
    assert re.match(rf"# {int(path.stem[:2])}\. \w", notebook.cells[0].source)
    assert "setup" in code_cells(notebook)[0].metadata.tags
    titles = re.findall(r"^## (?:[\d.]+ )?(.+)", text_of(path), re.MULTILINE)
    assert titles[-3:] == ["Exercises", "Summary", "Solutions"]
    assert {tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])} <= TAGS


def test_each_exercise_has_a_hint_and_a_folded_solution_that_is_correct(notebook) -> None:
    tasks, solutions = (code_cells(notebook, tag) for tag in ("exercise", "solution"))
    assert sum("<details" in cell.source for cell in notebook.cells) >= len(tasks) > 0
    for task, solution in zip(tasks, solutions, strict=True):
        name = re.search(r'check\("([^"]+)"', task.source)[1]
        assert task.outputs[-1].text.startswith(f"Exercise {name}: ○")
        assert solution.outputs[-1].text.startswith(f"Exercise {name}: ✓ correct")
        assert "hide-cell" in solution.metadata.tags and solution.metadata.jupyter.source_hidden


def test_links_lead_to_files_seen_from_the_notebook(path: Path) -> None:
    """The site has all pages in one folder, so that it does not see what is missing here."""
    targets = re.findall(r"\]\(([\w./-]+\.(?:ipynb|md|py|png))\b", text_of(path))
    assert [target for target in targets if not (path.parent / target).exists()] == []


FILES = [*NOTEBOOKS, *(path for pattern in PAGES for path in ROOT.glob(pattern))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_words_are_american_and_not_translated(file: Path) -> None:
    text = re.sub(r"\]\([^)]*\)|https?://\S+", "", text_of(file))
    assert [match[0] for match in re.finditer(NOT_OURS, text, re.IGNORECASE)] == []


def test_every_figure_is_the_picture_of_one_output() -> None:
    figures = [(path.name, path.read_bytes()) for path in sorted(FIGURES.glob("*.png"))]
    pictures = sorted(saved_pictures())
    assert [name for name, _ in pictures] == [name for name, _ in figures]
    assert pictures == figures, "figures differ from the notebooks' outputs: run `make refresh`"
