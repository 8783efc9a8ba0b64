"""The web edition, built once and read from the disk in a real browser, as its readers do."""

import filecmp
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from playwright.sync_api import Page

from tools import site as builder
from tools.stamp import NOTEBOOKS, ROOT

pytestmark = pytest.mark.filterwarnings("ignore:.*Check CHANGES for Sphinx API")
AXE = ROOT / "node_modules/axe-core/axe.min.js"
NAMES = [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
PAGES = ["index", *NAMES, "glossary", "departures", "instructors", "search"]
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}


class Parsed(HTMLParser):
    """A page's ids, links and pictures, each with the tags around it."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[tuple[str, str, list[str]]] = []
        self.pictures: list[dict] = []
        self.around: list[str] = []
        self.text = path.read_text("utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        values = dict(attributes)
        self.ids |= {values.get("id")}
        if tag == "a":
            self.links.append((values.get("href") or "", values.get("class") or "", [*self.around]))
        if tag == "img":
            self.pictures.append(values)
        if tag not in VOID:
            self.around.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while tag in self.around and self.around.pop() != tag:
            pass


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site."""
    if not (AXE.exists() and builder.MATHJAX.exists()):
        pytest.skip("no MathJax or axe-core in node_modules: run npm ci")
    target = tmp_path_factory.mktemp("web") / "site"
    builder.build(target)
    return target


@pytest.fixture(scope="module")
def parsed(site: Path) -> dict[str, Parsed]:
    return {name: Parsed(site / f"{name}.html") for name in PAGES}


def opened(page: Page, site: Path, name: str) -> Page:
    """The page, when its formulas are typeset and its script has run."""
    page.goto((site / f"{name}.html").as_uri())
    page.wait_for_function("document.body.dataset.ready === 'true'")
    return page


def cells(name: str) -> list:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells


def sections(name: str) -> dict[str, str]:
    """The titles of a notebook's sections by their numbers."""
    sources = (cell.source for cell in cells(name) if cell.cell_type == "markdown")
    return dict(re.findall(r"^## (\d\.\d+) (.+)$", "\n".join(sources), re.MULTILINE))


def minutes(name: str) -> tuple[int, int]:
    """The minutes that a notebook states, for its sections and for its exercises."""
    stated = r"\*\*Time\*\*: (\d+) minutes, and (\d+) more for the exercises"
    first, second = re.search(stated, cells(name)[1].source).groups()
    return int(first), int(second)


def open_to_axe(page: Page) -> None:
    """Load axe-core, and leave one token of each color of code, since it looks at all for long."""
    page.evaluate("""for (const code of document.querySelectorAll('pre')) {
        const seen = window.seen ??= new Set();
        for (const token of code.querySelectorAll('span')) {
            const kind = code.parentElement.parentElement.className + token.className;
            seen.has(kind) ? token.replaceWith(...token.childNodes) : seen.add(kind);
        }
    }""")
    page.evaluate(AXE.read_text("utf-8"))


def violations(page: Page, options: dict) -> list[str]:
    """What axe-core finds wrong; it may not fetch style sheets, which a file:// page forbids."""
    found = page.evaluate(f"axe.run(document, {json.dumps({'preload': False} | options)})")
    return [
        f"{problem['id']}: {node['html'][:200]}"
        for problem in found["violations"]
        for node in problem["nodes"]
    ]


@pytest.mark.parametrize("name", PAGES)
def test_page_is_accessible_and_fits_a_phone(page: Page, site: Path, name: str) -> None:
    """In one test, since typesetting the formulas takes longer than all that is asked here."""
    open_to_axe(opened(page, site, name))
    assert violations(page, {"resultTypes": ["violations"]}) == []
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.evaluate("Promise.all(document.getAnimations().map(fading => fading.finished))")
    colors = {"runOnly": ["color-contrast", "link-in-text-block"]}
    assert violations(page, colors) == []

    page.set_viewport_size({"width": 400, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    scrollers = """[...document.querySelectorAll('.bd-article *')].filter(e =>
        e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX == 'auto')"""
    page.wait_for_function(f"{scrollers}.every(e => e.closest('[tabindex]'))")
    assert page.evaluate(f"{scrollers}.length") > 0 or name not in NAMES
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_links_lead_somewhere(site: Path, parsed: dict[str, Parsed]) -> None:
    for name, page in parsed.items():
        for href, _, _ in page.links:
            link = urlsplit(href)
            assert link.scheme in ("", "https", "mailto"), f"{name}: {href}"
            path = unquote(link.path) or f"{name}.html"
            if link.scheme:
                continue
            assert (site / path).is_file(), f"{name}: {href}"
            if link.fragment and path.endswith(".html"):
                assert unquote(link.fragment) in parsed[path[:-5]].ids, f"{name}: {href}"


def test_every_picture_is_described(parsed: dict[str, Parsed]) -> None:
    for name in NAMES:
        stored = [
            " ".join(output.metadata["image/png"]["alt"].split())
            for cell in cells(name)
            for output in cell.get("outputs", [])
            if "image/png" in output.get("data", {})
        ]
        pictures = [p for p in parsed[name].pictures if p["src"].startswith("_images/")]
        assert [picture["alt"] for picture in pictures] == stored
    assert all(picture.get("alt") for page in parsed.values() for picture in page.pictures)


def test_figures_to_play_with_are_not_escaped(parsed: dict[str, Parsed]) -> None:
    outputs = [
        (name, output.data["text/html"])
        for name in NAMES
        for cell in cells(name)
        for output in cell.get("outputs", [])
        if "text/html" in output.get("data", {})
    ]
    if not outputs:
        pytest.skip("no notebook holds HTML yet")
    assert all(html in parsed[name].text for name, html in outputs)


def test_nothing_of_the_network_is_used(site: Path) -> None:
    for path in site.glob("*.html"):
        assert not re.search(
            r'<(script|link|img|iframe)[^>]+(src|href)="(https?:)?//', path.read_text("utf-8")
        )


def test_notebook_page_offers_its_file_and_its_neighbors(site: Path, parsed: dict) -> None:
    for before, name, after in zip(PAGES, PAGES[1:], PAGES[2:], strict=False):
        hrefs = [href for href, _, _ in parsed[name].links]
        assert f"{before}.html" in hrefs
        assert f"{after}.html" in hrefs or after == "search"
        if name in NAMES:
            (copy,) = {href for href in hrefs if href.endswith(f"{name}.ipynb")}
            assert filecmp.cmp(site / copy, NOTEBOOKS / f"{name}.ipynb", shallow=False)


def test_search_finds_a_name_in_code(page: Page, site: Path) -> None:
    opened(page, site, "glossary").keyboard.press("Control+k")
    page.keyboard.type("retain_graph")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results li a").all_text_contents()
    assert "1. Differentiate a polynomial" in found


def test_keyboard_skips_to_the_text_and_opens_a_solution(page: Page, site: Path) -> None:
    opened(page, site, NAMES[0]).keyboard.press("Tab")
    focused = page.locator(":focus")
    assert focused.inner_text() == "Skip to main content" and focused.is_visible()
    fold = page.locator("details.fold", has_text="Solution 1.1")
    solution = fold.locator("pre").first
    assert not solution.is_visible()
    fold.locator("summary").focus()
    page.keyboard.press("Enter")
    assert solution.is_visible()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_solutions_and_setup_are_folded(parsed: dict[str, Parsed]) -> None:
    for name in NAMES:
        titles = re.findall(r"^# @title ([^{\n]+?) *(?:\{.*)?$", source_of(name), re.MULTILINE)
        folds = re.findall(r'<details class="fold"><summary>(.*?)</summary>', parsed[name].text)
        assert [fold.replace("&#x27;", "'") for fold in folds] == titles
        assert len(folds) > 1


def source_of(name: str) -> str:
    return "\n".join(cell.source for cell in cells(name))


def test_departures_are_thirty_and_proven(parsed: dict[str, Parsed]) -> None:
    _, *entries = (ROOT / "site/departures.md").read_text("utf-8").split("\n### ")
    assert [entry.partition(".")[0] for entry in entries] == [str(n) for n in range(1, 31)]
    proofs = [re.findall(r"\{at\}`([0-9a-f]{8})`", entry) for entry in entries]
    assert all(proofs)
    linked = [href for href, _, _ in parsed["departures"].links if "#cell-" in href]
    assert [href[-8:] for href in linked] == [proof for entry in proofs for proof in entry]


@pytest.mark.parametrize("name", NAMES)
def test_minutes_add_up(name: str) -> None:
    text = (ROOT / "site/instructors.md").read_text("utf-8")
    number, (stated, exercises) = name[1], minutes(name)
    lessons = re.findall(rf"\{{lesson\}} ({number}\.\d+), (\d+) minutes?$", text, re.MULTILINE)
    titles = sections(name)
    assert [section for section, _ in lessons] == list(titles)
    sums = Counter()
    for section, length in lessons:
        sums[titles[section] == "Exercises"] += int(length)
    assert (sums[False], sums[True]) == (stated, exercises)
    assert f"## Notebook {number}: {stated} minutes, and {exercises} for the exercises" in text
    assert f"]({NOTEBOOKS.name}/{name}.ipynb)" in (ROOT / "README.md").read_text("utf-8")
    row = re.search(
        rf"{name}\.ipynb\).*\| (\d+) \+ (\d+) \|", (ROOT / "README.md").read_text("utf-8")
    )
    assert row and tuple(map(int, row.groups())) == (stated, exercises)


def test_questions_of_the_instructors_are_the_notebooks_own(parsed: dict[str, Parsed]) -> None:
    asked = sum(source_of(name).count("> **Predict**") for name in NAMES)
    assert parsed["instructors"].text.count("<strong>Predict</strong>") == asked


def test_glossary_terms_are_linked_from_their_first_use(parsed: dict[str, Parsed]) -> None:
    used = set()
    for name in NAMES:
        terms = [link for link in parsed[name].links if link[1] == "term reference internal"]
        anchors = Counter(href for href, _, _ in terms)
        assert len(anchors) >= 8 and set(anchors.values()) == {1}
        for href, _, around in terms:
            assert not {"a", "h1", "h2", "h3", "code", "pre"} & set(around), f"{name}: {href}"
        used |= {href.partition("#")[2] for href in anchors}
    entries = re.findall(r"(?:</dd>|<dl[^>]*>)\s*<dt id=\"([\w-]+)\"", parsed["glossary"].text)
    assert len(entries) >= 30 and set(entries) == used
    definitions = re.findall(r"<dd>.*?</dd>", parsed["glossary"].text, re.DOTALL)
    assert len(definitions) == len(entries)
    assert all(re.search(r'href="0\d\w+\.html#', definition) for definition in definitions)


@pytest.mark.parametrize("place", ["00000000", "9.9"])
def test_link_to_nowhere_fails_and_leaves_the_old_site(tmp_path, monkeypatch, capfd, place) -> None:
    def stage(source: Path) -> None:
        source.mkdir(parents=True)
        (source / "conf.py").write_text(f"import sys\nsys.path.insert(0, {extensions!r})\n{names}")
        (source / "index.md").write_text(f"# Title\n\n{{at}}`{place}`\n")

    extensions, names = str(ROOT / "site/_ext"), 'extensions = ["myst_nb", "places"]\n'
    monkeypatch.setattr(builder, "stage", stage)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("old")
    with pytest.raises(SystemExit, match="nothing was written"):
        builder.build(tmp_path / "site")
    assert place in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    assert (tmp_path / "site/index.html").read_text() == "old"
