"""The house style as rules: each takes a notebook and yields what is wrong with it. No kernel runs.

A rule speaks about every notebook alike; allowances are written where they are made.
"""

import ast
import base64
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from statistics import median, quantiles

import nbformat.reader
import pytest
from nbformat import NotebookNode
from nbformat.validator import iter_validate

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
Problems = Iterator[str]

SMELLS = {
    "memory address": r"\b0x[0-9a-fA-F]{6,}",
    "absolute path": r"(?<![\w.+/])/(home|root|tmp|usr|opt|var|mnt|content|Users)/|\b[A-Z]:\\\w",
    "ANSI escape": r"\x1b\[",
    "carriage return": r"\r",
    "timing": r"\b\d+(\.\d+)? (s|ms|µs|us|ns|seconds)\b|\dit/s|Wall time",
    "warning": r":\d+: \w*Warning\b",
    "more than 6 decimals": r"\d\.\d{7,}",
}
BRITISH = (
    r"colour|favour|behaviour|(label|model|travel)l(ed|ing)|\bgrey|centre|analys(e[ds]?\b|ing)"
    r"|(normal|optim|visual|recogn|vector|minim|maxim|initial|regular|summar)is(e|ing|ation)"
)
RED_OR_GREEN = r"^(c|\w*colors?)=.*'(red|green|r|g)'"
SLIDE_TYPES = {"slide", "subslide", "fragment", "skip", "notes", "-"}
TAGS = {"setup", "exercise", "solution", "hide-cell", "mnist", "measured"}
TAGS |= {"raises-exception", "not-idempotent", "slide-output", "slide-picture"}
METADATA = {"tags", "slideshow", "cellView", "jupyter"}
MIMES = {"text/plain", "text/html", "text/latex", "image/png"}
MODULES = {"utils", "torch", "numpy", "matplotlib", "tqdm", "collections", "copy", "functools"}
MODULES |= {"itertools", "math", "sys", "timeit", "warnings"}
ASSERTS = {1: 6, 2: 10, 3: 10, 4: 11, 5: 5}  # in each notebook: what lost one prints the same


@cache
def read(path: Path) -> NotebookNode:
    """The notebook as it is on disk: `nbformat.read` would repair it silently."""
    nb = nbformat.reader.reads(path.read_text(encoding="utf-8"))
    assert nb.nbformat == 4, f"{path.name}: nbformat {nb.nbformat}, not 4.5"
    return nb


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def title_number(nb: NotebookNode) -> int:
    """N of the first line `# N. Verb and object`, 0 if there is none."""
    match = re.match(r"# (\d)\. \w", nb.cells[0].source)
    return int(match[1]) if match else 0


def prose(cell: NotebookNode) -> str:
    """Markdown without code and formulas, in which anything may look like a link or a heading."""
    if cell.cell_type != "markdown":
        return ""
    return re.sub(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$", "", cell.source, flags=re.DOTALL)


def shown(output: NotebookNode) -> str:
    """The text of an output, without the pictures that are embedded in HTML."""
    texts = [text for mime, text in output.get("data", {}).items() if mime.startswith("text/")]
    texts += [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", [])]
    return re.sub(r"base64,[\w+/=]+", "", "\n".join(texts))


def printed(cell: NotebookNode) -> str:
    """What the cell prints, and the value of its last line."""
    drawn = {"image/png", "text/html"}  # their text is read in place of the figure
    values = [out.data for out in cell.outputs if "data" in out and not drawn & {*out.data}]
    plain = [data.get("text/plain", "") for data in values]
    return "\n".join([out.text.rstrip() for out in cell.outputs if "text" in out] + plain)


def syntax(cell: NotebookNode) -> list[ast.AST]:
    """Every node of the cell's code, none if it is not Python."""
    try:
        return list(ast.walk(ast.parse(cell.source)))
    except SyntaxError:
        return []


def line_counts(nb: NotebookNode) -> list[int]:
    """Non-blank lines of each code cell but the setup cell."""
    cells = [cell for cell in code_cells(nb) if "setup" not in tags(cell)]
    return [sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in cells]


def rhythm(nb: NotebookNode) -> dict[str, float]:
    """The numbers of the rhythm rule."""
    lines = line_counts(nb)
    return {
        "code": len(code_cells(nb)),
        "markdown": sum(cell.cell_type == "markdown" for cell in nb.cells),
        "median": median(lines),
        "p90": quantiles(lines, n=10, method="inclusive")[-1],
        "max": max(lines),
    }


def format_is_canonical(nb: NotebookNode) -> Problems:
    """nbformat 4.5, unique ids, and no metadata that changes from run to run."""
    yield from (error.message for error in iter_validate(nb, version=4, version_minor=5))
    if (nb.nbformat, nb.nbformat_minor) != (4, 5):
        yield f"nbformat {nb.nbformat}.{nb.nbformat_minor}, not 4.5"
    if len({cell.get("id") for cell in nb.cells}) < len(nb.cells):
        yield "cell ids are not unique"
    if set(nb.metadata) != {"kernelspec", "language_info"}:
        yield f"metadata {sorted(nb.metadata)}, not kernelspec and language_info"
    kernelspec = nb.metadata.get("kernelspec", {})
    if set(kernelspec) != {"name", "display_name", "language"} or kernelspec.name != "python3":
        yield f"kernelspec {kernelspec}"
    if set(nb.metadata.get("language_info", {})) != {"name"}:
        yield "language_info is not just a name"
    for number, cell in enumerate(nb.cells, 1):
        if unknown := set(cell.metadata) - METADATA:
            yield f"cell {number}: unknown metadata {sorted(unknown)}"
        if unknown := set(tags(cell)) - TAGS:
            yield f"cell {number}: unknown tags {sorted(unknown)}"
        if cell.metadata.get("jupyter", {}).get("outputs_hidden"):
            yield f"cell {number}: hidden outputs"


def executed_in_order(nb: NotebookNode) -> Problems:
    """Every code cell was executed once, from top to bottom, in a fresh kernel."""
    cells = code_cells(nb)
    counts = [cell.execution_count for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        yield f"execution counts {counts}"
    for number, cell in enumerate(cells, 1):
        if any(out.get("execution_count", number) != number for out in cell.outputs):
            yield f"In[{number}]: Out[n] has another number"


def outputs_are_clean(nb: NotebookNode) -> Problems:
    """Nothing machine-made is stored, nothing long, nothing unstable."""
    for number, cell in enumerate(code_cells(nb), 1):
        for out in cell.outputs:
            for name, pattern in SMELLS.items():
                if match := re.search(pattern, shown(out)):
                    yield f"In[{number}]: {name} {match[0]!r}"
            if out.get("name") == "stderr":
                yield f"In[{number}]: stderr"
            if unknown := set(out.get("data", {})) - MIMES:
                yield f"In[{number}]: shows {sorted(unknown)}, not one of {sorted(MIMES)}"
        lines = printed(cell).splitlines()
        if len(lines) > 20:
            yield f"In[{number}]: {len(lines)} printed lines > 20"
        if (width := max(map(len, lines), default=0)) > 120:
            yield f"In[{number}]: a line of {width} characters > 120"


def errors_are_wanted(nb: NotebookNode) -> Problems:
    """A stored error is announced by its tag and shows the cell's own frame, not the library's."""
    sources = {line.strip() for cell in code_cells(nb) for line in cell.source.splitlines()}
    for number, cell in enumerate(code_cells(nb), 1):
        errors = [out for out in cell.outputs if out.output_type == "error"]
        if bool(errors) != ("raises-exception" in tags(cell)):
            yield f"In[{number}]: an error output and the tag raises-exception go together"
        frames = "\n".join(line for out in errors for line in out.traceback)
        if re.search(r"site-packages|\bFile [\"']?[/~]", frames):
            yield f"In[{number}]: library frames in the traceback"
        for line in re.findall(r"^-+> \d+ (.*)", frames, re.MULTILINE):
            if line.strip() not in sources:
                yield f"In[{number}]: the traceback shows {line!r}, which no cell says"
        if any(out.traceback[-1:] != [f"{out.ename}: {out.evalue}"] for out in errors):
            yield f"In[{number}]: the traceback ends with another error than the stored one"
        if any("skip" in tag or "ignore" in tag for tag in tags(cell)) or "NBVAL_" in cell.source:
            yield f"In[{number}]: markers that skip or ignore"
    if sum("not-idempotent" in tags(cell) for cell in nb.cells) > 2:
        yield "more than 2 cells are not-idempotent"
    if sum("measured" in tags(cell) for cell in nb.cells) > 1:
        yield "more than 1 cell draws measured times, which are not compared"


def pictures_are_described(nb: NotebookNode) -> Problems:
    """PNG of at most 80 kB with alternative text, the same in text/plain and in metadata."""
    for number, cell in enumerate(code_cells(nb), 1):
        for out in cell.outputs:
            png = out.get("data", {}).get("image/png")
            if png is None:
                if "<Figure" in shown(out):
                    yield f"In[{number}]: a figure without its picture"
                continue
            alt = out.metadata.get("image/png", {}).get("alt", "")
            if not png.startswith("iVBORw0KGgo"):
                yield f"In[{number}]: not a PNG"
            if len(png) * 3 / 4 > 80_000:
                yield f"In[{number}]: picture > 80 kB"
            if len(alt) < 40:
                yield f"In[{number}]: alternative text {alt!r} is shorter than 40 characters"
            if alt != out.data.get("text/plain"):
                yield f"In[{number}]: text/plain is not the alternative text"


def code_is_plain(nb: NotebookNode) -> Problems:
    """No magics, no exit, no `.data` (notebook 3 may: it warns of it), neither red nor green, and
    no module by which a cell could show where, when or by whom it was run.
    """
    for number, cell in enumerate(code_cells(nb), 1):
        if not syntax(cell):
            yield f"In[{number}]: not plain Python: a magic, a shell command or a typing error"
        for node in syntax(cell):
            if isinstance(node, ast.Name | ast.Attribute):
                name = ast.unparse(node)
                if re.fullmatch(r"(sys\.)?exit|os\._exit|quit|get_ipython", name):
                    yield f"In[{number}]: {name}"
                if re.search(r"(?<!utils)\.data$", name) and title_number(nb) != 3:
                    yield f"In[{number}]: {name}"
            if isinstance(node, ast.keyword) and re.search(RED_OR_GREEN, ast.unparse(node)):
                yield f"In[{number}]: {ast.unparse(node)}"
            if isinstance(node, ast.Import | ast.ImportFrom) and "setup" not in tags(cell):
                modules = {getattr(node, "module", "") or alias.name for alias in node.names}
                if unknown := {name.partition(".")[0] for name in modules} - MODULES:
                    yield f"In[{number}]: imports {sorted(unknown)}"


def asserts_are_kept(nb: NotebookNode) -> Problems:
    """No assert is lost, none is always true, and nothing swallows what it raises."""
    count = 0
    for number, cell in enumerate(code_cells(nb), 1):
        for node in syntax(cell):
            if isinstance(node, ast.Assert):
                count += 1
                if isinstance(node.test, ast.Constant):
                    yield f"In[{number}]: cannot fail: {ast.unparse(node)}"
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                silent = all(isinstance(line, ast.Pass) for line in node.body)
                if silent or re.search(r"everything|\bException|AssertionError", caught):
                    yield f"In[{number}]: except swallows {caught}"
    if count != (expected := ASSERTS.get(title_number(nb))):
        yield f"{count} asserts, not {expected}: put the lost one back or correct ASSERTS"


def rhythm_is_kept(nb: NotebookNode) -> Problems:
    """Short cells, and prose between them."""
    numbers = rhythm(nb)
    for name, limit in {"median": 6, "p90": 12, "max": 20}.items():
        if numbers[name] > limit:
            yield f"{name} of lines per code cell is {numbers[name]:.1f} > {limit}"
    if not 15 <= numbers["code"] <= 40:
        yield f"{numbers['code']} code cells, not 15 to 40"
    if numbers["markdown"] < numbers["code"]:
        yield f"{numbers['markdown']} markdown cells < {numbers['code']} code cells"
    kinds = "".join(cell.cell_type[0] for cell in nb.cells)
    if "ccc" in kinds:
        yield f"three code cells in a row, from cell {kinds.index('ccc') + 1}"


def skeleton_is_complete(nb: NotebookNode) -> Problems:
    """Title, aims, setup, predictions, and the three closing sections."""
    if not title_number(nb):
        yield "the first line is not `# N. Verb and object`"
    markdown = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
    for words in ("You will be able to", "You need", "minutes"):
        if words.lower() not in "\n".join(markdown[:3]).lower():
            yield f"{words!r} is not in the first three markdown cells"
    if "**Predict" not in "\n".join(markdown):
        yield "no **Predict** question"
    setups = [number for number, cell in enumerate(code_cells(nb), 1) if "setup" in tags(cell)]
    if setups != [1]:
        yield f"setup cells are In{setups}, not In[1]"
    elif re.search(r"(?m)^\s*!|\bpip\b", code_cells(nb)[0].source):
        yield "the setup cell uses ! or pip"
    titles = re.findall(r"^## (?:[\d.]+ )?(.*?)\s*$", "\n".join(map(prose, nb.cells)), re.MULTILINE)
    if titles[-3:] != ["Check yourself", "Exercises", "Summary"]:
        yield f"the last sections are {titles[-3:]}"


def exercises_are_complete(nb: NotebookNode) -> Problems:
    """Each is a stub that says so, a hint, and a collapsed solution that is found correct."""
    cells = [cell for cell in nb.cells if cell.cell_type == "markdown" or tags(cell)]
    marks = "".join(
        "e" if "exercise" in tags(cell) else
        "s" if "solution" in tags(cell) else
        "h" if "<details" in cell.source else "-"
        for cell in cells
    )  # fmt: skip
    if not re.fullmatch(r"([-h]*e-*h[-h]*s)+[-h]*", marks):
        yield f"exercise, hints, solution are not in this order: {marks.replace('-', '')}"
    for cell in cells:
        if "exercise" in tags(cell) and "not done yet" not in printed(cell):
            yield "a stub does not print `not done yet`"
        if "solution" not in tags(cell):
            continue
        hidden = cell.metadata.get("jupyter", {}).get("source_hidden")
        if not (hidden and "hide-cell" in tags(cell) and cell.metadata.get("cellView") == "form"):
            yield "a solution is not collapsed (hide-cell, jupyter.source_hidden, cellView form)"
        if not re.search(r"\bcorrect\b", printed(cell)) or "not done yet" in printed(cell):
            yield "a solution does not print `correct`"


def prose_is_clean(nb: NotebookNode) -> Problems:
    """American spelling, pictures with alternative text, headings that skip no level, slides."""
    level = 0
    for number, cell in enumerate(nb.cells, 1):
        text = re.sub(r"\]\([^)]*\)|https?://\S+", "", prose(cell) or cell.source)
        if match := re.search(BRITISH, text, re.IGNORECASE):
            yield f"cell {number}: spelling {match[0]!r}"
        if re.search(r"!\[\s*\]\(|<img(?![^>]*alt=\"[^\"])", prose(cell)):
            yield f"cell {number}: picture without alternative text"
        for hashes in re.findall(r"^(#+) ", prose(cell), re.MULTILINE):
            if len(hashes) > level + 1 or (len(hashes) == 1 and number > 1):
                yield f"cell {number}: heading {hashes} after level {level}"
            level = len(hashes)
        if cell.metadata.get("slideshow", {}).get("slide_type") not in SLIDE_TYPES:
            yield f"cell {number}: no slide_type"


def links_resolve(nb: NotebookNode) -> Problems:
    """A relative link leads to a file, seen from the folder of notebooks; `#name` to an anchor."""
    anchors = re.findall(r'<a id="([^"]+)"></a>', "\n".join(map(prose, nb.cells)))
    for number, cell in enumerate(nb.cells, 1):
        targets = re.findall(r"\]\(([^)#\s]+)|(?:src|href)=\"([^\"#]+)", prose(cell))
        for target in map("".join, targets):
            if not re.match(r"\w+:", target) and not (ROOT / "notebooks" / target).exists():
                yield f"cell {number}: link to {target}, which is not there"
        for name in set(re.findall(r"\]\(#([^)]+)\)", prose(cell))) - set(anchors):
            yield f"cell {number}: link to #{name}, which is not there"


RULES: list[Callable[[NotebookNode], Problems]] = [
    format_is_canonical,
    executed_in_order,
    outputs_are_clean,
    errors_are_wanted,
    pictures_are_described,
    code_is_plain,
    asserts_are_kept,
    rhythm_is_kept,
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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_name_and_size(path: Path) -> None:
    assert re.fullmatch(r"0[1-5]_[a-z_]+", path.stem)
    assert title_number(read(path)) == int(path.stem[:2])
    assert path.stat().st_size <= 400_000


def test_setup_cell_is_the_same_everywhere() -> None:
    assert NOTEBOOKS, "there are no notebooks"
    assert len({code_cells(read(path))[0].source for path in NOTEBOOKS}) == 1


def test_index_of_pitfalls_quotes_every_stored_error() -> None:
    nb = read(ROOT / "notebooks/03_pitfalls.ipynb")
    index = "\n".join(cell.source for cell in nb.cells[:5] if cell.cell_type == "markdown")
    quotes = tuple(re.findall(r"^\| `([^`]+)`", index, re.MULTILINE))
    errors = [out for cell in code_cells(nb) for out in cell.outputs if out.output_type == "error"]
    assert len(errors) >= 8
    assert not [out.evalue for out in errors if not out.evalue.startswith(quotes)]


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


def test_rhythm_table() -> None:
    """Prints it: `pytest -s -k rhythm_table`."""
    print(f"\n{'notebook':28}{'code':>9}{'markdown':>9}{'median':>9}{'p90':>9}{'max':>9}{'kB':>9}")
    for path in NOTEBOOKS:
        numbers = rhythm(read(path)) | {"kB": path.stat().st_size / 1000}
        print(f"{path.stem:28}" + "".join(f"{number:9.3g}" for number in numbers.values()))
