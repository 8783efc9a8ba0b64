"""A computational graph to walk through, forward and then backward, one tensor per step."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from torch import Tensor

from utils import drawing
from utils.drawing import BADGE, HEAD, LANE, Point
from utils.graph import Graph, GraphEdge, GraphError, GraphNode, short
from utils.interactive import LIVE, SUBSCRIPTS, Figure, index, italic, length, root

MAX_TENSORS = 8  # the boxes of more cannot be read
MOVES = "First", "Back", "Next", "Last"
SUPERSCRIPTS = str.maketrans("0123456789+-=()niTkxyab⊤", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱᵀᵏˣʸᵃᵇᵀ")
SYMBOLS = {"top": "⊤", "Vert": "‖", "cdot": "·", "times": "×", "partial": "∂", "pi": "π"}
SYMBOLS |= {"alpha": "α", "beta": "β", "lambda": "λ", "mu": "μ", "sigma": "σ", "theta": "θ"}


class Stepper(Figure):
    """The picture of a `Graph` that is walked forward, then backward, one tensor per step.

    At a backward step, the total derivative df/dz that has arrived at a tensor is multiplied by
    each local derivative ∂z/∂x, and the product is added to the accumulator of df/dx. Raises
    GraphError for what is no Graph, where there is nothing to walk, or too much to read.
    """

    kind = "stepper"

    def __init__(self, graph: Graph):
        _refuse_unreadable(graph)
        self.graph, nodes = graph, graph.nodes
        self.half, self.last = len(nodes), 2 * len(nodes)
        super().__init__(still=self.last)
        self.forward = {node.name: i for i, node in enumerate(reversed(nodes), 1)}
        self.backward = {node.name: i for i, node in enumerate(nodes, self.half + 1)}
        self.sums = {node.name: self._accumulator(node) for node in nodes}
        steps = [("forward", self._tell_forward(node)) for node in reversed(nodes)]
        steps += [("backward", self._tell_backward(node)) for node in nodes]
        words = ["Names and arrows only: nothing is computed yet. The first steps go forward."]
        for i, (way, step) in enumerate(steps, 1):
            words.append(f"Step {i} of {self.last}, {way}. {step}")
        told = "".join(f"<li>{escape(step)}</li>" for _, step in steps)
        buttons = (f"<button type='button' value='{m.lower()}'>{m}</button>" for m in MOVES)
        head = f"<div class='course-steps'>{''.join(buttons)}</div>"
        head += self.element("p", words, "role='status'")
        title = f"The computational graph of {index(graph.output.name)}, in {self.last} steps"
        alt = f"{title}, all steps completed; each step is described below."
        panel = f"<div {LIVE}><div class='course-now'>{head}</div>{self._products()}</div>"
        self.finish(title, self._picture(), alt, f"{panel}<ol>{told}</ol>")
        self.text = f"{title}. {' '.join(step for _, step in steps)}"

    def _accumulator(self, node: GraphNode) -> list[str]:
        """Return what a tensor's accumulator holds at each position, and how it came to it."""
        start = "0" if node.parts else _short(node.grad)
        texts = [""] * (self.half + 1) + [start] * self.half
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
        return f"{_total(self.graph, edge.source)} = {total}"

    def _tell_forward(self, node: GraphNode) -> str:
        """Return in words what the forward pass computes at a tensor."""
        parts = (index(node.name), _plain(node.formula), _short(node.value))
        told = " = ".join(part for part in parts if part)
        sources = [index(edge.source.name) for edge in self.graph.edges if edge.target is node]
        return f"{node.title}: {told}" + (f", from {' and '.join(sources)}." if sources else ".")

    def _tell_backward(self, node: GraphNode) -> str:
        """Return in words what happens when the backward pass visits a tensor."""
        arrived = f"{node.title}: {_total(self.graph, node)} = {self.sums[node.name][-1]}"
        told = [arrived + (" is complete." if node.parts else " is the start.")]
        for edge in (edge for edge in self.graph.edges if edge.target is node):
            local = _short(edge.local) if edge.local.numel() == 1 else _plain(edge.label)
            local = f"({local})" if local.startswith("−") else local or _local(edge)[0]
            product = f"{_short(node.grad)} × {local} = {_short(edge.sent)}"
            told.append(f"{product} goes to {index(edge.source.name)}: {self._after(edge)}.")
        return " ".join(told)

    def _products(self) -> str:
        """Return the table of what is sent: a row per edge of the tensor that is visited."""
        sent: list[list[list[str]]] = [[] for _ in range(self.last + 1)]
        for edge in self.graph.edges:
            incoming = f"{_total(self.graph, edge.target)} = {_short(edge.target.grad)}"
            row = [incoming, " = ".join(_local(edge)), _short(edge.sent), self._after(edge)]
            sent[self.backward[edge.target.name]].append(row)
        rows = [
            list(zip(*(row[k] if k < len(row) else [""] * 4 for row in sent), strict=True))
            for k in range(max(map(len, sent)))
        ]
        head = ["incoming gradient", "× local derivative", "= what is sent", "accumulator"]
        table = self.table(head, rows, ("grad",) * 4)
        return f"<div {self._phases(self.half + 1, 'off')}>{table}</div>"

    def _picture(self) -> str:
        """Return the graph, in the layout of `draw_graph`."""
        edges = self.graph.edges[::-1]
        rows = {node.name: self._rows(node) for node in self.graph.nodes}
        boxes, tags, arrows, room = _lay_out(self.graph, rows, [_tag(edge) for edge in edges])
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
                drawn.append(f"<g {self._phases(self.half + 1, 'off')}>{_badge(box)}</g>")
        return root(room, "".join(drawn))

    def _phases(self, at: int, before: str, now: str = "", after: str = "") -> str:
        """Return the class attribute of what changes at position `at`."""
        values = [before] * at + [now] + [after] * (self.last - at)
        return self.attribute("class", values, after)

    def _rows(self, node: GraphNode) -> list["_Row"]:
        """Return the lines of a tensor's box: title, name and formula, value, accumulator."""
        name = " = ".join(part for part in (index(node.name), _plain(node.formula)) if part)
        rows = [_Row(escape(node.title), _width(node.title, 13), "t", 20)]
        rows.append(_Row(italic(name), _width(name)))
        value, show = _short(node.value), self._phases(self.forward[node.name], "off")
        rows.append(_Row(f"<tspan class='n'>{value}</tspan>", _width(value), "v", show=show))
        symbol = f"{_total(self.graph, node)} = "
        sums = [s if len(s) < 14 else s.rpartition("= ")[2] for s in self.sums[node.name]]
        line = italic(symbol) + self.element("tspan", sums, "class='n'")
        show = self._phases(self.half + 1, "off")
        return [*rows, _Row(line, _width(symbol + max(sums, key=_width)), "g", show=show)]


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
    drawing.refuse_no_graph(graph, "Stepper")
    if not graph.edges:
        raise GraphError("the output is itself a leaf tensor: compute something from it first")
    if len(graph.nodes) > MAX_TENSORS:
        raise GraphError(f"more than {MAX_TENSORS} tensors cannot be read in a picture: name fewer")


def _lay_out(graph: Graph, rows: Mapping[str, list[_Row]], tags: Sequence[list[_Row]]) -> tuple:
    """Return where `draw_graph` would put boxes and labels of these sizes, the arrows, the room.

    Widths are estimated by `_width` and not measured: so the picture is the same everywhere.
    """
    layers, routes = drawing._places(graph, backward=True)
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
    arrows = drawing._arrows(routes, drawing._lay_out(layers, routes), backward=True)
    return boxes, labels, arrows, drawing._bounds([*boxes.values(), *labels], arrows)


def _box(place: drawing._Place) -> str:
    """Return a box with its lines, and the ring that marks a tensor at work."""
    (x, y), (width, height) = place.at, place.size
    ring = _rect("ring", x, y, width + 10, height + 10) if place.lines[0].kind == "t" else ""
    parts = [ring, _rect("box", x, y, width, height)]
    y -= sum(row.height for row in place.lines) / 2
    for row in place.lines:
        y += row.height / 2
        text = f"<text class='{row.kind}' x='{length(x)}' y='{length(y)}'>{row.svg}</text>"
        if row.show:
            band = _rect(f"{row.kind}b", x, y, width - 4, row.height - 2)
            text = f"<g {row.show}>{band}{text}</g>"
        parts.append(text)
        y += row.height / 2
    return "".join(parts)


def _tag(edge: GraphEdge) -> list[_Row]:
    """Return the lines of an edge's label."""
    symbol, *values = _local(edge)
    lines = [symbol, "= " + " = ".join(values)]
    return [_Row(italic(line), _width(line), "g", 22) for line in lines]


def _badge(box: drawing._Place) -> str:
    """Return the badge where several gradients meet and are added up."""
    levels = sorted(c + LANE / 2 * place.side for place, c in drawing._ports(box, 1).items())
    x, y = box.at[0] + box.size[0] / 2 + BADGE, (levels[0] + levels[-1]) / 2
    rect = _rect("sum", x, y, 2 * BADGE, 2 * BADGE + levels[-1] - levels[0])
    return f"{rect}<text class='plus' x='{length(x)}' y='{length(y)}'>+=</text>"


def _arrow(curve: Sequence[Point]) -> str:
    """Return an arrow along a Bézier curve; its line ends inside its tip."""
    (a, _), (b, d) = curve[-2:]
    way = 1 if b > a else -1  # an arrow ends level
    points = [f"{length(p)} {length(q)}" for p, q in [*curve[:-1], (b - HEAD * way, d)]]
    line = f"M{points[0]}C{' '.join(points[1:])}"
    tip = f"<path class='tip' d='M0 0l-14-6v12z' transform='translate({length(b)} {length(d)})"
    return f"<path class='line' d='{line}'/>{tip} scale({way} 1)'/>"


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    corner = f"x='{length(x - width / 2)}' y='{length(y - height / 2)}'"
    size = f"width='{length(width)}' height='{length(height)}'"
    return f"<rect class='{kind}' {corner} {size} rx='6'/>"


def _total(graph: Graph, node: GraphNode) -> str:
    return f"d{index(graph.output.name)}/d{index(node.name)}"


def _local(edge: GraphEdge) -> list[str]:
    """Return a local derivative: its symbol, its label if there is one, its number or shape."""
    symbol = f"∂{index(edge.target.name)}/∂{index(edge.source.name)}"
    label, value = _plain(edge.label), _short(edge.local)
    return [part for part in (symbol, label, "" if value == label else value) if part]


def _short(t: Tensor) -> str:
    return short(t).replace("-", "−")


def _plain(tex: str) -> str:
    r"""Return a formula without TeX: z_1^2 as z₁², \frac{1}{2} as 1/2."""

    def script(match: re.Match) -> str:
        mark, text = match[1], match[2] or match[3]
        moved = text.translate(SUPERSCRIPTS if mark == "^" else SUBSCRIPTS)
        return f"{mark}({text})" if set(text) & set(moved) else moved

    tex = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", tex).replace(r"\|", "‖")
    tex = re.sub(r"\\([A-Za-z]+) ?", lambda match: SYMBOLS.get(match[1], match[1]), tex)
    tex = re.sub(r"([\^_])(?:\{([^{}]*)\}|(.))", script, tex)
    return re.sub(r"[{}\\]", "", tex).replace("-", "−")


def _width(text: str, size: float = 17) -> float:
    """Return about how wide a line of text is."""
    narrow, wide = len(re.findall(r"[ ,.()ijl1|]", text)), len(re.findall(r"[mwMW×=+−]", text))
    return size * (0.56 * len(text) - 0.16 * narrow + 0.2 * wide) + 8
