"""The pictures say what the graph holds, and nothing in them overlaps or is too small to read."""

import base64
import hashlib
import os
import re
import subprocess
import sys
from functools import cache
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.transforms import Bbox
from torch.nn import functional as F

from utils import course, plotting
from utils.course import ROOT
from utils.drawing import INK, draw_graph
from utils.graph import backward_table, read_graph
from utils.plotting import BLUE, VERMILION


def number(value):
    return torch.tensor(value, requires_grad=True)


def polynomial():
    x = number(2.0)
    z1, z2 = x**3, -3 * x
    f = z1 + z2
    return read_graph(
        f,
        {"x": x, "z1": z1, "z2": z2, "f": f},
        titles={"x": "input", "z1": "cube", "z2": "times -3", "f": "sum"},
        formulas={"z1": "x^3", "z2": "-3x", "f": "z_1 + z_2"},
        local={
            ("z1", "x"): ("3x^2", 3 * x**2),
            ("z2", "x"): ("-3", -3.0),
            ("f", "z1"): ("1", 1.0),
            ("f", "z2"): ("1", 1.0),
        },
    )


def least_squares():
    X, y = torch.tensor([[1.0, 2], [0, 1], [2, 1]]), torch.tensor([1.0, 2, 0])
    w = number([1.0, -1.0])
    z1 = X @ w - y
    z2 = (z1**2).sum()
    f = z2 / 2
    return read_graph(
        f,
        {"w": w, "z1": z1, "z2": z2, "f": f},
        titles={"w": "weights", "z1": "residual", "z2": "sum of squares", "f": "half"},
        formulas={"z1": "Xw - y", "z2": r"\Vert z_1 \Vert^2", "f": "z_2 / 2"},
        local={
            ("z1", "w"): ("X", X),
            ("z2", "z1"): (r"2z_1^\top", 2 * z1),
            ("f", "z2"): (r"\frac{1}{2}", 0.5),
        },
    )


def cube(detail="named"):
    x = number(2.0)
    f = x * x * x
    return read_graph(f, {"x": x, "f": f}, detail=detail, formulas={"f": r"x \cdot x \cdot x"})


def cube_in_detail():
    return cube("all")


def softmax():
    x, W, b = torch.tensor([1.0, 2]), number([[1.0, 0], [0, 1], [1, 1]]), number([0.1, 0.2, 0.3])
    logits = W @ x + b
    loss = F.cross_entropy(logits, torch.tensor(2))
    names = {"W": W, "b": b, "logits": logits, "loss": loss}
    return read_graph(loss, names, formulas={"logits": "Wx + b"})


def network():
    generator = torch.Generator().manual_seed(0)
    X, W1, b1, W2, b2 = (
        torch.randn(shape, generator=generator).requires_grad_(i > 0)
        for i, shape in enumerate([(4, 2), (2, 10), (10,), (10, 1), (1,)])
    )
    hidden = torch.tanh(X @ W1 + b1)
    logits = (hidden @ W2 + b2).squeeze(1)
    loss = F.binary_cross_entropy_with_logits(logits, torch.tensor([0.0, 1, 1, 0]))
    names = {"W1": W1, "b1": b1, "W2": W2, "b2": b2}
    names |= {"hidden": hidden, "logits": logits, "loss": loss}
    formulas = {"hidden": r"\tanh(XW_1 + b_1)", "logits": r"\mathrm{hidden}\,W_2 + b_2"}
    return read_graph(loss, names, formulas=formulas)


def chain(length=12, extra=False):
    s = [number(0.5)]
    for i in range(1, length):
        s.append(torch.sin(s[-1]) + (s[i // 2] if extra and i % 3 == 0 else 0))
    return read_graph(s[-1], {"s": s})


def diamond():
    a = number(3.0)
    b = a + a
    c = b + b
    return read_graph(c, {"a": a, "b": b, "c": c}, formulas={"b": "a + a", "c": "b + b"})


def skip(named_square=False):
    x, y = number(2.0), number(3.0)
    p, q = x * y, x**2
    f = p + q
    names = {"x": x, "y": y, "p": p, "f": f} | ({"q": q} if named_square else {})
    return read_graph(f, names, formulas={"p": "xy", "f": "p + x^2"})


def skip_with_square():
    return skip(named_square=True)


def three_uses():
    x = number(2.0)
    a, b, c = x**2, 3 * x, x.sin()
    f = a + b + c
    return read_graph(f, {"x": x, "a": a, "b": b, "c": c, "f": f})


CASES = [polynomial, least_squares, cube, cube_in_detail, softmax, network, chain, diamond, skip]
CASES = [(case, "right") for case in [*CASES, skip_with_square, three_uses]]
DOWN = [polynomial, least_squares, cube_in_detail, skip]
CASES += [(case, "down") for case in DOWN]


class Picture:
    """What stands in a drawn figure, in its pixels."""

    def __init__(self, graph, **options):
        course.setup(seed=0)
        self.graph = graph
        self.figure, self.alt = draw_graph(graph, **options)
        self.figure.canvas.draw()
        [ax] = self.figure.axes
        self.texts = {t: t.get_window_extent() for t in [*ax.texts, *ax.get_legend().get_texts()]}
        self.legend = ax.get_legend().get_texts()
        self.areas = {p: p.get_window_extent() for p in ax.patches if type(p) is FancyBboxPatch}
        edges = {p: to_rgb(p.get_edgecolor()) for p in self.areas}
        self.boxes = [self.areas[p] for p in self.areas if edges[p] == to_rgb(INK)]
        self.labels = [self.areas[p] for p in self.areas if edges[p] == to_rgb(VERMILION)]
        self.badges = [box for box in self.areas.values() if self.inside(box) == ["+="]]
        self.arrows = {
            a: ax.transData.transform_path(a.get_path()).to_polygons(closed_only=False)[0]
            for a in ax.patches
            if type(a) is FancyArrowPatch
        }

    def inside(self, box):
        """Return the texts whose middle is in a box, from top to bottom."""
        inside = [(t, e) for t, e in self.texts.items() if box.contains(*middle(e))]
        return [t.get_text() for t, e in sorted(inside, key=lambda pair: -middle(pair[1])[1])]

    def symbol_at(self, point):
        """Return the symbol of the tensor whose box is nearest to a point."""
        away = [max(*(b.min - point), *(point - b.max)) for b in self.boxes]
        return self.inside(self.boxes[int(np.argmin(away))])[1].strip("$").split(" = ")[0]

    def box(self, symbol):
        [lines] = [
            lines
            for lines in map(self.inside, self.boxes)
            if lines[1].strip("$").split(" = ")[0] == symbol
        ]
        return lines


def middle(box):
    return (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2


def shrunk(box, by=1.0):
    return Bbox.from_extents(box.x0 + by, box.y0 + by, box.x1 - by, box.y1 - by)


def luminance(color):
    c = np.array(to_rgb(color))
    return np.where(c <= 0.03928, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


@cache
def picture(case, direction="right"):
    return Picture(case(), direction=direction)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


every_case = pytest.mark.parametrize("case, direction", CASES)


@every_case
def test_nothing_overlaps_and_nothing_leaves_the_figure(case, direction):
    shown = picture(case, direction)
    for a, b in combinations(shown.texts, 2):
        overlap = Bbox.intersection(shrunk(shown.texts[a]), shown.texts[b])
        assert overlap is None, (a.get_text(), b.get_text())
    outer = [*shown.boxes, *shown.labels, *shown.badges]
    for a, b in combinations(outer, 2):
        assert Bbox.intersection(shrunk(a), shrunk(b)) is None
    for text, extent in shown.texts.items():
        around = [box for box in outer if Bbox.intersection(box, extent)]
        assert len(around) == (text not in shown.legend), text.get_text()
        for box in [shown.figure.bbox, *around]:
            assert np.all(box.min <= extent.min) and np.all(extent.max <= box.max), text.get_text()


@every_case
def test_arrows_lead_between_their_own_boxes_through_their_own_label_only(case, direction):
    shown = picture(case, direction)
    edges = {(edge.source.name, edge.target.name) for edge in shown.graph.edges}
    found = {BLUE: set(), VERMILION: set()}
    for arrow, points in shown.arrows.items():
        color = BLUE if to_rgb(arrow.get_edgecolor()) == to_rgb(BLUE) else VERMILION
        source, target = map(
            shown.symbol_at, (points[0], points[-1])[:: 1 if color == BLUE else -1]
        )
        found[color].add(tuple(re.sub(r"[\W_]|mathrm", "", name) for name in (source, target)))
        assert (arrow.get_linestyle() in ("-", "solid")) == (color == BLUE)
        way = Path(points)
        assert not any(way.intersects_bbox(shrunk(box), filled=False) for box in shown.boxes)
        crossed = [box for box in shown.labels if way.intersects_bbox(shrunk(box), filled=False)]
        assert len(crossed) == (color == VERMILION)
        for box in crossed:
            line = shown.inside(box)[0]
            assert line.index(rf"\partial {target}") < line.index(rf"\partial {source}")
    expected = {tuple(name.replace("_", "") for name in edge) for edge in edges}
    assert found == {BLUE: expected, VERMILION: expected}


@every_case
def test_type_is_readable_from_the_back_of_a_room(case, direction):
    shown = picture(case, direction)
    scale = min(1280 / shown.figure.bbox.width, 720 / shown.figure.bbox.height)
    pixels = {t: t.get_fontsize() * shown.figure.dpi / 72 * scale for t in shown.texts}
    assert min(pixels.values()) >= 16
    assert min(size for text, size in pixels.items() if "$" in text.get_text()) >= 20


@every_case
def test_text_has_contrast_with_what_is_behind_it(case, direction):
    shown = picture(case, direction)
    for text, extent in shown.texts.items():
        behind = [p for p, box in shown.areas.items() if box.contains(*middle(extent))]
        color = max(behind, key=lambda p: p.get_zorder()).get_facecolor() if behind else "white"
        dark, light = sorted([luminance(color), luminance(text.get_color())])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, text.get_text()


@every_case
def test_gradients_that_add_up_meet_at_a_badge(case, direction):
    shown = picture(case, direction)
    assert len(shown.badges) == sum(len(node.parts) > 1 for node in shown.graph.nodes)
    for badge in shown.badges:
        room = badge.padded(0.15 * shown.figure.dpi)
        ends = [p[-1] for a, p in shown.arrows.items() if room.contains(*p[-1])]
        several = {len(node.parts) for node in shown.graph.nodes if len(node.parts) > 1}
        assert len(ends) in several


@pytest.mark.parametrize("case", [case for case, direction in CASES if direction == "right"])
def test_the_stored_picture_is_small_and_the_same_twice(case, monkeypatch):
    outputs = []
    monkeypatch.setattr(plotting, "display", lambda data, **_: outputs.append(data["image/png"]))
    plotting.show(picture(case).figure, "")
    if case is polynomial:
        plotting.show(draw_graph(case())[0], "")
    assert len(base64.b64decode(outputs[0])) <= 80_000
    assert len(set(outputs)) == 1


def test_the_polynomial_says_what_the_lecture_says():
    shown = picture(polynomial)
    assert shown.box("x") == [
        "input",
        "$x$",
        r"$\mathbf{2}$",
        r"$\dfrac{\partial f}{\partial x} = {-}3 + 12 = \mathbf{9}$",
    ]
    assert shown.box("z_{1}")[1:3] == ["$z_{1} = x^3$", r"$\mathbf{8}$"]
    labels = [line for box in shown.labels for line in shown.inside(box)]
    assert r"$\dfrac{\partial z_{1}}{\partial x} = 3x^2 = 12$" in labels
    assert r"$\dfrac{\partial z_{2}}{\partial x} = -3$" in labels
    assert [t.get_text() for t in shown.legend] == ["values, forward", "gradients, backward"]


def test_the_polynomial_is_symmetric_and_its_rows_are_straight():
    shown = picture(polynomial)
    (x, z1, z2, f) = (
        middle(next(b for b in shown.boxes if shown.inside(b) == shown.box(name)))
        for name in ("x", "z_{1}", "z_{2}", "f")
    )
    assert z1[0] == pytest.approx(z2[0]) and x[1] == pytest.approx(f[1])
    assert z1[1] + z2[1] == pytest.approx(x[1] + f[1])


def test_shapes_stand_beside_vectors_and_matrices():
    shown = picture(least_squares)
    assert shown.box("z_{1}")[2] == r"$\mathbf{({-}2, {-}3, 1)} \in \mathbb{R}^{3}$"
    labels = list(map(shown.inside, shown.labels))
    assert [
        r"$\dfrac{\partial z_{1}}{\partial w} = X$",
        r"$ \in \mathbb{R}^{3{\times}2}$",
    ] in labels
    shown = picture(network)
    assert shown.box("W_{1}")[2] == r"$W_{1} \in \mathbb{R}^{2{\times}10}$"
    assert shown.box(r"\mathrm{hidden}")[1] == r"$\mathrm{hidden} = \tanh(XW_1 + b_1)$"


def test_a_tensor_without_a_name_has_no_value():
    assert len(picture(cube_in_detail).box("v_{1}")) == 3
    assert len(picture(cube_in_detail).box("x")) == 4


def test_the_text_is_the_backward_pass_or_says_how_values_come_about():
    graph = least_squares()
    _, text = draw_graph(graph)
    assert text.startswith("The computational graph of f") and "\n" not in text
    words = re.sub("[;.]", " ", text).split()
    table = re.sub("[;.]", " ", backward_table(graph)).split()
    assert words[-len(table) :] == table
    shown = Picture(graph, backward=False)
    assert "residual: z1 = Xw - y = (-2, -3, 1), from w" in shown.alt
    assert not re.search("gradient|local|df", shown.alt)
    assert not shown.labels and not shown.badges and len(shown.arrows) == len(graph.edges)
    assert "gradient" not in " ".join(text.get_text() for text in shown.texts)


def test_a_long_chain_is_folded_and_a_large_graph_is_drawn():
    box = picture(chain).figure.bbox
    assert 1 < box.width / box.height < 2.5
    assert len(Picture(chain(40, extra=True)).boxes) == 40


def test_a_graph_is_drawn_into_given_axes():
    fig, axes = plt.subplots(1, 2, figsize=(12, 5))
    for ax in axes:
        assert draw_graph(diamond(), ax)[0] is fig
        fig.canvas.draw()
        for box in [t.get_window_extent() for t in ax.texts]:
            assert np.all(ax.bbox.min <= box.min) and np.all(box.max <= ax.bbox.max)
        for arrow in (p for p in ax.patches if isinstance(p, FancyArrowPatch)):
            assert arrow.get_mutation_scale() == pytest.approx(7.5 * arrow.get_linewidth())
    assert len(axes[0].texts) == len(axes[1].texts) == 14


def test_a_graph_of_one_tensor_is_drawn():
    x = number(2.0)
    assert len(Picture(read_graph(x, {"x": x})).boxes) == 1


def test_a_wrong_direction_is_refused():
    with pytest.raises(ValueError, match='"right" or "down", not \'left\''):
        draw_graph(diamond(), direction="left")


def digest():
    """Return a hash of pictures, for another process."""
    course.setup(seed=0)
    data = b""
    for case in (polynomial, network):
        fig, text = draw_graph(case())
        fig.canvas.draw()
        data += bytes(fig.canvas.buffer_rgba()) + text.encode()
    return hashlib.sha256(data).hexdigest()


def test_another_process_with_another_hash_seed_draws_the_same():
    command = [sys.executable, "-c", "from tests.test_drawing import digest; print(digest())"]
    env = os.environ | {"PYTHONHASHSEED": "12345", "MPLBACKEND": "agg"}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest()
