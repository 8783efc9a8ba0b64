"""Build build/slides/: each notebook as one HTML deck that needs no network, and its PDF handout.

The slides are the notebook's own cells. `slideshow.slide_type` says where a slide begins and what
is skipped or spoken; of a prose cell, what stands between `<!-- notes -->` and `<!-- /notes -->`
goes to the speaker's notes. An output waits for a click of its own, so that the room can predict
it. Of a cell tagged `slide-output` (a drawing, say) only the output is shown.
"""

import argparse
import base64
import os
import re
import shutil
import sys
import time
from pathlib import Path

import matplotlib
import nbformat
from nbconvert import SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from playwright.sync_api import Page, sync_playwright
from pygments.formatters import HtmlFormatter

from tools.execute import BUILD, find
from tools.stamp import BADGE, ROOT, write

DECK, MODULES, SLIDES = ROOT / "tools/deck", ROOT / "node_modules", BUILD / "slides"
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]
SOURCE_SANS = MODULES / "reveal.js/dist/theme/fonts/source-sans-pro"
DEJAVU = Path(matplotlib.get_data_path()) / "fonts/ttf"
FONTS = {
    ("Source Sans", "normal", 400): SOURCE_SANS / "source-sans-pro-regular.woff",
    ("Source Sans", "italic", 400): SOURCE_SANS / "source-sans-pro-italic.woff",
    ("Source Sans", "normal", 600): SOURCE_SANS / "source-sans-pro-semibold.woff",
    ("DejaVu Mono", "normal", 400): DEJAVU / "DejaVuSansMono.ttf",
}
NOTES = re.compile(r"<!-- notes -->(.*?)<!-- /notes -->", re.DOTALL)


def font_faces() -> str:
    """The fonts as CSS: a slide that fits here fits on every machine."""
    rules = []
    for (family, style, weight), path in FONTS.items():
        data = base64.b64encode(path.read_bytes()).decode()
        rules.append(
            f"@font-face {{ font-family: '{family}'; font-style: {style}; font-weight: {weight};"
            f" src: url(data:font/{path.suffix[1:]};base64,{data}) }}"
        )
    return "\n".join(rules)


def styles() -> str:
    """reveal.js's layout, the highlighting of code, the course's look, and the fonts."""
    layout = (MODULES / "reveal.js/dist/reveal.css").read_text("utf-8")
    code = HtmlFormatter(style="a11y-high-contrast-light").get_style_defs(".highlight")
    return "\n".join([layout, code, (DECK / "deck.css").read_text("utf-8"), font_faces()])


def scripts() -> list[str]:
    """The deck's scripts in the order in which they run."""
    paths = [DECK / "before.js", MODULES / "mathjax/es5/tex-svg.js"]
    paths += [MODULES / "reveal.js/dist/reveal.js", MODULES / "reveal.js/plugin/notes/notes.js"]
    texts = [path.read_text("utf-8") for path in [*paths, DECK / "after.js"]]
    return [text.replace("</script", r"<\/script") for text in texts]


def prepare(notebook: NotebookNode) -> NotebookNode:
    """The notebook with spoken passages in cells of their own and links that lead to decks."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type != "markdown":
            code = cell.source.replace("# @title ", "# ", 1)  # Colab's, for a folded cell
            cell.source = re.sub(r"\n{3,}", "\n\n", code)
            continue
        text = BADGE.sub("", cell.source)
        text = re.sub(r"\]\((\d\d_\w+)\.ipynb(#[^)]*)?\)", r"](\1.html)", text)
        cell.source = NOTES.sub("", text)
        if spoken := "\n\n".join(match[1].strip() for match in NOTES.finditer(text)):
            cells.append(new_markdown_cell(spoken, metadata={"slideshow": {"slide_type": "notes"}}))
    notebook.cells = cells
    return notebook


def render(path: Path) -> str:
    """The deck of a notebook: one HTML text."""
    notebook = prepare(nbformat.read(path, as_version=4))
    title = re.match(r"# (.*)", notebook.cells[0].source)[1]
    exporter = SlidesExporter(
        template_name="deck",
        extra_template_basedirs=[str(DECK.parent)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    deck = {"title": title, "css": styles(), "scripts": scripts()}
    return exporter.from_notebook_node(notebook, resources={"deck": deck})[0]


def find_browser() -> str | None:
    """The path of the browser: `COURSE_BROWSER`, or the first of `BROWSERS` that is installed."""
    return os.environ.get("COURSE_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)


def build(paths: list[Path], folder: Path) -> None:
    """Write every deck into `folder`; a PDF of the same name from an earlier build is removed."""
    for path in paths:
        deck = folder / f"{path.stem}.html"
        write(deck, render(path))
        deck.with_suffix(".pdf").unlink(missing_ok=True)


def print_deck(page: Page, deck: Path) -> None:
    """Beside the deck its handout: a page per slide, tasks without solutions."""
    page.goto(f"{deck.absolute().as_uri()}?print-pdf")
    page.evaluate("window.deckReady")
    write(deck.with_suffix(".pdf"), page.pdf(prefer_css_page_size=True, print_background=True))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.slides", description=__doc__)
    parser.add_argument("names", nargs="*", help="notebooks by the beginning of their names")
    paths, start = find(parser.parse_args().names), time.perf_counter()
    if not (MODULES / ".package-lock.json").exists():
        sys.exit("reveal.js and MathJax are missing: run npm ci")
    decks = [SLIDES / f"{path.stem}.html" for path in paths]
    build(paths, SLIDES)
    if browser := find_browser():
        with sync_playwright() as playwright:
            page = playwright.chromium.launch(executable_path=browser).new_page()
            for deck in decks:
                print_deck(page, deck)
    else:
        print("no PDF: install Chromium or Chrome, or name it in COURSE_BROWSER")
    for deck in decks:
        sizes = [
            f"{f.suffix[1:]} {f.stat().st_size / 1e6:.1f} MB" for f in SLIDES.glob(f"{deck.stem}.*")
        ]
        print(deck.stem, *sorted(sizes))
    print(f"{SLIDES.relative_to(ROOT).as_posix()}: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
