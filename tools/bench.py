"""Measure what the course promises to be fast: ratios within one run, on one thread.

Both sides of a ratio are timed in turn, several times over; the median of the ratios counts.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from tools.definitions import definitions
from utils.data import _normalize, make_moons


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
    names = definitions("05")
    names["tqdm"] = lambda steps, **bar: steps
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


def engine(least_squares: bool) -> str:
    """Return the time of 100 training steps with notebook 02's engine, against PyTorch's."""
    names = definitions("02")
    rng = np.random.default_rng(0)
    if least_squares:
        data = [rng.normal(size=(60, 3)), rng.normal(size=60)]
        start, loss = [np.zeros(3)], lambda X, y, w: ((X @ w - y) ** 2).mean()
    else:
        X, y = make_moons(200, noise=0.1, seed=0)
        data = [X.double().numpy(), 2 * y.double().numpy()[:, None] - 1]
        start = [rng.normal(size=size) for size in ((2, 10), 10, (10, 1), 1)]
        loss = names["network_loss"]

    def steps(gradients: Callable, data: list) -> None:
        parameters = start
        for _ in range(100):
            _, slopes = gradients(partial(loss, *data), *parameters)
            parameters = [p - 0.1 * slope for p, slope in zip(parameters, slopes, strict=True)]

    ours, theirs, ratio = side_by_side(
        lambda: steps(names["gradients_ours"], data),
        lambda: steps(names["gradients_torch"], [torch.tensor(part) for part in data]),
        (1, 1),
        21,
    )
    return f"{10 * ours:.2f} ms against {10 * theirs:.2f} ms a step: {ratio:.2f} times (bar 3)"


def engine_least_squares() -> str:
    """Notebook 02's NumPy engine on least squares, 60 x 3, against PyTorch."""
    return engine(least_squares=True)


def engine_network() -> str:
    """Notebook 02's NumPy engine on the 2-10-1 network and 200 points, against PyTorch."""
    return engine(least_squares=False)


def cheap_gradient() -> str:
    """A gradient in reverse mode, against the function alone: 1000 x p least squares."""
    gradient, results = definitions("02")["reverse_mode"], []
    for p in 1000, 10_000:
        X, w = torch.randn(1000, p, dtype=torch.float64), torch.zeros(p, dtype=torch.float64)
        f = lambda w, X=X: (X @ w - 1).square().mean()  # noqa: E731
        ratio = side_by_side(lambda f=f, w=w: gradient(f, w), lambda f=f, w=w: f(w), (5, 5), 21)[2]
        results.append(f"p = {p}: {ratio:.1f} times")
    return ", ".join(results) + " (bar 5)"


if __name__ == "__main__":
    torch.set_num_threads(1)
    measures = preparation, sweep, simple_nn, logistic
    for measure in (*measures, engine_least_squares, engine_network, cheap_gradient):
        print(f"{measure.__doc__}\n    {measure()}", flush=True)
