"""The figures to play with show autograd's numbers at every position, to every kind of reader."""

import json
import math
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page

from utils.data import make_least_squares
from utils.drawing import BADGE, HEAD
from utils.graph import Graph, GraphError, read_graph, replay_backward
from utils.interactive import DescentExplorer, Explorer, Figure
from utils.stepper import MAX_TENSORS, Stepper, _plain

ROOT = Path(__file__).parents[1]
NODE = ROOT / "node_modules"
X, Y, _ = make_least_squares(100, curvatures=(1.44, 0.24), noise=0.5, seed=7)
needs_npm = pytest.mark.skipif(
    not (NODE / ".package-lock.json").exists(),
    reason="reveal.js and axe-core are missing: run npm ci",
)
LR = dict(low=0.05, high=1.6, step=0.05, start=0.5)
VARIABLES = re.compile(r"--([a-z-]+): (#[0-9a-f]+)")


def polynomial(x):
    z1, z2 = x**3, -3 * x
    return {"z1": z1, "z2": z2, "f": z1 + z2}


def loss(w):
    return ((X @ w - Y) ** 2).mean() / 2


def descend(lr, num_steps=60):
    path = [torch.zeros(2, dtype=torch.float64)]
    for _ in range(num_steps):
        path.append(path[-1] - lr * X.T @ (X @ path[-1] - Y) / len(Y))
    return torch.stack(path)


# A graph as a recipe: of each tensor, its inputs and how it is computed from them.
Recipe = dict[str, tuple[str, Callable]]
CUBIC: Recipe = {
    "x": ("", lambda: 2.0),
    "z1": ("x", lambda x: x**3),
    "z2": ("x", lambda x: -3 * x),
    "f": ("z1 z2", lambda z1, z2: z1 + z2),
}
BUSY: Recipe = {  # two inputs; two tensors with three uses
    "x": ("", lambda: 0.5),
    "y": ("", lambda: -2.0),
    "a": ("x y", lambda x, y: torch.sin(x * y)),
    "b": ("x", lambda x: x.exp()),
    "c": ("a b y", lambda a, b, y: a * b - y**2),
    "d": ("c a y", lambda c, a, y: c + a * y),
    "f": ("d a b", lambda d, a, b: d**2 / (1 + b) + a),
}


def run(recipe: Recipe) -> tuple[dict[str, torch.Tensor], Graph]:
    """The tensors of a recipe, and their graph as `read_graph` reads it."""
    live: dict[str, torch.Tensor] = {}
    for name, (inputs, compute) in recipe.items():
        value = compute(*(live[i] for i in inputs.split()))
        leaf = not inputs
        live[name] = torch.tensor(value, requires_grad=True) if leaf else value
    return live, read_graph(live["f"], live)


def local_derivatives(recipe: Recipe, live: dict, name: str) -> dict[str, float]:
    """Autograd's derivatives of a tensor by each of its inputs, all others held fixed."""
    inputs, compute = recipe[name]
    held = [live[i].detach().requires_grad_() for i in inputs.split()]
    slopes = torch.autograd.grad(compute(*held), held) if held else []
    return {i: slope.item() for i, slope in zip(inputs.split(), slopes, strict=True)}


def expected(recipe: Recipe, names: list[str]) -> list[dict]:
    """What a Stepper must show at each position, tensor by tensor in the order of `names`."""
    live, _ = run(recipe)
    values, sums, rows, arrows = dict.fromkeys(names, ""), dict.fromkeys(names, ""), {}, [0, 0]
    frames = []

    def record(now: str) -> None:
        frame = {"now": now, "values": values, "sums": sums, "rows": rows, "arrows": arrows}
        frames.append(deepcopy(frame))

    record("")
    for name in names:
        values[name] = f"{live[name].item():.4g}"
        arrows[1] += len(recipe[name][0].split())
        record(name)
    total = {name: 0.0 for name in names} | {"f": 1.0}
    sums = {name: f"{value:.4g}" for name, value in total.items()}
    for name in reversed(names):
        rows = {}
        for source, slope in local_derivatives(recipe, live, name).items():
            sent = total[name] * slope
            total[source] += sent
            rows[source] = [f"{v:.4g}" for v in (total[name], slope, sent, total[source])]
            sums[source] = rows[source][-1]
        arrows[0] += len(rows)
        record(name)
    grads = torch.autograd.grad(live["f"], [live[name] for name in names])
    for name, grad in zip(names, grads, strict=True):
        assert f"{grad.item():.4g}" == f"{total[name]:.4g}"  # the walk above is right
    return frames


def ascii_number(text: str) -> str:
    """The last number of a text such as ∂f/∂x = −3 + 12 = 9."""
    return text.replace("−", "-").rpartition("= ")[2]


# What a reader sees, in a browser. Each returns the same for the same state of the page.

READ_STEPPER = """root => {
  const shown = e => !e.closest('.off') && getComputedStyle(e).visibility === 'visible';
  const boxes = [...root.querySelectorAll('.ring')].map(r => r.parentNode);
  const name = b => b.querySelector('text:not(.t)').textContent.split(' ')[0];
  const text = (b, kind) => { const e = b.querySelector('text.' + kind);
    return e && shown(e) ? e.textContent : ''; };
  const at = boxes.filter(b => getComputedStyle(b.querySelector('.ring')).display !== 'none');
  const rows = [...root.querySelectorAll('tr')].slice(1).filter(shown);
  return { now: at.map(name).join(' '), said: root.querySelector('[role=status]').textContent,
    dashed: at.map(b => getComputedStyle(b.querySelector('.ring')).strokeDasharray !== 'none'),
    values: Object.fromEntries(boxes.map(b => [name(b), text(b, 'v')])),
    sums: Object.fromEntries(boxes.map(b => [name(b), text(b, 'g')])),
    labels: [...root.querySelectorAll('g')]
      .filter(g => g.matches(':has(> .box):not(:has(> .ring))') && shown(g))
      .map(g => [...g.querySelectorAll('text')].map(t => t.textContent).join(' ')),
    arrows: ['.back > .line', ':not(.wait, .back) > .line'].map(
      which => [...root.querySelectorAll('g' + which)].filter(shown).length),
    rows: rows.map(r => [...r.cells].map(c => c.textContent)).filter(r => r[0]) };
}"""
READ_TABLE = (
    "root => [...root.querySelectorAll('tr')].map(r => [...r.cells].map(c => c.textContent))"
)


def write(folder: Path, body: str) -> str:
    """The address of a page with this body."""
    start = "<!doctype html><html lang='en'><meta charset='utf-8'><title>Test</title>"
    view = "<meta name='viewport' content='width=device-width, initial-scale=1'>"
    (folder / "page.html").write_text(f"{start}{view}<body>{body}", encoding="utf-8")
    return (folder / "page.html").as_uri()


def page_of(*figures: Figure) -> str:
    return "<main><h1>Figures</h1>" + "".join(figure.html for figure in figures) + "</main>"


def deck_of(*figures: Figure) -> str:
    """A reveal.js deck with a title slide and a figure per slide, each after a fragment."""
    dist = (NODE / "reveal.js/dist").as_uri()
    slides = "".join(
        f"<section><h2>Title</h2><p class='fragment'>First</p>{f.html}</section>" for f in figures
    )
    options = "{width: 1280, height: 720, margin: 0.04, transition: 'none', hash: true}"
    return (
        f"<link rel='stylesheet' href='{dist}/reveal.css'>"
        f"<link rel='stylesheet' href='{dist}/theme/white.css'>"
        f"<div class='reveal'><div class='slides'><section>Start</section>{slides}</div></div>"
        f"<script src='{dist}/reveal.js'></script><script>Reveal.initialize({options})</script>"
    )


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer(polynomial, -2, 2, start=0.5)


@pytest.fixture(scope="module")
def descent() -> DescentExplorer:
    return DescentExplorer(loss, descend, **LR)


@pytest.fixture(scope="module")
def stepper() -> Stepper:
    return Stepper(run(CUBIC)[1])


@pytest.fixture(scope="module")
def all_figures(explorer, descent, stepper) -> list[Figure]:
    return [explorer, descent, stepper]


def polynomial_row(x: float) -> list[list[str]]:
    """Value and gradient of x, z1, z2 and f by autograd, as the table shows them."""
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    tensors = [leaf, *polynomial(leaf).values()]
    grads = torch.autograd.grad(tensors[-1], tensors)
    return [
        [f"{t.item() + 0.0:.4f}", f"{g.item() + 0.0:.4f}"]
        for t, g in zip(tensors, grads, strict=True)
    ]


def four_decimals(text: str) -> str:
    return f"{float(text.replace('−', '-')):.4f}"


def check_curve(rows: list[list[str]], x: float) -> None:
    assert [row[0] for row in rows[1:]] == ["x", "z₁", "z₂", "f"]
    assert [[four_decimals(c) for c in row[1:]] for row in rows[1:]] == polynomial_row(x)


def check_frame(seen: dict, frame: dict, names: list[str]) -> None:
    """Compare what a Stepper shows with what autograd says."""
    subscript = {name: re.sub(r"\d", lambda d: "₀₁₂₃"[int(d[0])], name) for name in names}
    assert seen["now"] == subscript.get(frame["now"], "")
    for name in names:
        assert ascii_number(seen["values"][subscript[name]]) == frame["values"][name]
        assert ascii_number(seen["sums"][subscript[name]]) == frame["sums"][name]
    now = subscript.get(frame["now"], "")
    rows = {re.search(rf"∂{now}/∂(\S+)", row[1])[1]: row for row in seen["rows"]}
    assert rows.keys() == {subscript[source] for source in frame["rows"]}
    assert seen["arrows"] == frame["arrows"] and len(seen["labels"]) == frame["arrows"][0]
    for source, numbers in frame["rows"].items():
        row = rows[subscript[source]]
        assert row[0].startswith(f"∂f/∂{now} = ")
        assert row[3].startswith(f"∂f/∂{subscript[source]} = ")
        assert [ascii_number(cell) for cell in row] == numbers
        assert numbers[2].replace("-", "−") in seen["said"]
        assert f"∂{now}/∂{subscript[source]} = {row[1].rpartition('= ')[2]}" in seen["labels"]


@pytest.mark.parametrize("recipe", [CUBIC, BUSY], ids=["cubic", "busy"])
def test_stepper_shows_autograds_numbers_at_every_step(recipe, page: Page, tmp_path) -> None:
    _, graph = run(recipe)
    names = [node.name for node in reversed(graph.nodes)]
    frames = expected(recipe, names)
    page.goto(write(tmp_path, page_of(Stepper(graph))))
    root = page.locator("figure")
    check_frame(root.evaluate(READ_STEPPER), frames[0], names)
    for i, frame in enumerate(frames[1:], 1):
        page.click("button[value=next]")
        seen = root.evaluate(READ_STEPPER)
        check_frame(seen, frame, names)
        assert f"Step {i} of {2 * len(names)}" in seen["said"]
        assert seen["dashed"] == [i > len(names)]  # not by color alone
    page.click("button[value=next]")
    assert root.evaluate(READ_STEPPER) == seen  # the end is the end
    for key, i in ("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 1), ("End", -1), ("ArrowLeft", -2):
        page.keyboard.press(key)
        check_frame(root.evaluate(READ_STEPPER), frames[i], names)
    for button, i in ("first", 0), ("last", -1), ("back", -2):
        page.click(f"button[value={button}]")
        check_frame(root.evaluate(READ_STEPPER), frames[i], names)


def test_stepper_visits_in_pytorchs_order() -> None:
    live, graph = run(BUSY)
    assert [node.name for node in graph.nodes] == list("fdcbaxy")
    replayed = {t: g.item() for t, g in replay_backward(live["f"]).grads.items()}
    assert replayed[live["x"]] == pytest.approx(graph["x"].grad.item())
    last = [step for step in re.split(r"(?<=\.) (?=Input)", Stepper(graph).text) if "∂" in step]
    assert len(last) == 3 and "∂f/∂y" in last[-1]


def test_stepper_tells_vectors_and_formulas() -> None:
    A, w = torch.tensor([[1.0, 2], [3, -1], [2, 1]]), torch.tensor([2.0, -1], requires_grad=True)
    z1 = A @ w - torch.tensor([1.0, 4, 5])
    f = (z1**2).sum() / 2
    formulas = {"z1": "Aw - y", "f": r"\frac{1}{2} \|z_1\|^2"}
    graph = read_graph(
        f, {"w": w, "z1": z1, "f": f}, formulas=formulas, local={("z1", "w"): ("A", A)}
    )
    text = Stepper(graph).text
    assert "z₁ = Aw − y = (−1, 3, −2), from w." in text
    assert "f = 1/2 ‖z₁‖² = 7, from z₁." in text
    assert "1 × ∂f/∂z₁ = (−1, 3, −2) goes to z₁: ∂f/∂z₁ = (−1, 3, −2)." in text
    assert "(−1, 3, −2) × A = (4, −7) goes to w: ∂f/∂w = (4, −7)." in text
    assert (
        _plain(r"z_{12}^{k}, 2z_1^⊤, \Vert a \Vert, \sigma(x)^{q}") == "z₁₂ᵏ, 2z₁ᵀ, ‖a ‖, σ(x)^(q)"
    )


def test_stepper_subtracts_where_a_negative_gradient_arrives() -> None:
    recipe: Recipe = {"x": ("", lambda: 2.0), "a": ("x", lambda x: -(x**2))}
    recipe["f"] = ("a x", lambda a, x: a + 3 * x)
    text = Stepper(run(recipe)[1]).text
    assert "∂f/∂x = 3 − 4 = −1" in text and "+ −" not in text


def test_explorer_by_keyboard_shows_autograds_numbers(explorer, page: Page, tmp_path) -> None:
    page.goto(write(tmp_path, page_of(explorer)))
    root, slider = page.locator("figure"), page.locator("input")
    check_curve(root.evaluate(READ_TABLE), 0.5)
    slider.press("Home")
    for i in range(81):
        rows, x = root.evaluate(READ_TABLE), round(-2 + 0.05 * i, 2)
        check_curve(rows, x)
        assert float(root.locator("label b").inner_text().replace("−", "-")) == x
        said = slider.get_attribute("aria-valuetext")
        assert f"f = {rows[4][1]}" in said and said.endswith(f"the slope is {rows[1][2]}.")
        slope = float(rows[1][2].replace("−", "-"))
        assert ("rises" in said, "falls" in said) == (slope > 0, slope < 0)
        slider.press("ArrowRight")
    check_curve(root.evaluate(READ_TABLE), 2.0)


def test_explorer_draws_the_tangent(explorer) -> None:
    """Along the drawn line, the slope is the gradient; the point stands on the drawn curve."""
    picture, _ = parts(explorer)
    keys = [picture.select_one(f"text.start.{kind} tspan.n") for kind in ("v", "g")]
    (tangent,) = picture.select(".back > path.line[data-bind]")
    dot, curve = (
        picture.select_one(".dot"),
        picture.select_one("path.line[d*='L']:not([data-bind])"),
    )
    points = [tuple(map(float, p.split())) for p in re.split("[ML]", curve["d"])[1:]]
    unit = (points[-1][0] - points[0][0]) / 4
    down = (max(p[1] for p in points) - min(p[1] for p in points)) / 4  # f reaches from -2 to 2
    for i, point in enumerate(points):
        at = re.findall(r"[-\d.]+", value_at(explorer, dot, i))
        assert tuple(map(float, at)) == point
        (a, b), (c, d) = (
            map(float, p.split()) for p in value_at(explorer, tangent, i)[1:].split("L")
        )
        value, slope = (-2 + 0.05 * i) ** 3 - 3 * (-2 + 0.05 * i), 3 * (-2 + 0.05 * i) ** 2 - 3
        said = [float(value_at(explorer, key, i).replace("−", "-")) for key in keys]
        assert said == pytest.approx([value, slope], abs=5.1e-5)
        assert (b - d) / down == pytest.approx(slope * (c - a) / unit, abs=0.2 * 4 / down + 0.01)
        assert 190 < math.dist((a, b), (c, d)) < 241  # about as long at every slope
        assert ((a + c) / 2, (b + d) / 2) == pytest.approx(point, abs=0.11)
        drop = value_at(explorer, picture.select_one(".drop"), i)
        assert drop.rpartition("L")[2].split() == at and drop[1:].split()[0] == at[0]


def parts(figure: Figure) -> tuple[BeautifulSoup, BeautifulSoup]:
    """The picture and the rest of a figure, as they are where no script runs."""
    rest = BeautifulSoup(figure.html, "html.parser")
    svg = unquote(rest.select_one("img")["src"].partition(",")[2])
    return BeautifulSoup(svg, "html.parser"), rest


def value_at(figure: Figure, element, i: int) -> str:
    frames = json.loads(parts(figure)[1].figure["data-frames"])
    values = frames[int(element["data-bind"].split()[0])]
    return next(value for value in values[i::-1] if value != 0)


def test_gradients_meet_at_the_steppers_badges() -> None:
    picture, _ = parts(Stepper(run(BUSY)[1]))
    lines = [path["d"] for path in picture.select(".back > .line")]
    ends = [tuple(map(float, re.findall(r"-?[\d.]+", line)[-2:])) for line in lines]  # y x
    badges = picture.select("rect.sum")
    assert len(badges) == 4  # x and b have two uses, y and a three
    for badge in badges:
        x, y, width, height = (float(badge[name]) for name in ("x", "y", "width", "height"))
        tips = [b for b, a in ends if a == pytest.approx(x + width + HEAD)]
        levels = [b for b in tips if y < b < y + height]  # of what meets here
        assert (min(levels), max(levels)) == pytest.approx((y + BADGE, y + height - BADGE))
        plus = badge.find_next("text", class_="plus")
        middle = (x + width / 2, y + height / 2)
        assert (float(plus["x"]), float(plus["y"])) == pytest.approx(middle, abs=0.11)


@pytest.mark.parametrize("depth, rows", [(3, 1), (5, 2), (7, 3)])
def test_stepper_folds_a_long_chain(depth, rows) -> None:
    recipe: Recipe = {"z0": ("", lambda: 0.5)}
    recipe |= {f"z{i}": (f"z{i - 1}", torch.sin) for i in range(1, depth)}
    recipe["f"] = (f"z{depth - 1}", torch.square)
    picture, _ = parts(Stepper(run(recipe)[1]))
    assert len({box["y"] for box in picture.select("rect.ring")}) == rows


@pytest.mark.parametrize("start", [0.1, 0.7])
def test_explorer_by_pointer(start, explorer, page: Page, tmp_path) -> None:
    page.goto(write(tmp_path, page_of(explorer)))
    svg = page.locator("svg").first
    low, high = map(float, svg.get_attribute("data-drag").split())
    unit, left, top = svg.evaluate("s => (m => [m.a, m.e, m.f])(s.getScreenCTM())")

    def move(share: float) -> None:
        page.mouse.move(left + unit * (low + share * (high - low)), top + 100)

    move(start)
    page.mouse.down()
    for share in (start, 0.3, 0.5, 1.02):
        move(share)
        x = -2 + 0.05 * min(round(80 * share), 80)
        check_curve(page.locator("figure").evaluate(READ_TABLE), x)
    page.mouse.up()
    move(0.1)
    check_curve(page.locator("figure").evaluate(READ_TABLE), x)  # let go is let go


def test_descent_predicts_what_is_measured(descent, page: Page, tmp_path) -> None:
    page.goto(write(tmp_path, page_of(descent)))
    minimum = torch.linalg.lstsq(X, Y).solution
    mu, L = torch.linalg.eigvalsh(X.T @ X / len(Y)).tolist()
    page.locator("input").press("Home")
    for i in range(1, 33):
        lr, row = 0.05 * i, page.locator("figure").evaluate(READ_TABLE)
        errors = (descend(lr) - minimum).norm(dim=1)
        measured = (errors[60] / errors[40]) ** (1 / 20)
        numbers = [float(c.replace("−", "-")) for r in row[1:] for c in r[1:] if c]
        wanted = [1 - lr * mu, 1 - lr * L, max(abs(1 - lr * mu), abs(1 - lr * L)), measured.item()]
        assert numbers == pytest.approx(wanted, abs=5.1e-4)
        said = page.locator("figure p").inner_text()
        assert ("diverges" in said) == (lr > 2 / L) == bool(errors[-1] > errors[0])
        assert ("jumping across" in said) == (1 / L < lr < 2 / L)
        page.locator("input").press("ArrowRight")


def test_descent_draws_the_path(descent) -> None:
    """The drawn marks are the path's first 20 steps, as long as they are near."""
    picture, _ = parts(descent)
    minimum = torch.linalg.lstsq(X, Y).solution
    reach = 1.3 * minimum.abs().max().item()
    for i in range(32):
        drawn = re.findall(r"M(\S+) (\S+)h0", value_at(descent, picture.select_one(".marks"), i))
        path = (descend(0.05 * (i + 1), 20) - minimum) * torch.tensor([1, -1]) * 150 / reach
        places = path + torch.tensor([202, 162])
        for (x, y), place in zip(drawn, places.tolist(), strict=False):
            if (x, y) != drawn[-1]:
                assert (float(x), float(y)) == pytest.approx(place, abs=0.06)
    assert len(drawn) < 21  # it diverges: the rest is far outside


@needs_npm
@pytest.mark.parametrize("theme", ["", "data-theme='dark'", "theme='dark'"])
def test_axe_finds_nothing(theme, all_figures, page: Page, tmp_path) -> None:
    body = page_of(*all_figures, *all_figures)  # each of them twice
    address = write(tmp_path, body)
    html = Path(tmp_path, "page.html").read_text("utf-8").replace("<html ", f"<html {theme} ")
    Path(tmp_path, "page.html").write_text(html, "utf-8")
    page.goto(address)
    for _ in range(7):
        page.locator("button[value=next]").first.click()
    if theme:
        page.evaluate("document.body.style.cssText = 'background: #121212; color: white'")
    color = page.locator("figure").first.evaluate("e => getComputedStyle(e).backgroundColor")
    assert (color == "rgb(255, 255, 255)") == (not theme)
    page.add_script_tag(path=NODE / "axe-core/axe.min.js")
    found = page.evaluate("axe.run().then(r => r.violations.map(v => [v.id, v.nodes[0].html]))")
    assert found == []
    said = page.locator("[role=status]").all_inner_texts()
    assert "Step 7 of 8" in said[0] and "nothing is computed" in said[1]  # each on its own


def luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(c + c for c in color[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_in_light_and_dark() -> None:
    """In pictures too, where axe does not look: text 4.5, lines 3."""
    css = (ROOT / "utils/interactive.css").read_text("utf-8")
    light, dark = (dict(VARIABLES.findall(part)) for part in css.split("@media screen")[:2])
    assert light.keys() == dark.keys()
    pairs = {"ink paper": 4.5, "gray paper": 4.5, "value paper": 4.5, "grad paper": 4.5}
    pairs |= {"value value-band": 4.5, "grad grad-band": 4.5, "blue paper": 3, "vermilion paper": 3}
    for colors in (light, dark):
        for pair, least in pairs.items():
            a, b = sorted((luminance(colors[name]) for name in pair.split()), reverse=True)
            assert (a + 0.05) / (b + 0.05) >= least, f"{pair}: {colors}"


def test_phone_does_not_scroll_sideways(all_figures, page: Page, tmp_path) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(write(tmp_path, page_of(*all_figures)))
    view = page.locator("figure.stepper .course-view")
    for _ in range(8):
        page.click("button[value=next]")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        work, room = page.locator(".now .ring").bounding_box(), view.bounding_box()
        assert room["x"] <= work["x"] + 1  # the tensor at work is in sight
        assert work["x"] + work["width"] <= room["x"] + room["width"] + 1
    tall = "document.querySelectorAll('.course-picture text')"
    heights = page.evaluate(f"[...{tall}].map(t => t.getBoundingClientRect().height)")
    assert min(h for h in heights if h) >= 8


def test_static_without_script(all_figures, browser: Browser, tmp_path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(write(tmp_path, page_of(*all_figures)))
    assert page.locator("img").count() == 3
    for image in page.locator("img").all():
        box = image.bounding_box()
        assert box["width"] > 300 and box["height"] > 150  # a broken picture is 16 x 16
        assert len(image.get_attribute("alt")) >= 40
    assert [e.is_visible() for e in page.locator("button, input").all()] == [False] * 6
    steps = page.locator("li").all_inner_texts()
    assert len(steps) == 8 and steps[-1] == "Input: ∂f/∂x = −3 + 12 = 9 is complete."
    assert "0.125" in page.locator("table").first.inner_text()
    context.close()


def test_static_picture_is_whole(stepper) -> None:
    picture, _ = parts(stepper)
    assert picture.select(".off, .now, .wait") == []
    shown = picture.get_text(" ")
    for text in ("8", "−6", "−3 + 12 = 9", "= −3"):
        assert text in shown


def test_paper(all_figures, page: Page, tmp_path) -> None:
    page.goto(write(tmp_path, page_of(*all_figures)))
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("li").count() == 8 and page.locator("li").last.is_visible()
    assert [e.is_visible() for e in page.locator("button, input").all()] == [False] * 6
    assert page.locator(".off").count() == 0 and not page.locator(".ring").last.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert "nothing is computed" in page.locator("[role=status]").text_content()


@needs_npm
def test_deck_walks_by_fragments(all_figures, page: Page, tmp_path) -> None:
    explorer, descent, stepper = all_figures
    page.goto(write(tmp_path, deck_of(stepper, explorer, descent)))
    page.wait_for_function("window.Reveal && Reveal.isReady()")

    def step() -> str:
        text = page.locator("section.present [role=status]").inner_text()
        return text[:6] if text.startswith("Step") else "start"

    page.keyboard.press("ArrowRight")
    assert step() == "start"
    page.keyboard.press("PageDown")  # the fragment before it
    for i in range(1, 9):
        page.keyboard.press("PageDown")
        assert step() == f"Step {i}"
    page.keyboard.press("PageUp")
    assert step() == "Step 7"
    page.click("button[value=back]")  # the buttons move the fragments with them
    page.keyboard.press("ArrowLeft")
    assert step() == "Step 5"
    page.keyboard.press("PageDown")
    assert step() == "Step 6"
    page.click("button[value=first]")
    assert step() == "start" and page.locator("section.present p.visible").count() == 1
    page.click("button[value=last]")
    page.keyboard.press("PageDown")
    assert page.evaluate("Reveal.getIndices().h") == 2  # the next slide
    page.keyboard.press("PageUp")
    assert step() == "Step 8"


@needs_npm
def test_deck_leaves_the_slider_its_keys(explorer, page: Page, tmp_path) -> None:
    page.goto(write(tmp_path, deck_of(explorer)))
    page.wait_for_function("window.Reveal && Reveal.isReady()")
    page.evaluate("Reveal.slide(1)")
    slider = page.locator("input")
    slider.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "Home"):
        page.keyboard.press(key)
        assert page.evaluate("Reveal.getIndices().h") == 1
    check_curve(page.locator("figure").evaluate(READ_TABLE), -2.0)
    page.keyboard.press("PageUp")  # a clicker is not held up
    assert page.evaluate("Reveal.getIndices().h") == 0
    check_curve(page.locator("figure").evaluate(READ_TABLE), -2.0)


@needs_npm
@pytest.mark.parametrize("recipe", [CUBIC, BUSY], ids=["cubic", "busy"])
def test_fits_into_a_slide(recipe, explorer, descent, page: Page, tmp_path) -> None:
    page.goto(write(tmp_path, deck_of(Stepper(run(recipe)[1]), explorer, descent)))
    page.wait_for_function("window.Reveal && Reveal.isReady()")
    for i in (1, 2, 3):
        page.evaluate(f"Reveal.slide({i})")
        figure = page.locator("section.present figure")
        assert figure.evaluate("e => e.offsetHeight") <= 560
        inside = "e => [e.scrollHeight - e.clientHeight, e.scrollWidth - e.clientWidth]"
        assert max(figure.evaluate(inside)) <= 1
        for _ in range(15):
            page.keyboard.press("PageDown")
            if page.evaluate("Reveal.getIndices().h") != i:
                break
            body = figure.locator(".course-body")
            assert max(body.evaluate(inside)) <= 1


@needs_npm
def test_deck_on_paper_shows_the_end(stepper, page: Page, tmp_path) -> None:
    page.goto(write(tmp_path, deck_of(stepper)) + "?print-pdf")
    page.wait_for_selector(".pdf-page figure.live")
    assert page.locator(".pdf-page").count() == 3  # start; before and after the fragment
    assert page.locator("figure .fragment").count() == 0
    assert page.locator("figure .off").count() == 0


def test_output_is_the_same_each_time_and_small(all_figures, stepper) -> None:
    again = [Explorer(polynomial, -2, 2, start=0.5), DescentExplorer(loss, descend, **LR)]
    again.append(Stepper(run(CUBIC)[1]))
    for figure, other in zip(all_figures, again, strict=True):
        bundle = figure._repr_mimebundle_(include=None, exclude=None)
        assert bundle == other._repr_mimebundle_()
        assert list(bundle) == ["text/html", "text/plain"]
        assert len(bundle["text/html"].encode()) <= 40_000
        assert not re.search(r"\sid=|https?://(?!www\.w3\.org/2000/svg)|\d\.\d{7}", figure.html)
    assert "−3 + 12 = 9" in stepper.text and "the slope is −2.25" in again[0].text


def chain(length: int, uses: int) -> Graph:
    """A graph of `length` tensors, each computed from the last `uses` ones."""
    tensors = [torch.tensor(0.7, requires_grad=True)]
    while len(tensors) < length:
        tensors.append(sum(t * (k + 0.123) for k, t in enumerate(tensors[-uses:])))
    return read_graph(tensors[-1], {f"t{i}": t for i, t in enumerate(tensors)})


@pytest.mark.parametrize("uses", [1, 2])
def test_largest_graph_is_small_enough(uses) -> None:
    assert len(Stepper(chain(MAX_TENSORS, uses)).html.encode()) <= 40_000


def test_names_are_text_and_not_markup(page: Page, tmp_path) -> None:
    x, name = torch.tensor(2.0, requires_grad=True), "<img>'\""
    f = x**2
    graph = read_graph(f, {"a<b>": x, "f": f}, titles={"f": name})
    explorer = Explorer(lambda x: {name: x**2}, 0, 1, 0.5)
    assert name in parts(explorer)[1].input["aria-valuetext"]
    page.goto(write(tmp_path, page_of(Stepper(graph), explorer)))
    page.click("button[value=last]")
    page.locator("input").press("Home")
    assert page.locator("figure img").count() == 0
    assert page.locator("th", has_text=name).count() == 2
    assert page.locator("figure.stepper text.t", has_text=name).count() == 1
    assert "∂f/∂a<b> = 4" in page.locator("[role=status]").inner_text()


def leaf() -> torch.Tensor:
    return torch.tensor(2.0, requires_grad=True)


def returns(value) -> Callable:
    return lambda: Explorer(lambda x: value(x), 0, 1)


def descends(**changes) -> Callable:
    return lambda: DescentExplorer(**({"loss": loss, "descend": descend} | LR | changes))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Stepper(leaf() ** 2), "Stepper(read_graph("),
        (lambda: Stepper(read_graph(leaf(), {})), "compute something"),
        (lambda: Stepper(chain(MAX_TENSORS + 1, 1)), "name fewer"),
        (returns(lambda x: x**2), 'named tensors, the output last: {"f": x**3}'),
        (returns(lambda x: {}), "named tensors"),
        (returns(lambda x: {"f": x.item() ** 2}), "f is not a tensor of one number"),
        (returns(lambda x: {"f": torch.stack([x, x])}), "f is not a tensor of one number"),
        (returns(lambda x: {"c": torch.tensor(1.0), "f": x**2}), "c was not computed from x"),
        (returns(lambda x: {"f": x.detach() ** 2}), "f was not computed from x"),
        (returns(lambda x: {"f": x**2, "z": x**3}), "not computed from f: put the output last"),
        (returns(lambda x: {"f" if x < 0.5 else "g": x**2}), "return the same ones"),
        (lambda: Explorer(polynomial, 2, -2), "choose another step"),
        (lambda: Explorer(polynomial, -2, 2, 0), "choose another step"),
        (lambda: Explorer(polynomial, -2, 2, 0.001), "choose another step"),
        (descends(loss=lambda w: (w**4).sum()), "must be quadratic"),
        (descends(loss=lambda w: w[0] ** 2 + 0 * w[1]), "no single minimum"),
        (descends(descend=lambda lr: descend(lr)[-1]), "shape (steps + 1, 2)"),
        (descends(descend=lambda lr: [0, 1]), "shape (steps + 1, 2)"),
    ],
)
def test_bad_input_is_refused_with_advice(make, words) -> None:
    with pytest.raises((GraphError, ValueError), match=re.escape(words)) as caught:
        make()
    assert "\n" not in str(caught.value)
