"""Opening a notebook runs nothing, no cell fetches code, and all that is installed is locked."""

import ast
import json
import re
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.stamp import NOTEBOOKS, ROOT

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)

# ---- notebooks ---------------------------------------------------------------------------------

SHOWN = {"text/plain", "text/html", "image/png", "image/svg+xml"}
SCRIPT = re.compile(r"<script|<iframe|javascript:|<[^>]*\son\w+\s*=", re.IGNORECASE)
IMPORTED = {
    "collections", "copy", "functools", "itertools", "math", "sys", "timeit", "warnings",
    "matplotlib", "numpy", "sklearn", "torch", "tqdm", "utils",
}  # fmt: skip
REFUSED = re.compile(r"exec|eval|compile|__import__|open|.*\bhub|torch\.load|.*\.modules")


def runs_when_opened(notebook: NotebookNode) -> Iterator[str]:
    """Prose with a script, and outputs of which a frontend may run what is in them."""
    for cell in notebook.cells:
        if cell.cell_type != "code" and SCRIPT.search(cell.source):
            yield cell.source
        for output in cell.get("outputs", []):
            yield from set(output.get("data", {})) - SHOWN


def fetches(notebook: NotebookNode) -> Iterator[str]:
    """What could fetch or run other code, in all code cells but the setup cell.

    The setup cell clones the course's own repository; it is tested in test_setup_cell.py.
    """
    for cell in notebook.cells:
        if cell.cell_type != "code" or "setup" in cell.metadata.get("tags", []):
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or name.name for name in node.names]
                yield from (name for name in names if name.split(".")[0] not in IMPORTED)
            if isinstance(node, ast.Import | ast.ImportFrom | ast.Name | ast.Attribute):
                name = ast.unparse(node).replace("import ", "")
                yield from filter(REFUSED.fullmatch, [name, *name.split()])


@each_notebook
def test_opening_runs_nothing_and_no_cell_fetches_code(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert [*runs_when_opened(notebook), *fetches(notebook)] == []


@pytest.mark.parametrize(
    "source",
    [
        "import urllib.request",
        "from urllib.request import urlopen as get",
        "import torch, requests",
        "import os\nos.system('x')",
        "def f():\n    from subprocess import run",
        "import pip",
        "exec(text)",
        "run = eval",
        "__import__('urllib')",
        "import torch\ntorch.hub.load('a/b', 'c')",
        "from torch import hub",
        "import torch.hub",
        "torch.load('x.pt')",
        "import sys\nsys.modules['os']",
    ],
)
def test_a_cell_that_could_fetch_code_is_refused(source: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    assert list(fetches(notebook))


@pytest.mark.parametrize(
    "cell",
    [
        nbformat.v4.new_markdown_cell("<script>alert()</script>"),
        nbformat.v4.new_markdown_cell("<img src='x' onerror='alert()'>"),
        nbformat.v4.new_markdown_cell("[x](javascript:alert())"),
        nbformat.v4.new_raw_cell("<iframe src='x'>"),
        nbformat.v4.new_code_cell(
            "x", outputs=[nbformat.v4.new_output("display_data", {"application/javascript": "x"})]
        ),
    ],
)
def test_a_cell_that_could_run_when_opened_is_refused(cell: NotebookNode) -> None:
    assert list(runs_when_opened(nbformat.v4.new_notebook(cells=[cell])))


# ---- locks -------------------------------------------------------------------------------------

LOCK = (ROOT / "requirements.lock").read_text("utf-8")
SYSTEMS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
    "darwin": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"},
    "win32": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"},
}
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
each_machine = pytest.mark.parametrize("system", SYSTEMS)


def environment(system: str, python: str) -> dict[str, str]:
    """What markers say about such a machine."""
    version = {"python_version": python, "python_full_version": f"{python}.9"}
    machine = {"platform_machine": "AMD64" if system == "win32" else "x86_64"}
    return {**default_environment(), **version, **machine, **SYSTEMS[system]}


def pins(system: str, python: str) -> dict[str, str]:
    """The version that the lock gives to each package there. Refuses anything but versions."""
    where, found = environment(system, python), {}
    for line in LOCK.splitlines():
        if line.lstrip().startswith("#"):
            continue
        pin = Requirement(line)
        assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), line
        if pin.marker is None or pin.marker.evaluate(where):
            name = canonicalize_name(pin.name)
            assert name not in found, f"two versions of {name}"
            found[name] = str(pin.specifier).removeprefix("==")
    return found


def required() -> list[Requirement]:
    """Every line of the two files of requirements."""
    lines = [
        line.partition(" #")[0].strip()
        for name in ("requirements.txt", "requirements-dev.txt")
        for line in (ROOT / name).read_text("utf-8").splitlines()
    ]
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]


@each_machine
@pytest.mark.parametrize("python", PYTHONS)
def test_lock_has_one_version_of_every_package_required(system: str, python: str) -> None:
    pinned, where = pins(system, python), environment(system, python)
    assert len(required()) > 20
    needed = [r for r in required() if r.marker is None or r.marker.evaluate(where)]
    names = {r: canonicalize_name(r.name) for r in needed}
    wrong = [str(r) for r, name in names.items() if pinned.get(name, "0") not in r.specifier]
    assert wrong == []


@each_machine
def test_lock_has_what_the_locked_packages_need_on_each_system(system: str) -> None:
    """Their own requirements are read where they are installed, which is on one system alone."""
    python = default_environment()["python_version"]
    pinned, where = pins(system, python), environment(system, python) | {"extra": ""}
    locked = [p for p in distributions() if pinned.get(canonicalize_name(p.name)) == p.version]
    if not locked:
        pytest.skip("none of the locked versions is installed")
    missing = [
        f"{package.name} needs {need}"
        for package in locked
        for need in map(Requirement, package.requires or [])
        if need.marker is None or need.marker.evaluate(where)
        if pinned.get(canonicalize_name(need.name), "0") not in need.specifier
    ]
    assert missing == []


def test_lock_of_javascript_has_a_checksum_of_everything_and_names_no_host() -> None:
    text = (ROOT / "package-lock.json").read_text("utf-8")
    packages = json.loads(text)["packages"]
    wanted = json.loads((ROOT / "package.json").read_text("utf-8"))
    root = packages.pop("")
    for kind in ("dependencies", "devDependencies"):
        assert root[kind] == wanted[kind]
        for name, version in wanted[kind].items():
            assert packages[f"node_modules/{name}"]["version"] == version
    assert [n for n, p in packages.items() if not p["integrity"].startswith("sha512-")] == []
    assert "://" not in text
