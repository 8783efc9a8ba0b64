"""Mutation testing: every kind of change is made, and noticed exactly where a test looks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from tools.mutants import mutants
from tools.stamp import ROOT

CHANGES = {
    "y = a - b": {"a + b", "b - a"},
    "y = X.T @ r": {"X.T * r", "r @ X.T", "X"},
    "if n < 3:\n    n = 0": {"n >= 3", "n <= 3", "4", "1"},
    "y = a and not b": {"a or not b", "b"},
    "y = -a": {"a"},
    "lr = 0.1": {"0.2"},
    "y = t.mean()": {"t.sum()"},
    "y = t.detach()": {"t"},
    "y = f(a, b)": {"f(b, a)"},
    "y = (a, b)": {"(b, a)"},
    "y = a if c else b": {"b if c else a"},
    "for i in range(n):\n    continue": {"range(n + 1)"},
    "y = g(t, retain_graph=True)": {"g(retain_graph=True, t)", "False"}
    - {"g(retain_graph=True, t)"},
    "ax.set(xlabel='x', ylabel='y')": {"nothing", "ax.set(xlabel='y', ylabel='x')"},
    "loss.backward()": {"nothing"},
    "x.grad = None": {"nothing"},
    "w -= g": {"nothing", "w += g"},
    "raise error": {"nothing"},
    "with torch.no_grad():\n    continue": {"__import__('contextlib').nullcontext()"},
    "@torch.no_grad()\ndef f():\n    pass": {"lambda f: f"},
    "def f():\n    return g(a)": {"-g(a)"},
    "torch.manual_seed(0)": {"nothing"},
    "w = torch.tensor([1.0, -2.0], requires_grad=True)": {"False"},
    "y = (a - b) ** 2": {"a + b", "3", "(a - b) * 2", "2 ** (a - b)"},
    "y = make_moons(200, seed=0)": {"201"},
    "assert a - b < 1": set(),
    "def f(a: Literal[1]): ...": set(),
    "from a import b": set(),
}


@pytest.mark.parametrize("source", CHANGES)
def test_a_piece_of_code_is_changed_in_these_ways(source):
    assert {m.change.rpartition(" -> ")[2] for m in mutants(source)} == CHANGES[source]


def test_all_but_the_changed_expression_stays_as_it_is():
    source = "def f(a):  # δ\n    y = ('ä', (a * 2))  # odd   spaces\n    return y\n"
    changed = {m.source for m in mutants(source)}
    for new in "a / 2", "a * 3":
        assert source.replace("('ä', (a * 2))", f"('ä', {new})") in changed


def test_statements_that_compute_a_gradient_a_loss_or_an_update_are_told_apart():
    core = ["grad = 2 * x", "loss = a - b", "w -= lr * g", "def descend(w):\n    return w - g"]
    assert all(m.core for source in core for m in mutants(source))
    other = ["ax.set(xlim=(0, 1))", "print(loss - 1)", "n = 3 * k"]
    assert not any(m.core for source in other for m in mutants(source))


# ---- The command, on a small course -------------------------------------------------------------

MODULE = "def twice(x):\n    return 2 * x\n\n\ndef unused(x):\n    return x - 1\n"
TEST = "from utils.twice import twice\n\n\ndef test_twice():\n    assert twice(3) == 6\n"
CELLS = [("w = 3.0\ngrad = 2 * w", []), ("print(grad > 5)", ["True\n"])]
KNOWN = "Nobody calls it.\n    twice.py: return x - 1 [x - 1 -> x + 1]\n"


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork processes")
    root = tmp_path_factory.mktemp("mutate")
    shutil.copytree(ROOT / "tools", root / "tools")
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    for folder in ("utils", "tests", "notebooks", "data"):
        (root / folder).mkdir()
    (root / "utils/twice.py").write_text(MODULE)
    (root / "tests/test_twice.py").write_text(TEST)
    (root / "tools/equivalents.txt").write_text(KNOWN)
    cells = [
        v4.new_code_cell(
            s, execution_count=i, outputs=[v4.new_output("stream", text=t) for t in out]
        )
        for i, (s, out) in enumerate(CELLS, 1)
    ]
    nbformat.write(v4.new_notebook(cells=cells), root / "notebooks/01_small.ipynb")
    return root


def mutate(root: Path, *args: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tools.mutate", "--all", *args]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


def test_the_table_names_exactly_the_changes_that_nothing_notices(course):
    run = mutate(course)
    lines = [" ".join(line.split()) for line in run.stdout.splitlines()]
    assert lines[1:-2] == [
        "twice.py 7 1 3 3 50.0 % 0 of 0",
        "6 twice.py: return x - 1 [1 -> 2]",
        "6 twice.py: return x - 1 [x - 1 -> -(x - 1)]",
        "6 twice.py: return x - 1 [x - 1 -> 1 - x]",
        "01_small.ipynb 7 0 4 3 57.1 % 1 of 2",
        "In[1] line 1 01_small.ipynb: w = 3.0 [3.0 -> 6.0]",
        "In[1] line 2 core 01_small.ipynb: grad = 2 * w [2 -> 3]",
        "In[2] line 1 01_small.ipynb: print(grad > 5) [grad > 5 -> grad >= 5]",
    ], run.stderr
    assert lines[-2] == "all 14 1 7 6 53.8 % 1 of 2"
    assert run.returncode == 1


def test_an_equivalent_that_does_not_apply_is_refused(course):
    (course / "tools/equivalents.txt").write_text(KNOWN.replace("x - 1 [", "x - 3 ["))
    run = mutate(course)
    (course / "tools/equivalents.txt").write_text(KNOWN)
    assert run.returncode == 1 and "no change is called twice.py: return x - 3 [" in run.stderr


@pytest.mark.parametrize("wrong", ["1 == 2", "'mutate-' not in __file__"])  # the latter in copies
def test_a_test_that_fails_without_any_change_is_shown(wrong, course):
    tests = course / "tests/test_twice.py"
    tests.write_text(f"{TEST}\n\ndef test_wrong():\n    assert {wrong}\n")
    run = mutate(course, "twice")
    assert run.returncode == 1 and "a test fails without any change" in run.stderr
    assert "test_wrong" in run.stderr
