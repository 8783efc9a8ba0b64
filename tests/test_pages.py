"""Site and slides, built once and then read from the disk in Chromium, as their readers do."""

import html
import json
import re
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote, urlsplit
from zipfile import ZipFile

import nbformat
import pytest
from playwright.sync_api import Page

from tools import slides
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
    command = [sys.executable, "-m", "sphinx", "-qW", "--keep-going", "-c", "site", source, target]
    subprocess.run(command, cwd=ROOT, check=True)
    return target


@pytest.fixture(scope="module")
def decks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built decks."""
    folder = tmp_path_factory.mktemp("decks")
    for name in NOTEBOOKS:
        slides.build(ROOT / f"notebooks/{name}.ipynb", folder)
    return folder


def open_page(page: Page, folder: Path, name: str) -> None:
    page.goto((folder / f"{name}.html").as_uri())
    page.evaluate("window.deckReady ?? window.MathJax?.startup.promise")


def cells(name: str) -> list[nbformat.NotebookNode]:
    return nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4).cells


@pytest.mark.parametrize("folder", ["site", "decks"])
def test_links_lead_to_pages_and_places_that_exist(request, folder: str) -> None:
    folder = request.getfixturevalue(folder)
    texts = {
        path.name: html.unescape(re.sub("(?s)<script.*?</script>", "", path.read_text("utf-8")))
        for path in folder.glob("*.html")
    }
    places = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in texts.items()}
    for name, text in texts.items():
        for href in re.findall(r'<a\b[^>]*?\bhref="([^"]*)"', text):
            link = urlsplit(href)
            target = unquote(link.path) or name
            if link.scheme:
                continue
            assert (folder / target).is_file(), f"{name}: {href}"
            if link.fragment and target in places:
                assert unquote(link.fragment) in places[target], f"{name}: {href}"


# The site


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
def test_answers_solutions_and_code_of_pictures_wait_for_the_reader(page, site, name) -> None:
    open_page(page, site, name)
    buttons = page.locator("blockquote button")
    assert buttons.count() == sum(cell.source.count("> **Predict**") for cell in cells(name))
    assert not page.locator("blockquote:has(button) + .cell .cell_output").first.is_visible()
    page.evaluate(REVEAL_ALL)
    assert buttons.count() == page.locator("[hidden]").count() == 0
    codes = page.locator("details pre")
    assert codes.count() > sum("solution" in c.metadata.get("tags", []) for c in cells(name))
    visible = "codes => codes.map(code => code.checkVisibility())"
    assert not any(codes.evaluate_all(visible))
    page.evaluate("document.querySelectorAll('details').forEach(fold => (fold.open = true))")
    assert all(codes.evaluate_all(visible))


def test_search_leads_to_the_section_that_has_the_word(page: Page, site: Path) -> None:
    open_page(page, site, "glossary")
    page.keyboard.press("Control+k")
    page.keyboard.type("retain_graph")
    page.keyboard.press("Enter")
    link = page.locator("#search-results a[href*='#section-']").first
    place = link.get_attribute("href").split("#")[1]
    link.click()
    page.wait_for_selector(f"section#{place}:has-text('retain_graph')")


def test_page_stays_where_its_reader_has_scrolled(page: Page, site: Path) -> None:
    open_page(page, site, NOTEBOOKS[1])
    page.evaluate("scrollTo({ top: 3000, behavior: 'instant' })")
    page.wait_for_timeout(500)  # what follows the scrolling may take its time
    assert page.evaluate("scrollY") == 3000


def test_outputs_and_downloads_are_those_of_the_notebooks(site: Path) -> None:
    for name in NOTEBOOKS:
        stored = (ROOT / f"notebooks/{name}.ipynb").read_bytes()
        assert (site / f"_sources/{name}.ipynb").read_bytes() == stored
        text = (site / f"{name}.html").read_text("utf-8")
        outputs = [output for cell in cells(name) for output in cell.get("outputs", [])]
        assert all(output.get("data", {}).get("text/html", "") in text for output in outputs)
    (archive,) = site.glob("_downloads/*/course.zip")
    names = set(ZipFile(archive).namelist())
    assert {f"course/notebooks/{name}.ipynb" for name in NOTEBOOKS} <= names
    assert {"course/requirements.txt", "course/utils/course.py"} <= names


@each_notebook
def test_minutes_agree(name: str) -> None:
    """A notebook states its minutes near its beginning; README and front page repeat them."""
    text = "\n".join(cell.source for cell in cells(name)[:4])
    stated = re.search(r"about (\d+) minutes, and (\d+) more for the exercises", text)
    for page in ("README.md", "site/index.md"):
        row = rf"{name}.*\| {stated[1]} \+ {stated[2]} \|"
        assert re.search(row, (ROOT / page).read_text("utf-8")), page


# The slides


MISFITS = """() => Reveal.getSlides().flatMap((slide, number) => {
  const { h, v } = Reveal.getIndices(slide);
  Reveal.slide(h, v, 999);
  const outside = [...slide.querySelectorAll("pre, table, img, svg:not(svg *), mjx-container")]
    .filter((e) => !e.closest("aside")
      && (e.getBoundingClientRect().right > 1280 || e.scrollWidth > e.clientWidth + 1));
  const images = [...slide.querySelectorAll("img")];
  const isSolution = slide.querySelector(".celltag_solution");
  const [call] = /check\\(".*?"/.exec(isSolution ? slide.textContent : "") ?? [];
  const problems = {
    "too high": slide.scrollHeight > 720,
    "too wide": outside.length,
    "a small picture": images.some((i) => i.height < 240 && i.width < 1000),
    "a picture without words": images.some((i) => !/ /.test(i.alt)),
    "markup": /\\$\\w|<!--|\\*\\*[A-Z]/.test(slide.innerText) || slide.querySelector("mjx-merror"),
    "a task elsewhere": isSolution && !Reveal.getSlides()[number - 1].textContent.includes(call),
  };
  return Object.keys(problems).filter((p) => problems[p]).map((p) => `slide ${number + 1}: ${p}`);
})"""


@each_notebook
def test_every_slide_fits_and_right_arrow_and_clicker_reach_it(page, decks, name) -> None:
    open_page(page, decks, name)
    assert page.evaluate("performance.getEntriesByType('resource').map(e => e.name)") == []
    assert page.evaluate(MISFITS) == []
    assert page.locator("section[style*='--code: 28px'] pre").count() > 0  # where there is room
    page.evaluate("Reveal.slide(0, 0, -1)")
    page.evaluate("window.seen = new Set([Reveal.getCurrentSlide()])")
    page.evaluate("Reveal.on('slidechanged', event => window.seen.add(event.currentSlide))")
    for number in range(page.locator("section section, .fragment").count()):
        page.keyboard.press(("ArrowRight", "PageDown")[number % 2])
    assert page.evaluate("Reveal.getSlides().filter(slide => !window.seen.has(slide)).length") == 0


@each_notebook
def test_titles_say_where_we_are(page: Page, decks: Path, name: str) -> None:
    open_page(page, decks, name)
    title = page.locator(HERE)
    assert title.locator("img, figure svg").count() > 0
    assert title.locator("nav a").count() == len(NOTEBOOKS)
    assert title.locator("[aria-current]").inner_text() == title.locator("h1").inner_text()
    read = "titles => titles.map(title => [title.textContent, title.dataset.part])"
    titles = page.locator("section section [data-part]").evaluate_all(read)
    for _, group in groupby(titles, lambda title: title[0]):
        parts = [part for _, part in group]
        assert parts == [f"{number}/{len(parts)}" for number in range(1, len(parts) + 1)]


GO_TO = """(what) => {
  const slide = document.querySelector(`section section:has(${what})`);
  const { h, v } = Reveal.getIndices(slide);
  Reveal.slide(h, v, -1);
}"""
HERE = "section.present section.present"


def test_output_waits_for_a_click(page: Page, decks: Path) -> None:
    open_page(page, decks, NOTEBOOKS[0])
    page.evaluate(GO_TO, ".fragment")
    output = page.locator(f"{HERE} .jp-OutputArea").first
    assert not output.is_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    output.wait_for(timeout=2000)


def test_speaker_sees_notes_with_their_formulas(page: Page, decks: Path) -> None:
    open_page(page, decks, NOTEBOOKS[0])
    page.evaluate(GO_TO, "aside.notes mjx-container")
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    heard = popup.value.locator(".speaker-controls-notes .value")
    heard.locator("mjx-container").first.wait_for()
    spoken = page.text_content(f"{HERE} aside.notes")
    assert heard.text_content().split()[:5] == spoken.split()[:5]
    missing = "uses => uses.filter(u => !document.querySelector(u.getAttribute('xlink:href')))"
    assert heard.locator("use").count() > 0
    assert heard.locator("use").evaluate_all(missing) == []


def test_pdf_has_a_page_for_each_slide_without_the_solutions(page: Page, decks: Path) -> None:
    deck = decks / f"{NOTEBOOKS[0]}.html"
    slides.print_pdf(page, deck)
    pages = re.findall(rb"/Type\s*/Page\b", deck.with_suffix(".pdf").read_bytes())
    open_page(page, decks, deck.stem)
    tasks = "Reveal.getSlides().filter(slide => !slide.querySelector('.celltag_solution'))"
    assert len(pages) == page.evaluate(f"{tasks}.length") > 0


def test_a_cell_without_a_slide_type_is_left_out_and_code_has_no_gaps() -> None:
    cell = nbformat.v4.new_code_cell("def f():\n    pass\n\n\nf()")
    slides.prepare(cell)
    assert cell.metadata.slideshow["slide_type"] == "skip"
    assert cell.source == "def f():\n    pass\n\nf()"
