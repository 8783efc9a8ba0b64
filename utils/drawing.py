"""A computational graph as a picture: values forward in blue, gradients backward in vermilion.

Tensors are arranged in layers. An edge reserves a place in every layer between its ends, so that
nothing is drawn across anything else. Lengths are in points. A point is (along, across): how far
along the forward pass to the right, and how far down.
"""

import re
import textwrap
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from torch import Tensor

from utils.graph import Graph, GraphEdge, GraphError, GraphNode, backward_table, short
from utils.plotting import BLUE, VERMILION

BLUE_TEXT, VERMILION_TEXT, GRAY, INK = "#00639C", "#A84300", "#555555", "#1A1A1A"
BLUE_BAND, VERMILION_BAND, WHITE = "#E3F0F9", "#FCE9DC", "#FFFFFF"
DASH = (0, (3, 1.5))  # of the arrows backward
SMALL, LARGE = 13, 16  # sizes of type
LANE = 28  # from the forward to the backward arrow of an edge
HEAD, BADGE, PAD, GAP, MARGIN = 11, 14, 4, 20, 8
KEY = (476, 26)  # the size of the legend
PARTIAL, TOTAL = r"\partial", "d"  # of local derivatives, on arrows; of total ones, in boxes
DIGITS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")

Point = tuple[float, float]
_font = partial(FontProperties, math_fontfamily="cm")


@dataclass
class _Line:
    """A line of text, the color behind it, its least height, and the room it takes."""

    text: str
    color: str
    size: float = LARGE
    band: str = ""
    height: float = 26

    def __post_init__(self):
        scratch = Figure((0.1, 0.1), dpi=100).text(0, 0, self.text, font=_font(size=self.size))
        try:
            box = scratch.get_window_extent()
        except ValueError:
            raise GraphError(f"{self.text} is not TeX: write \\% for %, for example") from None
        self.width = float(box.width) * 0.72 + 6
        self.height = max(self.height, float(box.height) * 0.72 + 5)


@dataclass(eq=False)
class _Place:
    """Room in a layer: for a tensor's box, or for an edge, maybe with its label."""

    layer: int
    lines: list[_Line]
    side: int = 0  # of an edge: 1 if its forward arrow comes before the backward one, else -1
    adds_up: bool = False  # of a tensor: more than one gradient arrives
    near: list["_Place"] = field(default_factory=list)
    across: float = 0
    at: Point = (0, 0)  # the middle of the lines

    def __post_init__(self):
        pad = 2 * PAD if self.lines else 0
        width = max((line.width for line in self.lines), default=0) + pad
        height = sum(line.height for line in self.lines) + pad
        self.size = [width, height]

    def shift(self) -> float:
        """Return how far a label's middle is from the middle between its arrows."""
        return LANE / 2 + max(0, self.size[1] / 2 - LANE + 6)

    def reach(self, end: int) -> float:
        """Return how far a place reaches across, before (-1) or after (1) its middle."""
        if end == self.side:
            return self.shift() + self.size[1] / 2
        return LANE / 2 + 4 if self.side else self.size[1] / 2

    def fan(self, step: int) -> list["_Place"]:
        """Return the places of its edges in the next layer (1) or in the one before (-1)."""
        return [place for place in self.near if place.layer == self.layer + step]


def draw_graph(graph: Graph, *, backward: bool = True) -> tuple[Figure, str]:
    """Return the figure with a graph's picture, and the text that says the same in words.

    The forward pass runs to the right. Arrows carry local derivatives ∂z/∂x, boxes total
    derivatives df/dx. With `backward=False` there are values only. Raises GraphError for what is no
    Graph, and for names and formulas that are no TeX.
    """
    refuse_no_graph(graph, "draw_graph")
    layers, routes = _places(graph, backward)
    _order(layers)
    _level(layers, routes)
    arrows = _arrows(routes, _lay_out(layers, routes), backward)
    places = [place for row in layers for place in row if place.lines]
    return _draw(places, arrows, backward), _describe(graph, backward)


def refuse_no_graph(graph: Graph, name: str) -> None:
    """Raise GraphError, with what to give instead, unless `graph` is a Graph."""
    if not isinstance(graph, Graph):
        raise GraphError(f'{name} needs a Graph: {name}(read_graph(f, {{"x": x, "f": f}}))')


def _symbol(name: str) -> str:
    """Return a name in TeX: z1 and s_2 have indices, names of several letters are upright."""
    base, digits = re.fullmatch(r"(.*?)(?:_?(\d+))?", name.translate(DIGITS)).groups()
    base = base if len(base) == 1 else rf"\mathrm{{{base}}}".replace("_", r"\_")
    return base if digits is None else f"{base}_{{{digits}}}"


def _derivative(d: str, above: GraphNode, below: GraphNode) -> str:
    """Return the symbol of a derivative as a fraction; `d` is PARTIAL or TOTAL."""
    return rf"\dfrac{{{d} {_symbol(above.name)}}}{{{d} {_symbol(below.name)}}}"


def _numbers(t: Tensor) -> str:
    """Return a tensor's entries in TeX, or nothing if they are too many."""
    text = short(t)
    if "×" in text or "numbers" in text or len(text) > 23:
        return ""
    text = re.sub(r"e\+?(-?)0*(\d+)", r" \\cdot 10^{\1\2}", text)
    return re.sub(r"\b(nan|inf)\b", r"\\mathrm{\1}", text).replace("-", "{-}")


def _space(t: Tensor) -> str:
    sizes = r"{\times}".join(map(str, t.shape))
    return rf" \in \mathbb{{R}}^{{{sizes}}}" if sizes else ""


def _box_lines(node: GraphNode, output: GraphNode, backward: bool) -> list[_Line]:
    """Return what a tensor's box shows: title, name and formula, value and shape, gradient."""
    title, name = node.title, _symbol(node.name)
    if len(title) > 20:  # PyTorch's long names
        title = textwrap.fill(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", title), 20)
    formula = f"${name} = {node.formula}$" if node.formula else f"${name}$"
    lines = [_Line(title, GRAY, SMALL, height=20), _Line(formula, INK)]
    numbers = _numbers(node.value)
    value = (rf"\mathbf{{{numbers}}}" if numbers else name) + _space(node.value)
    lines.append(_Line(f"${value}$", BLUE_TEXT, band=BLUE_BAND))
    if backward:
        total, parts = _numbers(node.grad), " + ".join(map(_numbers, node.parts))
        text = rf" = \mathbf{{{total}}}" if total else _space(node.grad)
        if total and len(node.parts) > 1 and len(node.parts) * node.grad.numel() <= 4:
            text = " = " + parts.replace("+ {-}", "- ") + text
        text = f"${_derivative(TOTAL, output, node)}{text}$"
        lines.append(_Line(text, VERMILION_TEXT, LARGE, VERMILION_BAND, 43))
    return lines


def _label_lines(edge: GraphEdge) -> list[_Line]:
    """Return the local derivative of an edge: its label, and its number or its shape."""
    numbers, scalar = _numbers(edge.local), edge.local.numel() == 1
    variable = re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", edge.label))
    if edge.label and not (scalar and variable) or not scalar and "I" not in numbers:
        numbers = ""
    symbol = _derivative(PARTIAL, edge.target, edge.source)
    text = " = ".join(part for part in (symbol, edge.label, numbers) if part)
    shape = "" if scalar else _space(edge.local)
    return [_Line(f"${part}$", VERMILION_TEXT) for part in (text, shape) if part]


def _describe(graph: Graph, backward: bool) -> str:
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


def _places(graph: Graph, backward: bool) -> tuple[list, list]:
    """Return the layers, and the places each edge leads through, from source to target.

    Tensors stand in the even layers, as near to the output as their uses allow.
    """
    index = {id(node): i for i, node in enumerate(graph.nodes)}
    depth = [0] * len(graph.nodes)  # a target comes before its sources
    for edge in graph.edges:
        u, v = index[id(edge.source)], index[id(edge.target)]
        depth[u] = max(depth[u], depth[v] + 1)
    layers = [[] for _ in range(2 * max(depth) + 1)]
    boxes, routes = {}, []
    for i, node in reversed(list(enumerate(graph.nodes))):
        lines = _box_lines(node, graph.output, backward)
        several = backward and len(node.parts) > 1
        boxes[i] = _Place(2 * (max(depth) - depth[i]), lines, adds_up=several)
        layers[boxes[i].layer].append(boxes[i])
    for edge in reversed(graph.edges):
        u, v = boxes[index[id(edge.source)]], boxes[index[id(edge.target)]]
        route = [u]
        for k in range(u.layer + 1, v.layer):
            labeled = backward and 2 * k == u.layer + v.layer
            route.append(_Place(k, _label_lines(edge) if labeled else [], 1))
            layers[k].append(route[-1])
        routes.append([*route, v])
    for p, q in (pair for route in routes for pair in pairwise(route)):
        p.near.append(q)
        q.near.append(p)
    return layers, routes


def _order(layers: list[list[_Place]]) -> None:
    """Sort the places of the even layers by the mean of their neighbors: then few edges cross."""
    for step in (1, -1, 1, -1, 1):
        for k, row in list(enumerate(layers))[::step]:
            for p in row:
                mates = p.fan(-step) or [p]
                p.across = sum(q.across for q in mates) / len(mates)
            row.sort(key=lambda p: p.across)
            for i, p in enumerate(row if k % 2 == 0 else []):
                p.across = i - (len(row) - 1) / 2


def _level(layers: list[list[_Place]], routes: list[list[_Place]]) -> None:
    """Set how far across all is: tensors on a grid, each edge level with an end it has alone."""
    for row in layers[1::2]:
        for p in row:
            firm = [q for q in p.near if q.side or len(q.fan(p.layer - q.layer)) == 1][:1] or p.near
            p.across = sum(q.across for q in firm) / len(firm)
        row.sort(key=lambda p: p.across)
        for i, p in enumerate(row):
            p.across += 1e-6 * i  # no two are the same
    for route in routes:
        for fan, p in ((route[-1].fan(-1), route[-2]), (route[0].fan(1), route[1])):
            fan.sort(key=lambda p: p.across)
            for q in route[1:-1] if len(fan) > 1 else []:
                q.side = 1 if 2 * fan.index(p) < len(fan) else -1
    for box in (route[end] for route in routes for end in (0, -1)):
        arrows = 2 * max(len(box.fan(1)), len(box.fan(-1)))
        box.size[1] = max(box.size[1], LANE * (arrows - 2) + HEAD)
    pairs = (pair for row in layers[::2] for pair in pairwise(row))
    pitch = max((p.reach(1) + q.reach(-1) for p, q in pairs), default=0) + GAP
    for p in (p for row in layers for p in row):
        p.across *= pitch
    for row in layers[1::2]:
        _spread(row)


def _spread(row: list[_Place]) -> None:
    """Move places apart: the mean of pushing from the first to the last, and back."""
    low, high = [row[0].across], [row[-1].across]
    for p, q in pairwise(row):
        low.append(max(q.across, low[-1] + p.reach(1) + GAP / 2 + q.reach(-1)))
    for p, q in pairwise(row[::-1]):
        high.append(min(q.across, high[-1] - p.reach(-1) - GAP / 2 - q.reach(1)))
    for p, a, b in zip(row, low, high[::-1], strict=True):
        p.across = (a + b) / 2


def _ports(box: _Place, step: int) -> dict[_Place, float]:
    """Return how far across each edge meets a box: two gradients that add up, at one point."""
    fan = sorted(box.fan(step), key=lambda p: p.across)
    shifts = [0.0]
    for p, q in pairwise(fan):
        shifts.append(shifts[-1] + (LANE if p.side > q.side else 2 * LANE))
    return {p: box.across + shift - shifts[-1] / 2 for p, shift in zip(fan, shifts, strict=False)}


def _lay_out(layers: list[list[_Place]], routes: list[list[_Place]]) -> list[tuple]:
    """Set the layers one after the other; return the way of each route."""
    spans, end = [], 0.0
    for k, row in enumerate(layers):
        jumps = [abs(p.across - q.across) for p in row for q in p.fan(-1)]
        badge = 2 * BADGE if k % 2 and any(p.adds_up for p in layers[k - 1]) else 0
        start = end + (HEAD + badge + min(max(12, max(jumps) / 2), 24) if k else 0)
        end = start + max(p.size[0] for p in row)
        spans.append((start, end))
        for p in row:
            p.at = ((start + end) / 2, p.across + p.side * p.shift())
            if not p.side:
                p.size[0] = end - start
    ways = []
    for u, *passed, v in routes:
        a, c = spans[u.layer][1], _ports(u, 1)[passed[0]]
        b, d = spans[v.layer][0], _ports(v, -1)[passed[-1]]
        badge = 2 * BADGE if any(p.adds_up for p in layers[u.layer]) else 0
        way = [(a, c), (a + badge + HEAD, c)]
        way += [(along, p.across) for p in passed for along in spans[p.layer]]
        ways.append([*way, (b - HEAD, d), (b, d)])
    return ways


def _arrows(routes: list[list[_Place]], ways: list[tuple], backward: bool) -> list[tuple]:
    """Return the arrows, backward ones first: whether it is one, and its points as Bézier curves.

    They run on either side of an edge's way; they bend across only, from level to level.
    """
    forth, back = [], []
    for (source, label, *_), way in zip(routes, ways, strict=True):
        lane = label.side * LANE / 2 if backward else 0
        forth.append([(a, c - lane) for a, c in way])
        back.append([(a, c + lane) for a, c in way][::-1])
        a, c = back[-1][-1]
        back[-1][-1] = (a + 2 * BADGE * source.adds_up, c)
    arrows = []
    for is_back, points in [(True, p) for p in back if backward] + [(False, p) for p in forth]:
        curve = points[:1]
        for (a, c), (b, d) in pairwise(points):
            curve += [((a + b) / 2, c), ((a + b) / 2, d), (b, d)]
        arrows.append((is_back, curve))
    return arrows


def _bounds(places: list[_Place], arrows: list[tuple]) -> tuple[float, float, float, float]:
    """Return the left, top, right and bottom of all that is drawn, with a margin."""
    points = [point for _, curve in arrows for point in curve]
    for (x, y), (width, height) in ((place.at, place.size) for place in places):
        points += [(x - width / 2, y - height / 2), (x + width / 2, y + height / 2)]
    (left, *_, right), (top, *_, bottom) = map(sorted, zip(*points, strict=True))
    return left - MARGIN, top - MARGIN, right + MARGIN, bottom + MARGIN


def _draw(places: list[_Place], arrows: list[tuple], backward: bool) -> Figure:
    """Return a figure in which everything is drawn, its axes in points."""
    left, top, right, bottom = _bounds(places, arrows)
    narrow = max(0, KEY[0] - (right - left)) / 2
    xlim, ylim = (left - narrow, right + narrow), (bottom + KEY[1], top)
    size = ((xlim[1] - xlim[0]) / 72, (ylim[0] - ylim[1]) / 72)
    ax = plt.figure(figsize=size, layout="none").add_axes((0, 0, 1, 1), xlim=xlim, ylim=ylim)
    ax.axis("off")
    for is_back, curve in arrows:
        _draw_arrow(ax, curve, is_back)
    for p in places:
        _draw_box(ax, p.at, p.size, p.lines, VERMILION if p.side else INK, WHITE)
        if p.adds_up:
            levels = sorted(c + LANE / 2 * q.side for q, c in _ports(p, 1).items())
            at = (p.at[0] + p.size[0] / 2 + BADGE, (levels[0] + levels[-1]) / 2)
            size = (2 * BADGE, 2 * BADGE + levels[-1] - levels[0])
            _draw_box(ax, at, size, [_Line("+=", WHITE, SMALL)], VERMILION_TEXT, VERMILION_TEXT)
    _draw_key(ax, backward)
    return ax.figure


def _draw_arrow(ax: Axes, curve: list[Point], is_back: bool) -> None:
    path = Path(curve, [1] + [4] * (len(curve) - 1))
    style = {"color": VERMILION, "linestyle": DASH} if is_back else {"color": BLUE}
    style |= {"linewidth": 2.4, "mutation_scale": 18}
    ax.add_patch(FancyArrowPatch(path=path, arrowstyle="-|>", zorder=2, **style))


def _draw_box(ax: Axes, at: Point, size: Point, lines: list[_Line], edge: str, fill: str) -> None:
    (x, y), (width, height) = at, size
    _draw_area(ax, x, y, width, height, fc=fill, ec=edge, lw=1.2, zorder=3)
    y -= sum(line.height for line in lines) / 2
    for line in lines:
        y += line.height / 2
        if line.band:
            _draw_area(ax, x, y, width - PAD, line.height - 2, fc=line.band, ec="none", zorder=4)
        style = {"font": _font(size=line.size), "color": line.color, "ha": "center", "va": "center"}
        ax.text(x, y, line.text, zorder=5, **style)
        y += line.height / 2


def _draw_area(ax: Axes, x: float, y: float, width: float, height: float, **style) -> None:
    corner, shape = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=6"
    ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, **style))


def _draw_key(ax: Axes, backward: bool) -> None:
    ax.plot([], [], color=BLUE, linestyle="-", linewidth=2.4, label="values, forward")
    if backward:
        text = r"gradients, backward: local $\partial$, total $d$"
        ax.plot([], [], color=VERMILION, linestyle=DASH, linewidth=2.4, label=text)
    style = {"loc": "lower center", "ncols": 2, "frameon": False, "handlelength": 3}
    colors = [BLUE_TEXT, VERMILION_TEXT][: 1 + backward]
    ax.legend(prop=_font(size=SMALL), labelcolor=colors, **style)
