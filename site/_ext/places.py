"""Links to places in the notebooks, and what other pages show of them, without copies.

A place is a section, by its number (`2.4`), or a code cell, by its id. The role `at` links to
it under the section's title; a place that does not exist is a warning, which fails the build.
The directive `lesson` shows a section's Predict questions, `cards` a card for each notebook.
"""

import re
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective, SphinxRole

SECTION = re.compile(r"^(\d\.\d+) ")
PREDICT = re.compile(r"^> \*\*Predict.*(?:\n>.*)*", re.MULTILINE)
MINUTES = re.compile(r"\*\*Time\*\*: (\d+) minutes, and (\d+) more for the exercises")


def collect(app: Sphinx, doctree: nodes.document) -> None:
    """Note the place of every numbered section and every code cell, and give cells an anchor."""
    env = app.env
    places = env.__dict__.setdefault("places", {})
    for section in doctree.findall(nodes.section):
        title = section[0].astext()
        if found := SECTION.match(title):
            places[found[1]] = env.docname, section["ids"][0], title
    cells = source_cells(Path(env.doc2path(env.docname)))
    for node in doctree.findall(nodes.container):
        if "cell_index" in node:
            id = cells[node["cell_index"]].id
            node["ids"].append(f"cell-{id}")
            places[id] = env.docname, f"cell-{id}", section_title(node)


def source_cells(path: Path) -> list[nbformat.NotebookNode]:
    """The cells of a notebook; none of any other file."""
    return nbformat.read(path, as_version=4).cells if path.suffix == ".ipynb" else []


def section_title(node: nodes.Node) -> str:
    """The title of the numbered section around a node, or of its page."""
    while not isinstance(node.parent, nodes.document):
        node = node.parent
        if isinstance(node, nodes.section) and SECTION.match(node[0].astext()):
            break
    return node[0].astext()


class At(SphinxRole):
    """The role `at`: a link to a place, under the title of its section."""

    def run(self) -> tuple[list[nodes.Node], list]:
        return [place_reference(self.text, self.env.docname)], []


def place_reference(place: str, docname: str) -> nodes.Node:
    """A link to a place that is resolved when all pages have been read."""
    options = {"refdomain": "", "reftype": "at", "reftarget": place, "refwarn": True}
    return addnodes.pending_xref("", nodes.inline("", place), refdoc=docname, **options)


def resolve(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, _content: nodes.Element
) -> nodes.Node | None:
    """The finished link, or None for a place that does not exist."""
    if node["reftype"] == "at" and node["reftarget"] in env.places:
        docname, anchor, title = env.places[node["reftarget"]]
        return link(app, node["refdoc"], docname, anchor, title)
    return None


def link(app: Sphinx, here: str, docname: str, anchor: str, text: str, **attributes) -> nodes.Node:
    """A link from page `here` to an anchor of page `docname`."""
    uri = app.builder.get_relative_uri(here, docname) + (f"#{anchor}" if anchor else "")
    return nodes.reference("", text, internal=True, refuri=uri, **attributes)


class Lesson(SphinxDirective):
    """`{lesson} 1.1, 6 minutes`: the section's title, its Predict questions, then the content."""

    has_content, required_arguments, final_argument_whitespace = True, 1, True

    def run(self) -> list[nodes.Node]:
        number, minutes = self.arguments[0].split(", ")
        head = nodes.paragraph(classes=["lesson"])
        head += [place_reference(number, self.env.docname), nodes.inline("", f", {minutes}")]
        questions = "\n\n".join(PREDICT.findall(self.section(number)))
        content = "\n".join(self.content)
        return [head, *self.parse_text_to_nodes(f"{questions}\n\n{content}")]

    def section(self, number: str) -> str:
        """The prose of a section; none if there is no such section (the link will complain)."""
        (path,) = Path(self.env.srcdir).glob(f"0{number[0]}_*.ipynb")
        self.env.note_dependency(str(path))
        prose = "\n\n".join(c.source for c in source_cells(path) if c.cell_type == "markdown")
        return prose.partition(f"## {number} ")[2].partition("\n## ")[0]


class Cards(SphinxDirective):
    """`{cards}`: what each notebook promises, and its minutes, in the notebook's own words."""

    def run(self) -> list[nodes.Node]:
        cards = [card(path) for path in sorted(Path(self.env.srcdir).glob("*.ipynb"))]
        return self.parse_text_to_nodes("\n".join(["::::{grid} 1\n:gutter: 2\n", *cards, "::::"]))


def card(path: Path) -> str:
    """The card of one notebook, from its first two cells."""
    first, second = (cell.source for cell in source_cells(path)[:2])
    title, promise = first.splitlines()[0].lstrip("# "), first.split("\n\n")[-1]
    minutes, more = MINUTES.search(second).groups()
    head = f":::{{grid-item-card}} {title}\n:link: {path.stem}\n:link-type: doc\n"
    return f"{head}\n{promise}\n\n**{minutes} minutes**, and {more} for the exercises\n:::"


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", collect)
    app.connect("missing-reference", resolve)
    app.add_role("at", At())
    app.add_directive("lesson", Lesson)
    app.add_directive("cards", Cards)
