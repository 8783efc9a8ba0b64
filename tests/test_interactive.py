"""The live figures show autograd's numbers at every position, to every kind of reader."""

import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from playwright.sync_api import Page
from test_drawing import number

from utils.data import make_least_squares
from utils.drawing import draw_graph
from utils.graph import Graph, GraphError, read_graph
from utils.interactive import LiveDescent, LiveFigure, LiveGraph

MODULES = Path(__file__).parents[1] / "node_modules"
needs_modules = pytest.mark.skipif(not MODULES.exists(), reason="run npm ci to test decks and axe")
X, Y, _ = make_least_squares(100, curvatures=(1.44, 0.24), noise=0.5, seed=7)
LRS, MOMENTA = torch.arange(1, 57) / 20, (0, 0.5, 0.9)
MU, L = torch.linalg.eigvalsh(X.T @ X / len(Y)).tolist()


def polynomial(x):
    z1, z2 = x**3, -3 * x
    return {"z1": z1, "z2": z2, "f": z1 + z2}


def live(compute=polynomial, **more) -> LiveGraph:
    return LiveGraph(compute, torch.linspace(-2, 2, 81), **more)


def descend(lr, momentum=0.0):
    path, velocity = [torch.zeros(2, dtype=torch.float64)], 0
    for _ in range(300):
        velocity = momentum * velocity + X.T @ (X @ path[-1] - Y) / len(Y)
        path.append(path[-1] - lr * velocity)
    return torch.stack(path)


def loss(w):
    return ((X @ w - Y) ** 2).mean() / 2


def cubic(x: float = 4.0) -> Graph:
    names = polynomial(leaf := torch.tensor(x, dtype=torch.float64, requires_grad=True))
    return read_graph(names["f"], {"x": leaf} | names, titles={"f": "Add <b>'"})


def busy() -> Graph:
    x, y = number(0.5), number(-2.0)  # a and y have three uses each
    a, b = torch.sin(x * y), x.exp()
    c = a * b - y**2
    d = c + a * y
    return read_graph(d**2 / (1 + b) + a, {"x": x, "y": y, "a": a, "b": b, "c": c, "d": d})


@pytest.fixture(scope="module")
def figures() -> list[LiveFigure]:
    formulas = {"z1": "x^3", "z2": "-3x", "f": "z_1 + z_2"}
    descent = LiveDescent(loss, descend, LRS, start=0.5, momenta=MOMENTA)
    return [live(start=0.5, formulas=formulas), descent, LiveGraph(cubic())]


DECK = f"""<link rel='stylesheet' href='{MODULES.as_uri()}/reveal.js/dist/reveal.css'>
<div class='reveal'><div class='slides'><section>Start</section>{{}}</div></div>
<script src='{MODULES.as_uri()}/reveal.js/dist/reveal.js'></script>
<script>Reveal.initialize({{{{width: 1280, height: 720, transition: 'none', center: false}}}})
</script>"""
SLIDE = "<section><h2>Title</h2><p class='fragment'>First</p>{}</section>"
READ = """root => {
  const name = e => e.id.replace(/^course\\d+-(.*)-.*$/, '$1');
  const visible = what => [...root.querySelectorAll(what)]
    .filter(e => getComputedStyle(e).visibility === 'visible');
  const parts = what => visible(what).map(name).sort();
  const ends = e => e.getBoundingClientRect().right;
  const around = e => root.querySelector(`[id*=-${name(e)}-]:is([id$=band], [id$=outline])`);
  const numbers = visible('text').filter(e => ends(e) < ends(around(e)))  // and fits
    .map(e => [name(e), e.textContent]);
  return { numbers: Object.fromEntries(numbers), arrows: parts('[id$=arrow]'),
    labels: parts('[id*=local][id$=outline]'), now: parts('[id*=-box][id$=outline].now'),
    said: root.querySelector('[role=status]').textContent, height: root.offsetHeight };
}"""


def open_page(page: Page, folder: Path, *figures: LiveFigure, theme="", body="{}", each="{}"):
    start = f"<!doctype html><html lang='en' {theme}><meta charset='utf-8'><title>Test</title>"
    shown = body.format("".join(each.format(figure.html) for figure in figures))
    (folder / "page.html").write_text(f"{start}<body onkeydown='document.title=1'>{shown}", "utf-8")
    page.goto((folder / "page.html").as_uri())


def read(page: Page, which: int = 0) -> dict:
    return page.locator("figure").nth(which).evaluate(READ)


def plain(text: str) -> float:
    return float(text.rpartition("= ")[2].strip("()").replace("−", "-"))


def check_step(seen: dict, graph: Graph, step: int) -> None:
    """Compare all that a figure shows after a step with the numbers of the graph."""
    nodes, edges, half = graph.nodes, graph.edges, len(graph.nodes)
    done, visited = nodes[half - min(step, half) :], nodes[: max(0, step - half)]
    at = visited[-1:] or done[:1]
    assert seen["now"] == [f"box{nodes.index(node)}" for node in at]
    used = [f"forward{k}" for k, edge in enumerate(edges) if edge.target in done]
    sent = [k for k, edge in enumerate(edges) if edge.target in visited]
    assert seen["arrows"] == sorted([f"backward{k}" for k in sent] + used)
    assert seen["labels"] == sorted(f"local{k}" for k in sent)
    wanted = {f"value{nodes.index(node)}": node.value.item() for node in done}
    wanted |= {f"local{k}": edges[k].local.item() for k in sent}
    for i, node in enumerate(nodes if step > half else []):
        parts = [edges[k].sent.item() for k in sent if edges[k].source is node]
        wanted[f"sum{i}"] = sum(parts) if node.parts else 1
    shown = {part: plain(text) for part, text in seen["numbers"].items()}
    assert shown == pytest.approx(wanted, rel=6e-4)  # four digits
    for edge in (edge for edge in edges if [edge.target] == at and visited):
        said = re.search(rf"(\S+) × (\S+) = (\S+) goes to {edge.source.name}\.", seen["said"])
        product = edge.target.grad.item(), edge.local.item(), edge.sent.item()
        assert [*map(plain, said.groups())] == pytest.approx(product, rel=6e-4)


@pytest.mark.parametrize("graph", [cubic(), cubic(1e-3), busy()], ids=["cubic", "tiny", "busy"])
def test_every_part_of_every_step(graph: Graph, page: Page, tmp_path) -> None:
    open_page(page, tmp_path, LiveGraph(graph), LiveGraph(graph))
    assert page.locator("figure").last.locator("[id^=course1-]").count() == 0  # ids of its own
    last, height = 2 * len(graph.nodes), read(page)["height"]
    back, following = (page.locator("button").nth(i) for i in (0, 1))
    check_step(read(page), graph, 0)
    for step in range(1, last + 1):
        following.press("Enter")
        check_step(seen := read(page), graph, step)
        assert f"Step {step} of {last}" in seen["said"] and seen["height"] == height
    moves = {"ArrowLeft": last - 1, "ArrowRight": last, "Enter": 0}  # it begins again
    for move, step in moves.items():
        following.press(move)
        check_step(read(page), graph, step)
    back.click()
    check_step(read(page), graph, last)
    check_step(read(page, 1), graph, 0)  # the other figure has stood still
    assert page.title() == "Test"  # a key on a button is no shortcut of the page


def test_slider_shows_autograds_numbers_by_keyboard(figures, page: Page, tmp_path) -> None:
    open_page(page, tmp_path, figures[0])
    slider = page.locator("input")
    slider.press("Home")
    for x in np.linspace(-2, 2, 81).round(2).tolist():
        check_step(seen := read(page), cubic(x), 8)
        slope = seen["numbers"]["sum3"].rpartition("= ")[2]
        assert seen["said"].endswith(f"with slope {slope}.")
        assert slider.get_attribute("aria-valuetext") == f"x = {x:g}".replace("-", "−")
        slider.press("ArrowRight")


def test_two_sliders_choose_a_pair(figures, page: Page, tmp_path) -> None:
    open_page(page, tmp_path, figures[1])
    said, paths = figures[1].frames["steps"][0][0], figures[1].frames["lines"]["path"]
    for key, i, place in ("Home", 0, 0), ("End", 1, 112), ("ArrowRight", 0, 113):
        page.locator("input").nth(i).press(key)
        assert read(page)["said"] == said[place]
        assert page.locator("[id$=-path] path").first.get_attribute("d") == paths[place]
        assert page.locator("[id$=-dots] path").first.get_attribute("d").count("h0") == 21


def points(path: str) -> np.ndarray:
    return np.array([at.split()[:2] for at in re.split("[ML]", path)[1:]], dtype=float)


def check_scale(true: np.ndarray, drawn: np.ndarray) -> float:
    """Check that one scale leads from all true numbers to all places in a picture; return it."""
    line = np.polyfit(true, drawn, 1)
    assert abs(np.polyval(line, true) - drawn).max() < 0.2
    return line[0]


def test_point_and_tangent_lie_on_the_curve(figures) -> None:
    lines, x = figures[0].frames["lines"], np.linspace(-2, 2, 81)
    dots = np.stack([points(dot)[0] for dot in lines["dot"]])
    start, end = np.stack([points(tangent) for tangent in lines["tangent"]], axis=1)
    assert abs((start + end) / 2 - dots).max() < 0.15
    scales = [[check_scale(x, dots[:, 0])], [check_scale(x**3 - 3 * x, dots[:, 1])]]
    run, rise = (end - start).T / scales
    assert np.arctan(rise / run) == pytest.approx(np.arctan(3 * x**2 - 3), abs=0.02)


def test_descent_predicts_what_is_measured_and_draws_it(figures) -> None:
    frames = figures[1].frames
    pairs = [(0.05 * i, beta) for beta in MOMENTA for i in range(1, 57)]
    paths = [points(path) for path in frames["lines"]["path"]]
    true = [descend(*pair)[: len(path)] for pair, path in zip(pairs, paths, strict=True)]
    for axis in (0, 1):
        check_scale(*(np.concatenate([path[:, axis] for path in some]) for some in (true, paths)))
    for (lr, beta), said in zip(pairs, frames["steps"][0][0], strict=True):
        predicted, measured = map(float, re.findall(r"(\S+) (?:in theory|on this)", said))
        steps = [torch.tensor([[1 - lr * c, -lr * beta], [c, beta]]) for c in (MU, L)]
        radius = max(torch.linalg.eigvals(step).abs().max().item() for step in steps)
        assert predicted == pytest.approx(radius, rel=5e-3 if radius >= 1 else 1e-3)
        assert measured == pytest.approx(predicted, rel=0.04), (lr, beta)
        fates = [fate in said for fate in ("without jumping", "while jumping", "not converge")]
        assert beta or fates == [lr <= 1 / L, 1 / L < lr < 2 / L, lr > 2 / L]
    dots = [points(dot)[0, 0] for dot in frames["lines"]["dot"][: len(LRS)]]
    corner = np.interp(2 / (L + MU), LRS, dots)
    found = map(points, re.findall(r' d="([ML\d. -]+)" clip', unquote(figures[1].html)))
    curve = next(line for line in found if len(line) > 2 and abs(line[:, 0] - corner).min() < 0.06)
    assert curve[curve[:, 1].argmax(), 0] == pytest.approx(corner, abs=0.06)  # and not blunt


@pytest.mark.parametrize(
    "compute, words",
    [
        (lambda x: 1 / x, "f = inf, with slope −inf. No tangent is drawn."),
        (torch.neg, "f = 0, with slope −1."),
        (torch.sqrt, "f = 0, with slope inf. No tangent is drawn."),
        (lambda x: torch.log(x - 1), "f = nan, with slope −1. No tangent is drawn."),
        (lambda x: (1000 * x - 1) ** 99, "f = −1, with slope 9.9e+04."),
    ],
)
def test_infinities_are_gaps_and_told(compute, words) -> None:
    figure = live(lambda x: {"f": compute(x)})
    assert figure.text.endswith(f"At x = 0, {words}")
    assert not re.search(r"[ML] ?(\S+ )?(nan|−?inf)", figure.html)  # in what is drawn
    assert all(re.match("M|$", path) for path in figure.frames["lines"]["dot"])


def test_pointer_and_touch_drag_the_point(figures, page: Page, tmp_path) -> None:
    open_page(page, tmp_path, figures[0])
    svg, value, dots = page.locator("svg").last, "label span", figures[0].frames["lines"]["dot"]
    low, high = (points(dots[i])[0, 0] for i in (0, 80))
    unit, left, top = svg.evaluate("s => (m => [m.a, m.e, m.f])(s.getScreenCTM())")
    places = [(left + unit * (low + k / 10 * (high - low)), top + 60) for k in range(14)]
    places.append((left, top - 60))  # in the sentence
    page.mouse.move(*places[1])
    page.mouse.down()
    for k, x in (1, -1.6), (3, -0.8), (5, 0), (0, -2), (13, 2), (14, -2), (10, 2):
        page.mouse.move(*places[k])  # twice outside of the picture
        assert plain(page.inner_text(value)) == pytest.approx(x)
    page.mouse.up()
    page.mouse.move(*places[2])
    assert plain(page.inner_text(value)) == 2  # the button is up
    assert svg.evaluate("s => getComputedStyle(s).userSelect") == "none"
    touch = page.context.new_cdp_session(page)
    for k, kind in enumerate(["touchStart", *["touchMove"] * 6], 2):
        finger = [dict(zip("xy", places[k], strict=True))]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": finger})
    page.wait_for_function(f"document.querySelector('{value}').textContent === 'x = 1.2'")


def test_dots_run_along_the_arrows_unless_motion_is_reduced(figures, page, tmp_path) -> None:
    open_page(page, tmp_path, figures[0])
    for _ in range(3):  # from the end to the beginning, then to the first use of x
        page.locator("button").last.click()
    assert page.locator("[id$=arrow] circle").count() == 1
    page.wait_for_function("!document.querySelector('circle')")
    page.emulate_media(reduced_motion="reduce")
    page.locator("button").last.click()
    assert page.locator("circle").count() == 0


def test_without_script_and_on_paper_there_are_pictures_with_words(figures, page, tmp_path) -> None:
    still = page.context.browser.new_page(java_script_enabled=False)
    for seen in (still, page):
        open_page(seen, tmp_path, *figures)
        assert seen.locator("text=Run the cell >> visible=true").count() == 3 * (seen is still)
    assert all(image.bounding_box()["height"] > 150 for image in still.locator("img").all())
    assert still.locator("button, input").count() == 0  # JupyterLab shows what is hidden
    still.close()
    page.emulate_media(media="print")
    for event, step in ("beforeprint", 8), ("afterprint", 0):
        page.evaluate(f"dispatchEvent(new Event('{event}'))")
        check_step(read(page, 2), cubic(), step)
    assert page.locator("button, input").locator("visible=true").count() == 0


@needs_modules
@pytest.mark.parametrize("theme", ["", "data-theme='dark'"])
def test_axe_finds_nothing_and_a_phone_scrolls_inside(theme, figures, page, tmp_path) -> None:
    body = "<main><h1>T</h1>{}</main>"
    open_page(page, tmp_path, *figures, figures[2], theme=theme, body=body)
    page.add_script_tag(path=MODULES / "axe-core/axe.min.js")
    assert [found["id"] for found in page.evaluate("axe.run()")["violations"]] == []
    color = "getComputedStyle(document.querySelector('figure')).backgroundColor"
    assert (page.evaluate(color) == "rgb(255, 255, 255)") == (theme == "")
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@needs_modules
def test_in_a_deck_all_fits_and_is_walked_by_fragments(figures, page: Page, tmp_path) -> None:
    open_page(page, tmp_path, LiveGraph(busy()), *figures[:2], body=DECK, each=SLIDE)
    page.wait_for_function("window.Reveal && Reveal.isReady()")
    figure = page.locator("section.present figure")

    def press(key: str, wanted: str) -> None:
        page.keyboard.press(key)
        assert wanted in figure.locator("p").first.inner_text()
        assert figure.evaluate("e => e.offsetHeight") <= 560

    press("ArrowRight", "Nothing is computed yet")
    press("PageDown", "Nothing is computed yet")  # the fragment before it
    for i in range(1, 15):
        press("PageDown", f"Step {i} ")
    figure.locator("button").first.click()  # the buttons move the fragments with them
    press("ArrowLeft", "Step 12 ")  # on the button, and not on the deck as well
    press("PageUp", "Step 11 ")
    for wanted in "Step 12 ", "Step 13 ", "Step 14 ", "At x = 0.5,":
        press("PageDown", wanted)
    figure.locator("input").focus()
    press("ArrowRight", "At x = 0.55,")  # which does not change the slide
    press("Space", "At x = 0.55,")  # Space and a clicker show what is next
    press("Space", "In the end,")


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: draw_graph(number(2.0)), "needs a Graph, such as read_graph("),
        (lambda: LiveGraph(polynomial), "xs, as torch.linspace(-2, 2, 41), must be one tensor"),
        (lambda: live(lambda x: x**2), 'named tensors, the output last: {"f": x**3}'),
        (lambda: live(lambda x: {}), 'named tensors, the output last: {"f": x**3}'),
        (lambda: live(lambda x: {"f": x**2, "z": x}), "each name is for one tensor"),
        (lambda: live(lambda x: {"z": (z := x**2), "f": z * (x if x > 0 else 2)}), "from x to x"),
        (lambda: LiveDescent(lambda w: (w**4).sum(), descend, LRS), "must be quadratic"),
        (lambda: LiveDescent(loss, lambda lr: descend(lr)[-1], LRS), "shape (n, 2), not (2,)"),
    ],
)
def test_bad_input_is_refused_with_advice(make, words) -> None:
    with pytest.raises((GraphError, TypeError, ValueError), match=re.escape(words)):
        make()
