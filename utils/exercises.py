"""The exercises: for each one what is right, and likely mistakes, by name."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.checks import NOT_DONE, RETURNED_NONE, Attempt, Mistake, as_numbers, close, copy_of
from utils.workers import together


def _random(*shape: int, seed: int = 0) -> Tensor:
    """Return fixed float64 numbers of both signs with 0.3 < |x| < 0.7 or 1.3 < |x| < 1.9."""
    generator = torch.Generator().manual_seed(seed)
    size, sign = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
    return torch.where(size < 0.4, 0.3 + size, 0.9 + size) * torch.where(sign < 0.5, -1, 1)


def _vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


X, Y = _random(7, 3), _random(7, seed=1)
W, START = _vector(1.7, -0.4, -1.4), _vector(-0.6, 0.5, 1.3)
LABELS = _vector(1, 0, 0, 1, 0, 1, 1)
LOGITS = _vector(1.3, -1.2, 0.3, 2.5, -0.4, -0.7, 1.8)[:, None]
SIZES = [4, 2, 1]  # rows of three parts or workers
SHARDS = [*zip(X.split(SIZES), Y.split(SIZES), strict=True)]


def _trained(
    loss: Callable, start: Sequence[Tensor], order: str = "rbs", steps: int = 5, lr: float = 0.1
) -> Tensor:
    """Return what training makes of the weights; `order` is that of reset, backward, and step."""
    weights = [w.clone().requires_grad_() for w in start]
    optimizer = torch.optim.SGD(weights, lr=lr)
    backward = {"b": lambda: loss(*weights).backward()}
    actions = backward | {"r": optimizer.zero_grad, "s": optimizer.step}
    for action in steps * order:
        actions[action]()
    return nn.utils.parameters_to_vector(weights).detach()


def _mean_square(w: Tensor) -> Tensor:
    return F.mse_loss(X @ w, Y)


def _sharded(*scales: float) -> Callable:
    """Return a loss: the workers' half sums of squares, each times its scale."""
    rows = _vector(*scales).repeat_interleave(torch.tensor(SIZES))
    return lambda w: (rows * (X @ w - Y).square()).sum() / 2


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
    """A student's function, judged by one method for each exercise."""

    def exercise_1_1(self):
        answers = {
            "correct": 8 * Y**3 - 10 * Y + 3,
            "each exponent should come down as a factor": 2 * Y**3 - 5 * Y + 3,
            "the derivative of 3x is missing": 8 * Y**3 - 10 * Y,
        }
        self.compare(self(Y), answers)

    def exercise_1_2(self):
        for f, want in (lambda t: t**3 - 3 * t, 3 * Y**2 - 3), (torch.sin, Y.cos()):
            self.compare(self(f, Y), {"correct": want})
        if "changes" in str(self.notes):
            raise Mistake("the values are right, but your code changes the caller's x: copy it")

    def exercise_1_3(self):
        a, b, c = W
        J = torch.stack([b * c, a * c, a * b, 2 * a, 0 * b, -3 * c**2]).view(2, 3)
        answers = {
            "correct": J,
            "row i is the sum of rows 0 to i: .grad accumulates from pass to pass": J.cumsum(0),
            "your rows are summed into one: run one backward pass per output": J.sum(0),
            "all your rows are the same tensor .grad: stack copies of it": J.sum(0).expand(2, 3),
            "you stacked .grad itself, and then set it to zero: stack copies of it": 0 * J,
        }
        got = self(lambda t: torch.stack([t.prod(), t[0] ** 2 - t[2] ** 3]), W)
        self.compare(got, answers)

    def exercise_1_4(self):
        x, f = W[0], lambda t: t**3 + t.sin()
        slope, curvature = 3 * x**2 + x.cos(), 6 * x - x.sin()
        answers = {
            "correct": x - slope / curvature,
            "the step has the wrong sign": x + slope / curvature,
            "that is only the step: subtract it from x": slope / curvature,
            "that step looks for f = 0; a critical point has f' = 0": x - f(x) / slope,
        }
        self.compare(self(f, x), answers)

    def exercise_1_5(self):
        right, error = 3 * W**2 - 3 + W.prod() / W, _vector(0, 0, 1e-4)
        cases = {
            "the true gradient": (right, True),
            "a gradient of the wrong sign": (-right, False),
            "a gradient whose first entry is off by 1e-4": (right + error.flip(0), False),
            "a gradient whose last entry is off by 1e-4": (right + error, False),
            "a gradient with two entries swapped": (right[[1, 0, 2]], False),
        }
        for claim, (claimed, want) in cases.items():
            if bool(self(lambda x: (x**3 - 3 * x).sum() + x.prod(), W, claimed)) != want:
                raise Mistake(f"your function says {not want} to {claim}")

    def exercise_2_1(self):
        right = {"z1": -12, "z2": 9, "f": -3, "df/dz1": 1, "df/dz2": 1}
        right |= {"dz1/dx": -4, "dz1/dy": 3, "dz2/dx": 6, "df/dx": 2, "df/dy": 3}
        paths = {"only the path over z1: add both": -4, "only the path over z2: add both": 6}
        table = self()
        for name, value in right.items():
            answers = {"correct": value} | (paths if name == "df/dx" else {})
            self.compare(table.get(name), answers, f"{name}: ")

    def exercise_2_2(self):
        users = {"f": "", "d": "f", "c": "d", "b": "d", "a": "fcb", "x": "a"}
        order = [str(name) for name in self()]
        if sorted(order) != sorted(users):
            raise Mistake("name each of f, a, b, c, d and x once")
        for place, name in enumerate(order):
            if late := [user for user in users[name] if user not in order[:place]]:
                raise Mistake(f"{name} comes before {late[0]}, which still sends it a gradient")

    def exercise_2_3(self):
        u, v = (row.clone().requires_grad_() for row in _random(2, 3))
        f = ((u + v) * (v + 2 * u)).sum()  # the first sum hands the same tensor to u and to v
        first, second = (v + 2 * u).detach(), (u + v).detach()
        self.compare(self(f)[u], {"correct": first + 2 * second, NOT_DONE: 2 * second})

    def exercise_2_4(self):
        e = X.exp()
        answers = {
            "correct": e * (1 + X),
            "the derivative of exp is its output, not its input": e + X * X,
            "no gradient reaches a: give the new Array its input and a rule": e,
            "the gradient is nan: does your exp return an Array?": math.nan * e,
        }
        self.compare(self(X.clone().numpy())[1][0], answers)

    def exercise_2_5(self):
        x = _vector(-800, -4.1, -1.6, 0.4, 2.4, 5.3, 10.2, 21.5, 800)
        leaf, factor, exp = x.clone().requires_grad_(), _random(9), x.exp()
        y = self(leaf.clone())
        answers = {"correct": torch.logaddexp(x, 0 * x), "e^x overflows": exp.log1p()}
        self.compare(y, answers, "forward: ")
        if not torch.is_tensor(y) or not y.requires_grad:
            raise Mistake("forward: return a tensor that requires a gradient")
        self.run(y.backward, factor)
        if leaf.grad is None:
            raise Mistake("backward returned None: is the return missing?")
        answers = {
            "correct": factor * x.sigmoid(),
            "multiply by the incoming gradient": x.sigmoid(),
            "e^x overflows: use torch.sigmoid": factor * exp / (1 + exp),
        }
        self.compare(leaf.grad, answers, "backward: ")

    def compare_weights(
        self, got: Sequence, losses: dict, start: Sequence[Tensor], **training: float
    ) -> None:
        """Compare `got` with what training makes of `start`, with these losses or a wrong loop."""
        if [w.shape for w in got] != [w.shape for w in start]:
            raise Mistake("the shape of the weights changed during training")
        orders = {
            "the weights do not move": "b",
            "the first step is right, but all later steps are too long": "bs",
            "the last gradient is not used: step() must come after backward()": "srb",
        }
        right = losses["correct"]
        losses = losses | {"the sign of the update is flipped": lambda *w: -right(*w)}
        answers = {told: _trained(loss, start, **training) for told, loss in losses.items()}
        answers |= {told: _trained(right, start, o, **training) for told, o in orders.items()}
        answers["the weights are nan"] = math.nan * answers["correct"]
        otherwise = "the weights after training are not right"
        self.compare(nn.utils.parameters_to_vector(got), answers, otherwise=otherwise)

    def train(self, losses: dict, start: Sequence[Tensor], *data: object) -> None:
        """Call the function for five steps with SGD, and compare the weights."""
        weights, data = [w.clone().requires_grad_() for w in start], [copy_of(d) for d in data]
        optimizer = torch.optim.SGD(weights, lr=0.1)
        for _ in range(5):
            self.run(self.function, optimizer, *weights, *data)
        self.compare_weights(weights, losses, start)

    def exercise_3_1(self):
        self.train({"correct": _mean_square}, [START], X, Y)

    exercise_3_2 = exercise_3_1

    def exercise_3_3(self):
        losses = {
            "correct": lambda w: _mean_square(w[:, 0]),
            "all predictions move toward the mean of y": lambda w: (X @ w - Y).square().mean(),
        }
        self.train(losses, [START[:, None]], X, Y)

    def exercise_3_4(self):
        inputs, targets, first = X.clone(), Y.clone(), START.clone().requires_grad_()
        w = first
        for _ in range(5):
            w = self.run(self.function, w, inputs, targets)
            if w is None:
                raise Mistake(RETURNED_NONE)
        self.compare_weights([w], {"correct": _mean_square}, [START])
        if w.grad_fn and torch.autograd.grad(w.sum(), first, allow_unused=True)[0] is not None:
            raise Mistake("the numbers are right, but the graph behind w grows with every step")

    def exercise_3_5(self):
        got: list = []
        self.train({"correct": _mean_square}, [START], X, Y, got)
        if any(torch.is_tensor(value) and value.requires_grad for value in got):
            raise Mistake("the weights are right, but memory grows with every step")
        want = [_mean_square(_trained(_mean_square, [START], steps=k)) for k in range(5)]
        self.compare(got, {"correct": want}, "the weights are right, the list is not: ")

    def exercise_3_6(self):
        def right(W: Tensor, w: Tensor) -> Tensor:
            return F.mse_loss((torch.sigmoid(X @ W) - 0.5) @ w, Y)

        def overwritten(W: Tensor, w: Tensor) -> Tensor:
            hidden = torch.sigmoid(X @ W)
            hidden.data -= 0.5
            return F.mse_loss(hidden @ w, Y)

        losses = {
            "correct": right,
            "the gradient of W is wrong: .data hides the change": overwritten,
            "W does not move: its path is cut": lambda W, w: right(W.detach(), w),
        }
        self.train(losses, [X[:3, :2], W[:2]], X, Y)

    def exercise_3_7(self):
        inputs, targets = X.clone(), Y.clone()
        inputs[2], targets[2] = 0, 0  # an error of exactly zero

        def fit(w: Tensor) -> Tensor:
            size = (inputs @ w - targets).abs()
            return torch.where(size > 1, 4 * size.clamp(min=1).sqrt() - 3, size**2).mean()

        losses = {
            "correct": lambda w: fit(w) + w.square().sum() / 2,
            "the nan is gone, but the penalty does not contribute to the gradient": fit,
        }
        self.train(losses, [START], inputs, targets)

    def exercise_3_8(self):
        with torch.random.fork_rng([]):
            network = self()
            wanted = [nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)]
        tensors, inputs = [*network.parameters()], X.float()
        start = [tensor.detach().clone() for tensor in tensors]
        optimizer = torch.optim.SGD(tensors, lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            loss = F.mse_loss(self.run(network, inputs), Y.float())
            self.run(loss.backward)
            optimizer.step()
        moved = sum(not torch.equal(*pair) for pair in zip(tensors, start, strict=True))
        if moved < 6:
            raise Mistake(f"after five steps, only {moved} of 6 tensors have moved")
        right = nn.Sequential(*wanted, nn.Flatten(0))
        nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(tensors), right.parameters())
        if not close(self.run(network, inputs), right(inputs).double(), 1e-5):
            raise Mistake("all tensors move, but the network computes another function")

    def exercise_4_1(self):
        fit, penalty = X.T @ (X @ W - Y) / 7, 0.7 * W
        answers = {
            "correct": fit + penalty,
            "that is least squares alone: the penalty has a gradient too": fit,
            "the first term is too large by a factor of n: the loss is a mean": 7 * fit + penalty,
            "the penalty counts twice: the factor 1/2 cancels the 2": fit + 2 * penalty,
        }
        self.compare(self(X, Y, W, 0.7), answers)

    def exercise_4_2(self):
        low, _, high = torch.linalg.eigvalsh(X.T @ X / 7)
        told = "too large: at 2/L the error in the steepest direction never shrinks"
        answers = {
            "correct": 2 / (low + high),
            f"{told} (or did you use XXᵀ, whose smallest eigenvalue is 0?)": 2 / high,
            "safe, but not the fastest: that is 1/L": 1 / high,
        }
        self.compare(self(X), answers)

    def exercise_4_3(self):
        inputs = X * _vector(0.4, 50, 3)
        want = torch.linalg.lstsq(inputs, Y).solution
        centered = torch.linalg.lstsq(inputs - inputs.mean(0), Y).solution
        answers = {
            "correct": want,
            "the fit diverges": math.nan * want,
            "centering fits another model, with an intercept: scale the columns only": centered,
        }
        sizes = {"root mean square": inputs.square().mean(0).sqrt(), "deviation": inputs.std(0)}
        for name, size in sizes.items():
            answers[f"convert the weights back: divide each by its column's {name}"] = want * size
            answers[f"converted the wrong way: divide by the column's {name}"] = want * size**2
        self.compare(self(inputs, Y), answers)

    def exercise_4_4(self):
        c = X[:, 0].abs()

        def solve(left: Tensor, right: Tensor) -> Tensor:
            return torch.linalg.solve(X.T @ (left[:, None] * X), X.T @ (right * Y))

        answers = {
            "correct": solve(c, c),
            "that is ordinary least squares: the weights c are not used": solve(c**0, c**0),
            "the weights get squared too: multiply rows by the root of c": solve(c**2, c**2),
            "X is weighted, y is not": solve(c, c.sqrt()),
        }
        self.compare(self(X, Y, c), answers)

    def exercise_5_1(self):
        answers = {
            "correct": X.T @ (torch.sigmoid(X @ W) - LABELS) / 7,
            "that is the gradient of least squares: the sigmoid is missing": (
                X.T @ (X @ W - LABELS) / 7
            ),
        }
        self.compare(self(X, LABELS, W), answers)

    def exercise_5_2(self):
        z, right = LOGITS[:, 0], LABELS == 1
        answers = {
            "correct": ((z > 0) == right).double().mean(),
            "(n, 1) against (n,) compares every image with every label": (
                ((LOGITS > 0) == right).double().mean()
            ),
            "a logit of 0, not 0.5, means p = 0.5": ((z > 0.5) == right).double().mean(),
        }
        self.compare(self(LOGITS, LABELS), answers)

    def exercise_5_3(self):
        inputs = torch.cat([-60 * X[:1], X[1:]])  # its first probability rounds to 0 or 1
        z, y, bce = partial(F.linear, inputs), LABELS[:, None], F.binary_cross_entropy_with_logits
        losses = {
            "correct": lambda *p: bce(z(*p), y),
            "the sigmoid is applied twice: the loss takes logits": lambda *p: bce(
                z(*p).sigmoid(), y
            ),
            "a probability can round to 0 or 1: give the loss logits": (
                lambda *p: F.binary_cross_entropy(z(*p).sigmoid(), y)
            ),
        }
        model = nn.Sequential(nn.utils.skip_init(nn.Linear, 3, 1, dtype=X.dtype), nn.Flatten(0))
        weights, start = [*model.parameters()], [W[None], W[:1]]
        nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(start), weights)
        before, returned = [], []
        for _ in range(2):
            before.append(losses["correct"](*weights).detach())
            data = inputs.clone(), LABELS.clone()
            returned.append(self.run(self.function, model, *data, 0.3))
        self.compare_weights(weights, losses, start, steps=2, lr=0.3)
        if None in returned:
            raise Mistake("the step is right; return the loss from before it")
        self.compare(returned, {"correct": before}, "the step is right, the loss: ")

    def exercise_5_4(self):
        network = [_random(7, 2, seed=3), LABELS, _random(2, 3, seed=4), START, W, Y[0]]
        X, y, W1, b1, w2, b2 = network
        h = (X @ W1 + b1).tanh()
        z = h @ w2 + b2
        dz = (z.sigmoid() - y) / 7
        dh = torch.outer(dz, w2)
        da = dh * (1 - h**2)
        missing = "the derivative of tanh is missing"
        again = "h is the tanh already: take 1 - h²"
        answers = {
            "dz": {"correct": dz, "the sigmoid is missing": (z - y) / 7},
            "dw2": {"correct": h.T @ dz},
            "db2": {"correct": dz.sum()},
            "dh": {"correct": dh},
            "da": {"correct": da, missing: dh, again: dh * (1 - h.tanh() ** 2)},
            "dW1": {"correct": X.T @ da, "start from da, not from dh": X.T @ dh},
            "db1": {"correct": da.sum(0), "start from da, not from dh": dh.sum(0)},
        }
        got = self(*network)
        if not isinstance(got, (tuple, list)) or len(got) != 7:
            raise Mistake(f"return one tuple of seven gradients: {', '.join(answers)}")
        for value, name in zip(got, answers, strict=True):
            self.compare(value, answers[name], f"{name}: ")

    def exercise_6_1(self):
        rows, n = W + _random(40, 3, seed=5), 40
        full = rows.mean(0)
        variance = (rows - full).square().sum(1).mean()
        for tolerance in 0.1, 0.4:
            target = (tolerance * full.norm()) ** 2
            exact = n * variance / (variance + (n - 1) * target)
            absolute = n * variance / (variance + (n - 1) * tolerance**2)
            answers = {
                "correct": exact.ceil(),
                "one row too few: round up, and mind n - 1 in the formula": exact.floor(),
                "a batch size is an integer: round up": exact,
                "the factor for draws without repetition is missing": (variance / target).ceil(),
                "multiply the tolerance by the length of the full gradient": absolute.ceil(),
            }
            self.compare(self(rows, tolerance), answers)

    def exercise_6_2(self):
        observed = torch.tensor([True, False, True, True, True, True, False])
        labels = torch.where(observed, Y, math.nan)
        columns = [tensor.split(SIZES) for tensor in (X.clone(), labels, observed)]
        parts = [*zip(*columns, strict=True)]
        first, second = (A[o].T @ (A[o] @ W - b[o]) for A, b, o in parts[:2])  # of 3 and 2 rows
        answers = {
            "correct": (first + second) / 5,
            "the parts count alike: weight each by its observed rows": (first / 3 + second / 2) / 3,
            "divide by the number of observed rows, not of all": (first + second) / 7,
            "nan: is a label used that is missing, or a part empty?": math.nan * W,
        }
        self.compare(self(W, parts), answers)

    def exercise_6_3(self):
        L, mu = 1.7, 0.02
        root = (mu / L) ** 0.5
        answers = {
            "correct": (1 - root) ** 2,
            "that is the factor per step, the root of beta": 1 - root,
            "take the root of mu/L": (1 - root**2) ** 2,
            "that is best at another learning rate": ((1 - root) / (1 + root)) ** 2,
        }
        got = as_numbers(self(L, mu))
        close_enough = got.numel() == 1 and abs(got.item() - answers["correct"]) < 0.002
        if not close_enough:  # a grid may be that coarse
            self.compare(got, answers)

    def exercise_6_4(self):
        losses = {
            "correct": _sharded(1 / 7, 1 / 7, 1 / 7),
            "a mean of means: weight each worker by its rows": _sharded(1 / 12, 1 / 6, 1 / 3),
            "the means are added up and not divided": _sharded(1 / 4, 1 / 2, 1),
            "the sum over all rows is not divided by their number": _sharded(1, 1, 1),
        }
        for steps in 1, 2, 3:
            replicas = self.replicas(steps)
            if not all(close(w, replicas[0].double(), 1e-9) for w in replicas):
                raise Mistake(f"the replicas part in step {steps}: is a gradient not all-reduced?")
            self.compare_weights(replicas[:1], losses, [0 * W], steps=steps, lr=0.3)

    def replicas(self, steps: int) -> list[Tensor]:
        """Return the weights of three workers that run the student's function."""
        calls: dict = {}
        try:
            weights = together(
                lambda rank, group: self(rank, _guarded(group, calls), *SHARDS[rank], 0.3, steps),
                num_workers=3,
                timeout=5,
            )
        except TimeoutError as error:
            raise Mistake(f"{error}: does every worker make the same calls?") from None
        return [as_numbers(w) for w in weights]


EXERCISES = {
    name.removeprefix("exercise_").replace("_", "."): judge
    for name, judge in vars(Exercises).items()
    if name.startswith("exercise_")
}
