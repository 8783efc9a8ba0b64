"""The replay has PyTorch's own bits, the graph's numbers are right, and errors say what to do."""

import random
from functools import partial, reduce

import pytest
import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge
from torch.utils.checkpoint import checkpoint
from torchvision.models import resnet18

from utils.graph import GraphError, read_graph, replay_backward, saved_bytes

SHAPES = [(), (3,), (1, 3), (2, 1), (2, 3)]  # each broadcasts with each
FLOATS = [torch.float32, torch.float64]
leaf = partial(torch.tensor, requires_grad=True)


class ProductAndSum(torch.autograd.Function):
    """A custom operation with two results, and with arguments that are no tensors."""

    @staticmethod
    def forward(ctx, number, x, text, y, nothing=None):
        ctx.save_for_backward(x, y)
        return x * y, x + y

    @staticmethod
    def backward(ctx, g, h):
        x, y = ctx.saved_tensors
        return None, g * y + h, None, g * x + h, None


custom = ProductAndSum.apply


def full(x):
    return x.expand(2, 3)


def in_place(a, b):
    c = full(a).clone()
    row = c[0]
    c[:, 1:] *= 0.7
    c[1] = full(b)[0]
    c.add_(b).tanh_()
    return c, row, c[:, :1]


OPERATIONS = [  # from two tensors with shapes in SHAPES to one or several of such shapes
    lambda a, b: [a + b, a - 0.3 * b, -a],
    lambda a, b: [a * b, a / (b.abs() + 1.5)],
    lambda a, b: [torch.maximum(a, b), torch.where(a > b, a, 0.7 * b)],
    lambda a, b: [a.sin(), a.tanh(), a.sigmoid(), a.relu(), nn.functional.softplus(a)],
    lambda a, b: [a**2, a**3, (a.abs() + 0.5).sqrt(), torch.exp(-a * a), a.clone()],
    lambda a, b: [a.sum(), a.mean(), full(a).sum(0), full(a).var(1, keepdim=True)],
    lambda a, b: full(a).unbind(0),
    lambda a, b: full(a).split(1, dim=1),
    lambda a, b: [full(a).amax(1, keepdim=True), *full(a).max(0)[:1], full(a).softmax(1)],
    lambda a, b: [full(b).gather(1, full(a).max(1, keepdim=True).indices)],
    lambda a, b: [torch.cat([full(a), full(b)])[1:3], full(a) @ full(b).to(a.dtype).T @ full(a)],
    lambda a, b: [full(a).T.contiguous().view(2, 3), full(a)[1], full(a)[:, :1], full(a).flip(0)],
    lambda a, b: [custom(3, a, "text", b)[0], custom(2, a, 7, b, 5)[1]],
    in_place,
]


def random_graph(seed, dtypes=(torch.float64,)):
    """Return an output, and the tensors that may have a part in it, its leaves first."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    pool = [torch.randn(rng.choice(SHAPES), dtype=rng.choice(dtypes)) for _ in range(4)]
    pool = [x.requires_grad_(i == 0 or rng.random() < 0.8) for i, x in enumerate(pool)]
    for _ in range(rng.randint(1, 15)):
        results = rng.choice(OPERATIONS)(rng.choice(pool[-4:]), rng.choice(pool))
        results = rng.sample(list(results), rng.randint(1, len(results)))
        pool += [t.tanh() if t.detach().abs().max() > 20 else t for t in results]
    pool = [t for t in pool if t.requires_grad]
    output = sum(full(t) for t in rng.sample(pool, min(len(pool), 4)))
    return (output * torch.randn(2, 3) if rng.random() < 0.5 else output).sum(), pool


def same_bits(a, b):
    if a is None or b is None:
        return a is b
    a, b = a.detach(), b.detach().to_dense()
    return (a.dtype, a.shape, a.numpy().tobytes()) == (b.dtype, b.shape, b.numpy().tobytes())


def replay_is_exact(output, tensors):
    """Return whether the replay has the bits of PyTorch, which then still finds all it needs."""
    leaves = [x for x in tensors if x.is_leaf]
    grads = replay_backward(output)
    wanted = torch.autograd.grad(output, leaves, retain_graph=True, allow_unused=True)
    assert all(x.grad is None for x in leaves) and not any(g.requires_grad for g in grads.values())
    alike = all(map(same_bits, [grads.get(x) for x in leaves], wanted))
    return alike and len(grads) == sum(g is not None for g in wanted)


@pytest.mark.parametrize("dtypes", [FLOATS[:1], FLOATS[1:], FLOATS])
def test_replay_of_random_graphs_is_exact(dtypes):
    assert [s for s in range(500) if not replay_is_exact(*random_graph(s, dtypes))] == []


@pytest.mark.parametrize(
    "output",
    [
        lambda x: x,
        lambda x: -0.0 * x,  # PyTorch keeps the sign of zero
        lambda x: (3 * x).view(1).unbind()[0],
        lambda x: torch.autograd.grad(custom(1, x, 2, x.sin())[0], x, create_graph=True)[0],
        lambda x: reduce(lambda y, _: y * 1.0001, range(20_000), x),  # too deep for recursion
    ],
)
def test_replay_of_a_special_graph_is_exact(output):
    x = leaf(0.7)
    assert replay_is_exact(output(x), [x])


torch.manual_seed(0)
MLP, WORDS = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.3)), torch.tensor([3, 5, 3, 8])
MODELS = [  # small inputs, random weights
    (nn.LSTM(3, 5, num_layers=2), lambda m: m(torch.randn(4, 2, 3))[0].square().sum()),
    (nn.Embedding(9, 4, sparse=True), lambda m: (m(WORDS) * m(WORDS.flip(0))).sum()),
    (nn.TransformerEncoderLayer(8, 2, 16), lambda m: m(torch.randn(3, 5, 8)).square().sum()),
    (resnet18(), lambda m: m(torch.randn(2, 3, 64, 64)).logsumexp(1).mean()),
    (MLP, lambda m: checkpoint(m, torch.randn(7, 5), use_reentrant=False).square().sum()),
]


@pytest.mark.parametrize(("model", "loss"), MODELS)
def test_a_model_is_replayed_and_read_exactly(model, loss):
    loss, parameters = loss(model), dict(model.named_parameters())
    assert replay_is_exact(loss, parameters.values())
    graph = read_graph(loss, parameters)
    loss.backward()
    for name, parameter in parameters.items():
        assert same_bits(graph[name].grad, parameter.grad)


def some_names(output, pool, seed):
    """Name the output, and some of the tensors in the pool that have a part in it."""
    names = {get_gradient_edge(output)[:2]: ("f", output)}
    for i, tensor in enumerate(random.Random(seed).sample(pool, min(len(pool), 3))):
        if torch.autograd.grad(output, tensor, retain_graph=True, allow_unused=True)[0] is not None:
            names.setdefault(get_gradient_edge(tensor)[:2], (f"t{i}", tensor))
    return dict(names.values())


def total_derivative(target, source):
    """Return the Jacobian along all paths, as autograd finds it, row by row."""
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    units = torch.eye(target.numel()).to(target)
    rows = [torch.autograd.grad(target, source, u.view_as(target), **options)[0] for u in units]
    return torch.stack(rows).view(target.numel(), source.numel())


@pytest.mark.parametrize("seed", range(200))
def test_local_jacobians_multiply_along_paths_and_parts_add_up_to_pytorchs_gradients(seed):
    output, pool = random_graph(seed)
    names = some_names(output, pool, seed)
    graph = read_graph(output, names)
    assert {node.name for node in graph.nodes} == set(names)
    for i, node in enumerate(graph.nodes):
        tensor, used = names[node.name], [edge for edge in graph.edges if edge.source is node]
        (grad,) = torch.autograd.grad(output, tensor, retain_graph=True)
        assert torch.equal(node.value, tensor) and node.value.data_ptr() != tensor.data_ptr()
        assert same_bits(node.grad, grad)
        assert all(e.sent is part for e, part in zip(used, node.parts, strict=True))
        torch.testing.assert_close(grad, sum(node.parts) if used else torch.ones_like(grad))
        products = [edge.target.grad.flatten() @ edge.local for edge in used]
        torch.testing.assert_close([e.sent.flatten() for e in used], products)
        total = {node.name: torch.eye(grad.numel(), dtype=torch.float64)}
        for target in reversed(graph.nodes[:i]):
            total[target.name] = torch.zeros(target.grad.numel(), grad.numel()).double()
            for edge in (e for e in graph.edges if e.target is target and e.source.name in total):
                total[target.name] += edge.local @ total[edge.source.name]
            wanted = total_derivative(names[target.name], tensor)
            torch.testing.assert_close(total[target.name], wanted)


A = torch.tensor([[0.7, -1.3, 0.2], [2.1, 0.4, 1.1], [-0.6, 1.9, 0.3]])
WRONG = [A.T, -A, 1.001 * A, A[:2], A[0], 0.7, A * float("nan")]


@pytest.mark.parametrize("value", [A, A.double().numpy(), *WRONG])
def test_a_label_is_written_only_if_its_value_is_the_jacobian(value):
    x = leaf([1.7, 0.6, -0.8])
    y = A @ x
    read = partial(read_graph, y.norm(), {"x": x, "y": y}, local={("y", "x"): ("label", value)})
    if any(value is wrong for wrong in WRONG):
        with pytest.raises(GraphError, match="'label' of ∂y/∂x has the value .* is 3×3 matrix"):
            read()
    else:
        assert [edge.label for edge in read().edges] == ["", "label"]


X, V = leaf(1.5), torch.ones(1001, requires_grad=True)
Z, U = X**3, 3 * V


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda: replay_backward(2.5), "the output has no graph: give a real tensor, before"),
        (lambda: replay_backward(U), r"has shape \(1001,\): reduce it"),
        (lambda: read_graph(Z, {"two": 2.0}), "two has no graph: give a real tensor"),
        (lambda: read_graph(Z, {"c": torch.complex(X, X)}), "c has no graph: give a real tensor"),
        (lambda: read_graph(Z, {"x": X, "y": X}), r"unlike \['x'\]"),
        (lambda: read_graph(Z, {"f": X}), r"unlike \['f'\]"),
        (lambda: read_graph(Z, {"late": X**3}, {"y": "Y"}), r"unlike \['late', 'y'\]"),
        (lambda: read_graph(Z, {"x": X}, local={("x", "f"): ("1", 1)}), "no edge .* only .*'f'"),
        (lambda: read_graph(U.sum(), {"v": V, "u": U}), "u is too large for its Jacobian"),
    ],
)
def test_refusals_say_what_to_give(refused, message):
    with pytest.raises(GraphError, match=message):
        refused()


# Bytes: every count follows from the shapes.
N, DATA = 1000, torch.ones(1000)


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (torch.exp, N),
        (lambda x: (y := x.sin()) * y, N),
        (lambda x: (x.sin()[:1].sqrt() * 2).sum(), 1),  # one number: the root's own memory
        (lambda x: x.sin()[:1].square().sum(), N),  # all of them, for the sake of one
        (lambda x: (x * DATA).exp().sum(), N),
        (partial(torch.mul, DATA), 0),
        (lambda x: x * torch.tensor(3.0), 1),
        (lambda x: [x.exp().sum().item() for _ in range(5)], 0),
    ],
)
def test_saved_bytes_counts_what_the_call_has_made_and_counts_it_once(function, count):
    x = torch.linspace(0.2, 0.9, N, requires_grad=True)
    assert saved_bytes(function, x) == saved_bytes(lambda: function(x)) == 4 * count
