"""Prepares the notebooks for the web: ways to open them, alternative texts, folded cells.

What Jupyter and Colab need is replaced by what a page needs; the files in `notebooks/` stay as
they are, and are what the pages offer for download.
"""

import re
from html import escape
from pathlib import Path

import nbformat
from docutils import nodes
from nbformat import NotebookNode
from sphinx.application import Sphinx

from tools.stamp import BADGE

ANCHOR = re.compile(r'^<a id="([\w-]+)"></a>$', re.MULTILINE)
TITLE = re.compile(r"# @title ([^{\n]+?) *(?:\{.*\})?\n")


def prepare(app: Sphinx, docname: str, content: list[str]) -> None:
    """Rewrite a notebook before it is parsed; other pages stay as they are."""
    if Path(app.env.doc2path(docname)).suffix == ".ipynb":
        notebook = nbformat.reads(content[0], as_version=4)
        download = f"{{download}}`Download this notebook <{docname}.ipynb>`"
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = BADGE.sub(rf"{download} · \g<0>", cell.source)
                cell.source = ANCHOR.sub(r"(\1)=", cell.source)
            else:
                prepare_code(cell)
        content[0] = nbformat.writes(notebook)


def prepare_code(cell: NotebookNode) -> None:
    """Give the picture its alternative text, and a cell with a `# @title` its title to fold under.

    Such cells are folded here, and so must not be folded by MyST-NB as well.
    """
    cell.metadata.tags = [tag for tag in cell.metadata.get("tags", []) if tag != "hide-cell"]
    if found := TITLE.match(cell.source):
        cell.metadata.fold = found[1]
        cell.source = cell.source[found.end() :]
    for output in cell.outputs:
        if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
            cell.metadata.mystnb = {"image": {"alt": " ".join(alt.split())}}


def fold(app: Sphinx, doctree: nodes.document) -> None:
    """Put every cell that has a title to fold under into `<details>`."""
    for cell in doctree.findall(nodes.container):
        if title := cell.get("cell_metadata", {}).get("fold"):
            summary = f'<details class="fold"><summary>{escape(title)}</summary>'
            cell.insert(0, nodes.raw("", summary, format="html"))
            cell.append(nodes.raw("", "</details>", format="html"))


def setup(app: Sphinx) -> None:
    app.connect("source-read", prepare)
    app.connect("doctree-read", fold)
