"""Interactive figures: self-contained HTML that needs no kernel and no network.

PyTorch computes all numbers in advance, for every position of a figure. Where no script may run, as
in an untrusted notebook or on paper, a figure is a picture with a table or a list.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from utils.graph import GraphError
from utils.plotting import shaped

MAX_POSITIONS = 101  # of a slider
DRAWN_STEPS = 20  # of a path of descent
HUGE, TINY = 1e150, 1e-11  # larger values are not drawn; smaller relative errors are rounding
LIVE = "class='course-live' style='display:none'"  # attributes of what needs the script
SUBSCRIPTS = str.maketrans("0123456789+-=()ijknx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ᵢⱼₖₙₓ")
NOT_FINITE = "inf", "−inf", "nan"

Point = Sequence[float]


class Figure:
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

    def table(self, head: Sequence[str], rows: Iterable[Sequence], kinds: Sequence[str]) -> str:
        """Return a table; `kinds` are its columns' classes. Cells of kind "title" do not change."""
        heads = (f"<th scope='col'>{escape(text)}</th>" if text else "<td></td>" for text in head)
        lines = ["".join(heads)]
        for row in rows:
            cells = (
                f"<th scope='row'>{escape(cell)}</th>"
                if kind == "title"
                else self.element("td", cell, f"class='{kind}'")
                for cell, kind in zip(row, kinds, strict=True)
            )
            lines.append("".join(cells))
        return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    def finish(self, title: str, svg: str, alt: str, panel: str, slider: str = "") -> None:
        """Put the HTML together, with the style and the script that stand beside this file."""
        css, js = (Path(__file__).with_suffix(end).read_text("utf-8") for end in (".css", ".js"))
        page, mark, picture = css.partition("/* The picture")
        svg = svg.replace("<style/>", f"<style>{mark}{picture}</style>")
        source = "data:image/svg+xml," + quote(svg, safe="!$'()*+,/:;<=>?@[]{|}~ ")
        frames = json.dumps(self.frames, ensure_ascii=False, separators=(",", ":"))
        self.html = (
            f"<figure class='course-figure {self.kind}' aria-label='{escape(title)}' "
            f"data-lm-suppress-shortcuts='true' data-prevent-swipe='' "
            f"data-frames='{escape(frames, quote=False).replace(chr(39), '&#39;')}'>"
            f"<style>{page}</style>{slider}<div class='course-body'>"
            f"<div class='course-view' tabindex='0' role='group' aria-label='Picture'>"
            f"<img alt='{escape(alt)}' src=\"{source}\"></div>"
            f"<div class='course-panel'>{panel}</div></div><script>{js}</script></figure>"
        )

    def _bind(self, values: Sequence[str], name: str = "") -> str:
        """Return what tells the script where an element's values are, if they differ at all."""
        if len(set(values)) == 1:
            return ""
        if list(values) not in self.frames:
            self.frames.append(list(values))
        return f" data-bind='{self.frames.index(list(values))}{name}'"


class _Slider(Figure):
    """A figure whose positions are numbers, `step` apart; it begins at the one next to `start`."""

    def __init__(self, low: float, high: float, step: float, start: float):
        if not (0 < high - low < math.inf and step > 0):
            raise ValueError(f"low {low} must be less than high {high}, and step {step} positive")
        count = math.floor((high - low) / step + 1e-6) + 1
        if not 2 <= count <= MAX_POSITIONS:
            raise ValueError(
                f"a slider has 2 to {MAX_POSITIONS} positions, not {count}: change step"
            )
        decimals = 9 - math.floor(math.log10(step))
        self.grid = [round(low + i * step, decimals) for i in range(count)]
        super().__init__(min(range(count), key=lambda i: abs(self.grid[i] - start)))

    def slide(self, label: str, svg: str, alt: str, words: Sequence[str], table: str) -> None:
        """Put the figure together, with its slider, and with its sentences above the table."""
        values, said = numbers(self.grid), self.attribute("aria-valuetext", words)
        slider = (
            f"<label {LIVE}><span>{label} = {self.element('b', values)}</span>"
            f"<input type='range' min='0' max='{len(values) - 1}' value='{self.still}' {said}>"
            "</label>"
        )
        panel = self.element("p", words) + table
        self.finish(f"Explore by {label}", svg, f"{alt} {words[self.still]}", panel, slider)
        told = " ".join(words[i] for i in sorted({0, self.still, len(words) - 1}))
        self.text = f"Explorer of {len(words)} positions. {told}"


class Explorer(_Slider):
    """The curve of a function of one number: drag x, and see tangent, values and gradients.

    `function` takes a tensor x and returns what it computes on the way, the output last:
    `{"z1": x**3, "f": x**3 - 3 * x}`. It is run in float64 at each x from `low` to `high`, `step`
    apart, and autograd gives the gradient of the output with respect to each tensor. Where a value
    is infinite or nan, the curve has a gap. Raises ValueError or GraphError, with what to change,
    where there is no such gradient.
    """

    kind = "curve"

    def __init__(
        self, function: Callable, low: float, high: float, step: float = 0.05, start: float = 0
    ):
        super().__init__(low, high, step, start)
        runs = [_evaluate(function, x) for x in self.grid]
        if any(list(run) != list(runs[0]) for run in runs):
            raise ValueError("the function must return the same names for every x")
        texts = {n: [numbers([run[n][i] for run in runs]) for i in (0, 1)] for n in runs[0]}
        (xs, slopes), (*_, (f, (ys, _))) = texts["x"], texts.items()
        words = [_tell_slope(index(f), *point) for point in zip(xs, ys, slopes, strict=True)]
        svg = self._picture([(*run["x"], run[f][0]) for run in runs], index(f), ys, slopes)
        rows = [(index(name), *cells) for name, cells in texts.items()]
        head = ["", "value", f"gradient of {index(f)}"]
        table = self.table(head, rows, ("title", "value", "grad"))
        self.slide("x", svg, f"The curve of {index(f)} over x, and a tangent.", words, table)

    def _picture(
        self, runs: Sequence[Point], f: str, values: Sequence[str], slopes: Sequence[str]
    ) -> str:
        """Return the curve, its tangent and the point on it; a run is x, slope and value."""
        points = [(x, y) for x, _, y in runs]
        finite = [y for _, y in points if abs(y) < HUGE]
        if not finite:
            raise ValueError(f"{f} is not a finite number at any x: choose a different range")
        rise, reach = max(finite) - min(finite) or 1, 0.2 * (runs[-1][0] - runs[0][0])
        ylim = (min(finite) - 0.15 * rise, max(finite) + 0.15 * rise)
        plot = _Plot((52, 40, 600, 292), (runs[0][0], runs[-1][0]), ylim)
        pieces = groupby(points, lambda point: abs(point[1]) < HUGE)
        curve = "".join(plot.path(piece) for is_drawn, piece in pieces if is_drawn)
        drops = [plot.path([(x, ylim[0]), (x, y)]) for x, y in points]
        dots = [f"translate({plot.at(*point)})" for point in points]
        tangents = []
        for x, slope, y in runs:
            h = reach / math.hypot(1, 2 * slope * reach / rise)
            tangents.append(plot.path([(x - h, y - h * slope), (x + h, y + h * slope)]))
        content = (
            f"<path class='drop' {self.attribute('d', drops)}/><path class='line' d='{curve}'/>"
            f"<g class='back'><path class='line' {self.attribute('d', tangents)}/></g>"
            f"<circle class='dot' r='8' {self.attribute('transform', dots)}/>"
        )
        value, slope = (self.element("tspan", t, "class='n'") for t in (values, slopes))
        key = (
            f"<path class='line' d='M60 20h36'/><text class='v start' x='104' y='20'>{italic(f)} = "
            f"{value}</text><g class='back'><path class='line' d='M300 20h36'/></g>"
            f"<text class='g start' x='344' y='20'>tangent, slope {slope}</text>"
        )
        return root((0, 0, 612, 340), key + plot.draw(content, "x"), plot.drag)


class DescentExplorer(_Slider):
    """Gradient descent on a quadratic loss of two weights, at a learning rate that you choose.

    `loss` takes the weights; `descend` takes a learning rate from `low` to `high`, and returns a
    path of shape (steps + 1, 2). Predicted: max(|1 - lr mu|, |1 - lr L|), the factor by which a
    step multiplies the error in the end, from the smallest and the largest curvature. Measured:
    the same over the last third of the path, before rounding or overflow takes over. Raises
    ValueError for other losses and paths.
    """

    kind = "descent"

    def __init__(
        self,
        loss: Callable[[Tensor], Tensor],
        descend: Callable[[float], Tensor],
        low: float,
        high: float,
        step: float = 0.05,
        start: float = 0,
    ):
        super().__init__(low, high, step, start)
        paths = [shaped("descend(lr)", descend(lr), "n", 2).double() for lr in self.grid]
        bowl = _Bowl(loss, paths[0][0])
        mu, L = bowl.curvatures
        modes = [[1 - lr * curvature for lr in self.grid] for curvature in (mu, L)]
        predicted = [bowl.factor(lr) for lr in self.grid]
        measured = [bowl.rate(path) for path in paths]
        *modes, p, m = (numbers(row, 3) for row in (*modes, predicted, measured))
        words = [
            f"In theory, descent at α = {at} {_fate(lr * L)}: a step multiplies the error by {q}."
            for at, lr, q in zip(numbers(self.grid), self.grid, p, strict=True)
        ]
        names = f"1 − αμ, μ = {mu:.3g}", f"1 − αL, L = {L:.3g}"
        rows = [(name, mode, [""] * len(p)) for name, mode in zip(names, modes, strict=True)]
        head, kinds = ["factor per step", "predicted", "measured"], ("title", "value", "grad")
        table = self.table(head, [*rows, ("error: larger size", p, m)], kinds)
        rates = _Plot((430, 12, 730, 312), (low, high), (0, max(1.2, *predicted) + 0.05))
        plots = self._walks(paths, bowl) + self._rates(rates, bowl, measured)
        alt = "Left, the path of gradient descent on level sets; right, the factor per step over α."
        self.slide("learning rate α", root((0, 0, 742, 356), plots, rates.drag), alt, words, table)

    def _walks(self, paths: Sequence[Tensor], bowl: "_Bowl") -> str:
        """Return the plot of the path on level sets."""
        (a, b), reach = bowl.minimum.tolist(), bowl.reach
        plot = _Plot((52, 12, 352, 312), (a - reach, a + reach), (b - reach, b + reach), 0)
        walks = [_seen(path[: DRAWN_STEPS + 1].tolist(), (a, b), 3 * reach) for path in paths]
        line = self.attribute("d", [plot.path(walk) for walk in walks])
        marks = self.attribute("d", [plot.path(walk, marks=True) for walk in walks])
        content = (
            f"{bowl.rings(plot)}<g class='back'><path class='line thin' {line}/></g>"
            f"<path class='marks' {marks}/><text x='{plot.x(a)}' y='{plot.y(b)}'>★</text>"
        )
        return plot.draw(content, "w₁", "w₂")

    def _rates(self, plot: "_Plot", bowl: "_Bowl", measured: Sequence[float]) -> str:
        """Return the plot of the factor per step over the learning rate."""
        places = {"2/(L+μ)": 2 / sum(bowl.curvatures), "2/L": 2 / bowl.curvatures[1]}
        line = [(lr, bowl.factor(lr)) for lr in sorted([*self.grid, *places.values()])]
        dots = [f"translate({plot.at(*p)})" for p in zip(self.grid, measured, strict=True)]
        content = (
            f"<path class='drop' d='{plot.path([(plot.xlim[0], 1), (plot.xlim[1], 1)])}'/>"
            f"<path class='line' d='{plot.path(line)}'/>"
            f"<circle class='dot' r='8' {self.attribute('transform', dots)}/>"
            "<path class='line' d='M446 258h36'/><text class='v start' x='490' y='258'>predicted"
            "</text><circle class='dot' cx='464' cy='286' r='8'/>"
            "<text class='g start' x='490' y='286'>measured</text>"
        )
        for name, lr in places.items():
            at = f"translate({plot.at(lr, 0.06)}) rotate(-90)"
            content += f"<path class='drop' d='{plot.path([(lr, 0), (lr, plot.ylim[1])])}'/>"
            content += f"<text class='start small' transform='{at}' y='-10'>{italic(name)}</text>"
        return plot.draw(content, "learning rate α", "error, factor per step")


def _evaluate(function: Callable, x: float) -> dict[str, tuple[float, float]]:
    """Return value and gradient of x and of each tensor that the function returns."""
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    named = function(leaf)
    if not isinstance(named, Mapping) or not named:
        raise ValueError('the function must return named tensors, the output last: {"f": x**3}')
    if named.get("x", leaf) is not leaf:
        raise ValueError("x is the slider's number: give the tensor called x a different name")
    tensors = {"x": leaf} | dict(named)
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.numel() != 1:
            raise ValueError(f"at x = {x}, {name} is no tensor of one number: compute one from x")
        if not tensor.requires_grad:
            raise GraphError(
                f"at x = {x}, {name} is not computed from x: add 0 * x, or leave it out"
            )
    grads = torch.autograd.grad([*tensors.values()][-1], [*tensors.values()], allow_unused=True)
    if unused := [name for name, grad in zip(tensors, grads, strict=True) if grad is None]:
        raise GraphError(f"the last tensor is not computed from {unused[0]}: put the output last")
    return {n: (tensors[n].item(), g.item()) for n, g in zip(tensors, grads, strict=True)}


def _tell_slope(f: str, x: str, y: str, slope: str) -> str:
    """Return in words what the function does at a point."""
    if y in NOT_FINITE:
        return f"At x = {x}, {f} = {y} is not a finite number, and the curve has a gap."
    if slope in NOT_FINITE:
        return f"At x = {x}, {f} = {y}, but PyTorch's slope is {slope}, and no tangent is drawn."
    does = "is level" if slope == "0" else "falls" if slope.startswith("−") else "rises"
    return f"At x = {x}, {f} = {y} {does}: the slope is {slope}."


def _fate(stretch: float) -> str:
    """Return what descent does, by the learning rate times the largest curvature."""
    if stretch <= 0:
        return "climbs away from the minimum" if stretch else "does not move"
    if stretch <= 1:
        return "converges without jumping"
    if math.isclose(stretch, 2):
        return "oscillates forever"
    return "diverges" if stretch > 2 else "converges while jumping from side to side of the valley"


def _seen(walk: Sequence[Point], center: Point, reach: float) -> Sequence[Point]:
    """Return the points of a path up to the first that is far away."""
    far = (i for i, point in enumerate(walk) if not math.dist(point, center) <= reach)
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
        self.rounding = TINY * (1 + self.minimum.norm().item())
        reach = 1.3 * (w - self.minimum).abs().max().item()
        self.reach = reach if reach > self.rounding else 1.0

    def factor(self, lr: float) -> float:
        """Return by which factor a step multiplies the error in the end, in theory."""
        return max(abs(1 - lr * curvature) for curvature in self.curvatures)

    def rate(self, path: Tensor) -> float:
        """Return the same as measured over the last third of a path, or nan."""
        errors = (path - self.minimum).norm(dim=1)
        count = int(((errors > self.rounding) & (errors < HUGE)).cumprod(0).sum())
        steps = count // 3
        if not steps:
            return math.nan
        return (errors[count - 1] / errors[count - 1 - steps]).item() ** (1 / steps)

    def rings(self, plot: "_Plot") -> str:
        """Return level sets, as ellipses."""
        (a, b), (_, d) = self.hessian.tolist()
        angle = math.degrees(math.atan2(2 * b, a - d) / 2)  # of the steep direction
        flat, steep = (curvature**0.5 for curvature in self.curvatures)
        unit = (plot.right - plot.left) / 16
        rings = (
            f"<ellipse rx='{length(k * unit)}' ry='{length(k * unit * steep / flat)}'/>"
            for k in range(1, 9)
        )
        place = f"translate({plot.at(*self.minimum.tolist())}) rotate({length(-angle)})"
        return f"<g class='rings' transform='{place}'>{''.join(rings)}</g>"


class _Plot:
    """Axes in a picture: where numbers stand, and a grid with a few of them."""

    def __init__(self, edges: tuple, xlim: Point, ylim: Point, margin: float = 0.04):
        self.left, self.top, self.right, self.bottom = edges
        room = margin * (xlim[1] - xlim[0])
        self.xlim, self.ylim = (xlim[0] - room, xlim[1] + room), ylim
        self.drag = f"data-drag='{self.x(xlim[0])} {self.x(xlim[1])}'"  # for the script

    def x(self, value: float) -> str:
        low, high = self.xlim
        return length(self.left + (value - low) / (high - low) * (self.right - self.left))

    def y(self, value: float) -> str:
        low, high = self.ylim
        return length(self.bottom - (value - low) / (high - low) * (self.bottom - self.top))

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
        beside, inside = f"class='end' x='{self.left - 6}'", f"class='start' x='{self.left + 8}'"
        texts = [f"<text x='{self.x(v)}' y='{under}'>{numbers([v])[0]}</text>" for v in xs]
        texts += [f"<text {beside} y='{self.y(v)}'>{numbers([v])[0]}</text>" for v in ys]
        middle = (self.left + self.right) // 2
        texts.append(f"<text x='{middle}' y='{under + 20}'>{italic(xlabel)}</text>")
        texts.append(f"<text {inside} y='{self.top + 12}'>{italic(ylabel)}</text>")
        window = f"x='{self.left}' y='{self.top}' width='{width}' height='{height}'"
        box = f"viewBox='{self.left} {self.top} {width} {height}'"
        grid = f"<path class='grid' d='{''.join(lines)}'/>"
        return f"{grid}<svg {window} {box}>{content}</svg>{''.join(texts)}"


def root(room: Sequence[float], content: str, more: str = "") -> str:
    """Return a picture with the corners `room`; `finish` writes its style into it."""
    left, top, width, height = map(length, (*room[:2], room[2] - room[0], room[3] - room[1]))
    size = f"width='{width}' height='{height}'"
    paper = f"<rect class='paper' x='{left}' y='{top}' {size}/>"
    style = f"class='course-picture' style='--natural: {width}px'"
    head = f"xmlns='http://www.w3.org/2000/svg' {style} {size} {more}"
    return f"<svg {head} viewBox='{left} {top} {width} {height}'><style/>{paper}{content}</svg>"


def length(value: float) -> str:
    """Return a length in a picture, rounded alike on every machine; out of sight if not finite."""
    return f"{round(max(-9999, min(9999, value)), 1) + 0.0:g}"


def numbers(values: Sequence[float], digits: int = 4) -> list[str]:
    """Return a column of numbers, rounded to decimals, or to digits where all are large or tiny."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0)
    kind = "f" if largest == 0 or 1e-3 <= largest < 1e6 else "g"
    texts = [f"{value:.{digits}{kind}}" for value in values]
    texts = [t.rstrip("0").rstrip(".") if kind == "f" and "." in t else t for t in texts]
    return ["0" if t == "-0" else t.replace("-", "−").replace("e+", "e") for t in texts]


def index(name: str) -> str:
    """Return a name with its number as an index: z1 and z_1 as z₁."""
    base, digits = re.fullmatch(r"(.*?)(?:_?(\d+))?", name).groups()
    return base + (digits or "").translate(SUBSCRIPTS)


def italic(text: str) -> str:
    """Return text for a picture, with its variables, of one or two letters, in italics."""
    words = re.split(r"([A-Za-zα-ω]+)", text)
    return "".join(
        f"<tspan class='i'>{word}</tspan>" if i % 2 and len(word) <= 2 else escape(word)
        for i, word in enumerate(words)
    )
