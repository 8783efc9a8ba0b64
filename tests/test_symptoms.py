"""The index of notebook 03: what it quotes is what PyTorch says, and the fix beside it works."""

import copy
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import nbformat
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.nn import functional as F

from utils.course import ROOT

NEEDS_A_GPU = {"CUDA out of memory", "Expected all tensors to be on the same device"}
CASES: dict[tuple[str, ...], Callable] = {}


def case(*quotes: str) -> Callable:
    """Register a function that fails within `with see():`, as one of the quotes says it does."""
    return partial(CASES.setdefault, quotes)


@contextmanager
def expect(quotes: tuple[str, ...], newer_are_silent: bool = False) -> Iterator[None]:
    """Expect an error or a warning whose text begins with one of the quotes."""
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            said.append(str(error))
    said += [str(warning.message) for warning in caught]
    if said or not newer_are_silent:
        begins = [re.sub(r"^\w*mm: ", "", text).startswith(quotes) for text in said]
        assert any(begins), f"{quotes} is not how {said} begins"


def leaf(*numbers: float) -> Tensor:
    return torch.tensor([float(number) for number in numbers], requires_grad=True)


@case("a view of a leaf Variable that requires grad is being used in an in-place operation")
def _(see):
    w, value = leaf(3, -2, 7), leaf(5)
    with see():
        w[:1] = value
    changed = w.index_copy(0, torch.tensor([0]), value)
    assert torch.cat(grad(changed.sum(), [w, value])).tolist() == [0, 1, 1, 1]


@case("Output 0 of Unbind", "Output 0 of Split")
def _(see):
    w = leaf(3, -2, 7, 1).view(2, 2)
    for parts in iter, partial(torch.split, split_size_or_sections=1):
        with see():
            for part in parts(2 * w):
                part.sub_(1)
    assert torch.equal(torch.stack([row - 1 for row in 2 * w]), 2 * w - 1)


@case("unsupported operation: more than one element of the written-to tensor")
def _(see):
    w = leaf(3)
    with see():
        (2 * w).expand(3).add_(1)
    assert grad((2 * w).expand(3).clone().add_(1).sum(), w)[0] == 6


@case("A view was created in no_grad mode and is being modified inplace")
def _(see):
    w = leaf(3, -2)
    with torch.no_grad():
        part = w[:1]
    with see():
        part.add_(1)
    with torch.no_grad():
        w[:1].add_(1)
    assert w.tolist() == [4, -2]


@case("'NoneType' object has no attribute 'zero_'")
def _(see):
    w = leaf(3)
    with see():
        w.grad.zero_()
    w.grad = None


@case("cannot assign 'torch.FloatTensor' as parameter")
def _(see):
    layer = nn.Linear(2, 1)
    with see():
        layer.weight = torch.ones(1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.ones(1, 2))
    assert layer.weight.is_leaf and layer.weight.sum() == 2


@case("optimizer got an empty parameter list")
def _(see):
    model = nn.Module()
    model.layers = [nn.Linear(2, 1)]
    with see():
        torch.optim.SGD(model.parameters(), lr=0.1)
    model.layers = nn.ModuleList(model.layers)
    assert len(torch.optim.SGD(model.parameters(), lr=0.1).param_groups[0]["params"]) == 2


@case("you can only change requires_grad flags of leaf variables")
def _(see):
    y = 2 * leaf(3)
    with see():
        y.requires_grad = False
    assert not y.detach().requires_grad


@case("Only Tensors created explicitly by the user")
def _(see):
    y = 2 * leaf(3)
    with see():
        copy.deepcopy(y)
    assert torch.equal(y.detach().clone(), y)


@case("Using backward() with create_graph=True will create a reference cycle")
def _(see):
    w = leaf(3)
    with see():
        (w**3).backward(create_graph=True)
    (slope,) = grad(w**3, w, create_graph=True)
    assert grad(slope, w)[0] == 18


@case("Detected call of")
def _(see):
    optimizer = torch.optim.SGD([leaf(3)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with see():
        scheduler.step()
    optimizer.step()
    scheduler.step()


@case(
    "The differentiated Tensor at index",
    "One of the differentiated Tensors appears to not have been used",
)
def _(see):
    w, other = leaf(3), leaf(2)
    with see():
        grad(w**2, [w, other])
    assert grad(w**2, [w, other], allow_unused=True)[1] is None


@case("One of the differentiated Tensors does not require grad")
def _(see):
    w, x = leaf(3), torch.ones(1)
    with see():
        grad(w * x, [w, x])
    x.requires_grad_()
    assert grad(w * x, [w, x])[1] == 3


@case("function MyFunctionBackward returned an incorrect number of gradients")
def _(see):
    class MyFunction(torch.autograd.Function):
        complete = False

        @staticmethod
        def forward(ctx, w, power):
            ctx.save_for_backward(w)
            return w**power

        @staticmethod
        def backward(ctx, g):
            slope = 2 * ctx.saved_tensors[0] * g
            return (slope, None) if MyFunction.complete else slope

    w = leaf(3)
    with see():
        grad(MyFunction.apply(w, 2), w)
    MyFunction.complete = True
    assert grad(MyFunction.apply(w, 2), w)[0] == 6


@case("To copy construct from a tensor")
def _(see):
    y = 2 * leaf(3)
    with see():
        assert not torch.tensor(y).requires_grad
    assert y.clone().requires_grad


@case("Converting a tensor with requires_grad=True to a scalar")
def _(see):
    (w,) = leaf(3)
    losses = [w**2, 2 * w]
    with see():
        assert not torch.tensor(losses).requires_grad
    assert grad(torch.stack(losses).sum(), w)[0] == 8


@case("Boolean value of Tensor with more than one value is ambiguous")
def _(see):
    w = leaf(3, -2)
    with see():
        bool(w > 0)
    assert grad(torch.where(w > 0, 2 * w, 7 * w).sum(), w)[0].tolist() == [2, 7]


@case("vmap: It looks like you're")
def _(see):
    for f in (lambda w: w * w.item()), (lambda w: w if w > 0 else -w):
        with see():
            torch.func.vmap(f)(torch.ones(3))
    assert torch.func.vmap(lambda w: torch.where(w > 0, w, -w))(torch.ones(3)).sum() == 3


@case("only Tensors of floating point and complex dtype can require gradients")
def _(see):
    w = leaf(3, -2)
    for loss in w.argmax(), w > 1:
        with see():
            loss.requires_grad = True
    assert torch.sigmoid(w - 1).mean().requires_grad


@case(
    "mat1 and mat2 must have the same dtype",
    "expected m1 and m2 to have the same dtype",
    "addmv input tensors must",
    "expected scalar type Double",
)
def _(see):
    X, layer = torch.from_numpy(np.ones((2, 3))), nn.Linear(3, 1)
    for weights in layer.weight.T, layer.weight[0]:
        with see():
            X @ weights
    assert layer(X.float()).shape == (2, 1)


@case("Found dtype Double but expected Float")
def _(see):
    w = leaf(3)
    with see(newer_are_silent=True):
        F.mse_loss(w, torch.ones(1, dtype=torch.float64)).backward()
    assert grad(F.mse_loss(w, torch.ones(1)), w)[0] == 4


@case("expected target dtype to be Long or Byte", "expected scalar type Long but found")
def _(see):
    logits, labels = torch.zeros(2, 3), torch.tensor([0.0, 1.0])
    for wrong in labels, labels.int():
        with see():
            F.cross_entropy(logits, wrong)
    assert F.cross_entropy(logits, labels.long()).isfinite()


@case("result type Float can't be cast to the desired output type Long")
def _(see):
    labels = torch.tensor([0, 1])
    with see():
        F.binary_cross_entropy_with_logits(torch.zeros(2), labels)
    assert F.binary_cross_entropy_with_logits(torch.zeros(2), labels.float()).isfinite()


@case("Using a target size", "Target size")
def _(see):
    X, y = torch.full((3, 1), 0.6), torch.tensor([0.0, 1.0, 1.0])
    losses = F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss
    for loss in *losses, F.binary_cross_entropy, F.binary_cross_entropy_with_logits:
        with see():
            loss(X, y)
        assert torch.equal(loss(X.squeeze(1), y), loss(X, y[:, None]))


@case("0D or 1D target tensor expected")
def _(see):
    labels = torch.tensor([[0], [1]])
    with see():
        F.cross_entropy(torch.zeros(2, 3), labels)
    assert F.cross_entropy(torch.zeros(2, 3), labels.squeeze(1)).isfinite()


@case("The size of tensor a")
def _(see):
    with see():
        torch.ones(3) + torch.ones(4)


@case("mat1 and mat2 shapes cannot be multiplied")
def _(see):
    with see():
        nn.Linear(3, 1)(torch.ones(2, 4))
    assert nn.Linear(4, 1)(torch.ones(2, 4)).shape == (2, 1)


@case(
    "a Tensor with 3 elements cannot be converted to Scalar",
    "only one element tensors can be converted",
)
def _(see):
    for convert in Tensor.item, float:
        with see():
            convert(torch.ones(3))
    assert torch.ones(3).sum().item() == 3


@case("Expected more than 1 value per channel when training")
def _(see):
    norm = nn.BatchNorm1d(3)
    with see():
        norm(torch.ones(1, 3))
    assert norm.eval()(torch.ones(1, 3)).isfinite().all()


@case("all elements of input should be between 0 and 1")
def _(see):
    with see():
        F.binary_cross_entropy(torch.tensor([1.2]), torch.ones(1))
    assert F.binary_cross_entropy_with_logits(torch.tensor([1.2]), torch.ones(1)).isfinite()


@case("Tensor on device")
def _(see):
    layer = nn.Linear(2, 1)
    with see():
        layer(torch.ones(3, 2, device="meta"))  # stands for a GPU
    assert layer.to("meta")(torch.ones(3, 2, device="meta")).shape == (3, 1)


@case("can't convert meta device type tensor to numpy")
def _(see):
    with see():
        torch.ones(2, device="meta").numpy()


@pytest.mark.parametrize("quotes, run", CASES.items(), ids=lambda value: str(value)[2:40])
def test_pytorch_says_so_and_the_fix_works(quotes: tuple[str, ...], run: Callable) -> None:
    run(partial(expect, quotes))


def test_every_quote_of_the_index_is_a_case_or_a_stored_output() -> None:
    notebook = nbformat.read(ROOT / "notebooks/03_pitfalls.ipynb", as_version=4)
    index = next(cell.source for cell in notebook.cells if "**The index.**" in cell.source)
    seen = re.findall(r"^\| (`.*?) \| ", index, re.MULTILINE)
    quotes = {quote for cell in seen for quote in re.findall(r"`([^`]+)`", cell)}
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    stored = "\n".join(out.get("evalue", "") + out.get("text", "") for out in outputs)
    cases = "\n".join(quote for quotes in CASES for quote in quotes)
    known = stored + cases.replace("meta device", "cuda:0 device")
    assert len(quotes) > 40
    assert sorted(quote for quote in quotes - NEEDS_A_GPU if quote not in known) == []


def test_losses_that_are_silently_wrong() -> None:
    logits, labels = torch.tensor([[20.0, -20.0], [-20.0, 20.0]]), torch.tensor([0, 1])
    assert F.cross_entropy(logits, labels) < 1e-6
    assert abs(F.cross_entropy(logits.softmax(1), labels) - 0.3133) < 1e-4
    for z, label, loss, slope in (17, 0, 100, 0), (-30, 1, 30, -0.1), (-92, 1, 100, 0):
        (w,), target = leaf(z), torch.tensor(float(label))
        wrong = F.binary_cross_entropy(torch.sigmoid(w), target)
        assert abs(wrong - loss) < 0.01 and abs(grad(wrong, w)[0] - slope) < 0.02
        right = F.binary_cross_entropy_with_logits(w, target)
        assert abs(grad(right, w)[0] - (1 - 2 * label)) < 1e-6


def test_an_update_of_a_copy_moves_nothing_and_data_hides_an_update() -> None:
    w = leaf(3)
    w.detach().clone().sub_(1)
    assert w == 3
    loss = w**2
    w.data.sub_(1)
    assert grad(loss, w)[0] == 4  # not 6, and no error
    loss = w**2
    with torch.no_grad():
        w.sub_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        grad(loss, w)


@pytest.mark.parametrize("other", [0.0, -1.0, 1.0])
def test_it_is_the_inner_where_that_stops_the_nan(other: float) -> None:
    x = leaf(0, 4)
    root = torch.where(x > 0, torch.where(x > 0, x, other).sqrt(), 0.0)
    assert grad(root.sum(), x)[0].tolist() == [0, 0.25]
