"""What a notebook's cells define, for tests and benchmarks of the code that students see."""

import ast
import json

from utils.course import ROOT


def definitions(number: str) -> dict:
    """Return the functions and classes of notebook `number` by name; its examples do not run.

    Setup and exercises are left out; what is assigned to a class (`Array.__add__ = add`) counts.
    """
    path = next(ROOT.glob(f"notebooks/{number}_*.ipynb"))
    names: dict = {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        tags = set(cell["metadata"].get("tags", []))
        if cell["cell_type"] != "code" or tags & {"setup", "exercise"}:
            continue
        tree = ast.parse("".join(cell["source"]))
        tree.body = [part for part in tree.body if _defines(part)]
        exec(compile(tree, f"notebook {number}", "exec"), names)
    return names


def _defines(part: ast.stmt) -> bool:
    if isinstance(part, ast.Assign):
        target = (
            part.targets[0].elts[0] if isinstance(part.targets[0], ast.Tuple) else part.targets[0]
        )
        return isinstance(target, ast.Attribute) and ast.unparse(target.value)[0].isupper()
    return isinstance(part, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
