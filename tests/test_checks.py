"""The oracles refuse wrong gradients; every exercise's check names the slip it is shown."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from utils.checks import EXERCISES, check, numerical_gradient, relative_error
from utils.graph import replay_backward

X64 = torch.tensor([0.7, -1.3, 2.1], dtype=torch.float64)


def g(x):
    return 2 * x**4 - 5 * x**2 + 3 * x


def jacobian(f, x, empty=True):
    rows, x = [], x.clone().requires_grad_()
    for i in range(len(f(x))):
        f(x)[i].backward()
        rows.append(x.grad.clone())
        x.grad = None if empty else x.grad
    return torch.stack(rows)


def derivative(f, x, reduce=torch.sum):
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(reduce(f(x)), x)[0]


def derivative_into_grad(f, x):
    f(x).sum().backward()
    return x.grad


def newton(f, x, sign=-1):
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(f(x), x, create_graph=True)
    return x + sign * slope / torch.autograd.grad(slope, x)[0]


def training_step(
    model, X, y, lr, sign=-1, empty=True, first=False, probabilities=False, parameters=2
):
    loss = F.binary_cross_entropy_with_logits(model(X), y)
    if probabilities:
        loss = F.binary_cross_entropy(torch.sigmoid(model(X)), y)
    loss.backward()
    with torch.no_grad():
        for p in list(model.parameters())[:parameters]:
            p.grad = torch.zeros_like(p) if first else p.grad
            p += sign * lr * p.grad
            p.grad = None if empty else p.grad
    return loss.item()


def mse(prediction, y):
    return ((prediction - y) ** 2).mean()


def in_order(actions, loss=mse, change=lambda X, w: X @ w):
    """One round of training: z empties the gradients, b goes forward and backward, s steps."""

    def one_round(optimizer, w, X, y):
        for action in actions:
            if action == "b":
                loss(change(X, w), y).backward()
            else:
                {"z": optimizer.zero_grad, "s": optimizer.step}[action]()

    return one_round


def late_step(optimizer, w, X, y):
    loss = mse(X @ w, y)
    optimizer.step()
    optimizer.zero_grad()
    loss.backward()


def reshape_the_weights(optimizer, w, X, y):
    w.data = w.data.reshape(3)
    in_order("zbs")(optimizer, w, X, y)


def by_hand(w, X, y, update="in place", empty=True):
    mse(X @ w, y).backward()
    if update == "in place":
        with torch.no_grad():
            w -= 0.1 * w.grad
    elif update == "recorded":
        w -= 0.1 * w.grad
    elif update == "detached":
        w = (w - 0.1 * w.grad).detach().requires_grad_()
    elif update == "unmarked":
        w = (w - 0.1 * w.grad).detach()
    else:
        w = w - 0.1 * w.grad
        if update == "retained":
            w.retain_grad()
    w.grad = None if empty and w.is_leaf else w.grad
    return w


def kept(keep, clear=False):
    def one_round(optimizer, w, X, y, losses):
        if clear:
            losses.clear()
        optimizer.zero_grad()
        loss = mse(X @ w, y)
        loss.backward()
        optimizer.step()
        losses.append(keep(loss))

    return one_round


def shifted(shift):
    def one_round(optimizer, W, w, X, y):
        optimizer.zero_grad()
        mse(shift(torch.sigmoid(X @ W)) @ w, y).backward()
        optimizer.step()

    return one_round


def write(hidden, through):
    through(hidden).sub_(0.5)
    return hidden


def forgiving(root, penalty, after=lambda w: None):
    def one_round(optimizer, w, X, y):
        optimizer.zero_grad()
        size = (X @ w - y).abs()
        fit = torch.where(size > 1, 4 * root(size) - 3, size**2).mean()
        (fit + penalty(w)).backward()
        after(w)
        optimizer.step()

    return one_round


def with_penalty(fit):
    def one_round(optimizer, w, X, y):
        in_order("zbs", lambda p, y: fit(p, y) + half_square(w))(optimizer, w, X, y)

    return one_round


def safe_root(size):
    return torch.where(size > 1, size, 1.0).sqrt()


def half_square(w):
    return (w**2).sum() / 2


def logistic(X, y, w, n=True):
    gradient = X.T @ (torch.sigmoid(X @ w) - y)
    return gradient / len(y) if n else gradient


def logistic_by_autograd(X, y, w):
    w = w.clone().requires_grad_()
    return torch.autograd.grad(F.binary_cross_entropy_with_logits(X @ w, y), w)[0]


def confusion(predicted, actual):
    return torch.bincount(2 * actual + predicted, minlength=4).reshape(2, 2)


def table(**changed):
    right = {"z1": -12, "z2": 9, "f": -3, "df_dz1": 1, "df_dz2": 1, "dz1_dx": -4, "dz1_dy": 3}
    right |= {"dz2_dx": 6, "df_dx": 2, "df_dy": 3}
    return {name.replace("_", "/"): value for name, value in (right | changed).items()}


def engine_exp(x, rule=lambda x, g: g * np.exp(x)):
    """Value and gradients of the sum of a exp(a), as the engine of notebook 02 would give them."""
    return (x * np.exp(x)).sum(), [np.exp(x) + rule(x, x)]


class Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, slope=torch.sigmoid):
        ctx.save_for_backward(slope(x))
        return torch.logaddexp(x, 0 * x)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0], None


class Unscaled(Softplus):
    @staticmethod
    def backward(ctx, g):
        return ctx.saved_tensors[0], None


def ridge(X, y, w, lam, fit=1.0, penalty=1.0):
    return fit * X.T @ (X @ w - y) / len(y) + penalty * lam * w


def ridge_by_autograd(X, y, w, lam):
    f = lambda w: ((X @ w - y) ** 2).mean() / 2 + lam / 2 * w @ w  # noqa: E731
    return torch.func.grad(f)(w)


def curvatures(X):
    return torch.linalg.eigvalsh(X.T @ X / len(X))


def scaled_fit(X, y, back=-1, num_steps=500, norm=torch.linalg.vector_norm):
    scale = norm(X, dim=0) / len(X) ** 0.5
    w = torch.zeros_like(X[0])
    for _ in range(num_steps):
        w = w - 0.5 * (X / scale).T @ (X / scale @ w - y) / len(y)
    return w * scale**back


def diverging_fit(X, y, lr=0.5):
    return scaled_fit(X, y, num_steps=50, norm=lambda X, dim: X[0] ** 0 * lr)


def weighted(X, y, c, x_power=0.5, y_power=0.5):
    return torch.linalg.lstsq(c[:, None] ** x_power * X, c**y_power * y).solution


def weighted_normal_equations(X, y, c):
    return torch.linalg.solve(X.T @ torch.diag(c) @ X, X.T @ (c * y))


def without_return(w, X, y):
    by_hand(w, X, y)


ATTEMPTS = [
    ("1.1", lambda x: 8 * x**3 - 10 * x + 3, "correct"),
    ("1.1", lambda x: -8 * x**3 + 10 * x - 3, "sign"),
    ("1.1", g, "g itself"),
    ("1.1", lambda x: 8 * x**3 - 10 * x, "3x is missing"),
    ("1.1", lambda x: 2 * x**3 - 5 * x + 3, "exponents"),
    ("1.1", lambda x: 4 * x**3 - 5 * x + 1.5, "half the right value"),
    ("1.1", lambda x: 8 * x**2, "the numbers are not"),
    ("1.1", lambda x: float("nan") * x, "the numbers are not"),
    ("1.2", derivative, "correct"),
    ("1.2", lambda f, x: derivative(f, x, torch.mean), "factor n"),
    ("1.2", lambda f, x: 2 * derivative(f, x), "accumulated"),
    ("1.2", lambda f, x: (1 + x.requires_grad) * derivative(f, x), "twice the right value"),
    ("1.2", lambda f, x: derivative(f, x) / 2 ** (f is torch.sin), "half the right value"),
    ("1.2", derivative_into_grad, "raised RuntimeError"),
    ("1.2", lambda f, x: derivative_into_grad(f, x.requires_grad_()), "x is changed"),
    ("1.2", lambda f, x: torch.autograd.grad(f(x).sum(), x)[0], "raised RuntimeError"),
    ("1.2", lambda f, x: 3 * x**2 - 3, "the numbers are not"),
    ("1.2", lambda f, x: (derivative(f, x),), "return one tensor"),
    ("1.2", lambda f, x: derivative(f, x, lambda t: t), "raised RuntimeError"),
    ("1.3", jacobian, "correct"),
    ("1.3", lambda f, x: jacobian(f, x).T, "transposed"),
    ("1.3", lambda f, x: jacobian(f, x, empty=False), "accumulates"),
    ("1.3", lambda f, x: jacobian(f, x).sum(0), "rows are added up"),
    ("1.3", lambda f, x: jacobian(f, x).sum(0).expand(2, 3), "all rows are one tensor"),
    ("1.3", lambda f, x: jacobian(f, x)[0, :2], "the shape is (2,)"),
    ("1.4", newton, "correct"),
    ("1.4", lambda f, x: newton(f, x, sign=1), "wrong sign"),
    ("1.4", lambda f, x: newton(f, x) - x, "the step alone"),
    ("1.4", lambda f, x: x - derivative(f, x), "not divided by the curvature"),
    ("1.4", lambda f, x: x - f(x) / derivative(f, x), "f = 0"),
    ("2.1", table, "correct"),
    ("2.1", lambda: table(z2=None), "z2: not done yet"),
    ("2.1", lambda: table(z2=None, df_dx=6), "df/dx: only the path over z2"),
    ("2.1", lambda: table(f=3), "f: the sign is flipped"),
    ("2.1", lambda: table(dz1_dx=3), "dz1/dx: that is the derivative with respect to y"),
    ("2.1", lambda: table(dz1_dy=-4), "dz1/dy: that is the derivative with respect to x"),
    ("2.1", lambda: table(dz2_dx=9), "dz2/dx: that is the value"),
    ("2.1", lambda: table(df_dx=6), "only the path over z2"),
    ("2.1", lambda: table(df_dx=-4), "only the path over z1"),
    ("2.1", lambda: table(df_dy=4), "df/dy: the number is not right"),
    ("2.2", lambda: ["f", "d", "c", "b", "a", "x"], "correct"),
    ("2.2", lambda: "fdcbax", "correct"),
    ("2.2", lambda: "fdbcax", "not PyTorch's"),
    ("2.2", lambda: "fadbcx", "a is visited before c"),
    ("2.2", lambda: "xabcdf", "x is visited before a"),
    ("2.2", lambda: "fdcax", "each of f, a, b, c, d and x once"),
    ("2.3", lambda f: replay_backward(f).grads, "correct"),
    ("2.3", lambda f: {x: 2 * g for x, g in replay_backward(f).grads.items()}, "twice"),
    (
        "2.3",
        lambda f: {x: g + 1 for x, g in replay_backward(f).grads.items()},
        "the numbers are not",
    ),
    ("2.4", engine_exp, "correct"),
    ("2.4", lambda x: engine_exp(x, lambda x, g: np.exp(x)), "incoming gradient"),
    ("2.4", lambda x: engine_exp(x, lambda x, g: g * x * np.exp(x)), "power rule"),
    ("2.4", lambda x: engine_exp(x, lambda x, g: g * x), "not its input"),
    ("2.4", lambda x: engine_exp(x, lambda x, g: g), "passes unchanged"),
    ("2.4", lambda x: engine_exp(x, lambda x, g: 0 * g), "no gradient comes back"),
    ("2.5", lambda x: Softplus.apply(x), "correct"),
    ("2.5", F.softplus, "correct"),
    ("2.5", lambda x: x.exp().log1p(), "forward: the shape is right, the numbers are not"),
    ("2.5", torch.sigmoid, "forward"),
    ("2.5", lambda x: Unscaled.apply(x), "multiply by the incoming gradient"),
    ("2.5", lambda x: Softplus.apply(x, torch.ones_like), "that is the incoming gradient alone"),
    ("2.5", lambda x: Softplus.apply(x, lambda x: -torch.sigmoid(x)), "backward: the sign"),
    (
        "2.5",
        lambda x: Softplus.apply(x, lambda x: torch.sigmoid(x) * torch.sigmoid(-x)),
        "derivative of the sigmoid",
    ),
    ("3.1", in_order("bs"), "not done yet: each step adds"),
    ("3.1", in_order("zbs"), "correct"),
    ("3.1", in_order("bsz"), "correct"),
    ("3.1", in_order("bzs"), "do not move"),
    ("3.1", lambda o, w, *d: in_order("bs")(torch.optim.SGD([w], 0.1), w, *d), "each step adds"),
    ("3.1", in_order("zbs", lambda p, y: ((p - y) ** 2).sum()), "not the sum"),
    ("3.1", in_order("zbs", lambda p, y: -mse(p, y)), "sign"),
    ("3.2", in_order("bzs"), "not done yet: the weights do not move"),
    ("3.2", in_order("bsz"), "correct"),
    ("3.2", in_order("zbs"), "correct"),
    ("3.2", in_order("bs"), "each step adds"),
    ("3.2", in_order("szb"), "step must come after backward"),
    ("3.3", in_order("zbs"), "not done yet: every prediction"),
    ("3.3", in_order("zbs", change=lambda X, w: (X @ w).squeeze(1)), "correct"),
    ("3.3", in_order("zbs", lambda p, y: mse(p, y[:, None])), "correct"),
    ("3.3", in_order("zbs", lambda p, y: mse(p, y[None])), "every prediction"),
    ("3.3", in_order("zbs", lambda p, y: ((p - y) ** 2).sum() / len(y)), "the scale only"),
    ("3.3", in_order("zbs", lambda p, y: (p - y).mean() ** 2), "the mean error"),
    ("3.4", lambda *a: by_hand(*a, update="rebound"), "not done yet: the update finds"),
    ("3.1", late_step, "the gradient of the round before"),
    ("3.3", reshape_the_weights, "another shape than at the start"),
    ("3.4", without_return, "not done yet\n"),
    ("3.4", by_hand, "correct"),
    ("3.4", lambda *a: by_hand(*a, update="detached"), "correct"),
    ("3.4", lambda *a: by_hand(*a, update="retained"), "a graph that grows"),
    ("3.4", lambda *a: by_hand(*a, update="recorded"), "torch.no_grad()"),
    ("3.4", lambda *a: by_hand(*a, update="unmarked"), "still require a gradient?"),
    ("3.4", lambda *a: by_hand(*a, empty=False), "each step adds"),
    ("3.5", kept(lambda loss: loss), "not done yet: the weights are right"),
    ("3.5", kept(torch.Tensor.item), "correct"),
    ("3.5", kept(torch.Tensor.detach), "correct"),
    ("3.5", kept(torch.Tensor.clone), "keep their graphs"),
    ("3.5", kept(torch.Tensor.item, clear=True), "the list of losses is not"),
    ("3.5", kept(lambda loss: loss.item() / 6), "the list of losses is not"),
    ("3.6", shifted(lambda h: write(h, lambda h: h)), "not done yet: a value"),
    ("3.6", shifted(lambda h: h - 0.5), "correct"),
    ("3.6", shifted(lambda h: write(h.clone(), lambda h: h)), "correct"),
    ("3.6", shifted(lambda h: write(h, lambda h: h.data)), ".data hides"),
    ("3.6", shifted(lambda h: write(h, torch.Tensor.detach)), "not done yet: a value"),
    ("3.6", shifted(lambda h: h.detach() - 0.5), "W does not move"),
    ("3.6", shifted(lambda h: h), "not subtracted"),
    ("3.7", forgiving(torch.sqrt, lambda w: half_square(w).item()), "not done yet: the weights"),
    ("3.7", forgiving(safe_root, half_square), "correct"),
    ("3.7", forgiving(lambda size: (size + 1e-12).sqrt(), half_square), "correct"),
    ("3.7", forgiving(safe_root, lambda w: half_square(w).item()), "not done yet: no nan any"),
    ("3.7", forgiving(torch.sqrt, half_square), "not done yet: the weights are nan"),
    ("3.7", forgiving(safe_root, lambda w: (w**2).mean()), "not their mean"),
    ("3.7", with_penalty(mse), "every error costs its square"),
    ("3.7", forgiving(torch.sqrt, half_square, lambda w: w.grad.nan_to_num_()), "do not move"),
    ("4.1", ridge, "correct"),
    ("4.1", ridge_by_autograd, "correct"),
    ("4.1", lambda *a: -ridge(*a), "sign"),
    ("4.1", lambda *a: ridge(*a, penalty=0), "the penalty has a gradient too"),
    ("4.1", lambda *a: ridge(*a, fit=0), "the penalty alone"),
    ("4.1", lambda *a: ridge(*a, fit=7), "too large by the factor n"),
    ("4.1", lambda *a: ridge(*a, penalty=1 / 7), "only the first term is a mean"),
    ("4.1", lambda *a: ridge(*a, penalty=2), "the penalty counts twice"),
    ("4.1", lambda *a: ridge(*a, penalty=0.5), "the penalty counts half"),
    ("4.1", lambda *a: ridge(*a, fit=2), "the first term counts twice"),
    ("4.1", lambda *a: ridge(*a, penalty=-1), "its gradient is added"),
    ("4.1", lambda X, y, w, lam: ridge(X, y, w, 0) + lam, "what remains of the penalty"),
    ("4.1", lambda X, y, w, lam: ridge(X, -y, w, lam), "the numbers are not"),
    ("4.2", lambda X: 2 / (curvatures(X)[0] + curvatures(X)[-1]), "correct"),
    ("4.2", lambda X: 2 * 9 / sum(torch.linalg.svdvals(X)[[0, -1]] ** 2).item(), "correct"),
    ("4.2", lambda X: 2 / curvatures(X)[-1], "on the edge"),
    ("4.2", lambda X: 1 / curvatures(X)[-1], "not the fastest"),
    ("4.2", lambda X: 2 / (curvatures(X)[0] + curvatures(X)[-1]) / len(X), "a mean"),
    ("4.2", lambda X: 2 / (curvatures(X)[0] + curvatures(X)[-1]) * len(X), "divide XᵀX by n"),
    ("4.2", lambda X: 2 / sum(curvatures(X)), "trace"),
    ("4.2", lambda X: 2 / sum(torch.linalg.svdvals(X)[[0, -1]]), "singular values"),
    ("4.2", lambda X: 2 / curvatures(X)[0], "diverges"),
    ("4.2", lambda X: 0.1, "the number is not"),
    ("4.3", scaled_fit, "correct"),
    ("4.3", lambda X, y: torch.linalg.lstsq(X, y).solution, "correct"),
    ("4.3", lambda X, y: scaled_fit(X, y, norm=lambda X, dim: 8 * X.abs().amax(dim)), "correct"),
    ("4.3", diverging_fit, "not done yet: the fit diverges"),
    ("4.3", lambda X, y: scaled_fit(X, y, back=0), "convert them back"),
    ("4.3", lambda X, y: scaled_fit(X, y, back=1), "the wrong way"),
    ("4.3", lambda X, y: scaled_fit(X - X.mean(0), y), "centering"),
    ("4.3", lambda X, y: diverging_fit(X, y, 500.0), "not the weights of X"),
    ("4.3", lambda X, y: scaled_fit(X, y, num_steps=2), "not the weights of X"),
    ("4.3", lambda X, y: scaled_fit(X, y)[:, None], "the shape is (3, 1)"),
    ("4.4", weighted, "correct"),
    ("4.4", weighted_normal_equations, "correct"),
    ("4.4", lambda X, y, c: weighted(X, y, c, 0, 0), "are not used"),
    ("4.4", lambda X, y, c: weighted(X, y, c, 1, 1), "the root of c"),
    ("4.4", lambda X, y, c: weighted(X, y, c, 0.5, 0), "y is not"),
    ("4.4", lambda X, y, c: weighted(X, y, c, 0, 0.5), "X is not"),
    ("4.4", lambda X, y, c: weighted(X, y, c, 0.25, 0.25), "weighted by the root of c"),
    ("4.4", lambda X, y, c: weighted(X, y, c, -0.5, -0.5), "do not divide"),
    ("4.4", lambda X, y, c: weighted(X, y, c)[:, None], "the shape is (3, 1)"),
    ("5.1", logistic, "correct"),
    ("5.1", logistic_by_autograd, "correct"),
    ("5.1", lambda X, y, w: -logistic(X, y, w), "sign"),
    ("5.1", lambda X, y, w: logistic(X, y, w, n=False), "factor n"),
    ("5.1", lambda X, y, w: X.T @ (X @ w - y) / len(y), "sigmoid is missing"),
    ("5.1", lambda X, y, w: X @ (torch.sigmoid(X @ w) - y), "raised RuntimeError"),
    ("5.2", lambda z, y: ((z[:, 0] > 0) == y).double().mean(), "correct"),
    ("5.2", lambda z, y: ((z > 0) == y).double().mean(), "every image with every label"),
    ("5.2", lambda z, y: ((z[:, 0] > 0.5) == y).double().mean(), "not 0.5"),
    ("5.2", lambda z, y: ((z[:, 0] > 0) != y).double().mean(), "error rate"),
    ("5.2", lambda z, y: ((z[:, 0] > 0) == y).sum(), "divide by n"),
    ("5.3", training_step, "correct"),
    ("5.3", lambda *a: training_step(*a, sign=1), "loss rises"),
    ("5.3", lambda *a: training_step(*a, empty=False), "empty .grad"),
    ("5.3", lambda *a: training_step(*a, first=True), "nothing moves"),
    ("5.3", lambda *a: training_step(*a) and None, "return the loss"),
    ("5.3", lambda m, X, y, lr: training_step(m, X, y, 1.0), "learning rate is missing"),
    ("5.3", lambda m, X, y, lr: training_step(m, X, y, 7 * lr), "factor n"),
    ("5.3", lambda *a: training_step(*a, probabilities=True), "the numbers are not"),
    ("5.3", lambda *a: training_step(*a, parameters=1), "the numbers are not"),
    ("5.2", lambda z, y: (z[:, 0].round() == y).double().mean(), "the number is not"),
    ("5.2", lambda z, y: ((torch.sigmoid(z[:, 0]) > 0) == y).double().mean(), "the number is not"),
    ("5.4", lambda p, a: confusion(1 - p, 1 - a), "the numbers are not"),
    ("5.4", confusion, "correct"),
    ("5.4", lambda p, a: confusion(p, a).T, "reverse"),
    ("5.4", lambda p, a: confusion(p, a) / len(a), "give counts"),
    ("5.4", lambda p, a: confusion(p, a) / confusion(p, a).sum(1, keepdim=True), "of each row"),
]


@pytest.mark.parametrize(("exercise", "attempt", "verdict"), ATTEMPTS)
def test_check_names_the_slip(exercise, attempt, verdict, capsys):
    check(exercise, attempt)
    line = capsys.readouterr().out
    assert line.startswith(f"Exercise {exercise}: ")
    assert line.count("\n") == 1
    assert verdict in line


@pytest.mark.parametrize("exercise", EXERCISES)
def test_a_stub_is_not_done_yet(exercise, capsys):
    check(exercise, lambda *args: None)
    reason = ": the weights do not move" if exercise.startswith("3.") and exercise != "3.4" else ""
    assert capsys.readouterr().out == f"Exercise {exercise}: not done yet{reason}\n"


@pytest.mark.parametrize("attempt", [None, 7, lambda: None, lambda *args: "a", lambda *args: []])
@pytest.mark.parametrize("exercise", EXERCISES)
def test_check_never_raises(exercise, attempt, capsys):
    check(exercise, attempt)
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "correct" not in line


@pytest.mark.parametrize("exercise", EXERCISES)
def test_check_asks_the_same_every_time_and_away_from_0_and_1(exercise):
    asked = [[], []]
    for questions in asked:
        check(exercise, lambda *args, q=questions: q.extend(a for a in args if torch.is_tensor(a)))
    assert all(map(torch.equal, *asked))
    if exercise.startswith("1."):
        size = torch.cat([x.detach().flatten().abs() for x in asked[0]])
        assert size.min() > 0.2 and (size - 1).abs().min() > 0.2


def test_unknown_exercise_is_named(capsys):
    check("9.9", lambda: None)
    assert "no exercise of this name" in capsys.readouterr().out


def test_numerical_gradient_is_the_gradient():
    want = 8 * X64**3 - 10 * X64 + 3
    assert relative_error(numerical_gradient(lambda x: g(x).sum(), X64), want) < 1e-9


@pytest.mark.parametrize(
    "wrong", [lambda x: -(3 * x**2 - 3), lambda x: 3 * x**2, lambda x: 3 * x - 3, lambda x: x * 0]
)
def test_numerical_gradient_refuses_a_wrong_one(wrong):
    numerical = numerical_gradient(lambda x: (x**3 - 3 * x).sum(), X64)
    assert relative_error(wrong(X64), numerical) > 0.1


def test_numerical_gradient_of_a_transposed_tensor():
    x = torch.arange(1.0, 7.0).view(2, 3).T
    assert relative_error(numerical_gradient(lambda x: (x**2).sum(), x), 2 * x) < 1e-9


def test_relative_error_of_equal_zero_and_other_shapes():
    zero = torch.zeros(3)
    assert relative_error(zero, zero) == 0
    assert relative_error(zero, torch.ones(3)) == 1
    assert relative_error(torch.tensor([2.0, -4.0]), torch.tensor([2.0, -5.0])) == pytest.approx(
        0.2
    )
    with pytest.raises(ValueError, match="one shape"):
        relative_error(zero, zero[:, None])


def test_check_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    for exercise in EXERCISES:
        check(exercise, lambda *args: None)
    assert torch.equal(state, torch.get_rng_state())
