"""The interactive figures show autograd's numbers at every position, to every kind of reader."""

import json
import math
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from bs4 import BeautifulSoup
from playwright.sync_api import Page
from test_drawing import contrast

from utils.data import make_least_squares
from utils.graph import Graph, GraphError, read_graph
from utils.interactive import DescentExplorer, Explorer, Figure, index
from utils.stepper import Stepper, _plain

ROOT = Path(__file__).parents[1]
REVEAL = ROOT / "node_modules/reveal.js/dist"
X, Y, _ = make_least_squares(100, curvatures=(1.44, 0.24), noise=0.5, seed=7)
MINIMUM = torch.linalg.lstsq(X, Y).solution
MU, L = torch.linalg.eigvalsh(X.T @ X / len(Y)).tolist()


def polynomial(x):
    z1, z2 = x**3, -3 * x
    return {"z1": z1, "z2": z2, "f": z1 + z2}


def explore(compute, low=-2.0, high=2.0, start=0.0, **more) -> Explorer:
    return Explorer(lambda x: {"f": compute(x)}, low, high, start=start, **more)


def descend(lr, num_steps=60, start=None):
    path = [torch.zeros(2, dtype=torch.float64) if start is None else start]
    for _ in range(num_steps):
        path.append(path[-1] - lr * X.T @ (X @ path[-1] - Y) / len(Y))
    return torch.stack(path)


def descent(low=0.05, high=1.6, start=0.5, loss=None, path=descend) -> DescentExplorer:
    loss = loss or (lambda w: ((X @ w - Y) ** 2).mean() / 2)
    return DescentExplorer(loss, path, low, high, start=start)


def leaf(value=4.0) -> torch.Tensor:
    return torch.tensor(value, requires_grad=True)


def read(f: torch.Tensor, names: dict[str, torch.Tensor], **more) -> Graph:
    """The graph of f, whose gradients are autograd's."""
    graph, grads = read_graph(f, names, **more), torch.autograd.grad(f, [*names.values()])
    torch.testing.assert_close([graph[name].grad for name in names], [*grads])
    return graph


def cubic() -> Graph:
    names = polynomial(x := leaf())
    return read(names["f"], {"x": x} | names, titles={"f": "Add <b>'"})


def busy() -> Graph:
    x, y = leaf(0.5), leaf(-2.0)  # a and y have three uses each
    a, b = torch.sin(x * y), x.exp()
    c = a * b - y**2
    d = c + a * y
    return read(d**2 / (1 + b) + a, {"x": x, "y": y, "a": a, "b": b, "c": c, "d": d})


# What a reader sees, in a browser.
READ_TABLE = "e => [...e.querySelectorAll('tr')].map(r => [...r.cells].map(c => c.textContent))"
READ_STEPPER = """root => {
  const all = what => [...root.querySelectorAll(what)], style = e => getComputedStyle(e);
  const shown = e => !e.closest('.off') && style(e).visibility === 'visible';
  const text = e => e.textContent, name = b => text(b.querySelector('text:not(.t)')).split(' ')[0];
  const line = (b, k) => [...b.querySelectorAll('text.' + k)].filter(shown).map(text).join(' ');
  const boxes = all('g:has(> .ring)'), rings = all('.ring').filter(r => style(r).display != 'none');
  const read = kind => Object.fromEntries(boxes.map(b => [name(b), line(b, kind)]));
  return { now: rings.map(r => name(r.parentNode)), values: read('v'), sums: read('g'),
    dashed: rings.map(r => style(r).strokeDasharray !== 'none'),
    said: text(root.querySelector('[role=status]')),
    labels: all('g:has(> .box):not(:has(> .ring))').filter(shown).map(g => line(g, 'g')),
    arrows: ['g:not(.wait, .back) > .line', '.back > .line'].map(k => all(k).filter(shown).length),
    rows: all('tr:has(td:not(:empty))').filter(shown).map(r => [...r.cells].map(text)) };
}"""
OVERLAPS = """root => {
  const rects = kind => [...root.querySelectorAll(kind)].map(e => e.getBoundingClientRect());
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  const boxes = rects('.box, .sum'), meets = a => boxes.some(b => b !== a && meet(a, b));
  const inside = a => boxes.some(b => meet(a, b) && a.left > b.left && a.right < b.right);
  return [...boxes, ...rects('.tip')].some(meets) || !rects('svg text').every(inside); }"""
OVERFULL = "e => Math.max(e.scrollHeight - e.clientHeight, e.scrollWidth - e.clientWidth)"
SLIDE = "<section><h2>Title</h2><p class='fragment'>First</p>{}</section>"
DECK = f"""<link rel='stylesheet' href='{REVEAL.as_uri()}/reveal.css'>
<link rel='stylesheet' href='{REVEAL.as_uri()}/theme/white.css'>
<div class='reveal'><div class='slides'><section>Start</section>{{}}</div></div>
<script src='{REVEAL.as_uri()}/reveal.js'></script>
<script>Reveal.initialize({{{{width: 1280, height: 720, transition: 'none'}}}})</script>"""


def open_page(page: Page, folder: Path, *figures: Figure, theme="", body="{}", each="{}") -> None:
    start = f"<!doctype html><html lang='en' {theme}><meta charset='utf-8'><title>Test</title>"
    shown = body.format("".join(each.format(figure.html) for figure in figures))
    (folder / "page.html").write_text(f"{start}<body>{shown}", encoding="utf-8")
    page.goto((folder / "page.html").as_uri())


@pytest.fixture(scope="module")
def figures() -> tuple[Explorer, DescentExplorer, Stepper]:
    return Explorer(polynomial, -2, 2, start=0.5), descent(), Stepper(cubic())


def plain(text: str) -> float:
    return float(text.rpartition("= ")[2].replace("−", "-"))


def without_script(figure: Figure) -> tuple[BeautifulSoup, BeautifulSoup]:
    rest = BeautifulSoup(figure.html, "html.parser")
    svg = unquote(rest.select_one("img")["src"].partition(",")[2])
    return BeautifulSoup(svg, "html.parser"), rest


def values_of(figure: Figure, kind: str) -> list[str]:
    picture, rest = without_script(figure)
    number = picture.select_one(kind)["data-bind"].split()[0]
    return json.loads(rest.figure["data-frames"])[int(number)]


def check_curve(page: Page, x: float) -> list[list[str]]:
    """Compare the table with value and gradient of x, z1, z2 and f by autograd."""
    rows = page.locator("figure.curve").evaluate(READ_TABLE)[1:]
    at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    tensors = [at, *polynomial(at).values()]
    grads = torch.autograd.grad(tensors[-1], tensors)
    assert [row[0] for row in rows] == ["x", "z₁", "z₂", "f"]
    for row, pair in zip(rows, zip(tensors, grads, strict=True), strict=True):
        assert [*map(plain, row[1:])] == pytest.approx([t.item() for t in pair], abs=5.1e-5)
    return rows


def check_step(page: Page, graph: Graph, i: int) -> None:
    """Compare what a Stepper shows after step i with the numbers of the graph."""
    seen, half = page.locator("figure").first.evaluate(READ_STEPPER), len(graph.nodes)
    names = [node.name for node in graph.nodes]
    done, visited = names[half - min(i, half) :], names[: max(0, i - half)]
    now = [] if i == 0 else [visited[-1] if visited else done[0]]
    used, sent = ([e for e in graph.edges if e.target.name in some] for some in (done, visited))
    assert seen["now"] == [*map(index, now)] and seen["dashed"] == [i > half] * len(now)
    assert seen["arrows"] == [len(used), len(sent)] and len(seen["labels"]) == len(sent)
    for node in graph.nodes:
        value, total = (seen[kind][index(node.name)] for kind in ("values", "sums"))
        arrived = [e.sent for e in sent if e.source is node] if node.parts else [node.grad]
        assert (value != "") == (node.name in done) and (total != "") == (i > half)
        assert not value or plain(value) == pytest.approx(node.value.item(), rel=6e-4)
        assert not total or plain(total) == pytest.approx(float(sum(arrived)), rel=6e-4)
    edges = [edge for edge in sent if [edge.target.name] == now]
    assert len(seen["rows"]) == len(edges)
    for edge in edges:
        x, z = index(edge.source.name), index(edge.target.name)
        [row] = [row for row in seen["rows"] if row[1].startswith(f"∂{z}/∂{x} = ")]
        numbers = [float(number) for number in (edge.target.grad, edge.local, edge.sent)]
        assert [*map(plain, row[:3])] == pytest.approx(numbers, rel=6e-4)
        assert row[0].startswith(f"df/d{z} = ") and row[1] in seen["labels"]
        assert row[3].startswith(f"df/d{x} = ") and plain(row[3]) == plain(seen["sums"][x])
        assert f"{row[2]} goes to {x}: {row[3]}." in seen["said"]


@pytest.mark.parametrize("graph", [cubic(), busy()], ids=["cubic", "busy"])
def test_stepper_shows_autograds_numbers_at_every_step(graph, page: Page, tmp_path) -> None:
    open_page(page, tmp_path, Stepper(graph), Stepper(graph))
    last = 2 * len(graph.nodes)
    check_step(page, graph, 0)
    for i in range(1, last + 1):
        page.locator("button[value=next]").first.click()
        check_step(page, graph, i)
        assert f"Step {i} of {last}" in page.locator("[role=status]").first.inner_text()
    assert "nothing is computed" in page.locator("[role=status]").last.inner_text()
    assert page.locator("figure").first.evaluate(OVERLAPS) is False
    for key, i in ("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 1), ("End", last):
        page.keyboard.press(key)
        check_step(page, graph, i)
    for button, i in ("next", last), ("back", last - 1), ("first", 0), ("last", last):
        page.locator(f"button[value={button}]").first.click()
        check_step(page, graph, i)


def test_stepper_tells_vectors_formulas_and_differences() -> None:
    A, w = torch.tensor([[1.0, 2], [3, -1], [2, 1]]), leaf([2.0, -1])
    z1 = A @ w - torch.tensor([1.0, 4, 5])
    names, formulas, local = {"w": w, "z1": z1}, {"z1": "Aw - y"}, {("z1", "w"): ("A", A)}
    text = Stepper(read_graph(z1 @ z1 / 2, names, formulas=formulas, local=local)).text
    assert "z₁ = Aw − y = (−1, 3, −2), from w. " in text
    assert "1 × ∂f/∂z₁ = (−1, 3, −2) goes to z₁: df/dz₁ = (−1, 3, −2)." in text
    assert "(−1, 3, −2) × A = (4, −7) goes to w: df/dw = (4, −7)." in text
    assert _plain(r"z_{12}^{k}, z_1^⊤, \frac{1}{2}, \|, \pi^{q}") == "z₁₂ᵏ, z₁ᵀ, 1/2, ‖, π^(q)"
    names = {"x": (x := leaf()), "a": -(x**2)}
    assert "df/dx = 3 − 8 = −5" in Stepper(read_graph(names["a"] + 3 * x, names)).text


def test_explorer_shows_autograds_numbers_by_keyboard(figures, page: Page, tmp_path) -> None:
    open_page(page, tmp_path, figures[0])
    slider = page.locator("input")
    slider.press("Home")
    for i in range(81):
        rows = check_curve(page, x := round(-2 + 0.05 * i, 2))
        assert plain(page.locator("label b").inner_text()) == x
        said, slope = slider.get_attribute("aria-valuetext"), plain(rows[0][2])
        does = "rises" if slope > 0 else "falls" if slope < 0 else "is level"
        assert said.endswith(f", f = {rows[3][1]} {does}: the slope is {rows[0][2]}.")
        slider.press("ArrowRight")


def test_explorer_draws_curve_point_and_tangent(figures) -> None:
    curve = without_script(figures[0])[0].select_one("path.line[d*='L']:not([data-bind])")["d"]
    points = [tuple(map(float, p.split())) for p in re.split("[ML]", curve)[1:]]
    unit, down = (points[-1][0] - points[0][0]) / 4, (points[0][1] - points[20][1]) / 4
    kinds = ".dot", ".drop", ".back > path[data-bind]", "text.v .n", "text.g .n"
    frames = zip(*(values_of(figures[0], kind) for kind in kinds), strict=True)
    for i, (dot, drop, tangent, *said) in enumerate(frames):
        x, at = -2 + 0.05 * i, "{:g} {:g}".format(*points[i])
        value, slope = x**3 - 3 * x, 3 * x**2 - 3
        assert (points[40][1] - points[i][1]) / down == pytest.approx(value, abs=0.005)
        assert dot == f"translate({at})" and drop.endswith(f"L{at}")
        assert [*map(plain, said)] == pytest.approx([value, slope], abs=5.1e-5)
        (a, b), (c, d) = (map(float, end.split()) for end in tangent[1:].split("L"))
        assert (b - d) / down == pytest.approx(slope * (c - a) / unit, abs=0.2 * 4 / down + 0.01)
        assert ((a + c) / 2, (b + d) / 2) == pytest.approx(points[i], abs=0.11)


def test_descent_predicts_what_is_measured(page: Page, tmp_path) -> None:
    open_page(page, tmp_path, descent(low=-0.2))
    page.locator("input").press("Home")
    for i in range(-4, 33):
        lr, row = 0.05 * i, page.locator("figure").first.evaluate(READ_TABLE)
        errors = (descend(lr) - MINIMUM).norm(dim=1)
        modes = 1 - lr * MU, 1 - lr * L
        wanted = [*modes, max(map(abs, modes)), ((errors[60] / errors[40]) ** (1 / 20)).item()]
        assert [plain(c) for r in row[1:] for c in r[1:] if c] == pytest.approx(wanted, abs=6e-4)
        said = page.locator("figure p").inner_text()
        assert said.endswith(f"multiplies the error by {row[3][1]}.")
        fates = "climbs", "does not move", "without jumping", "side to side", "diverges"
        edges = [i < 0, i == 0, 0 < lr <= 1 / L, 1 / L < lr < 2 / L, lr > 2 / L]
        assert [fate in said for fate in fates] == edges
        page.locator("input").press("ArrowRight")


def test_descent_draws_the_path_and_the_factors(figures) -> None:
    reach = 1.3 * MINIMUM.abs().max().item()
    dots = [value[10:-1].split() for value in values_of(figures[1], ".dot[data-bind]")]
    for i, marks in enumerate(values_of(figures[1], ".marks"), 1):
        drawn = [[*map(float, at)] for at in re.findall(r"M(\S+) (\S+)h0", marks)]
        path = (descend(0.05 * i, 20) - MINIMUM) * torch.tensor([1, -1]) * 150 / reach
        places = (path + torch.tensor([202, 162])).tolist()[: len(drawn) - 1]
        assert len(drawn) == 21 or math.dist(drawn[-1], (202, 162)) > 450  # it is far outside
        assert drawn[:-1] == [pytest.approx(at, abs=0.06) for at in places]
        factor = max(abs(1 - 0.05 * i * MU), abs(1 - 0.05 * i * L))
        assert float(dots[i - 1][1]) == pytest.approx(312 - 300 * factor / 1.354, abs=1)


@pytest.mark.parametrize(
    "make, words, cells",
    [
        (lambda: explore(lambda x: 1 / x), "f = inf is not a finite number", "0 −inf inf 1"),
        (lambda: explore(torch.sqrt), "f = 0, but PyTorch's slope is inf", "0 inf 0 1"),
        (lambda: explore(lambda x: x**30, start=2), "1.074e09 rises", "2 1.611e10 1.074e09 1"),
        (lambda: explore(lambda x: -1e-9 * x, 0, 1, 0.04, step=0.0375), "falls", "−3.75e−11 1"),
        (lambda: descent(0, 4, 4, path=lambda a: descend(a, 700)), "diverges", "4.76 4.76"),
        (lambda: descent(start=1.2, path=lambda a: descend(a, 999)), "side to side", "0.728 0.728"),
        (lambda: descent(path=lambda a: descend(a, start=MINIMUM)), "by 0.88", "0.88 nan"),
    ],
)
def test_infinities_are_shown_and_told(make, words, cells) -> None:
    _, rest = without_script(figure := make())
    assert words in rest.p.text
    assert " ".join(cell.text for cell in rest.select("td[class]") if cell.text).endswith(cells)
    assert not re.search(r"[ML(](\S+ )?(nan|−?inf)", figure.html)  # in what is drawn


def test_pointer_and_touch_drag_the_point(figures, page: Page, tmp_path) -> None:
    open_page(page, tmp_path, figures[0])
    svg = page.locator("svg").first
    low, high = map(float, svg.get_attribute("data-drag").split())
    unit, left, top = svg.evaluate("s => (m => [m.a, m.e, m.f])(s.getScreenCTM())")
    places = [(left + unit * (low + k / 10 * (high - low)), top + 100) for k in range(26)]
    page.mouse.move(*places[1])
    page.mouse.down()
    for k in (1, 3, 5, 25):  # at last outside of the picture
        page.mouse.move(*places[k])
        check_curve(page, -2 + 0.4 * min(k, 10))
    page.mouse.up()
    assert page.evaluate("getSelection().toString()") == ""
    page.keyboard.press("ArrowLeft")
    check_curve(page, 1.95)
    touch = page.context.new_cdp_session(page)
    for k, kind in enumerate(["touchStart", *["touchMove"] * 6], 2):
        points = [dict(zip("xy", places[k], strict=True))]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_function("document.querySelector('label b').textContent === '1.2'")


def test_without_script_there_is_a_picture_with_words(figures, page: Page, tmp_path) -> None:
    still = page.context.browser.new_page(java_script_enabled=False)
    open_page(still, tmp_path, *figures)
    assert all(image.bounding_box()["height"] > 150 for image in still.locator("img").all())
    assert [e.is_visible() for e in still.locator("button, input").all()] == [False] * 6
    steps = still.locator("li").all_inner_texts()
    assert steps[3] == "Add <b>': f = 52, from z₁ and z₂."  # names are text and not markup
    assert steps[7] == "Input: df/dx = −3 + 48 = 45 is complete."
    assert "0.125" in still.locator("table").first.inner_text()
    still.close()
    picture, _ = without_script(figures[2])
    assert picture.select(".off, .now, .wait") == [] and "−3 + 48 = 45" in picture.text


@pytest.mark.parametrize("theme", ["", "data-theme='dark'"])
def test_contrast_in_light_and_dark(theme, figures, page: Page, tmp_path) -> None:
    open_page(page, tmp_path, *figures, theme=theme)
    style = page.locator("figure").first.evaluate_handle("e => getComputedStyle(e)")
    texts = ["ink paper", "gray paper", "value paper", "grad paper"]
    texts += ["value value-band", "grad grad-band"]
    for pair in [*texts, "blue paper", "vermilion paper"]:
        read = "(style, name) => style.getPropertyValue('--' + name).trim()"
        colors = [style.evaluate(read, name) for name in pair.split()]
        assert contrast(*colors) >= (4.5 if pair in texts else 3), pair
    assert (contrast(style.evaluate(read, "paper"), "white") > 10) == (theme != "")


@pytest.mark.skipif(not REVEAL.exists(), reason="reveal.js is missing: run npm ci")
def test_in_a_deck_all_fits_and_is_walked_by_fragments(figures, page: Page, tmp_path) -> None:
    open_page(page, tmp_path, Stepper(busy()), *figures[:2], body=DECK, each=SLIDE)
    page.wait_for_function("window.Reveal && Reveal.isReady()")
    figure = page.locator("section.present figure")

    def press(key: str, wanted: str) -> None:
        page.keyboard.press(key)
        assert figure.locator("p").inner_text().startswith(wanted)
        assert figure.evaluate("e => e.offsetHeight") <= 560 and figure.evaluate(OVERFULL) <= 1
        assert figure.locator(".course-body").evaluate(OVERFULL) <= 1

    press("ArrowRight", "Names and arrows only")
    press("PageDown", "Names and arrows only")  # the fragment before it
    for i in range(1, 15):
        press("PageDown", f"Step {i} ")
    page.click("button[value=back]")  # the buttons move the fragments with them
    press("ArrowLeft", "Step 12 ")
    page.click("button[value=last]")
    press("PageDown", "At x = 0.5,")
    page.locator("section.present input").focus()
    press("ArrowRight", "At x = 0.55,")  # which does not change the slide
    press("Space", "At x = 0.55,")  # Space and a clicker show what is next
    press("Space", "In theory,")


def test_output_is_the_same_each_time(figures) -> None:
    again = Explorer(polynomial, -2, 2, start=0.5), descent(), Stepper(cubic())
    for figure, other in zip(figures, again, strict=True):
        assert figure._repr_mimebundle_(include=None, exclude=None) == other._repr_mimebundle_()
        assert not re.search(r"\sid=|https?://(?!www\.w3\.org/2000/svg)|\d\.\d{7}", figure.html)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Stepper(leaf() ** 2), "Stepper needs a Graph: Stepper(read_graph("),
        (lambda: Stepper(Graph(busy().nodes * 2, busy().edges)), "name fewer"),
        (lambda: Explorer(lambda x: {"f": x**2, "z": x**3}, 0, 1), "from f: put the output last"),
        (lambda: Explorer(lambda x: {"x": x**2}, 0, 1), "the tensor called x a different name"),
        (lambda: explore(lambda x: x if x < 1 else leaf(3.0).detach()), "at x = 1.0, f is not"),
        (lambda: explore(torch.sin, 2, -2), "low 2 must be less than high -2"),
        (lambda: explore(torch.sin, step=0.001), "2 to 101 positions, not 4001"),
        (lambda: descent(loss=lambda w: (w**4).sum()), "must be quadratic"),
        (lambda: descent(path=lambda lr: descend(lr)[-1]), "shape (n, 2), not (2,)"),
    ],
)
def test_bad_input_is_refused_with_advice(make, words) -> None:
    with pytest.raises((GraphError, ValueError), match=re.escape(words)):
        make()
