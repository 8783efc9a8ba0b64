"""Measure what the course promises to be fast: ratios within one run, on one thread.

Both sides of a ratio are timed in turn, several times over; the median of the ratios counts.
"""

import statistics
import time
from collections.abc import Callable

import nbformat
import torch
from PIL import Image
from torchvision import transforms

from tools.stamp import NOTEBOOKS
from utils.data import _normalize


def seconds(work: Callable[[], object], repeat: int) -> float:
    """Return the seconds that one call of `work` takes, as the mean of `repeat` calls."""
    start = time.perf_counter()
    for _ in range(repeat):
        work()
    return (time.perf_counter() - start) / repeat


def side_by_side(
    ours: Callable[[], object], theirs: Callable[[], object], repeat: tuple[int, int], rounds: int
) -> tuple[float, float, float]:
    """Return the median seconds of both, and the median over the rounds of ours / theirs."""
    ours(), theirs()
    times = [(seconds(ours, repeat[0]), seconds(theirs, repeat[1])) for _ in range(rounds)]
    a, b = (statistics.median(side) for side in zip(*times, strict=True))
    return a, b, statistics.median(x / y for x, y in times)


def lesson() -> dict:
    """Return what the cells of notebook 05 define that hold its models and its training loop."""
    notebook = nbformat.read(next(NOTEBOOKS.glob("05*.ipynb")), as_version=4)
    names: dict = {}
    for cell in notebook.cells:
        if cell.source.startswith(("import", "class Logistic(", "class SimpleNN(", "def train(")):
            exec(cell.source, names)
    names["tqdm"] = lambda steps, **bar: steps
    return names


def preparation() -> str:
    """60,000 images normalized at once, against torchvision's transform of one after the other."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (60_000, 28, 28), dtype=torch.uint8, generator=generator)
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    rows = torch.empty(60_000, 784)

    def one_by_one() -> None:
        for row, image in zip(rows, images, strict=True):
            row.copy_(transform(Image.fromarray(image.numpy())).flatten())

    ours, theirs, ratio = side_by_side(lambda: _normalize(images), one_by_one, (5, 1), 5)
    equal = "bitwise equal" if torch.equal(_normalize(images), rows) else "NOT EQUAL"
    return f"{1e3 * ours:.0f} ms against {theirs:.1f} s: 1/{1 / ratio:.0f} ({equal}; bar 1/40)"


def sweep() -> str:
    """Derivatives at 10,000 points by one backward pass, against one pass per point."""
    points = torch.linspace(-2, 2, 10_000)

    def backward(x: torch.Tensor) -> None:
        x = x.detach().requires_grad_()
        (x**3 - 3 * x).sum().backward()

    def one_by_one() -> None:
        for point in points:
            backward(point)

    ours, theirs, ratio = side_by_side(lambda: backward(points), one_by_one, (300, 1), 5)
    return f"{1e6 * ours:.0f} µs against {theirs:.2f} s: 1/{1 / ratio:.0f} (bar 1/2000)"


def training_step(name: str, products: Callable, work: float, unit: str) -> str:
    """Return the rate of notebook 05's training step beside that of the products inside it."""
    names = lesson()
    X, y = torch.randn(4000, 784), (torch.arange(4000) % 2).float()
    model = names[name]()
    steps, bare, ratio = side_by_side(
        lambda: names["train"](model, X, y, lr=0.01, num_steps=10), lambda: products(X), (1, 10), 51
    )
    return f"{10 * work / steps / 1e9:.1f} of {work / bare / 1e9:.1f} {unit}: {10 / ratio:.0%}"


def simple_nn() -> str:
    """Achieved GFLOP/s of SimpleNN's training step, against torch.mm of the same shapes."""
    W, G = torch.randn(32, 784), torch.randn(4000, 32)
    work = 2 * 2 * 4000 * 784 * 32
    rates = training_step("SimpleNN", lambda X: (X @ W.T, G.T @ X), work, "GFLOP/s")
    return f"{rates} (bar 75%)"


def logistic() -> str:
    """Achieved GB/s of logistic regression's training step, against torch.mv of the same shapes."""
    w, r = torch.randn(784), torch.randn(4000)
    work = 2 * 4000 * 784 * 4
    rates = training_step("Logistic", lambda X: (X @ w, X.T @ r), work, "GB/s")
    return f"{rates} (bar 60%)"


if __name__ == "__main__":
    torch.set_num_threads(1)
    for measure in (preparation, sweep, simple_nn, logistic):
        print(f"{measure.__doc__}\n    {measure()}", flush=True)
