"""The code that notebook 02 builds up: its NumPy engine and its replay agree with PyTorch."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from test_checks import lesson

from utils.checks import relative_error

LESSON = lesson("2")
SHAPES = [(), (3,), (1, 3), (2, 1), (2, 3), (3, 2)]
OF_ONE = [
    lambda a, b: a.tanh(),
    lambda a, b: a.sigmoid(),
    lambda a, b: (a * a + 0.5).log(),
    lambda a, b: (a * a + 1) ** -0.5,
    lambda a, b: -(0.7 - a),
    lambda a, b: a.mean() * a**3 + a.sum(),
]
OF_TWO = [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b]
PRODUCTS = [lambda a, b: a @ b] * 3


def value(a):
    return a.value if hasattr(a, "value") else a.detach().numpy()


def expression(seed, *leaves):
    """A random number computed from arrays or tensors; the same for the same seed."""
    rng, pool = random.Random(seed), list(leaves)
    for _ in range(rng.randint(2, 14)):
        a, b = rng.choices(pool, k=2)
        m, n = value(a).shape, value(b).shape
        fit = all(i == j or 1 in (i, j) for i, j in zip(m[::-1], n[::-1], strict=False))
        multiply = len(m) == 2 and m[1:] == n[:1]
        a = rng.choice(OF_ONE + OF_TWO * fit + PRODUCTS * multiply)(a, b)
        size = max(float(abs(value(a)).max()), 1)
        pool.append(a * 2.0 ** -np.ceil(np.log2(size)))  # where tanh saturates, digits are lost
    return sum(a.sum() for a in [*pool[-3:], *leaves])


@pytest.mark.parametrize("seed", range(600))
def test_engine_and_replay_equal_pytorch_on_random_expressions(seed):
    rng = np.random.default_rng(seed)
    start = [rng.uniform(0.2, 1.6, SHAPES[i]) for i in rng.permutation(len(SHAPES))[:4]]
    number, slopes = LESSON["gradients_ours"](partial(expression, seed), *start)
    leaves = [torch.tensor(a, requires_grad=True) for a in start]
    output = expression(seed, *leaves)
    replayed, wanted = LESSON["replay"](output), torch.autograd.grad(output, leaves)
    assert number == pytest.approx(output.item(), rel=1e-12)
    for leaf, slope, wish in zip(leaves, slopes, wanted, strict=True):
        assert relative_error(torch.tensor(slope), wish) <= 1e-12
        assert relative_error(replayed[leaf], wish) <= 1e-12


def test_engine_has_no_depth_limit_and_no_path_explosion():
    x = y = LESSON["Array"](1.5)
    for _ in range(5000):
        y = 0.5 * (y + y) * 1.0001
    LESSON["backward"](y)
    assert x.grad == pytest.approx(1.0001**5000)
