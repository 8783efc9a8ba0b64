"""Build build/slides/: each notebook as one HTML deck that needs no network, and as a PDF.

A cell's slide type says where a slide begins and what is skipped or spoken. The tag `slide-output`
hides a cell's code, and `solution` moves a cell behind the cell with the same call of `check`.
"""

import html
import re
import shutil
import sys
from pathlib import Path

import matplotlib
import nbformat
from nbconvert import SlidesExporter
from playwright.sync_api import Browser, Error, Page, Playwright, sync_playwright
from traitlets.config import Config

from tools.execute import BUILD, find
from utils.course import ROOT


def prepare(cell: nbformat.NotebookNode) -> None:
    """Turn links to HTML, close gaps in code, and leave out a cell without a slide type."""
    text = re.sub(r"\.(ipynb|md)(#[^)]*)?\)", ".html)", cell.source)
    cell.source = re.sub(r"\n{3,}", "\n\n", text.replace("# @title ", "# "))
    cell.metadata.setdefault("slideshow", {"slide_type": "skip"})


def add_opening(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Show below the title what the cells with the tag `slide-title` show, and all decks."""
    chosen = [cell for cell in notebook.cells if "slide-title" in cell.metadata.get("tags", [])]
    outputs = [output for cell in chosen for output in cell.outputs]
    decks = "<nav><p>Computing gradients in PyTorch</p>"
    for other in sorted(path.parent.glob("*.ipynb")):
        title = nbformat.read(other, as_version=4).cells[0].source.splitlines()[0].lstrip("# ")
        here = ' aria-current="page"' if other == path else ""
        decks += f'<a href="{other.stem}.html"{here}>{html.escape(title)}</a>'
    metadata = {"slideshow": {"slide_type": "-"}, "tags": ["slide-output", "slide-picture"]}
    notebook.cells[1:1] = [
        nbformat.v4.new_code_cell(outputs=outputs, metadata=metadata),
        nbformat.v4.new_markdown_cell(f"{decks}</nav>", metadata=metadata),
    ]


def build(path: Path, folder: Path) -> Path:
    """Write the deck of a notebook into `folder`, from the template in tools/deck/."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        prepare(cell)
    add_opening(notebook, path)
    exporter = SlidesExporter(
        config=Config(CSSHTMLHeaderPreprocessor={"style": "a11y-high-contrast-light"}),
        template_name="deck",
        extra_template_basedirs=[str(ROOT / "tools")],
        extra_template_paths=[str(ROOT / "node_modules"), matplotlib.get_data_path()],
    )
    deck = folder / f"{path.stem}.html"
    deck.write_text(exporter.from_notebook_node(notebook)[0], "utf-8")
    return deck


def launch(playwright: Playwright) -> Browser:
    """Start the Chromium that is installed, or else Chrome; raise Error where both are missing."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    return playwright.chromium.launch(executable_path=path, channel=None if path else "chrome")


def print_pdf(page: Page, deck: Path) -> None:
    """Print a deck beside itself: one page for each slide, tasks without solutions."""
    page.goto(f"{deck.as_uri()}?print-pdf")
    page.evaluate("window.deckReady")
    page.pdf(path=deck.with_suffix(".pdf"), prefer_css_page_size=True, print_background=True)


if __name__ == "__main__":
    (BUILD / "slides").mkdir(parents=True, exist_ok=True)
    decks = [build(path, BUILD / "slides") for path in find(sys.argv[1:])]
    try:
        with sync_playwright() as playwright:
            page = launch(playwright).new_page()
            for deck in decks:
                print_pdf(page, deck)
    except Error as error:
        sys.exit(f"The decks are written, but no PDF: {error.message.strip().splitlines()[0]}")
