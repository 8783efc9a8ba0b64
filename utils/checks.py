"""Two oracles for gradients, and the verdict on every exercise."""

import copy
import inspect
import os
import traceback
import warnings
from collections.abc import Callable, Sequence
from numbers import Number, Real
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

NOT_DONE = "not done yet"
COLORS, RESET = {"✓": "\x1b[32m", "○": "\x1b[34m", "✗": "\x1b[31m"}, "\x1b[0m"
CHANGED = "your code changes the caller's tensors: work on copies"
EXTRA_AXIS = "the result has an axis too many in front: is a [0] missing?"
REPAIRS = ("3.", "4.3")  # exercises that hand out broken code: what is wrong is "not done yet"
FACTORS = {  # the data has n = 7 rows
    "the sign is flipped": -1,
    "twice the right result: is something counted or accumulated twice?": 2,
    "half the right result: where did the factor 2 go?": 1 / 2,
    "too large by a factor of n: is the mean missing?": 7,
    "too small by a factor of n: is a mean taken twice, or in place of a sum?": 1 / 7,
}


def numerical_gradient(f: Callable[[Tensor], Tensor], x: Tensor, h: float = 1e-5) -> Tensor:
    """Return the gradient of a scalar function by central differences, in float64.

    Entry i is (f(x + d e_i) - f(x - d e_i)) / 2d with d = h max(1, |x_i|). Its error is about
    d^2 |f'''| / 6 + 1e-16 |f| / d, near 1e-10 for values near 1. Shape: that of `x`. Raises
    TypeError where x or f(x) holds no real numbers, ValueError where f(x) is not one number.
    Source: Nocedal and Wright, Numerical Optimization, section 8.1.
    """
    x = as_numbers(x).double().contiguous()
    gradient = torch.zeros_like(x)
    for i, entry in enumerate(x.view(-1).tolist()):
        above, below = x.clone(), x.clone()
        above.view(-1)[i] += h * max(1, abs(entry))
        below.view(-1)[i] -= h * max(1, abs(entry))
        step = (above - below).view(-1)[i]  # 2d, as rounding has left it
        rise = as_numbers(f(above)) - as_numbers(f(below))
        if rise.numel() != 1:
            raise ValueError(f"f must return one number, not shape {tuple(rise.shape)}: sum it")
        gradient.view(-1)[i] = rise.item() / step
    return gradient


def relative_error(a: Tensor, b: Tensor) -> float:
    """Return max |a - b| / max(max |a|, max |b|), and 0 where both are zero.

    Raises TypeError where `a` or `b` holds no real numbers, and ValueError where their shapes
    differ, since broadcasting would hide a mistake.
    """
    a, b = as_numbers(a).double(), as_numbers(b).double()
    if a.shape != b.shape:
        raise ValueError(f"cannot compare different shapes: {tuple(a.shape)} and {tuple(b.shape)}")
    scale = torch.maximum(a.abs().max(), b.abs().max()).item()
    return (a - b).abs().max().item() / scale if scale else 0.0


def as_numbers(value: object) -> Tensor:
    """Return a detached tensor of real numbers, also from numbers, lists and NumPy arrays."""
    if isinstance(value, (list, tuple)):
        value = torch.stack([as_numbers(entry) for entry in value]) if value else torch.zeros(0)
    elif isinstance(value, (np.ndarray, np.generic)):
        value = torch.from_numpy(np.array(value))
    elif isinstance(value, Real):
        value = torch.tensor(float(value), dtype=torch.float64)
    if not torch.is_tensor(value) or value.is_complex():
        kind = value.dtype if torch.is_tensor(value) else type(value).__name__
        raise TypeError(f"real numbers are needed, not {kind}")
    return value.detach() if value.is_floating_point() else value.double()


def check(exercise: str, attempt: Callable) -> None:
    """Print the verdict on an exercise in one line: `not done yet`, `correct`, or the mistake.

    `attempt` is called with copies of fixed data in float64, on which a wrong formula is unlikely
    to give the right numbers. What it raises is reported; only an interrupt stops the check.
    """
    verdict = _verdict(str(exercise), attempt)
    mark = "✓" if verdict.startswith("correct") else "○" if NOT_DONE in verdict else "✗"
    color = "" if os.environ.get("NO_COLOR") else COLORS[mark]  # https://no-color.org
    print(f"Exercise {exercise}: {color}{mark}{color and RESET} {verdict}")


def passed(exercise: str, attempt: Callable) -> bool:
    """Return whether the verdict is `correct`; for graders, as in `assert passed("1.1", f)`."""
    return _verdict(str(exercise), attempt).startswith("correct")


def _verdict(number: str, function: Callable) -> str:
    from utils.exercises import Exercises  # that module builds on this one

    attempt = Exercises(function)
    try:
        exercise = getattr(attempt, "exercise_" + number.replace(".", "_"))
        with torch.enable_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if pairs := exercise():  # the answer and what is right, then slips
                (got, want), *slips = pairs
                attempt.compare(got, want, *slips)
    except (Mistake, TimeoutError) as mistake:
        broken = number.startswith(REPAIRS) and str(mistake) != NOT_DONE
        return f"{NOT_DONE}: {mistake}" if broken else str(mistake)
    except Exception as error:  # raised by no code of the student's
        return f"check cannot use what your function returned: {_in_one_line(error)}"
    return ", but ".join(["correct", *attempt.notes[:1]])


def _in_one_line(error: BaseException) -> str:
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    return text.partition(": [torch.")[0]  # PyTorch's versions describe a tensor differently


def _raised(error: BaseException) -> str:
    """Return the whole error, after the line of the student's code that led to it."""
    if isinstance(error, NotImplementedError) and not any(error.args):
        return NOT_DONE
    lines = traceback.extract_tb(error.__traceback__)[1:]
    libraries = "-packages", str(Path(__file__).parent)
    lines = [line for line in lines if not any(name in line.filename for name in libraries)]
    place = f" in line {lines[-1].lineno}, `{lines[-1].line}`," if lines and lines[-1].line else ""
    return f"your code{place} raised {_in_one_line(error)}"


def close(got: Tensor, want: Tensor, tolerance: float) -> bool:
    got, want = got.double(), want.double()
    return got.shape == want.shape and got.allclose(want, tolerance, tolerance, equal_nan=True)


class Mistake(Exception):
    """What is wrong with an attempt, as a sentence for the student."""


class Attempt:
    """A student's function: call it on copies, and compare what it returns with what is right."""

    def __init__(self, function: Callable):
        self.function = function
        self.notes: list[str] = []  # what to tell although the answer is right

    def __call__(self, *arguments: object, given: Sequence = ()) -> object:
        """Call the function with `given` as it is, and then with copies of the arguments."""
        copies = copy.deepcopy(arguments)
        got = self.run(self.function, *given, *copies)
        if got is None:
            raise Mistake("your function returned None: is the return missing?")
        tensors = [(a, b) for a, b in zip(arguments, copies, strict=True) if torch.is_tensor(a)]
        if any(b.requires_grad or b.grad is not None or not a.equal(b) for a, b in tensors):
            self.notes.append(CHANGED)
        return got

    def run(self, function: Callable, *arguments: object) -> object:
        """Call the student's code, and tell what it raises."""
        try:
            return function(*arguments)
        except (Exception, SystemExit) as error:
            raise Mistake(_raised(error)) from None

    def compare(self, got: object, want: object, *slips: tuple, name: str = "") -> None:
        """Raise Mistake unless `got` is what we want. A slip is a wrong answer after its name."""
        if got is None or got is ...:
            raise Mistake(f"{name}{NOT_DONE}")
        got, want = as_numbers(got), as_numbers(want)
        got = got.reshape(()) if got.numel() == 1 and not want.ndim else got
        tolerance = max(1e-7, 20 * torch.finfo(got.dtype).eps)
        if not close(got, want, tolerance):
            slips += ("the result is transposed", want.t()), (EXTRA_AXIS, want[None])
            slips += tuple((told, factor * want) for told, factor in FACTORS.items())
            told = [told for told, slip in slips if close(got, as_numbers(slip), tolerance)]
            raise Mistake(name + (told[0] if told else self.difference(got, want)))

    def difference(self, got: Tensor, want: Tensor) -> str:
        """Say how `got` differs where no slip fits, and what the function reads from outside."""
        if got.shape != want.shape:
            return f"the shape is {tuple(got.shape)}, expected {tuple(want.shape)}"
        if close(got, want, 1e-4):
            return "almost right: is something approximated?"
        known = inspect.isfunction(self.function)
        outside = inspect.getclosurevars(self.function).globals if known else {}
        read = [name for name, value in outside.items() if isinstance(value, (Number, Tensor))]
        advice = f" (it reads {', '.join(read)} from outside: use the arguments only)"
        return "the result is not right" + (advice if read else "")
