"""The code that notebook 02 builds up: its NumPy engine and its replay agree with PyTorch."""

import ast
import json
import random
from functools import cache, partial

import numpy as np
import pytest
import torch

from utils.checks import relative_error
from utils.course import ROOT


@cache
def lesson():
    """Return by name what notebook 02 defines. Its examples, setup and exercises do not run."""
    (path,) = ROOT.glob("notebooks/02_*.ipynb")
    names = {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        left_out = {"setup", "exercise"} & set(cell["metadata"].get("tags", []))
        if cell["cell_type"] == "code" and not left_out:
            for part in ast.parse("".join(cell["source"])).body:
                if defines(part, names):
                    exec(compile(ast.Module([part], []), path.name, "exec"), names)
    return names


def defines(part, names):
    """Return whether this is an import, a function, a class, or a method as in `Array.sum = f`."""
    if isinstance(part, ast.Assign):
        targets = [node for node in ast.walk(part.targets[0]) if isinstance(node, ast.Attribute)]
        return any(isinstance(names.get(ast.unparse(node.value)), type) for node in targets)
    return isinstance(part, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


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
    number, slopes = lesson()["gradients_ours"](partial(expression, seed), *start)
    leaves = [torch.tensor(a, requires_grad=True) for a in start]
    output = expression(seed, *leaves)
    replayed, wanted = lesson()["replay"](output), torch.autograd.grad(output, leaves)
    assert number == pytest.approx(output.item(), rel=1e-12)
    for leaf, slope, wish in zip(leaves, slopes, wanted, strict=True):
        assert relative_error(torch.tensor(slope), wish) <= 1e-12
        assert relative_error(replayed[leaf], wish) <= 1e-12


def test_engine_has_no_depth_limit_and_no_path_explosion():
    x = y = lesson()["Array"](1.5)
    for _ in range(5000):
        y = 0.5 * (y + y) * 1.0001
    lesson()["backward"](y)
    assert x.grad == pytest.approx(1.0001**5000)
