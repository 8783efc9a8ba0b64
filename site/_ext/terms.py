"""Links in the notebooks' prose: the first use of each glossary term, sections and notebooks.

Headings, code, formulas and what is a link already stay as they are.
"""

import re
from collections.abc import Iterator

from docutils import nodes
from places import link
from sphinx.application import Sphinx

UNTOUCHED = (nodes.title, nodes.literal, nodes.reference, nodes.math, nodes.math_block, nodes.raw)
PLACE = r"(?<=section )\d\.\d+|(?<=sections )\d\.\d+|notebook 0\d"


def targets(app: Sphinx, here: str) -> dict[str, tuple[str, str]]:
    """Page and anchor of every term, in lower case, section number and notebook.

    Words that share a definition share its anchor, so that only the first of them is linked.
    """
    found = {place: (page, id) for place, (page, id, _) in app.env.places.items()}
    for item in app.env.get_doctree("glossary").findall(nodes.definition_list_item):
        words = [plain(word.astext()) for word in item.findall(nodes.term)]
        found |= dict.fromkeys(words, ("glossary", item[0]["ids"][0]))
    numbered = {f"notebook {page[:2]}": (page, "") for page in app.env.found_docs}
    return found | {name: at for name, at in numbered.items() if at[0] != here}


def plain(text: str) -> str:
    """A text of the same length in lower case, with straight apostrophes."""
    return text.lower().replace("’", "'")


def link_terms(app: Sphinx, doctree: nodes.document, here: str) -> None:
    """Link the page of a notebook, text by text."""
    if not re.match(r"\d", here):
        return
    at = targets(app, here)
    words = sorted((w for w in at if not re.match(r"\d|notebook 0|[0-9a-f]{8}$", w)), key=len)
    pattern = re.compile(rf"({PLACE})|\b({'|'.join(map(re.escape, words[::-1]))})e?s?\b")
    seen: set[str] = set()
    for text in list(doctree.findall(nodes.Text)):
        if not inside(text, UNTOUCHED) and not isinstance(text.parent, nodes.literal_block):
            parts = list(linked(app, here, text, pattern, at, seen))
            text.parent.replace(text, parts)


def inside(node: nodes.Node, kinds: tuple[type, ...]) -> bool:
    """Whether the node stands in an element of one of these kinds."""
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def linked(
    app: Sphinx,
    here: str,
    text: nodes.Text,
    pattern: re.Pattern,
    at: dict[str, tuple[str, str]],
    seen: set[str],
) -> Iterator[nodes.Node]:
    """Yield the parts of a text, some of them links; terms that were seen before stay text."""
    end = 0
    for found in pattern.finditer(plain(text)):
        page, id = at.get(found[found.lastindex], ("", ""))
        if not page or id in seen:
            continue
        if page == "glossary":
            seen.add(id)
        yield nodes.Text(text[end : found.start()])
        word = text[found.start() : found.end()]
        yield link(app, here, page, id, word, classes=["term"] if page == "glossary" else [])
        end = found.end()
    yield nodes.Text(text[end:])


def setup(app: Sphinx) -> None:
    app.connect("doctree-resolved", link_terms)
