"""Site and slides, built once and then read from the disk in Chromium, as their readers do."""

import html
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit
from zipfile import ZipFile

import nbformat
import pytest
from playwright.sync_api import Page

from tools import slides
from utils import course
from utils.course import ROOT

MODULES = ROOT / "node_modules"
if not (MODULES / "axe-core").exists():
    reason = "site and slides are not tested: npm ci has not installed node_modules"
    pytest.skip(reason, allow_module_level=True)

NOTEBOOKS = sorted(path.stem for path in ROOT.glob("notebooks/*.ipynb"))
PAGES = NOTEBOOKS + sorted(path.stem for path in ROOT.glob("site/*.md")) + ["search"]
each_page = pytest.mark.parametrize("name", PAGES)
each_notebook = pytest.mark.parametrize("name", NOTEBOOKS)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    options = ["-q", "-W", "--keep-going", "-c", "site"]
    command = [sys.executable, "-m", "sphinx", *options, source, target]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return target


@pytest.fixture(scope="module")
def decks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built decks."""
    folder = tmp_path_factory.mktemp("decks")
    for name in NOTEBOOKS:
        slides.build(ROOT / f"notebooks/{name}.ipynb", folder)
    return folder


def cells(name: str) -> list[nbformat.NotebookNode]:
    return nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4).cells


# The site


def test_links_lead_to_pages_and_places_that_exist(site: Path) -> None:
    texts = {path.name: html.unescape(path.read_text("utf-8")) for path in site.glob("*.html")}
    places = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in texts.items()}
    for name, text in texts.items():
        for href in re.findall(r'<a\b[^>]*?\bhref="([^"]*)"', text):
            link = urlsplit(href)
            target = unquote(link.path) or name
            if link.scheme:
                continue
            assert (site / target).is_file(), f"{name}: {href}"
            if link.fragment and target in places:
                assert unquote(link.fragment) in places[target], f"{name}: {href}"


LACKING = """() => ({
  pictures: [...document.images].filter((i) => !i.naturalWidth || !/ /.test(i.alt)).length,
  formulas: [...document.querySelectorAll(".math")].filter(
    (formula) => !formula.querySelector("mjx-container:not(:has(mjx-merror))")).length,
})"""


@each_page
def test_page_shows_pictures_with_words_and_formulas(page: Page, site: Path, name: str) -> None:
    open_page(page, site, name)
    assert page.evaluate(LACKING) == {"pictures": 0, "formulas": 0}
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 400  # a phone's


def open_page(page: Page, site: Path, name: str) -> None:
    page.goto((site / f"{name}.html").as_uri())
    page.evaluate("window.MathJax?.startup.promise")


@pytest.mark.parametrize("name", ["index", NOTEBOOKS[0]])
def test_page_is_readable_in_light_and_dark(page: Page, site: Path, name: str) -> None:
    """By the rules of WCAG 2, levels A and AA, as axe-core tests them."""
    open_page(page, site, name)
    page.add_script_tag(path=MODULES / "axe-core/axe.min.js")
    options = json.dumps({"preload": False, "runOnly": ["wcag2a", "wcag2aa"]})
    for theme in ["light", "dark"]:
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        page.evaluate("Promise.all(document.getAnimations().map(fading => fading.finished))")
        found = page.evaluate(f"axe.run(document, {options})")["violations"]
        assert [(theme, v["id"], v["nodes"][0]["html"][:200]) for v in found] == []


REVEAL_ALL = """() => {
  const buttons = () => [...document.querySelectorAll("blockquote button")];
  for (let b; (b = buttons().find((button) => button.checkVisibility())); ) b.click();
}"""


@each_notebook
def test_an_answer_waits_until_its_reader_asks_for_it(page: Page, site: Path, name: str) -> None:
    open_page(page, site, name)
    buttons = page.locator("blockquote button")
    assert buttons.count() == sum(c.source.count("> **Predict**") for c in cells(name))
    assert not page.locator("blockquote:has(button) + .cell .cell_output").first.is_visible()
    page.evaluate(REVEAL_ALL)
    assert buttons.count() == page.locator("[hidden]").count() == 0


@each_notebook
def test_solutions_and_code_of_pictures_are_folded(page: Page, site: Path, name: str) -> None:
    open_page(page, site, name)
    page.evaluate(REVEAL_ALL)
    codes = page.locator("details pre")
    assert codes.count() > sum("hide-cell" in c.metadata.get("tags", []) for c in cells(name))
    assert not any(code.is_visible() for code in codes.all())
    page.evaluate("document.querySelectorAll('details').forEach(fold => (fold.open = true))")
    assert all(code.is_visible() for code in codes.all())


@each_notebook
def test_html_outputs_are_on_the_page_as_they_are(site: Path, name: str) -> None:
    text = (site / f"{name}.html").read_text("utf-8")
    for cell in cells(name):
        for output in cell.get("outputs", []):
            assert output.get("data", {}).get("text/html", "") in text


def test_search_finds_a_name_in_code(page: Page, site: Path) -> None:
    open_page(page, site, "glossary")
    page.keyboard.press("Control+k")
    page.keyboard.type("retain_graph")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#search-results a[href^='{NOTEBOOKS[0]}']")


def test_downloads_are_the_notebooks_and_a_course_that_runs(site: Path) -> None:
    for name in NOTEBOOKS:
        stored = (ROOT / f"notebooks/{name}.ipynb").read_bytes()
        assert (site / f"_sources/{name}.ipynb").read_bytes() == stored
    (archive,) = site.glob("_downloads/*/course.zip")
    names = set(ZipFile(archive).namelist())
    assert {f"course/notebooks/{name}.ipynb" for name in NOTEBOOKS} <= names
    assert {"course/requirements.txt", "course/utils/course.py"} <= names


@pytest.mark.parametrize(("stamped", "github"), [("", ""), ("", "o/n"), ("https://g.com/o/s", "")])
def test_only_a_known_address_is_shown(monkeypatch, stamped: str, github: str) -> None:
    monkeypatch.setattr(course, "REPO_URL", stamped)
    monkeypatch.setenv("GITHUB_REPOSITORY", github)
    options = runpy.run_path(str(ROOT / "site/conf.py"))["html_theme_options"]
    assert options["repository_url"] == (stamped or github and f"https://github.com/{github}")
    assert options["use_repository_button"] == bool(stamped or github)
    assert bool(options["launch_buttons"]) == bool(stamped)


@each_notebook
def test_minutes_agree(name: str) -> None:
    """A notebook states its minutes near its beginning; README and front page repeat them."""
    text = "\n".join(cell.source for cell in cells(name)[:4])
    stated = re.search(r"about (\d+) minutes, and (\d+) more for the exercises", text)
    for page in ("README.md", "site/index.md"):
        row = rf"{name}.*\| {stated[1]} \+ {stated[2]} \|"
        assert re.search(row, (ROOT / page).read_text("utf-8")), page


# The slides


def open_deck(page: Page, decks: Path, name: str, query: str = "") -> None:
    page.goto((decks / f"{name}.html").as_uri() + query)
    page.evaluate("window.deckReady")


MISFITS = """() => Reveal.getSlides().flatMap((slide, number) => {
  const { h, v } = Reveal.getIndices(slide);
  Reveal.slide(h, v, 999);
  const outside = [...slide.querySelectorAll("pre, table, img, svg:not(svg *), mjx-container")]
    .filter((e) => !e.closest("aside")
      && (e.getBoundingClientRect().right > 1280 || e.scrollWidth > e.clientWidth + 1));
  const images = [...slide.querySelectorAll("img")];
  const problems = {
    "too high": slide.scrollHeight > 720,
    "too wide": outside.length,
    "a small picture": images.some((i) => i.height < 240 && i.width < 1000),
    "a picture without words": images.some((i) => !/ /.test(i.alt)),
    "markup": /\\$\\w|<!--|\\*\\*[A-Z]/.test(slide.innerText) || slide.querySelector("mjx-merror"),
  };
  return Object.keys(problems).filter((p) => problems[p]).map((p) => `slide ${number + 1}: ${p}`);
})"""


@each_notebook
def test_every_slide_fits_and_the_right_arrow_reaches_it(page, decks, name) -> None:
    open_deck(page, decks, name)
    assert page.evaluate("performance.getEntriesByType('resource').map(e => e.name)") == []
    assert page.evaluate(MISFITS) == []
    assert page.locator("section[style*='--code: 28px'] pre").count() > 0  # where there is room
    page.evaluate("Reveal.slide(0, 0, -1)")
    page.evaluate("window.seen = new Set([Reveal.getCurrentSlide()])")
    page.evaluate("Reveal.on('slidechanged', event => window.seen.add(event.currentSlide))")
    for _ in range(page.locator("section section, .fragment").count()):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("Reveal.getSlides().filter(slide => !window.seen.has(slide)).length") == 0


@each_notebook
def test_links_lead_to_other_decks(page: Page, decks: Path, name: str) -> None:
    open_deck(page, decks, name)
    title = page.locator("section.present section.present")
    assert title.locator("img").count() == 1 and title.locator("nav a").count() == len(NOTEBOOKS)
    assert title.locator("[aria-current]").inner_text() == title.locator("h1").inner_text()
    hrefs = page.evaluate("[...document.links].map(link => link.getAttribute('href'))")
    targets = [href for href in hrefs if not href.startswith(("#", "https:"))]
    assert [href for href in targets if not (decks / href).is_file()] == []


def test_output_waits_for_a_click(page: Page, decks: Path) -> None:
    open_deck(page, decks, NOTEBOOKS[0])
    page.evaluate("""() => {
      const slide = document.querySelector("section section:has(.outputs.fragment)");
      Reveal.slide(...Object.values(Reveal.getIndices(slide)).slice(0, 2), -1);
    }""")
    first = page.locator("section.present section.present .outputs").first
    assert first.evaluate("e => getComputedStyle(e).visibility") == "hidden"
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert first.evaluate("e => getComputedStyle(e).visibility") == "visible"


SPEAK = """() => {
  const note = document.querySelector("section section aside.notes:has(mjx-container)");
  const { h, v } = Reveal.getIndices(note.closest("section"));
  Reveal.slide(h, v);
  return note.textContent;
}"""
HEARD = ".speaker-controls-notes .value"


def test_speaker_sees_notes_with_their_formulas(page: Page, decks: Path) -> None:
    open_deck(page, decks, NOTEBOOKS[0])
    spoken = page.evaluate(SPEAK)
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    popup.value.wait_for_selector(f"{HEARD} mjx-container")
    assert popup.value.text_content(HEARD).split()[:5] == spoken.split()[:5]
    missing = "uses => uses.filter(u => !document.querySelector(u.getAttribute('xlink:href')))"
    glyphs = popup.value.locator(f"{HEARD} use")
    assert glyphs.count() > 0 and glyphs.evaluate_all(missing) == []


def test_pdf_has_a_page_for_each_slide_without_the_solutions(page: Page, decks: Path) -> None:
    deck = decks / f"{NOTEBOOKS[0]}.html"
    slides.print_pdf(page, deck)
    pages = re.findall(rb"/Type\s*/Page\b", deck.with_suffix(".pdf").read_bytes())
    open_deck(page, decks, deck.stem)
    tasks = "Reveal.getSlides().filter(slide => !slide.querySelector('.celltag_solution'))"
    assert len(pages) == page.evaluate(f"{tasks}.length") > 0


def test_a_cell_without_a_slide_type_is_left_out_and_links_lead_to_html() -> None:
    prose = nbformat.v4.new_markdown_cell("[Next](02_graphs.ipynb#part)")
    slides.prepare(prose)
    assert prose.source == "[Next](02_graphs.html)"
    assert prose.metadata.slideshow["slide_type"] == "skip"
    code = nbformat.v4.new_code_cell("def f():\n    pass\n\n\nf()")
    slides.prepare(code)
    assert code.source == "def f():\n    pass\n\nf()"


def test_a_solution_follows_its_task_and_hints_wherever_the_notebook_has_it() -> None:
    task, hint, summary, solution = (
        nbformat.v4.new_code_cell(source, metadata={"slideshow": {"slide_type": kind}})
        for source, kind in [
            ('check("1.1", f)', "-"),
            ("a hint", "notes"),
            ("the summary", "slide"),
            ('check("1.1", g)', "subslide"),
        ]
    )
    for cells in [task, hint, solution, summary], [task, hint, summary, solution]:
        slides.put_below_its_task(solution, cells)
        assert cells == [task, hint, solution, summary]
