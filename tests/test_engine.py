"""The code that notebook 02 builds up: its NumPy engine and its replay agree with PyTorch."""

from functools import cache, partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tools.definitions import definitions
from utils.checks import check, relative_error
from utils.data import make_moons

lesson = cache(partial(definitions, "02"))
SHAPES = [(), (3,), (1, 3), (2, 1), (2, 3), (3, 2)]
UNARY = [
    lambda a: a.tanh(),
    lambda a: a.sigmoid(),
    lambda a: (a * a + 0.5).log(),
    lambda a: a**3,
    lambda a: (a * a + 1) ** -0.5,
    lambda a: -a,
    lambda a: 0.7 - a,
    lambda a: a.sum(),
    lambda a: a.mean() * a,
    lambda a: a + a,
]
BINARY = [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b]


def shape(a):
    return np.shape(a.value if hasattr(a, "value") else a)


def fits(a, b):
    try:
        np.broadcast_shapes(shape(a), shape(b))
    except ValueError:
        return False
    return True


def expression(rng, pool):
    """A random number computed from the arrays or tensors in `pool`; the same for the same rng."""
    pool, leaves = list(pool), pool
    for _ in range(rng.integers(2, 15)):
        a = pool[rng.integers(len(pool))]
        partners = [b for b in pool if fits(a, b)]
        factors = [b for b in pool if len(shape(a)) == 2 and shape(a)[1:] == shape(b)[:1]]
        kind = rng.integers(3)
        if kind == 2 and factors:
            a = a @ factors[rng.integers(len(factors))]
        elif kind == 1:
            a = BINARY[rng.integers(len(BINARY))](a, partners[rng.integers(len(partners))])
        else:
            a = UNARY[rng.integers(len(UNARY))](a)
        size = max(float(abs(value(a)).max()), 1)
        pool.append(a * 2.0 ** -np.ceil(np.log2(size)))  # where tanh saturates, digits are lost
    return sum(a.sum() for a in [*pool[-3:], *leaves])


def value(a):
    return a.value if hasattr(a, "value") else a.detach().numpy()


@pytest.mark.parametrize("first", range(0, 600, 100))
def test_engine_equals_pytorch_on_random_expressions(first):
    for seed in range(first, first + 100):
        rng = np.random.default_rng(seed)
        start = [rng.uniform(0.2, 1.6, SHAPES[i]) for i in rng.permutation(len(SHAPES))[:4]]
        random = partial(expression, np.random.default_rng(seed))
        number, slopes = lesson()["gradients_ours"](lambda *pool, e=random: e(pool), *start)
        leaves = [torch.tensor(a, requires_grad=True) for a in start]
        output = expression(np.random.default_rng(seed), leaves)
        wanted = torch.autograd.grad(output, leaves, allow_unused=True, materialize_grads=True)
        assert number == pytest.approx(output.item(), rel=1e-12)
        for slope, wish in zip(slopes, wanted, strict=True):
            assert relative_error(torch.tensor(slope), wish) <= 1e-12, f"seed {seed}"


def test_both_engines_fit_least_squares_to_the_same_weights():
    rng = np.random.default_rng(0)
    X, y, ends = rng.normal(size=(60, 3)), rng.normal(size=60), []
    for source, data in ("ours", (X, y)), ("torch", (torch.tensor(X), torch.tensor(y))):
        w = np.zeros(3)
        for _ in range(300):
            loss = lambda w, X=data[0], y=data[1]: ((X @ w - y) ** 2).mean()  # noqa: E731
            w = w - 0.1 * lesson()[f"gradients_{source}"](loss, w)[1][0]
        ends.append(torch.tensor(w))
    assert relative_error(*ends) < 1e-14
    assert relative_error(ends[0], torch.tensor(np.linalg.lstsq(X, y)[0])) < 1e-12


def test_both_engines_train_the_network_to_the_same_numbers():
    X, y = make_moons(200, noise=0.1, seed=0)
    X, s = X.double(), 2 * y.double()[:, None] - 1
    ends = [
        lesson()["train"](lesson()[f"gradients_{source}"], partial(lesson()["network_loss"], *data))
        for source, data in [("ours", (X.numpy(), s.numpy())), ("torch", (X, s))]
    ]
    assert ends[0][0] < 0.05
    for ours, theirs in zip(ends[0][1], ends[1][1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_training_is_gradient_descent_on_cross_entropy_with_step_1():
    X, y = make_moons(200, noise=0.1, seed=0)
    X, y, rng = X.double(), y.double()[:, None], np.random.default_rng(0)
    sizes = (2, 10), 10, (10, 1), 1
    W1, b1, W2, b2 = leaves = [torch.tensor(rng.normal(size=n), requires_grad=True) for n in sizes]
    optimizer = torch.optim.SGD(leaves, lr=1.0)
    for _ in range(400):
        loss = F.binary_cross_entropy_with_logits(torch.tanh(X @ W1 + b1) @ W2 + b2, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    cost = partial(lesson()["network_loss"], X.numpy(), 2 * y.numpy() - 1)
    number, ours = lesson()["train"](lesson()["gradients_ours"], cost)
    assert number == pytest.approx(loss.item(), rel=1e-6)
    for array, leaf in zip(ours, leaves, strict=True):
        np.testing.assert_allclose(array, leaf.detach(), rtol=1e-6)


@pytest.mark.parametrize("method", ["reverse_mode", "forward_mode", "finite_differences"])
def test_what_is_timed_is_the_gradient(method):
    w = torch.tensor([0.7, -1.3, 2.1], dtype=torch.float64)
    found = lesson()[method](lambda w: (w**3).sum() + w.prod(), w)
    assert relative_error(found, 3 * w**2 + w.prod() / w) < 1e-5
    assert not w.requires_grad


def test_engine_has_no_depth_limit_and_no_path_explosion():
    backward, Array = lesson()["backward"], lesson()["Array"]
    x = Array(1.5)
    y = x
    for _ in range(5000):
        y = 0.5 * (y + y) * 1.0001
    backward(y)
    assert x.grad == pytest.approx(1.0001**5000)


def overwrite(node, gradient):
    for parent, g in lesson()["send"](node, gradient[node]):
        gradient[parent] = g


def twice(node, gradient):
    for parent, g in lesson()["send"](node, gradient[node]):
        gradient[parent] = gradient[parent] + 2 * g


def twice_the_second(node, gradient):
    for parent, g in lesson()["send"](node, gradient[node]):
        gradient[parent] = gradient[parent] + 2 * g if parent in gradient else g


def shared(node, gradient):
    """Adds in place, into a tensor that two accumulators may share."""
    for parent, g in lesson()["send"](node, gradient[node]):
        if parent in gradient:
            gradient[parent] += g
        else:
            gradient[parent] = g


def copied(node, gradient):
    """A right repair that is not the notebook's."""
    for parent, g in lesson()["send"](node, gradient[node]):
        gradient[parent] = torch.stack([torch.as_tensor(gradient[parent]) + 0 * g, g]).sum(0)


@pytest.mark.parametrize(
    ("visit", "verdict"),
    [
        (overwrite, "2.3: not done yet\n"),
        (twice, "the numbers are not"),
        (twice_the_second, "the numbers are not"),
        (shared, "changed in place"),
        (copied, "correct"),
    ],
)
def test_exercise_3_tells_repairs_apart(visit, verdict, capsys):
    check("2.3", partial(lesson()["replay"], visit=visit))
    assert verdict in capsys.readouterr().out


@pytest.mark.parametrize("slope", [lambda x, y: y, lambda x, y: 1.0, lambda x, y: x])
def test_exercise_4_accepts_the_derivative_of_exp_alone(slope, capsys):
    entrywise = lesson()["entrywise"]
    loss = lambda a: (entrywise(a, np.exp, slope) * a).sum()  # noqa: E731
    check("2.4", partial(lesson()["gradients_ours"], loss))
    assert ("correct" in capsys.readouterr().out) == (slope(0, 7.0) == 7.0)
