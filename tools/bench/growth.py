"""How time grows with size: the exponent k of the law time = c size^k, which is 1 if linear."""

import gzip
import struct
from collections.abc import Callable, Iterator

import torch

from tools.bench.measure import Row, exponent, seconds
from tools.definitions import definitions
from utils.data import _normalize, _parse_idx
from utils.graph import read_graph, replay_backward


def growth() -> Iterator[Row]:
    """Four kinds of work, each at four sizes that double."""
    for what, size, work in [
        ("points in the sweep", 20_000, sweep),
        ("parameters in reverse mode", 1000, reverse_mode),
        ("depth, replay_backward", 250, replay),
        ("depth, read_graph with all tensors", 250, read),
        ("images unpacked and normalized", 7500, images),
    ]:
        sizes = [size, 2 * size, 4 * size, 8 * size]
        tasks = [work(n) for n in sizes]
        rounds = [[seconds(task, 1) for task in tasks] for _ in range(8)]
        times = [min(each) for each in zip(*rounds[1:], strict=True)]
        ends = [f"{n:,}: {1e3 * t:.1f} ms" for n, t in zip(sizes, times, strict=True)]
        yield Row(f"exponent of time in {what}", ends[-1], ends[0], exponent(sizes, times), 1.2)


def sweep(n: int) -> Callable[[], object]:
    """The derivative of notebook 01's polynomial at n points, by one backward pass."""
    x = torch.linspace(-2, 2, n, requires_grad=True)
    return lambda: torch.autograd.grad((x**3 - 3 * x).sum(), x)


def reverse_mode(n: int) -> Callable[[], object]:
    """The gradient of a least-squares loss in n parameters, by notebook 02's function."""
    gradient = definitions("02")["reverse_mode"]
    X, w = torch.randn(1000, n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    return lambda: gradient(lambda w: (X @ w - 1).square().mean(), w)


def chain(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A number, and the result of n operations on it."""
    x = y = torch.tensor(0.5, requires_grad=True)
    for _ in range(n):
        y = y.sin()
    return x, y


def replay(n: int) -> Callable[[], object]:
    """The backward pass through n operations, replayed."""
    _, y = chain(n)
    return lambda: replay_backward(y)


def read(n: int) -> Callable[[], object]:
    """The graph of n operations, read with its nameless tensors."""
    x, y = chain(n)
    return lambda: read_graph(y, {"x": x}, detail="all")


def images(n: int) -> Callable[[], object]:
    """n images as they are stored in MNIST's files, unpacked and normalized."""
    pixels = torch.randint(256, (n, 28, 28), dtype=torch.uint8)
    pixels[torch.rand(pixels.shape) < 0.8] = 0  # so much is background
    stored = gzip.compress(struct.pack(">4I", 0x803, n, 28, 28) + pixels.numpy().tobytes(), 1)
    return lambda: _normalize(_parse_idx(gzip.decompress(stored)))
