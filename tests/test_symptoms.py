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
from torch.autograd import grad, gradcheck
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from utils.course import ROOT

NEEDS_A_GPU = {"CUDA out of memory", "Expected all tensors to be on the same device"}
CASES: list[tuple[tuple[str, ...], Callable]] = []


def case(*quotes: str) -> Callable:
    """Register a function that fails within `with see():`, as one of the quotes says it does."""
    return lambda function: CASES.append((quotes, function))


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


class Square(torch.autograd.Function):
    """w ** power, right for power 2."""

    @staticmethod
    def forward(ctx, w, power):
        ctx.save_for_backward(w)
        return w**power

    @staticmethod
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g, None


class MyFunction(Square):
    @staticmethod
    def backward(ctx, g):
        return Square.backward(ctx, g)[0]


class WrongShape(Square):
    @staticmethod
    def backward(ctx, g):
        return g.new_ones(2), None


class SavesNumber(Square):
    @staticmethod
    def forward(ctx, w, power):
        ctx.save_for_backward(w, power)
        return w**power


half, whole = torch.tensor([0.5, 0.5]), torch.tensor([0, 1])
column, logits = torch.full((3, 1), 0.6), torch.zeros(2, 3)
doubles, hidden = torch.from_numpy(np.ones((2, 3))), nn.Linear(3, 1)
gpu = torch.ones(2, 3, device="meta")  # stands for a GPU
with torch.inference_mode():
    inferred = torch.ones(1)

for quotes, fails, works in [  # the fix is a value that is true
    (["unsupported operand type(s) for *: 'NoneType' and 'float'"], lambda: leaf(3).grad * 0.1, 1),
    (["'NoneType' object has no attribute 'zero_'"], lambda: leaf(3).grad.zero_(), 1),
    (["'NoneType' object has no attribute 'data'"], lambda: leaf(3).grad.data, 1),
    (["'float' object has no attribute 'backward'"], lambda: leaf(3).item().backward(), 1),
    (
        ["unsupported operation: more than one element of the written-to tensor"],
        lambda: (2 * leaf(3)).expand(3).add_(1),
        lambda: (2 * leaf(3)).expand(3).clone().add_(1).sum() == 21,
    ),
    (
        ["Only Tensors created explicitly by the user"],
        lambda: copy.deepcopy(2 * leaf(3)),
        lambda: (2 * leaf(3)).detach().clone() == 6,
    ),
    (
        ["params argument given to the optimizer should be an iterable"],
        lambda: torch.optim.SGD(leaf(3), lr=0.1),
        lambda: torch.optim.SGD([leaf(3)], lr=0.1),
    ),
    (
        ["To copy construct from a tensor"],
        lambda: torch.tensor(2 * leaf(3)),
        lambda: (2 * leaf(3)).clone().requires_grad,
    ),
    (
        ["Converting a tensor with requires_grad=True to a scalar"],
        lambda: torch.tensor([*leaf(3, -2)]),
        lambda: torch.stack([*leaf(3, -2)]).requires_grad,
    ),
    (
        ["Boolean value of Tensor with more than one value is ambiguous"],
        lambda: bool(leaf(3, -2) > 0),
        lambda: torch.where(leaf(3, -2) > 0, 2.0, 7.0).sum() == 9,
    ),
    (
        ["vmap: It looks like you're"],
        lambda: torch.func.vmap(lambda w: w if w > 0 else -w)(leaf(3, -2)),
        lambda: torch.func.vmap(lambda w: torch.where(w > 0, w, -w))(leaf(3, -2)).sum() == 5,
    ),
    (
        ["vmap: It looks like you're"],
        lambda: torch.func.vmap(lambda w: w * w.item())(leaf(3, -2)),
        lambda: torch.func.vmap(lambda w: w * w)(leaf(3, -2)).sum() == 13,
    ),
    (
        ["only Tensors of floating point and complex dtype can require gradients"],
        lambda: setattr(leaf(3, -2).argmax(), "requires_grad", True),
        lambda: leaf(3, -2).softmax(0).requires_grad,
    ),
    (
        ["The differentiated Tensor at index", "One of the differentiated Tensors appears to"],
        lambda: grad(leaf(3) ** 2, leaf(3)),
        lambda: grad(leaf(3) ** 2, leaf(3), allow_unused=True) == (None,),
    ),
    (
        ["One of the differentiated Tensors does not require grad"],
        lambda: grad(leaf(3) ** 2, torch.ones(1)),
        lambda: torch.ones(1).requires_grad_().requires_grad,
    ),
    (
        ["Mismatch in shape: grad_output"],
        lambda: (2 * leaf(3, -2)).backward(torch.ones(3)),
        lambda: (2 * leaf(3, -2)).backward(torch.ones(2)) is None,
    ),
    (
        ["derivative for aten::heaviside is not implemented"],
        lambda: torch.heaviside(leaf(3), torch.ones(1)).backward(),
        lambda: torch.sigmoid(leaf(3)).backward() is None,
    ),
    (
        ["cannot register a hook on a tensor that doesn't require gradient"],
        lambda: torch.ones(1).register_hook(print),
        lambda: (2 * leaf(3)).register_hook(print),
    ),
    (
        ["can't retain_grad on Tensor that has requires_grad=False"],
        lambda: torch.ones(1).retain_grad(),
        lambda: (2 * leaf(3)).retain_grad() is None,
    ),
    (
        ["Inplace update to inference tensor outside InferenceMode is not allowed"],
        lambda: inferred.add_(1),
        lambda: (leaf(3) * inferred.clone()).requires_grad,
    ),
    (
        ["None of the inputs have requires_grad=True. Gradients will be None"],
        lambda: checkpoint(leaf(3).mul, torch.ones(1), use_reentrant=True),
        lambda: checkpoint(leaf(3).mul, torch.ones(1), use_reentrant=False).requires_grad,
    ),
    (
        ["function MyFunctionBackward returned an incorrect number of gradients"],
        lambda: MyFunction.apply(leaf(3), 2).backward(),
        lambda: gradcheck(lambda w: Square.apply(w, 2), leaf(3).double()),
    ),
    (
        ["Function WrongShapeBackward returned an invalid gradient"],
        lambda: WrongShape.apply(leaf(3, -2, 7), 2).sum().backward(),
        lambda: gradcheck(lambda w: Square.apply(w, 2), leaf(3, -2, 7).double()),
    ),
    (
        ["save_for_backward can only save variables"],
        lambda: SavesNumber.apply(leaf(3), 2),
        lambda: Square.apply(leaf(3), 2) == 9,
    ),
    (
        ["Jacobian mismatch for output 0"],
        lambda: gradcheck(lambda w: w**2, leaf(3)),
        lambda: gradcheck(lambda w: w**2, leaf(3).double()),
    ),
    (
        ["mat1 and mat2 must have the same dtype"],
        lambda: hidden(doubles),
        lambda: hidden(doubles.float()).shape == (2, 1),
    ),
    (
        ["expected m1 and m2 to have the same dtype", "expected scalar type Double"],
        lambda: doubles @ torch.ones(3, 1),
        lambda: (doubles.float() @ torch.ones(3, 1)).sum() == 6,
    ),
    (
        ["addmv input tensors must have the same dtype", "expected scalar type Double"],
        lambda: doubles @ torch.ones(3),
        lambda: (doubles.float() @ torch.ones(3)).sum() == 6,
    ),
    (
        ["Input type (double) and bias type (float) should be the same"],
        lambda: nn.Conv1d(2, 1, 3)(doubles),
        lambda: nn.Conv1d(2, 1, 3)(doubles.float()).shape == (1, 1),
    ),
    (
        ["expected target dtype to be Long or Byte", "expected scalar type Long but found"],
        lambda: F.cross_entropy(logits, whole.float()),
        lambda: F.cross_entropy(logits, whole),
    ),
    (
        ["result type Float can't be cast to the desired output type Long"],
        lambda: F.binary_cross_entropy_with_logits(half, whole),
        lambda: F.binary_cross_entropy_with_logits(half, whole.float()),
    ),
    (
        ["0D or 1D target tensor expected"],
        lambda: F.cross_entropy(logits, whole[:, None]),
        lambda: F.cross_entropy(logits, whole),
    ),
    (
        ["all elements of input should be between 0 and 1"],
        lambda: F.binary_cross_entropy(3 * half, half),
        lambda: F.binary_cross_entropy_with_logits(3 * half, half),
    ),
    (["The size of tensor a"], lambda: torch.ones(3) + torch.ones(4), 1),
    (
        ["mat1 and mat2 shapes cannot be multiplied"],
        lambda: hidden(torch.ones(2, 4)),
        lambda: nn.Linear(4, 1)(torch.ones(2, 4)).shape == (2, 1),
    ),
    (
        ["a Tensor with 3 elements cannot be converted to Scalar"],
        lambda: column.item(),
        lambda: column.mean().item(),
    ),
    (
        ["only one element tensors can be converted"],
        lambda: float(column),
        lambda: float(column.mean()),
    ),
    (
        ["Expected more than 1 value per channel when training"],
        lambda: nn.BatchNorm1d(3)(logits[:1]),
        lambda: nn.BatchNorm1d(3).eval()(logits[:1]).isfinite().all(),
    ),
    (
        ["Tensor on device"],
        lambda: hidden(gpu),
        lambda: copy.deepcopy(hidden).to("meta")(gpu).shape == (2, 1),
    ),
    (["can't convert meta device type tensor to numpy"], lambda: gpu.numpy(), 1),
]:

    def row(see: Callable, fails: Callable = fails, works: Callable | int = works) -> None:
        with see():
            fails()
        assert works() if callable(works) else works

    CASES.append((tuple(quotes), row))


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


@case("A view was created in no_grad mode and is being modified inplace")
def _(see):
    w = leaf(3, -2)
    with torch.no_grad():
        part = w[:1]
    with see():
        part.add_(1)
    with torch.no_grad():
        part.add_(1)
    assert w.tolist() == [4, -2]


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


@case("Using backward() with create_graph=True will create a reference cycle")
def _(see):
    w = leaf(3)
    with see():
        (w**3).backward(create_graph=True)
    (slope,) = grad(w**3, w, create_graph=True)
    assert grad(slope, w)[0] == 18


@case("element 0 of tensors does not require grad")
def _(see):
    w = leaf(3)
    with see():
        grad(grad(w**3, w)[0], w)  # the first derivative has no graph
    assert grad(grad(w**3, w, create_graph=True)[0], w)[0] == 18


@case("Detected call of")
def _(see):
    optimizer = torch.optim.SGD([leaf(3)], lr=0.1)
    with see():
        torch.optim.lr_scheduler.StepLR(optimizer, 1).step()


@case("Found dtype Double but expected Float")
def _(see):
    w = leaf(3)
    with see(newer_are_silent=True):
        F.mse_loss(w, torch.ones(1, dtype=torch.float64)).backward()
    assert grad(F.mse_loss(w, torch.ones(1)), w)[0] == 4


@case("Using a target size", "Target size")
def _(see):
    labels = torch.tensor([0.0, 1.0, 1.0])
    losses = F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss
    for loss in *losses, F.binary_cross_entropy, F.binary_cross_entropy_with_logits:
        with see():
            loss(column, labels)
        assert torch.equal(loss(column.squeeze(1), labels), loss(column, labels[:, None]))


@pytest.mark.parametrize("quotes, run", CASES, ids=lambda value: str(value)[2:40])
def test_pytorch_says_so_and_the_fix_works(quotes: tuple[str, ...], run: Callable) -> None:
    run(partial(expect, quotes))


def test_every_quote_of_the_index_is_a_case_or_a_stored_output() -> None:
    notebook = nbformat.read(ROOT / "notebooks/03_pitfalls.ipynb", as_version=4)
    index = next(cell.source for cell in notebook.cells if "**The index.**" in cell.source)
    seen = re.findall(r"^\| (`.*?) \| ", index, re.MULTILINE)
    quotes = {quote for cell in seen for quote in re.findall(r"`([^`]+)`", cell)}
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    stored = "\n".join(out.get("evalue", "") + out.get("text", "") for out in outputs)
    cases = "\n".join(quote for quotes, _ in CASES for quote in quotes)
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


def test_a_state_that_is_kept_makes_the_graph_grow() -> None:
    def size(node: torch.autograd.graph.Node) -> int:
        return 1 + sum(size(parent) for parent, _ in node.next_functions if parent)

    w, kept, sizes = leaf(0.5), torch.zeros(1), []
    for _ in range(3):
        kept, cut = torch.tanh(w * kept), torch.tanh(w * kept.detach())
        kept.backward(retain_graph=True)
        sizes.append((size(kept.grad_fn), size(cut.grad_fn)))
    assert sizes == [(3, 3), (6, 3), (9, 3)]


def test_layers_before_a_layer_of_zeros_have_a_zero_gradient() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    nn.init.zeros_(model[2].weight)
    model(torch.ones(4, 2)).sum().backward()
    assert not model[0].weight.grad.any() and model[2].weight.grad.any()


@pytest.mark.parametrize("other", [0.0, -1.0, 1.0])
def test_it_is_the_inner_where_that_stops_the_nan(other: float) -> None:
    x = leaf(0, 4)
    root = torch.where(x > 0, torch.where(x > 0, x, other).sqrt(), 0.0)
    assert grad(root.sum(), x)[0].tolist() == [0, 0.25]
