"""The pictures say what the graph holds; nothing in them overlaps or is too small to read."""

import re
from functools import cache, partial
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path
from matplotlib.transforms import Bbox
from torch.nn import functional as F

from utils import course
from utils.drawing import draw_graph, number_texts
from utils.graph import backward_table, read_graph


def number(value):
    return torch.tensor(value, requires_grad=True)


def polynomial():
    x = number(4.0)
    z2, z1 = -3 * x, x**3  # z2 is computed first
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
    W, b = torch.ones(2, 10, requires_grad=True), number([0.5])
    hidden = torch.tanh(torch.ones(4, 2) @ W)
    loss = F.binary_cross_entropy_with_logits(hidden.sum(1) + b, torch.ones(4))
    names = {"W1": W, "b": b, "hidden": hidden, "loss": loss}
    return read_graph(loss, names, formulas={"hidden": r"\tanh(XW_1)"})


def random_graph(seed):
    """Return a graph of two inputs and six results, each of one to three tensors before it."""
    choose = np.random.default_rng(seed).choice
    names = {"x": number(0.5), "y": number(-1.5)}
    for i in range(6):
        parts = [names[name] for name in choose([*names], choose([1, 2, 3]))]
        names[f"z{i}"] = sum(t.sin() * (k + 1) for k, t in enumerate(parts))
    f = sum(names.values())
    return read_graph(f, {name: names[name] for name in choose([*names], 6, replace=False)})


CASES = [polynomial, least_squares, network, lambda: read_graph(number(2.0), {})]
CASES += [partial(random_graph, seed) for seed in range(6)]


class Picture:
    """What appears in a drawn figure, in its pixels, by gid."""

    def __init__(self, graph, **options):
        plt.close("all")
        course.setup(seed=0)
        self.graph = graph
        self.figure, self.alt = draw_graph(graph, **options)
        self.figure.canvas.draw()
        self.pixels = np.asarray(self.figure.canvas.buffer_rgba())[::-1, :, :3] / 255
        [ax] = self.figure.axes
        self.key = ax.get_legend().get_texts()
        self.texts = {t: t.get_window_extent() for t in [*ax.texts, *self.key]}
        self.outlines, self.arrows = {}, {}
        for patch in ax.patches:
            part, _, kind = patch.get_gid().partition("-")
            if kind == "outline":
                self.outlines[part] = patch.get_window_extent()
            elif isinstance(patch, FancyArrowPatch):
                path = ax.transData.transform_path(patch.get_path())
                self.arrows[part] = Path(path.to_polygons(closed_only=False)[0])

    def said(self, part):
        gids = [f"{part}-{kind}" for kind in ("name", "number", "order")]
        return [text.get_text() for text in self.texts if text.get_gid() in gids]


picture = cache(lambda case: Picture(case()))


@pytest.fixture(params=CASES)
def shown(request):
    return picture(request.param)


def contrast(*colors):
    c = np.array([to_rgb(color) for color in colors])
    linear = np.where(c <= 0.03928, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ [0.2126, 0.7152, 0.0722] + 0.05)
    return light / dark


def test_nothing_overlaps_and_all_can_be_read(shown):
    outer = list(shown.outlines.values())
    pairs = [*combinations(shown.texts.values(), 2), *combinations(outer, 2)]
    assert all(Bbox.intersection(a.padded(-1), b) is None for a, b in pairs)
    for text, extent in shown.texts.items():
        is_free = text.get_bbox_patch() or text in shown.key
        around = [box for box in outer if Bbox.intersection(box, extent)]
        assert len(around) == (not is_free), text.get_text()
        for box in [shown.figure.bbox, *around]:
            assert np.all(box.min <= extent.min) and np.all(extent.max <= box.max), text.get_text()
        assert text.get_fontsize() * shown.figure.dpi / 72 >= 16
        x, y = extent.min.astype(int)
        assert contrast(shown.pixels[y, x], text.get_color()) >= 4.5, text.get_text()


def test_arrows_lead_between_their_own_boxes_through_their_own_label(shown):
    nodes, outlines = shown.graph.nodes, shown.outlines
    for k, edge in enumerate(shown.graph.edges):
        source, target = nodes.index(edge.source), f"box{nodes.index(edge.target)}"
        forward, backward = shown.arrows[f"forward{k}"], shown.arrows[f"backward{k}"]
        end = f"badge{source}" if len(edge.source.parts) > 1 else f"box{source}"
        for way, ends in ((forward, (f"box{source}", target)), (backward, (target, end))):
            for point, part in zip(way.vertices[[0, -1]], ends, strict=True):
                assert outlines[part].padded(6).contains(*point), part
            crossed = [p for p, b in outlines.items() if way.intersects_bbox(b.padded(-1), False)]
            own = [f"local{k}"] if way is backward else []
            assert [part for part in crossed if not part.startswith("badge")] == own


def test_forward_arrows_run_apart_and_level_and_gradients_that_add_up_meet():
    for case in CASES:
        forward = [way for part, way in picture(case).arrows.items() if part[0] == "f"]
        ends = np.array([point for way in forward for point in way.vertices[[0, -1]]])
        assert all(np.linalg.norm(a - b) > 25 for a, b in combinations(ends, 2))
        if case in (polynomial, least_squares, network):  # no need to cross
            assert not any(a.intersects_path(b, filled=False) for a, b in combinations(forward, 2))
    shown = picture(polynomial)
    for k in (2, 3):  # from x, which has two uses, to boxes of their own
        way, label = shown.arrows[f"forward{k}"].vertices, shown.outlines[f"local{k}"]
        at_label = np.interp((label.x0 + label.x1) / 2, *way.T)
        assert abs(at_label - way[-1, 1]) < 2 < abs(way[0, 1] - way[-1, 1])
    first, second = (shown.arrows[f"backward{k}"].vertices[-1] for k in (2, 3))
    assert np.linalg.norm(first - second) < 1


def test_numbers_are_those_of_the_graph_and_arrows_that_meet_are_in_order(shown):
    texts = {text.get_gid(): text.get_text() for text in shown.texts if text.get_gid()}
    drawn = {gid.removesuffix("-number"): text for gid, text in texts.items() if "number" in gid}
    assert drawn == {part: text for part, text in number_texts(shown.graph).items() if text}
    for node in shown.graph.nodes:
        arriving = [k for k, edge in enumerate(shown.graph.edges) if edge.source is node]
        orders = [str(n) if len(arriving) > 1 else None for n, _ in enumerate(arriving, 1)]
        assert [texts.get(f"local{k}-order") for k in arriving] == orders
        starts = [shown.arrows[f"forward{k}"].vertices[0, 1] for k in arriving]
        labels = [shown.outlines[f"local{k}"].y0 for k in arriving]
        assert np.array_equal(np.argsort(starts), np.argsort(labels))


def test_the_pictures_show_values_local_and_total_derivatives():
    said = picture(polynomial).said
    assert said("box3") == ["Input", "$x$"] and said("value3") == ["4"]
    assert said("sum3") == [r"$\dfrac{d f}{d x} =$", "48 − 3 = 45"]
    assert said("local2") == [r"$\dfrac{\partial z_{1}}{\partial x} = 3x^2 =$", "48", "1"]
    assert said("local3") == [r"$\dfrac{\partial z_{2}}{\partial x} = -3$", "2"]
    keys = ["values, forward", r"gradients, backward: local $\partial$, total $d$"]
    assert [text.get_text() for text in picture(polynomial).key] == keys
    said = picture(least_squares).said
    assert said("value1") == ["(−2, −3, 1)", r"$\in \mathbb{R}^{3}$"]
    symbol = r"$\dfrac{\partial z_{1}}{\partial w} = X$"
    assert said("local1") == [symbol, r"$\in \mathbb{R}^{3{\times}2}$"]
    assert picture(network).said("value3") == ["$W_{1}$", r"$\in \mathbb{R}^{2{\times}10}$"]


def test_the_text_is_the_backward_pass_or_says_how_values_come_about():
    graph = least_squares()
    words = re.sub("[;.]", " ", draw_graph(graph)[1]).split()
    table = re.sub("[;.]", " ", backward_table(graph)).split()
    assert words[-len(table) :] == table
    shown = Picture(graph, backward=False)
    assert "Input: w = (1, -1)" in shown.alt and "z1 = Xw - y = (-2, -3, 1), from w;" in shown.alt
    assert not re.search("gradient|local|[d∂]f", shown.alt + "".join(map(str, shown.texts)))
    assert {part[:3] for part in shown.outlines} == {"box"} and len(shown.arrows) == 2
