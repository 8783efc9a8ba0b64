"""PyTorch's own autograd graph: read, replayed and measured without ever calling `backward`.

Everything here asks PyTorch's nodes for their local rules one at a time. It is a microscope, not
an engine: no `.grad` is touched, and what a node saved stays saved.
"""

import gc
import heapq
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge, saved_tensors_hooks
from torch.utils.hooks import RemovableHandle

from utils.checks import relative_error

MAX_JACOBIAN = 10_000  # entries of the local Jacobians of one tensor
CAUSES = {  # what PyTorch's own errors say of a node that cannot be asked: why, and what to do
    "a second time": "an earlier backward pass freed what it had saved; compute the output anew, "
    "or give that pass retain_graph=True",
    "inplace operation": "a value it had saved was changed in place; replace the in-place "
    "operation, such as x += 1, by one that makes a new tensor, x = x + 1",
}
Key = tuple[Node, int]  # a tensor as its graph knows it: output number i of a node


class GraphError(RuntimeError):
    """The graph cannot be read or replayed; the message says why, and what to do."""


@dataclass
class Step:
    """One visit of the backward pass: what has arrived at a node, and what the node sends on."""

    node: Node
    incoming: list[Tensor | None]  # one accumulated gradient per output of the node
    sent: list[tuple[Key, Tensor, Tensor]] = field(default_factory=list)  # to, +=, sum so far


@dataclass
class Replay:
    """The steps of a backward pass in PyTorch's order, and the gradient of every leaf tensor."""

    steps: list[Step]
    grads: dict[Tensor, Tensor]


@dataclass
class GraphNode:
    """A tensor of the graph: what it is, its value, and its gradient with the parts it is made of.

    A tensor that has no name in Python has no value here: the graph does not keep it.
    """

    name: str
    title: str
    formula: str
    value: Tensor | None
    grad: Tensor
    parts: list[Tensor] = field(default_factory=list)


@dataclass
class GraphEdge:
    """A use of `source` in computing `target`, with everything PyTorch does between the two.

    `local` is the Jacobian d target / d source, of shape (target.numel(), source.numel());
    `sent` is what the backward pass adds into the gradient of `source` along this edge.
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
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(f"no tensor is named {name!r}, only {[n.name for n in self.nodes]}")


def replay_backward(output: Tensor, seed: Tensor | None = None) -> Replay:
    """Return the steps and gradients of `output.backward(seed)`, without calling it.

    Each of PyTorch's own nodes computes its vector-Jacobian product, in the engine's own order,
    so that the gradients are equal bit for bit. `seed` has the shape of `output`; for a single
    number it defaults to 1. Raises GraphError where there is no graph, where it has been freed or
    a saved value changed, and where hooks or reentrant checkpoints act that it cannot replay.
    Not seen: hooks on nodes, or on tensors that are no longer alive, and a Function's
    `set_materialize_grads(False)`; PyTorch's nodes do not tell.
    Source: PyTorch documentation, "Autograd mechanics".
    """
    root = _root(output)
    _refuse_unplayable(_backward_order(root[0]))
    if seed is None and output.numel() != 1:
        raise GraphError(
            f"the output has shape {tuple(output.shape)}: reduce it to one number, for example "
            "by .sum(), or give replay_backward a seed of that shape"
        )
    seed = torch.ones_like(output) if seed is None else seed
    if seed.shape != output.shape or seed.device != output.device:
        raise GraphError(
            f"the seed is {tuple(seed.shape)} on {seed.device}, the output {tuple(output.shape)} "
            f"on {output.device}: both must agree"
        )
    steps, sums = _walk(root, seed)
    leaves = [step.node for step in steps if _is_leaf(step.node)]
    return Replay(steps, {leaf.variable: sums[leaf, 0] for leaf in leaves if (leaf, 0) in sums})


def read_graph(
    output: Tensor,
    names: Mapping[str, Tensor | Sequence[Tensor]],
    *,
    detail: str = "named",
    titles: Mapping[str, str] | None = None,
    formulas: Mapping[str, str] | None = None,
    local: Mapping[tuple[str, str], tuple[str, Tensor | float]] | None = None,
) -> Graph:
    """Return the graph of a single number between the tensors in `names` and all leaf tensors.

    A list of tensors under one name, as a loop makes them, gets numbers: s_1, s_2 and so on. The
    output is called f if it has no name. With `detail="all"`, nameless tensors are kept as well.
    `titles` and `formulas` belong to names. `local` labels an edge:
    `{("z1", "x"): ("3x^2", 3 * x**2)}` for dz1/dx; the value is compared with the true Jacobian.
    Raises GraphError as `replay_backward` does, for names that are not in this graph, for a
    Jacobian of more than MAX_JACOBIAN entries, and for a label that is not the true derivative.
    """
    if detail not in ("named", "all"):
        raise ValueError(f'detail is "named" or "all", not {detail!r}')
    steps = replay_backward(output).steps
    grads = {(s.node, i): g for s in steps for i, g in enumerate(s.incoming) if g is not None}
    tensors = {_root(output): ("f", output)} | _keys(names, grads)
    taken = [name for name, _ in tensors.values()]
    if twice := [name for name in taken if taken.count(name) > 1]:
        raise GraphError(f"two tensors are named {twice[0]} (the output is f if it has no name)")
    free = (name for i in count(1) if (name := f"v_{i}") not in taken)
    for key in reversed(grads):  # the nameless, numbered in the order of the forward pass
        if key not in tensors and (_is_leaf(key[0]) or detail == "all"):
            tensors[key] = next(free), getattr(key[0], "variable", None)
    nodes = {}
    for key in (key for key in grads if key in tensors):
        name, value = tensors[key]
        value = None if value is None else value.detach().clone()
        title, formula = (titles or {}).get(name, ""), (formulas or {}).get(name, "")
        nodes[key] = GraphNode(name, title, formula, value, grads[key])
    graph = Graph(list(nodes.values()), list(_edges(nodes)))
    for name in {**(titles or {}), **(formulas or {})}:
        graph[name]  # raises KeyError, and says which names there are
    _label(graph, local or {})
    return graph


def backward_table(graph: Graph) -> str:
    """Return the backward pass in words and numbers: a paragraph for each tensor, as visited.

    Each says which gradient has arrived, and per input the local derivative, the product and the
    accumulator that it is added to.
    """
    f, lines = graph.output.name, []
    for node in graph.nodes:
        value = "" if node.value is None else f" = {short(node.value)}"
        lines.append(f"{node.title}: {node.name}{value}")
        parts = " + ".join(map(short, node.parts)) if len(node.parts) > 1 else ""
        arrived = f"{parts} = {short(node.grad)}" if parts else short(node.grad)
        lines.append(f"    incoming  d{f}/d{node.name} = {arrived}")
        for edge in (e for e in graph.edges if e.target is node):
            x = edge.source.name
            what = f"{edge.label} = {short(edge.local)}" if edge.label else short(edge.local)
            lines.append(
                f"    local     d{node.name}/d{x} = {what}, so d{f}/d{x} += {short(edge.sent)}"
            )
    return "\n".join(lines)


def saved_bytes(function: Callable, *inputs: Tensor | nn.Module) -> int:
    """Return how many bytes the graph of `function(*inputs)` keeps for its backward pass.

    Each piece of memory counts once, however often it is saved; what belongs to the inputs, to
    parameters and buffers is left out, for it would be there anyway. Memory that a custom
    Function keeps outside `save_for_backward` is not seen. Source: PyTorch documentation,
    "Hooks for saved tensors".
    """
    ours = [x for x in inputs if isinstance(x, Tensor)]
    for module in (m for m in (function, *inputs) if isinstance(m, nn.Module)):
        ours += [*module.parameters(), *module.buffers()]
    kept = WeakSet()  # what is saved lives as long as the node that saved it

    def pack(tensor: Tensor) -> Tensor:
        kept.add(saved := tensor.detach())
        return saved

    with saved_tensors_hooks(pack, lambda saved: saved):
        result = function(*inputs)  # as long as there is a result, it keeps its graph
    sizes = {(m := t.untyped_storage()).data_ptr(): m.nbytes() for t in kept}
    del result
    return sum(sizes[at] for at in sizes.keys() - {t.untyped_storage().data_ptr() for t in ours})


def short(t: Tensor) -> str:
    """Return a tensor in a few characters: a number, a short vector, I or c I, or its shape."""
    if t.numel() == 1:
        return f"{t.item():.4g}"
    if t.ndim == 1 or t.ndim == 2 and len(t) == 1:
        numbers = [f"{x:.3g}" for x in t.flatten().tolist()]
        return f"({', '.join(numbers)})" if len(numbers) <= 4 else f"{len(numbers)} numbers"
    square = t.ndim == 2 and t.shape[0] == t.shape[1]
    if square and t.any() and torch.equal(t, t[0, 0] * torch.eye(len(t)).to(t)):
        return "I" if t[0, 0] == 1 else f"{t[0, 0].item():.4g} I"
    return "×".join(map(str, t.shape)) + (" matrix" if t.ndim == 2 else " numbers")


def _keys(
    names: Mapping[str, Tensor | Sequence[Tensor]], known: Collection[Key]
) -> dict[Key, tuple[str, Tensor]]:
    """Return name and tensor of each key that `names` speaks of; refuse what is not `known`."""
    pairs = []
    for name, given in names.items():
        single = isinstance(given, Tensor)
        pairs += [(name, given)] if single else [(f"{name}_{i}", t) for i, t in enumerate(given, 1)]
    found: dict[Key, tuple[str, Tensor]] = {}
    for name, tensor in pairs:
        if not tensor.requires_grad:
            raise GraphError(
                f"{name} is a constant (it does not require a gradient), and PyTorch has no node "
                "for it: leave it out of the names"
            )
        key = _root(tensor)
        if key not in known:
            raise GraphError(
                f"{name} is not in the output's graph: was it computed anew, or after the output?"
            )
        if key in found:
            raise GraphError(f"{name} and {found[key][0]} are the same tensor: drop one name")
        found[key] = name, tensor
    return found


def _edges(nodes: Mapping[Key, GraphNode]) -> Iterator[GraphEdge]:
    """Yield the uses between `nodes`; fill in the titles, and the parts of the gradients."""
    for key, target in nodes.items():
        steps, sums = _walk(key, target.grad, nodes)
        sent = {k: g for k, g in sums.items() if k in nodes and k != key}
        target.title = target.title or _operations([step.node for step in steps if step.sent])
        rows, columns = target.grad.numel(), sum(g.numel() for g in sent.values())
        if target.grad.is_complex():
            raise GraphError(
                f"{target.name} is complex, so its derivative is not one matrix: name real tensors"
            )
        if rows * columns > MAX_JACOBIAN:
            raise GraphError(
                f"the Jacobian of {target.name} has {rows} × {columns} entries, more than "
                f"{MAX_JACOBIAN}: read the graph of a smaller example, its form is the same"
            )
        jacobians = {k: g.new_zeros(rows, g.numel()) for k, g in sent.items()}
        for i in range(rows if sent else 0):
            unit = target.grad.new_zeros(rows)
            unit[i] = 1
            pulled = _walk(key, unit.view(target.grad.shape), nodes)[1]
            for k in jacobians.keys() & pulled.keys():
                jacobians[k][i] = pulled[k].flatten()
        for k, g in sent.items():
            nodes[k].parts.append(g)
            yield GraphEdge(nodes[k], target, jacobians[k], g)


def _operations(nodes: Sequence[Node]) -> str:
    """Return PyTorch's names of the operations in forward order, or how many they are."""
    names = [re.sub(r"Backward\d*$", "", node.name().split("::")[-1]) for node in nodes[::-1]]
    return f"{len(names)} operations" if len(names) > 3 else ", ".join(names) or "Input"


def _label(graph: Graph, local: Mapping[tuple[str, str], tuple[str, Tensor | float]]) -> None:
    """Write the labels on the edges, once each has been found equal to the true Jacobian."""
    edges = {(edge.target.name, edge.source.name): edge for edge in graph.edges}
    for pair, (text, value) in local.items():
        name = f"d{pair[0]}/d{pair[1]}"
        if pair not in edges:
            known = ", ".join(f"d{a}/d{b}" for a, b in edges)
            raise GraphError(f"this graph has no {name} to label, only {known}")
        true = edges[pair].local
        value = torch.as_tensor(value).detach().to(true)
        if value.numel() == true.numel():
            value = value.reshape(true.shape)
        elif value.numel() in (1, true.shape[1]):  # c I, or a diagonal
            value = value.flatten() * torch.eye(*true.shape).to(true)
        if value.shape != true.shape or not relative_error(value, true) < 1e-3:
            raise GraphError(
                f"the label {text!r} of {name} is worth {short(value)}, but the local derivative "
                f"that PyTorch uses is {short(true)}"
            )
        edges[pair].label = text


# From here on: how a node is asked, and in which order.


def _is_leaf(node: Node) -> bool:
    """Return whether a path ends here: the node of a leaf tensor computes nothing."""
    return hasattr(node, "variable")


def _root(tensor: Tensor) -> Key:
    if not isinstance(tensor, Tensor) or not tensor.requires_grad:
        raise GraphError(
            "there is no graph to read: the output was not computed from a tensor with "
            "requires_grad=True, or it was computed under no_grad, or detached"
        )
    return tuple(get_gradient_edge(tensor)[:2])


def _backward_order(root: Node, cuts: Collection[Key] = ()) -> list[Node]:
    """Return the nodes that `root` leads to, each after all nodes that use its result.

    Among those that are ready, a leaf goes first, then the operation recorded last, as in
    PyTorch's engine: sums are then rounded alike. Nothing behind a node is followed if all its
    outputs are in `cuts`.
    """

    def parents(node: Node) -> list[Node]:
        blocked = all((node, i) in cuts for i in range(len(node._input_metadata)))
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        return [] if blocked and node is not root else parents

    uses, stack = Counter(), [root]
    while stack:
        for parent in parents(stack.pop()):
            if not uses[parent]:
                stack.append(parent)
            uses[parent] += 1
    order, ready, ties = [], [(0, 0, root)], count(1)
    while ready:
        order.append(heapq.heappop(ready)[2])
        for parent in parents(order[-1]):
            uses[parent] -= 1
            if not uses[parent]:
                heapq.heappush(ready, (-parent._sequence_nr(), next(ties), parent))
    return order


def _walk(
    root: Key, seed: Tensor, cuts: Collection[Key] = ()
) -> tuple[list[Step], dict[Key, Tensor]]:
    """Return the visits of a backward pass from `root`, and what all accumulators hold at its end.

    What reaches a tensor in `cuts` stays there.
    """
    steps, sums = [], {root: seed.detach()}  # the accumulators: all empty but the first
    for node in _backward_order(root[0], cuts):
        incoming = [sums.get((node, i)) for i in range(len(node._input_metadata))]
        steps.append(Step(node, incoming))
        if cuts and node is not root[0]:
            incoming = [None if (node, i) in cuts else g for i, g in enumerate(incoming)]
            if all(g is None for g in incoming):
                continue
        for key, g in _send(node, incoming):
            sums[key] = sums[key] + g if key in sums else g
            steps[-1].sent.append((key, g, sums[key]))
    return steps, sums


@torch.no_grad()
def _send(node: Node, incoming: list[Tensor | None]) -> list[tuple[Key, Tensor]]:
    """Return what a node adds to each parent: incoming gradient times local derivative."""
    if _is_leaf(node) or (callable(node) and all(g is None for g in incoming)):
        return []
    sent = []
    for (parent, slot), g in zip(node.next_functions, _local_rule(node, incoming), strict=True):
        if parent is not None and g is not None:
            like = parent._input_metadata[slot]  # as the engine does, undo broadcasting, promotion
            sent.append(((parent, slot), g.sum_to_size(like.shape).to(like.device, like.dtype)))
    return sent


def _local_rule(node: Node, incoming: list[Tensor | None]) -> Sequence[Tensor | None]:
    """Return the node's own vector-Jacobian products, one per entry of `next_functions`."""
    try:
        if callable(node):  # an operation of PyTorch
            out = node(*incoming)
            return out if isinstance(out, tuple) else (out,)
        # A torch.autograd.Function: zeros instead of None, and a result for every argument.
        zeros = (torch.zeros(m.shape, dtype=m.dtype, device=m.device) for m in node._input_metadata)
        out = node.apply(*(z if g is None else g for g, z in zip(incoming, zeros, strict=True)))
        out = out if isinstance(out, tuple) else (out,)
        needed = (g for g, need in zip(out, node.needs_input_grad, strict=False) if need)
        return [None if parent is None else next(needed) for parent, _ in node.next_functions]
    except RuntimeError as error:
        for symptom, cause in CAUSES.items():
            if symptom in str(error):
                raise GraphError(f"{node.name()}: {cause}") from error
        raise


def _refuse_unplayable(nodes: Collection[Node]) -> None:
    """Raise GraphError where more than the nodes' own rules would act in a backward pass.

    A node does not tell its hooks, so every living tensor is asked, once any hook was ever made.
    """
    names = {node.name() for node in nodes}
    if "CheckpointFunctionBackward" in names:
        raise GraphError(
            "reentrant checkpointing runs an engine of its own inside the backward pass: "
            "use checkpoint(..., use_reentrant=False)"
        )
    alive = gc.get_objects() if RemovableHandle.next_id else ()
    hooked = (t for t in alive if issubclass(type(t), Tensor) and t._backward_hooks)
    if "BackwardHookFunctionBackward" in names or any(
        t.requires_grad and _root(t)[0] in nodes for t in hooked
    ):
        raise GraphError(
            "a hook stands in this graph, and hooks are not replayed: remove it by the handle "
            "that register_hook returned"
        )
