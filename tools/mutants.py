"""Small wrong changes to a piece of code, one at a time, which a test suite should notice."""

import ast
import re
from collections.abc import Iterator
from copy import copy, deepcopy
from dataclasses import dataclass
from itertools import accumulate

OTHERS = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.FloorDiv: ast.Div, ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.MatMult: ast.Mult},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt},
    **{ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
}
# Equality let in or out: of whole numbers only, since others are hardly ever equal.
EDGES = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult)
TWINS = "sum-mean min-max amin-amax argmin-argmax minimum-maximum any-all zeros-ones sin-cos"
TWINS = [pair.split("-") for pair in f"{TWINS} zeros_like-ones_like new_zeros-new_ones".split()]
TWINS = {a: b for pair in TWINS for a, b in (pair, pair[::-1])}
DROPS = "T mT detach clone abs sqrt log exp square flatten squeeze requires_grad_ contiguous"
DROPS = {*DROPS.split(), "double", "float", "flip", "to", "sum_to_size", "round"}
SYMMETRIC = {"equal", "allclose", "relative_error", "max", "min", "maximum", "dot", "mse", "hypot"}
TRUTHS = {"hasattr", "isinstance", "any", "all", "bool", "equal", "allclose", "callable"}
CORE = re.compile(r"grad|loss|backward|^lr$|step$|slope|descend|rule|incoming|jacobian|hessian")
DRAWS = re.compile(r"plot|show|print|text|draw|title|axes|^ax$|warn|Error|verdict|slips")
NOTHING = ast.parse("__import__('contextlib').nullcontext()", mode="eval").body
UNDECORATED = ast.parse("lambda f: f", mode="eval").body


@dataclass(frozen=True)
class Mutant:
    """A piece of code with one change."""

    source: str
    change: str  # "a + b -> a - b", shortened
    text: str  # the line of the change, as it was
    lines: range  # from the first line of the changed statement to the change
    core: bool  # whether the statement computes a gradient, a loss or an update


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mutant of `source`; asserts, seeds, annotations and imports stay as they are."""
    data = source.encode()
    lines = data.splitlines(keepends=True)
    starts = [0, *accumulate(map(len, lines))]
    for statement, around in _statements(ast.parse(source), ""):
        core, seen = _is_core(statement, around), {source}
        for whole, node, new, text in _edits(statement):
            first = starts[whole.lineno - 1] + whole.col_offset
            last = starts[whole.end_lineno - 1] + whole.end_col_offset
            changed = (data[:first] + text.encode() + data[last:]).decode()
            row = node.lineno if whole.lineno <= node.lineno <= whole.end_lineno else whole.lineno
            if changed not in seen:
                seen.add(changed)
                change = f"{_short(ast.unparse(node))} -> {_short(new)}"
                span = range(min(statement.lineno, row), row + 1)
                yield Mutant(changed, change, lines[row - 1].decode().strip(), span, core)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:40]} ... {text[-15:]}"


def _statements(node: ast.AST, around: str) -> Iterator[tuple[ast.stmt, str]]:
    """Yield the statements that may change, each with the name of the function around it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt) and not isinstance(child, ast.Assert):
            yield child, around
        yield from _statements(child, getattr(child, "name", None) or around)


def _is_core(statement: ast.stmt, around: str) -> bool:
    names = {around}
    for node in ast.walk(statement):
        names |= {getattr(node, field, None) for field in ("id", "attr", "arg")} - {None}
    simple = not hasattr(statement, "body")
    return simple and any(map(CORE.search, names)) and not any(map(DRAWS.search, names))


def _edits(statement: ast.stmt) -> Iterator[tuple[ast.AST, ast.AST, str, str]]:
    """Yield what is replaced, the changed node in it, the new node and the text of the whole."""
    call = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    place = isinstance(statement, ast.Assign) and not isinstance(statement.targets[0], ast.Name)
    if call or place and not isinstance(statement.targets[0], ast.Tuple):
        yield statement, statement, "nothing", "pass"
    if isinstance(statement, ast.Raise | ast.AugAssign):
        yield statement, statement, "nothing", "pass"
    if isinstance(statement, ast.AugAssign) and type(statement.op) in OTHERS:
        new = ast.unparse(_with(statement, op=OTHERS[type(statement.op)]()))
        yield statement, statement, new, new
    for whole in _expressions(statement):
        for node, new in _replacements(statement, whole):
            memo: dict = {}
            clone = deepcopy(whole, memo)
            text = ast.unparse(_Replace(memo[id(node)], new).visit(clone))
            yield whole, node, ast.unparse(new), text


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def _expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    """Yield the outermost expressions of a statement, without those of statements in it."""
    for name, value in ast.iter_fields(statement):
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.arguments):
                yield from filter(None, [*part.defaults, *part.kw_defaults])
            elif isinstance(part, ast.withitem):
                yield part.context_expr
            elif isinstance(part, ast.expr) and name not in ("annotation", "returns"):
                yield part


def _replacements(statement: ast.stmt, whole: ast.expr) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield the nodes of an expression, each with what may stand in its place."""
    if isinstance(statement, ast.With):
        yield whole, NOTHING
    if whole in getattr(statement, "decorator_list", []):
        yield whole, UNDECORATED
    truth = isinstance(whole, ast.Call) and _name(whole) in TRUTHS
    sign = ast.USub() if isinstance(statement, ast.Return) and not truth else ast.Not()
    simple = isinstance(whole, ast.Name | ast.Call | ast.Attribute | ast.Subscript | ast.BinOp)
    if simple and isinstance(statement, ast.If | ast.While | ast.Return):
        yield whole, ast.UnaryOp(sign, whole)
    kept, even = set(), set()
    for outer in ast.walk(whole):
        kept |= {id(inner) for root in _kept(outer) for inner in ast.walk(root)}
        even |= {id(inner) for inner in _even(outer)}
    for node in ast.walk(whole):
        if id(node) not in kept:
            for new in _changes(node, turn=id(node) not in even):
                if ast.unparse(new) != ast.unparse(node):
                    yield node, new


def _kept(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a node that are no code to test: seeds, checks, data of an example."""
    match node:
        case ast.keyword(arg="seed" | "strict") | ast.Call(func=ast.Attribute(attr="manual_seed")):
            yield node
        case ast.Call(func=ast.Attribute(attr="default_rng") | ast.Name(id="isinstance")):
            yield node
        case ast.Call(func=ast.Attribute(attr="tensor"), args=[data]):
            numbers = ast.List | ast.Tuple | ast.Constant | ast.UnaryOp | ast.USub | ast.Load
            if all(isinstance(inner, numbers) for inner in ast.walk(data)):
                yield data


def _even(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the operand of a node to which its sign does not matter."""
    match node:
        case ast.BinOp(left=value, op=ast.Pow(), right=ast.Constant(value=2)):
            yield value
        case ast.Attribute(value=value, attr="abs" | "norm" | "square"):
            yield value


def _with(node: ast.AST, **fields: object) -> ast.AST:
    new = copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _changes(node: ast.AST, turn: bool) -> Iterator[ast.AST]:
    """Yield what may stand in the place of a node; if `turn`, also a - b turned round."""
    match node:
        case ast.BinOp(left=a, op=op, right=b) | ast.Compare(left=a, ops=[op], comparators=[b]):
            field = "op" if isinstance(node, ast.BinOp) else "ops"
            whole = isinstance(b, ast.Name) or isinstance(getattr(b, "value", None), int)
            tables = (OTHERS, EDGES) if whole else (OTHERS,)
            for other in (table[type(op)]() for table in tables if type(op) in table):
                yield _with(node, **{field: other if field == "op" else [other]})
            if isinstance(op, ORDERED) and turn:
                yield _with(node, left=b, right=a)
        case ast.BoolOp(op=op):
            yield _with(node, op=OTHERS[type(op)]())
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            yield operand
        case ast.IfExp(body=body, orelse=orelse):
            yield _with(node, body=orelse, orelse=body)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(value=float(value)):
            yield ast.Constant(2 * value or 1.0)
        case ast.Attribute(value=value, attr=name) if name in DROPS & {"T", "mT"}:
            yield value
        case ast.Tuple(elts=[a, b, *rest], ctx=ast.Load()) | ast.List(elts=[a, b, *rest]):
            yield _with(node, elts=[b, a, *rest])
        case ast.Call():
            yield from _calls(node)


def _name(call: ast.Call) -> str:
    return getattr(call.func, "attr", None) or getattr(call.func, "id", "")


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    """Yield other calls: of the twin function, of none, with two arguments or labels swapped."""
    name = _name(node)
    if name in TWINS:
        field = "attr" if isinstance(node.func, ast.Attribute) else "id"
        yield _with(node, func=_with(node.func, **{field: TWINS[name]}))
    if name in DROPS and isinstance(node.func, ast.Attribute):
        yield node.func.value
    if name == "range" and not isinstance(node.args[-1], ast.Constant):
        end = ast.BinOp(node.args[-1], ast.Add(), ast.Constant(1))
        yield _with(node, args=[*node.args[:-1], end])
    match node.args:
        case [a, b, *rest] if name not in SYMMETRIC and not isinstance(b, ast.Starred):
            yield _with(node, args=[b, a, *rest])
    labels = [k for k in node.keywords if isinstance(k.value, ast.Constant | ast.JoinedStr)]
    labels = [k for k in labels if isinstance(getattr(k.value, "value", ""), str)][:2]
    if len(labels) == 2:
        values = {id(a): b.value for a, b in (labels, labels[::-1])}
        swapped = [_with(k, value=values.get(id(k), k.value)) for k in node.keywords]
        yield _with(node, keywords=swapped)
