"""The replay has PyTorch's own bits, the graph's numbers are right, and errors say what to do."""

import random
from functools import partial, reduce

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from torchvision.models import resnet18

from utils.graph import GraphError, backward_table, read_graph, replay_backward, saved_bytes, short

SHAPES = [(), (3,), (1, 3), (2, 1), (2, 3)]  # each broadcasts with each


def custom(forward, backward):
    """Return a custom operation, as a subclass of Function would define it."""
    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type("Custom", (torch.autograd.Function,), methods).apply


def save(ctx, x):
    ctx.save_for_backward(x)
    return x**3


def product_and_sum(ctx, number, x, text, y, nothing=None):
    ctx.x, ctx.y = x.detach(), y.detach()
    return x * y, x + y


cube = custom(save, lambda ctx, g: 3 * g * ctx.saved_tensors[0] ** 2)
send_nothing = custom(lambda ctx, x: 3 * x, lambda ctx, g: None)
pair = custom(product_and_sum, lambda ctx, g, h: (None, g * ctx.y + h, None, g * ctx.x + h, None))


def leaf(*numbers):
    """A leaf tensor: a vector of these numbers, or a single number."""
    return torch.tensor(numbers if len(numbers) > 1 else numbers[0], requires_grad=True)


def full(x):
    return x.expand(2, 3)


def in_place(a, b):
    c = full(a).clone()
    row = c[0]
    c[:, 1:] *= 0.7
    c[1] = full(b)[0]
    c.add_(b).tanh_()
    return c, row, c[:, :1]


def complex_functions(a, b):
    z = torch.view_as_complex(torch.stack([full(a), full(b)], -1))
    return (a + 1j * b).abs(), (z * z.conj()).real, (1j * z).exp().imag + b, (z * a).angle()


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
    lambda a, b: [cube(a), send_nothing(a * b)],
    lambda a, b: [pair(3, a, "text", b)[0], pair(2, a, 7, b, 5)[1]],
    complex_functions,
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
    a, b = (t.detach().to_dense().cpu() for t in (a, b))
    return (a.dtype, a.shape, a.numpy().tobytes()) == (b.dtype, b.shape, b.numpy().tobytes())


def replay_is_exact(output, tensors):
    """Return whether the replay has the bits of PyTorch, which then still finds all it needs."""
    leaves = [x for x in tensors if x.is_leaf]
    grads = replay_backward(output).grads
    wanted = torch.autograd.grad(output, leaves, retain_graph=True, allow_unused=True)
    assert all(x.grad is None for x in leaves) and not any(g.requires_grad for g in grads.values())
    alike = all(map(same_bits, [grads.get(x) for x in leaves], wanted))
    return alike and len(grads) == sum(g is not None for g in wanted)


@pytest.mark.parametrize("dtypes", [["float32"], ["float64"], ["float32", "float64"]])
def test_replay_of_random_graphs_is_exact(dtypes):
    dtypes = [getattr(torch, dtype) for dtype in dtypes]
    assert [s for s in range(500) if not replay_is_exact(*random_graph(s, dtypes))] == []


@pytest.mark.parametrize("seed", range(5))
def test_nodes_are_visited_in_pytorchs_order(seed):
    output, visited = random_graph(seed)[0], []
    order = list(dict.fromkeys(node for node, _ in replay_backward(output).steps))
    order = [node for node in order if not hasattr(node, "variable")]
    for node in order:
        node.register_prehook(lambda _, node=node: visited.append(node))
    output.backward()
    assert visited == order


@pytest.mark.parametrize(
    "output",
    [
        lambda x: x,
        lambda x: (3 * x).view(1).unbind()[0],
        lambda x: send_nothing(cube(x)),  # a custom Function gets zeros, not nothing
        lambda x: torch.autograd.grad(cube(1.9 * x) * x.sin(), x, create_graph=True)[0],
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
        assert same_bits(graph[name].grad, parameter.grad) and not graph[name].grad.is_sparse
    assert all(e.local.shape == (1, e.sent.numel()) for e in graph.edges)  # one row, of any length


def some_names(output, pool, seed):
    """Name the output, and some of the tensors in the pool that have a part in it."""
    names = {get_gradient_edge(output)[:2]: ("f", output)}
    for i, tensor in enumerate(random.Random(seed).sample(pool, min(len(pool), 6))):
        names.setdefault(get_gradient_edge(tensor)[:2], (f"t{i}", tensor))
    steps = replay_backward(output).steps
    return dict(names[key] for key in names if key in steps)


def total_derivative(target, source):
    """Return the Jacobian along all paths, as autograd finds it, row by row."""
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    units = torch.eye(target.numel()).to(target)
    rows = [torch.autograd.grad(target, source, u.view_as(target), **options)[0] for u in units]
    return torch.stack(rows).view(target.numel(), source.numel())


@pytest.mark.parametrize("seed", range(200))
def test_local_jacobians_multiply_along_paths_to_the_total_derivative(seed):
    output, pool = random_graph(seed)
    names = some_names(output, pool, seed)
    graph = read_graph(output, names)
    assert {node.name for node in graph.nodes} == set(names)
    for i, source in enumerate(graph.nodes):
        total = {source.name: torch.eye(source.grad.numel(), dtype=torch.float64)}
        for target in reversed(graph.nodes[:i]):
            total[target.name] = torch.zeros(target.grad.numel(), source.grad.numel()).double()
            for edge in (e for e in graph.edges if e.target is target and e.source.name in total):
                total[target.name] += edge.local @ total[edge.source.name]
            wanted = total_derivative(names[target.name], names[source.name])
            torch.testing.assert_close(total[target.name], wanted)


@pytest.mark.parametrize("seed", range(100))
def test_gradients_are_sums_of_parts_in_the_order_of_the_visits(seed):
    output, pool = random_graph(seed)
    names = some_names(output, pool, seed)
    graph = read_graph(output, names)
    for i, node in enumerate(graph.nodes):
        used = [edge for edge in graph.edges if edge.source is node]
        visits = [graph.nodes.index(edge.target) for edge in used]
        assert visits == sorted(visits) and all(visit < i for visit in visits)
        assert all(e.sent is part for e, part in zip(used, node.parts, strict=True))
        (grad,) = torch.autograd.grad(output, names[node.name], retain_graph=True)
        assert torch.equal(node.value, names[node.name]) and same_bits(node.grad, grad)
        torch.testing.assert_close(grad, sum(node.parts) if used else torch.ones_like(grad))
        products = [edge.target.grad.flatten() @ edge.local for edge in used]
        torch.testing.assert_close([e.sent.flatten() for e in used], products)


def polynomial():
    x = leaf(1.5)
    z1, z2 = x**3, -3 * x
    return z1 * z2, {"x": x, "z1": z1, "z2": z2}


def test_a_row_for_which_nothing_is_sent_back_is_zero():
    forward, backward = lambda ctx, x: torch.stack([3 * x, x]), lambda ctx, g: 3 * g[0] or None
    x = leaf(2.5)
    y = custom(forward, backward)(x)
    assert read_graph((y * y).sum(), {"x": x, "y": y}).edges[1].local.tolist() == [[3], [0]]


def test_titles_are_operations_in_forward_order_unless_given():
    output, names = polynomial()
    output = (2 * output).exp().sqrt().sin()
    graph = read_graph(output, names, titles={"z1": "Power"}, formulas={"z1": "x^3"})
    assert [node.title for node in graph.nodes] == ["5 operations", "Mul", "Power", "Input"]
    assert [node.formula for node in graph.nodes] == ["", "", "x^3", ""]
    assert read_graph(cube(leaf(0.7)).sum(), {}).output.title == "Custom, Sum"
    names["x"].data += 5
    assert graph["x"].value == 1.5  # a copy


A = torch.tensor([[0.7, -1.3, 0.2], [2.1, 0.4, 1.1], [-0.6, 1.9, 0.3]])
WRONG = [A.T, -A, 1.001 * A, A[:2], A[0], 0.7, A * float("nan")]


@pytest.mark.parametrize("value", [A, A.double().numpy(), *WRONG])
def test_a_label_is_written_only_if_its_value_is_the_jacobian(value):
    x = leaf(1.7, 0.6, -0.8)
    y = A @ x
    read = partial(read_graph, y.norm(), {"x": x, "y": y}, local={("y", "x"): ("label", value)})
    if any(value is wrong for wrong in WRONG):
        with pytest.raises(GraphError, match="'label' of ∂y/∂x has the value .* is 3×3 matrix"):
            read()
    else:
        assert [edge.label for edge in read().edges] == ["", "label"]


# Refusals: each says what happened and what to do.


def freed(function):
    output = function(leaf(0.7, -1.3)).sum()
    output.backward()
    return output


def changed_in_place():
    y = leaf(0.7, -1.3).sin()
    output = y.exp().mul(y).sum()
    y += 1
    return output


REFUSED = [
    (2.5, "not a tensor but a float: give one tensor, as it was before .item()"),
    (nn.Linear(2, 1), "not a tensor but a Linear: give one tensor"),
    ([leaf(0.7)], "not a tensor but a list: give one tensor"),
    (np.ones(1), "not a tensor but a ndarray: give one tensor"),
    (leaf(0.7).detach(), "is constant, .* detached .*: compute it from .*requires_grad=True"),
    (leaf(0.7, -1.3).argmax(), "is constant, integer, .*: .* requires_grad=True"),
    (leaf(0.7, -1.3) ** 2, r"has shape \(2,\): reduce it to one number"),
    (leaf(0.7) * 1j, "complex: give a real tensor"),
    (freed(torch.exp), "ExpBackward0 fails; .*freed.*compute the output again.*retain_graph=True"),
    (changed_in_place(), "MulBackward0 fails; .*changed in place, compute.*again.* inplace"),
    (custom(save, lambda ctx, g: g.view(7))(leaf(0.7)), "CustomBackward fails; .*invalid"),
]


@pytest.mark.parametrize(("output", "message"), REFUSED)
@pytest.mark.parametrize("read", [replay_backward, partial(read_graph, names={})])
def test_what_cannot_be_replayed_is_refused(output, message, read):
    with pytest.raises(GraphError, match=message):
        read(output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda x, **_: {"names": [x]}, 'give the names as a dictionary, such as {"x": x'),
        (lambda **_: {"names": {"two": 2.0}}, "two is not a tensor but a float.* a constant has"),
        (lambda x, **_: {"names": {"s": [x]}}, "s is not a tensor but a list"),
        (lambda x, **_: {"names": {"c": x.detach()}}, "c is constant.* do not name it"),
        (lambda x, **_: {"names": {"late": x**2}}, "late is not in this graph"),
        (lambda x, **_: {"names": {"x": x, "y": x}}, "y and x are the same tensor"),
        (lambda z1, **_: {"names": {"f": z1}}, "another tensor: rename one"),
        (lambda **_: {"titles": {"y": "Y"}}, "no tensor is named 'y', only .*'f', 'z2', 'z1', 'x'"),
        (lambda **_: {"formulas": {"y": "Y"}}, "no tensor is named 'y'"),
        (lambda **_: {"local": {("x", "z1"): ("1", 1)}}, "no edge .*'x', 'z1'.* only .*'z1', 'x'"),
    ],
)
def test_wrong_names_are_refused(arguments, message):
    output, names = polynomial()
    with pytest.raises((GraphError, KeyError), match=message):
        read_graph(**{"output": output, "names": names} | arguments(**names))


def test_a_jacobian_of_too_many_rows_is_refused():
    v = torch.linspace(0.2, 0.9, 4000, requires_grad=True)
    u = 3 * v
    with pytest.raises(GraphError, match="4000 × 4000 entries, too many .* leave u out"):
        read_graph(u.sum(), {"v": v, "u": u})


TABLE = """\
Mul: f = -15.19
    incoming  df/df = 1
    local     ∂f/∂z1 = -4.5, so df/dz1 += -4.5
    local     ∂f/∂z2 = 3.375, so df/dz2 += 3.375
Mul: z2 = -4.5
    incoming  df/dz2 = 3.375
    local     ∂z2/∂x = -3, so df/dx += -10.12
Power: z1 = 3.375
    incoming  df/dz1 = -4.5
    local     ∂z1/∂x = 3x^2 = 6.75, so df/dx += -30.38
Input: x = 1.5
    incoming  df/dx = -10.12 + -30.38 = -40.5"""


def test_backward_table():
    output, names = polynomial()
    label = {("z1", "x"): ("3x^2", 3 * names["x"] ** 2)}
    assert backward_table(read_graph(output, names, titles={"z1": "Power"}, local=label)) == TABLE
    with pytest.raises(GraphError, match="prints a graph"):
        backward_table(output)


SHORT = [
    (torch.tensor([[-3.23456]]), "-3.235"),
    (torch.tensor([1.23456, -2, 3, 4]), "(1.23, -2, 3, 4)"),
    (torch.tensor([[0.5, 2]]), "(0.5, 2)"),
    (torch.arange(5.0), "5 numbers"),
    (torch.eye(3), "I"),
    (-0.5 * torch.eye(2), "-0.5 I"),
    (torch.tensor([[2.0, 0], [0, 3]]), "2×2 matrix"),
    (torch.ones(2, 2, 3), "2×2×3 numbers"),
]


@pytest.mark.parametrize(("tensor", "text"), SHORT)
def test_short_is_a_few_characters(tensor, text):
    assert short(tensor) == text


# Bytes: every count follows from the shapes.

N, DATA = 1000, torch.ones(1000)


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda x: x[3:].view(-1).sin().sum(), 0),
        (torch.exp, N),
        (lambda x: (y := x.sin()) * y, N),
        (lambda x: (x.sin()[:1].sqrt() * 2).sum(), 1),  # one number: the root's own memory
        (lambda x: x.sin()[:1].square().sum(), N),  # all of them, for the sake of one
        (lambda x: x.exp().detach().sin().sum(), 0),
        (lambda x: (x * DATA).exp().sum(), N),
        (partial(torch.mul, DATA), 0),
        (lambda x: x * torch.tensor(3.0), 1),
        (lambda x: [x.exp().sum() for _ in range(5)], 5 * N),
        (lambda x: [x.exp().sum().item() for _ in range(5)], 0),
        (lambda x: [loss := x.exp().sum(), loss.backward()], 0),
    ],
)
def test_saved_bytes_counts_what_the_call_has_made_and_counts_it_once(function, count):
    x = torch.linspace(0.2, 0.9, N, requires_grad=True)
    assert saved_bytes(function, x) == saved_bytes(lambda: function(x)) == 4 * count


def test_saved_bytes_of_a_stack_of_layers():
    layers = [m for _ in range(16) for m in (nn.Linear(256, 256), nn.Tanh())]
    model, X, row = nn.Sequential(*layers), torch.ones(512, 256), 4 * 512 * 256
    assert saved_bytes(model, X) == saved_bytes(lambda: model(X)) == 16 * row
    assert saved_bytes(model.double(), X.double()) == 2 * 16 * row
    assert saved_bytes(torch.no_grad()(model), X.double()) == 0
    # the inputs of parts 2 to 4, and the four layers of the last part, which is not checkpointed
    parts = partial(checkpoint_sequential, model.float(), 4, use_reentrant=False)
    assert saved_bytes(parts, X) == (3 + 4) * row
