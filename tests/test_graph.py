"""The replay has PyTorch's own bits, the graph's numbers are right, and refusals say what to do.

Once a hook was registered in the process, every replay asks all living tensors for hooks and
takes 0.2 s: tests with hooks stand last.
"""

import gc
import random
import re
import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.autograd import Function
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from utils.graph import (
    MAX_JACOBIAN,
    Graph,
    GraphError,
    backward_table,
    read_graph,
    replay_backward,
    saved_bytes,
    short,
)

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
SHAPES = [(), (3,), (1, 3), (2, 1), (2, 3)]  # each broadcasts with each


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return 3 * g * ctx.saved_tensors[0] ** 2


class ProductAndSine(Function):
    """Two outputs, and arguments that are no tensors before, between and after the tensors."""

    @staticmethod
    def forward(ctx, factor, x, text, y, nothing=None):
        ctx.save_for_backward(x, y)
        ctx.factor = factor
        return factor * x * y, torch.sin(x) + y

    @staticmethod
    def backward(ctx, g, h):
        x, y = ctx.saved_tensors
        return None, ctx.factor * g * y + h * x.cos(), None, ctx.factor * g * x + h, None


class Stop(Function):
    """Sends nothing back, so that the gradient of its input stays undefined."""

    @staticmethod
    def forward(ctx, x):
        return 3 * x

    @staticmethod
    def backward(ctx, g):
        return None


class TripleAndFive(Function):
    """Only the first output depends on the input; asked for the second, it sends nothing."""

    @staticmethod
    def forward(ctx, x):
        return torch.cat([3 * x, torch.full_like(x, 5)])

    @staticmethod
    def backward(ctx, g):
        return 3 * g[:1] if g[0] else None


class Unsound(Function):
    @staticmethod
    def forward(ctx, x):
        return 3 * x

    @staticmethod
    def backward(ctx, g):
        raise RuntimeError("my own mistake")


def full(x):
    return x.expand(2, 3)


def in_place(a, b):
    c = full(a).clone()
    row = c[0]
    c[:, 1:] *= 0.7
    c[1] = full(b)[0]
    c.add_(b).tanh_()
    return c, row, c[:, :1]


def matrix_product(a, b):
    return full(a) @ full(b).to(a.dtype).T @ full(a)


def complex_functions(a, b):
    z = torch.view_as_complex(torch.stack([full(a), full(b)], -1))
    return (a + 1j * b).abs(), (z * z.conj()).real, (1j * z).exp().imag + b, (z * a).angle()


OPERATIONS = [  # from two tensors with shapes in SHAPES to one or several of such shapes
    lambda a, b: [a + b, a - 0.3 * b, -a],
    lambda a, b: a * b,
    lambda a, b: a / (b.abs() + 1.5),
    lambda a, b: torch.maximum(a, b),
    lambda a, b: torch.where(a > b, a, 0.7 * b),
    lambda a, b: [a.sin(), a.tanh(), a.sigmoid(), a.relu()],
    lambda a, b: [a**2, a**3, (a.abs() + 0.5).sqrt(), torch.exp(-a * a)],
    lambda a, b: [nn.functional.softplus(a), a.clone(), full(a).softmax(1)],
    lambda a, b: [a.sum(), a.mean(), full(a).sum(0), full(a).var(1, keepdim=True)],
    lambda a, b: full(a).unbind(0),
    lambda a, b: full(a).split(1, dim=1),
    lambda a, b: [full(a).amax(1, keepdim=True), *full(a).max(0)[:1]],
    lambda a, b: full(b).gather(1, full(a).max(1, keepdim=True).indices),
    lambda a, b: torch.cat([full(a), full(b)])[1:3],
    lambda a, b: [full(a).T.contiguous().view(2, 3), full(a)[1], full(a)[:, :1], full(a).flip(0)],
    lambda a, b: Cube.apply(a),
    lambda a, b: [ProductAndSine.apply(3, a, "text", b)[0], ProductAndSine.apply(2, a, 7, b, 5)[1]],
    lambda a, b: Stop.apply(a * b),
    matrix_product,
    complex_functions,
    in_place,
]


def random_graph(seed, dtypes):
    """Return an output, the leaf tensors behind it, and a seed gradient if it is a vector."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    leaves = [torch.randn(rng.choice(SHAPES), dtype=rng.choice(dtypes)) for _ in range(4)]
    leaves = [x.requires_grad_(i == 0 or rng.random() < 0.8) for i, x in enumerate(leaves)]
    pool = list(leaves)
    for _ in range(rng.randint(1, 15)):
        a, b = rng.choice(pool[-4:]), rng.choice(pool)
        results = rng.choice(OPERATIONS)(a, b)
        results = [results] if isinstance(results, torch.Tensor) else results
        results = rng.sample(list(results), rng.randint(1, len(results)))
        pool += [t.tanh() if t.detach().abs().max() > 20 else t for t in results]
    used = [t for t in pool if t.requires_grad]
    output = sum(full(t) for t in rng.sample(used, min(len(used), 4)))
    leaves = [x for x in leaves if x.requires_grad]
    if rng.random() < 0.5:
        return output.sum(), leaves, None
    return output, leaves, torch.randn(2, 3, dtype=output.dtype)


def same_bits(a, b):
    if a is None or b is None:
        return a is b
    a, b = (t.detach().to_dense().cpu() for t in (a, b))
    return (a.dtype, a.shape, a.numpy().tobytes()) == (b.dtype, b.shape, b.numpy().tobytes())


def replay_is_exact(output, leaves, seed=None):
    """Return whether the replay has the bits of PyTorch, which then still finds all it needs."""
    grads = replay_backward(output, seed).grads
    untouched = all(x.grad is None for x in leaves)
    want = torch.autograd.grad(output, leaves, seed, retain_graph=True, allow_unused=True)
    output.backward(seed)
    got = [grads.get(x) for x in leaves]
    return (
        untouched
        and len(grads) == sum(g is not None for g in want)
        and all(map(same_bits, got, want))
        and all(map(same_bits, got, [x.grad for x in leaves]))
        and not any(g.requires_grad for g in grads.values())
    )


@pytest.mark.parametrize(
    "dtypes",
    [[torch.float32], [torch.float64], [torch.float32, torch.float64]],
    ids=["float32", "float64", "mixed"],
)
def test_replay_of_random_graphs_is_exact(dtypes):
    wrong = [seed for seed in range(500) if not replay_is_exact(*random_graph(seed, dtypes))]
    assert wrong == []


@pytest.mark.parametrize("device", DEVICES)
def test_replay_on_each_device(device):
    X = torch.linspace(-2, 3, 12, device=device).view(4, 3)
    w = torch.tensor([0.7, -1.3, 2.1], device=device, requires_grad=True)
    b = torch.tensor(0.4, requires_grad=True)  # a single number may stay on the CPU
    assert replay_is_exact(torch.sigmoid(X @ w + b).log().sum(), [w, b])


def test_steps_tell_what_arrives_what_is_sent_and_the_sum_so_far():
    x = torch.tensor(2.0, requires_grad=True)
    z1 = x**3
    z2 = -3 * x
    output = z1 + z2
    steps = replay_backward(output).steps
    leaf = (steps[-1].node, 0)
    assert [step.node.name() for step in steps[:3]] == [
        "AddBackward0",
        "MulBackward0",
        "PowBackward0",
    ]
    assert [step.incoming for step in steps] == [[1], [1], [1], [9]]
    assert [step.sent for step in steps[1:]] == [[(leaf, -3, -3)], [(leaf, 12, 9)], []]
    assert leaf[0].variable is x


def test_replay_of_a_leaf_is_its_seed():
    x = torch.tensor(1.7, requires_grad=True)
    assert replay_backward(x).grads == {x: 1}
    assert replay_backward(x, torch.tensor(0.3)).grads == {x: torch.tensor(0.3)}


def test_replay_of_one_of_several_outputs():
    x = torch.tensor([0.7, -1.3], requires_grad=True)
    assert replay_is_exact((3 * x).unbind()[1], [x])


def test_a_seed_may_require_a_gradient_and_the_replay_does_not():
    x = torch.tensor([0.7, -1.3], requires_grad=True)
    steps = replay_backward(x + 0.5, seed=2 * x).steps
    assert not any(g.requires_grad for step in steps for g in step.incoming)


def test_leaves_that_are_ready_together_come_in_the_order_of_their_use():
    leaves = [torch.tensor(v, requires_grad=True) for v in (0.7, -1.3, 2.1, 0.4)]
    orders = [leaves, leaves[::-1]]
    replays = [replay_backward(torch.stack(order).prod()) for order in orders]
    assert [[*map(id, replay.grads)] for replay in replays] == [[*map(id, o)] for o in orders]


def test_zeros_arrive_where_a_function_follows_one_that_sends_nothing():
    x = torch.tensor([0.7, -1.3], requires_grad=True)
    assert replay_is_exact(Stop.apply(x.sin()).sum() + 2, [x])
    assert replay_is_exact(Stop.apply(Cube.apply(x)).sum(), [x])


def test_a_chain_of_20000_nodes_needs_no_recursion():
    x = y = torch.tensor(0.7, requires_grad=True)
    for _ in range(20_000):
        y = y * 1.0001
    assert replay_is_exact(y, [x])


# Real models: small inputs, random weights.


def mlp():
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    loss = nn.BCEWithLogitsLoss()(model(torch.randn(7, 5)), torch.rand(7, 1).round())
    return loss, model


def cnn():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.4),
        nn.Flatten(), nn.Linear(36, 3),
    )  # fmt: skip
    return nn.CrossEntropyLoss()(model(torch.randn(6, 1, 8, 8)), torch.arange(6) % 3), model


def lstm():
    model = nn.LSTM(3, 5, num_layers=2)
    outputs, (_, cell) = model(torch.randn(4, 2, 3))
    return outputs[-1].square().sum() + cell.sum(), model


def transformer():
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
    return model(torch.randn(3, 5, 8)).square().sum(), model


def resnet18():
    from torchvision.models import resnet18

    model = resnet18(weights=None)
    return nn.CrossEntropyLoss()(model(torch.randn(2, 3, 64, 64)), torch.tensor([3, 700])), model


def checkpointed():
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 2))
    return checkpoint(model, torch.randn(7, 5), use_reentrant=False).square().sum(), model


def embedding():
    model = nn.Embedding(9, 4)
    return model(torch.tensor([3, 5, 3, 8])).pow(3).sum(), model


def sparse_embedding():
    model = nn.Embedding(9, 4, sparse=True)
    words = torch.tensor([3, 5, 3, 8])
    return (model(words) * model(words).flip(0)).sum(), model


@pytest.mark.parametrize(
    "model",
    [mlp, cnn, lstm, transformer, resnet18, checkpointed, embedding, sparse_embedding],
)
def test_replay_of_a_model_is_exact(model):
    torch.manual_seed(0)
    loss, model = model()
    assert replay_is_exact(loss, list(model.parameters()))


def test_replay_of_a_gradient_gives_the_second_derivative():
    x = torch.tensor([0.7, -1.3, 2.1], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([1.9, 0.4, -0.6], dtype=torch.float64, requires_grad=True)
    output = (Cube.apply(w * x) * x.sin()).sum()
    (slope,) = torch.autograd.grad(output, x, create_graph=True)
    assert replay_is_exact(slope, [x, w], torch.tensor([0.3, -2.2, 1.4], dtype=torch.float64))


# The graph that is read: numbers, names and order.


def polynomial():
    x = torch.tensor(2.0, requires_grad=True)
    z1 = x**3
    z2 = -3 * x
    pieces = {
        ("f", "z1"): lambda z1: z1,
        ("f", "z2"): lambda z2: z2,
        ("z1", "x"): lambda x: x**3,
        ("z2", "x"): lambda x: -3 * x,
    }
    return z1 + z2, {"x": x, "z1": z1, "z2": z2}, pieces


def least_squares():
    X = torch.tensor([[0.5, 2.0], [-1.5, 0.3], [2.5, -0.7]])
    y = torch.tensor([0.4, -2.0, 1.7])
    w = torch.tensor([1.3, -0.6], requires_grad=True)
    r = X @ w - y
    pieces = {("f", "r"): lambda r: r.square().mean(), ("r", "w"): lambda w: X @ w - y}
    return r.square().mean(), {"w": w, "r": r}, pieces


def softmax_cross_entropy():
    torch.manual_seed(0)
    X, label = torch.randn(4, 2), torch.tensor([0, 2, 1, 2])
    W, b = torch.randn(2, 3, requires_grad=True), torch.randn(3, requires_grad=True)
    z = X @ W + b
    p = z.softmax(1)
    pieces = {
        ("loss", "p"): lambda p: -p[range(4), label].log().mean(),
        ("p", "z"): lambda z: z.softmax(1),
        ("z", "W"): lambda W: X @ W + b,
        ("z", "b"): lambda b: X @ W + b,
    }
    loss = -p[range(4), label].log().mean()
    return loss, {"loss": loss, "W": W, "b": b, "z": z, "p": p}, pieces


def diamond():
    x = torch.tensor([0.7, -1.3], dtype=torch.float64, requires_grad=True)
    a = 3 * x * x
    b, c = a.sin(), a**2
    pieces = {
        ("f", "b"): lambda b: (b * c).sum(),
        ("f", "c"): lambda c: (b * c).sum(),
        ("b", "a"): torch.sin,
        ("c", "a"): lambda a: a**2,
        ("a", "x"): lambda x: 3 * x * x,
    }
    return (b * c).sum(), {"x": x, "a": a, "b": b, "c": c}, pieces


def rows_of_one_unbind():
    M = torch.tensor([[0.7, -1.3], [2.1, 0.4], [-0.6, 1.9]], requires_grad=True)
    rows = (M * M).unbind()
    pieces = {
        ("f", "row_1"): lambda row: (row * rows[2]).sum(),
        ("f", "row_3"): lambda row: (row * rows[0]).sum() + row[1] ** 2,
        ("f", "M"): lambda M: (M * M)[1].sin().sum(),
        ("row_1", "M"): lambda M: (M * M)[0],
        ("row_3", "M"): lambda M: (M * M)[2],
    }
    output = (rows[0] * rows[2]).sum() + rows[2][1] ** 2 + rows[1].sin().sum()
    return output, {"M": M, "row_1": rows[0], "row_3": rows[2]}, pieces


def loop_under_one_name():
    w, states = torch.tensor([0.7, -1.3], requires_grad=True), [torch.tensor([1.9, 0.4])]
    for _ in range(3):
        states.append(torch.tanh(w * states[-1]))
    pieces = {("f", "s_3"): lambda s: s.norm(), ("s_1", "w"): lambda w: torch.tanh(w * states[0])}
    for i in (2, 3):
        pieces[f"s_{i}", f"s_{i - 1}"] = lambda s: torch.tanh(w * s)
        pieces[f"s_{i}", "w"] = lambda w, before=states[i - 1]: torch.tanh(w * before)
    return states[-1].norm(), {"w": w, "s": states[1:]}, pieces


def broadcast():
    a = torch.tensor([[0.7], [-1.3]], requires_grad=True)
    b = torch.tensor([2.1, 0.4, -0.6], dtype=torch.float64, requires_grad=True)
    c = a * b
    pieces = {
        ("f", "c"): lambda c: (c**3).sum(),
        ("c", "a"): lambda a: a * b,
        ("c", "b"): lambda b: a * b,
    }
    return (c**3).sum(), {"a": a, "b": b, "c": c}, pieces


EXAMPLES = [
    polynomial,
    least_squares,
    softmax_cross_entropy,
    diamond,
    rows_of_one_unbind,
    loop_under_one_name,
    broadcast,
]


def assert_close(a, b):
    torch.testing.assert_close(a, b, check_dtype=False)


@pytest.mark.parametrize("example", EXAMPLES)
def test_local_is_the_jacobian_of_what_stands_between_two_names(example):
    output, names, pieces = example()
    graph = read_graph(output, names)
    assert {(edge.target.name, edge.source.name) for edge in graph.edges} == set(pieces)
    for edge in graph.edges:
        piece = pieces[edge.target.name, edge.source.name]
        want = torch.func.jacrev(piece)(edge.source.value)
        assert edge.local.shape == (edge.target.grad.numel(), edge.source.grad.numel())
        assert_close(edge.local, want.reshape(edge.local.shape))


def test_a_row_of_the_jacobian_for_which_nothing_is_sent_back_is_zero():
    x = torch.tensor([2.0], requires_grad=True)
    y = TripleAndFive.apply(x)
    (edge,) = read_graph((y * y).sum(), {"x": x, "y": y}).edges[1:]
    assert_close(edge.local, torch.tensor([[3.0], [0.0]]))


@pytest.mark.parametrize("detail", ["named", "all"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_gradients_are_sums_of_parts_and_parts_are_vector_jacobian_products(example, detail):
    output, names, _ = example()
    graph = read_graph(output, names, detail=detail)
    for node in graph.nodes[1:]:
        used = [edge for edge in graph.edges if edge.source is node]
        assert_close(node.grad, sum(node.parts))
        assert len(used) == len(node.parts)
        assert all(edge.sent is part for edge, part in zip(used, node.parts, strict=True))
        for edge in used:
            product = edge.target.grad.flatten().to(edge.local) @ edge.local
            assert_close(edge.sent, product.view(node.grad.shape))


@pytest.mark.parametrize("detail", ["named", "all"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_values_and_gradients_are_those_of_the_named_tensors(example, detail):
    output, names, _ = example()
    graph = read_graph(output, names, detail=detail)
    tensors = {name: t for name, t in names.items() if isinstance(t, torch.Tensor)}
    tensors |= {f"s_{i}": t for i, t in enumerate(names.get("s", []), 1)}
    for name, tensor in {graph.output.name: output, **tensors}.items():
        (grad,) = torch.autograd.grad(output, tensor, retain_graph=True)
        assert torch.equal(graph[name].value, tensor)
        assert same_bits(graph[name].grad, grad)


@pytest.mark.parametrize("detail", ["named", "all"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_order_is_reverse_topological_and_names_are_unique(example, detail):
    output, names, _ = example()
    graph = read_graph(output, names, detail=detail)
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    assert len(position) == len(graph.nodes)
    assert graph.output is graph.nodes[0]
    targets = [position[edge.target.name] for edge in graph.edges]
    assert targets == sorted(targets)
    assert all(a < position[e.source.name] for a, e in zip(targets, graph.edges, strict=True))


def test_there_is_no_edge_along_a_path_that_names_interrupt():
    x = torch.tensor([0.7, -1.3, 2.1], requires_grad=True)
    rows = Cube.apply(x).unbind()
    output = rows[0] * rows[2]  # rows[1] has no name and no use
    graph = read_graph(output, {"x": x, "a": rows[0], "c": rows[2]})
    edges = [(edge.target.name, edge.source.name) for edge in graph.edges]
    assert sorted(edges) == [("a", "x"), ("c", "x"), ("f", "a"), ("f", "c")]


def test_titles_are_operations_in_forward_order_unless_given():
    output, names, _ = polynomial()
    output = (2 * output).exp().sqrt().sin()
    graph = read_graph(output, names, titles={"z1": "Power"}, formulas={"z1": "x^3"})
    assert [node.title for node in graph.nodes] == ["5 operations", "Mul", "Power", "Input"]
    assert [node.formula for node in graph.nodes] == ["", "", "x^3", ""]
    output, names, _ = least_squares()
    assert [node.title for node in read_graph(output, names).nodes] == [
        "Pow, Mean",
        "Mv, Sub",
        "Input",
    ]
    x = torch.tensor([0.7, -1.3], requires_grad=True)
    assert read_graph(Cube.apply(x).sum(), {}).output.title == "Cube, Sum"
    y = 3 * x
    y[0] = 2.5
    assert read_graph(y.sum(), {}).output.title == "Mul, CopySlices, Sum"


def test_nameless_leaf_tensors_are_numbered_in_forward_order_and_keep_their_value():
    a, b = (torch.tensor(v, requires_grad=True) for v in (0.7, -1.3))
    graph = read_graph(b * torch.sin(3 * a), {})
    assert [(node.name, node.value) for node in graph.nodes[1:]] == [("v_2", b), ("v_1", a)]
    assert [(e.target.name, e.source.name) for e in graph.edges] == [("f", "v_2"), ("f", "v_1")]


def test_detail_all_keeps_nameless_tensors_without_a_value():
    x = torch.tensor(0.7, requires_grad=True)
    graph = read_graph((3 * x).sin().exp(), {"x": x}, detail="all")
    assert [node.name for node in graph.nodes] == ["f", "v_2", "v_1", "x"]
    assert [node.title for node in graph.nodes] == ["Exp", "Sin", "Mul", "Input"]
    assert [node.value is None for node in graph.nodes] == [False, True, True, False]
    assert graph["v_1"].grad == graph["f"].value * torch.cos(3 * x)


@pytest.mark.parametrize("name", ["v_1", "v_2"])
def test_nameless_tensors_get_a_name_that_is_free(name):
    x, y = (torch.tensor(v, requires_grad=True) for v in (0.7, -1.3))
    graph = read_graph(x.sin() * y, {name: y}, detail="all")
    assert len({node.name for node in graph.nodes}) == len(graph.nodes) == 4


def test_values_are_copies():
    x = torch.tensor([0.7, -1.3], requires_grad=True)
    y = x**2
    output = (3 * y).sum()
    graph = read_graph(output, {"x": x, "y": y})
    with torch.no_grad():
        for tensor in (x, y, output):
            tensor += 5
    assert torch.equal(graph["x"].value, torch.tensor([0.7, -1.3]))
    assert torch.equal(graph["y"].value, torch.tensor([0.7, -1.3]) ** 2)
    assert_close(graph["f"].value, torch.tensor(3 * (0.49 + 1.69)))
    assert not any(node.value.requires_grad for node in graph.nodes)


LABELS = {
    ("z1", "x"): ("3x^2", torch.tensor(12.0)),
    ("z2", "x"): ("-3", -3),
    ("f", "z1"): ("1", 1.0),
}


def test_true_labels_are_written_on_their_edges():
    output, names, _ = polynomial()
    graph = read_graph(output, names, local=LABELS)
    labels = {(edge.target.name, edge.source.name): edge.label for edge in graph.edges}
    assert labels == {pair: text for pair, (text, _) in LABELS.items()} | {("f", "z2"): ""}


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        (("r", "w"), lambda X, r: X),
        (("r", "w"), lambda X, r: X.double().numpy()),
        (("f", "r"), lambda X, r: 2 * r / 3),
        (("f", "r"), lambda X, r: (2 * r / 3)[None]),
    ],
)
def test_a_label_may_be_worth_a_matrix_or_a_gradient(pair, value):
    output, names, _ = least_squares()
    X = torch.tensor([[0.5, 2.0], [-1.5, 0.3], [2.5, -0.7]])
    graph = read_graph(output, names, local={pair: ("label", value(X, names["r"]))})
    assert [edge.label for edge in graph.edges].count("label") == 1


@pytest.mark.parametrize(
    ("output", "value"), [(torch.sin, torch.cos), (lambda x: -3 * x, lambda x: -3)]
)
def test_a_label_may_be_worth_a_diagonal_or_a_multiple_of_the_identity(output, value):
    x = torch.tensor([[0.7, -1.3], [2.1, 0.4]], requires_grad=True)
    y = output(x)
    graph = read_graph(y.sum(), {"x": x, "y": y}, local={("y", "x"): ("label", value(x))})
    assert graph.edges[1].label == "label"


# Refusals: each says the cause and the remedy, and nothing is lost by it.


def no_graph():
    return torch.tensor([0.7, -1.3]).sum()


def detached():
    return torch.tensor([0.7], requires_grad=True).exp().sum().detach()


def vector():
    return torch.tensor([0.7, -1.3], requires_grad=True) ** 2


def freed():
    output = vector().sum()
    output.backward()
    return output


def freed_custom_function():
    output = Cube.apply(torch.tensor([0.7, -1.3], requires_grad=True)).sum()
    output.backward()
    return output


def changed_in_place():
    y = vector()
    output = y.exp().mul(y).sum()
    y += 1
    return output


def reentrant():
    x = torch.tensor([0.7, -1.3], requires_grad=True)
    return checkpoint(torch.sin, x, use_reentrant=True).sum()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (no_graph, "no graph to read.*requires_grad=True.*no_grad, or detached"),
        (detached, "no graph to read.*requires_grad=True.*no_grad, or detached"),
        (vector, r"has shape \(2,\): reduce it to one number.*or give.*seed"),
        (freed, "PowBackward0: .*freed.*compute the output anew.*retain_graph=True"),
        (freed_custom_function, "CubeBackward: .*freed.*compute the output anew"),
        (changed_in_place, "MulBackward0: .*changed in place; replace.* x = x \\+ 1"),
        (reentrant, "reentrant checkpointing.*use_reentrant=False"),
    ],
)
@pytest.mark.parametrize("read", [replay_backward, lambda output: read_graph(output, {})])
def test_what_cannot_be_replayed_is_refused(output, message, read):
    with pytest.raises(GraphError, match=message):
        read(output())


@pytest.mark.parametrize(
    ("output", "seed"),
    [
        (vector, torch.tensor([0.3, 0.4, 0.5])),
        (vector, torch.tensor(0.3)),
        (lambda: vector().sum(), torch.tensor([0.3])),
        (vector, torch.tensor([0.3, 0.4], device="meta")),
    ],
)
def test_a_seed_that_does_not_fit_the_output_is_refused(output, seed):
    with pytest.raises(
        GraphError, match=re.escape(f"seed is {tuple(seed.shape)} on {seed.device}")
    ):
        replay_backward(output(), seed)


def test_other_errors_of_a_function_are_its_own():
    x = torch.tensor([0.7, -1.3], requires_grad=True)
    output = Unsound.apply(x).sum()
    with pytest.raises(RuntimeError, match="my own mistake"):
        replay_backward(output)


@pytest.mark.parametrize("output", [vector, reentrant])
def test_a_refusal_loses_nothing(output):
    x = torch.tensor([0.7, -1.3], requires_grad=True)
    output = output() * x
    with pytest.raises(GraphError):
        replay_backward(output)
    output.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (lambda x, z1: {"c": torch.tensor(0.7)}, "^c is a constant.*leave it out"),
        (lambda x, z1: {"late": x**3}, "^late is not in .*computed anew"),
        (lambda x, z1: {"y": x}, "y and x are the same tensor: drop one"),
        (lambda x, z1: {"s": [z1.detach(), z1]}, "^s_1 is a constant"),
        (lambda x, z1: {"s": [z1]}, "s_1 and z1 are the same tensor"),
    ],
)
def test_names_that_mean_no_tensor_of_the_graph_are_refused(more, message):
    output, names, _ = polynomial()
    with pytest.raises(GraphError, match=message):
        read_graph(output, names | more(names["x"], names["z1"]))
    output.backward()
    assert names["x"].grad == 9


@pytest.mark.parametrize(
    ("names", "twice"),
    [
        (lambda x, z1, z2: {"f": z1}, "f"),
        (lambda x, z1, z2: {"s_1": x, "s": [z1, z2]}, "s_1"),
    ],
)
def test_one_name_for_two_tensors_is_refused(names, twice):
    output, tensors, _ = polynomial()
    with pytest.raises(GraphError, match=rf"two tensors .*\b{twice}\b"):
        read_graph(output, names(**tensors))


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ({"detail": "some"}, ValueError, '"named" or "all", not \'some\''),
        ({"titles": {"z3": "Power"}}, KeyError, "no tensor is named 'z3', only .*'z1'"),
        ({"formulas": {"z3": "x^3"}}, KeyError, "no tensor is named 'z3', only .*'z1'"),
        ({"local": {("x", "z1"): ("1", 1)}}, GraphError, "no dx/dz1 to label, only .*dz1/dx"),
        ({"local": {("z1", "x"): ("x2", 4)}}, GraphError, "'x2' of dz1/dx is worth 4, but .* 12"),
        ({"local": {("z1", "x"): ("3x", float("nan"))}}, GraphError, "worth nan"),
        ({"local": {("z1", "x"): ("3x2", [12.0, 12.0])}}, GraphError, r"worth \(12, 12\)"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_lost(option, error, message):
    output, names, _ = polynomial()
    with pytest.raises(error, match=message):
        read_graph(output, names, **option)
    output.backward()
    assert names["x"].grad == 9


def test_an_empty_list_names_nothing():
    output, names, _ = polynomial()
    graph = read_graph(output, names | {"s": []})
    assert [node.name for node in graph.nodes] == ["f", "z2", "z1", "x"]


@pytest.mark.parametrize(
    "label",
    [
        lambda A: A.T,
        lambda A: -A,
        lambda A: 1.01 * A,
        lambda A: A[:2],
        lambda A: A[0],
        lambda A: A.diagonal(),
        lambda A: 0.7,
    ],
)
def test_a_label_that_is_not_the_jacobian_is_refused(label):
    A = torch.tensor([[0.7, -1.3, 0.2], [2.1, 0.4, 1.1], [-0.6, 1.9, 0.3]])
    x = torch.tensor([1.7, 0.6, -0.8], requires_grad=True)
    y = A @ x
    with pytest.raises(GraphError, match="label 'A' of dy/dx is worth .*3×3 matrix"):
        read_graph(y.norm(), {"x": x, "y": y}, local={("y", "x"): ("A", label(A))})
    assert (
        read_graph(y.norm(), {"x": x, "y": y}, local={("y", "x"): ("A", A)}).edges[1].label == "A"
    )


def test_a_jacobian_beyond_the_limit_is_refused_and_one_at_the_limit_is_not():
    side = int(MAX_JACOBIAN**0.5)
    for n, too_large in [
        (side, nullcontext()),
        (side + 1, pytest.raises(GraphError, match="smaller")),
    ]:
        x = torch.full((n,), 0.7, requires_grad=True)
        y = 3 * x
        with too_large:
            assert read_graph(y.sum(), {"x": x, "y": y}).edges[1].local.numel() == MAX_JACOBIAN


# What is printed.

TABLE = """\
Add: f = 2
    incoming  df/df = 1
    local     df/dz1 = 1, so df/dz1 += 1
    local     df/dz2 = 1, so df/dz2 += 1
Mul: z2 = -6
    incoming  df/dz2 = 1
    local     dz2/dx = -3, so df/dx += -3
Power: z1 = 8
    incoming  df/dz1 = 1
    local     dz1/dx = 3x^2 = 12, so df/dx += 12
Input: x = 2
    incoming  df/dx = -3 + 12 = 9"""


def test_backward_table_of_the_polynomial():
    output, names, _ = polynomial()
    graph = read_graph(
        output, names, titles={"z1": "Power"}, local={("z1", "x"): ("3x^2", 3 * names["x"] ** 2)}
    )
    assert backward_table(graph) == TABLE


def test_backward_table_of_least_squares():
    output, names, _ = least_squares()
    X = torch.tensor([[0.5, 2.0], [-1.5, 0.3], [2.5, -0.7]])
    r = X @ names["w"].detach() - torch.tensor([0.4, -2.0, 1.7])
    grad_r, grad_w = short(2 * r / 3), short(2 * X.T @ r / 3)
    assert backward_table(read_graph(output, names)).splitlines() == [
        f"Pow, Mean: f = {short(r.square().mean())}",
        "    incoming  df/df = 1",
        f"    local     df/dr = {grad_r}, so df/dr += {grad_r}",
        f"Mv, Sub: r = {short(r)}",
        f"    incoming  df/dr = {grad_r}",
        f"    local     dr/dw = 3×2 matrix, so df/dw += {grad_w}",
        "Input: w = (1.3, -0.6)",
        f"    incoming  df/dw = {grad_w}",
    ]


def test_backward_table_leaves_out_a_value_it_does_not_have():
    x = torch.tensor(0.7, requires_grad=True)
    table = backward_table(read_graph((3 * x).sin(), {"x": x}, detail="all"))
    assert "\nMul: v_1\n    incoming" in table


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (torch.tensor(1.23456), "1.235"),
        (torch.tensor([[-3.0]]), "-3"),
        (torch.tensor([1.23456, -2, 3, 4]), "(1.23, -2, 3, 4)"),
        (torch.tensor([[0.5, 2]]), "(0.5, 2)"),
        (torch.arange(5.0), "5 numbers"),
        (torch.eye(3), "I"),
        (-0.5 * torch.eye(2), "-0.5 I"),
        (torch.tensor([[2.0, 0], [0, 3]]), "2×2 matrix"),
        (torch.ones(3, 2), "3×2 matrix"),
        (torch.ones(2, 3, 4), "2×3×4 numbers"),
        (torch.ones(2, 2, 3), "2×2×3 numbers"),
    ],
)
def test_short_is_a_few_characters(tensor, text):
    assert short(tensor) == text


def test_an_unknown_name_is_told_with_those_there_are():
    output, names, _ = polynomial()
    graph = read_graph(output, names)
    assert isinstance(graph, Graph)
    with pytest.raises(KeyError, match="no tensor is named 'y', only .*'f', 'z2', 'z1', 'x'"):
        graph["y"]


# Bytes: every count follows from the shapes.

N, FLOAT = 1000, 4
ROW = 512 * 256 * FLOAT  # one layer's activations


def square_of_sine(x):
    y = x.sin()  # saves x, an input
    return (y * y).sum()  # saves y, twice


def view_of_exponential(x):
    y = x.exp()  # saves its result
    return (y[: N // 4] * y.view(4, -1)[1]).sum()  # saves two views of it


def sigmoid_chain(x):
    for _ in range(3):
        x = x.sigmoid()
    return x.sum()


def small_view(x):
    return (x.sin()[:1].sqrt() * 2).sum()  # keeps one number: the root's own memory


def view_of_much(x):
    return x.sin()[:1].square().sum()  # keeps all N numbers for the sake of one


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (torch.sum, 0),
        (lambda x: (x * x).sum(), 0),
        (lambda x: x[3:].view(-1).sin().sum(), 0),
        (torch.exp, N),
        (square_of_sine, N),
        (sigmoid_chain, 3 * N),
        (view_of_exponential, N),
        (small_view, 1),
        (view_of_much, N),
        (lambda x: (x.exp() * x.sin()).sum(), 2 * N),
        (lambda x: x.exp().detach().sin().sum(), 0),
    ],
)
def test_saved_bytes_counts_each_memory_once_and_no_input(function, count):
    x = torch.linspace(0.2, 0.9, N, requires_grad=True)
    assert saved_bytes(function, x) == count * FLOAT


def test_saved_bytes_leaves_out_the_memory_that_an_input_is_a_view_of():
    x = torch.linspace(0.2, 0.9, N, requires_grad=True)
    assert saved_bytes(torch.sin, x[3:]) == saved_bytes(lambda v: v[5:].sin(), x[3:]) == 0


def test_saved_bytes_follows_the_precision():
    x = torch.linspace(0.2, 0.9, N, dtype=torch.float64, requires_grad=True)
    assert saved_bytes(torch.exp, x) == 8 * N


@pytest.fixture(scope="module")
def stack():
    layers = [m for _ in range(16) for m in (nn.Linear(256, 256), nn.Tanh())]
    return nn.Sequential(*layers), torch.linspace(-1, 1, 512 * 256).view(512, 256)


@pytest.mark.parametrize(
    ("mode", "rows"), [(torch.enable_grad, 16), (torch.no_grad, 0), (torch.inference_mode, 0)]
)
def test_saved_bytes_of_a_stack_of_layers(stack, mode, rows):
    model, X = stack
    with mode():
        assert saved_bytes(model, X) == rows * ROW
        assert saved_bytes(lambda model, X: model(X).sum(), model, X) == rows * ROW


def test_saved_bytes_of_a_checkpointed_stack(stack):
    def checkpointed(model, X):
        return checkpoint_sequential(model, 4, X, use_reentrant=False)

    # the inputs of parts 2 to 4, and the four layers of the last part, which is not checkpointed
    assert saved_bytes(checkpointed, *stack) == (3 + 4) * ROW


def test_saved_bytes_leaves_out_buffers():
    model = nn.BatchNorm1d(N).eval()
    X = torch.linspace(-1, 1, 2 * N).view(2, N)
    assert saved_bytes(model, X) == 0
    assert saved_bytes(lambda X: model(X), X) == 3 * N * FLOAT  # weight, mean and variance


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_losses_in_a_list_keep_their_graphs_unless_detached(steps):
    def losses(x, keep=lambda loss: loss):
        return [keep(x.exp().sum()) for _ in range(steps)]

    x = torch.linspace(0.2, 0.9, N, requires_grad=True)
    assert saved_bytes(losses, x) == steps * N * FLOAT
    assert saved_bytes(lambda x: losses(x, torch.Tensor.detach), x) == 0
    assert saved_bytes(lambda x: losses(x, torch.Tensor.item), x) == 0


def test_a_training_step_leaves_nothing():
    def step(x):
        loss = x.exp().sum()
        loss.backward()
        return loss

    x = torch.linspace(0.2, 0.9, N, requires_grad=True)
    assert saved_bytes(step, x) == 0
    assert_close(x.grad, x.detach().exp())


def test_saved_bytes_keeps_nothing_alive():
    results = []

    def exponential(x):
        y = x.exp()
        results.append(weakref.ref(y))
        return y

    gc.disable()
    try:
        assert (
            saved_bytes(exponential, torch.linspace(0.2, 0.9, N, requires_grad=True)) == N * FLOAT
        )
        assert results[0]() is None
    finally:
        gc.enable()


# Hooks, last: see the top of this file.


def hook_on_a_leaf(x, model):
    return model(x.sin()).sum(), x.register_hook(lambda g: 2 * g)


def hook_on_a_parameter(x, model):
    return model(x.sin()).sum(), model.bias.register_hook(lambda g: 2 * g)


def hook_on_an_intermediate_tensor(x, model):
    y = x.sin()
    handle = y.register_hook(lambda g: 2 * g)
    return model(y).sum() + y.sum(), handle, y


def hook_on_the_output(x, model):
    output = model(x.sin()).sum()
    return output, output.register_hook(lambda g: 2 * g)


def hook_on_a_module(x, model):
    handle = model.register_full_backward_hook(lambda module, given, got: None)
    return model(x.sin()).sum(), handle


@pytest.mark.parametrize(
    "hooked",
    [
        hook_on_a_leaf,
        hook_on_a_parameter,
        hook_on_an_intermediate_tensor,
        hook_on_the_output,
        hook_on_a_module,
    ],
)
def test_hooks_are_refused_until_they_are_removed(hooked):
    x = torch.tensor([0.7, -1.3, 2.1], requires_grad=True)
    model = nn.Linear(3, 2)
    output, handle, *alive = hooked(x, model)
    with pytest.raises(GraphError, match="hooks are not replayed: remove it"):
        replay_backward(output)
    handle.remove()
    output = model(x.sin()).sum() if hooked is hook_on_a_module else output
    assert replay_is_exact(output, [x, *model.parameters()])


def test_a_hook_elsewhere_and_a_retained_gradient_are_fine():
    constant = torch.tensor([0.7, -1.3], requires_grad=True)
    constant.register_hook(lambda g: 2 * g)
    constant.requires_grad_(False)
    x = torch.tensor([0.7, -1.3], requires_grad=True)
    y = x.sin()
    y.retain_grad()
    other = y.detach().requires_grad_() ** 2
    other.register_hook(lambda g: 2 * g)
    assert replay_is_exact((constant * y).sum(), [x])


@pytest.mark.parametrize("seed", range(5))
def test_operations_are_asked_in_the_order_of_pytorch(seed):
    output, _, gradient = random_graph(seed, [torch.float32])
    steps, visited = replay_backward(output, gradient).steps, []
    operations = [step.node for step in steps if not hasattr(step.node, "variable")]
    for node in operations:
        node.register_prehook(lambda _, node=node: visited.append(node))
    output.backward(gradient)
    assert visited == operations
