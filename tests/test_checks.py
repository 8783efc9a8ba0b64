"""Verdicts on right and wrong answers to every exercise; the oracles refuse wrong gradients."""

import ast
import linecache
import re
from functools import cache

import nbformat
import numpy as np
import pytest
import torch
from nbformat import NotebookNode
from torch.nn import functional as F
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from utils.checks import check, numerical_gradient, passed, relative_error
from utils.course import ROOT
from utils.exercises import EXERCISES

ANSWERS = [  # exercise, a piece of its solution, what a student writes instead, the verdict
    ("1.1", "return 8 * x**3", "x *= 3\n    return 8 * x**3", "the numbers are not"),
    ("1.1", "8 * x**3 - 10 * x", "2 * x**3 - 5 * x", "come down as a factor"),
    ("1.1", " + 3", "", "3x is missing"),
    ("1.1", "8 * x**3 - 10 * x + 3", "-8 * x**3 + 10 * x - 3", "the sign is flipped"),
    ("1.1", "8 * x**3 - 10 * x + 3", "4 * x**3 - 5 * x + 1.5", "half the right result"),
    ("1.1", "8 * x**3", "8 * x^3", "bitwise_xor"),
    ("1.2", "x.detach().clone()", "x.detach().float()", "correct, but only to the digits of"),
    ("1.2", "x.detach().clone()", "x", "changes the caller's x"),
    ("1.2", ".sum()", ".mean()", "too small by a factor of n"),
    ("1.2", ".sum()", "", "grad(f(x), x)[0]`, raised RuntimeError: grad can"),
    ("1.2", "[0]", "", "is a [0] missing?"),
    ("1.2", "f(x).sum()", "(x**3 - 3 * x).sum()", "the numbers are not"),
    ("1.3", "torch.stack(rows)", "torch.stack(rows).T", "transposed"),
    ("1.3", "torch.stack(rows)", "sum(rows)", "summed into one"),
    ("1.3", "torch.stack(rows)", "torch.stack(rows).cumsum(0)", "accumulates"),
    ("1.3", "torch.stack(rows)", "torch.stack([sum(rows)] * 2)", "the same tensor .grad"),
    ("1.3", "torch.stack(rows)", "[row.zero_() for row in rows]", "set it to zero"),
    ("1.3", ", retain_graph=True", "", "backward through the graph a second time"),
    ("1.4", "x.detach().clone().requires_grad_()", "x.requires_grad_()", "correct, but your code"),
    ("1.4", "x - slope", "x + slope", "wrong sign"),
    ("1.4", "x - slope", "slope", "only the step"),
    ("1.4", "slope / curvature", "f(x) / slope", "looks for f = 0"),
    ("1.4", "slope / curvature", "slope", "the number is not right"),
    ("1.5", "numerical - claimed", "numerical.abs() - claimed.abs()", "of the wrong sign"),
    ("1.5", "claimed).abs().max()", "claimed).sum().abs()", "two entries swapped"),
    ("1.5", "claimed).abs().max()", "claimed)[0].abs()", "last entry"),
    ("1.5", "claimed).abs().max()", "claimed)[-1].abs()", "first entry"),
    ("1.5", "1e-6", "1e-3", "off by 1e-4"),
    ("1.5", "1e-5", "1e-14", "False to the true gradient"),
    ("2.1", "-4 + 6", "torch.tensor([2.0])", "correct"),
    ("2.1", "-4 + 6", "-4", "only the path over z1"),
    ("2.1", "-4 + 6", "6", "only the path over z2"),
    ("2.1", '"f": -3', '"f": 3', "f: the sign is flipped"),
    ("2.1", '"z2": 9', '"z2": None', "z2: not done yet"),
    ("2.2", '"d", "c", "b", "a"', '"a", "d", "c", "b"', "a comes before c"),
    ("2.2", ', "x"', "", "name each of"),
    ("2.3", "= gradient[following] +", "+=", "correct"),
    ("2.3", "[following] + g", "[following].add_(g) if following in gradient else g", "are not"),
    ("2.4", "lambda x, y: y", "lambda x, y: np.exp(x)", "correct"),
    ("2.4", "lambda x, y: y", "lambda x, y: x", "not its input"),
    ("2.4", "elementwise(a, np.exp, lambda x, y: y)", "Array(np.exp(a.value))", "no gradient"),
    ("2.4", "return ", "", "does your exp return an Array?"),
    ("2.5", "torch.logaddexp(x, torch.zeros_like(x))", "x.exp().log1p()", "forward: e^x overflows"),
    ("2.5", "grad_output * ", "", "multiply by the incoming gradient"),
    ("2.5", "torch.sigmoid(x)", "x.exp() / (1 + x.exp())", "backward: e^x overflows"),
    ("2.5", "return grad_output", "grad_output", "backward returned None"),
    ("2.5", "return grad_output * torch.sigmoid(x)", "raise NotImplementedError", "not done yet"),
    ("3.1", "optimizer.zero_grad()", "w.grad = None", "correct"),
    ("3.1", "optimizer.step()", "", "the weights do not move"),
    ("3.1", "mse(X @ w, y)", "((X @ w - y) ** 2).sum()", "the weights after training are not"),
    ("3.1", "X @ w", "X @ w.detach()", "raised RuntimeError: element 0"),
    ("3.2", "optimizer.zero_grad()", "w.grad.zero_()", "correct"),
    ("3.2", "mse(X", "optimizer.step()\n    optimizer.zero_grad()\n    return mse(X", "after back"),
    ("3.3", "(X @ w).squeeze(1), y", "X @ w, y[:, None]", "correct"),
    ("3.3", "mse((X @ w).squeeze(1)", "w.data = w.data.flatten()\n    mse(X @ w", "the shape of"),
    ("3.4", "w -= 0.1 * w.grad", "return (w - 0.1 * w.grad).requires_grad_()", "correct"),
    ("3.4", "w.grad = None", "", "all later steps are too long"),
    ("3.4", "with torch.no_grad()", "if True", "`w -= 0.1 * w.grad`, raised RuntimeError: a leaf"),
    ("3.4", "return w", "", "returned None"),
    ("3.5", "loss.item()", "loss.detach()", "correct"),
    ("3.5", "loss.item()", "loss.clone()", "memory grows"),
    ("3.5", "loss.item()", "loss.item() / 6", "the list is not: the shape is right"),
    ("3.6", "torch.sigmoid(X @ W) - 0.5", "torch.tanh(X @ W / 2) / 2", "correct"),
    ("3.6", " - 0.5", "\n    hidden.data -= 0.5", ".data hides"),
    ("3.6", " - 0.5", ".detach() - 0.5", "W does not move"),
    ("3.6", " - 0.5", "", "are not right"),
    ("3.7", "torch.where(size > 1, size, 1.0)", "size + 1e-14", "correct"),
    ("3.7", "safe.sqrt()", "size.sqrt()", "the weights are nan"),
    ("3.7", "(w**2).sum()", "(w**2).sum().item()", "the penalty does not contribute"),
    ("3.8", "ModuleList(", "Sequential(*", "correct"),
    ("3.8", "layer(x).tanh()", "layer(x)", "another function"),
    ("3.8", "in self.hidden", "in self.hidden[:1]", "only 4 of 6"),
    ("4.1", "rho * w", "w.mul_(rho)", "correct, but your code changes"),
    ("4.1", " + rho * w", "", "the penalty has a gradient too"),
    ("4.1", " / len(y)", "", "the first term is too large"),
    ("4.1", "+ rho", "+ 2 * rho", "the penalty counts twice"),
    ("4.1", "len(y)", "n", "(it reads n from outside"),
    ("4.2", "(curvatures[0] + curvatures[-1])", "curvatures[-1]", "steepest direction"),
    ("4.2", "2 / (curvatures[0] + curvatures[-1])", "1 / curvatures[-1]", "not the fastest"),
    ("4.2", " / len(X)", "", "too small by a factor of n"),
    ("4.3", "X.square().mean(0).sqrt()", "X.abs().amax(0)", "correct"),
    ("4.3", "y) / scale", "y)", "convert the weights back"),
    ("4.3", "y) / scale", "y) * scale", "the wrong way"),
    ("4.3", "return fit(X", "return fit((X - X.mean(0))", "centering"),
    ("4.4", "c.sqrt()", "c", "the weights get squared"),
    ("4.4", "c.sqrt()", "c**0", "are not used"),
    ("4.4", "root * y", "y", "y is not"),
    ("4.4", ".solution", "", "check cannot use"),
    ("5.1", "torch.sigmoid(X @ w)", "X @ w", "the sigmoid is missing"),
    ("5.1", "torch.sigmoid(X @ w)", "(X @ w > 0)", "Subtraction"),
    ("5.2", "double", "half", "correct, but only to the digits of torch.float16"),
    ("5.2", ".squeeze(1)", "", "every image with every label"),
    ("5.2", "> 0", "> 0.5", "not 0.5"),
    ("5.2", "mean", "sum", "too large by a factor of n"),
    ("5.3", "parameter -=", "parameter +=", "the sign of the update is flipped"),
    ("5.3", "parameter.grad = None", "", "all later steps are too long"),
    ("5.3", "parameter -=", "parameter = parameter -", "the weights do not move"),
    ("5.3", "return loss.item()", "", "return the loss"),
    ("5.3", "loss.item()", "2 * loss.item()", "the step is right, the loss: twice"),
    ("5.3", "model(X)", "model(X).sigmoid()", "the sigmoid is applied twice"),
    ("5.3", "_with_logits(model(X)", "(model(X).sigmoid()", "give the loss logits"),
    ("5.4", "torch.outer(dz, w2)", "dz[:, None] * w2", "correct"),
    ("5.4", "torch.sigmoid(z)", "z", "dz: the sigmoid is missing"),
    ("5.4", " / len(y)", "", "dz: too large by a factor of n"),
    ("5.4", "dz.sum()", "dz", "db2: the shape is (7,), expected ()"),
    ("5.4", "dh * (1 - h**2)", "dh", "da: the derivative of tanh is missing"),
    ("5.4", "1 - h**2", "1 - torch.tanh(h) ** 2", "da: h is the tanh already"),
    ("5.4", "X.T @ da", "X.T @ dh", "dW1: start from da"),
    ("5.4", "da.sum(dim=0)", "dh.sum(dim=0)", "db1: start from da"),
    ("5.4", "return dz, dw2, db2", "return dz, dw2, None", "db2: not done yet"),
    ("5.4", "return dz, ", "return ", "return one tuple of seven gradients"),
    ("6.1", "math.ceil", "int", "one row too few"),
    ("6.1", "math.ceil", "", "a batch size is an integer"),
    ("6.1", "n * variance / (variance + (n - 1) * target)", "variance / target", "repetition"),
    ("6.1", " * full.norm()", "", "the length of the full gradient"),
    ("6.2", "observed.sum()", "len(observed)", "of observed rows, not of all"),
    ("6.2", "X[observed] @ w - y[observed]", "X @ w - y", "nan"),
    ("6.2", "sum() / (2 * total)", "mean() / (2 * len(parts))", "the parts count alike"),
    ("6.3", ") ** 2", ")", "the factor per step"),
    ("6.3", " ** 0.5", "", "take the root of mu/L"),
    ("6.4", "X.T @ (X @ w - y)", "X.T @ X @ w - X.T @ y", "correct"),
    ("6.4", "(X @ w - y)", "(X @ w - y) / len(y) * total / group.size()", "a mean of means"),
    ("6.4", "(X @ w - y)", "(X @ w - y) / len(y) * total", "added up and not divided"),
    ("6.4", "g / total", "g", "is not divided by their number"),
    ("6.4", "group.allreduce([g])", "group.allreduce([X @ w - y])", "one worker all-reduces"),
    ("6.4", "group.allreduce([g]).wait()", "", "the replicas part in step 1"),
    ("6.4", "group.allreduce([g])", "g if rank else group.allreduce([g])", "the same calls"),
]


def keep_the_graph(w, X, y):
    F.mse_loss(X @ w, y).backward()
    w = w - 0.1 * w.grad
    w.retain_grad()
    return w


def step_with_sgd(model, X, y, lr):
    optimizer = torch.optim.SGD(model.parameters(), lr)
    optimizer.zero_grad()
    loss = bce(model(X), y)
    loss.backward()
    optimizer.step()
    return loss


def try_all_sizes(rows, tolerance):
    n, full = len(rows), rows.mean(0)
    spreads = [((n - b) / (n - 1) * rows.var(0, False).sum() / b) ** 0.5 for b in range(1, n + 1)]
    return 1 + sum(spread > tolerance * full.norm() for spread in spreads)


WRITTEN = [  # exercise, a student's function, the verdict
    ("1.1", lambda x: x * (8 * x**2 - 10) + 3, "correct"),
    ("1.1", lambda x: [8 * t**3 - 10 * t + 3 for t in x.tolist()], "correct"),
    ("1.1", lambda x: 8 * x.numpy() ** 3 - 10 * x.numpy() + 3, "correct"),
    ("1.1", lambda x: x[:2], "the shape is (2,), expected (7,)"),
    ("1.1", lambda x: ..., "not done yet"),
    ("1.1", lambda x: print(x), "returned None"),
    ("1.1", lambda x: x * 1j, "real numbers are needed, not torch.complex128"),
    ("1.1", lambda x: x.mean, "real numbers are needed, not builtin"),
    ("1.1", lambda x: exit(), "raised SystemExit"),
    ("1.1", lambda: 1, "check cannot call your function"),
    ("1.1", 7, "check cannot call your function"),
    ("1.2", lambda f, x: torch.func.vmap(torch.func.grad(f))(x), "correct"),
    ("1.2", lambda f, x: (f(x + 1e-3) - f(x - 1e-3)) / 2e-3, "almost right"),
    ("1.3", lambda F, x: torch.func.jacrev(F)(x).tolist(), "correct"),
    ("1.4", lambda f, x: x - torch.func.grad(f)(x) / torch.func.hessian(f)(x), "correct"),
    ("1.5", lambda f, x, g: relative_error(numerical_gradient(f, x), g) < 1e-6, "correct"),
    ("2.2", lambda: np.array([*"fdbcax"]), "correct"),
    ("2.2", lambda: reversed("xabcdf"), "correct"),
    ("2.5", F.softplus, "correct"),
    ("2.5", lambda x: x.clamp(max=9).exp().log1p(), "forward: the shape is right, the numbers"),
    ("2.5", lambda x: np.logaddexp(0, x.detach().numpy()), "forward: return a tensor"),
    ("3.4", keep_the_graph, "the graph behind w grows"),
    ("4.1", lambda X, y, w, rho: (X @ w - y) @ X / len(y) + rho * w, "correct"),
    ("4.2", lambda X: 2 * len(X) / (torch.linalg.svdvals(X)[[0, 2]] ** 2).sum(), "correct"),
    ("4.3", lambda X, y: torch.linalg.lstsq(X, y).solution, "correct"),
    ("4.4", lambda X, y, c: torch.linalg.solve(X.T @ c.diag() @ X, X.T @ (c * y)), "correct"),
    ("5.1", lambda X, y, w: torch.func.grad(lambda w: bce(X @ w, y))(w), "correct"),
    ("5.2", lambda z, y: 1 - (z[:, 0].sigmoid().round() - y).abs().mean(), "correct"),
    ("5.2", lambda z, y: ((z[:, 0] > 0) == y).float().mean().item(), "correct"),
    ("5.3", step_with_sgd, "correct"),
    ("6.1", try_all_sizes, "correct"),
    ("6.2", lambda w, p: sum(A[o].T @ (A[o] @ w - b[o]) for A, b, o in p) / 5, "correct"),
    ("6.3", lambda L, mu: round(1 + mu / L - 2 * (mu / L) ** 0.5, 3), "correct"),
    ("6.3", lambda L, mu: ((L**0.5 - mu**0.5) / (L**0.5 + mu**0.5)) ** 2, "another learning rate"),
    ("9.9", abs, "no such exercise"),
]


@cache
def lesson(number: str) -> dict:
    """Return what the notebook of an exercise imports and defines; its examples do not run."""
    (path,) = ROOT.glob(f"notebooks/0{number[0]}_*.ipynb")
    names: dict = {"n": 40}  # as an earlier section may leave it
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code" or "setup" in cell.metadata.get("tags", []):
            continue
        for part in ast.parse(cell.source).body:
            wanted = isinstance(part, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
            if isinstance(part, ast.Assign):
                formula = isinstance(part.value, ast.Lambda) and not part.value.args.defaults
                wanted = formula or "Array." in ast.unparse(part.targets[0])
            if wanted:
                exec(compile(ast.unparse(part), path.name, "exec"), names)
    return names


def cells(tag: str) -> dict[str, NotebookNode]:
    """Return the cells of all notebooks with this tag, by the number of their exercise."""
    found = {}
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and tag in cell.metadata.get("tags", []):
                found[re.search(r'^check\("([\d.]+)"', cell.source, re.M)[1]] = cell
    return found


STUBS, SOLUTIONS = cells("exercise"), cells("solution")


def run(number: str, source: str) -> None:
    """Run the cell of an exercise."""
    name = f"<{number}>"
    linecache.cache[name] = len(source), None, source.splitlines(True), name
    exec(compile(source, name, "exec"), dict(lesson(number)))


def verdict(capsys) -> str:
    """Return the verdict that check has printed, where its mark fits."""
    mark, said = re.search(r"^Exercise \d\.\d: (.) (.*)$", capsys.readouterr().out, re.M).groups()
    assert mark == ("✓" if said.startswith("correct") else "○" if "not done yet" in said else "✗")
    return said


def assert_it_is(said: str, words: str) -> None:
    assert said.startswith("correct") == words.startswith("correct")
    assert words in said and (words != "correct" or said == "correct")


@pytest.mark.parametrize(("number", "old", "new", "words"), ANSWERS)
def test_a_changed_solution_is_judged(number, old, new, words, capsys):
    source = SOLUTIONS[number].source
    assert old in source
    run(number, source.replace(old, new))
    assert_it_is(verdict(capsys), words)


@pytest.mark.parametrize(("number", "attempt", "words"), WRITTEN)
def test_a_function_is_judged(number, attempt, words, capsys):
    check(number, attempt)
    assert_it_is(verdict(capsys), words)
    assert passed(number, attempt) == words.startswith("correct")


@pytest.mark.parametrize("number", EXERCISES)
def test_solutions_are_correct_and_stubs_are_not_done_yet_as_stored(number, capsys):
    run(number, SOLUTIONS[number].source)
    assert verdict(capsys) == "correct"
    run(number, STUBS[number].source)
    said = verdict(capsys)
    assert "not done yet" in said and said in STUBS[number].outputs[0].text


@pytest.mark.parametrize("attempt", [None, lambda *args: "a", lambda *args: [], lambda *a: abs])
@pytest.mark.parametrize("exercise", EXERCISES)
def test_check_never_raises(exercise, attempt, capsys):
    check(exercise, attempt)
    assert not verdict(capsys).startswith("correct")


def test_check_asks_the_same_every_time_and_leaves_the_global_generator_alone():
    state, asked = torch.get_rng_state(), [[], []]
    for questions in asked:
        for exercise in sorted(EXERCISES.keys() - {"6.4"}):  # its workers ask in any order
            check(exercise, lambda *args, q=questions: q.extend(map(torch.is_tensor, args)))
    assert asked[0] == asked[1] and torch.equal(state, torch.get_rng_state())


X64 = torch.tensor([0.7, -1.3, 2.1], dtype=torch.float64)


@pytest.mark.parametrize("x", [X64, X64.float(), X64.numpy(), torch.tensor([[1, 2], [3, 4]]).T])
def test_numerical_gradient_is_the_gradient(x):
    exact = torch.as_tensor(x).double()
    wanted = 8 * exact**3 - 10 * exact + 3
    found = numerical_gradient(lambda x: (2 * x**4 - 5 * x**2 + 3 * x).sum(), x)
    assert relative_error(found, wanted) < 1e-9
    assert relative_error(found, wanted + 1e-3) > 1e-6


def test_numerical_gradient_far_from_zero():
    found = numerical_gradient(lambda x: (x - 1e12).sum(), torch.tensor([1e12]))
    assert found.item() == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize(
    ("f", "x", "error", "words"),
    [
        (torch.sum, X64 + 1j, TypeError, "real numbers are needed, not torch.complex128"),
        (torch.sum, "x", TypeError, "real numbers are needed, not str"),
        (torch.sin, X64, ValueError, r"one number, not shape \(3,\)"),
        (lambda x: (1j * x).sum(), X64, TypeError, "real numbers"),
        (lambda x: None, X64, TypeError, "real numbers are needed, not NoneType"),
    ],
)
def test_numerical_gradient_says_what_it_cannot_use(f, x, error, words):
    with pytest.raises(error, match=words):
        numerical_gradient(f, x)


def test_relative_error():
    zero = torch.zeros(3)
    assert relative_error(zero, zero) == 0 and relative_error(zero, torch.ones(3)) == 1
    assert relative_error(torch.tensor([2, -4]), np.array([2.0, -5.0])) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="different shapes"):
        relative_error(zero, zero[:, None])
    with pytest.raises(TypeError, match="complex"):
        relative_error(X64 + 1j, X64 + 2j)
