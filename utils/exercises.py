"""The exercises: for each one what is right, and the mistakes that a student may make."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.checks import NOT_DONE, RETURNED_NONE, Attempt, Mistake, as_numbers, close, copy_of
from utils.workers import together

LOOPS = {  # wrong training loops: the order of reset, backward and step, and the learning rate
    "the weights do not move": ("b", 0.1),
    "the first step is right, but all later steps are too long": ("bs", 0.1),
    "the last gradient is not used: step() must come after backward()": ("srb", 0.1),
    "the sign of the update is flipped: the loss rises": ("rbs", -0.1),
    "all steps are too long by a factor of n: the loss is a mean": ("rbs", 0.7),
}


def _random(*shape: int, seed: int = 0) -> Tensor:
    """Return fixed float64 numbers of both signs with 0.3 < |x| < 0.7 or 1.3 < |x| < 1.9."""
    generator = torch.Generator().manual_seed(seed)
    size, sign = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
    return torch.where(size < 0.4, 0.3 + size, 0.9 + size) * torch.where(sign < 0.5, -1, 1)


def _vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _descend(
    loss: Callable, start: Sequence[Tensor], order: str = "rbs", lr: float = 0.1, steps: int = 5
) -> Tensor:
    """Return what training makes of the weights; a negative `lr` climbs."""
    weights = [w.clone().requires_grad_() for w in start]
    optimizer = torch.optim.SGD(weights, lr=abs(lr), maximize=lr < 0)
    backward = lambda: loss(*weights).backward()  # noqa: E731
    actions = {"r": optimizer.zero_grad, "b": backward, "s": optimizer.step}
    for action in steps * order:
        actions[action]()
    return nn.utils.parameters_to_vector(weights).detach()


X, Y = _random(7, 3), _random(7, seed=1)
W, START = _vector(1.7, -0.4, -1.4), _vector(-0.6, 0.5, 1.3)
POINTS, LABELS = torch.cat([Y, _vector(-2.7, 0.15, 3.4)]), _vector(1, 0, 0, 1, 0, 1, 1)
LOGITS = _vector(1.3, -1.2, 0.3, 2.5, -0.4, -0.7, 1.8)[:, None]
NETWORK = [_random(7, 2, seed=3), LABELS, _random(2, 3, seed=4), START, W, Y[0]]
SCALED, TRUST = X * _vector(1, 2, 3), X[:, 0].abs()
SHARDS = [*zip(X.split([4, 2, 1]), Y.split([4, 2, 1]), strict=True)]  # of three workers
LEAST_SQUARES = {"correct": lambda w: F.mse_loss(X @ w, Y)}


class Exercises(Attempt):
    """A student's function, judged by one method for each exercise.

    A short method yields the right result for the arguments that are its defaults, and then
    mistakes by name. A longer one calls the function itself and raises Mistake.
    """

    def train(self, losses: dict, start: Sequence[Tensor], *data: object) -> None:
        """Call the function for five steps with SGD, and compare the weights."""
        weights, data = [w.clone().requires_grad_() for w in start], [copy_of(d) for d in data]
        optimizer = torch.optim.SGD(weights, lr=0.1)
        for _ in range(5):
            self.run(optimizer, *weights, *data)
        self.compare_weights(weights, losses, start)

    def compare_weights(self, got: Sequence, losses: dict, start: Sequence[Tensor]) -> None:
        """Raise Mistake unless `got` is what five steps on the first loss make of `start`."""
        if [w.shape for w in got] != [w.shape for w in start]:
            raise Mistake("the shape of the weights changed during training")
        weights = nn.utils.parameters_to_vector(got)
        if weights.isnan().any():
            raise Mistake("the weights are nan")
        answers = [(told, _descend(loss, start)) for told, loss in losses.items()]
        right = losses["correct"]
        answers += [(told, _descend(right, start, *loop)) for told, loop in LOOPS.items()]
        named = [told for told, values in answers if close(weights, values, 1e-6)]
        if named[:1] != ["correct"]:
            raise Mistake(named[0] if named else "the weights after five steps are not right")

    def exercise_1_1(self, x=POINTS):
        yield "correct", 8 * x**3 - 10 * x + 3
        yield "that is g itself, not its derivative", 2 * x**4 - 5 * x**2 + 3 * x
        yield "each exponent should come down as a factor", 2 * x**3 - 5 * x + 3
        yield "the derivative of 3x is missing", 8 * x**3 - 10 * x

    def exercise_1_2(self):
        for f, want in (lambda t: t**3 - 3 * t, 3 * Y**2 - 3), (torch.sin, Y.cos()):
            self.compare(self(f, Y), [("correct", want)])
        if "changes" in str(self.notes):
            raise Mistake("the values are right, but your code changes the caller's x: copy it")

    def exercise_1_3(self, F=lambda t: torch.stack([t.prod(), t[0] ** 2 - t[2] ** 3]), x=W):
        a, b, c = x
        J = torch.stack([b * c, a * c, a * b, 2 * a, 0 * b, -3 * c**2]).view(2, 3)
        yield "correct", J
        yield "row i is the sum of rows 0 to i: .grad accumulates from pass to pass", J.cumsum(0)
        yield "your rows are summed into one: run one backward pass per output", J.sum(0)
        for row in J.sum(0), J[1], 0 * x:
            yield "all your rows are the same tensor .grad: stack copies of it", row.expand(2, 3)

    def exercise_1_4(self, f=lambda t: t**3 + t.sin(), x=W[0]):
        slope, curvature = 3 * x**2 + x.cos(), 6 * x - x.sin()
        yield "correct", x - slope / curvature
        yield "the step has the wrong sign", x + slope / curvature
        yield "that is only the step: subtract it from x", slope / curvature
        yield "that is only the step: add it to x", -slope / curvature
        yield "that step looks for f = 0; a critical point has f' = 0", x - f(x) / slope
        yield "the slope is not divided by the curvature", x - slope

    def exercise_1_5(self):
        right, last = 3 * W**2 - 3 + W.prod() / W, _vector(0, 0, 1)
        cases = {
            "the true gradient": (right, True),
            "a gradient that is right to 9 digits": (right * (1 + 1e-9), True),
            "a gradient of the wrong sign": (-right, False),
            "a gradient whose first entry is wrong": (right * (1 + 0.01 * last.flip(0)), False),
            "a gradient whose last entry is wrong": (right * (1 + 0.01 * last), False),
            "a gradient with two entries swapped": (right[[1, 0, 2]], False),
            "a gradient that is off by 1e-4": (right * (1 + 1e-4), False),
        }
        for claim, (claimed, want) in cases.items():
            got = self(lambda x: (x**3 - 3 * x).sum() + x.prod(), W, claimed)
            if bool(got) != want:
                raise Mistake(f"your function says {not want} to {claim}")

    def exercise_2_1(self):
        right = {"z1": -12, "z2": 9, "f": -3, "df/dz1": 1, "df/dz2": 1}
        right |= {"dz1/dx": -4, "dz1/dy": 3, "dz2/dx": 6, "df/dx": 2, "df/dy": 3}
        paths = {f"only the path over z{i}: add both": _vector(w)[0] for i, w in ((1, -4), (2, 6))}
        table = self()
        if not isinstance(table, Mapping):
            raise Mistake("return the whole table: a dict with a number for each name")
        for name, value in right.items():
            answers = {"correct": _vector(value)[0]} | (paths if name == "df/dx" else {})
            self.compare(table.get(name), answers.items(), f"{name}: ")

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
        answers = [
            ("correct", first + 2 * second),
            (NOT_DONE, first),  # the last contribution, whatever the order of visits
            (NOT_DONE, 2 * second),
            ("you changed in place a tensor that two accumulators share", first + 3 * second),
        ]
        got = self(f)
        self.compare(got[u], answers)
        self.compare(got[v], [("correct", first + second)])

    def exercise_2_4(self):
        e = X.exp()
        answers = {
            "correct": e * (1 + X),
            "the rule must multiply by the incoming gradient": 2 * e,
            "the derivative of exp is its output, not its input": e + X * X,
            "no gradient reaches a: give the new Array its input and a rule": e,
            "the gradient is nan: does your exp return an Array?": math.nan * e,
        }
        self.compare(self(X.clone().numpy())[1][0], answers.items())

    def exercise_2_5(self):
        near, far = _vector(-4.1, -1.6, 0.4, 2.4, 5.3, 10.2, 21.5), _vector(-800, 800, 0.6)
        for x, factor in (near, Y), (far, W):
            leaf, slope, exp = x.clone().requires_grad_(), torch.sigmoid(x), x.exp()
            y = self(leaf.clone())
            answers = [("correct", torch.logaddexp(x, 0 * x)), ("e^x overflows", exp.log1p())]
            self.compare(y, answers, "forward: ")
            if not torch.is_tensor(y) or not y.requires_grad:
                raise Mistake("forward: return a tensor that requires a gradient")
            answers = {
                "correct": factor * slope,
                "multiply by the incoming gradient": slope,
                "that is the incoming gradient alone": factor,
                "e^x overflows: use torch.sigmoid": factor * exp / (1 + exp),
            }
            backward = partial(torch.autograd.grad, y, leaf, factor, allow_unused=True)
            (got,) = self.run(function=backward)
            if got is None:
                raise Mistake("backward returned None: is the return missing?")
            self.compare(got, answers.items(), "backward: ")

    def exercise_3_1(self):
        self.train(LEAST_SQUARES, [START], X, Y)

    exercise_3_2 = exercise_3_1

    def exercise_3_3(self):
        told = "all predictions move toward the mean of y"
        losses = {
            "correct": lambda w: (X @ w[:, 0] - Y).square().mean(),
            told: lambda w: (X @ w - Y).square().mean(),
            f"{told}, and n times as fast": lambda w: (X @ w - Y).square().sum() / 7,
            "square each error before the mean": lambda w: (X @ w[:, 0] - Y).mean().square(),
        }
        self.train(losses, [START[:, None]], X, Y)

    def exercise_3_4(self):
        inputs, targets, first = X.clone(), Y.clone(), START.clone().requires_grad_()
        w = first
        for _ in range(5):
            w = self.run(w, inputs, targets)
            if not torch.is_tensor(w):
                raise Mistake(RETURNED_NONE if w is None else "return the weights, a tensor")
        self.compare_weights([w], LEAST_SQUARES, [START])
        if w.grad_fn and torch.autograd.grad(w.sum(), first, allow_unused=True)[0] is not None:
            raise Mistake("the numbers are right, but the graph behind w grows with every step")

    def exercise_3_5(self):
        got: list = []
        self.train(LEAST_SQUARES, [START], X, Y, got)
        if any(torch.is_tensor(value) and value.requires_grad for value in got):
            raise Mistake("the weights are right, but memory grows with every step")
        path = [_descend(LEAST_SQUARES["correct"], [START], steps=k) for k in range(5)]
        want = torch.stack([F.mse_loss(X @ w, Y) for w in path])
        self.compare(got, [("correct", want)], "the weights are right, the list is not: ")

    def exercise_3_6(self):
        def loss(shift):
            return lambda W, w: F.mse_loss(shift(torch.sigmoid(X @ W)) @ w, Y)

        def overwrite(hidden):
            hidden.data.sub_(0.5)
            return hidden

        losses = {
            "correct": loss(lambda hidden: hidden - 0.5),
            "the gradient of W is wrong: .data hides the change": loss(overwrite),
            "W does not move: its path is cut": loss(lambda hidden: hidden.detach() - 0.5),
        }
        try:
            self.train(losses, [X[:3, :2], W[:2]], X, Y)
        except Mistake as mistake:  # PyTorch's versions describe the tensor differently
            raise Mistake(str(mistake).partition(": [")[0]) from None

    def exercise_3_7(self):
        inputs, targets = X.clone(), Y.clone()
        inputs[2], targets[2] = 0, 0  # an error of exactly zero

        def fit(w):
            size = (inputs @ w - targets).abs()
            return torch.where(size > 1, 4 * size.clamp(min=1).sqrt() - 3, size**2).mean()

        losses = {
            "correct": lambda w: fit(w) + w.square().sum() / 2,
            "the nan is gone, but the penalty does not contribute to the gradient": fit,
            "the penalty is half the sum, not the mean": lambda w: fit(w) + w.square().mean(),
            "the penalty is not halved": lambda w: fit(w) + w.square().sum(),
        }
        self.train(losses, [START], inputs, targets)

    def exercise_3_8(self):
        with torch.random.fork_rng([]):
            network = self()
        tensors, inputs = [*network.parameters()], X.float()
        start = [tensor.detach().clone() for tensor in tensors]
        optimizer = torch.optim.SGD([*tensors, torch.zeros(1)], lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            loss = F.mse_loss(self.run(inputs, function=network), Y.float())
            self.run(function=loss.backward)
            optimizer.step()
        moved = sum(not torch.equal(*pair) for pair in zip(tensors, start, strict=True))
        if moved < 6:
            raise Mistake(f"after five steps, only {moved} of 6 tensors have moved")
        sizes = [(4, 3), (4, 4), (1, 4), (4,), (4,), (1,)]
        tensors.sort(key=lambda tensor: sizes.index(tensor.shape))
        W1, W2, W3, b1, b2, b3 = tensors
        got = self.run(inputs, function=network)
        for b, c in (b1, b2), (b2, b1):  # their order is free
            want = (inputs @ W1.T + b).tanh() @ W2.T + c
            if close(got, (want.tanh() @ W3.T + b3)[:, 0].double(), 1e-4):
                return
        raise Mistake("all tensors move, but the network computes another function")

    def exercise_4_1(self, X=X, y=Y, w=W, rho=0.7):
        fit = X.T @ (X @ w - y) / 7
        yield "correct", fit + rho * w
        yield "that is least squares alone: the penalty has a gradient too", fit
        yield "the first term is too large by a factor of n: the loss is a mean", 7 * fit + rho * w
        yield "the penalty is divided by n; only the first term is a mean", fit + rho * w / 7
        yield "the penalty counts twice: the factor 1/2 cancels the 2", fit + 2 * rho * w
        yield "the penalty pulls toward 0: its gradient is added", fit - rho * w

    def exercise_4_2(self, X=SCALED):
        low, middle, high = torch.linalg.eigvalsh(X.T @ X / 7)
        yield "correct", 2 / (low + high)
        told = "too large: at 2/L the error in the steepest direction never shrinks"
        yield f"{told} (or did you use XXᵀ, whose smallest eigenvalue is 0?)", 2 / high
        yield "safe, but not the fastest: that is 1/L", 1 / high
        yield "only the two extreme curvatures count, not the trace", 2 / (low + middle + high)
        singular = (7 * low).sqrt() + (7 * high).sqrt()
        yield "those are singular values: curvatures are their squares over n", 2 / singular

    def exercise_4_3(self):
        X = _random(40, 3, seed=3) * _vector(0.4, 50, 3)
        y = 1 + X @ (W / _vector(0.4, 50, 3)) + 0.1 * _random(40, seed=4)
        got, want = as_numbers(self(X, y)).double(), torch.linalg.lstsq(X, y).solution
        if not got.isfinite().all() or got.abs().max() > 1e6:
            raise Mistake("the fit diverges")
        told = "centering fits another model, with an intercept: scale the columns only"
        answers = [("correct", want), (told, torch.linalg.lstsq(X - X.mean(0), y).solution)]
        for size in X.norm(dim=0) / 40**0.5, X.norm(dim=0), X.std(dim=0), X.abs().amax(dim=0):
            answers += [("convert the weights of the scaled columns back", want * size)]
            answers += [("converted the wrong way: divide by the scale", want * size**2)]
        if got.shape != want.shape or (X @ (got - want)).norm() > 1e-3 * (X @ want).norm():
            self.compare(got, answers)

    def exercise_4_4(self, X=X, y=Y, c=TRUST):
        def solve(left, right):
            return torch.linalg.solve(X.T @ (left[:, None] * X), X.T @ (right * y))

        yield "correct", solve(c, c)
        yield "that is ordinary least squares: the weights c are not used", solve(c**0, c**0)
        yield "the weights get squared too: multiply rows by the root of c", solve(c**2, c**2)
        yield "X is weighted, y is not", solve(c, c.sqrt())
        yield "y is weighted, X is not", solve(c**0, c.sqrt())

    def exercise_5_1(self, X=X, y=LABELS, w=W):
        yield "correct", X.T @ (torch.sigmoid(X @ w) - y) / 7
        yield "that is the gradient of least squares: the sigmoid is missing", X.T @ (X @ w - y) / 7

    def exercise_5_2(self, logits=LOGITS, y=LABELS):
        yield "correct", ((logits[:, 0] > 0) == y).double().mean()
        told = "(n, 1) against (n,) compares every image with every label"
        yield told, ((logits > 0) == y).double().mean()
        yield "a logit of 0, not 0.5, means p = 0.5", ((logits[:, 0] > 0.5) == y).double().mean()
        yield "that is the error rate", ((logits[:, 0] > 0) != y).double().mean()

    def exercise_5_3(self):
        inputs = torch.cat([-60 * X[:1], X[1:]])  # its first probability rounds to 0 or 1
        model = nn.Sequential(nn.utils.skip_init(nn.Linear, 3, 1, dtype=X.dtype), nn.Flatten(0))
        weights, total = [*model.parameters()], 0
        nn.utils.vector_to_parameters(torch.cat([W, W[:1]]), weights)
        for lr in 0.5, 0.2:
            start = nn.utils.parameters_to_vector(weights).detach()
            loss, slope, twice, rounded = _cross_entropy(start, inputs)
            total = total + slope
            returned = self.run(model, inputs.clone(), LABELS.clone(), lr)
            got = nn.utils.parameters_to_vector(model.parameters())
            if returned is None and torch.equal(got, start):
                raise Mistake(RETURNED_NONE)
            if any(new is not old for new, old in zip(model.parameters(), weights, strict=True)):
                raise Mistake("change the model's parameters in place: it has new ones now")
            answers = {
                "correct": slope,
                "nothing moves: update in place, after backward()": 0 * slope,
                "the second step adds the first gradient again: reset .grad": total,
                "the learning rate is missing": slope / lr,
                "the sigmoid is applied twice: the loss takes logits": twice,
                "a probability that rounds to 0 or 1 spoils the loss: give it logits": rounded,
            }
            self.compare((start - got) / lr, answers.items())
            if returned is None:
                raise Mistake("the step is right; return the loss from before it")
            self.compare(returned, [("correct", loss)], "the step is right, the loss: ")

    def exercise_5_4(self):
        answers: dict = {}
        for name, told, value in _network_gradients(*NETWORK):
            answers.setdefault(name, []).append((told, value))
        got = self(*NETWORK)
        if not isinstance(got, (tuple, list)) or len(got) != 7:
            raise Mistake(f"return one tuple of seven gradients: {', '.join(answers)}")
        for value, name in zip(got, answers, strict=True):
            self.compare(value, answers[name], f"{name}: ")

    def exercise_6_1(self):
        rows = W + _random(40, 3, seed=5)
        full, n = rows.mean(0), 40
        variance = (rows - full).square().sum(1).mean()
        for tolerance in 0.1, 0.15, 0.4:
            target = (tolerance * full.norm()) ** 2
            exact = n * variance / (variance + (n - 1) * target)
            absolute = n * variance / (variance + (n - 1) * tolerance**2)
            answers = {
                "correct": exact.ceil(),
                "one row too few: round up, and mind n - 1 in the formula": exact.floor(),
                "one row too many: is the mean square taken over n rows?": exact.ceil() + 1,
                "a batch size is an integer: round up": exact,
                "the factor for draws without repetition is missing": (variance / target).ceil(),
                "the spread falls with the root of b": (variance / target).sqrt().ceil(),
                "multiply the tolerance by the length of the full gradient": absolute.ceil(),
            }
            self.compare(self(rows, tolerance), answers.items())

    def exercise_6_2(self):
        observed = torch.tensor([True, False, True, True, True, True, False])
        labels, sizes = torch.where(observed, Y, math.nan), [4, 2, 1]
        parts = [*zip(X.split(sizes), labels.split(sizes), observed.split(sizes), strict=True)]
        first, second = (A[o].T @ (A[o] @ W - b[o]) for A, b, o in parts[:2])  # of 3 and 2 rows
        answers = {
            "correct": (first + second) / 5,
            "the parts count alike: weight each by its observed rows": (first / 3 + second / 2) / 2,
            "weight each part by its observed rows, not by all": (4 * first / 3 + second) / 6,
            "divide by the number of observed rows, not of all": (first + second) / 6,
            "divide by the number of observed rows": first + second,
            "the sum of means is not divided by anything": first / 3 + second / 2,
            "only the last part is left: add the gradients of all": second / 5,
        }
        nan = (
            "nan: rows without a label take part",
            "nan: a part without observed rows divides by 0",
        )
        for count, told in zip((2, 3), nan, strict=True):
            copies = [tuple(map(torch.clone, part)) for part in parts[:count]]
            self.compare(self(W, copies), [*answers.items(), (told, math.nan * W)])

    def exercise_6_3(self):
        for L, mu in (1.7, 0.02), (0.6, 0.03):
            root = (mu / L) ** 0.5
            got, want = as_numbers(self(L, mu)), (1 - root) ** 2
            answers = {
                "correct": want,
                "that is the factor per step, the root of beta": 1 - root,
                "take the root of mu/L": (1 - root**2) ** 2,
                "that is best at another learning rate": ((1 - root) / (1 + root)) ** 2,
                "the other solution of the equation: it diverges": (1 + root) ** 2,
            }
            if got.numel() != 1 or abs(got.item() - want) > 0.002:  # a grid may be that coarse
                self.compare(got, [(told, _vector(value)[0]) for told, value in answers.items()])

    def exercise_6_4(self):
        for steps in 1, 2, 3:
            replicas = self.replicas(steps)
            if not all(close(w, replicas[0].double(), 1e-9) for w in replicas):
                raise Mistake(f"the replicas part in step {steps}: is a gradient not all-reduced?")
            answers = {
                "correct": (1 / 7, 1 / 7, 1 / 7),
                "the weights do not move": (0, 0, 0),
                "a mean of means: weight each worker by its rows": (1 / 12, 1 / 6, 1 / 3),
                "the means are added up and not divided": (1 / 4, 1 / 2, 1),
                "divide by the number of all rows, not of workers": (1 / 3, 1 / 3, 1 / 3),
                "the sum over all rows is not divided by their number": (1, 1, 1),
            }
            pairs = [(told, _train(scales, steps)) for told, scales in answers.items()]
            self.compare(replicas[0], pairs)

    def replicas(self, steps: int) -> list[Tensor]:
        """Return the weights of three workers that run the student's function."""
        calls: dict = {}
        try:
            weights = together(
                lambda rank, group: self(rank, _Group(group, calls), *SHARDS[rank], 0.3, steps),
                num_workers=3,
                timeout=5,
            )
        except TimeoutError as error:
            raise Mistake(f"{error}: does every worker make the same calls?") from None
        return [as_numbers(w) for w in weights]


def _train(scales: Sequence[float], steps: int) -> Tensor:
    """Return the weights after descent by the shards' summed gradients, times `scales`."""
    w = 0 * W
    for _ in range(steps):
        terms = [c * A.T @ (A @ w - b) for c, (A, b) in zip(scales, SHARDS, strict=True)]
        w = w - 0.3 * sum(terms)
    return w


class _Group:
    """A worker's group that compares shapes first: where they differ, gloo ends the process."""

    def __init__(self, group: object, calls: dict):
        self.group, self.calls, self.count = group, calls, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.group, name)

    def allreduce(self, tensors: Sequence[Tensor], *options: object) -> object:
        kind = [(tuple(t.shape), t.dtype) for t in tensors]
        self.count += 1
        if (other := self.calls.setdefault(self.count, kind)) != kind:
            raise ValueError(f"one worker all-reduces {kind[0]}, and another {other[0]}")
        return self.group.allreduce(tensors, *options)


def _cross_entropy(theta: Tensor, inputs: Tensor) -> tuple[Tensor, ...]:
    """Return the loss of logistic regression, its gradient, and those of two wrong losses."""
    theta = theta.clone().requires_grad_()
    z = inputs @ theta[:3] + theta[3]
    loss = F.binary_cross_entropy_with_logits(z, LABELS)
    twice = F.binary_cross_entropy_with_logits(z.sigmoid(), LABELS)
    rounded = F.binary_cross_entropy(z.sigmoid(), LABELS)
    losses = (loss, twice, rounded)
    gradients = [torch.autograd.grad(f, theta, retain_graph=True)[0] for f in losses]
    return loss.detach(), *gradients


def _network_gradients(X, y, W1, b1, w2, b2):
    """Yield for each gradient of exercise 5.4 what is right, and mistakes by name."""
    a = X @ W1 + b1
    h = a.tanh()
    z = h @ w2 + b2
    p = z.sigmoid()
    dz = (p - y) / 7
    yield "dz", "correct", dz
    yield "dz", "the sigmoid is missing", (z - y) / 7
    yield "dz", "the derivative of the sigmoid cancels", dz * p * (1 - p)
    yield "dw2", "correct", h.T @ dz
    yield "dw2", "w2 multiplies h, not a", a.T @ dz
    yield "dw2", "sum over the batch", h * dz[:, None]
    yield "db2", "correct", dz.sum()
    yield "db2", "sum over the batch", dz
    dh = dz[:, None] * w2
    yield "dh", "correct", dh
    yield "dh", "the factor w2 is missing", dz[:, None].expand(7, 3)
    da = dh * (1 - h**2)
    yield "da", "correct", da
    yield "da", "the derivative of tanh is 1 - h², not 1 - a²", dh * (1 - a**2)
    yield "da", "h is the tanh already: take 1 - h²", dh * (1 - h.tanh() ** 2)
    yield "da", "the derivative of tanh is missing", dh
    yield "da", "that is the derivative of a sigmoid: tanh has 1 - h²", dh * h * (1 - h)
    yield "dW1", "correct", X.T @ da
    yield "dW1", "start from da, not from dh", X.T @ dh
    yield "db1", "correct", da.sum(0)
    yield "db1", "sum over the batch", da
    yield "db1", "that is the sum over the units, not over the batch", da.sum(1)


EXERCISES = {
    name.removeprefix("exercise_").replace("_", "."): method
    for name, method in vars(Exercises).items()
    if name.startswith("exercise_")
}
