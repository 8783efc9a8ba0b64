"""Live figures: pictures by Matplotlib, whose parts and numbers follow sliders and buttons.

PyTorch computes all numbers in advance, so the HTML needs no kernel and no network. Where no script
may run, as in an untrusted notebook or on paper, a figure is its pictures and a sentence.
"""

import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from utils.drawing import GRAY, add_up, describe, draw, number_texts, plain
from utils.graph import Graph, GraphError, read_graph
from utils.plotting import BLUE, VERMILION, plot_contours, shaped

DRAWN_STEPS, HIGHEST = 20, 1.5  # of a path of descent; of the factors per step
STYLE = {"font.size": 13, "mathtext.fontset": "cm", "svg.hashsalt": "course"}
STYLE |= {"axes.grid": True, "grid.alpha": 0.3}
STYLE |= {f"axes.spines.{side}": False for side in ("top", "right")}
LINE = {"color": VERMILION, "linestyle": "-", "solid_capstyle": "round"}
WORD = {"textcoords": "offset points", "xytext": (-2, 2), "ha": "right", "va": "bottom"}
NUMBER = "font: bold 13px DejaVu Sans, Verdana, sans-serif; dominant-baseline: central; fill"
SAFE = "!$'()*+,/:;<=>?@[]{|}~ "  # characters that need no escape in a URL between double quotes
HINT = "This is a still picture. Run the cell, or trust the notebook, and you can play with it."


class LiveFigure:
    """HTML of pictures that follow sliders and steps, and the same in words.

    `walks` has, for each position of the sliders, the steps that the buttons go through. A step is
    a sentence, and the parts of the picture that appear or change, with their texts.
    """

    def __init__(self, xs: Sequence[float], start: float, walks: Sequence[Sequence]):
        self.at = min(range(len(xs)), key=lambda i: abs(xs[i] - start), default=0)
        self.told = [say for say, _ in walks[self.at]]
        self.frames = {"steps": [], "lines": {}, "sliders": []}
        for steps in zip(*walks, strict=True):
            says, parts = zip(*steps, strict=True)
            texts = {part: _column([texts[part] for texts in parts]) for part in parts[0]}
            self.frames["steps"].append([_column(says), texts])

    def _repr_mimebundle_(self, **_) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}

    def add_slider(self, template: str, numbers: Sequence[float], at: int = 0) -> None:
        """Add a slider for numbers, each with its text, which begins with number `at`."""
        texts = [template.format(plain(number)) for number in numbers]
        self.frames["sliders"].append({"texts": texts, "at": at})

    def add_line(self, ax: Axes, gid: str, walks: Sequence[Sequence], width: float) -> None:
        """Draw a line that has different points at each position; one point twice is a dot."""
        ax.plot(*zip(*walks[self.at], strict=True), gid=gid, linewidth=width, **LINE)
        ax.apply_aspect()
        self.frames["lines"][gid] = _column([_path(ax, walk) for walk in walks])

    def finish(self, title: str, pictures: Mapping[str, str]) -> None:
        """Put the HTML together from pictures, SVG with its text, and the files beside this one."""
        css, js = (Path(__file__).with_suffix(end).read_text("utf-8") for end in (".css", ".js"))
        frames = json.dumps(self.frames, ensure_ascii=False, separators=(",", ":"))
        frames = escape(frames, quote=False).replace("'", "&#39;")
        views = "".join(
            f"<div class='course-view' tabindex='0' role='group' aria-label='Picture'>"
            f'<img alt="{escape(alt)}" src="data:image/svg+xml,{quote(svg, SAFE)}"></div>'
            for svg, alt in pictures.items()
        )
        self.text = f"{title}. {' '.join(self.told)}"
        self.html = (
            f"<figure class='course-figure' aria-label='{escape(title)}' data-frames='{frames}' "
            f"data-prevent-swipe=''><style>{css}</style>"
            f"<p class='course-hint'>{HINT}</p><p role='status'>{escape(self.told[-1])}</p>"
            f"<div class='course-views'>{views}</div><script>{js}</script></figure>"
        )


class LiveGraph(LiveFigure):
    """The graph of a computation, walked forward and then backward, one tensor per step.

    `source` is a Graph, or a function that takes a tensor x and returns what it computes on the
    way, the output last: `{"z1": x**3, "f": x**3 - 3 * x}`. The function runs in float64 at each of
    the numbers `xs`, rounded to 6 decimals. A slider chooses among them, beginning next to `start`,
    and the tangent is drawn beside the graph. `texts` are `titles` and `formulas` as in read_graph.
    Raises GraphError or ValueError, with what to change, where there is no such graph.
    """

    @plt.style.context(STYLE, after_reset=True)
    def __init__(
        self,
        source: Graph | Callable[[Tensor], Mapping[str, Tensor]],
        xs: Tensor | Sequence[float] | None = None,
        start: float = 0,
        **texts: Mapping[str, str],
    ):
        xs = _numbers("xs, as torch.linspace(-2, 2, 41),", xs) if callable(source) else []
        graphs = [_read(source, x, texts) for x in xs] or [source]
        walks = [_walk(graph) for graph in graphs]
        for x, graph, walk in zip(xs, graphs, walks, strict=False):
            walk[-1][0] += f" {_tell_slope(x, graph)}"
        uses = [[(edge.source.name, edge.target.name) for edge in graph.edges] for graph in graphs]
        if any(use != uses[0] for use in uses):
            raise GraphError("the graph differs from x to x: name only what is computed at every x")
        super().__init__(xs, start, walks)
        graph = graphs[self.at]
        pictures = {self._draw_graph(graphs): describe(graph, True)}
        if xs:
            self.add_slider("x = {}", xs, self.at)
            pictures[self._draw_curve(xs, graphs)] = "The curve over x, with its tangent."
        title = f"The computational graph of {graph.output.name}"
        self.finish(f"{title}, in {len(self.told) - 1} steps", pictures)

    def _draw_graph(self, graphs: Sequence[Graph]) -> str:
        """Return the graph as SVG, with room for the longest numbers, which the SVG has as text."""
        texts = [number_texts(graph) for graph in graphs]
        longest = {part: max((some[part] for some in texts), key=len) for part in texts[0]}
        figure, numbers = draw(graphs[self.at], longest), ""
        [ax] = figure.axes
        for text in ax.texts:
            part, _, kind = text.get_gid().partition("-")
            if kind == "number":
                text.set_visible(False)
                [[x, y]] = _place(ax, [text.get_position()])
                anchor = "start" if text.get_ha() == "left" else "middle"
                style = f'text-anchor="{anchor}" style="{NUMBER}: {text.get_color().lower()}"'
                start = f'<text id="{part}-number" x="{x:.1f}" y="{y:.1f}" {style}>'
                numbers += f"{start}{texts[self.at][part]}</text>"
        return _svg(figure).replace("</svg>", f"{numbers}</svg>")

    def _draw_curve(self, xs: Sequence[float], graphs: Sequence[Graph]) -> str:
        """Return the curve as SVG, with its tangent and the point on it; infinities are gaps."""
        ys = [graph.output.value.item() for graph in graphs]
        ys = [y if abs(y) < 1e150 else math.nan for y in ys]  # larger ones cannot be drawn
        ax = _axes(4.6, xlabel="x", ylabel=graphs[0].output.name)
        ax.plot(xs, ys, color=BLUE, linestyle="-", linewidth=2.5)
        ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())
        width, height = (float(np.ptp(limits)) for limits in (ax.get_xlim(), ax.get_ylim()))
        tangents = []
        for x, y, graph in zip(xs, ys, graphs, strict=True):
            slope = graph["x"].grad.item()
            half = 0.25 * width / math.hypot(1, slope * width / height)
            tangents.append([(x - half, y - half * slope), (x + half, y + half * slope)])
        self.add_line(ax, "tangent", tangents, 2)
        self.add_line(ax, "dot", [[point, point] for point in zip(xs, ys, strict=True)], 14)
        return _svg(ax.figure)


class LiveDescent(LiveFigure):
    """Gradient descent on a quadratic loss of two weights, at a learning rate that you choose.

    `loss` takes the weights. `descend` takes one of the learning rates `lrs`, and returns a path of
    shape (steps + 1, 2). If `momenta` are given, it takes one of them as well. Predicted is the
    factor by which a step multiplies the error in the end, the largest |z| of the roots of
    z² - (1 + β - αλ) z + β for both curvatures λ; without momentum, it is max |1 - αλ|. Measured is
    how much the largest error shrinks per step, from the second to the last third of the path.
    Raises ValueError for a loss that is not quadratic, and for a path of another shape.
    """

    @plt.style.context(STYLE, after_reset=True)
    def __init__(
        self,
        loss: Callable[[Tensor], Tensor],
        descend: Callable[..., Tensor],
        lrs: Tensor | Sequence[float],
        start: float = 0,
        momenta: Tensor | Sequence[float] = (),
    ):
        lrs, momenta = _numbers("lrs", lrs), _numbers("momenta", momenta)
        choices = [(lr, beta) for beta in momenta for lr in lrs] or [(lr,) for lr in lrs]
        paths = [shaped("descend(lr)", descend(*choice), "n", 2).double() for choice in choices]
        self.minimum, self.curvatures = _bowl(loss, paths[0][0])
        measured = [_measure(path - self.minimum) for path in paths]
        told = map(self._tell, measured, *zip(*choices, strict=True))
        super().__init__(lrs, start, [[[say, {}]] for say in told])
        self.add_slider("learning rate α = {}", lrs, self.at)
        if momenta:
            self.add_slider("momentum β = {}", momenta)
        pictures = {
            self._draw_paths(loss, paths): "The path of gradient descent on level sets.",
            self._draw_factors(lrs, momenta, measured): "The factor per step over α.",
        }
        self.finish("Gradient descent on a quadratic loss", pictures)

    def _tell(self, measured: float, lr: float, beta: float = 0) -> str:
        """Return in words what descent does at a learning rate and a momentum."""
        factor = self._factor(lr, beta)
        fate = "converges" if factor < 1 else "does not converge"
        if factor < 1 and not beta:
            fate += " without jumping" if lr * self.curvatures[1] <= 1 else " while jumping"
        factors = f"{factor:.3g} in theory, {measured:.3g} on this path"
        return f"Descent {fate}. In the end, a step multiplies the error by {factors}."

    def _factor(self, lr: float, beta: float) -> float:
        """Return by which factor a step multiplies the error in the end, in theory."""
        roots = [np.roots([1, lr * curvature - 1 - beta, beta]) for curvature in self.curvatures]
        return float(np.abs(roots).max())

    def _draw_paths(self, loss: Callable, paths: Sequence[Tensor]) -> str:
        """Return the first steps of the paths on level sets as SVG."""
        (a, b), ax = self.minimum.round(decimals=6).tolist(), _axes(4.3)
        reach = round(1.3 * (paths[0][0] - self.minimum).abs().max().item(), 6)
        plot_contours(loss, (a - reach, a + reach), (b - reach, b + reach), ax)
        for level in ax.collections[0].get_paths():  # only rounding decides if a ring is closed
            level.codes = np.minimum(level.codes, level.LINETO)
        ax.plot(a, b, "*k", markersize=14)
        walks = [path[: DRAWN_STEPS + 1].tolist() for path in paths]
        self.add_line(ax, "path", walks, 1.5)
        dots = np.repeat(walks[self.at], 3, axis=0)
        dots[2::3] = math.nan  # the script draws them at the points of the path
        ax.plot(*dots.T, gid="dots", linewidth=8, **LINE)
        return _svg(ax.figure)

    def _draw_factors(self, lrs: list, momenta: list, measured: Sequence[float]) -> str:
        """Return the predicted and the measured factor per step over the learning rate as SVG."""
        ax = _axes(5.8, xlabel="learning rate α", ylabel="factor per step")
        mu, L = self.curvatures
        guides = {"2/(L + μ)": 2 / (L + mu), "2/L": 2 / L}
        guides |= {f"2(1 + {beta:g})/L": 2 * (1 + beta) / L for beta in momenta if beta}
        ax.axhline(1, color=GRAY, linestyle=":", linewidth=1.5)
        for name, lr in guides.items():
            ax.axvline(lr, color=GRAY, linestyle=":", linewidth=1.5)
            ax.annotate(name, (lr, 0), rotation=90, **WORD)
        line = sorted([*np.linspace(lrs[0], lrs[-1], 201), *guides.values()])  # with exact corners
        for beta in momenta or [0]:
            points = [(lr, self._factor(lr, beta)) for lr in line]
            ax.plot(*zip(*points, strict=True), color=BLUE, linestyle="-", linewidth=2.5)
            if beta in momenta:  # a name where its curve leaves the picture
                end = max(p for p in points if p[0] <= lrs[-1] and p[1] <= HIGHEST)
                ax.annotate(f"β = {beta:g}", end, **WORD)
        ax.set(xlim=(lrs[0], lrs[-1]), ylim=(0, HIGHEST))
        spots = zip(lrs * max(1, len(momenta)), measured, strict=True)
        self.add_line(ax, "dot", [[spot, spot] for spot in spots], 14)
        return _svg(ax.figure)


def _numbers(name: str, numbers: Tensor | Sequence[float]) -> list[float]:
    """Return a slider's numbers, rounded, so that those of float32 are 0.3 and 0 again."""
    return [round(number, 6) + 0 for number in shaped(name, numbers, "n").tolist()]


def _read(function: Callable, x: float, texts: Mapping[str, Mapping]) -> Graph:
    """Return the graph of what a function of one number computes at x."""
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    named = function(leaf)
    if not (isinstance(named, Mapping) and named):
        raise ValueError('the function must return named tensors, the output last: {"f": x**3}')
    return read_graph([*named.values()][-1], {**named, "x": leaf}, **texts)


def _walk(graph: Graph) -> list[list]:
    """Return the steps through a graph, first forward, then backward."""
    texts, nodes = number_texts(graph), graph.nodes
    steps = [["Nothing is computed yet. Press Next.", {f"box{i}": "" for i in range(len(nodes))}]]
    for i, node in reversed([*enumerate(nodes)]):
        arrows = {f"forward{k}": "" for k, edge in enumerate(graph.edges) if edge.target is node}
        say = f"forward. {node.title}: {node.name} = {plain(node.value)}."
        steps.append([say, {f"box{i}": "", f"value{i}": texts[f"value{i}"], **arrows}])
    steps += _walk_backward(graph, texts)
    for number, step in enumerate(steps[1:], 1):
        step[0] = f"Step {number} of {len(steps) - 1}, {step[0]}"
    return steps


def _walk_backward(graph: Graph, texts: Mapping[str, str]) -> Iterator[list]:
    """Yield a step for each tensor whose gradient is complete, with what it sends to others."""
    nodes, arrived = graph.nodes, Counter()
    parts = {f"{part}{i}": "0" for part in ("badge", "sum") for i in range(len(nodes))}
    for i, node in enumerate(nodes):
        total = texts[f"sum{i}"] or plain(node.grad)
        say = f"backward. d{graph.output.name}/d{node.name} = {total} is complete."
        parts |= {f"box{i}": "", f"sum{i}": texts[f"sum{i}"]}
        for k, edge in enumerate(graph.edges):
            if edge.target is node:
                source, j = edge.source, nodes.index(edge.source)
                arrived[source] += 1
                gathered = source.parts[: arrived[source]]
                parts |= {f"backward{k}": "", f"local{k}": texts[f"local{k}"]}
                parts[f"sum{j}"] = plain(sum(gathered))
                if len(gathered) > 1 and "=" in texts[f"sum{j}"]:  # there is room for it
                    parts[f"sum{j}"] = add_up(map(plain, gathered), parts[f"sum{j}"])
                local = f"∂{node.name}/∂{source.name}"
                if edge.local.numel() == 1:
                    local = re.sub("^−.*", r"(\g<0>)", plain(edge.local))
                product = f"{plain(node.grad)} × {local} = {plain(edge.sent)}"
                say += f" {product} goes to {source.name}."
        yield [say, parts]
        parts = {}


def _tell_slope(x: float, graph: Graph) -> str:
    """Return in words what the function does at a point."""
    y, slope = graph.output.value.item(), graph["x"].grad.item()
    gap = "" if math.isfinite(y) and math.isfinite(slope) else " No tangent is drawn."
    at = f"At x = {plain(x)}, {graph.output.name} = {plain(y)}"
    return f"{at}, with slope {plain(slope)}.{gap}"


def _bowl(loss: Callable[[Tensor], Tensor], w: Tensor) -> tuple[Tensor, list[float]]:
    """Return the minimum of a quadratic loss of two weights, and its curvatures."""
    hessian, elsewhere = (torch.func.hessian(loss)(point) for point in (w, w + 1))
    if hessian.shape != (2, 2) or not torch.allclose(hessian, elsewhere):
        raise ValueError("the loss must be quadratic in two weights, as that of least squares")
    minimum = w - torch.linalg.solve(hessian, torch.func.grad(loss)(w))
    return minimum, torch.linalg.eigvalsh(hessian).tolist()


def _measure(offsets: Tensor) -> float:
    """Return the factor per step as measured before rounding or overflow, or nan."""
    errors = offsets.norm(dim=1)
    count = int(((errors > 1e-11) & (errors < torch.inf)).cumprod(0).sum()) // 3
    if not count:
        return math.nan
    before, last = errors[count : 2 * count].max(), errors[2 * count : 3 * count].max()
    return (last / before).item() ** (1 / count)


def _axes(width: float, **labels: str) -> Axes:
    """Return the Axes of a new picture, `width` inches wide."""
    figure = plt.figure(figsize=(width, 4.2), layout="none")
    return figure.add_axes((0.8 / width, 0.14, 1 - 0.95 / width, 0.8), **labels)


def _place(ax: Axes, points: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return points of a picture in the units of its SVG."""
    places = ax.transData.transform(points) * 72 / ax.figure.dpi
    places[:, 1] = 72 * ax.figure.get_figheight() - places[:, 1]
    return places.round(6)  # the rest differs from processor to processor


def _path(ax: Axes, points: Sequence[tuple[float, float]]) -> str:
    """Return a line through points as SVG, without those that are infinite or far away."""
    with np.errstate(invalid="ignore"):
        places = _place(ax, points)
    near = places[(abs(places) < 1e4).all(axis=1)]
    return "M" * bool(len(near)) + "L".join(f"{x:.1f} {y:.1f}" for x, y in near)


def _column(texts: Sequence[str]) -> Sequence[str] | str:
    """Return one text if all positions have the same."""
    return texts[0] if len(set(texts)) == 1 else texts


def _svg(figure: Figure) -> str:
    """Return a figure as SVG, the same each time, and close it."""
    file = io.StringIO()
    figure.savefig(file, format="svg")
    plt.close(figure)
    svg = file.getvalue()[file.getvalue().index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<(style|metadata).*?</\1>|(?<=>)\s+", "", svg, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"\d+\.\d+", lambda n: f"{float(n[0]):.4g}", svg))
