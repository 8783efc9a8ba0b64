"""Verdicts on right and wrong answers to every exercise; the oracles refuse wrong gradients."""

import ast
import linecache
import re
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from students import (
    accumulated,
    accumulated_by_autograd,
    accuracy,
    agrees,
    backward,
    backward_by_autograd,
    bce,
    by_hand,
    derivative,
    engine_exp,
    first,
    forgiving,
    g1,
    into_grad,
    jacobian,
    kept,
    linear_beyond,
    logistic,
    mse,
    network,
    newton,
    rate,
    rebind,
    rebound,
    replay,
    ridge,
    safe,
    scaled_fit,
    search,
    shifted,
    smallest,
    softplus,
    steps,
    sums_residuals,
    table,
    then,
    todo,
    training,
    weighted,
    worker,
)
from torch import nn
from torch.nn import functional as F

from utils.checks import check, numerical_gradient, passed, relative_error
from utils.course import ROOT
from utils.exercises import EXERCISES

BROKEN = {  # exercises that hand out broken code, and the symptom that check tells
    "3.1": "the first step is right, but all later steps are too long",
    "3.2": "the weights do not move",
    "3.3": "all predictions move toward the mean of y",
    "3.4": "`w = w - 0.1 * w.grad`, raised TypeError: unsupported operand type(s) for *: 'float'",
    "3.5": "the weights are right, but memory grows with every step",
    "3.6": "`mse(hidden @ w, y).backward()`, raised RuntimeError: one of the variables needed",
    "3.7": "the weights are nan",
    "3.8": "after five steps, only 2 of 6 tensors have moved",
    "4.3": "the fit diverges",
}

n = 40  # a variable of the notebook, as an earlier section may leave it

ATTEMPTS = [  # exercise, attempt, words of the verdict
    ("1.1", g1, "correct"),
    ("1.1", lambda x: [g1(t) for t in x.tolist()], "correct"),
    ("1.1", lambda x: g1(x.numpy()), "correct"),
    ("1.1", lambda x: g1(x.float()), "correct, but only to the digits of torch.float32"),
    ("1.1", then(g1, lambda x: x.mul_(10)), "correct, but your code changes"),
    ("1.1", lambda x: -g1(x), "sign"),
    ("1.1", lambda x: 2 * x**4 - 5 * x**2 + 3 * x, "g itself"),
    ("1.1", lambda x: 8 * x**3 - 10 * x, "3x is missing"),
    ("1.1", lambda x: 2 * x**3 - 5 * x + 3, "come down as a factor"),
    ("1.1", lambda x: g1(x) / 2, "half the right result"),
    ("1.1", lambda x: x.zero_() + 3, "the numbers are not"),
    ("1.1", lambda x: g1(x) + 100 * torch.relu(x - 2), "the numbers are not"),
    ("1.1", lambda x: torch.where(x.abs() < 0.3, 0, g1(x)), "the numbers are not"),
    ("1.1", lambda x: g1(x) + 1e-6, "almost right"),
    ("1.1", lambda x: 8 * x ^ 3 - 10 * x + 3, "bitwise_xor"),
    ("1.1", lambda x: print(g1(x)), "returned None"),
    ("1.1", lambda x: g1(x) * 1j, "real numbers are needed, not torch.complex128"),
    ("1.1", lambda x: x.mean, "real numbers are needed, not builtin"),
    ("1.1", lambda: 1, "check cannot call your function"),
    ("1.1", lambda x: exit(), "raised SystemExit"),
    ("1.1", 7, "check cannot call your function"),
    ("1.1", lambda x: ..., "not done yet"),
    ("1.2", lambda f, x: torch.func.vmap(torch.func.grad(f))(x), "correct"),
    ("1.2", lambda f, x: into_grad(f, x.clone().requires_grad_()), "correct"),
    (
        "1.2",
        lambda f, x: derivative(f, torch.tensor(x.tolist())),
        "correct, but only to the digits of torch.float32",
    ),
    ("1.2", lambda f, x: [derivative(f, t) for t in x], "correct"),
    ("1.2", lambda f, x: derivative(f, x, torch.mean), "too small by a factor of n"),
    ("1.2", lambda f, x: 2 * derivative(f, x), "accumulated"),
    ("1.2", lambda f, x: derivative(f, x) / 2 ** (f is torch.sin), "half the right result"),
    ("1.2", lambda f, x: into_grad(f, x.requires_grad_()), "changes the caller's x"),
    ("1.2", then(derivative, lambda f, x: x.data.zero_()), "changes the caller's x"),
    ("1.2", lambda f, x: (derivative(f, x),), "is a [0] missing?"),
    ("1.2", into_grad, "raised RuntimeError: element 0"),
    ("1.2", lambda f, x: derivative(f, x, lambda t: t), "`return torch.autograd.grad(reduce"),
    ("1.2", lambda f, x: 3 * x**2 - 3, "the numbers are not"),
    ("1.2", lambda f, x: (f(x + 1e-3) - f(x - 1e-3)) / 2e-3, "almost right"),
    ("1.3", lambda F, x: jacobian(F, x).tolist(), "correct"),
    ("1.3", lambda F, x: [*jacobian(F, x)], "correct"),
    ("1.3", lambda F, x: jacobian(F, x).T, "transposed"),
    ("1.3", lambda F, x: jacobian(F, x, reset=id), "accumulates"),
    ("1.3", lambda F, x: jacobian(F, x, id, keep=lambda g: g), "the same tensor .grad"),
    ("1.3", lambda F, x: jacobian(F, x, lambda x: x.grad.zero_(), id and (lambda g: g)), "same"),
    ("1.3", lambda F, x: derivative(F, x), "summed into one"),
    ("1.3", lambda F, x: jacobian(F, x)[0, :2], "the shape is (2,)"),
    ("1.4", newton(lambda x, s, c: x.sub_(s / c)), "correct, but your code changes"),
    ("1.4", lambda f, x: newton()(f, x).item(), "correct"),
    ("1.4", newton(lambda x, s, c: x.sub_(s / c) - s / c), "the number is not"),
    ("1.4", lambda f, x: x - g1(x) / (24 * x**2 - 10), "the number is not"),
    ("1.4", newton(lambda x, s, c: x + s / c), "wrong sign"),
    ("1.4", newton(lambda x, s, c: -s / c), "only the step: add"),
    ("1.4", newton(lambda x, s, c: s / c), "only the step: subtract"),
    ("1.4", newton(lambda x, s, c: x - s), "not divided by the curvature"),
    ("1.4", lambda f, x: x - f(x) / derivative(f, x), "f = 0"),
    ("1.5", agrees(), "correct"),
    ("1.5", lambda *args: torch.tensor(agrees()(*args)), "correct"),
    ("1.5", agrees(lambda a, b: relative_error(a.abs(), b.abs())), "wrong sign"),
    ("1.5", agrees(lambda a, b: (a - b)[0].abs()), "last entry is wrong"),
    ("1.5", agrees(lambda a, b: (a - b)[-1].abs()), "first entry is wrong"),
    ("1.5", agrees(lambda a, b: (a - b).sum().abs()), "two entries swapped"),
    ("1.5", agrees(lambda a, b: relative_error(a, b) / 1e3), "off by 1e-4"),
    ("1.5", agrees(h=1e-14), "False to the true gradient"),
    ("1.5", lambda f, x, claimed: True, "True to a gradient"),
    ("1.5", lambda f, x, claimed: relative_error(numerical_gradient(f, x), claimed), "True to"),
    ("2.1", lambda: table(df_dx=(torch.tensor(2.0),), df_dy=Fraction(3), z1=[-12]), "correct"),
    ("2.1", lambda: table(z2=None), "z2: not done yet"),
    ("2.1", lambda: table(f=3), "f: the sign is flipped"),
    ("2.1", lambda: table(df_dx=6), "only the path over z2"),
    ("2.1", lambda: table(df_dx=-4), "only the path over z1"),
    ("2.1", lambda: table(dz1_dy=-4), "dz1/dy: the number is not right"),
    ("2.1", lambda: (-12, 9, -3), "return the whole table"),
    ("2.2", lambda: "fdbcax", "correct"),
    ("2.2", lambda: reversed("xabcdf"), "correct"),
    ("2.2", lambda: dict.fromkeys("fdcbax").keys(), "correct"),
    ("2.2", lambda: np.array([*"fdcbax"]), "correct"),
    ("2.2", lambda: (name for name in "fadbcx"), "a comes before c"),
    ("2.2", lambda: "fdcax", "each of f, a, b, c, d and x once"),
    ("2.2", lambda: 6, "check cannot use"),
    ("2.3", replay(lambda g: g), "correct"),
    ("2.3", replay(lambda g: 2 * g), "twice"),
    ("2.3", replay(lambda g: g + 1), "the numbers are not"),
    ("2.3", lambda f: {}, "check cannot use"),
    ("2.4", engine_exp(lambda x: x * np.exp(x)), "correct"),
    ("2.4", engine_exp(np.exp), "incoming gradient"),
    ("2.4", engine_exp(lambda x: x * x), "not its input"),
    ("2.4", engine_exp(lambda x: 0 * x), "no gradient reaches a"),
    ("2.4", engine_exp(lambda x: np.nan * x), "does your exp return an Array?"),
    ("2.4", lambda x: engine_exp(lambda x: x * np.exp(x))(np.exp(x, out=x)), "the numbers are not"),
    ("2.5", softplus(), "correct"),
    ("2.5", F.softplus, "correct"),
    ("2.5", linear_beyond(2), "forward: "),
    ("2.5", linear_beyond(10), "forward: "),
    ("2.5", softplus(lambda x: x.exp().log1p()), "forward: e^x overflows"),
    ("2.5", softplus(slope=lambda x: x.exp() / (1 + x.exp())), "backward: e^x overflows"),
    ("2.5", softplus(slope=lambda x: torch.where(x > 2, 1, x.sigmoid())), "backward: "),
    ("2.5", softplus(rule=lambda g, s: s), "multiply by the incoming gradient"),
    ("2.5", softplus(rule=lambda g, s: g), "that is the incoming gradient alone"),
    ("2.5", softplus(rule=lambda g, s: None), "backward returned None"),
    ("2.5", softplus(rule=todo), "not done yet"),
    ("2.5", softplus(rule=None), "You must implement"),
    ("2.5", softplus(lambda x: np.logaddexp(0, x.numpy())), "forward: return a tensor"),
    ("2.5", softplus(lambda x: torch.logaddexp(x.zero_(), x)), "forward: "),
    ("3.1", steps("bzs"), "do not move"),
    ("3.1", steps("zbbs"), "the weights after five steps are not right"),
    ("3.1", steps("zbs", lambda p, y: ((p - y) ** 2).sum()), "the loss is a mean"),
    ("3.1", steps("zbs", lambda p, y: -mse(p, y)), "sign"),
    ("3.1", steps("zbs", change=lambda X, w: X @ w.detach()), "raised RuntimeError: element 0"),
    ("3.2", steps("szb"), "step() must come after backward()"),
    ("3.3", steps("zbs", change=lambda X, w: (X @ w).squeeze(1)), "correct"),
    ("3.3", steps("zbs", lambda p, y: mse(p, y[:, None])), "correct"),
    ("3.3", steps("zbs", lambda p, y: ((p - y) ** 2).sum() / len(y)), "n times as fast"),
    ("3.3", steps("zbs", lambda p, y: (p - y).mean() ** 2), "square each error"),
    ("3.3", first(lambda o, w, X, y: w.squeeze_(1), steps("zbs")), "in-place operation"),
    ("3.3", first(lambda o, w, X, y: w.set_(w.data[:, 0]), steps("zbs")), "the shape of the"),
    ("3.3", steps("zbs", change=lambda X, w: None), "'NoneType'"),
    ("3.4", by_hand, "correct"),
    ("3.4", rebound(lambda w: w.detach().requires_grad_()), "correct"),
    ("3.4", rebound(lambda w: w, lambda w: w.detach().requires_grad_()), "correct"),
    ("3.4", rebound(lambda w: [w, w.retain_grad()][0]), "the graph behind w grows"),
    ("3.4", rebound(torch.Tensor.detach), "raised RuntimeError: element 0"),
    ("3.4", partial(by_hand, reset=False), "all later steps are too long"),
    ("3.4", lambda *args: print(by_hand(*args)), "returned None"),
    ("3.5", kept(torch.clone), "memory grows"),
    ("3.5", kept(torch.Tensor.item), "correct"),
    ("3.5", kept(torch.Tensor.detach), "correct"),
    ("3.5", kept(lambda loss: [loss.item()]), "the list is not: the shape is (5, 1)"),
    ("3.5", kept(lambda loss: loss.item), "check cannot use"),
    ("3.5", kept(lambda loss: loss.item() / 6), "the list is not"),
    ("3.6", shifted(lambda h: h.clone().sub_(0.5)), "correct"),
    ("3.6", shifted(lambda h: [h, h.data.sub_(0.5)][0]), ".data hides"),
    ("3.6", shifted(lambda h: [h, h.detach().sub_(0.5)][0]), "modified by an inplace operation"),
    ("3.6", shifted(lambda h: h.detach() - 0.5), "W does not move"),
    ("3.6", shifted(lambda h: h), "are not right"),
    ("3.7", forgiving(safe), "correct"),
    ("3.7", forgiving(partial(safe, other=0.0)), "correct"),
    ("3.7", forgiving(lambda size: (size + 1e-12).sqrt()), "correct"),
    ("3.7", forgiving(safe, lambda w: (w**2).sum().item() / 2), "the penalty does not contribute"),
    ("3.7", forgiving(torch.sqrt), "the weights are nan"),
    ("3.7", forgiving(safe, lambda w: (w**2).mean()), "not the mean"),
    ("3.7", forgiving(safe, lambda w: (w**2).sum()), "not halved"),
    ("3.7", forgiving(torch.sqrt, after=lambda w: w.grad.nan_to_num_()), "do not move"),
    ("3.8", network(), "correct"),
    ("3.8", network(keep=lambda layers: nn.Sequential(*layers)), "correct"),
    ("3.8", network(lambda a, b, c, x: c(a(x).tanh())), "only 4 of 6"),
    ("3.8", network(lambda a, b, c, x: c(b(a(x)))), "another function"),
    ("3.8", network(freeze=True), "only 4 of 6"),
    ("3.8", network(torch.no_grad()(lambda a, b, c, x: c(b(a(x))))), "element 0"),
    ("4.1", lambda *args: ridge()(*args).tolist(), "correct"),
    ("4.1", lambda X, y, w, r: ridge()(X, y, w, 0) + w.mul_(r), "correct, but your code changes"),
    ("4.1", ridge(penalty=0), "the penalty has a gradient too"),
    ("4.1", ridge(fit=7), "the first term is too large"),
    ("4.1", ridge(7, 7), "too large by a factor of n"),
    ("4.1", ridge(penalty=1 / 7), "only the first term is a mean"),
    ("4.1", ridge(penalty=2), "the penalty counts twice"),
    ("4.1", ridge(penalty=-1), "its gradient is added"),
    ("4.1", lambda X, y, w, rho: ridge()(X, -y, w, rho), "the numbers are not"),
    ("4.2", rate(lambda low, high: 2 / (low + high)), "correct"),
    ("4.2", rate(lambda low, high: [2 / (low + high)]), "correct"),
    ("4.2", rate(lambda low, high: 2 / high), "steepest direction never shrinks"),
    ("4.2", rate(lambda low, high: 1 / high), "not the fastest"),
    ("4.2", rate(lambda low, high: 2 / 7 / (low + high)), "too small by a factor of n"),
    ("4.2", lambda X: 2 / (X.T @ X / len(X)).trace(), "not the trace"),
    ("4.2", lambda X: 2 / sum(torch.linalg.svdvals(X)[[0, -1]]), "singular values"),
    ("4.3", scaled_fit, "correct"),
    ("4.3", lambda X, y: torch.linalg.lstsq(X, y).solution, "correct"),
    ("4.3", then(scaled_fit, lambda X, y: X.div_(2)), "correct, but your code changes"),
    ("4.3", lambda X, y: scaled_fit(X, y, norm=lambda X, dim: 8 * X.abs().amax(dim)), "correct"),
    ("4.3", partial(scaled_fit, back=0), "convert the weights"),
    ("4.3", partial(scaled_fit, back=1), "the wrong way"),
    ("4.3", lambda X, y: scaled_fit(X - X.mean(0), y), "centering"),
    ("4.3", partial(scaled_fit, num_steps=2), "the numbers are not"),
    ("4.4", lambda X, y, c: torch.linalg.solve(X.T @ c.diag() @ X, X.T @ (c * y)), "correct"),
    ("4.4", lambda X, y, c: weighted(1, 1)(X, y, c.sqrt_()), "correct, but your code changes"),
    ("4.4", first(lambda X, y, c: c.mul_(c), weighted()), "the weights get squared"),
    ("4.4", weighted(0, 0), "are not used"),
    ("4.4", weighted(0.5, 0), "y is not"),
    ("4.4", weighted(0, 0.5), "X is not"),
    ("4.4", torch.linalg.lstsq, "check cannot call"),
    ("5.1", lambda X, y, w: derivative(lambda w: bce(X @ w, y), w), "correct"),
    ("5.1", logistic(lambda z: z), "sigmoid is missing"),
    ("5.1", logistic(lambda z: (z > 0).double()), "the numbers are not"),
    ("5.1", logistic(lambda z: z > 0), "Subtraction"),
    ("5.1", lambda X, y, w: n * logistic()(X, y, w), "(it reads n from outside"),
    ("5.2", accuracy(mean=lambda right: right.float().mean().item()), "correct"),
    (
        "5.2",
        accuracy(mean=lambda right: right.half().mean()),
        "correct, but only to the digits of torch.float16",
    ),
    ("5.2", accuracy(lambda z: z > 0), "every image with every label"),
    ("5.2", accuracy(lambda z: z[:, 0] > 0.5), "not 0.5"),
    ("5.2", accuracy(lambda z: z[:, 0] < 0), "error rate"),
    ("5.2", accuracy(mean=torch.sum), "too large by a factor of n"),
    ("5.2", accuracy(lambda z: z.argmax(dim=1)), "the number is not"),
    ("5.2", accuracy(lambda z: z[:, 0].round()), "the number is not"),
    ("5.2", accuracy(mean=torch.mean), "Error: mean()"),
    ("5.3", training(), "correct"),
    ("5.3", training(update=lambda p, lr: p.add_(lr * p.grad)), "sign"),
    ("5.3", training(reset=False), "reset .grad"),
    ("5.3", training(update=lambda p, lr: p - lr * p.grad), "nothing moves"),
    ("5.3", training(result=lambda loss: None), "return the loss"),
    ("5.3", training(result=lambda loss: loss + 1), "the step is right, the loss: "),
    ("5.3", training(update=lambda p, lr: p.sub_(p.grad)), "learning rate is missing"),
    ("5.3", training(update=lambda p, lr: p.sub_(0.5 * p.grad)), "the numbers are not"),
    ("5.3", training(lambda z, y: bce(z.sigmoid(), y)), "the sigmoid is applied twice"),
    ("5.3", training(lambda z, y: F.binary_cross_entropy(z.sigmoid(), y)), "give it logits"),
    ("5.3", rebind, "in place"),
    ("5.3", lambda *args: None, "returned None"),
    ("5.4", backward(), "correct"),
    ("5.4", lambda *args: [*backward()(*args)], "correct"),
    ("5.4", backward_by_autograd, "correct"),
    ("5.4", backward(dW1=lambda v: torch.einsum("ni,nj->ij", v.X, v.da)), "correct"),
    ("5.4", backward(dz=lambda v: torch.sigmoid(v.z) - v.y), "dz: too large by a factor of n"),
    ("5.4", backward(dz=lambda v: (v.y - torch.sigmoid(v.z)) / 7), "dz: the sign"),
    ("5.4", backward(dz=lambda v: (v.z - v.y) / 7), "dz: the sigmoid is missing"),
    ("5.4", backward(dw2=lambda v: v.a.T @ v.dz), "dw2: w2 multiplies h, not a"),
    ("5.4", backward(dw2=lambda v: v.h * v.dz[:, None]), "dw2: sum over the batch"),
    ("5.4", backward(db2=lambda v: v.dz), "db2: sum over the batch"),
    ("5.4", backward(db2=lambda v: v.dz.mean()), "db2: too small by a factor of n"),
    ("5.4", backward(dh=lambda v: v.dz[:, None].expand(7, 3)), "dh: the factor w2 is missing"),
    ("5.4", backward(da=lambda v: v.dh * (1 - v.a**2)), "1 - h², not 1 - a²"),
    ("5.4", backward(da=lambda v: v.dh * (1 - v.h.tanh() ** 2)), "da: h is the tanh already"),
    ("5.4", backward(da=lambda v: v.dh), "da: the derivative of tanh is missing"),
    ("5.4", backward(da=lambda v: v.dh * v.h * (1 - v.h)), "da: that is the derivative of a sig"),
    ("5.4", backward(dW1=lambda v: v.da.T @ v.X), "dW1: the result is transposed"),
    ("5.4", backward(dW1=lambda v: v.X.T @ v.dh), "dW1: start from da"),
    ("5.4", backward(db1=lambda v: v.da), "db1: sum over the batch"),
    ("5.4", backward(db1=lambda v: v.da.sum(1)), "db1: that is the sum over the units"),
    ("5.4", lambda *args: backward()(*args)[:2] + (None,) * 5, "db2: not done yet"),
    ("5.4", lambda *args: backward()(*args)[0], "return one tuple of seven gradients"),
    ("6.1", search, "correct"),
    ("6.1", smallest(lambda n, s, t: (n * s / (s + (n - 1) * t)).ceil()), "correct"),
    ("6.1", smallest(lambda n, s, t: int(n * s / (s + (n - 1) * t))), "one row too few"),
    ("6.1", smallest(lambda n, s, t: (n * s / (s + n * t)).ceil()), "one row too few"),
    ("6.1", smallest(lambda n, s, t: 1 + (n * s / (s + (n - 1) * t)).ceil()), "one row too many"),
    ("6.1", smallest(lambda n, s, t: n * s / (s + (n - 1) * t)), "round up"),
    ("6.1", smallest(lambda n, s, t: (s / t).ceil()), "without repetition"),
    ("6.1", smallest(lambda n, s, t: (s / t).sqrt().ceil()), "the root of b"),
    ("6.1", lambda rows, tolerance: search(rows, tolerance / rows.mean(0).norm()), "the length"),
    ("6.2", accumulated(), "correct"),
    ("6.2", accumulated_by_autograd, "correct"),
    ("6.2", accumulated(lambda g, n, seen, total: g / seen / 2), "the parts count alike"),
    ("6.2", accumulated(lambda g, n, seen, total: n / 6 * g / seen), "observed rows, not by all"),
    ("6.2", accumulated(lambda g, n, seen, total: g / 6), "of observed rows, not of all"),
    ("6.2", accumulated(lambda g, n, seen, total: g), "divide by the number of observed rows"),
    ("6.2", accumulated(lambda g, n, seen, total: g / seen), "is not divided by anything"),
    ("6.2", accumulated(lambda g, n, seen, total: seen / total * g / seen), "divides by 0"),
    ("6.2", accumulated(observe=lambda y, o: o | ~o), "without a label take part"),
    ("6.2", lambda w, parts: 2 / 5 * accumulated()(w, parts[1:2]), "only the last part"),
    ("6.3", lambda L, mu: round((1 - (mu / L) ** 0.5) ** 2, 3), "correct"),
    ("6.3", lambda L, mu: 1 - (mu / L) ** 0.5, "the factor per step"),
    ("6.3", lambda L, mu: (1 - mu / L) ** 2, "take the root"),
    ("6.3", lambda L, mu: ((1 - (r := (mu / L) ** 0.5)) / (1 + r)) ** 2, "another learning rate"),
    ("6.3", lambda L, mu: (1 + (mu / L) ** 0.5) ** 2, "diverges"),
    ("6.3", lambda L, mu: 0.9, "the number is not right"),
    ("6.4", worker(), "correct"),
    ("6.4", worker(lambda rows, total, workers: 1 / rows / workers), "a mean of means"),
    ("6.4", worker(lambda rows, total, workers: 1 / rows), "added up and not divided"),
    ("6.4", worker(lambda rows, total, workers: 1 / workers), "of all rows, not of workers"),
    ("6.4", worker(lambda rows, total, workers: 1), "is not divided by their number"),
    ("6.4", worker(lambda rows, total, workers: 0), "do not move"),
    ("6.4", worker(lambda rows, total, workers: -1 / total), "the sign is flipped"),
    ("6.4", worker(skip=lambda rank, step: True), "part in step 1"),
    ("6.4", worker(skip=lambda rank, step: step == 2), "part in step 3"),
    ("6.4", worker(skip=lambda rank, step: rank == 0), "the same calls"),
    ("6.4", sums_residuals, "one worker all-reduces"),
    ("9.9", g1, "no such exercise"),
]


def verdict(capsys):
    """The one line that check has printed last."""
    return re.search(r"^Exercise \d\.\d: (.*)\n\Z", capsys.readouterr().out, re.M)[1]


@pytest.mark.parametrize(("exercise", "attempt", "words"), ATTEMPTS)
def test_the_verdict_names_the_mistake(exercise, attempt, words, capsys):
    check(exercise, attempt)
    said = verdict(capsys)
    assert said.startswith("correct") == words.startswith("correct") == passed(exercise, attempt)
    assert words in said and (words != "correct" or said == "correct")


def cells(tag):
    """The cells of all notebooks with this tag, each with its notebook."""
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and tag in cell.metadata.get("tags", []):
                number = re.search(r'^check\("([\d.]+)"', cell.source, re.M)[1]
                yield pytest.param(path, cell.source, number, id=f"{tag} {number}")


@cache
def lesson(path: Path) -> dict:
    """What a notebook imports and defines; its setup and its examples do not run."""
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    names: dict = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code" or "setup" in cell.metadata.get("tags", []):
            continue
        for part in ast.parse(cell.source).body:
            if isinstance(part, ast.Assign):
                formula = isinstance(part.value, ast.Lambda) and not part.value.args.defaults
                wanted = formula or "Array." in ast.unparse(part.targets[0])
            else:
                wanted = isinstance(part, kept)
            if wanted:
                exec(compile(ast.unparse(part), path.name, "exec"), names)
    return names


@pytest.mark.parametrize(("path", "source", "number"), [*cells("solution"), *cells("exercise")])
def test_solutions_of_the_notebooks_are_correct_and_stubs_are_not_done_yet(
    path, source, number, capsys
):
    name = f"<{number}>"
    linecache.cache[name] = len(source), None, source.splitlines(True), name
    exec(compile(source, name, "exec"), dict(lesson(path)))
    said = re.search(f"Exercise {number}: (.*)", capsys.readouterr().out)[1]
    if "# @title Solution" in source:
        assert said == "correct"
    else:
        assert "not done yet" in said and BROKEN.get(number, "") in said


@pytest.mark.parametrize("attempt", [None, lambda *args: "a", lambda *args: [], lambda *a: todo])
@pytest.mark.parametrize("exercise", EXERCISES)
def test_check_never_raises(exercise, attempt, capsys):
    check(exercise, attempt)
    assert not verdict(capsys).startswith("correct")


def test_check_asks_the_same_every_time_and_leaves_the_global_generator_alone():
    state, asked = torch.get_rng_state(), [[], []]
    for questions in asked:
        for exercise in EXERCISES:
            check(exercise, lambda *args, q=questions: q.extend(map(torch.is_tensor, args)))
    assert asked[0] == asked[1] and torch.equal(state, torch.get_rng_state())


X64 = torch.tensor([0.7, -1.3, 2.1], dtype=torch.float64)


@pytest.mark.parametrize("x", [X64, X64.float(), X64.numpy(), torch.tensor([[1, 2], [3, 4]]).T])
def test_numerical_gradient_is_the_gradient(x):
    wanted = g1(torch.as_tensor(x).double())
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
