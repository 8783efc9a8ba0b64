"""Read PyTorch's own autograd graph, replay its backward pass, count the bytes that it saves.

Notebook 2 builds such a replay. This one also handles nodes with several outputs, mixed number
types, and custom functions, and it visits the nodes in PyTorch's order.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import compress
from weakref import WeakSet

import torch
from networkx import DiGraph, lexicographical_topological_sort
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge, saved_tensors_hooks

from utils.checks import relative_error

Key = tuple[Node, int]  # a tensor as its graph knows it: output number i of a node


class GraphError(RuntimeError):
    """The graph cannot be read or replayed. The message says why, and what to do."""


@dataclass(eq=False)
class GraphNode:
    """A tensor of the graph: its value, and its gradient with the parts that add up to it."""

    name: str
    title: str
    formula: str
    value: Tensor
    grad: Tensor
    parts: list[Tensor] = field(default_factory=list)


@dataclass(eq=False)
class GraphEdge:
    """A use of `source` in computing `target`; it adds `sent` to the gradient of the source.

    `local` is the Jacobian, of shape (target.numel(), source.numel()), of what is computed between
    the two, with all other named tensors held fixed.
    """

    source: GraphNode
    target: GraphNode
    local: Tensor
    sent: Tensor
    label: str = ""


@dataclass
class Graph:
    """Tensors and their uses, in the order in which the backward pass visits them."""

    nodes: list[GraphNode]
    edges: list[GraphEdge]

    @property
    def output(self) -> GraphNode:
        return self.nodes[0]

    def __getitem__(self, name: str) -> GraphNode:
        return {node.name: node for node in self.nodes}[name]


@torch.no_grad()
def replay_backward(output: Tensor) -> dict[Tensor, Tensor]:
    """Replay `output.backward()` without calling it, and return the gradients of the leaf tensors.

    Each of PyTorch's nodes computes its own vector-Jacobian product, in the order of PyTorch's
    engine on one CPU thread, so the gradients are equal bit for bit. Hooks are not replayed, nor
    reentrant checkpoints, nor a custom Function's `set_materialize_grads(False)`. Raises
    GraphError if `output` is not one real number with a graph, and PyTorch's RuntimeError if its
    graph was freed or changed in place. Source: torch/csrc/autograd/node.h, "Sequence Number".
    """
    gradients = _gradients(output).items()
    return {node.variable: g for (node, _), g in gradients if hasattr(node, "variable")}


@torch.no_grad()
def read_graph(
    output: Tensor,
    names: Mapping[str, Tensor],
    titles: Mapping[str, str] | None = None,
    formulas: Mapping[str, str] | None = None,
    local: Mapping[tuple[str, str], tuple[str, Tensor | float]] | None = None,
) -> Graph:
    """Read the graph of a single number. It shows the output and the tensors that you name.

    Without a name, the output is called f. `titles` and `formulas` give texts to names.
    `local={("z1", "x"): ("3x^2", 3 * x**2)}` labels the edge from x to z1. The value must equal the
    true Jacobian at this point to 0.01 %; the text is not checked. Raises errors as
    `replay_backward` does, and GraphError for wrong names and labels.
    """
    titles, formulas = titles or {}, formulas or {}
    gradients, nodes = _gradients(output), {}
    tensors = {_key(name, t): (name, t) for name, t in [("f", output), *names.items()]}
    for key in (key for key in gradients if key in tensors):
        name, tensor = tensors[key]
        texts = name, titles.get(name, ""), formulas.get(name, "")
        nodes[key] = GraphNode(*texts, tensor.detach().clone(), gradients[key])
    shown = [node.name for node in nodes.values()]
    if wrong := {name for name in {*names, *titles, *formulas} if shown.count(name) != 1}:
        raise GraphError(f"each name is for one tensor behind the output, unlike {sorted(wrong)}")
    graph = Graph(list(nodes.values()), list(_edges(nodes)))
    _label(graph, local or {})
    return graph


def backward_table(graph: Graph) -> str:
    """Return the backward pass in words and numbers, a paragraph for each tensor."""
    f, lines = graph.output.name, []
    for node in graph.nodes:
        lines.append(f"{node.title}: {node.name} = {short(node.value)}")
        total = " + ".join(map(short, node.parts)) + " = " if len(node.parts) > 1 else ""
        lines.append(f"    incoming  d{f}/d{node.name} = {total}{short(node.grad)}")
        for edge in (e for e in graph.edges if e.target is node):
            x, label = edge.source.name, f"{edge.label} = " if edge.label else ""
            derivative = f"∂{node.name}/∂{x} = {label}{short(edge.local)}"
            lines.append(f"    local     {derivative}, so d{f}/d{x} += {short(edge.sent)}")
    return "\n".join(lines)


def saved_bytes(function: Callable, *inputs: object) -> int:
    """Count the bytes that the graph of `function(*inputs)` saves for its backward pass.

    Memory that is saved twice counts once. Memory that exists before the call does not count:
    inputs, parameters, data that the function uses. To tell it apart, the function is called
    twice, because only what a call makes is new each time. Not seen are the nodes, and what a
    custom Function keeps outside `save_for_backward`. Source: PyTorch, "Hooks for saved tensors".
    """

    def call() -> tuple[object, dict[int, int]]:
        saved = WeakSet()  # it forgets a tensor when the node that saved it is gone

        def pack(tensor: Tensor) -> Tensor:
            saved.add(tensor := tensor.detach())
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            result = function(*inputs)  # it keeps its graph alive
        memory = [tensor.untyped_storage() for tensor in saved]
        return result, {piece.data_ptr(): piece.nbytes() for piece in memory}

    (_result, sizes), (_another, sizes_again) = call(), call()
    return sum(size for address, size in sizes.items() if address not in sizes_again)


def short(t: Tensor) -> str:
    """Return a tensor in a few characters: a number, a short vector, I, or its shape."""
    t = t.flatten() if t.ndim == 2 and len(t) == 1 else t  # a row is a vector
    if t.numel() == 1:
        return f"{t.item():.4g}"
    if t.ndim == 1 and len(t) <= 4:
        return f"({', '.join(f'{x:.3g}' for x in t.tolist())})"
    if t.ndim == 2 and len(t) == t.shape[1] and torch.equal(t, torch.eye(len(t)).to(t)):
        return "I"
    return "×".join(map(str, t.shape)) + (" matrix" if t.ndim == 2 else " numbers")


def _key(name: str, tensor: Tensor) -> Key:
    """Return the place of a tensor in its graph; raise GraphError, with advice, if it has none."""
    if not getattr(tensor, "requires_grad", False) or tensor.is_complex():
        advice = "give a real tensor, before .item() or .detach(), computed with requires_grad"
        raise GraphError(f"{name} has no graph: {advice}")
    return get_gradient_edge(tensor)[:2]


def _gradients(output: Tensor) -> dict[Key, Tensor]:
    """Return the gradient of one number with respect to all that is behind it."""
    start = _key("the output", output)
    if output.numel() != 1:
        raise GraphError(f"the output has shape {tuple(output.shape)}: reduce it, as by .sum()")
    return _walk(start, torch.ones_like(output))


def _edges(nodes: Mapping[Key, GraphNode]) -> Iterator[GraphEdge]:
    """Yield the uses between `nodes`. Fill in their titles and the parts of their gradients."""
    for key, target in nodes.items():
        others = nodes.keys() - {key}
        walked = _walk(key, target.grad, others)
        target.title = target.title or _operations(k for k in walked if k not in others)
        sent = {source: g for source, g in walked.items() if source in others}
        if sent and target.grad.numel() > 1000:
            raise GraphError(f"{target.name} is too large for its Jacobian: do not name it")
        units = torch.eye(target.grad.numel() if sent else 0).to(target.grad)
        rows = [_walk(key, unit.view_as(target.grad), others) for unit in units]
        for source, g in sent.items():
            nodes[source].parts.append(g)
            local = torch.stack([row.get(source, 0 * g).flatten() for row in rows])
            yield GraphEdge(nodes[source], target, local, g)


def _operations(keys: Iterable[Key]) -> str:
    """Return PyTorch's names of the operations in forward order, or how many they are."""
    nodes = [node for node in dict(keys) if not hasattr(node, "variable")]  # each node once
    names = [re.sub(r".*::|Backward\d*$", "", node.name()) for node in reversed(nodes)]
    return f"{len(names)} operations" if len(names) > 3 else ", ".join(names) or "Input"


def _label(graph: Graph, local: Mapping[tuple[str, str], tuple[str, Tensor | float]]) -> None:
    """Write the labels on the edges, once their values have been found equal to the Jacobians."""
    edges = {(edge.target.name, edge.source.name): edge for edge in graph.edges}
    for pair, (text, value) in local.items():
        if pair not in edges:
            raise GraphError(f"this graph has no edge {pair} to label, only {list(edges)}")
        true = edges[pair].local
        value = torch.as_tensor(value).to(true)
        fits = value.numel() == true.numel()
        if not (fits and relative_error(value.reshape_as(true), true) < 1e-4):
            told = f"{short(value)}, but PyTorch's local derivative is {short(true)}"
            raise GraphError(f"the label {text!r} of ∂{pair[0]}/∂{pair[1]} has the value {told}")
        edges[pair].label = text


def _walk(start: Key, gradient: Tensor, stop: Set[Key] = frozenset()) -> dict[Key, Tensor]:
    """Return what gathers at each output of a node, in the order in which PyTorch visits the nodes.

    A node is ready after all the nodes that use its results. Of several that are ready, leaves
    come first, and then the operation that was recorded last. What reaches `stop` stays there.
    """
    sums, uses, found = {start: gradient}, DiGraph(), [start[0]]
    uses.add_node(start[0])
    for node in found:  # the list grows while we walk along it
        following = [key[0] for key in node.next_functions if key[0] and key not in stop]
        found += [other for other in following if other not in uses]
        uses.add_edges_from((node, other) for other in following)
    for node in lexicographical_topological_sort(uses, lambda node: -node._sequence_nr()):
        keys = [(node, i) for i in range(len(node._input_metadata))]
        arrived = {key: sums.pop(key) for key in keys if key in sums and key not in stop}
        sums |= arrived  # now they are in the order of the visits
        for key, g in _send(node, [arrived.get(key) for key in keys]):
            sums[key] = sums[key] + g if key in sums else g
    return {key: g.to_dense() for key, g in sums.items()}


def _send(node: Node, incoming: Sequence[Tensor | None]) -> Iterator[tuple[Key, Tensor]]:
    """Yield what a node sends to each next node: incoming gradient times local derivative."""
    if hasattr(node, "variable"):
        return  # a leaf sends nothing, and its node would write to `.grad`
    needs = [target is not None for target, _ in node.next_functions]
    apply, following = node, compress(node.next_functions, needs)
    if not callable(node):  # a custom Function expects zeros, and answers for all its arguments
        zeros = [torch.zeros(m.shape).to(m.device, m.dtype) for m in node._input_metadata]
        incoming = [z if g is None else g for g, z in zip(incoming, zeros, strict=True)]
        apply, needs = node.apply, node.needs_input_grad
    answers = apply(*incoming)
    answers = answers if isinstance(answers, tuple) else (answers,)
    for (target, i), g in zip(following, compress(answers, needs), strict=True):
        if g is not None:
            like = target._input_metadata[i]  # undo broadcasting and a change of type
            g = g if list(g.shape) == like.shape else g.sum_to_size(like.shape)
            yield (target, i), g.to(like.device, like.dtype)
