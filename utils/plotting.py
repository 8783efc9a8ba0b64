"""Figures of one style: readable from the back row, in gray, and by a screen reader."""

import base64
import io
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

# Okabe and Ito's colors, which color-blind readers can tell apart.
BLUE, VERMILION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"
COLORS = 36  # of a stored picture: enough for its areas, and its file stays small
# For numbers whose sign matters, and for two classes: white is in the middle.
DIVERGING = LinearSegmentedColormap.from_list("diverging", [BLUE, "white", VERMILION])


def set_style() -> None:
    """Set Matplotlib's defaults: Okabe-Ito colors, each with its own dash, and large type."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=[BLUE, VERMILION, GREEN, BLACK])
            + cycler(linestyle=["-", "--", "-.", ":"]),
            "axes.grid": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.constrained_layout.use": True,
            "figure.figsize": (8, 4.5),
            "font.size": 13,
            "grid.alpha": 0.3,
            "lines.linewidth": 2.5,
        }
    )


def show(fig: Figure, alt: str, save: str | None = None) -> None:
    """Display a figure once, as PNG with alternative text, and close it.

    The picture has twice the pixels of its size on the page, for sharp letters on a projector, and
    COLORS colors, which makes its file small. Its text is the output's `text/plain`, which nbval
    compares, and `alt` in its metadata, for slides and web pages. `save` is its name in `figures/`,
    where `make refresh` copies it.
    """
    plt.close(fig)
    width, height = (round(100 * inches) for inches in fig.get_size_inches())
    fig.set_dpi(200)
    canvas, small = FigureCanvasAgg(fig), io.BytesIO()
    for _ in range(2):  # with equal scales, the first layouts leave too little room for text
        fig.draw_without_rendering()
    canvas.draw()
    full = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    full.quantize(COLORS, kmeans=3).save(small, format="png", optimize=True)
    png = base64.b64encode(small.getvalue()).decode()
    metadata = {"alt": alt, "width": width, "height": height} | ({"save": save} if save else {})
    display({"image/png": png, "text/plain": alt}, metadata={"image/png": metadata}, raw=True)


def shaped(name: str, value: Tensor, *sides: int | str) -> Tensor:
    """Return a tensor as Matplotlib can draw it; raise an error if its sides differ; "n" is any."""
    try:
        data = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be one tensor: make one of a list by torch.stack") from None
    fits = (side in ("n", length) for side, length in zip(sides, data.shape, strict=False))
    if data.ndim != len(sides) or not all(fits):
        wanted = ", ".join(map(str, sides))
        raise ValueError(f"{name} must have shape ({wanted}), not {tuple(data.shape)}")
    return data


def plot_contours(
    f: Callable[[Tensor], Tensor], xlim: tuple[float, float], ylim: tuple[float, float], ax: Axes
) -> None:
    """Draw ten level sets of a function of two numbers, on equal scales.

    `f` maps a tensor of shape (2,) to a single number, and is called through `torch.func.vmap`.
    The levels are quadratically spaced, so that those of a quadratic bowl are even rings.
    """
    sides = [torch.linspace(*limits, 120, dtype=torch.float64) for limits in (xlim, ylim)]
    a, b = torch.meshgrid(*sides, indexing="xy")
    values = torch.func.vmap(f)(torch.stack([a, b], -1).view(-1, 2))
    values = shaped("f(w) for all w", values, a.numel())
    low, high = values.aminmax()
    levels = low + (high - low) * torch.linspace(0.05, 0.95, 10) ** 2
    ax.contour(a, b, values.view(a.shape), levels=levels, colors="0.55", linewidths=1)
    ax.set(xlabel="$w_1$", ylabel="$w_2$", aspect="equal", xlim=xlim, ylim=ylim)
    ax.grid(False)


def plot_decision_boundary(model: Callable, X: Tensor, y: Tensor, ax: Axes) -> None:
    """Draw labeled points, the model's probability as color, and the line where it is 1/2.

    `model` maps (m, 2) points to (m,) logits; `X` is (n, 2), `y` is (n,) of 0 and 1.
    """
    low, high = X.min(0).values - 0.4, X.max(0).values + 0.4
    sides = [torch.linspace(a, b, 200) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    a, b = torch.meshgrid(*sides, indexing="xy")
    with torch.no_grad():
        p = torch.sigmoid(model(torch.stack([a, b], dim=-1).view(-1, 2))).view(a.shape)
    ax.contourf(a, b, p, levels=[0, 0.25, 0.5, 0.75, 1], cmap=DIVERGING, alpha=0.35)
    ax.contour(a, b, p, levels=[0.5], colors=BLACK)
    for label, color, marker in (0, BLUE, "o"), (1, VERMILION, "^"):
        ax.scatter(*X[y == label].T, c=color, marker=marker, s=28, label=f"y = {label}")
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")


def show_images(images: Tensor, captions: Sequence[str], columns: int, ax: Axes, **image) -> None:
    """Draw (n, 784) images in rows of `columns`, with a caption under each.

    `image` goes to Matplotlib's `imshow`: a color map, its limits.
    """
    rows = -(-len(captions) // columns)
    canvas = torch.full((rows * columns, 38, 32), torch.nan)
    canvas[: len(images), 1:29, 2:30] = images.view(-1, 28, 28)
    mosaic = canvas.view(rows, columns, 38, 32).transpose(1, 2).reshape(rows * 38, columns * 32)
    ax.imshow(mosaic.numpy(), **{"cmap": "gray_r"} | image)
    for i, caption in enumerate(captions):
        row, column = divmod(i, columns)
        ax.text(32 * column + 16, 38 * row + 29, caption, ha="center", va="top")
    ax.axis("off")
