"""The index of notebook 03: what it quotes is what PyTorch says, and the fix beside it works."""

import copy
import re
import warnings
from collections.abc import Callable
from functools import partial

import nbformat
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.func import vmap
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim import SGD

from utils.course import ROOT

CELLS = nbformat.read(ROOT / "notebooks/03_pitfalls.ipynb", as_version=4).cells
INDEX = next(cell.source for cell in CELLS if "**The index.**" in cell.source)
FIRST_COLUMN = "".join(re.findall(r"^\| (`.*?) \| ", INDEX, re.MULTILINE))
QUOTES = re.findall(r"`([^`]+)`", FIRST_COLUMN)


def leaf(*numbers: float) -> Tensor:
    return torch.tensor([float(number) for number in numbers], requires_grad=True)


def twice(*numbers: float) -> Tensor:
    return 2 * leaf(*numbers)


def said(run: Callable) -> list[str]:
    """Return the error and the warnings of a run, without the operation's name before them."""
    texts = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.set_warn_always(True)  # PyTorch gives some warnings once in a process
        try:
            run()
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            texts.append(str(error))
        finally:
            torch.set_warn_always(False)
    texts += [str(warning.message) for warning in caught]
    return [re.sub(r"^\w*mm: ", "", text) for text in texts]


def second_derivative() -> Tensor:
    w = leaf(3)
    return grad(grad(w**3, w, create_graph=True)[0], w)[0]


column, labels = torch.full((3, 1), 0.6), torch.tensor([0.0, 1.0, 1.0])
layer, doubles = nn.Linear(3, 1), torch.from_numpy(np.ones((2, 3)))
floats, whole, one = torch.ones(2, 3), torch.tensor(3), doubles[0, :1]
on_gpu = torch.ones(2, device="meta")  # a stand-in
write = torch.no_grad()(layer.weight.copy_)
unused, mse = partial(grad, twice(3), leaf(3)), partial(mse_loss, leaf(3))
entropy = partial(cross_entropy, torch.zeros(3, 3))

CASES = [  # how the quote in the index begins, a run that says it, and the fix, which is true
    ("'float'", lambda: leaf(3).item().backward(), lambda: leaf(3).backward() is None),
    ("can't retain", lambda: labels.retain_grad(), lambda: twice(3).retain_grad() is None),
    ("a Tensor with 3", lambda: column.item(), lambda: column.mean().item()),
    ("Mismatch", lambda: twice(3).backward(labels), lambda: not twice(*labels).backward(labels)),
    ("The diff|One of .* appears", unused, lambda: unused(allow_unused=True) == (None,)),
    ("One of .* not", lambda: grad(leaf(3), labels), lambda: leaf(3).requires_grad),
    ("a view", lambda: leaf(3)[0].sub_(1), lambda: leaf(3).index_copy(0, whole - 3, leaf(5)) == 5),
    ("Output 0 of S", lambda: twice(3, -2).split(1)[0].sub_(1), lambda: 1 - twice(3).split(1)[0]),
    ("unsu.* m", lambda: twice(3).expand(3).add_(1), lambda: twice(3).expand(3).clone().add_(1)[2]),
    ("'NoneType'", lambda: leaf(3).grad.zero_(), lambda: setattr(leaf(3), "grad", None) is None),
    ("cannot assign", lambda: setattr(layer, "weight", floats), lambda: write(floats[:1]).is_leaf),
    ("can't optimize", lambda: SGD([twice(3)]), lambda: SGD([twice(3).detach().requires_grad_()])),
    ("optimizer got", lambda: SGD([]), lambda: SGD(nn.ModuleList([layer]).parameters())),
    ("Only Tensors c", lambda: copy.deepcopy(twice(3)), lambda: copy.deepcopy(twice(3).detach())),
    ("you can", lambda: setattr(twice(3), "requires_grad", False), lambda: twice(3).detach() == 6),
    ("To copy", lambda: torch.tensor(leaf(3)), lambda: leaf(3).clone().requires_grad),
    ("Converting", lambda: torch.tensor([*leaf(3, 1)]), lambda: torch.stack([*leaf(3, 1)]).grad_fn),
    ("Using b", lambda: (leaf(3) ** 3).backward(create_graph=True), second_derivative),
    ("can't convert", lambda: on_gpu.numpy(), lambda: leaf(3).detach().cpu().numpy() == 3),
    ("Boolean value", lambda: bool(labels > 0), lambda: labels.where(labels > 0, 7).sum() == 9),
    ("vmap", lambda: vmap(Tensor.item)(labels), lambda: vmap(Tensor.abs)(labels)[1]),
    ("only Tensors", lambda: whole.requires_grad_(), lambda: whole.float().requires_grad_() == 3),
    ("expected m1", lambda: doubles @ floats.T, lambda: (doubles.float() @ floats.T).sum() == 12),
    ("addmv|expected .* [DF]", lambda: floats @ doubles[0], lambda: floats[0] @ floats[1] == 3),
    ("Found dtype", lambda: mse(one).backward(), lambda: mse(one.float()).backward() is None),
    ("expected (target|.*Long)", lambda: entropy(labels), lambda: entropy(labels.long())),
    ("0D or", lambda: entropy(labels[:, None].long()), lambda: entropy(labels.long())),
    ("Using a", lambda: mse_loss(column, labels), lambda: mse_loss(column, labels[:, None])),
    ("Target size", lambda: bce(column, labels), lambda: bce(column, labels[:, None])),
]


@pytest.mark.parametrize("begins, fails, works", CASES)
def test_pytorch_says_so_and_the_fix_works(begins: str, fails: Callable, works: Callable) -> None:
    quotes = tuple(quote for quote in QUOTES if re.match(begins, quote))
    texts = [text.replace("meta device", "cuda:0 device") for text in said(fails)]
    newer_versions_convert = begins == "Found dtype" and not texts
    assert newer_versions_convert or any(text.startswith(quotes) for text in texts), texts
    results = []
    assert said(lambda: results.append(works())) == [] and results[0]


def test_index_quotes_every_stored_error_and_nothing_that_was_not_seen() -> None:
    outputs = [out for cell in CELLS for out in cell.get("outputs", [])]
    errors = [out.evalue for out in outputs if out.output_type == "error"]
    assert errors and not [error for error in errors if not error.startswith(tuple(QUOTES))]
    stored = "\n".join([*errors, *(out.get("text", "") for out in outputs)])
    cases = "|".join(begins for begins, _, _ in CASES)
    assert [quote for quote in QUOTES if quote not in stored and not re.match(cases, quote)] == []


def test_symptoms_without_a_message() -> None:
    layer = nn.Linear(1, 1)
    shared = layer.weight.detach(), layer.state_dict()["weight"]
    kept = layer.weight.detach().clone(), copy.deepcopy(layer.state_dict())["weight"]
    torch.no_grad()(layer.weight.sub_)(1)
    assert all(w == layer.weight for w in shared) and all(w - 1 == layer.weight for w in kept)
    features = 5 * (w := leaf(3))
    ((features - 5) ** 2).backward(retain_graph=True)
    torch.no_grad()(w.sub_)(1)
    assert grad((features - 7) ** 2, w)[0] == 2 * (15 - 7) * 5  # and not 2 * (10 - 7) * 5
    logits, first = torch.tensor([[20.0, -20.0]]), torch.tensor([0])
    assert cross_entropy(logits, first) < 1e-6
    assert abs(cross_entropy(logits.softmax(1), first) - 0.3133) < 1e-4
    loss = nn.functional.binary_cross_entropy(torch.sigmoid(w := leaf(17)), torch.zeros(1))
    assert loss == 100 and grad(loss, w)[0] == 0 and grad(bce(w, torch.zeros(1)), w)[0] == 1
    assert not any(grad(step(w), w)[0] for step in (torch.round, torch.sign, torch.floor))
