"""Live figures: pictures by Matplotlib, whose parts and numbers follow sliders and buttons.

PyTorch computes all numbers in advance, so the HTML needs no kernel and no network. Where no script
may run, as in an untrusted notebook or on paper, a figure is its pictures and a sentence.
"""

import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from utils.drawing import GRAY, INK, add_up, describe, draw, number_texts, plain
from utils.graph import Graph, GraphError, read_graph
from utils.plotting import BLUE, VERMILION, plot_contours, shaped

MAX_TENSORS, MAX_POSITIONS = 8, 101  # the boxes of more tensors cannot be read
DRAWN_STEPS = 20  # of a path of descent
HUGE, TINY = 1e150, 1e-11  # larger values are not drawn; smaller relative errors are rounding
STYLE = {"font.size": 13, "mathtext.fontset": "cm", "svg.hashsalt": "course"}
STYLE |= {"axes.grid": True, "grid.alpha": 0.3, "axes.edgecolor": INK, "axes.labelcolor": INK}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False}
SAFE = "!$'()*+,/:;<=>?@[]{|}~ "  # characters that need no escape in a URL between double quotes
HINT = "This is a still picture. Run the cell, or trust the notebook, and you can play with it."


class LiveFigure:
    """HTML of pictures that follow sliders and steps, and the same in words.

    `columns` holds, by key, a text for each position of the sliders. A template such as
    "f = {value0}" takes its texts from there.
    """

    html, text = "", ""

    def __init__(self, at: int):
        self.at = at  # the position that is shown first
        self.columns: dict[str, list[str]] = {}
        self.frames = {"columns": self.columns, "paths": {}, "parts": {}, "slots": {}, "steps": []}

    def _repr_mimebundle_(self, **_) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}

    def add_path(self, ax: Axes, gid: str, walks: Sequence[Sequence], width: float) -> None:
        """Draw a line that has different points at each position; one point is a dot."""
        style = {"color": VERMILION, "linestyle": "-", "solid_capstyle": "round"}
        ax.plot(*zip(*walks[self.at], strict=True), gid=gid, linewidth=width, **style)
        ax.apply_aspect()
        self.frames["paths"][gid] = gid
        self.columns[gid] = [_path(ax, walk) for walk in walks]

    def finish(self, title: str, pictures: Mapping[str, str], sliders: Sequence[tuple]) -> None:
        """Put the HTML together, with the style and the script that stand beside this file.

        `pictures` maps SVG to its text; a slider has a template, a number of positions, a start.
        """
        css, js = (Path(__file__).with_suffix(end).read_text("utf-8") for end in (".css", ".js"))
        frames = json.dumps(self.frames, ensure_ascii=False, separators=(",", ":"))
        told = [self._fill(step["say"]) for step in self.frames["steps"]]
        controls = "".join(
            f"<label><span data-say='{say}'></span>"
            f"<input type='range' max='{count - 1}' value='{start}'></label>"
            for say, count, start in sliders
        )
        if len(told) > 1:
            controls += "<button type='button'>Back</button><button type='button'>Next</button>"
        views = "".join(
            f"<div class='course-view' tabindex='0' role='group' aria-label='Picture'>"
            f'<img alt="{escape(alt)}" src="data:image/svg+xml,{quote(svg, SAFE)}"></div>'
            for svg, alt in pictures.items()
        )
        self.text = f"{title}. {' '.join(told)}"
        self.html = (
            f"<figure class='course-figure' aria-label='{escape(title)}' "
            f"data-lm-suppress-shortcuts='true' data-prevent-swipe='' "
            f"data-frames='{escape(frames, quote=False).replace(chr(39), '&#39;')}'>"
            f"<style>{css}</style><div class='course-controls' style='display:none'>{controls}"
            f"</div><div class='course-said'><p role='status'>{escape(told[-1])}</p></div>"
            f"<p class='course-hint'>{HINT}</p><div class='course-views'>{views}</div>"
            f"<script>{js}</script></figure>"
        )

    def _fill(self, template: str) -> str:
        """Return a template with the texts of the position that is shown first."""
        return re.sub(r"{(\w+)}", lambda match: self.columns[match[1]][self.at], template)


class LiveGraph(LiveFigure):
    """The graph of a computation, walked forward and then backward, one tensor per step.

    `source` is a Graph, or a function that takes a tensor x and returns what it computes on the
    way, the output last: `{"z1": x**3, "f": x**3 - 3 * x}`. The function runs in float64 at each x
    from `low` to `high`, `step` apart; a slider chooses x, and the tangent is drawn beside the
    graph. `formulas` are in TeX, by name. Raises GraphError or ValueError, with what to change,
    where there is no such graph, or none that can be read in a picture.
    """

    def __init__(
        self,
        source: Graph | Callable,
        low: float = 0,
        high: float = 0,
        step: float = 0.05,
        start: float = 0,
        formulas: Mapping[str, str] | None = None,
    ):
        xs, at = _positions(low, high, step, start) if callable(source) else ([], 0)
        super().__init__(at)
        graphs = [_read(source, x, formulas) for x in xs] or [source]
        _refuse_unreadable(graphs)
        texts = [_texts(graph) for graph in graphs]
        self.columns |= {key: [text[key] for text in texts] for key in texts[0]}
        self.graph = graphs[at]
        self._set_steps()
        pictures, sliders = {self._draw_graph(): describe(self.graph, True)}, []
        if xs:
            pictures[self._draw_curve(xs, graphs)] = "The curve over x, with its tangent."
            sliders = [("x = {x}", len(xs), at)]
        title = f"The computational graph of {self.graph.output.name}"
        self.finish(f"{title}, in {len(self.frames['steps']) - 1} steps", pictures, sliders)

    def _set_steps(self) -> None:
        """Say for each step what appears, what is at work, and what the accumulators hold."""
        nodes, edges, parts = self.graph.nodes, self.graph.edges, self.frames["parts"]
        self.frames["steps"] = [{"say": "Nothing is computed yet. Press Next.", "now": []}]
        for i in reversed(range(len(nodes))):
            arrows = [f"forward{k}" for k, edge in enumerate(edges) if edge.target is nodes[i]]
            say = f"{nodes[i].title}: {nodes[i].name} = {{told{i}}}."
            self._add_step("forward", i, [f"value{i}", *arrows], say, {})
        sums = {f"sum{i}": "0" for i in range(len(nodes))}
        for part in ("sum", "badge"):
            parts |= {f"{part}{i}": len(nodes) + 1 for i in range(len(nodes))}
        for i, node in enumerate(nodes):
            sums[f"sum{i}"] = f"{{sum{i}}}"
            say = f"d{self.graph.output.name}/d{node.name} = {{sum{i}}} is complete."
            uses = [k for k, edge in enumerate(edges) if edge.target is node]
            for k in uses:
                j = nodes.index(edges[k].source)
                say += f" {{grad{i}}} × {{factor{k}}} = {{sent{k}}} goes to {nodes[j].name}."
                sums[f"sum{j}"] = f"{{now{k}}}"
            shown = [f"{part}{k}" for k in uses for part in ("backward", "local")]
            self._add_step("backward", i, shown, say, sums)

    def _add_step(self, way: str, i: int, shown: Sequence[str], say: str, sums: Mapping) -> None:
        """Add the step in which the pass visits node i, and from which on parts are shown."""
        number = len(self.frames["steps"])
        self.frames["parts"] |= dict.fromkeys(shown, number)
        say = f"Step {number} of {2 * len(self.graph.nodes)}, {way}. {say}"
        now = [f"box{i}", *(part for part in shown if part.startswith(way))]
        self.frames["steps"].append({"say": say, "now": now, "sums": dict(sums)})

    def _draw_graph(self) -> str:
        """Return the graph as SVG, with room for the longest numbers."""
        shown = number_texts(self.graph)
        figure = draw(self.graph, {part: max(self.columns[part], key=len) for part in shown})
        [ax] = figure.axes
        for text in ax.texts:
            part, _, kind = text.get_gid().partition("-")
            if kind == "number":
                anchor = "start" if text.get_ha() == "left" else "middle"
                x, y = ax.transData.transform(text.get_position()) * 72 / figure.dpi
                place = round(x, 1), round(figure.get_figheight() * 72 - y, 1)
                self.frames["slots"][part] = [*place, anchor]
                text.set_text(shown[part])
        return _svg(figure)

    def _draw_curve(self, xs: Sequence[float], graphs: Sequence[Graph]) -> str:
        """Return the curve as SVG, with its tangent and the point on it; infinities are gaps."""
        ys = [graph.output.value.item() for graph in graphs]
        slopes = [graph["x"].grad.item() for graph in graphs]
        rows = list(zip(xs, ys, slopes, strict=True))
        self.columns["x"] = [_number(x) for x in xs]
        self.columns["slope"] = [_tell_slope(self.graph.output.name, *row) for row in rows]
        self.frames["steps"][-1]["say"] += " {slope}"
        heights = [y if abs(y) < HUGE else math.nan for y in ys]
        if all(map(math.isnan, heights)):
            raise ValueError("the output is not a finite number at any x: choose a different range")
        ax = _axes(4.6, xlabel="x", ylabel=self.graph.output.name)
        ax.plot(xs, heights, color=BLUE, linestyle="-", linewidth=2.5)
        ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())
        width, height = (float(np.ptp(limits)) for limits in (ax.get_xlim(), ax.get_ylim()))
        tangents = []
        for x, y, slope in zip(xs, heights, slopes, strict=True):
            half = 0.25 * width / math.hypot(1, slope * width / height)
            tangents.append([(x - half, y - half * slope), (x + half, y + half * slope)])
        self.add_path(ax, "tangent", tangents, 2)
        dots = [[point, point] for point in zip(xs, heights, strict=True)]
        self.add_path(ax, "dot", dots, 14)
        self.frames["drag"] = _ends(ax, xs)
        return _svg(ax.figure)


class LiveDescent(LiveFigure):
    """Gradient descent on a quadratic loss of two weights, at a learning rate that you choose.

    `loss` takes the weights; `descend` takes a learning rate from `low` to `high`, and returns a
    path of shape (steps + 1, 2). If `momenta` are given, it takes one of them as well. Predicted is
    the factor by which a step multiplies the error in the end, the largest |z| of the roots of
    z² - (1 + β - αλ) z + β for both curvatures λ; without momentum, it is max |1 - αλ|. Measured is
    how much the largest error shrinks per step, from the second to the last third of the path.
    Raises ValueError for other losses and paths.
    """

    def __init__(
        self,
        loss: Callable[[Tensor], Tensor],
        descend: Callable[..., Tensor],
        low: float,
        high: float,
        step: float = 0.05,
        start: float = 0,
        momenta: Sequence[float] = (),
    ):
        lrs, at = _positions(low, high, step, start)
        super().__init__(at)
        pairs = [(lr, beta) for beta in momenta or [0] for lr in lrs]
        paths = [descend(*pair) if momenta else descend(pair[0]) for pair in pairs]
        paths = [shaped("descend(lr)", path, "n", 2).double() for path in paths]
        self.minimum, self.curvatures = _bowl(loss, paths[0][0])
        measured = [_measure(path - self.minimum) for path in paths]
        self.columns["alpha"] = [_number(lr) for lr, _ in pairs]
        self.columns["beta"] = [_number(beta) for _, beta in pairs]
        self.columns["tell"] = [
            self._tell(*pair, m) for pair, m in zip(pairs, measured, strict=True)
        ]
        self.frames["steps"] = [{"say": "{tell}", "now": []}]
        pictures = {
            self._draw_paths(loss, paths): "The path of gradient descent on level sets.",
            self._draw_factors(lrs, momenta or [0], measured): "The factor per step over α.",
        }
        sliders = [("learning rate α = {alpha}", len(lrs), at)]
        sliders += [("momentum β = {beta}", len(momenta), 0)] if momenta else []
        self.finish("Gradient descent on a quadratic loss", pictures, sliders)

    def _tell(self, lr: float, beta: float, measured: float) -> str:
        """Return in words what descent does at a learning rate and a momentum."""
        factor = self._factor(lr, beta)
        fate = "diverges" if factor > 1 else "converges"
        if math.isclose(factor, 1):
            fate = "neither converges nor diverges"
        elif factor < 1 and not beta:
            is_smooth = lr * self.curvatures[1] <= 1
            fate += " without jumping" if is_smooth else " while jumping across the valley"
        ending = f"by {_number(factor, 3)} in theory, and by {_number(measured, 3)} on this path."
        return f"Descent {fate}. In the end, a step multiplies the error {ending}"

    def _factor(self, lr: float, beta: float) -> float:
        """Return by which factor a step multiplies the error in the end, in theory."""
        roots = [np.roots([1, lr * curvature - 1 - beta, beta]) for curvature in self.curvatures]
        return float(np.abs(roots).max())

    def _draw_paths(self, loss: Callable, paths: Sequence[Tensor]) -> str:
        """Return the paths on level sets as SVG, each up to its first point that is far away."""
        (a, b), ax = self.minimum.tolist(), _axes(4.3)
        distance = (paths[0][0] - self.minimum).abs().max().item()
        reach = 1.3 * distance if distance > TINY else 1.0
        plot_contours(loss, (a - reach, a + reach), (b - reach, b + reach), ax)
        ax.plot(a, b, "*", color=INK, markersize=14)
        walks = []
        for path in paths:
            near = (path - self.minimum).norm(dim=1) < 3 * reach
            walks.append(path[: min(DRAWN_STEPS, int(near.cumprod(0).sum())) + 1].tolist())
        self.add_path(ax, "path", walks, 1.5)
        dots = [point for w in walks[self.at] for point in (w, w, (math.nan, math.nan))]
        self.add_path(ax, "dots", [dots] * len(paths), 8)
        self.frames["paths"]["dots"] = "path"  # at the points of the path
        del self.columns["dots"]
        return _svg(ax.figure)

    def _draw_factors(self, lrs: list, momenta: Sequence[float], measured: Sequence[float]) -> str:
        """Return the predicted and the measured factor per step over the learning rate as SVG."""
        ax, (mu, L) = (
            _axes(5.8, xlabel="learning rate α", ylabel="factor per step"),
            self.curvatures,
        )
        ax.axhline(1, color=GRAY, linestyle=":", linewidth=1.5)
        for beta in momenta:
            corner = 2 / (L + mu)  # for β = 0, the curve of many points would be blunt there
            line = sorted([*np.linspace(lrs[0], lrs[-1], 201), corner])
            factors = [self._factor(lr, beta) for lr in line]
            ax.plot(line, factors, color=BLUE, linestyle="-", linewidth=2.5)
            places = {f"2(1 + {beta})/L" if beta else "2/L": 2 * (1 + beta) / L}
            for name, lr in (places if beta else places | {"2/(L + μ)": corner}).items():
                ax.axvline(lr, color=GRAY, linestyle=":", linewidth=1.5)
                style = {"rotation": 90, "ha": "right", "va": "bottom", "color": INK, "size": 13}
                ax.annotate(name, (lr, 0.03), (-2, 0), textcoords="offset points", **style)
        ax.set(xlim=(lrs[0], lrs[-1]), ylim=(0, min(1.5, max(1.2, ax.get_ylim()[1]))))
        dots = [[spot, spot] for spot in zip(list(lrs) * len(momenta), measured, strict=True)]
        self.add_path(ax, "dot", dots, 14)
        self.frames["drag"] = _ends(ax, lrs)
        return _svg(ax.figure)


def _positions(low: float, high: float, step: float, start: float) -> tuple[list[float], int]:
    """Return the numbers of a slider, and which of them is next to `start`."""
    if not (0 < high - low < math.inf and step > 0):
        raise ValueError(f"low {low} must be less than high {high}, and step {step} positive")
    count = math.floor((high - low) / step + 1e-6) + 1
    if not 2 <= count <= MAX_POSITIONS:
        raise ValueError(f"a slider has 2 to {MAX_POSITIONS} positions, not {count}: change step")
    decimals = 9 - math.floor(math.log10(step))
    grid = [round(low + i * step, decimals) for i in range(count)]
    return grid, min(range(count), key=lambda i: abs(grid[i] - start))


def _read(function: Callable, x: float, formulas: Mapping[str, str] | None) -> Graph:
    """Return the graph of what a function of one number computes at x."""
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    named = function(leaf)
    if not isinstance(named, Mapping) or not named:
        raise ValueError('the function must return named tensors, the output last: {"f": x**3}')
    if named.get("x", leaf) is not leaf:
        raise ValueError("x is the slider's number: give the tensor called x a different name")
    try:
        return read_graph([*named.values()][-1], {"x": leaf, **named}, formulas=formulas)
    except GraphError as error:
        raise GraphError(f"at x = {x}, {error}") from None


def _refuse_unreadable(graphs: Sequence[Graph]) -> None:
    """Raise GraphError where there is nothing to walk, too much to read, or no single picture."""
    number_texts(graphs[0])  # raises it for what is no Graph
    uses = [[(edge.source.name, edge.target.name) for edge in graph.edges] for graph in graphs]
    if not uses[0]:
        raise GraphError("the output is itself a leaf tensor: compute something from it first")
    if len(graphs[0].nodes) > MAX_TENSORS:
        raise GraphError(f"more than {MAX_TENSORS} tensors cannot be read in a picture: name fewer")
    if any(use != uses[0] for use in uses):
        raise GraphError("the graph differs from x to x: name only what is computed at every x")


def _texts(graph: Graph) -> dict[str, str]:
    """Return the numbers of a graph as texts, for its picture and for sentences."""
    texts, sums = number_texts(graph), {}
    for i, node in enumerate(graph.nodes):
        texts |= {f"told{i}": plain(node.value), f"grad{i}": plain(node.grad)}
    for k, edge in enumerate(graph.edges):
        local, before = plain(edge.local), sums.get(edge.source)
        if edge.local.numel() > 1:
            local = f"∂{edge.target.name}/∂{edge.source.name}"
        sent, total = plain(edge.sent), edge.sent if before is None else before + edge.sent
        texts |= {f"factor{k}": f"({local})" if local.startswith("−") else local, f"sent{k}": sent}
        has_room = "=" in texts[f"sum{graph.nodes.index(edge.source)}"] and before is not None
        texts[f"now{k}"] = add_up([plain(before), sent], plain(total)) if has_room else plain(total)
        sums[edge.source] = total
    return texts


def _bowl(loss: Callable[[Tensor], Tensor], w: Tensor) -> tuple[Tensor, list[float]]:
    """Return the minimum of a quadratic loss of two weights, and its curvatures."""
    hessian, elsewhere = (torch.func.hessian(loss)(point) for point in (w, w + 1))
    if hessian.shape != (2, 2) or not torch.allclose(hessian, elsewhere):
        raise ValueError("the loss must be quadratic in two weights, as that of least squares")
    curvatures = torch.linalg.eigvalsh(hessian).tolist()
    if not curvatures[0] > 0:
        raise ValueError("the loss has no single minimum: give the data independent columns")
    return w - torch.linalg.solve(hessian, torch.func.grad(loss)(w)), curvatures


def _measure(offsets: Tensor) -> float:
    """Return the factor per step as measured before rounding or overflow, or nan."""
    errors = offsets.norm(dim=1)
    count = int(((errors > TINY) & (errors < HUGE)).cumprod(0).sum()) // 3
    if not count:
        return math.nan
    before, last = errors[count : 2 * count].max(), errors[2 * count : 3 * count].max()
    return (last / before).item() ** (1 / count)


def _tell_slope(f: str, x: float, y: float, slope: float) -> str:
    """Return in words what the function does at a point."""
    at = f"At x = {_number(x)}, {f} = {_number(y)}"
    if not math.isfinite(y):
        return f"{at} is not a finite number, and the curve has a gap."
    if not math.isfinite(slope):
        return f"{at}, but PyTorch's slope is {_number(slope)}, and no tangent is drawn."
    does = "is level" if slope == 0 else "falls" if slope < 0 else "rises"
    return f"{at} {does}: the slope is {_number(slope)}."


def _axes(width: float, **labels: str) -> Axes:
    """Return the Axes of a new picture, `width` inches wide; its SVG is in points."""
    with plt.style.context(STYLE, after_reset=True):
        figure = plt.figure(figsize=(width, 4.2), dpi=72, layout="none")
        ax = figure.add_axes((0.8 / width, 0.14, 1 - 0.95 / width, 0.83), **labels)
    ax.tick_params(colors=INK, length=0)
    return ax


def _path(ax: Axes, points: Sequence[tuple[float, float]]) -> str:
    """Return a line through points as SVG, without those that are infinite or far away."""
    with np.errstate(invalid="ignore"):
        places = ax.transData.transform(points)
    places[:, 1] = ax.figure.bbox.height - places[:, 1]
    near = places[(abs(places) < 1e4).all(axis=1)]
    return "M" * bool(len(near)) + "L".join(f"{x:.1f} {y:.1f}" for x, y in near)


def _ends(ax: Axes, xs: Sequence[float]) -> list[float]:
    """Return where the slider's first and last number are in a picture, for dragging."""
    return [round(ax.transData.transform((x, 0))[0], 1) for x in (xs[0], xs[-1])]


def _svg(figure: Figure) -> str:
    """Return a figure as SVG, the same each time, and close it."""
    file, nothing = io.StringIO(), dict.fromkeys(["Creator", "Date", "Format", "Type"])
    with plt.style.context(STYLE, after_reset=True):
        figure.savefig(file, format="svg", metadata=nothing)
    plt.close(figure)
    svg = file.getvalue()[file.getvalue().index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<style.*?</style>|(?<=>)\s+", "", svg, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"\d+\.\d+", lambda n: f"{float(n[0]):.4g}", svg))


def _number(value: float, digits: int = 4) -> str:
    return f"{value + 0:.{digits}g}".replace("-", "−")
