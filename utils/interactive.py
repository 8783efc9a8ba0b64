"""Figures to play with: HTML that needs neither kernel nor network, its numbers all from PyTorch.

Each figure holds all its positions beforehand. Where no script may run, as in an untrusted notebook
or on paper, it is a picture with a table or a list.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from utils import drawing
from utils.drawing import BADGE, HEAD, LANE, MARGIN, SLIDE, Point
from utils.graph import Graph, GraphEdge, GraphError, GraphNode, short

MAX_POSITIONS = 101  # of a slider
MAX_TENSORS = 9  # of a Stepper: the boxes of more cannot be read
DRAWN_STEPS = 20  # of a path of descent
MOVES = "First", "Back", "Next", "Last"
SCRIPTS = {
    "^": str.maketrans("0123456789+-=()niTkxyab⊤", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱᵀᵏˣʸᵃᵇᵀ"),
    "_": str.maketrans("0123456789+-=()ijknx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ᵢⱼₖₙₓ"),
}
SYMBOLS = {"top": "⊤", "Vert": "‖", "cdot": "·", "times": "×", "partial": "∂", "pi": "π"}
SYMBOLS |= {"alpha": "α", "beta": "β", "lambda": "λ", "mu": "μ", "sigma": "σ", "theta": "θ"}


class _Figure:
    """HTML whose changing parts have one value per position, and the same in words."""

    kind, html, text = "", "", ""

    def __init__(self, still: int):
        self.still = still  # the position that is shown where no script runs
        self.frames: list[list[str]] = []

    def _repr_mimebundle_(self, **_) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}

    def attribute(self, name: str, values: Sequence[str], still: str | None = None) -> str:
        """Return an attribute with one value per position."""
        shown = escape(values[self.still] if still is None else still)
        return f"{name}='{shown}'" + self._bind(values, f" {name}")

    def element(self, tag: str, texts: Sequence[str], more: str = "") -> str:
        """Return an element with one text per position."""
        values = [escape(text) for text in texts]
        return f"<{tag} {more}{self._bind(values)}>{values[self.still]}</{tag}>"

    def table(self, head: Sequence[str], rows: Iterable[tuple], more: str = "") -> str:
        """Return a table; a cell is a text, which is its row's title, or one text per position."""
        lines = ["".join(f"<th scope='col'>{escape(text)}</th>" for text in head)]
        for row in rows:
            kinds = ("value", "grad") * len(row)
            lines.append(
                "".join(
                    f"<th scope='row'>{escape(cell)}</th>"
                    if isinstance(cell, str)
                    else self.element("td", cell, f"class='{kind}'")
                    for cell, kind in zip(row, ("",) + kinds, strict=False)
                )
            )
        return f"<table {more}>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    def slider(self, label: str, values: Sequence[str], words: Sequence[str]) -> str:
        """Return the control of a figure whose positions are numbers."""
        said = self.attribute("aria-valuetext", words)
        return (
            f"<label><span>{label} = {self.element('b', values)}</span><input type='range' min='0' "
            f"max='{len(values) - 1}' value='{self.still}' {said}></label>"
        )

    def finish(self, title: str, svg: str, alt: str, controls: str, panel: str) -> None:
        """Put the HTML together, with the style and the script that stand beside this file."""
        css, js = (Path(__file__).with_suffix(end).read_text("utf-8") for end in (".css", ".js"))
        page, mark, picture = css.partition("/* The picture")
        svg = svg.replace("<style/>", f"<style>{mark}{picture}</style>")
        source = "data:image/svg+xml," + quote(svg, safe="!$'()*+,/:;<=>?@[]{|}~ ")
        frames = json.dumps(self.frames, ensure_ascii=False, separators=(",", ":"))
        self.html = (
            f"<figure class='course-figure {self.kind}' aria-label='{escape(title)}' "
            "data-lm-suppress-shortcuts='true' data-prevent-swipe='' "
            f"data-frames='{escape(frames, quote=False).replace(chr(39), '&#39;')}'>"
            f"<style>{page}</style><div class='controls' hidden>{controls}</div><div class='body'>"
            "<div class='view' tabindex='0' role='group' aria-label='Picture'>"
            f"<img alt='{escape(alt)}' src=\"{source}\"></div>"
            f"<div class='panel'>{panel}</div></div><script>{js}</script></figure>"
        )

    def _bind(self, values: Sequence[str], name: str = "") -> str:
        """Return what tells the script where an element's values are, if they differ at all."""
        if len(set(values)) == 1:
            return ""
        if list(values) not in self.frames:
            self.frames.append(list(values))
        return f" data-bind='{self.frames.index(list(values))}{name}'"


class Explorer(_Figure):
    """The curve of a function of one number: drag x, and see tangent, values and gradients.

    `function` takes a tensor x and returns what it computes on the way, the output last:
    `{"z1": x**3, "f": x**3 - 3 * x}`. It is run in float64 at each x from `low` to `high`, `step`
    apart, and autograd gives the gradient of the output with respect to each tensor. Raises
    ValueError or GraphError, with what to change, where there is no such gradient.
    """

    kind = "curve"

    def __init__(
        self,
        function: Callable[[Tensor], Mapping[str, Tensor]],
        low: float,
        high: float,
        *,
        step: float = 0.05,
        start: float | None = None,
    ):
        xs = _grid(low, high, step)
        super().__init__(_nearest(xs, start))
        runs = [_evaluate(function, x) for x in xs]
        if any(list(run) != list(runs[0]) for run in runs):
            raise ValueError("the function returns other names at another x: return the same ones")
        texts = {n: tuple([_number(run[n][i]) for run in runs] for i in (0, 1)) for n in runs[0]}
        (x, slopes), (*_, (f, (ys, _))) = texts["x"], texts.items()
        words = [_tell_slope(_name(f), *point) for point in zip(x, ys, slopes, strict=True)]
        svg = self._picture([(*run["x"], run[f][0]) for run in runs], _name(f), ys, slopes)
        rows = [(_name(name), *cells) for name, cells in texts.items()]
        panel = self.element("p", words)
        panel += self.table(["", "value", f"gradient of {_name(f)}"], rows)
        alt = f"The curve of {_name(f)}, x from {x[0]} to {x[-1]}, and a tangent. "
        controls = self.slider("x", x, words)
        self.finish(f"Explore {_name(f)}", svg, alt + words[self.still], controls, panel)
        self.text = f"Explorer of {f} at {len(xs)} points. {_some(words, self.still)}"

    def _picture(
        self, runs: Sequence[Sequence[float]], f: str, values: list[str], slopes: list[str]
    ) -> str:
        """Return the curve, its tangent and the point on it; a run is x, slope and value."""
        xs, _, ys = zip(*runs, strict=True)
        rise, reach = max(ys) - min(ys) or 1, 0.2 * (xs[-1] - xs[0])
        low = min(ys) - 0.15 * rise
        plot = _Plot((52, 40, 600, 292), (xs[0], xs[-1]), (low, max(ys) + 0.15 * rise), 0.04)
        tangents, drops, dots = [], [], []
        for x, slope, y in runs:
            h = reach / math.hypot(1, 2 * slope * reach / rise)
            tangents.append(plot.path([(x - h, y - h * slope), (x + h, y + h * slope)]))
            drops.append(plot.path([(x, low), (x, y)]))
            dots.append(f"translate({plot.at(x, y)})")
        content = (
            f"<path class='drop' {self.attribute('d', drops)}/>"
            f"<path class='line' d='{plot.path(zip(xs, ys, strict=True))}'/>"
            f"<g class='back'><path class='line' {self.attribute('d', tangents)}/></g>"
            f"<circle class='dot' r='8' {self.attribute('transform', dots)}/>"
        )
        value, slope = (self.element("tspan", t, "class='n'") for t in (values, slopes))
        key = (
            "<path class='line' d='M60 20h36'/><g class='back'><path class='line' d='M300 20h36'/>"
            f"</g><text class='v start' x='104' y='20'>{_svg(f)} = {value}</text>"
            f"<text class='g start' x='344' y='20'>tangent, slope {slope}</text>"
        )
        drag = f"data-drag='{plot.x(xs[0])} {plot.x(xs[-1])}'"
        return _root((0, 0, 612, 340), key + plot.draw(content, "x"), drag)


class DescentExplorer(_Figure):
    """Gradient descent on a quadratic loss of two weights: choose the learning rate, see the fate.

    `loss` takes the weights; `descend` takes a learning rate from `low` to `high`, and returns a
    path of shape (steps + 1, 2). Predicted: max(|1 - lr mu|, |1 - lr L|), the factor by which a
    step multiplies the error in the end, from the smallest and the largest curvature. Measured:
    the same over the last third of the path. Raises ValueError for other losses and paths.
    """

    kind = "descent"

    def __init__(
        self,
        loss: Callable[[Tensor], Tensor],
        descend: Callable[[float], Tensor],
        low: float,
        high: float,
        *,
        step: float = 0.05,
        start: float | None = None,
    ):
        lrs = _grid(low, high, step)
        super().__init__(_nearest(lrs, start))
        paths = [_path(descend, lr) for lr in lrs]
        bowl = _Bowl(loss, paths[0][0])
        flat, steep = ([1 - lr * curvature for lr in lrs] for curvature in bowl.curvatures)
        predicted = [max(abs(a), abs(b)) for a, b in zip(flat, steep, strict=True)]
        measured = [_rate((path - bowl.minimum).norm(dim=1)) for path in paths]
        cells = [[_number(v, 3) for v in row] for row in (flat, steep, predicted, measured)]
        alphas, (mu, L) = [_number(lr) for lr in lrs], bowl.curvatures
        words = [
            f"At α = {alpha}, descent {_fate(lr * L)}: predicted factor per step {p}, measured {m}."
            for alpha, lr, p, m in zip(alphas, lrs, *cells[2:], strict=True)
        ]
        names = f"1 − αμ, μ = {_number(mu, 3)}", f"1 − αL, L = {_number(L, 3)}"
        names += "predicted: larger size", "measured on the path"
        panel = self.element("p", words)
        panel += self.table(["error per step", "factor"], zip(names, cells, strict=True))
        svg = self._picture(lrs, paths, bowl, predicted, measured)
        alt = "Left, the path of gradient descent on level sets; right, the factor over α. "
        controls = self.slider("learning rate α", alphas, words)
        self.finish("Explore the learning rate", svg, alt + words[self.still], controls, panel)
        self.text = f"Explorer of {len(lrs)} learning rates. {_some(words, self.still)}"

    def _picture(
        self,
        lrs: list[float],
        paths: list[Tensor],
        bowl: "_Bowl",
        predicted: list[float],
        measured: list[float],
    ) -> str:
        """Return two plots: the path on level sets, and the factor over the learning rate."""
        (a, b), reach = bowl.minimum.tolist(), bowl.reach
        left = _Plot((52, 12, 352, 312), (a - reach, a + reach), (b - reach, b + reach))
        walks = [_seen(path[: DRAWN_STEPS + 1].tolist(), (a, b), 3 * reach) for path in paths]
        line = self.attribute("d", [left.path(walk) for walk in walks])
        marks = self.attribute("d", [left.path(walk, marks=True) for walk in walks])
        walk = (
            f"{bowl.rings(left)}<g class='back'><path class='line thin' {line}/></g>"
            f"<path class='marks' {marks}/><text x='{left.x(a)}' y='{left.y(b)}'>★</text>"
        )
        mu, L = bowl.curvatures
        right = _Plot(
            (430, 12, 730, 312), (lrs[0], lrs[-1]), (0, max(1.2, *predicted) + 0.05), 0.04
        )
        dots = [f"translate({right.at(*p)})" for p in zip(lrs, measured, strict=True)]
        edges = right.path([(-9, 1), (99, 1)]) + right.path([(2 / L, 0), (2 / L, 9)])
        edges += right.path([(2 / (L + mu), 0), (2 / (L + mu), 9)])
        names = {"2/L": 2 / L, "2/(L+μ)": 2 / (L + mu)}
        rates = (
            f"<path class='drop' d='{edges}'/>"
            f"<path class='line' d='{right.path(zip(lrs, predicted, strict=True))}'/>"
            f"<circle class='dot' r='8' {self.attribute('transform', dots)}/>"
            "<path class='line' d='M446 260h36'/><text class='v start' x='490' y='260'>predicted"
            "</text><circle class='dot' cx='464' cy='286' r='8'/>"
            "<text class='g start' x='490' y='286'>measured</text>"
        )
        for name, lr in names.items():
            at = f"translate({right.at(lr, 0.06)}) rotate(-90)"
            rates += f"<text class='start small' transform='{at}' y='-10'>{_svg(name)}</text>"
        svg = left.draw(walk, "w₁", "w₂")
        svg += right.draw(rates, "learning rate α", "error, factor per step")
        return _root((0, 0, 742, 356), svg, f"data-drag='{right.x(lrs[0])} {right.x(lrs[-1])}'")


class Stepper(_Figure):
    """The picture of a `Graph` that is walked forward, then backward, one tensor per step.

    At a backward step, the gradient that has arrived at a tensor is multiplied by each local
    derivative, and the product sent on; accumulators are shown as they stand after it. Raises
    GraphError, with what to do, where there is nothing to walk or too much to read.
    """

    kind = "stepper"

    def __init__(self, graph: Graph):
        _refuse_unreadable(graph)
        self.graph, self.last = graph, 2 * len(graph.nodes)
        super().__init__(still=self.last)
        nodes = graph.nodes
        self.forward = {node.name: i for i, node in enumerate(reversed(nodes), 1)}
        self.backward = {node.name: i for i, node in enumerate(nodes, len(nodes) + 1)}
        self.sums = {node.name: self._accumulator(node) for node in nodes}
        steps = [("forward", self._tell_forward(node)) for node in reversed(nodes)]
        steps += [("backward", self._tell_backward(node)) for node in nodes]
        words = ["Names and arrows only: nothing is computed yet. The first steps go forward."]
        for i, (way, step) in enumerate(steps, 1):
            words.append(f"Step {i} of {self.last}, {way}. {step}")
        title = f"The computational graph of {_name(graph.output.name)}, in {self.last} steps"
        panel = self.element("p", words, "role='status' hidden") + self._products()
        panel += f"<ol>{''.join(f'<li>{escape(step)}</li>' for _, step in steps)}</ol>"
        buttons = (f"<button type='button' value='{m.lower()}'>{m}</button>" for m in MOVES)
        alt = f"{title}, all of them done; they are told below."
        self.finish(title, self._picture(), alt, "".join(buttons), panel)
        self.text = f"{title}. {' '.join(step for _, step in steps)}"

    def _accumulator(self, node: GraphNode) -> list[str]:
        """Return what a tensor's accumulator holds at each position, and how it came to it."""
        texts = [""] * (self.last // 2 + 1)
        texts += ["0" if node.parts else _short(node.grad)] * (self.last // 2)
        arriving, total = [e for e in self.graph.edges if e.source is node], None
        for edge in arriving:
            before, total = total, edge.sent if total is None else total + edge.sent
            text = _short(node.grad if edge is arriving[-1] else total)
            if before is not None:
                text = f"{_short(before)} + {_short(edge.sent)} = {text}".replace("+ −", "− ")
            at = self.backward[edge.target.name]
            texts[at:] = [text] * len(texts[at:])
        return texts

    def _after(self, edge: GraphEdge) -> str:
        """Return the accumulator of an edge's source right after the edge has sent."""
        total = self.sums[edge.source.name][self.backward[edge.target.name]]
        return f"{_partial(self.graph.output, edge.source)} = {total}"

    def _tell_forward(self, node: GraphNode) -> str:
        """Return in words what the forward pass computes at a tensor."""
        value = "" if node.value is None else _short(node.value)
        told = " = ".join(part for part in (_name(node.name), _plain(node.formula), value) if part)
        sources = [_name(edge.source.name) for edge in self.graph.edges if edge.target is node]
        return f"{node.title}: {told}" + (f", from {' and '.join(sources)}." if sources else ".")

    def _tell_backward(self, node: GraphNode) -> str:
        """Return in words what happens when the backward pass visits a tensor."""
        f = self.graph.output
        arrived = f"{node.title}: {_partial(f, node)} = {self.sums[node.name][-1]}"
        told = [arrived + (" is the start." if node is f else " is complete.")]
        for edge in (edge for edge in self.graph.edges if edge.target is node):
            local = _short(edge.local) if edge.local.numel() == 1 else _plain(edge.label)
            local = f"({local})" if local.startswith("−") else local or _partial(node, edge.source)
            product = f"{_short(node.grad)} × {local} = {_short(edge.sent)}"
            told.append(f"{product} goes to {_name(edge.source.name)}: {self._after(edge)}.")
        return " ".join(told)

    def _products(self) -> str:
        """Return the table of what is sent: a row per edge of the tensor that is visited."""
        sent: list[list[list[str]]] = [[] for _ in range(self.last + 1)]
        for edge in self.graph.edges:
            incoming = f"{_partial(self.graph.output, edge.target)} = {_short(edge.target.grad)}"
            row = [incoming, _local(edge), _short(edge.sent), self._after(edge)]
            sent[self.backward[edge.target.name]].append(row)
        rows = [
            tuple(zip(*(row[k] if k < len(row) else [""] * 4 for row in sent), strict=True))
            for k in range(max(map(len, sent)))
        ]
        head = ["incoming gradient", "× local derivative", "= what is sent", "accumulator"]
        return self.table(head, rows, "hidden")

    def _picture(self) -> str:
        """Return the graph, in the layout of `draw_graph`."""
        edges = self.graph.edges[::-1]
        rows = {node.name: self._rows(node) for node in self.graph.nodes}
        tags = [[_Row(_svg(text), _width(text), "g")] for text in map(_local, edges)]
        boxes, tags, arrows, room = _lay_out(self.graph, rows, tags)
        drawn = []
        for edge, (is_back, curve) in zip(edges + edges, arrows, strict=True):
            at = (self.backward if is_back else self.forward)[edge.target.name]
            phases = ("back off", "back now", "back") if is_back else ("wait", "now", "")
            drawn.append(f"<g {self._phases(at, *phases)}>{_arrow(curve)}</g>")
        for edge, tag in zip(edges, tags, strict=True):
            at = self.backward[edge.target.name]
            drawn.append(f"<g {self._phases(at, 'back off', 'back now', 'back')}>{_box(tag)}</g>")
        for name, box in boxes.items():
            now = {self.forward[name]: "now", self.backward[name]: "now back"}
            at = self.attribute("class", [now.get(i, "") for i in range(self.last + 1)], "")
            drawn.append(f"<g {at}>{_box(box)}</g>")
            if box.adds_up:
                drawn.append(f"<g {self._phases(self.last // 2 + 1, 'off')}>{_badge(box)}</g>")
        return _root(room, "".join(drawn))

    def _phases(self, at: int, before: str, now: str = "", after: str = "") -> str:
        """Return the class attribute of what happens at position `at`."""
        values = [before] * at + [now] + [after] * (self.last - at)
        return self.attribute("class", values, after)

    def _rows(self, node: GraphNode) -> list["_Row"]:
        """Return the lines of a tensor's box: title, name and formula, value, accumulator."""
        formula = f" = {_plain(node.formula)}" if node.formula else ""
        named, symbol = _name(node.name) + formula, f"{_partial(self.graph.output, node)} = "
        rows = [
            _Row(escape(node.title), _width(node.title, 13), "t", 20),
            _Row(_svg(named), _width(named)),
        ]
        if node.value is not None:
            value, show = _short(node.value), self._phases(self.forward[node.name], "off")
            rows.append(_Row(f"<tspan class='n'>{value}</tspan>", _width(value), "v", show=show))
        sums = [s if len(s) < 14 else s.rpartition("= ")[2] for s in self.sums[node.name]]
        line = _svg(symbol) + self.element("tspan", sums, "class='n'")
        width = _width(symbol) + max(map(_width, sums)) - _width("")
        show = self._phases(self.last // 2 + 1, "off")
        return [*rows, _Row(line, width, "g", show=show)]


@dataclass
class _Row:
    """A line of text in a box: its size, its class, and when it is shown."""

    svg: str
    width: float
    kind: str = ""
    height: float = 26
    show: str = ""


def _refuse_unreadable(graph: Graph) -> None:
    """Raise GraphError for what is no graph, has nothing to walk, or too much to read."""
    if not isinstance(graph, Graph):
        raise GraphError('a Stepper walks a Graph: Stepper(read_graph(f, {"x": x, "f": f}))')
    if not graph.edges:
        raise GraphError("the output is itself a leaf tensor: compute something from it first")
    if len(graph.nodes) > MAX_TENSORS:
        raise GraphError(
            f"the graph has {len(graph.nodes)} tensors, and no more than {MAX_TENSORS} can be read "
            "in one picture: name fewer of them, or take a smaller example"
        )


def _lay_out(graph: Graph, rows: Mapping[str, list[_Row]], tags: Sequence[list[_Row]]) -> tuple:
    """Return where `draw_graph` would put boxes and labels of these sizes, the arrows, the room.

    Widths are estimated by `_width` and not measured: so the picture is the same everywhere.
    """
    layers, routes = drawing._places(graph, down=False, backward=True)
    boxes, labels = {}, []
    for edge, route, lines in zip(reversed(graph.edges), routes, tags, strict=True):
        boxes |= {edge.source.name: route[0], edge.target.name: route[-1]}
        labels.append(next(place for place in route[1:-1] if place.lines))
        labels[-1].lines = lines
    for name, box in boxes.items():
        box.lines = rows[name]
    for place in (place for row in layers for place in row):
        place.__post_init__()  # takes its size from its lines
    drawing._order(layers)
    drawing._level(layers, routes)
    ways = drawing._lay_out(layers, routes)
    if len(layers) == 2 * len(routes) + 1 and layers[-1][0].at[0] > SLIDE[0]:
        ways = drawing._fold([row[0] for row in layers], SLIDE)
    arrows = drawing._arrows(routes, ways, backward=True)
    points = [point for _, curve in arrows for point in curve]
    for (x, y), (width, height) in ((place.at, place.size) for place in (*boxes.values(), *labels)):
        points += [(x - width / 2, y - height / 2), (x + width / 2, y + height / 2)]
    (left, *_, right), (top, *_, bottom) = map(sorted, zip(*points, strict=True))
    return boxes, labels, arrows, (left - MARGIN, top - MARGIN, right + MARGIN, bottom + MARGIN)


def _box(place: drawing._Place) -> str:
    """Return a box with its lines, and the ring that marks a tensor at work."""
    (x, y), (width, height) = place.at, place.size
    ring = _rect("ring", x, y, width + 10, height + 10) if len(place.lines) > 1 else ""
    parts = [ring, _rect("box", x, y, width, height)]
    y -= sum(row.height for row in place.lines) / 2
    for row in place.lines:
        y += row.height / 2
        text = f"<text class='{row.kind}' x='{_length(x)}' y='{_length(y)}'>{row.svg}</text>"
        if row.show:
            band = _rect(f"{row.kind}b", x, y, width - 4, row.height - 2)
            text = f"<g {row.show}>{band}{text}</g>"
        parts.append(text)
        y += row.height / 2
    return "".join(parts)


def _badge(box: drawing._Place) -> str:
    """Return the badge where several gradients meet and are added up."""
    levels = sorted(c + LANE / 2 * place.side for place, c in drawing._ports(box, 1).items())
    x, y = box.at[0] + box.size[0] / 2 + BADGE, (levels[0] + levels[-1]) / 2
    rect = _rect("sum", x, y, 2 * BADGE, 2 * BADGE + levels[-1] - levels[0])
    return f"{rect}<text class='plus' x='{_length(x)}' y='{_length(y)}'>+=</text>"


def _arrow(curve: Sequence[Point]) -> str:
    """Return an arrow along a Bézier curve; its line ends inside its tip."""
    (a, c), (b, d) = curve[-2:]
    x, y = (b > a) - (b < a), (d > c) - (d < c)  # the direction: an arrow ends level
    *points, end = [f"{_length(p)} {_length(q)}" for p, q in curve]
    points.append(f"{_length(b - HEAD * x)} {_length(d - HEAD * y)}")
    tip = f"translate({end}) rotate({_length(math.degrees(math.atan2(y, x)))})"
    line = f"M{points[0]}C{' '.join(points[1:])}"
    return (
        f"<path class='line' d='{line}'/><path class='tip' d='M0 0l-14-6v12z' transform='{tip}'/>"
    )


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    corner = f"x='{_length(x - width / 2)}' y='{_length(y - height / 2)}'"
    size = f"width='{_length(width)}' height='{_length(height)}'"
    return f"<rect class='{kind}' {corner} {size} rx='6'/>"


def _partial(above: GraphNode, below: GraphNode) -> str:
    return f"∂{_name(above.name)}/∂{_name(below.name)}"


def _local(edge: GraphEdge) -> str:
    """Return a local derivative: its symbol, its label if there is one, its number or shape."""
    label, number = _plain(edge.label), _short(edge.local)
    parts = [_partial(edge.target, edge.source), label, "" if number == label else number]
    return " = ".join(part for part in parts if part)


# From here on: what the explorers compute, and how they plot it.


def _grid(low: float, high: float, step: float) -> list[float]:
    """Return the numbers from `low` to `high`, `step` apart, as a slider takes them."""
    count = round((high - low) / step) + 1 if step > 0 else 0
    if not 2 <= count <= MAX_POSITIONS:
        raise ValueError(
            f"from {low} to {high} by {step} are not 2 to {MAX_POSITIONS} positions: "
            "choose another step"
        )
    return [round(low + i * step, 4) for i in range(count)]


def _nearest(grid: Sequence[float], start: float | None) -> int:
    """Return the position of the number nearest to `start`, by default the middle one."""
    wanted = grid[len(grid) // 2] if start is None else start
    return min(range(len(grid)), key=lambda i: abs(grid[i] - wanted))


def _some(words: Sequence[str], still: int) -> str:
    """Return the first, the still and the last sentence."""
    return " ".join(words[i] for i in sorted({0, still, len(words) - 1}))


def _evaluate(function: Callable, x: float) -> dict[str, tuple[float, float]]:
    """Return value and gradient of x and of each tensor that the function returns."""
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    named = function(leaf)
    if not isinstance(named, Mapping) or not named:
        raise ValueError('the function must return named tensors, the output last: {"f": x**3}')
    tensors = {"x": leaf} | dict(named)
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.numel() != 1:
            raise ValueError(f"{name} is not a tensor of one number: compute one from each x")
        if not tensor.requires_grad:
            raise GraphError(f"{name} was not computed from x by recorded operations: leave it out")
    grads = torch.autograd.grad([*tensors.values()][-1], [*tensors.values()], allow_unused=True)
    if unused := [name for name, grad in zip(tensors, grads, strict=True) if grad is None]:
        raise GraphError(f"the last tensor is not computed from {unused[0]}: put the output last")
    pairs = ((t.item(), grad.item()) for t, grad in zip(tensors.values(), grads, strict=True))
    return dict(zip(tensors, pairs, strict=True))


def _tell_slope(f: str, x: str, y: str, slope: str) -> str:
    """Return in words what the function does at a point."""
    does = "is level" if slope == "0" else "falls" if slope.startswith("−") else "rises"
    return f"At x = {x}, {f} = {y} {does}: the slope is {slope}."


def _path(descend: Callable[[float], Tensor], lr: float) -> Tensor:
    """Return the path of descent at a learning rate."""
    path = descend(lr)
    if not isinstance(path, Tensor) or path.ndim != 2 or path.shape[1] != 2 or len(path) < 4:
        raise ValueError("descend(lr) must return a path of two weights, of shape (steps + 1, 2)")
    return path.detach().double()


def _rate(errors: Tensor) -> float:
    """Return the factor per step over the last third of the errors."""
    steps = len(errors) // 3
    return (errors[-1] / errors[-1 - steps]).item() ** (1 / steps)


def _fate(stretch: float) -> str:
    """Return what descent does, by the learning rate times the largest curvature."""
    if stretch <= 1:
        return "converges without jumping"
    if stretch < 2:
        return "converges, jumping across the valley"
    return "diverges" if stretch > 2 else "jumps to and fro without end"


def _seen(walk: Sequence[Point], center: Point, reach: float) -> list[Point]:
    """Return the points of a path up to the first that is far away."""
    far = (i for i, point in enumerate(walk) if math.dist(point, center) > reach)
    return walk[: next(far, len(walk)) + 1]


class _Bowl:
    """A quadratic loss of two weights: its minimum, its smallest and its largest curvature."""

    def __init__(self, loss: Callable[[Tensor], Tensor], w: Tensor):
        self.hessian, elsewhere = (torch.func.hessian(loss)(point) for point in (w, w + 1))
        if self.hessian.shape != (2, 2) or not torch.allclose(self.hessian, elsewhere):
            raise ValueError("the loss must be quadratic in two weights, as that of least squares")
        self.curvatures = torch.linalg.eigvalsh(self.hessian).tolist()
        if not self.curvatures[0] > 0:
            raise ValueError("the loss has no single minimum: give the data independent columns")
        self.minimum = w - torch.linalg.solve(self.hessian, torch.func.grad(loss)(w))
        self.reach = 1.3 * (w - self.minimum).abs().max().item() or 1.0

    def rings(self, plot: "_Plot") -> str:
        """Return level sets, as ellipses."""
        (a, b), (_, d) = self.hessian.tolist()
        angle = math.degrees(math.atan2(2 * b, a - d) / 2)  # of the steep direction
        flat, steep = (curvature**0.5 for curvature in self.curvatures)
        unit = (plot.right - plot.left) / 2 * steep
        place = f"translate({plot.at(*self.minimum.tolist())}) rotate({_length(-angle)})"
        rings = (
            f"<ellipse rx='{_length(unit * k / 8 / steep)}' ry='{_length(unit * k / 8 / flat)}'/>"
            for k in range(1, 9)
        )
        return f"<g class='rings' transform='{place}'>{''.join(rings)}</g>"


class _Plot:
    """Axes in a picture: where numbers stand, and a grid with a few of them."""

    def __init__(self, edges: tuple, xlim: Point, ylim: Point, margin: float = 0):
        self.left, self.top, self.right, self.bottom = edges
        room = margin * (xlim[1] - xlim[0])
        self.xlim, self.ylim = (xlim[0] - room, xlim[1] + room), ylim

    def x(self, value: float) -> str:
        low, high = self.xlim
        return _length(self.left + (value - low) / (high - low) * (self.right - self.left))

    def y(self, value: float) -> str:
        low, high = self.ylim
        return _length(self.bottom - (value - low) / (high - low) * (self.bottom - self.top))

    def at(self, x: float, y: float) -> str:
        return f"{self.x(x)} {self.y(y)}"

    def path(self, points: Iterable[Point], marks: bool = False) -> str:
        """Return a line through points, or a mark at each."""
        at = dict.fromkeys(self.at(*point) for point in points)
        return "".join(f"M{p}h0" for p in at) if marks else "M" + "L".join(at)

    def draw(self, content: str, xlabel: str, ylabel: str = "") -> str:
        """Return the plot with its content, which is cut at the edges."""
        width, height, under = self.right - self.left, self.bottom - self.top, self.bottom + 14
        ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values
        xs = [v for v in ticks(*self.xlim).tolist() if self.xlim[0] <= v <= self.xlim[1]]
        ys = [v for v in ticks(*self.ylim).tolist() if self.ylim[0] <= v <= self.ylim[1]]
        lines = [f"M{self.x(v)} {self.top}v{height}" for v in xs]
        lines += [f"M{self.left} {self.y(v)}h{width}" for v in ys]
        texts = [f"<text x='{self.x(v)}' y='{under}'>{_number(v)}</text>" for v in xs]
        place = f"class='end' x='{self.left - 6}'"
        texts += [f"<text {place} y='{self.y(v)}'>{_number(v)}</text>" for v in ys]
        middle, inside = (self.left + self.right) // 2, f"x='{self.left + 8}' y='{self.top + 12}'"
        texts.append(f"<text x='{middle}' y='{under + 20}'>{_svg(xlabel)}</text>")
        texts.append(f"<text class='start' {inside}>{_svg(ylabel)}</text>")
        window = f"x='{self.left}' y='{self.top}' width='{width}' height='{height}'"
        box = f"viewBox='{self.left} {self.top} {width} {height}'"
        grid = f"<path class='grid' d='{''.join(lines)}'/>"
        return f"{grid}<svg {window} {box}>{content}</svg>{''.join(texts)}"


# From here on: texts.


def _root(room: tuple, content: str, more: str = "") -> str:
    """Return a picture with the corners `room`; `finish` writes its style into it."""
    left, top, width, height = map(_length, (*room[:2], room[2] - room[0], room[3] - room[1]))
    size = f"width='{width}' height='{height}'"
    head = f"xmlns='http://www.w3.org/2000/svg' class='course-picture' {size} {more}"
    paper = f"<rect class='paper' x='{left}' y='{top}' {size}/>"
    box = f"viewBox='{left} {top} {width} {height}'"
    return f"<svg {head} {box}><style/>{paper}{content}</svg>"


def _length(number: float) -> str:
    return f"{round(number, 1) + 0.0:g}"


def _number(value: float, digits: int = 4) -> str:
    """Return a number rounded to some decimals, without zeros at its end."""
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text.replace("-", "−")


def _short(t: Tensor) -> str:
    return short(t).replace("-", "−")


def _name(name: str) -> str:
    """Return a name with its number as an index: z1 and z_1 as z₁."""
    base, digits = re.fullmatch(r"(.*?)(?:_?(\d+))?", name).groups()
    return base + (digits or "").translate(SCRIPTS["_"])


def _plain(tex: str) -> str:
    r"""Return a formula without TeX: z_1^2 as z₁², \frac{1}{2} as 1/2."""

    def script(match: re.Match) -> str:
        mark, text = match[1], match[2] or match[3]
        raised = text.translate(SCRIPTS[mark])
        return f"{mark}({text})" if set(text) & set(raised) else raised

    tex = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", tex).replace(r"\|", "‖")
    tex = re.sub(r"\\([A-Za-z]+) ?", lambda match: SYMBOLS.get(match[1], match[1]), tex)
    tex = re.sub(r"([\^_])(?:\{([^{}]*)\}|(.))", script, tex)
    return re.sub(r"[{}\\]", "", tex).replace("-", "−")


def _svg(text: str) -> str:
    """Return text for SVG, with its variables, of one or two letters, in italics."""
    words = re.split(r"([A-Za-zα-ω]+)", text)
    return "".join(
        f"<tspan class='i'>{word}</tspan>" if i % 2 and len(word) <= 2 else escape(word)
        for i, word in enumerate(words)
    )


def _width(text: str, size: float = 17) -> float:
    """Return about how wide a line of text is."""
    narrow, wide = len(re.findall(r"[ ,.()ijl1|]", text)), len(re.findall(r"[mwMW×=+−]", text))
    return size * (0.56 * len(text) - 0.16 * narrow + 0.2 * wide) + 8
