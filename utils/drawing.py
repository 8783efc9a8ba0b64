"""A computational graph as a picture: values forward in blue, gradients backward in vermilion.

Columns of boxes alternate with columns of labels. An edge has room of its own in every column
between its ends, so nothing is drawn across anything else. Lengths are in points, y grows downward.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from scipy.optimize import lsq_linear
from torch import Tensor

from utils.graph import Graph, GraphError, backward_table, short
from utils.plotting import BLUE, VERMILION

BLUE_TEXT, VERMILION_TEXT, GRAY, INK = "#00639C", "#A84300", "#555555", "#1A1A1A"
BLUE_BAND, VERMILION_BAND, WHITE = "#E3F0F9", "#FCE9DC", "#FFFFFF"
FORWARD = {"color": BLUE, "linestyle": "-", "linewidth": 2.4}
BACKWARD = {"color": VERMILION, "linestyle": (0, (3, 1.5)), "linewidth": 2.4}
SMALL, LARGE = 13, 16  # sizes of type: of words and numbers, of formulas
LANE, HEAD, BADGE = 28, 11, 28  # between the arrows of an edge; an arrow's head; a badge's width
GAP, SPACE, MARGIN = 28, 14, 8  # between columns; between places of a column; around the picture
WORD = {"size": SMALL, "color": WHITE, "ha": "center", "va": "center_baseline", "zorder": 6}
KEY = (476, 26)  # the size of the legend


class _Row:
    """Texts side by side: a name, a number, and a shape, each of which may be empty."""

    def __init__(self, ax: Axes, part: str, color: str, *contents: str, height=26, band=""):
        self.part, self.band, self.texts = part, band, []
        for content, kind in zip(contents, ("name", "number", "name"), strict=False):
            if content:
                style = {"ha": "left" if self.texts else "center", "va": "center", "color": color}
                style |= {"weight": "bold" if kind == "number" else "normal", "zorder": 5}
                style |= {"size": LARGE if "$" in content else SMALL, "math_fontfamily": "cm"}
                self.texts.append(ax.text(0, 0, content, gid=f"{part}-{kind}", **style))
        extents = [text.get_window_extent() for text in self.texts]
        scale = 72 / ax.figure.dpi
        self.widths = [extent.width * scale for extent in extents]
        self.width = sum(self.widths) + 3 * (len(self.widths) - 1)
        self.height = max(height, *(extent.height * scale + 5 for extent in extents))


@dataclass(eq=False)
class _Place:
    """Room in a column: for a tensor's box, or for an edge, with or without its label."""

    column: int
    part: str = ""  # what it shows: box0, local0
    rows: Iterable[_Row] = ()
    badge: int = 0  # the room beside a box where several gradients meet
    shift: float = 0  # of a label from the middle between the two arrows of its edge
    y: float = 0  # the middle of a box, or the middle between the two arrows of an edge
    span: tuple[float, float] = (0, 0)  # the left and the right end of the column

    def __post_init__(self):
        self.rows = list(self.rows)
        self.height = sum(row.height for row in self.rows) + 6

    def room(self, side: int) -> float:
        """Return how much room it takes below (1) or above (-1) its middle."""
        return max(LANE / 2 + 4, self.height / 2 + side * self.shift) + SPACE / 2


@dataclass(eq=False)
class _Route:
    """The way of an edge, from the box of its source to the box of its target."""

    places: list[_Place]
    offsets: list[float]  # how far below the middles of its places it runs
    side: int = 0  # the backward arrow runs below the forward one (1), or above it (-1)


def draw_graph(graph: Graph, *, backward: bool = True) -> tuple[Figure, str]:
    """Return the figure with a graph's picture, and the text that says the same in words.

    The forward pass runs to the right. Arrows carry local derivatives ∂z/∂x, boxes total
    derivatives df/dx. Gradients that add up are numbered in the order in which they arrive.
    With `backward=False` there are values only. Raises GraphError for what is no Graph, and
    Matplotlib's ValueError for names and formulas that are no TeX.
    """
    texts = number_texts(graph)
    if not backward:
        texts = {part: text for part, text in texts.items() if part.startswith("value")}
    return draw(graph, texts), describe(graph, backward)


def number_texts(graph: Graph) -> dict[str, str]:
    """Return the texts of a graph's values, sums and local derivatives, by the parts of `draw`."""
    if not isinstance(graph, Graph):
        raise GraphError('a picture needs a Graph, such as read_graph(f, {"x": x, "f": f})')
    texts = {}
    for i, node in enumerate(graph.nodes):
        texts[f"value{i}"], texts[f"sum{i}"] = plain(node.value), plain(node.grad)
        if len(node.parts) > 1 and len(node.parts) * node.grad.numel() <= 4:
            texts[f"sum{i}"] = add_up(map(plain, node.parts), plain(node.grad))
    for i, edge in enumerate(graph.edges):
        number = plain(edge.local) if edge.local.numel() == 1 else ""
        texts[f"local{i}"] = "" if number == edge.label.replace("-", "−") else number
    for part, text in texts.items():
        if re.search("×|numbers", text) or "=" not in text and len(text) > 23:
            texts[part] = ""  # too much for a picture
    return texts


def plain(t: Tensor | float) -> str:
    """Return a tensor in a few characters, with minus signs, and 0 for -0."""
    return short(torch.as_tensor(t, dtype=torch.float64) + 0).replace("-", "−")


def add_up(parts: Iterable[str], total: str) -> str:
    """Return a sum with its total: −3 + 48 = 45."""
    return f"{' + '.join(parts)} = {total}".replace("+ −", "− ")


def describe(graph: Graph, backward: bool) -> str:
    """Return the picture in words, in one paragraph."""
    shown, lines = "values forward.", []
    for node in reversed(graph.nodes):
        sources = [edge.source.name for edge in graph.edges if edge.target is node]
        what = " = ".join(part for part in (node.name, node.formula, short(node.value)) if part)
        lines.append(f"{node.title}: {what}" + (f", from {', '.join(sources)}" if sources else ""))
    if backward:
        shown = "values forward, gradients backward, local derivatives on the arrows. Backward:"
        lines = backward_table(graph).splitlines()
    told = "; ".join(" ".join(line.split()) for line in lines)
    return f"The computational graph of {graph.output.name}: {shown} {told}."


def draw(graph: Graph, numbers: Mapping[str, str]) -> Figure:
    """Return a figure with boxes, arrows and labels; an artist's gid begins with its part's name.

    The parts of node i are box{i}, value{i}, sum{i}, badge{i}; those of edge i are forward{i},
    backward{i}, local{i}. `numbers` has the texts of values, and of sums and local derivatives
    if the backward pass is to be drawn.
    """
    ax, backward = plt.figure(layout="none").add_axes((0, 0, 1, 1)), "sum0" in numbers
    boxes, routes, columns = _places(ax, graph, numbers)
    _sort(columns, routes)
    _connect(boxes, routes)
    _set_positions(columns, routes)
    for i, route in enumerate(routes):
        _draw_arrow(ax, f"forward{i}", route, -backward, FORWARD)
        if backward:
            _draw_arrow(ax, f"backward{i}", route, 1, BACKWARD)
    for place in (place for column in columns for place in column if place.rows):
        _draw_box(ax, place)
    for i, box in enumerate(boxes):
        if box.badge:
            _draw_badge(ax, f"badge{i}", [route for route in routes if route.places[0] is box])
    _finish(ax, backward)
    return ax.figure


def _places(ax: Axes, graph: Graph, numbers: Mapping[str, str]) -> tuple[list, list, list]:
    """Return the boxes, the routes of the edges, and the columns with the places of both.

    Boxes are in every second column, as near to the output as their uses allow.
    """
    depth, backward = dict.fromkeys(graph.nodes, 0), "sum0" in numbers
    for edge in graph.edges:  # a target comes before its sources
        depth[edge.source] = max(depth[edge.source], depth[edge.target] + 1)
    last, boxes, routes = 2 * max(depth.values()), {}, []
    for i, node in enumerate(graph.nodes):
        rows, badge = _box_rows(ax, graph, i, numbers), BADGE * (backward and len(node.parts) > 1)
        boxes[node] = _Place(last - 2 * depth[node], f"box{i}", rows, badge)
    for i, edge in enumerate(graph.edges):
        source, target = boxes[edge.source], boxes[edge.target]
        passed = [_Place(column) for column in range(source.column + 1, target.column)]
        if backward:
            rows = _label_rows(ax, graph, i, numbers[f"local{i}"])
            passed[0] = _Place(source.column + 1, f"local{i}", rows)
        routes.append(_Route([source, *passed, target], [0.0] * (len(passed) + 2)))
    places = [place for route in routes for place in route.places[1:-1]]
    places = [*reversed(boxes.values()), *places]
    columns = [[p for p in places if p.column == column] for column in range(last + 1)]
    return list(boxes.values()), routes, columns


def _symbol(name: str) -> str:
    """Return a name in TeX: z1 and s_2 have indices, names of several letters are upright."""
    base, digits = re.fullmatch(r"(.*?)(?:_?(\d+))?", name).groups()
    base = base if len(base) == 1 else rf"\mathrm{{{base}}}".replace("_", r"\_")
    return base if digits is None else f"{base}_{{{digits}}}"


def _space(t: Tensor) -> str:
    sizes = r"{\times}".join(map(str, t.shape))
    return rf"$\in \mathbb{{R}}^{{{sizes}}}$" if sizes else ""


def _box_rows(ax: Axes, graph: Graph, i: int, numbers: Mapping[str, str]) -> Iterator[_Row]:
    """Yield what a tensor's box shows: title, name and formula, value and shape, gradient."""
    node, value, total = graph.nodes[i], numbers[f"value{i}"], numbers.get(f"sum{i}")
    name = _symbol(node.name)
    yield _Row(ax, f"box{i}", GRAY, node.title, height=20)
    yield _Row(ax, f"box{i}", INK, f"${name} = {node.formula}$" if node.formula else f"${name}$")
    symbol = "" if value else f"${name}$"
    yield _Row(ax, f"value{i}", BLUE_TEXT, symbol, value, _space(node.value), band=BLUE_BAND)
    if total is not None:
        symbol = rf"\dfrac{{d {_symbol(graph.output.name)}}}{{d {name}}}"
        contents = (f"${symbol} =$", total) if total else (f"${symbol}$", "", _space(node.grad))
        yield _Row(ax, f"sum{i}", VERMILION_TEXT, *contents, band=VERMILION_BAND, height=43)


def _label_rows(ax: Axes, graph: Graph, i: int, number: str) -> Iterator[_Row]:
    """Yield what an edge's label shows: symbol and number of the local derivative, its shape."""
    edge, part = graph.edges[i], f"local{i}"
    above, below = _symbol(edge.target.name), _symbol(edge.source.name)
    text = rf"\dfrac{{\partial {above}}}{{\partial {below}}}"
    text += f" = {edge.label}" if edge.label else ""
    yield _Row(ax, part, VERMILION_TEXT, f"${text} =$" if number else f"${text}$", number)
    if edge.local.numel() > 1:
        yield _Row(ax, part, VERMILION_TEXT, _space(edge.local))


def _sort(columns: list[list[_Place]], routes: list[_Route]) -> None:
    """Sort the places of a column by the mean height of their neighbors: then few edges cross."""
    pairs = [pair for route in routes for pair in pairwise(route.places)]
    for step in (-1, 1) * 3:  # the last sweep keeps the labels beside a box together
        for column in columns[::step]:
            for place in column:
                heights = [a.y for a, b in (pair[::step] for pair in pairs) if b is place]
                place.y = np.mean(heights or place.y)
            column.sort(key=lambda place: place.y)
            for i, place in enumerate(column):
                place.y += i


def _connect(boxes: list[_Place], routes: list[_Route]) -> None:
    """Choose the sides of the backward arrows, and where routes begin and end.

    In the upper half of a box they run below the forward arrows, in the lower half above them, so
    that two gradients that add up meet at one point.
    """
    for end, box in product((0, -1), boxes):  # the source decides first
        found = [route for route in routes if route.places[end] is box]
        found.sort(key=lambda route: route.places[1:-1][end].y)
        for i, route in enumerate(found):
            if not route.side and (len(found) > 1 or end == -1):
                route.side = 1 if 2 * i < len(found) else -1
        steps = [LANE if a.side > b.side else 2 * LANE for a, b in pairwise(found)]
        ports = np.cumsum([0, *steps])
        for route, port in zip(found, ports, strict=False):
            route.offsets[end] = port - ports[-1] / 2
        box.height = max(box.height, ports[-1] + LANE + HEAD)
    for route in routes:
        label = route.places[1]
        label.shift = route.side * (label.height / 2 - 10)


def _set_positions(columns: list[list[_Place]], routes: list[_Route]) -> None:
    """Set the columns from left to right, and the heights of their places.

    By least squares, routes are as level as the room between places allows. The unknowns are the
    steps down from each place to the next, which have a least size inside a column.
    """
    places = [place for column in columns for place in column]
    height = dict(zip(places, np.tri(len(places)), strict=True))  # the sum of the steps up to it
    rows, drops = [height[places[-1]]], [0.0]  # the output is at height 0
    for route in routes:
        for (a, start), (b, stop) in pairwise(zip(route.places, route.offsets, strict=True)):
            weight = 1 if start or stop else 100  # level beside a box that is its own
            rows.append(weight * (height[a] - height[b]))
            drops.append(weight * (stop - start))
    least = [[-np.inf, *(a.room(1) + b.room(-1) for a, b in pairwise(c))] for c in columns]
    bounds = np.concatenate(least), np.inf
    steps = lsq_linear(np.array(rows), np.array(drops), bounds, method="bvls").x
    for place, y in zip(places, np.cumsum(steps), strict=True):
        place.y = round(y, 1)
    x = 0.0
    for column in columns:
        end = x + 14 + max((row.width for place in column for row in place.rows), default=0)
        for place in column:
            place.span = x, end
        x = end + GAP + max(place.badge for place in column)


def _draw_arrow(ax: Axes, part: str, route: _Route, lane: int, style: Mapping) -> None:
    """Draw an arrow of a route: the forward one (-1), the backward one (1), or one alone (0).

    It bends between the columns, as Bézier curves, and is level inside them.
    """
    source, *passed, target = route.places
    start, stop = source.y + route.offsets[0], target.y + route.offsets[-1]
    edge = source.span[1] + source.badge
    points = [(edge if lane == 1 else source.span[1], start), (edge + HEAD, start)]
    points += [(x, place.y) for place in passed for x in place.span]
    points += [(target.span[0] - HEAD, stop), (target.span[0], stop)]
    points = [(x, y + lane * route.side * LANE / 2) for x, y in points]
    curve = points[:1]
    for (a, c), (b, d) in pairwise(points):
        curve += [((a + b) / 2, c), ((a + b) / 2, d), (b, d)]
    codes = [Path.MOVETO] + [Path.CURVE4] * (len(curve) - 1)
    path = Path(curve[::-1] if lane == 1 else curve, codes)
    shape = {"arrowstyle": "-|>", "mutation_scale": 18, "zorder": 2}
    ax.add_patch(FancyArrowPatch(path=path, gid=f"{part}-arrow", **shape, **style))


def _draw_area(ax: Axes, gid: str, corner: tuple, width: float, height: float, **style) -> None:
    shape = "round,pad=0,rounding_size=6"
    ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, gid=gid, **style))


def _draw_box(ax: Axes, place: _Place) -> None:
    """Draw a box or a label, with the bands of its rows, and move their texts into it."""
    (left, right), y = place.span, place.y + place.shift - place.height / 2
    edge, size = INK if place.part.startswith("box") else VERMILION, (right - left, place.height)
    _draw_area(ax, f"{place.part}-outline", (left, y), *size, fc=WHITE, ec=edge, lw=1.2, zorder=3)
    y += (place.height - sum(row.height for row in place.rows)) / 2
    for row in place.rows:
        if row.band:
            at, size = (left + 2, y + 1), (right - left - 4, row.height - 2)
            _draw_area(ax, f"{row.part}-band", at, *size, fc=row.band, ec="none", zorder=4)
        x = (left + right - row.width) / 2
        for text, width in zip(row.texts, row.widths, strict=True):
            text.set_position((x if text.get_ha() == "left" else x + width / 2, y + row.height / 2))
            x += width + 3
        y += row.height


def _draw_badge(ax: Axes, part: str, routes: list[_Route]) -> None:
    """Draw the badge beside a box where gradients are added up, and number them in this order."""
    levels, circle = [], {"boxstyle": "circle,pad=0.2", "fc": VERMILION_TEXT, "ec": "none"}
    for order, route in enumerate(routes, 1):
        box, label, *_ = route.places
        levels.append(box.y + route.offsets[0] + route.side * LANE / 2)
        at = label.span[0] - 6, label.y + route.side * LANE / 2
        ax.text(*at, f"{order}", gid=f"{label.part}-order", bbox=circle, **WORD)
    x, y, height = box.span[1], min(levels) - BADGE / 2, BADGE + max(levels) - min(levels)
    style = {"fc": VERMILION_TEXT, "ec": "none", "zorder": 3}
    _draw_area(ax, f"{part}-outline", (x, y), BADGE, height, **style)
    ax.text(x + BADGE / 2, y + height / 2, "+=", gid=f"{part}-name", **WORD)


def _finish(ax: Axes, backward: bool) -> None:
    """Add the legend, and make the figure as large as what is drawn in it."""
    (left, top), (right, bottom) = ax.dataLim.min - MARGIN, ax.dataLim.max + MARGIN
    room = max(0, KEY[0] - right + left) / 2
    ax.set(xlim=(left - room, right + room), ylim=(bottom + KEY[1], top))
    ax.axis("off")
    ax.figure.set_size_inches(np.ptp(ax.get_xlim()) / 72, np.ptp(ax.get_ylim()) / 72)
    ax.plot([], [], label="values, forward", **FORWARD)
    if backward:
        ax.plot([], [], label=r"gradients, backward: local $\partial$, total $d$", **BACKWARD)
    letters = {"size": SMALL, "math_fontfamily": "cm"}
    style = {"loc": "lower center", "ncols": 2, "frameon": False, "handlelength": 3}
    ax.legend(prop=letters, labelcolor=(BLUE_TEXT, VERMILION_TEXT), **style)
