"""A small course in a temporary folder, for the tests of the maintainers' commands."""

import sys
from pathlib import Path

import pytest
from nbformat import v4

from tools import execute, stamp

STUB = '"""Stub."""\n\nREPO_URL = ""\nREPO_REF = "main"\n\n\ndef setup(seed=0):\n    pass\n'
BADGE = "# 1. Title\n\n<!-- badge -->\n\n<!-- /badge -->\n"


def make_course(root: Path, **notebooks: list) -> Path:
    """A course whose utils need no PyTorch; a cell is its source, or source and tag."""
    for folder in ("notebooks", "figures", "utils"):
        (root / folder).mkdir(parents=True)
    (root / "utils/__init__.py").touch()
    (root / "utils/course.py").write_text(STUB, newline="\n")
    for name, cells in notebooks.items():
        pairs = [(cell, None) if isinstance(cell, str) else cell for cell in cells]
        code = [v4.new_code_cell(s, metadata={"tags": [t]} if t else {}) for s, t in pairs]
        notebook = v4.new_notebook(cells=[v4.new_markdown_cell(BADGE), *code])
        stamp.write(root / "notebooks" / f"{name}.ipynb", stamp.dump(notebook))
    return root


def use(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Let the tools work on the course in `root`."""
    for module, name in [(execute, "NOTEBOOKS"), (stamp, "NOTEBOOKS"), (execute, "FIGURES")]:
        patch.setattr(module, name, root / name.lower())
    patch.setattr(execute, "BUILD", root / "build")
    patch.setattr(stamp, "ROOT", root)


def command(module, patch: pytest.MonkeyPatch, *args: str):
    patch.setattr(sys, "argv", [module.__name__, *args])
    return module.main()


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
