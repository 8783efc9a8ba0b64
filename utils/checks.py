"""Oracles for gradients, and the verdict on every exercise."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Verdict = str | None  # what is wrong, in one line; None where nothing is
NOT_DONE = "not done yet"


def numerical_gradient(f: Callable[[Tensor], Tensor], x: Tensor, h: float = 1e-5) -> Tensor:
    """Return the gradient of a scalar function by central differences, in float64.

    Entry i is (f(x + h e_i) - f(x - h e_i)) / 2h; its error is about h^2 |f'''| / 6 plus
    1e-16 |f| / h, so near 1e-10 at the default h for values near 1. Shape: that of `x`.
    Source: Nocedal and Wright, Numerical Optimization, section 8.1.
    """
    x = x.detach().double().contiguous()
    gradient = torch.zeros_like(x)
    for i in range(x.numel()):
        step = torch.zeros_like(x)
        step.view(-1)[i] = h
        gradient.view(-1)[i] = (f(x + step) - f(x - step)).item() / (2 * h)
    return gradient


def relative_error(a: Tensor, b: Tensor) -> float:
    """Return max |a - b| / max(max |a|, max |b|), and 0 where both are zero.

    Raises ValueError where the shapes differ, since broadcasting would hide a slip.
    """
    if a.shape != b.shape:
        raise ValueError(f"compare tensors of one shape, not {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = a.detach().double(), b.detach().double()
    scale = torch.maximum(a.abs().max(), b.abs().max()).item()
    return (a - b).abs().max().item() / scale if scale else 0.0


def check(exercise: str, attempt: Callable) -> None:
    """Print the verdict on an exercise in one line: `not done yet`, `correct`, or the slip.

    `attempt` is called in float64 at fixed random points away from 0 and 1, where a wrong
    formula cannot give the right number. Whatever `attempt` does, `check` does not raise.
    """
    try:
        verdict = EXERCISES.get(exercise, _no_such_exercise)(attempt) or "correct"
    except NotImplementedError:
        verdict = NOT_DONE
    except Exception as error:
        reason = str(error).strip().partition("\n")[0][:120]
        verdict = f"your code raised {type(error).__name__}: {reason}"
    print(f"Exercise {exercise}: {verdict}")


def _random(*shape: int) -> Tensor:
    """Return fixed float64 numbers of both signs with 0.3 < |x| < 0.7 or 1.3 < |x| < 1.9."""
    generator = torch.Generator().manual_seed(0)
    size, sign = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
    return torch.where(size < 0.4, 0.3 + size, 0.9 + size) * torch.where(sign < 0.5, -1, 1)


def _compare(got: object, want: Tensor, slips: dict[str, Tensor] | None = None) -> Verdict:
    """Return None where `got` equals `want`, else the name of the wrong value that it equals."""
    if got is None or got is ...:
        return NOT_DONE
    if isinstance(got, (tuple, list)):
        return "return one tensor, not several: take [0], or torch.stack them"
    got = torch.as_tensor(got).detach().double()
    usual = {
        "the sign is flipped": -want,
        "twice the right value: is something accumulated or counted twice?": 2 * want,
        "half the right value: where did the factor 2 go?": want / 2,
        "the result is transposed": want.mT if want.ndim == 2 else want,
    }
    for name, value in {"": want, **(slips or {}), **usual}.items():
        if got.shape == value.shape and torch.allclose(got, value.double(), rtol=1e-6, atol=1e-9):
            return name or None
    if got.shape != want.shape:
        return f"the shape is {tuple(got.shape)}, expected {tuple(want.shape)}"
    return "the shape is right, the numbers are not" if want.ndim else "the number is not right"


def _no_such_exercise(attempt: Callable) -> Verdict:
    return f"there is no exercise of this name; there are {', '.join(EXERCISES)}"


def _polynomial(x: Tensor) -> Tensor:
    return 2 * x**4 - 5 * x**2 + 3 * x


def _derivative_by_hand(attempt: Callable) -> Verdict:
    x = _random(6)
    slips = {
        "that is g itself, not its derivative": _polynomial(x),
        "the exponents have not come down as factors": 2 * x**3 - 5 * x + 3,
        "the derivative of 3x is missing": 8 * x**3 - 10 * x,
    }
    return _compare(attempt(x), 8 * x**3 - 10 * x + 3, slips)


def _derivative_of_any(attempt: Callable) -> Verdict:
    x = _random(6)
    for f, want in (lambda t: t**3 - 3 * t, 3 * x**2 - 3), (torch.sin, torch.cos(x)):
        slips = {"too small by the factor n: sum over the points, no mean": want / 6}
        if verdict := _compare(attempt(f, x), want, slips):
            return verdict
        if x.requires_grad or x.grad is not None:
            return "right, but the caller's x is changed: work on a copy of it"
    return _compare(attempt(torch.sin, x.requires_grad_()), torch.cos(x))


def _jacobian_by_rows(attempt: Callable) -> Verdict:
    a, b, c = x = _random(3)
    zero = torch.zeros(())
    want = torch.stack([torch.stack([b * c, a * c, a * b]), torch.stack([2 * a, zero, -3 * c**2])])
    slips = {
        "row i holds the sum of rows 0 to i: .grad accumulates from pass to pass": want.cumsum(0),
        "the rows are added up: take one backward pass per output": want.sum(0),
        "all rows are one tensor that accumulated: stack copies of .grad": want.sum(0).expand(2, 3),
    }
    return _compare(
        attempt(lambda t: torch.stack([t.prod(), t[0] ** 2 - t[2] ** 3]), x), want, slips
    )


def _newton_step(attempt: Callable) -> Verdict:
    x = _random(6)[0]
    f, slope, curvature = _polynomial(x), 8 * x**3 - 10 * x + 3, 24 * x**2 - 10
    slips = {
        "the step has the wrong sign": x + slope / curvature,
        "that is the step alone: add it to x": -slope / curvature,
        "that step looks for f = 0; a critical point has f' = 0": x - f / slope,
        "the slope is not divided by the curvature": x - slope,
    }
    return _compare(attempt(_polynomial, x), x - slope / curvature, slips)


def _graph_table(attempt: Callable) -> Verdict:
    want = {"z1": -12, "z2": 9, "f": -3, "df/dz1": 1, "df/dz2": 1}
    want |= {"dz1/dx": -4, "dz1/dy": 3, "dz2/dx": 6, "df/dx": 2, "df/dy": 3}
    slips = {
        "dz1/dx": {"that is the derivative with respect to y": 3},
        "dz1/dy": {"that is the derivative with respect to x": -4},
        "dz2/dx": {"that is the value of z2, not its derivative": 9},
        "df/dx": {"only the path over z1: add both": -4, "only the path over z2: add both": 6},
    }
    table = attempt()
    if table is None:
        return NOT_DONE
    for name, value in sorted(want.items(), key=lambda entry: table.get(entry[0]) is None):
        wrong = {slip: torch.tensor(v) for slip, v in slips.get(name, {}).items()}
        if verdict := _compare(table.get(name), torch.tensor(value), wrong):
            return f"{name}: {verdict}"
    return None


def _order_of_visits(attempt: Callable) -> Verdict:
    users = {"f": "", "d": "f", "c": "d", "b": "d", "a": "fcb", "x": "a"}
    order = attempt()
    if not order:
        return NOT_DONE
    if sorted(order) != sorted(users):
        return "name each of f, a, b, c, d and x once"
    for place, name in enumerate(order):
        if late := [user for user in users[name] if user not in order[:place]]:
            return f"{name} is visited before {late[0]}, which still has a gradient to send to it"
    if list(order) != list(users):
        return "a right order, but not PyTorch's: of b and c, which was created last?"
    return None


def _replay_repaired(attempt: Callable) -> Verdict:
    u, v = (row.clone().requires_grad_() for row in _random(2, 3))
    f = ((u + v) * (v + 2 * u)).sum()  # the first sum hands one and the same tensor to u and to v
    got = attempt(f)
    if got is None:
        return NOT_DONE
    first, second = (v + 2 * u).detach(), (u + v).detach()
    if torch.equal(got[u], first) or torch.equal(got[u], 2 * second):
        return NOT_DONE  # still the replay that keeps the last contribution only
    slips = {"a sum is changed in place that two accumulators share": first + 3 * second}
    want = {u: first + 2 * second, v: first + second}
    return _compare(got[u], want[u], slips) or _compare(got[v], want[v], slips)


def _engine_exp(attempt: Callable) -> Verdict:
    x = _random(2, 3)
    e = x.exp()
    slips = {
        "the rule must multiply by the incoming gradient": 2 * e,
        "that is the power rule: the derivative of exp is exp": e + x * x * e,
        "the derivative of exp is its output, not its input": e + x * x,
        "the gradient passes unchanged: multiply it by the derivative": e + x,
        "no gradient comes back: return an Array with a pair (a, rule), or use entrywise": e,
    }
    value_and_gradients = attempt(x.numpy())
    if value_and_gradients is None:
        return NOT_DONE
    return _compare(value_and_gradients[1][0], e * (1 + x), slips)


def _softplus(attempt: Callable) -> Verdict:
    x, weights = _random(5).requires_grad_(), _random(2, 5)[1]
    far = torch.tensor([-800.0, 800.0], dtype=torch.float64, requires_grad=True)
    for points, factor in (x, weights), (far, torch.tensor([2.0, 3.0], dtype=torch.float64)):
        y = attempt(points)
        if y is None:
            return NOT_DONE
        if verdict := _compare(y, F.softplus(points).detach()):
            return f"forward: {verdict}"
        slope = torch.sigmoid(points.detach())
        slips = {
            "multiply by the incoming gradient": slope,
            "that is the incoming gradient alone": factor,
            "that is the derivative of the sigmoid": factor * slope * (1 - slope),
        }
        (got,) = torch.autograd.grad((y * factor).sum(), points)
        if verdict := _compare(got, factor * slope, slips):
            return f"backward: {verdict}"
    return None


def _descend(
    loss: Callable,
    start: Sequence[Tensor],
    lr: float = 0.1,
    keep: bool = False,
    late: bool = False,
    rounds: int = 5,
) -> tuple[Tensor, Tensor]:
    """Return the parameters after gradient descent as one vector, and the loss of each round.

    To `keep` the gradients of earlier rounds is the slip of never emptying .grad; `late` uses the
    gradient of the round before.
    """
    parameters, total, losses = list(start), [0.0] * len(start), []
    for _ in range(rounds):
        leaves = [p.detach().clone().requires_grad_() for p in parameters]
        losses.append(loss(*leaves))
        gradients = torch.autograd.grad(
            losses[-1], leaves, allow_unused=True, materialize_grads=True
        )
        before, total = total, [keep * t + g for t, g in zip(total, gradients, strict=True)]
        used = before if late else total
        parameters = [p - lr * t for p, t in zip(leaves, used, strict=True)]
    return nn.utils.parameters_to_vector(parameters), torch.stack(losses)


def _rounds(
    run: Callable, loss: Callable, start: Sequence[Tensor], slips: dict[str, Callable] | None = None
) -> Verdict:
    """Return the verdict on `run`, which trains leaves for 5 rounds and returns what they became.

    Compared with gradient descent on `loss` from `start`; `slips` are wrong losses, by name.
    """
    want = _descend(loss, start)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parameters = run(*(p.clone().requires_grad_() for p in start))
        except (RuntimeError, TypeError) as error:
            told = [told for words, told in LOOP_ERRORS.items() if words in str(error)]
            if told:
                return told[0]
            raise
    if any(p is None for p in parameters):
        return NOT_DONE
    if [p.shape for p in parameters] != [p.shape for p in start]:
        return "the weights have another shape than at the start"
    got = nn.utils.parameters_to_vector(parameters).detach()
    if got.isnan().any():
        return f"{NOT_DONE}: the weights are nan"
    named = {f"{NOT_DONE}: the weights do not move": nn.utils.parameters_to_vector(start)}
    for name, changed in LOOP_SLIPS.items():
        named[name] = _descend(loss, start, **changed)[0]
    for name, wrong in (slips or {}).items():
        named[name] = _descend(wrong, start)[0]
    if verdict := _compare(got, want, named):
        return verdict
    if any(p.grad_fn for p in parameters):
        return "right numbers, but the weights hang on a graph that grows with every round"
    return None


LOOP_SLIPS = {
    f"{NOT_DONE}: each step adds the gradients of all rounds before": {"keep": True},
    "the sign of the update is flipped: the loss rises": {"lr": -0.1},
    "step uses the gradient of the round before: it must come after backward": {"late": True},
    "the last gradient is not used: step must come after backward": {"rounds": 4},
}
LOOP_ERRORS = {
    "'NoneType'": f"{NOT_DONE}: the update finds that .grad is None",
    "inplace operation": f"{NOT_DONE}: a value that the backward pass needs is overwritten",
    "element 0": "the path from the loss to the weights is cut: do they still require a gradient?",
    "a leaf Variable": "autograd must not record the update: with torch.no_grad()",
    "second time": "the graph of an earlier round is still in use: nothing of it may be kept",
}


def _loop_data(columns: Sequence[int] = ()) -> tuple[Tensor, Tensor, Tensor]:
    """Return X (6, 3), y (6,) and weights to start from, of shape (3, *columns)."""
    X = _random(6, 3)
    y = X @ torch.tensor([0.7, -1.4, 0.4], dtype=X.dtype) + 0.3 * _random(6)
    return X, y, torch.tensor([-0.6, 0.5, 1.3], dtype=X.dtype).reshape(3, *columns)


def _with_sgd(attempt: Callable, *data: object) -> Callable:
    """Return the run of five rounds `attempt(optimizer, *leaves, *data)`."""

    def run(*leaves: Tensor) -> Sequence[Tensor]:
        optimizer = torch.optim.SGD(leaves, lr=0.1)
        for _ in range(5):
            attempt(optimizer, *leaves, *data)
        return leaves

    return run


def _loop_of_least_squares(attempt: Callable) -> Verdict:
    X, y, w = _loop_data()
    slips = {"the loss is the mean over the examples, not the sum": lambda w: _sse(X @ w, y)}
    return _rounds(_with_sgd(attempt, X, y), lambda w: _sse(X @ w, y) / 6, [w], slips)


def _sse(prediction: Tensor, y: Tensor) -> Tensor:
    return ((prediction - y) ** 2).sum()


def _loop_of_all_pairs(attempt: Callable) -> Verdict:
    X, y, w = _loop_data((1,))
    pairs = f"{NOT_DONE}: every prediction is compared with every label"
    slips = {
        pairs: lambda w: _sse(X @ w, y) / 36,
        f"{pairs}; to divide by n repairs the scale only": lambda w: _sse(X @ w, y) / 6,
        "one number, the mean error, is squared, not n": lambda w: (X @ w[:, 0] - y).mean() ** 2,
    }
    return _rounds(_with_sgd(attempt, X, y), lambda w: _sse(X @ w[:, 0], y) / 6, [w], slips)


def _loop_rebinds(attempt: Callable) -> Verdict:
    X, y, w = _loop_data()

    def run(w: Tensor) -> list[Tensor]:
        for _ in range(5):
            w = attempt(w, X, y)
            if w is None:  # `return w` was forgotten
                break
        return [w]

    slips = {"the loss is the mean over the examples, not the sum": lambda w: _sse(X @ w, y)}
    return _rounds(run, lambda w: _sse(X @ w, y) / 6, [w], slips)


def _loop_keeps_graphs(attempt: Callable) -> Verdict:
    (X, y, w), history = _loop_data(), []
    loss = lambda w: _sse(X @ w, y) / 6  # noqa: E731
    if verdict := _rounds(_with_sgd(attempt, X, y, history), loss, [w]):
        return verdict
    if any(torch.is_tensor(value) and value.requires_grad for value in history):
        return f"{NOT_DONE}: the weights are right, but the losses in the list keep their graphs"
    verdict = _compare(torch.tensor([float(value) for value in history]), _descend(loss, [w])[1])
    return verdict and f"the weights are right, the list of losses is not: {verdict}"


def _loop_in_place(attempt: Callable) -> Verdict:
    X, y, w = _loop_data()

    def loss(W: Tensor, w: Tensor, shift: Callable = lambda h: h - 0.5) -> Tensor:
        return _sse(shift(torch.sigmoid(X @ W)) @ w, y) / 6

    def overwrite(hidden: Tensor) -> Tensor:
        hidden.data.sub_(0.5)
        return hidden

    slips = {
        "the gradient of W is wrong: .data hides the change from autograd": overwrite,
        "W does not move: its path is cut": lambda h: h.detach() - 0.5,
        "the 0.5 is not subtracted": lambda h: h,
    }
    slips = {name: lambda W, w, f=f: loss(W, w, f) for name, f in slips.items()}
    start = [torch.stack([w, w.flip(0) / 2], dim=1), torch.tensor([1.6, -0.7], dtype=w.dtype)]
    return _rounds(_with_sgd(attempt, X, y), loss, start, slips)


def _loop_with_two_bugs(attempt: Callable) -> Verdict:
    X, y, w = _loop_data()
    X[2], y[2] = 0, 0  # an error of exactly zero

    def fit(w: Tensor) -> Tensor:
        size = (X @ w - y).abs()
        root = torch.where(size > 1, size, 1.0).sqrt()
        return torch.where(size > 1, 4 * root - 3, size**2).mean()

    slips = {
        f"{NOT_DONE}: no nan any more, but the penalty does not reach the gradient": fit,
        "the penalty is half the sum of squares, not their mean": lambda w: fit(w) + (w**2).mean(),
        "every error costs its square": lambda w: _sse(X @ w, y) / 6 + (w**2).sum() / 2,
    }
    loss = lambda w: fit(w) + (w**2).sum() / 2  # noqa: E731
    return _rounds(_with_sgd(attempt, X, y), loss, [w], slips)


def _ridge_gradient(attempt: Callable) -> Verdict:
    X, y, w, lam = _random(7, 3), _random(7) + 0.1, _random(3), 0.7
    fit = X.T @ (X @ w - y) / 7
    slips = {
        "that is least squares alone: the penalty has a gradient too": fit,
        "that is the gradient of the penalty alone": lam * w,
        "the first term is too large by the factor n: the loss is a mean": 7 * fit + lam * w,
        "the penalty is divided by n; only the first term is a mean": fit + lam * w / 7,
        "the penalty counts twice: the factor 1/2 cancels the 2": fit + 2 * lam * w,
        "the penalty counts half: the square brings a factor 2 down": fit + lam * w / 2,
        "the first term counts twice: the factor 1/2 cancels the 2": 2 * fit + lam * w,
        "the penalty pulls toward 0: its gradient is added": fit - lam * w,
        "λ is constant: what remains of the penalty depends on w": fit + lam,
    }
    return _compare(attempt(X, y, w, lam), fit + lam * w, slips)


def _best_step(attempt: Callable) -> Verdict:
    X = _random(9, 3) * torch.tensor([1.0, 2.0, 3.0])
    low, *_, high = curvatures = torch.linalg.eigvalsh(X.T @ X / 9)
    best = 2 / (low + high)
    slips = {
        "on the edge: at 2/L the steepest direction never dies out (XXᵀ? its smallest is 0)": 2
        / high,
        "safe, but not the fastest: that is 1/L": 1 / high,
        "too small by the factor n: the loss is a mean": best / 9,
        "too large by the factor n: divide XᵀX by n": 9 * best,
        "those are singular values of X: the curvatures are their squares over n": 2
        / (low.sqrt() + high.sqrt())
        / 3,
        "that is 2 over the trace: only the two extreme curvatures count": 2 / curvatures.sum(),
        "diverges: 2/μ is too long a step for every other direction": 2 / low,
    }
    return _compare(attempt(X), best, slips)


def _diverging_fit(attempt: Callable) -> Verdict:
    scale = torch.tensor([0.4, 50.0, 3.0])
    X = _random(40, 3) * scale
    y = X @ (_random(3) / scale) + 0.1 * _random(40)
    got, want = attempt(X, y), torch.linalg.lstsq(X, y).solution
    if got is None:
        return NOT_DONE
    got = torch.as_tensor(got).detach()
    if not got.isfinite().all() or got.abs().max() > 1e6:
        return f"{NOT_DONE}: the fit diverges"
    if got.shape != want.shape:
        return f"the shape is {tuple(got.shape)}, expected {tuple(want.shape)}"
    if torch.allclose(got.double(), torch.linalg.lstsq(X - X.mean(0), y).solution, rtol=1e-3):
        return "centering fits another model, with an intercept: scale the columns only"
    for size in X.norm(dim=0) / 40**0.5, X.norm(dim=0), X.std(dim=0), X.abs().amax(dim=0):
        if torch.allclose(got.double(), want * size, rtol=1e-3):
            return "those are the weights of the scaled columns: convert them back"
        if torch.allclose(got.double(), want * size**2, rtol=1e-3):
            return "converted the wrong way: divide the weights by the scale as well"
    if (X @ (got - want)).norm() > 1e-3 * (X @ want).norm():
        return "not the weights of X: has every column root mean square 1, is all scaling undone?"
    return None


def _weighted_least_squares(attempt: Callable) -> Verdict:
    X, y, c = _random(9, 3), _random(2, 9)[1], _random(3, 9)[2].abs()

    def solve(left: Tensor, right: Tensor) -> Tensor:
        return torch.linalg.solve(X.T @ (left[:, None] * X), X.T @ (right * y))

    slips = {
        "that is ordinary least squares: the weights c are not used": solve(c**0, c**0),
        "the residuals are squared after weighting: give rows the root of c": solve(c**2, c**2),
        "X is weighted, y is not": solve(c, c.sqrt()),
        "y is weighted, X is not": solve(c**0, c.sqrt()),
        "the squared residuals are weighted by the root of c, not by c": solve(c.sqrt(), c.sqrt()),
        "a large c means an important row: multiply, do not divide": solve(1 / c, 1 / c),
    }
    return _compare(attempt(X, y, c), solve(c, c), slips)


def _logistic_gradient(attempt: Callable) -> Verdict:
    X, w = _random(7, 3), _random(3)
    y = torch.tensor([1, 0, 0, 1, 0, 1, 1]).double()
    want = X.T @ (torch.sigmoid(X @ w) - y) / 7
    slips = {
        "too large by the factor n: the loss is the mean over the images": 7 * want,
        "that is the gradient of least squares: the sigmoid is missing": X.T @ (X @ w - y) / 7,
    }
    return _compare(attempt(X, y, w), want, slips)


def _accuracy(attempt: Callable) -> Verdict:
    logits = torch.tensor([0.3, -1.2, 0.2, 2.5, -0.4, 0.1, -2.1, -3.0, 0.8, -0.2, -0.7])[:, None]
    y = torch.tensor([1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 0])
    logits, y = logits.double(), y.double()
    odd = logits[:, 0] > 0
    slips = {
        "(n, 1) against (n,) compares every image with every label": ((logits > 0) == y),
        "a logit of 0, not 0.5, is the probability 0.5": (logits[:, 0] > 0.5) == y,
        "that is the error rate": odd != y,
    }
    means = {name: right.double().mean() for name, right in slips.items()}
    counts = {"that is how many are right: divide by n": (odd == y).sum()}
    return _compare(attempt(logits, y), (odd == y).double().mean(), means | counts)


def _training_step(attempt: Callable) -> Verdict:
    X, y, lr = _random(7, 3), torch.tensor([1, 0, 0, 1, 0, 1, 1]).double(), 0.5
    X[0] *= -60  # surely wrong: its probability rounds to 0 or 1
    with torch.random.fork_rng():
        model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)).double()
    theta = torch.cat([_random(3), torch.tensor([-0.4])])
    nn.utils.vector_to_parameters(theta.clone(), model.parameters())
    total = torch.zeros(4)
    for _ in range(2):
        start, loss = theta, F.binary_cross_entropy_with_logits(model(X), y)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        gradient = nn.utils.parameters_to_vector(gradients)
        total, theta = total + gradient, start - lr * gradient
        slips = {
            "the sign of the update is flipped: the loss rises": start + lr * gradient,
            "nothing moves: update in place, after backward, before emptying .grad": start,
            "the second step adds the first gradient again: empty .grad": start - lr * total,
            "the learning rate is missing": start - gradient,
            "the step is too long by the factor n: the loss is a mean": start - 7 * lr * gradient,
        }
        returned = attempt(model, X, y, lr)
        got = nn.utils.parameters_to_vector(model.parameters()).detach()
        if returned is None and torch.equal(got, start):
            return NOT_DONE
        if verdict := _compare(got, theta, slips):
            return verdict
        if returned is None or _compare(returned, loss):
            return "the step is right; return the loss from before it"
    return None


def _confusion(attempt: Callable) -> Verdict:
    actual = torch.tensor([0, 0, 0, 0, 1, 1, 1, 0, 0, 0])
    predicted = torch.tensor([0, 1, 0, 1, 1, 0, 1, 1, 0, 0])
    want = torch.tensor([[4, 3], [1, 2]])
    slips = {
        "rows are the actual class, columns the predicted one; here it is the reverse": want.T,
        "those are fractions: give counts": want / want.sum(),
        "those are fractions of each row: give counts": want / want.sum(1, keepdim=True),
    }
    return _compare(attempt(predicted, actual), want, slips)


EXERCISES: dict[str, Callable[[Callable], Verdict]] = {
    "1.1": _derivative_by_hand,
    "1.2": _derivative_of_any,
    "1.3": _jacobian_by_rows,
    "1.4": _newton_step,
    "2.1": _graph_table,
    "2.2": _order_of_visits,
    "2.3": _replay_repaired,
    "2.4": _engine_exp,
    "2.5": _softplus,
    "3.1": _loop_of_least_squares,
    "3.2": _loop_of_least_squares,
    "3.3": _loop_of_all_pairs,
    "3.4": _loop_rebinds,
    "3.5": _loop_keeps_graphs,
    "3.6": _loop_in_place,
    "3.7": _loop_with_two_bugs,
    "4.1": _ridge_gradient,
    "4.2": _best_step,
    "4.3": _diverging_fit,
    "4.4": _weighted_least_squares,
    "5.1": _logistic_gradient,
    "5.2": _accuracy,
    "5.3": _training_step,
    "5.4": _confusion,
}
