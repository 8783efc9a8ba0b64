"""Each exercise of notebook 03 is broken in the lines that it asks to repair, and in no others."""

from difflib import ndiff

import nbformat
import pytest

from utils.course import ROOT

NOTEBOOK = "03_pitfalls"
BROKEN = {  # the lines that the solution changes or moves
    "3.1": [],
    "3.2": ["optimizer.step()"],
    "3.3": ["mse(X @ w, y).backward()"],
    "3.4": ["w = w - 0.1 * w.grad"],
    "3.5": ["losses.append(mse(X @ w, y))", "losses[-1].backward()"],
    "3.6": ["hidden = torch.sigmoid(X @ W)", "hidden -= 0.5"],
    "3.7": [
        "fit = torch.where(size > 1, 4 * size.sqrt() - 3, size**2).mean()",
        "penalty = (w**2).sum().item() / 2",
    ],
}


def cells(tag: str) -> list[str]:
    """The sources of the cells with this tag, in order."""
    notebook = nbformat.read(ROOT / f"notebooks/{NOTEBOOK}.ipynb", as_version=4)
    return [cell.source for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_an_exercise_is_broken_where_it_should_be(number: int) -> None:
    attempt, solution = cells("exercise")[number], cells("solution")[number]
    name = list(BROKEN)[number]
    assert f'check("{name}"' in attempt and f"Solution {name}" in solution
    changes = ndiff(attempt.splitlines(), solution.splitlines())
    assert [line[1:].strip() for line in changes if line.startswith("-")] == BROKEN[name]


def test_all_exercises_are_listed() -> None:
    assert len(cells("exercise")) == len(BROKEN)
