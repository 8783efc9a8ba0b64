"""The course's code against the plain way to do the same, within one process."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from tools.bench.measure import Row, side_by_side
from tools.definitions import definitions
from utils.data import _normalize, make_moons


def preparation() -> Iterator[Row]:
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

    ours, theirs, ratio = side_by_side(lambda: _normalize(images), one_by_one, (5, 1), 3)
    assert torch.equal(_normalize(images), rows)
    what = "60,000 images normalized, against one by one"
    yield Row(what, f"{1e3 * ours:.0f} ms", f"{theirs:.1f} s", ratio, 1 / 40)


def sweep() -> Iterator[Row]:
    """Derivatives at 10,000 points by one backward pass, against one pass per point."""
    points = torch.linspace(-2, 2, 10_000)

    def backward(x: torch.Tensor) -> None:
        x = x.detach().requires_grad_()
        (x**3 - 3 * x).sum().backward()

    def one_by_one() -> None:
        for point in points:
            backward(point)

    ours, theirs, ratio = side_by_side(lambda: backward(points), one_by_one, (300, 1), 5)
    what = "10,000 derivatives at once, against one by one"
    yield Row(what, f"{1e6 * ours:.0f} µs", f"{theirs:.2f} s", ratio, 1 / 2000)


def training_step(name: str, products: Callable, work: float, unit: str, share: float) -> Row:
    """Notebook 05's training step, against the two products inside it: at least `share` of them."""
    names = definitions("05")
    names["tqdm"] = lambda steps, **bar: steps
    X, y = torch.randn(4000, 784), (torch.arange(4000) % 2).float()
    model = names[name]()
    steps, bare, ratio = side_by_side(
        lambda: names["train"](model, X, y, lr=0.01, num_steps=10),
        lambda: [products(X) for _ in range(10)],
        (1, 1),
        51,
    )
    rates = [f"{10 * work / t / 1e9:.1f} {unit}" for t in (steps, bare)]
    return Row(f"training step of {name}, against its products", *rates, ratio, 1 / share)


def simple_nn() -> Iterator[Row]:
    """SimpleNN's training step, against torch.mm of the same shapes."""
    W, G = torch.randn(32, 784), torch.randn(4000, 32)
    work = 2 * 2 * 4000 * 784 * 32
    yield training_step("SimpleNN", lambda X: (X @ W.T, G.T @ X), work, "GFLOP/s", 0.75)


def logistic() -> Iterator[Row]:
    """Logistic regression's training step, against torch.mv of the same shapes."""
    w, r = torch.randn(784), torch.randn(4000)
    work = 2 * 4000 * 784 * 4
    yield training_step("Logistic", lambda X: (X @ w, X.T @ r), work, "GB/s", 0.6)


def engine() -> Iterator[Row]:
    """Notebook 02's engine on NumPy arrays, against PyTorch: 100 training steps."""
    names = definitions("02")
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(60, 3)), rng.normal(size=60)]
    loss = lambda X, y, w: ((X @ w - y) ** 2).mean()  # noqa: E731
    yield training(names, "least squares, 60 x 3", loss, data, [np.zeros(3)])

    X, y = make_moons(200, noise=0.1, seed=0)
    data = [X.double().numpy(), 2 * y.double().numpy()[:, None] - 1]
    start = [rng.normal(size=size) for size in ((2, 10), 10, (10, 1), 1)]
    yield training(names, "2-10-1 network, 200 points", names["network_loss"], data, start)


def training(names: dict, example: str, loss: Callable, data: list, start: list) -> Row:
    """Gradient descent on `loss` from `start`, by the engine and by PyTorch."""

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
    times = [f"{10 * t:.2f} ms a step" for t in (ours, theirs)]
    return Row(f"NumPy engine: {example}, against PyTorch", *times, ratio, 3)


def cheap_gradient() -> Iterator[Row]:
    """A gradient in reverse mode, against the function alone: 1000 x p least squares."""
    gradient = definitions("02")["reverse_mode"]
    for p in 1000, 10_000:
        X, w = torch.randn(1000, p, dtype=torch.float64), torch.zeros(p, dtype=torch.float64)
        f = lambda w, X=X: (X @ w - 1).square().mean()  # noqa: E731
        ours, theirs, ratio = side_by_side(
            lambda f=f, w=w: gradient(f, w), lambda f=f, w=w: f(w), (5, 5), 21
        )
        what = f"gradient in {p:,} parameters, against the value"
        yield Row(what, f"{1e3 * ours:.2f} ms", f"{1e3 * theirs:.2f} ms", ratio, 5)
