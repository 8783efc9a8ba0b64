"""The decks, in a browser: complete, readable from the back row, and silent on the network."""

import re
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page

from tools import slides

if not (slides.MODULES / ".package-lock.json").exists():
    pytest.skip("reveal.js and MathJax are missing: run npm ci", allow_module_level=True)

NOTEBOOKS = slides.find([])
AXE = slides.MODULES / "axe-core/axe.min.js"
MEASURE = """() => Reveal.getSlides().map((slide, number) => {
  const { h, v } = Reveal.getIndices(slide);
  Reveal.slide(h, v, 999);
  const wide = [...slide.querySelectorAll("pre, table, img, svg:not(svg *), mjx-container")].filter(
    (e) => !e.closest("aside")
      && (e.getBoundingClientRect().right > 1280 || e.scrollWidth > e.clientWidth + 1));
  const code = [...slide.querySelectorAll(".highlight pre")];
  return {
    where: `slide ${number + 1}`, h, v, height: slide.scrollHeight,
    text: slide.innerText, wide: wide.map((e) => e.outerHTML.slice(0, 80)),
    lines: Math.max(0, ...code.map((e) => e.textContent.trimEnd().split("\\n").length)),
    code: Math.min(99, ...code.map((e) => parseFloat(getComputedStyle(e).fontSize))),
    pictures: [...slide.querySelectorAll("img")]
      .filter((e) => e.height < 240 && e.width < 1000).map((e) => `${e.width} x ${e.height} px`),
    solution: slide.querySelector(".celltag_solution") !== null,
    raw: /\\$\\w|<!--|\\*\\*[A-Z]/.test(slide.innerText),
  };
})"""


@pytest.fixture(scope="module")
def decks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of freshly built decks."""
    folder = tmp_path_factory.mktemp("decks")
    slides.build(NOTEBOOKS, folder)
    return folder


def open_deck(page: Page, deck: Path, query: str = "") -> None:
    page.goto(deck.as_uri() + query)
    page.evaluate("window.deckReady")


@pytest.fixture
def measured(page: Page, decks: Path, path: Path) -> list[dict]:
    """Every slide of the notebook's deck, measured with all its fragments shown."""
    open_deck(page, decks / f"{path.stem}.html")
    return page.evaluate(MEASURE)


each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@each_notebook
def test_every_slide_fits(measured, path):
    problems = [f"{s['where']}: {s['height']} px high" for s in measured if s["height"] > 720]
    problems += [f"{s['where']}: too wide: {s['wide']}" for s in measured if s["wide"]]
    problems += [f"{s['where']}: {s['lines']} lines of code" for s in measured if s["lines"] > 15]
    problems += [f"{s['where']}: code of {s['code']} px" for s in measured if s["code"] < 18]
    problems += [f"{s['where']}: pictures {s['pictures']}" for s in measured if s["pictures"]]
    problems += [f"{s['where']}: markup is not rendered" for s in measured if s["raw"]]
    assert problems == []
    assert 15 <= sum(not s["solution"] for s in measured) <= 25


@each_notebook
def test_exercises_are_tasks_with_the_solution_below(measured, path):
    source = nbformat.read(path, as_version=4)
    exercises = re.findall(r"^### (Exercise .*)", "\n".join(c.source for c in source.cells), re.M)
    tasks = [s for s in measured if not s["solution"] and "not done yet" in s["text"]]
    solutions = [s for s in measured if s["solution"]]
    assert len(tasks) == len(solutions) == len(exercises) > 0
    for task, solution in zip(tasks, solutions, strict=True):
        assert (solution["h"], solution["v"]) == (task["h"], task["v"] + 1)
        assert re.search(r"Exercise \d\.\d: correct", solution["text"])
        assert "Hint" not in task["text"]


@each_notebook
def test_deck_is_one_small_file(decks, path):
    text = (decks / f"{path.stem}.html").read_text("utf-8")
    assert len(text.encode()) < 5e6
    assert (
        re.findall(
            r"""(?:src|href)=["'](?!data:|#|\d\d_\w+\.html)[^"']*""",
            re.sub("<script>.*?</script>", "", text, flags=re.S),
        )
        == []
    )
    assert re.findall(r"<img(?![^>]*alt=.{40})[^>]*>", text) == []


def test_right_key_leads_past_solutions_down_key_to_them(page, decks):
    open_deck(page, decks / f"{NOTEBOOKS[0].stem}.html")
    below = page.evaluate(
        "Reveal.getIndices(document.querySelector('.celltag_solution').closest('section'))"
    )
    page.evaluate("({h}) => Reveal.slide(h, 0, 999)", below)
    shown = "Reveal.getCurrentSlide().innerText"
    assert "Solution" not in page.evaluate(shown)
    page.keyboard.press("ArrowDown")
    assert "Solution" in page.evaluate(shown)


def test_output_waits_for_a_click(page, decks):
    open_deck(page, decks / f"{NOTEBOOKS[0].stem}.html")
    page.evaluate("Reveal.slide(2, 0, -1)")
    first = page.locator("section.present section.present .outputs").first
    assert first.evaluate("e => getComputedStyle(e).visibility") == "hidden"
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert first.evaluate("e => getComputedStyle(e).visibility") == "visible"


def test_speaker_view_shows_the_notes(page, decks):
    open_deck(page, decks / f"{NOTEBOOKS[0].stem}.html")
    spoken = page.evaluate("""() => {
      const note = document.querySelector("section section aside.notes");
      const { h, v } = Reveal.getIndices(note.closest("section"));
      Reveal.slide(h, v);
      return note.innerText || note.textContent;
    }""")
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    popup.value.wait_for_function(
        "document.querySelector('.speaker-controls-notes .value')?.textContent.length > 20"
    )
    heard = popup.value.text_content(".speaker-controls-notes .value")
    assert spoken.split()[:5] == heard.split()[:5]


def test_handout_has_a_page_per_slide_without_solutions(page, decks):
    deck = decks / f"{NOTEBOOKS[0].stem}.html"
    slides.print_deck(page, deck)
    pages = re.findall(rb"/Type\s*/Page\b", deck.with_suffix(".pdf").read_bytes())
    open_deck(page, deck)
    assert len(pages) == page.evaluate(
        "Reveal.getSlides().filter(s => !s.querySelector('.celltag_solution')).length"
    )


@each_notebook
def test_no_violation_of_accessibility(page, decks, path):
    open_deck(page, decks / f"{path.stem}.html", "?print-pdf")
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run('.slides').then(r => r.violations)")
    assert [(v["id"], v["nodes"][0]["html"][:120]) for v in found] == []


@each_notebook
def test_markers_of_spoken_passages_do_not_break_markdown(path):
    """A line that begins with a comment is HTML to the end of its line: no Markdown in it."""
    for cell in nbformat.read(path, as_version=4).cells:
        opened = cell.source.count("<!-- notes -->")
        assert (
            opened == cell.source.count("<!-- /notes -->") == len(slides.NOTES.findall(cell.source))
        )
        assert re.findall(r"^<!-- /?notes -->[^\n]+", cell.source, re.MULTILINE) == []


def test_spoken_passages_and_links():
    cells = [
        nbformat.v4.new_markdown_cell(
            "Seen. <!-- notes -->Spoken.<!-- /notes --> [Next](02_graphs.ipynb#part)"
        ),
        nbformat.v4.new_code_cell("def f():\n    pass\n\n\nf()"),
    ]
    first, second, third = slides.prepare(nbformat.v4.new_notebook(cells=cells)).cells
    assert first.source == "Seen.  [Next](02_graphs.html)"
    assert (second.source, second.metadata.slideshow.slide_type) == ("Spoken.", "notes")
    assert third.source == "def f():\n    pass\n\nf()"
