"""The pictures say what the graph holds; nothing in them overlaps or is too small to read."""

import re
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

from utils import course
from utils.drawing import INK, draw_graph
from utils.graph import GraphError, backward_table, read_graph
from utils.plotting import BLUE, VERMILION


def number(value):
    return torch.tensor(value, requires_grad=True)


def polynomial():
    x = number(4.0)
    z2, z1 = -3 * x, x**3
    names, formulas = {"x": x, "z1": z1, "z2": z2}, {"z1": "x^3", "f": "z_1 + z_2"}
    local = {("z1", "x"): ("3x^2", 3 * x**2), ("z2", "x"): ("-3", -3.0)}
    return read_graph(z1 + z2, names, formulas=formulas, local=local)


def least_squares():
    X, y = torch.tensor([[1.0, 2], [0, 1], [2, 1]]), torch.tensor([1.0, 2, 0])
    w = number([1.0, -1.0])
    z1 = X @ w - y
    names, formulas = {"w": w, "z1": z1}, {"z1": "Xw - y", "f": r"\frac{1}{2} \|z_1\|^2"}
    return read_graph(z1 @ z1 / 2, names, formulas=formulas, local={("z1", "w"): ("X", X)})


def network():
    shapes = (2, 10), (10,), (10, 1), (1,)
    W1, b1, W2, b2 = (torch.ones(shape, requires_grad=True) for shape in shapes)
    hidden = torch.tanh(torch.ones(4, 2) @ W1 + b1)
    logits = (hidden @ W2 + b2).squeeze(1)
    loss = F.binary_cross_entropy_with_logits(logits, torch.tensor([0.0, 1, 1, 0]))
    names = {"W1": W1, "b1": b1, "W2": W2, "b2": b2, "hidden": hidden, "logits": logits}
    return read_graph(loss, names | {"loss": loss}, formulas={"hidden": r"\tanh(XW_1 + b_1)"})


def several_uses():
    x, y = number(2.0), number(0.0)
    p, q = x * y, x.sin() / y
    return read_graph(p + q + x**2, {"x": x, "y": y, "p": p, "q₁": q})


def leaf():
    return read_graph(number(2.0), {})


CASES = [polynomial, least_squares, network, several_uses, leaf]


class Picture:
    """What appears in a drawn figure, in its pixels."""

    def __init__(self, graph, **options):
        plt.close("all")
        course.setup(seed=0)
        self.graph = graph
        self.figure, self.alt = draw_graph(graph, **options)
        self.figure.canvas.draw()
        [ax] = self.figure.axes
        self.key = ax.get_legend().get_texts()
        self.texts = {t: t.get_window_extent() for t in [*ax.texts, *self.key]}
        self.areas = {p: p.get_window_extent() for p in ax.patches if type(p) is FancyBboxPatch}
        edges = {p: to_rgb(p.get_edgecolor()) for p in self.areas}
        self.boxes = [self.areas[p] for p in self.areas if edges[p] == to_rgb(INK)]
        self.labels = [self.areas[p] for p in self.areas if edges[p] == to_rgb(VERMILION)]
        self.badges = [box for box in self.areas.values() if self.inside(box) == ["+="]]
        self.arrows = {}
        for arrow in (patch for patch in ax.patches if type(patch) is FancyArrowPatch):
            path = ax.transData.transform_path(arrow.get_path())
            self.arrows[arrow] = path.to_polygons(closed_only=False)[0]

    def inside(self, box):
        """Return the texts whose middle is in a box, from top to bottom."""
        inside = [t for t, extent in self.texts.items() if box.contains(*middle(extent))]
        return [t.get_text() for t in sorted(inside, key=lambda t: -middle(self.texts[t])[1])]

    def symbol_at(self, point):
        """Return the symbol of the tensor whose box is nearest to a point."""
        away = [max(*(b.min - point), *(point - b.max)) for b in self.boxes]
        return symbol(self.inside(self.boxes[int(np.argmin(away))]))

    def box(self, name):
        [lines] = [lines for lines in map(self.inside, self.boxes) if symbol(lines) == name]
        return lines[1:]


def symbol(lines):
    return lines[1].strip("$").split(" = ")[0]


def middle(box):
    return (box.min + box.max) / 2


def contrast(*colors):
    c = np.array([to_rgb(color) for color in colors])
    linear = np.where(c <= 0.03928, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ [0.2126, 0.7152, 0.0722] + 0.05)
    return light / dark


@cache
def picture(case):
    return Picture(case())


@pytest.mark.parametrize("case", CASES)
def test_nothing_overlaps_and_all_can_be_read(case):
    shown = picture(case)
    outer = [*shown.boxes, *shown.labels, *shown.badges]
    pairs = [*combinations(shown.texts.values(), 2), *combinations(outer, 2)]
    assert all(Bbox.intersection(a.padded(-1), b) is None for a, b in pairs)
    scale = min(1280 / shown.figure.bbox.width, 720 / shown.figure.bbox.height)  # in a slide
    for text, extent in shown.texts.items():
        around = [box for box in outer if Bbox.intersection(box, extent)]
        assert len(around) == (text not in shown.key), text.get_text()
        for box in [shown.figure.bbox, *around]:
            assert np.all(box.min <= extent.min) and np.all(extent.max <= box.max), text.get_text()
        assert text.get_fontsize() * shown.figure.dpi / 72 * min(scale, 1) >= 16
        behind = [p for p, box in shown.areas.items() if box.contains(*middle(extent))]
        color = max(behind, key=lambda p: p.get_zorder()).get_facecolor() if behind else "white"
        assert contrast(color, text.get_color()) >= 4.5, text.get_text()


@pytest.mark.parametrize("case", CASES)
def test_arrows_lead_between_their_own_boxes_through_their_own_label(case):
    shown = picture(case)
    found = {BLUE: [], VERMILION: []}
    for arrow, points in shown.arrows.items():
        color = BLUE if to_rgb(arrow.get_edgecolor()) == to_rgb(BLUE) else VERMILION
        assert (arrow.get_linestyle() in ("-", "solid")) == (color == BLUE)
        ends = [shown.symbol_at(point) for point in (points[0], points[-1])]
        source, target = ends if color == BLUE else ends[::-1]
        found[color].append(tuple(re.sub(r"[\W_]|mathrm", "", name) for name in (source, target)))
        way = Path(points)
        assert not any(way.intersects_bbox(box.padded(-1), filled=False) for box in shown.boxes)
        crossed = [b for b in shown.labels if way.intersects_bbox(b.padded(-1), filled=False)]
        assert len(crossed) == (color == VERMILION)
        fraction = rf"$\dfrac{{\partial {target}}}{{\partial {source}}}"
        assert all(shown.inside(box)[0].startswith(fraction) for box in crossed)
    pairs = [(edge.source.name, edge.target.name) for edge in shown.graph.edges]
    pairs = sorted((a.replace("₁", "1"), b.replace("₁", "1")) for a, b in pairs)
    assert sorted(found[BLUE]) == sorted(found[VERMILION]) == pairs
    several = [len(node.parts) for node in shown.graph.nodes if len(node.parts) > 1]
    rooms = [badge.padded(0.15 * shown.figure.dpi) for badge in shown.badges]
    ends = [points[-1] for points in shown.arrows.values()]
    assert sorted(sum(room.contains(*p) for p in ends) for room in rooms) == sorted(several)


def test_the_pictures_show_values_local_and_total_derivatives():
    shown = picture(polynomial)
    total = r"$\dfrac{d f}{d x} = 48 - 3 = \mathbf{45}$"
    assert shown.box("x") == ["$x$", r"$\mathbf{4}$", total]
    assert shown.box("z_{1}")[:2] == ["$z_{1} = x^3$", r"$\mathbf{64}$"]
    labels = [line for box in shown.labels for line in shown.inside(box)]
    assert r"$\dfrac{\partial z_{1}}{\partial x} = 3x^2 = 48$" in labels
    assert r"$\dfrac{\partial z_{2}}{\partial x} = -3$" in labels
    gradients = r"gradients, backward: local $\partial$, total $d$"
    assert [text.get_text() for text in shown.key] == ["values, forward", gradients]
    shown = picture(least_squares)
    assert shown.box("z_{1}")[1] == r"$\mathbf{({-}2, {-}3, 1)} \in \mathbb{R}^{3}$"
    fraction, shape = r"$\dfrac{\partial z_{1}}{\partial w} = X$", r"$ \in \mathbb{R}^{3{\times}2}$"
    assert [fraction, shape] in [shown.inside(box) for box in shown.labels]
    assert picture(network).box("W_{1}")[1] == r"$W_{1} \in \mathbb{R}^{2{\times}10}$"
    assert picture(several_uses).box("q_{1}")[1] == r"$\mathbf{\mathrm{inf}}$"


def test_the_text_is_the_backward_pass_or_says_how_values_come_about():
    graph = least_squares()
    words = re.sub("[;.]", " ", draw_graph(graph)[1]).split()
    table = re.sub("[;.]", " ", backward_table(graph)).split()
    assert words[-len(table) :] == table
    shown = Picture(graph, backward=False)
    assert "Input: w = (1, -1)" in shown.alt and "z1 = Xw - y = (-2, -3, 1), from w;" in shown.alt
    assert not re.search("gradient|local|[d∂]f", shown.alt + "".join(map(str, shown.texts)))
    assert not shown.labels and not shown.badges and len(shown.arrows) == len(graph.edges)


def test_what_cannot_be_drawn_is_refused_with_advice():
    x = number(2.0)
    with pytest.raises(GraphError, match=r"draw_graph needs a Graph: draw_graph\(read_graph\("):
        draw_graph(x**2)
    with pytest.raises(GraphError, match=r"50% x.* is not TeX: write \\% for %"):
        draw_graph(read_graph(x**2, {"x": x}, formulas={"f": "50% x"}))
