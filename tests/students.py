"""What students write: the functions from which test_checks.py makes right and wrong answers."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from utils.checks import numerical_gradient, relative_error
from utils.graph import replay_backward

bce, mse = F.binary_cross_entropy_with_logits, F.mse_loss


def then(attempt, change):
    """The attempt, which changes its arguments at the end."""
    return lambda *args: (attempt(*args), change(*args))[0]


def first(change, attempt):
    return lambda *args: (change(*args), attempt(*args))[1]


def g1(x):
    return 8 * x**3 - 10 * x + 3


def derivative(f, x, reduce=torch.sum):
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(reduce(f(x)), x)[0]


def into_grad(f, x):
    f(x).sum().backward()
    return x.grad


def jacobian(F, x, reset=lambda x: setattr(x, "grad", None), keep=torch.clone):
    rows, x = [], x.clone().requires_grad_()
    for i in range(len(F(x))):
        F(x)[i].backward()
        rows.append(keep(x.grad))
        reset(x)
    return torch.stack(rows)


def newton(step=lambda x, s, c: x - s / c):
    def newton_step(f, x):
        x = x.detach().requires_grad_()  # shares memory with the caller's x
        (slope,) = torch.autograd.grad(f(x), x, create_graph=True)
        with torch.no_grad():
            return step(x, slope, torch.autograd.grad(slope, x)[0])

    return newton_step


def agrees(error=relative_error, h=1e-5):
    return lambda f, x, claimed: bool(error(numerical_gradient(f, x, h), claimed) < 1e-6)


def table(**changed):
    right = {"z1": -12, "z2": 9, "f": -3, "df_dz1": 1, "df_dz2": 1, "dz1_dx": -4, "dz1_dy": 3}
    right |= {"dz2_dx": 6, "df_dx": 2, "df_dy": 3} | changed
    return {name.replace("_", "/"): value for name, value in right.items()}


def replay(change):
    return lambda f: {x: change(g) for x, g in replay_backward(f).grads.items()}


def engine_exp(rule):
    """Value and gradients of the sum of a exp(a), as the engine of notebook 02 gives them."""
    return lambda x: ((x * np.exp(x)).sum(), [np.exp(x) + rule(x)])


def softplus(value=None, slope=torch.sigmoid, rule=lambda g, s: g * s):
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(slope(x))
            return value(x) if value else torch.logaddexp(x, 0 * x)

        if rule:
            backward = staticmethod(lambda ctx, g: rule(g, *ctx.saved_tensors))

    return Function.apply


def linear_beyond(t):
    return softplus(lambda x: torch.where(x > t, x, x.exp().log1p()))


def todo(*args):
    raise NotImplementedError


def steps(actions, loss=mse, change=lambda X, w: X @ w):
    """One step of training: z resets the gradients, b goes forward and backward, s steps."""

    def one_step(optimizer, w, X, y):
        backward = lambda: loss(change(X, w), y).backward()  # noqa: E731
        for action in actions:
            {"z": optimizer.zero_grad, "b": backward, "s": optimizer.step}[action]()

    return one_step


def by_hand(w, X, y, reset=True):
    mse(X @ w, y).backward()
    w.data -= 0.1 * w.grad
    w.grad = None if reset else w.grad
    return w


def rebound(keep, start=lambda w: w):
    def one_step(w, X, y):
        w = start(w)
        mse(X @ w, y).backward()
        return keep(w - 0.1 * w.grad)

    return one_step


def kept(keep, add=list.append):
    def one_step(optimizer, w, X, y, losses):
        steps("zbs", lambda p, y: (loss := mse(p, y), add(losses, keep(loss)))[0])(
            optimizer, w, X, y
        )

    return one_step


def shifted(shift):
    def one_step(optimizer, W, w, X, y):
        steps("zbs", change=lambda X, w: shift(torch.sigmoid(X @ W)) @ w)(optimizer, w, X, y)

    return one_step


def forgiving(root, penalty=lambda w: (w**2).sum() / 2, after=lambda w: None):
    def one_step(optimizer, w, X, y):
        size = (X @ w - y).abs()
        fit = torch.where(size > 1, 4 * root(size) - 3, size**2).mean()
        optimizer.zero_grad()
        (fit + penalty(w)).backward()
        after(w)
        optimizer.step()

    return one_step


def safe(size, other=1.0):
    return torch.where(size > 1, size, other).sqrt()


def network(forward=lambda a, b, c, x: c(b(a(x).tanh()).tanh()), keep=nn.ModuleList, freeze=False):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = keep([nn.Linear(3, 4), nn.Linear(4, 4)]), nn.Linear(4, 1)
            self.hidden[0].requires_grad_(not freeze)

        def forward(self, x):
            return forward(*self.hidden, self.out, x).squeeze(1)

    return Network


def ridge(fit=1.0, penalty=1.0):
    return lambda X, y, w, rho: fit * X.T @ (X @ w - y) / len(y) + penalty * rho * w


def rate(of_edges):
    return lambda X: of_edges(*torch.linalg.eigvalsh(X.T @ X / len(X))[[0, -1]])


def scaled_fit(X, y, back=-1, num_steps=500, norm=torch.linalg.vector_norm):
    scale = norm(X, dim=0) / len(X) ** 0.5
    w = torch.zeros_like(X[0])
    for _ in range(num_steps):
        w = w - 0.5 * (X / scale).T @ (X / scale @ w - y) / len(y)
    return w * scale**back


def weighted(x_power=0.5, y_power=0.5):
    return lambda X, y, c: torch.linalg.lstsq(c[:, None] ** x_power * X, c**y_power * y).solution


def logistic(p=torch.sigmoid):
    return lambda X, y, w: X.T @ (p(X @ w) - y) / len(y)


def accuracy(says=lambda z: z.squeeze(1) > 0, mean=lambda right: right.double().mean()):
    return lambda z, y: mean(says(z) == y)


def training(loss=bce, update=lambda p, lr: p.sub_(lr * p.grad), reset=True, result=float):
    def training_step(model, X, y, lr):
        value = loss(model(X), y)
        value.backward()
        with torch.no_grad():
            for p in model.parameters():
                update(p, lr)
                p.grad = None if reset else p.grad
        return result(value)

    return training_step


def rebind(model, X, y, lr):
    value = bce(model(X), y)
    value.backward()
    for name, p in [*model[0].named_parameters()]:
        setattr(model[0], name, nn.Parameter(p.detach() - lr * p.grad))
    return value.item()


def backward(**changed):
    """The seven gradients of exercise 5.4, with other rules for those that are changed."""
    rules = {
        "dz": lambda v: (torch.sigmoid(v.z) - v.y) / 7,
        "dw2": lambda v: v.h.T @ v.dz,
        "db2": lambda v: v.dz.sum(),
        "dh": lambda v: v.dz[:, None] * v.w2,
        "da": lambda v: v.dh * (1 - v.h**2),
        "dW1": lambda v: v.X.T @ v.da,
        "db1": lambda v: v.da.sum(0),
    }

    def gradients(X, y, W1, b1, w2, b2):
        v = SimpleNamespace(X=X, y=y, w2=w2, a=X @ W1 + b1)
        v.h = v.a.tanh()
        v.z = v.h @ w2 + b2
        for name, rule in (rules | changed).items():
            setattr(v, name, rule(v))
        return tuple(getattr(v, name) for name in rules)

    return gradients


def backward_by_autograd(X, y, W1, b1, w2, b2):
    W1, b1, w2, b2 = (p.clone().requires_grad_() for p in (W1, b1, w2, b2))
    a = X @ W1 + b1
    h = a.tanh()
    z = h @ w2 + b2
    return torch.autograd.grad(bce(z, y), (z, w2, b2, h, a, W1, b1))


def smallest(batch):
    """An answer to 6.1 from the number of rows, σ², the target, and their ratio."""

    def smallest_batch(rows, tolerance):
        full = rows.mean(0)
        variance = (rows - full).square().sum(1).mean()
        return batch(len(rows), variance, (tolerance * full.norm()) ** 2)

    return smallest_batch


def search(rows, tolerance):
    full, n = rows.mean(0), len(rows)
    variance = (rows - full).square().sum(1).mean()
    spreads = [(variance / b * (n - b) / (n - 1)) ** 0.5 for b in range(1, n + 1)]
    return 1 + sum(spread > tolerance * full.norm() for spread in spreads)


def accumulated(part=lambda g, rows, seen, total: g / total, observe=lambda y, o: o):
    """An answer to 6.2: `part` scales the summed gradient of a part's observed rows."""

    def accumulated_gradient(w, parts):
        total = sum(o.sum() for _, _, o in parts)
        gradients = []
        for X, y, observed in parts:
            seen = observe(y, observed)
            g = X[seen].T @ (X[seen] @ w - y[seen])
            gradients.append(part(g, len(y), seen.sum(), total))
        return sum(gradients)

    return accumulated_gradient


def accumulated_by_autograd(w, parts):
    w = w.clone().requires_grad_()
    for X, y, seen in parts:
        loss = ((X[seen] @ w - y[seen]) ** 2).sum() / 2
        (loss / sum(o.sum() for _, _, o in parts)).backward()
    return w.grad


def worker(scale=lambda rows, total, workers: 1 / total, skip=lambda rank, step: False):
    """An answer to 6.4: `scale` multiplies the summed gradient of the worker's own rows."""

    def train(rank, group, X, y, lr, num_steps):
        w, total = torch.zeros(X.shape[1], dtype=X.dtype), torch.tensor([len(y)])
        group.allreduce([total]).wait()
        for step in range(num_steps):
            g = X.T @ (X @ w - y) * scale(len(y), total, group.size())
            if not skip(rank, step):
                group.allreduce([g]).wait()
            w = w - lr * g
        return w

    return train


def sums_residuals(rank, group, X, y, lr, num_steps):
    residuals = X @ torch.zeros(3, dtype=X.dtype) - y
    group.allreduce([residuals]).wait()
