"""A computational graph as a picture: values forward in blue, gradients backward in vermilion.

Columns of boxes alternate with columns of labels. An edge has room of its own in every column
between its ends, so nothing is drawn across anything else. Lengths are in points, y grows downward.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise, product

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.text import Text
from scipy.linalg import block_diag
from scipy.optimize import lsq_linear
from torch import Tensor

from utils.graph import Graph, GraphEdge, GraphError, backward_table, short
from utils.plotting import BLUE, VERMILION

BLUE_TEXT, VERMILION_TEXT, GRAY, INK = "#00639C", "#A84300", "#555555", "#1A1A1A"
BLUE_BAND, VERMILION_BAND, WHITE = "#E3F0F9", "#FCE9DC", "#FFFFFF"
DASH = (0, (3, 1.5))  # of the arrows backward
SMALL, LARGE = 13, 16  # sizes of type: of words and numbers, of formulas
LANE, HEAD, BADGE = 28, 11, 28  # between the arrows of an edge; an arrow's head; a badge's width
GAP, SPACE, MARGIN = 28, 14, 8  # between columns; between places of a column; around the picture
WORD = {"size": SMALL, "color": WHITE, "ha": "center", "va": "center_baseline", "zorder": 6}
KEY = (476, 26)  # the size of the legend

Point = tuple[float, float]


@dataclass
class _Line:
    """Texts side by side, and the color behind them."""

    texts: list[Text]
    band: str = ""
    height: float = 26

    def __post_init__(self):
        try:
            extents = [text.get_window_extent() for text in self.texts]
        except ValueError:
            text = "".join(text.get_text() for text in self.texts)
            raise GraphError(f"{text} is not TeX: write \\% for %, for example") from None
        scale = 72 / self.texts[0].figure.dpi
        self.widths = [extent.width * scale for extent in extents]
        self.width = sum(width + 3 for width in self.widths) - 3
        self.height = max(self.height, *(extent.height * scale + 5 for extent in extents))


@dataclass(eq=False)
class _Place:
    """Room in a column: for a tensor's box, or for an edge, with or without its label."""

    column: int
    lines: list[_Line] = field(default_factory=list)
    badge: int = 0  # the room beside a box where several gradients meet
    y: float = 0  # the middle of a box, or the middle between the two arrows of an edge
    span: Point = (0, 0)  # the left and the right end of the column

    def __post_init__(self):
        self.width = max((line.width for line in self.lines), default=0) + 14
        self.height = sum(line.height for line in self.lines) + 6
        self.above = self.below = self.height / 2
        self.shift = max(LANE / 2, self.height / 2 - 10)  # of a label from the middle of its edge


@dataclass(eq=False)
class _Route:
    """The way of an edge, from the box of its source to the box of its target."""

    places: list[_Place]
    side: int = 1  # the backward arrow runs below the forward one (1), or above it (-1)
    ports: list[float] = field(default_factory=lambda: [0, 0])  # its ends, below the boxes' middles


def draw_graph(graph: Graph, *, backward: bool = True) -> tuple[Figure, str]:
    """Return the figure with a graph's picture, and the text that says the same in words.

    The forward pass runs to the right. Arrows carry local derivatives ∂z/∂x, boxes total
    derivatives df/dx. Gradients that add up are numbered in the order in which they arrive.
    With `backward=False` there are values only. Raises GraphError for what is no Graph, and for
    names and formulas that are no TeX.
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


def plain(t: Tensor) -> str:
    """Return a tensor in a few characters, with minus signs, and 0 for -0."""
    return short(t + 0).replace("-", "−")


def add_up(parts: Iterable[str], total: str) -> str:
    """Return a sum with its total: −3 + 48 = 45."""
    return f"{' + '.join(parts)} = {total}".replace("+ −", "− ")


def draw(graph: Graph, numbers: Mapping[str, str]) -> Figure:
    """Return a figure with boxes, arrows and labels; an artist's gid begins with its part's name.

    The parts of node i are box{i}, value{i}, sum{i}, badge{i}; those of edge i are forward{i},
    backward{i}, local{i}. `numbers` has the texts of values, and of sums and local derivatives
    if the backward pass is to be drawn.
    """
    ax, backward = plt.figure(layout="none").add_axes((0, 0, 1, 1)), "sum0" in numbers
    ax.axis("off")
    boxes, routes, columns = _places(ax, graph, numbers)
    _sort(columns, routes)
    _connect(boxes, routes)
    _set_heights(columns, routes)
    _set_spans(columns)
    for i, box in enumerate(boxes):
        size = (box.span[1] - box.span[0], box.height)
        _draw_box(ax, f"box{i}", (sum(box.span) / 2, box.y), size, box.lines)
        if box.badge:
            _draw_badge(ax, f"badge{i}", [route for route in routes if route.places[0] is box])
    drawn = Counter()
    for i, route in enumerate(routes):
        _draw_arrow(ax, f"forward{i}", _curve(route, -backward), color=BLUE)
        if backward:
            drawn[route.places[0]] += 1  # gradients arrive in the order of the edges
            style = {"color": VERMILION, "linestyle": DASH}
            _draw_arrow(ax, f"backward{i}", _curve(route, 1)[::-1], **style)
            _draw_label(ax, f"local{i}", route, drawn[route.places[0]])
    _finish(ax, columns, backward)
    return ax.figure


def _line(ax: Axes, part: str, color: str, *contents: str, size: int = LARGE, **line) -> _Line:
    """Return a line with a name, a number, and what follows it; each of them may be empty."""
    texts, style = [], {"color": color, "va": "center", "math_fontfamily": "cm", "zorder": 5}
    for i, content in enumerate(contents):
        if content:
            style |= {"size": size, "weight": "normal", "gid": f"{part}-name"}
            if i == 1:
                style |= {"size": SMALL, "weight": "bold", "gid": f"{part}-number"}
            texts.append(ax.text(0, 0, content, ha="left" if texts else "center", **style))
    return _Line(texts, **line)


def _symbol(name: str) -> str:
    """Return a name in TeX: z1 and s_2 have indices, names of several letters are upright."""
    base, digits = re.fullmatch(r"(.*?)(?:_?(\d+))?", name).groups()
    base = base if len(base) == 1 else rf"\mathrm{{{base}}}".replace("_", r"\_")
    return base if digits is None else f"{base}_{{{digits}}}"


def _space(t: Tensor) -> str:
    sizes = r"{\times}".join(map(str, t.shape))
    return rf"\in \mathbb{{R}}^{{{sizes}}}" if sizes else ""


def _box_lines(ax: Axes, graph: Graph, i: int, numbers: Mapping[str, str]) -> Iterator[_Line]:
    """Yield what a tensor's box shows: title, name and formula, value and shape, gradient."""
    node, value, total = graph.nodes[i], numbers[f"value{i}"], numbers.get(f"sum{i}")
    name, space = _symbol(node.name), _space(node.value)
    yield _line(ax, f"box{i}", GRAY, node.title, size=SMALL, height=20)
    yield _line(ax, f"box{i}", INK, f"${name} = {node.formula}$" if node.formula else f"${name}$")
    contents = ("", value, space and f"${space}$") if value else (f"${name} {space}$",)
    yield _line(ax, f"value{i}", BLUE_TEXT, *contents, band=BLUE_BAND)
    if total is not None:
        symbol = rf"\dfrac{{d {_symbol(graph.output.name)}}}{{d {name}}}"
        symbol = f"${symbol} =$" if total else f"${symbol} {_space(node.grad)}$"
        yield _line(ax, f"sum{i}", VERMILION_TEXT, symbol, total, band=VERMILION_BAND, height=43)


def _label(ax: Axes, edge: GraphEdge, part: str, number: str) -> Iterator[_Line]:
    """Yield the local derivative of an edge: its symbol, label and number, and its shape."""
    above, below = _symbol(edge.target.name), _symbol(edge.source.name)
    text = rf"\dfrac{{\partial {above}}}{{\partial {below}}}"
    text += f" = {edge.label}" if edge.label else ""
    yield _line(ax, part, VERMILION_TEXT, f"${text} =$" if number else f"${text}$", number)
    if edge.local.numel() > 1:
        yield _line(ax, part, VERMILION_TEXT, f"${_space(edge.local)}$")


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


def _places(ax: Axes, graph: Graph, numbers: Mapping[str, str]) -> tuple[list, list, list]:
    """Return the boxes, the routes of the edges, and the columns with the places of both.

    Boxes are in every second column, as near to the output as their uses allow.
    """
    depth, backward = dict.fromkeys(graph.nodes, 0), "sum0" in numbers
    for edge in graph.edges:  # a target comes before its sources
        depth[edge.source] = max(depth[edge.source], depth[edge.target] + 1)
    last, boxes, routes = 2 * max(depth.values()), {}, []
    for i, node in enumerate(graph.nodes):
        lines = list(_box_lines(ax, graph, i, numbers))
        badge = BADGE if backward and len(node.parts) > 1 else 0
        boxes[node] = _Place(last - 2 * depth[node], lines, badge)
    for i, edge in enumerate(graph.edges):
        source, target = boxes[edge.source], boxes[edge.target]
        between = [_Place(column) for column in range(source.column + 1, target.column)]
        if backward:
            middle, label = len(between) // 2, _label(ax, edge, f"local{i}", numbers[f"local{i}"])
            between[middle] = _Place(between[middle].column, list(label))
        routes.append(_Route([source, *between, target]))
    passed = [place for route in reversed(routes) for place in route.places[1:-1]]
    places = [*reversed(boxes.values()), *passed]
    columns = [[p for p in places if p.column == column] for column in range(last + 1)]
    return list(boxes.values()), routes, columns


def _sort(columns: list[list[_Place]], routes: list[_Route]) -> None:
    """Sort the places of a column by the mean height of their neighbors: then few edges cross."""
    links = [link for route in routes for link in pairwise(route.places)]
    for step in (1, -1, 1, -1, 1):
        for column in columns[::step]:
            for place in column:
                before = [a.y for a, b in (link[::step] for link in links) if b is place]
                place.y = sum(before) / len(before) if before else place.y
            column.sort(key=lambda place: place.y)
            for i, place in enumerate(column if column[0].column % 2 == 0 else []):
                place.y = i - (len(column) - 1) / 2
    for column in columns:
        for i, place in enumerate(column):
            place.y = i


def _connect(boxes: list[_Place], routes: list[_Route]) -> None:
    """Choose the sides of the backward arrows, and where routes begin and end.

    In the upper half of a box they run below the forward arrows, in the lower half above them, so
    that two gradients that add up meet at one point.
    """
    meeting = {}
    for end, box in product((-1, 0), boxes):  # the source has the last word
        found = [route for route in routes if route.places[end] is box]
        found.sort(key=lambda route: route.places[(1, -2)[end]].y)
        meeting[end, box] = found
        for i, route in enumerate(found if len(found) > 1 else []):
            route.side = 1 if 2 * i < len(found) else -1
    for (end, box), found in meeting.items():
        ports = [0.0]
        for a, b in pairwise(found):
            ports.append(ports[-1] + (LANE if a.side > b.side else 2 * LANE))
        for route, port in zip(found, ports, strict=False):
            route.ports[end] = port - ports[-1] / 2
        box.height = max(box.height, ports[-1] + LANE + HEAD)
        box.above = box.below = box.height / 2
    for route in routes:
        for place in route.places[1:-1]:
            outside, inside = LANE / 2 + 4, place.shift + place.height / 2
            place.above, place.below = (outside, inside)[:: route.side]


def _set_heights(columns: list[list[_Place]], routes: list[_Route]) -> None:
    """Set all heights: by least squares, routes are as level as the room between places allows.

    The unknowns are, for each column, the height of its first place, and then the step down from
    each place to the next, which has a least size.
    """
    places = [place for column in columns for place in column]
    sums = block_diag(*(np.tri(len(column)) for column in columns))  # heights = sums @ steps
    height = dict(zip(places, sums, strict=True))
    begin, end = (Counter(route.places[i] for route in routes) for i in (0, -1))
    rows, drops = [height[columns[-1][0]]], [0.0]  # the output is at height 0
    for route in routes:
        levels = [route.ports[0], *[0.0] * (len(route.places) - 2), route.ports[1]]
        for (a, b), (start, stop) in zip(pairwise(route.places), pairwise(levels), strict=True):
            weight = 1 if begin[a] > 1 or end[b] > 1 else 100  # level with a box that is its own
            rows.append(weight * (height[a] - height[b]))
            drops.append(weight * (stop - start))
    least = [[-np.inf, *(a.below + SPACE + b.above for a, b in pairwise(c))] for c in columns]
    bounds = np.concatenate(least), np.inf
    steps = lsq_linear(np.array(rows), np.array(drops), bounds, method="bvls").x
    for place, y in zip(places, sums @ steps, strict=True):
        place.y = round(y, 1)


def _set_spans(columns: list[list[_Place]]) -> None:
    """Set the columns one after the other."""
    x = 0.0
    for column in columns:
        end = x + max(place.width for place in column)
        for place in column:
            place.span = x, end
        x = end + GAP + max(place.badge for place in column)


def _curve(route: _Route, lane: int) -> list[Point]:
    """Return an arrow as Bézier curves: the forward one (-1), the backward one (1), or alone (0).

    It bends between the columns, and is level inside them.
    """
    source, *passed, target = route.places
    start, stop = source.y + route.ports[0], target.y + route.ports[1]
    edge = source.span[1] + source.badge
    points = [(edge if lane == 1 else source.span[1], start), (edge + HEAD, start)]
    points += [(x, place.y) for place in passed for x in place.span]
    points += [(target.span[0] - HEAD, stop), (target.span[0], stop)]
    points = [(x, y + lane * route.side * LANE / 2) for x, y in points]
    curve = points[:1]
    for (a, c), (b, d) in pairwise(points):
        curve += [((a + b) / 2, c), ((a + b) / 2, d), (b, d)]
    return curve


def _draw_arrow(ax: Axes, part: str, curve: list[Point], **style) -> None:
    path = Path(curve, [Path.MOVETO] + [Path.CURVE4] * (len(curve) - 1))
    style |= {"linewidth": 2.4, "mutation_scale": 18, "arrowstyle": "-|>", "zorder": 2}
    ax.add_patch(FancyArrowPatch(path=path, gid=f"{part}-arrow", **style))


def _draw_area(ax: Axes, gid: str, at: Point, size: Point, color: str, **style) -> None:
    corner, shape = (at[0] - size[0] / 2, at[1] - size[1] / 2), "round,pad=0,rounding_size=6"
    ax.add_patch(FancyBboxPatch(corner, *size, boxstyle=shape, gid=gid, fc=color, **style))


def _draw_box(ax: Axes, part: str, at: Point, size: Point, lines: list[_Line]) -> None:
    """Draw a box of lines with their bands, and move their texts into it."""
    edge = VERMILION if part.startswith("local") else INK
    _draw_area(ax, f"{part}-outline", at, size, WHITE, ec=edge, lw=1.2, zorder=3)
    y = at[1] - sum(line.height for line in lines) / 2
    for line in lines:
        x, y = at[0] - line.width / 2, y + line.height / 2
        if line.band:
            gid = re.sub("-.*", "-band", line.texts[0].get_gid())
            room = (size[0] - 4, line.height - 2)
            _draw_area(ax, gid, (at[0], y), room, line.band, ec="none", zorder=4)
        for text, width in zip(line.texts, line.widths, strict=True):
            text.set_position((x if text.get_ha() == "left" else x + width / 2, y))
            x += width + 3
        y += line.height / 2


def _draw_label(ax: Axes, part: str, route: _Route, order: int) -> None:
    """Draw a route's label on its backward arrow, with its number if several gradients meet."""
    label = next(place for place in route.places[1:-1] if place.lines)
    x, size = sum(label.span) / 2, (label.width, label.height)
    _draw_box(ax, part, (x, label.y + route.side * label.shift), size, label.lines)
    if route.places[0].badge:
        at = x - label.width / 2 - 6, label.y + route.side * LANE / 2
        circle = {"boxstyle": "circle,pad=0.2", "fc": VERMILION_TEXT, "ec": "none"}
        ax.text(*at, f"{order}", gid=f"{part}-order", bbox=circle, **WORD)


def _draw_badge(ax: Axes, part: str, routes: list[_Route]) -> None:
    """Draw the badge beside a box where several gradients are added up."""
    box = routes[0].places[0]
    levels = [box.y + route.ports[0] + route.side * LANE / 2 for route in routes]
    at = box.span[1] + BADGE / 2, (min(levels) + max(levels)) / 2
    size = BADGE, BADGE + max(levels) - min(levels)
    _draw_area(ax, f"{part}-outline", at, size, VERMILION_TEXT, ec="none", zorder=3)
    ax.text(*at, "+=", gid=f"{part}-name", **WORD)


def _finish(ax: Axes, columns: list[list[_Place]], backward: bool) -> None:
    """Add the legend, and make the figure as large as what is drawn in it."""
    places, right = [place for column in columns for place in column], columns[-1][0].span[1]
    top = min(place.y - place.above for place in places) - MARGIN
    bottom = max(place.y + place.below for place in places) + MARGIN + KEY[1]
    room = max(0, KEY[0] - right) / 2 + MARGIN
    ax.set(xlim=(-room, right + room), ylim=(bottom, top))
    ax.figure.set_size_inches((right + 2 * room) / 72, (bottom - top) / 72)
    ax.plot([], [], color=BLUE, linestyle="-", linewidth=2.4, label="values, forward")
    if backward:
        text = r"gradients, backward: local $\partial$, total $d$"
        ax.plot([], [], color=VERMILION, linestyle=DASH, linewidth=2.4, label=text)
    style = {"loc": "lower center", "ncols": 2, "frameon": False, "handlelength": 3}
    colors = [BLUE_TEXT, VERMILION_TEXT][: 1 + backward]
    ax.legend(fontsize=SMALL, labelcolor=colors, **style)
