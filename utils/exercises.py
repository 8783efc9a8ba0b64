"""The exercises: for each one what is right, and likely mistakes, by name."""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from utils.checks import CHANGED, NOT_DONE, Attempt, Mistake, as_numbers, close
from utils.workers import together


def _random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


X, Y = _random(7, 3), _random(7, seed=1)
W, START = as_numbers([1.7, -0.4, -1.4]), as_numbers([-0.6, 0.5, 1.3])
LABELS = as_numbers([1, 0, 0, 1, 0, 1, 1])
SIZES = [4, 2, 1]  # rows of three parts or workers


def _mean_square(w: Tensor) -> Tensor:
    return F.mse_loss(X @ w, Y)


def _steps(loss: Callable, path: Sequence) -> Tensor:
    """Return what gradient descent with learning rate 0.1 adds to the weights at each point."""
    steps = []
    for weights in path:
        weights = [w.detach().double().requires_grad_() for w in weights]
        gradients = torch.autograd.grad(loss(*weights), weights)
        steps.append(-0.1 * torch.cat([g.flatten() for g in gradients]))
    return torch.stack(steps)


def _guarded(group: object, calls: dict) -> SimpleNamespace:
    """Return the group, with shapes compared first: where they differ, gloo ends the process."""
    numbers = count()

    def allreduce(tensors: Sequence[Tensor], *options: object) -> object:
        kind = [(tuple(t.shape), t.dtype) for t in tensors]
        if (other := calls.setdefault(next(numbers), kind)) != kind:
            raise ValueError(f"one worker all-reduces {kind[0]}, and another {other[0]}")
        return group.allreduce(tensors, *options)

    return SimpleNamespace(rank=group.rank, size=group.size, allreduce=allreduce)


class Exercises(Attempt):
    """A student's function, judged by one method for each exercise.

    A method may yield pairs: first what the function returns and what is right, and then the
    name of each likely mistake and the wrong answer to which it leads.
    """

    def exercise_1_1(self):
        yield self(Y), 8 * Y**3 - 10 * Y + 3
        yield "the derivative of 3x is missing", 8 * Y**3 - 10 * Y

    def exercise_1_2(self):
        self.compare(self(lambda t: t**3 + t.sin(), Y), 3 * Y**2 + Y.cos())
        if CHANGED in self.notes:
            raise Mistake(f"the values are right, but {CHANGED}")

    def exercise_1_3(self):
        a, b, c = W
        J = torch.stack([b * c, a * c, a * b, 2 * a, 0 * b, -3 * c**2]).view(2, 3)
        yield self(lambda t: torch.stack([t.prod(), t[0] ** 2 - t[2] ** 3]), W), J
        yield "row i is the sum of rows 0 to i: .grad accumulates from pass to pass", J.cumsum(0)
        yield "your rows are summed into one: run one backward pass per output", J.sum(0)
        for rows in J.sum(0).expand(2, 3), J[1].expand(2, 3), 0 * J:
            yield "all your rows are the same tensor .grad: stack copies of it", rows

    def exercise_1_4(self):
        x, f = W[0], lambda t: t**3 + t.sin()
        slope, curvature = 3 * x**2 + x.cos(), 6 * x - x.sin()
        yield self(f, x), x - slope / curvature
        yield "the step has the wrong sign", x + slope / curvature
        yield "that is only the step: subtract it from x", slope / curvature
        yield "that step looks for f = 0; a critical point has f' = 0", x - f(x) / slope

    def exercise_1_5(self):
        right, error = 3 * W**2 - 3 + W.prod() / W, as_numbers([0, 0, 2e-5])
        claims = {
            "the true gradient": right,
            "a gradient of the wrong sign": -right,
            "a gradient whose first entry is off by 2e-5": right + error.flip(0),
            "a gradient whose last entry is off by 2e-5": right + error,
            "a gradient with two entries swapped": right[[1, 0, 2]],
        }
        for name, claimed in claims.items():
            said = bool(self(lambda x: (x**3 - 3 * x).sum() + x.prod(), W, claimed))
            if said != (claimed is right):
                raise Mistake(f"your function says {said} to {name}")

    def exercise_2_1(self):
        right = {"z1": -12, "z2": 9, "f": -3, "dz1/dx": -4, "dz1/dy": 3, "dz2/dx": 6}
        right |= {"df/dz1": 1, "df/dz2": 1, "df/dx": 2, "df/dy": 3}
        paths = ("only the path over z1: add both", -4), ("only the path over z2: add both", 6)
        table = self()
        for name, want in right.items():
            slips = paths if name == "df/dx" else ()
            self.compare(table.get(name), want, *slips, name=f"{name}: ")

    def exercise_2_2(self):
        order = [str(name) for name in self()]
        if sorted(order) != sorted("fabcdx"):
            raise Mistake("name each of f, a, b, c, d and x once")
        for sender, name in "fa", "fd", "dc", "db", "ca", "ba", "ax":
            if order.index(name) < order.index(sender):
                raise Mistake(f"{name} comes before {sender}, which still sends it a gradient")

    def exercise_2_3(self):
        u, v = (row.clone().requires_grad_() for row in _random(2, 3))
        f = ((u + v) * (v + 2 * u)).sum()  # the first sum hands the same tensor to u and to v
        yield self(given=[f])[u], 4 * u + 3 * v
        yield NOT_DONE, 2 * (u + v)

    def exercise_2_4(self):
        e = X.exp()
        yield self(X.numpy())[1][0], e * (1 + X)
        yield "the derivative of exp is its output, not its input", e + X * X
        yield "no gradient reaches a: give the new Array its input and a rule", e
        yield "the gradient is nan: does your exp return an Array?", math.nan * e

    def exercise_2_5(self):
        x = as_numbers([-800, -4.1, -1.6, 0.4, 2.4, 5.3, 10.2, 21.5, 800])
        leaf, factor, exp = x.clone().requires_grad_(), _random(9), x.exp()
        y, overflow = self(given=[leaf.clone()]), ("e^x overflows", exp.log1p())
        self.compare(y, torch.logaddexp(x, 0 * x), overflow, name="forward: ")
        if not torch.is_tensor(y) or not y.requires_grad:
            raise Mistake("forward: return a tensor that requires a gradient")
        self.run(y.backward, factor)
        if leaf.grad is None:
            raise Mistake("backward returned None: is the return missing?")
        overflow = "e^x overflows: use torch.sigmoid", factor * exp / (1 + exp)
        alone = "multiply by the incoming gradient", x.sigmoid()
        self.compare(leaf.grad, factor * x.sigmoid(), alone, overflow, name="backward: ")

    def compare_steps(self, path: list, loss: Callable, *slips: tuple) -> None:
        """Compare the steps of the weights with gradient descent. A slip is a wrong loss."""
        if [w.shape for w in path[-1]] != [w.shape for w in path[0]]:
            raise Mistake("the shape of the weights changed during training")
        points = torch.stack([parameters_to_vector(weights) for weights in path])
        if points.isnan().any():
            raise Mistake("the weights are nan")
        steps, want = points.diff(dim=0), _steps(loss, path[:-1])
        late = torch.cat([0 * want[:1], want[1:]])
        self.compare(
            steps,
            want,
            *[(told, _steps(wrong, path[:-1])) for told, wrong in slips],
            ("the weights do not move", 0 * want),
            ("the first step is right, but all later steps are too long", want.cumsum(0)),
            ("the first step does nothing, but all later steps are right", late),
        )

    def train(self, data: list, start: list, loss: Callable, *slips: tuple) -> tuple[list, list]:
        """Call the function for five steps with SGD; compare and return the path of weights."""
        weights, data = [w.clone().requires_grad_() for w in start], copy.deepcopy(data)
        optimizer, path = torch.optim.SGD(weights, lr=0.1), [start]
        for _ in range(5):
            self.run(self.function, optimizer, *weights, *data)
            path.append(copy.deepcopy(weights))
        self.compare_steps(path, loss, *slips)
        return path, data

    def exercise_3_1(self):
        self.train([X, Y], [START], _mean_square)

    exercise_3_2 = exercise_3_1

    def exercise_3_3(self):
        told = "all predictions move toward the mean of y"
        slip = told, lambda w: F.mse_loss(X @ w, Y)
        self.train([X, Y], [START[:, None]], lambda w: F.mse_loss(X @ w, Y[:, None]), slip)

    def exercise_3_4(self):
        first, path = START.clone().requires_grad_(), [[START]]
        w = first
        for _ in range(5):
            w = self(X, Y, given=[w])
            path.append([w.detach().clone()])
        self.compare_steps(path, _mean_square)
        if w.grad_fn and torch.autograd.grad(w.sum(), first, allow_unused=True)[0] is not None:
            raise Mistake("the numbers are right, but the graph behind w grows with every step")

    def exercise_3_5(self):
        path, (*_, got) = self.train([X, Y, []], [START], _mean_square)
        if any(torch.is_tensor(value) and value.requires_grad for value in got):
            raise Mistake("the weights are right, but memory grows with every step")
        want = [_mean_square(*weights) for weights in path[:-1]]
        self.compare(got, want, name="the weights are right; losses: ")

    def exercise_3_6(self):
        def right(W: Tensor, w: Tensor) -> Tensor:
            return F.mse_loss((torch.sigmoid(X @ W) - 0.5) @ w, Y)

        def overwritten(W: Tensor, w: Tensor) -> Tensor:
            hidden = torch.sigmoid(X @ W)
            hidden.data -= 0.5
            return F.mse_loss(hidden @ w, Y)

        slip = "the gradient of W is wrong: .data hides the change", overwritten
        self.train([X, Y], [_random(3, 2), W[:2]], right, slip)

    def exercise_3_7(self):
        others = torch.arange(7) != 2  # the error of row 2 is exactly zero
        inputs, targets = others[:, None] * X, others * Y

        def fit(w: Tensor) -> Tensor:
            size = (inputs @ w - targets).abs()
            return torch.where(size > 1, 4 * size.clamp(min=1).sqrt() - 3, size**2).mean()

        slip = "the nan is gone, but the penalty does not contribute to the gradient", fit
        self.train([inputs, targets], [START], lambda w: fit(w) + w @ w / 2, slip)

    def exercise_3_8(self):
        network, inputs = self(), X.float()
        tensors = sorted(network.parameters(), key=len, reverse=True)  # the last layer's are last
        start, optimizer = copy.deepcopy(tensors), torch.optim.SGD(tensors, lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            F.mse_loss(self.run(network, inputs), Y.float()).backward()
            optimizer.step()
        moved = sum(not torch.equal(*pair) for pair in zip(tensors, start, strict=True))
        if moved < 6:
            raise Mistake(f"after five steps, only {moved} of 6 tensors have moved")
        A, a, B, b, C, c = tensors
        want = ((inputs @ A.T + a).tanh() @ B.T + b).tanh() @ C.T + c
        if not close(network(inputs), want[:, 0], 1e-5):
            raise Mistake("all tensors move, but the network computes another function")

    def exercise_4_1(self):
        fit, penalty = X.T @ (X @ W - Y) / 7, 0.7 * W
        yield self(X, Y, W, 0.7), fit + penalty
        yield "that is least squares alone: the penalty has a gradient too", fit
        yield "the first term is too large by a factor of n: the loss is a mean", 7 * fit + penalty
        yield "the penalty counts twice: the factor 1/2 cancels the 2", fit + 2 * penalty

    def exercise_4_2(self):
        low, _, high = torch.linalg.eigvalsh(X.T @ X / 7)
        yield self(X), 2 / (low + high)
        yield "the curvatures are those of a mean: divide XᵀX by n", 2 / (low + high) / 7
        yield "too large: at 2/L the error in the steepest direction never shrinks", 2 / high
        yield "safe, but not the fastest: that is 1/L", 1 / high

    def exercise_4_3(self):
        inputs = _random(7, 3, seed=13) * as_numbers([0.4, 50, 3])
        want = torch.linalg.lstsq(inputs, Y).solution
        centered = torch.linalg.lstsq(inputs - inputs.mean(0), Y).solution
        yield self(inputs, Y), want
        yield "the fit diverges", math.nan * want
        yield "centering fits another model, with an intercept: scale the columns only", centered
        for scale in inputs.square().mean(0).sqrt(), inputs.std(0):
            yield "convert the weights back: divide each by the scale of its column", want * scale
            yield "converted the wrong way: divide by the scale", want * scale**2

    def exercise_4_4(self):
        def solve(left: Tensor, right: Tensor) -> Tensor:
            return torch.linalg.solve(X.T @ (left[:, None] * X), X.T @ (right * Y))

        c = X[:, 0].abs()
        yield self(X, Y, c), solve(c, c)
        yield "the weights get squared too: multiply rows by the root of c", solve(c**2, c**2)
        for right in c.sqrt(), c**0:
            yield "X is weighted, y is not", solve(c, right)

    def exercise_5_1(self):
        yield self(X, LABELS, W), X.T @ (torch.sigmoid(X @ W) - LABELS) / 7
        without = X.T @ (X @ W - LABELS) / 7
        yield "that is the gradient of least squares: the sigmoid is missing", without

    def exercise_5_2(self):
        logits = as_numbers([1.3, -1.2, 0.3, 2.5, -0.4, -0.7, 1.8])
        right, positive = LABELS == 1, logits > 0
        every_pair = (positive[:, None] == right).double().mean()
        yield self(logits[:, None], LABELS), (positive == right).double().mean()
        yield "(n, 1) against (n,) compares every image with every label", every_pair
        yield "a logit of 0, not 0.5, means p = 0.5", ((logits > 0.5) == right).double().mean()

    def exercise_5_3(self):
        inputs = torch.cat([60 * X[:1], X[1:]])  # its first probability rounds to 0 or 1
        model = nn.Sequential(nn.Linear(3, 1, dtype=X.dtype), nn.Flatten(0))
        model.load_state_dict({"0.weight": W[None], "0.bias": W[:1]})
        weights, bce = [*model.parameters()], F.binary_cross_entropy_with_logits
        path, losses = [copy.deepcopy(weights)], []
        for _ in range(2):
            losses.append(self(inputs, LABELS, 0.1, given=[model]))
            path.append(copy.deepcopy(weights))

        def loss(entropy: Callable, activation: Callable) -> Callable:
            return lambda *w: entropy(activation(F.linear(inputs, *w)[:, 0]), LABELS)

        right, rounds = loss(bce, nn.Identity()), loss(F.binary_cross_entropy, torch.sigmoid)
        twice = "the sigmoid is applied twice: the loss takes logits", loss(bce, torch.sigmoid)
        rounds = "a probability can round to 0 or 1: give the loss logits", rounds
        self.compare_steps(path, right, twice, rounds)
        want = [right(*weights) for weights in path[:-1]]
        self.compare(losses, want, name="the steps are right; losses: ")

    def exercise_5_4(self):
        network = [_random(7, 2, seed=3), LABELS, _random(2, 3, seed=4), START, W, Y[0]]
        X, y, W1, b1, w2, b2 = network
        h = (X @ W1 + b1).tanh()
        z = h @ w2 + b2
        dz = (z.sigmoid() - y) / 7
        dh = torch.outer(dz, w2)
        da = dh * (1 - h**2)
        slips = [
            ("the sigmoid is missing", (z - y) / 7),
            ("the derivative of tanh is missing", dh),
            ("h is the tanh already: take 1 - h²", dh * (1 - h.tanh() ** 2)),
            ("start from da, not from dh", X.T @ dh),
            ("start from da, not from dh", dh.sum(0)),
        ]
        names = ["dz", "dw2", "db2", "dh", "da", "dW1", "db1"]
        right = [dz, h.T @ dz, dz.sum(), dh, da, X.T @ da, da.sum(0)]
        got = self(*network)
        if not isinstance(got, (tuple, list)) or len(got) != 7:
            raise Mistake(f"return one tuple of seven gradients: {', '.join(names)}")
        for name, value, want in zip(names, got, right, strict=True):
            self.compare(value, want, *slips, name=f"{name}: ")

    def exercise_6_1(self):
        rows, n = W + _random(40, 3, seed=5), 40
        full = rows.mean(0)
        variance = (rows - full).square().sum(1).mean()
        for tolerance in 0.11, 0.14:  # rounding up hides a wrong formula in one of them at most
            goal = (tolerance * full.norm()) ** 2
            exact, fixed = (n * variance / (variance + (n - 1) * t) for t in (goal, tolerance**2))
            slips = [
                ("one row too few: round up, and mind n - 1 in the formula", exact.floor()),
                ("a batch size is an integer: round up", exact),
                ("the factor for draws without repetition is missing", (variance / goal).ceil()),
                ("multiply the tolerance by the length of the full gradient", fixed.ceil()),
            ]
            self.compare(self(rows, tolerance), exact.ceil(), *slips)

    def exercise_6_2(self):
        observed = torch.tensor([True, True, True, False, True, True, False])
        columns = X, torch.where(observed, Y, math.nan), observed
        parts = [*zip(*(column.split(SIZES) for column in columns), strict=True)]
        first, second = (X[o].T @ (X[o] @ W - Y[o]) for o in (slice(3), slice(4, 6)))
        alike = (first / 3 + second / 2) / 3
        yield self(W, parts), (first + second) / 5
        yield "the parts count alike: weight each by its observed rows", alike
        yield "divide by the number of observed rows, not of all", (first + second) / 7
        yield "nan: is a label used that is missing, or a part empty?", math.nan * W

    def exercise_6_3(self):
        beta, root = as_numbers(self(1.7, 0.02)), (0.02 / 1.7) ** 0.5
        want = (1 - root) ** 2
        found = beta.numel() == 1 and abs(beta.item() - want) < 0.002  # a grid may be that coarse
        yield want if found else beta, want
        yield "that is the factor per step, the root of beta", 1 - root
        yield "take the root of mu/L", (1 - root**2) ** 2
        yield "that is best at another learning rate", ((1 - root) / (1 + root)) ** 2

    def exercise_6_4(self):
        rows = as_numbers([4, 4, 4, 4, 2, 2, 1])  # how many the worker of this row has

        def half(scale: Tensor) -> Callable:
            return lambda w: (scale * (X @ w - Y).square()).sum() / 2

        alike = "a mean of means: weight each worker by its rows", half(1 / (3 * rows))
        added = "the means are added up and not divided", half(1 / rows)
        path = [[0 * W]]
        for steps in 1, 2, 3:
            work = partial(self.work, steps, {})
            first, *others = together(work, num_workers=3, timeout=5)
            if not all(close(w, first, 1e-9) for w in others):
                raise Mistake(f"the replicas part in step {steps}: is a gradient not all-reduced?")
            path.append([first])
        self.compare_steps(path, half(1 / 7), alike, added)

    def work(self, steps: int, calls: dict, rank: int, group: object) -> Tensor:
        """Return the weights of one of three workers that run the student's function."""
        shard = X.split(SIZES)[rank], Y.split(SIZES)[rank]
        return as_numbers(self(*shard, 0.1, steps, given=[rank, _guarded(group, calls)]))
