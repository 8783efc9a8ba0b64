"""Verdicts on right and wrong answers to every exercise; the oracles refuse wrong gradients."""

import ast
import linecache
import re
from functools import cache

import nbformat
import numpy as np
import pytest
import torch

from utils.checks import check, numerical_gradient, passed, relative_error
from utils.course import ROOT

ANSWERS = [  # exercise, a piece of its solution, what a student writes instead, the verdict
    ("1.1", " + 3", "", "3x is missing"),
    ("1.1", "8 * x**3 - 10 * x + 3", "4 * x**3 - 5 * x + 1.5", "half the right result"),
    ("1.1", "8 * x**3", "8 * x^3", "line 3, `return 8 * x^3 - 10 * x + 3`, raised NotImpl"),
    ("1.2", "x.detach().clone()", "x", "the values are right, but your code changes the caller's"),
    ("1.2", "x = x", "x.grad = 0 * x\n    x = x", "your code changes the caller's tensors"),
    ("1.2", ".sum()", ".mean()", "too small by a factor of n"),
    ("1.2", "[0]", "", "is a [0] missing?"),
    ("1.3", "torch.stack(rows)", "torch.stack(rows).T", "transposed"),
    ("1.3", "torch.stack(rows)", "sum(rows)", "summed into one"),
    ("1.3", "torch.stack(rows)", "torch.stack(rows).cumsum(0)", "accumulates"),
    ("1.3", "torch.stack(rows)", "torch.stack([sum(rows)] * 2)", "the same tensor .grad"),
    ("1.3", "torch.stack(rows)", "[rows[-1], rows[-1]]", "the same tensor .grad"),
    ("1.3", "torch.stack(rows)", "[row.zero_() for row in rows]", "the same tensor .grad"),
    ("1.4", "x.detach().clone().requires_grad_()", "x.requires_grad_()", "correct, but your code"),
    ("1.4", "x - slope", "x + slope", "wrong sign"),
    ("1.4", "x - slope", "slope", "only the step"),
    ("1.4", "slope / curvature", "f(x) / slope", "looks for f = 0"),
    ("1.5", "numerical - claimed", "numerical.abs() - claimed.abs()", "of the wrong sign"),
    ("1.5", "claimed).abs().max()", "claimed).sum().abs()", "two entries swapped"),
    ("1.5", "claimed).abs().max()", "claimed)[0].abs()", "last entry"),
    ("1.5", "1e-6", "1e-5", "first entry is off by 2e-5"),
    ("1.5", "1e-5", "1e-14", "False to the true gradient"),
    ("2.1", "-4 + 6", "torch.tensor([2.0])", "correct"),
    ("2.1", "-4 + 6", "-4", "only the path over z1"),
    ("2.1", "-4 + 6", "6", "only the path over z2"),
    ("2.1", '"f": -3', '"f": 3', "f: the sign is flipped"),
    ("2.2", '"d", "c", "b", "a"', '"a", "d", "c", "b"', "a comes before c"),
    ("2.2", ', "x"', "", "name each of"),
    ("2.3", "[following] + g", "[following].add_(g) if following in gradient else g", "not right"),
    ("2.4", "lambda x, y: y", "lambda x, y: x", "not its input"),
    ("2.4", "elementwise(a, np.exp, lambda x, y: y)", "Array(np.exp(a.value))", "no gradient"),
    ("2.4", "return ", "", "does your exp return an Array?"),
    ("2.5", "torch.logaddexp(x, torch.zeros_like(x))", "x.exp().log1p()", "forward: e^x overflows"),
    ("2.5", "grad_output * ", "", "multiply by the incoming gradient"),
    ("2.5", "torch.sigmoid(x)", "x.exp() / (1 + x.exp())", "backward: e^x overflows"),
    ("2.5", "return grad_output", "grad_output", "backward returned None"),
    ("2.5", "return grad_output * torch.sigmoid(x)", "raise NotImplementedError", "not done yet"),
    ("3.1", "mse(X @ w, y)", "((X @ w - y) ** 2).sum()", "too large by a factor of n"),
    ("3.2", "mse(X", "optimizer.step()\n    optimizer.zero_grad()\n    return mse(X", "nothing"),
    ("3.3", "mse((X @ w).squeeze(1)", "w.data = w.data.flatten()\n    mse(X @ w", "the shape of"),
    ("3.4", "w -= 0.1 * w.grad", "return (w - 0.1 * w.grad).requires_grad_()", "correct"),
    ("3.4", "return w", "", "returned None"),
    ("3.4", "return w", "w = w + 0\n    w.retain_grad()\n    return w", "the graph behind w grows"),
    ("3.5", "loss.item()", "loss.detach()", "correct"),
    ("3.5", "loss.item()", "loss.item() / 6", "the weights are right; losses: the result"),
    ("3.5", "losses.append(loss.item())", "", "losses: the shape is (0,), expected (5,)"),
    ("3.6", " - 0.5", "\n    hidden.data -= 0.5", ".data hides"),
    ("3.6", " - 0.5", "", "the result is not right"),
    ("3.7", "(w**2).sum()", "(w**2).sum().item()", "the penalty does not contribute"),
    ("3.8", "layer(x).tanh()", "layer(x)", "another function"),
    ("3.8", "self.hidden = nn", "self.out = nn.Linear(4, 1)\n        self.hidden = nn", "correct"),
    ("4.1", " + rho * w", "", "the penalty has a gradient too"),
    ("4.1", " / len(y)", "", "the first term is too large"),
    ("4.1", "+ rho", "+ 2 * rho", "the penalty counts twice"),
    ("4.1", "return", "y += 1\n    y = y - 1\n    return", "correct, but your code changes the"),
    ("4.1", "len(y)", "n", "(it reads n from outside"),
    ("4.2", " / len(X)", "", "divide XᵀX by n"),
    ("4.2", "(curvatures[0] + curvatures[-1])", "curvatures[-1]", "steepest direction"),
    ("4.2", "2 / (curvatures[0] + curvatures[-1])", "1 / curvatures[-1]", "not the fastest"),
    ("4.3", "X.square().mean(0).sqrt()", "X.norm(dim=0)", "correct"),
    ("4.3", "y) / scale", "y)", "convert the weights back"),
    ("4.3", "y) / scale", "y) * scale", "the wrong way"),
    ("4.3", "return fit(X", "return fit((X - X.mean(0))", "centering"),
    ("4.4", "c.sqrt()", "c", "the weights get squared"),
    ("4.4", "root * y", "y", "y is not"),
    ("4.4", "root * y", "y / root", "y is not"),
    ("4.4", ".solution", "", "check cannot use"),
    ("5.1", "torch.sigmoid(X @ w)", "X @ w", "the sigmoid is missing"),
    ("5.2", "double", "half", "correct"),
    ("5.2", ".squeeze(1)", "", "every image with every label"),
    ("5.2", "> 0", "> 0.5", "not 0.5"),
    ("5.3", "parameter -=", "parameter = parameter -", "the weights do not move"),
    ("5.3", "loss.item()", "2 * loss.item()", "the steps are right; losses: twice"),
    ("5.3", "    return", "    parameter.data *= torch.nan\n    return", "the weights are nan"),
    ("5.3", "model(X)", "model(X).sigmoid()", "the sigmoid is applied twice"),
    ("5.3", "_with_logits(model(X)", "(model(X).sigmoid()", "give the loss logits"),
    ("5.4", "torch.sigmoid(z)", "z", "dz: the sigmoid is missing"),
    ("5.4", "dz.sum()", "dz", "db2: the shape is (7,), expected ()"),
    ("5.4", "dh * (1 - h**2)", "dh", "da: the derivative of tanh is missing"),
    ("5.4", "1 - h**2", "1 - torch.tanh(h) ** 2", "da: h is the tanh already"),
    ("5.4", "X.T @ da", "X.T @ dh", "dW1: start from da"),
    ("5.4", "da.sum(dim=0)", "dh.sum(dim=0)", "db1: start from da"),
    ("5.4", "return dz, dw2, db2", "return dz, dw2, None", "db2: not done yet"),
    ("5.4", "return dz, ", "return ", "return one tuple of seven gradients"),
    ("6.1", "(n - 1)", "n", "one row too few"),
    ("6.1", ".mean()\n    target", ".sum() / (n - 1)\n    target", "not right"),
    ("6.1", " ** 2", "", "the result is not right"),
    ("6.1", "math.ceil", "", "a batch size is an integer"),
    ("6.1", "n * variance / (variance + (n - 1) * target)", "variance / target", "repetition"),
    ("6.1", " * full.norm()", "", "the length of the full gradient"),
    ("6.2", "observed.sum()", "len(observed)", "of observed rows, not of all"),
    ("6.2", "X[observed] @ w - y[observed]", "X @ w - y", "nan"),
    ("6.2", "sum() / (2 * total)", "mean() / (2 * len(parts))", "the parts count alike"),
    ("6.3", ") ** 2", ")", "the factor per step"),
    ("6.3", " ** 0.5", "", "take the root of mu/L"),
    ("6.3", ") ** 2", ") ** 2 / (1 + (mu / L) ** 0.5) ** 2", "another learning rate"),
    ("6.4", "(X @ w - y)", "(X @ w - y) / len(y) * total / group.size()", "a mean of means"),
    ("6.4", "(X @ w - y)", "(X @ w - y) / len(y) * total", "added up and not divided"),
    ("6.4", "group.allreduce([g])", "group.allreduce([X @ w - y])", "one worker all-reduces"),
    ("6.4", "group.allreduce([g]).wait()", "", "the replicas part in step 1"),
    ("6.4", "group.allreduce([g])", "g if rank else group.allreduce([g])", "are late"),
]

WRITTEN = [  # exercise, a student's function, the verdict
    ("1.1", lambda x: [8 * t**3 - 10 * t + 3 for t in x.tolist()], "correct"),
    ("1.1", lambda x: 8 * x.numpy() ** 3 - 10 * x.numpy() + 3, "correct"),
    ("1.1", lambda x: ..., "not done yet"),
    ("1.1", lambda x: exit(), "raised SystemExit"),
    ("1.1", lambda: 1, "your code raised TypeError"),
    ("1.2", lambda f, x: (f(x + 1e-3) - f(x - 1e-3)) / 2e-3, "almost right"),
    ("1.5", lambda f, x, g: relative_error(numerical_gradient(f, x), g) < 1e-6, "correct"),
    ("2.2", lambda: reversed("xabcdf"), "correct"),
    ("2.5", lambda x: np.logaddexp(0, x.detach().numpy()), "forward: return a tensor"),
    ("6.3", lambda L, mu: [0.5], "the result is not right"),
    ("6.3", lambda L, mu: round(1 + mu / L - 2 * (mu / L) ** 0.5, 3), "correct"),
]

CELLS = [
    (path.name[1], cell)
    for path in sorted(ROOT.glob("notebooks/*.ipynb"))
    for cell in nbformat.read(path, as_version=4).cells
    if cell.cell_type == "code"
]


def cells(tag: str) -> dict[str, nbformat.NotebookNode]:
    """Return the cells with this tag, by the number of their exercise."""
    tagged = [cell for _, cell in CELLS if tag in cell.metadata.get("tags", [])]
    return {re.search(r'^check\("([\d.]+)"', cell.source, re.M)[1]: cell for cell in tagged}


STUBS, SOLUTIONS = cells("exercise"), cells("solution")


@cache
def lesson(notebook: str) -> dict:
    """Return what a notebook imports and defines; its examples do not run."""
    names: dict = {"n": 40}  # as an earlier section may leave it
    kept = [cell for number, cell in CELLS if number == notebook]
    for cell in [cell for cell in kept if "setup" not in cell.metadata.get("tags", [])]:
        for part in ast.parse(cell.source).body:
            wanted = isinstance(part, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
            if isinstance(part, ast.Assign):
                formula = isinstance(part.value, ast.Lambda) and not part.value.args.defaults
                wanted = formula or "Array." in ast.unparse(part.targets[0])
            if wanted:
                exec(ast.unparse(part), names)
    return names


def verdict(number: str, source: str, capsys) -> str:
    """Run the cell of an exercise, and return the verdict, where its mark fits."""
    name = f"<{number}>"
    linecache.cache[name] = len(source), None, source.splitlines(True), name
    exec(compile(source, name, "exec"), dict(lesson(number[0])))
    mark, said = re.search(r"\d: \S*([✓○✗])\S* (.*)$", capsys.readouterr().out, re.M).groups()
    assert mark == ("✓" if said.startswith("correct") else "○" if "not done yet" in said else "✗")
    return said


@pytest.mark.parametrize(("number", "old", "new", "words"), ANSWERS)
def test_a_changed_solution_is_judged(number, old, new, words, capsys):
    source = SOLUTIONS[number].source
    assert old in source
    said = verdict(number, source.replace(old, new), capsys)
    assert words in said and (words == "correct") == (said == "correct")
    assert ("cannot use" in said) == ("cannot use" in words)


@pytest.mark.parametrize(("number", "attempt", "words"), WRITTEN)
def test_a_function_is_judged(number, attempt, words, capsys):
    check(number, attempt)
    assert words in capsys.readouterr().out
    assert passed(number, attempt) == (words == "correct")


@pytest.mark.parametrize("number", SOLUTIONS)
def test_solutions_are_correct_and_stubs_are_not_done_yet_as_stored(number, capsys):
    assert verdict(number, SOLUTIONS[number].source, capsys) == "correct"
    said = verdict(number, STUBS[number].source, capsys)
    assert "not done yet" in said and said in STUBS[number].outputs[0].text


@pytest.mark.parametrize("attempt", [None, lambda *args: "a", lambda *args: [], lambda *a: abs])
@pytest.mark.parametrize("number", SOLUTIONS)
def test_check_never_raises(number, attempt, capsys):
    check(number, attempt)
    assert re.fullmatch(rf"Exercise {number}: \S*[○✗]\S* .*\n", capsys.readouterr().out)
    assert not passed(number, attempt)


def test_marks_have_colors(monkeypatch, capsys):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for attempt in lambda x: ..., lambda x: x, lambda x: 8 * x**3 - 10 * x + 3:
        check("1.1", attempt)
    marks = re.findall(r"(3\d)m(.)\x1b\[0m ", capsys.readouterr().out)
    assert marks == [("34", "○"), ("31", "✗"), ("32", "✓")]


def test_check_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    for number in SOLUTIONS:
        check(number, lambda *args: torch.rand(3))
    assert torch.equal(state, torch.get_rng_state())


X64 = torch.tensor([0.7, -1.3, 2.1], dtype=torch.float64)


@pytest.mark.parametrize("x", [X64, X64.float(), X64.numpy(), torch.tensor([[1, 2], [3, 4]]).T])
def test_numerical_gradient_is_the_gradient(x):
    exact = torch.as_tensor(x).double()
    found = numerical_gradient(lambda x: (2 * x**4 - 5 * x**2 + 3 * x).sum(), x)
    assert relative_error(found, 8 * exact**3 - 10 * exact + 3) < 1e-9


def test_numerical_gradient_far_from_zero():
    found = numerical_gradient(lambda x: (x - 1e12).sum(), torch.tensor([1e12]))
    assert found.item() == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize(
    ("f", "x", "error", "words"),
    [
        (torch.sum, "x", TypeError, "real numbers are needed, not str"),
        (torch.sin, X64, ValueError, r"one number, not shape \(3,\)"),
        (lambda x: (1j * x).sum(), X64, TypeError, "real numbers are needed, not torch.complex128"),
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
