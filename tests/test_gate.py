"""The gate's own test: of the notebooks in `corpus.py`, `conftest.py` and the rules of
`test_structure.py` let the sound ones pass and refuse the broken ones for what is wrong with them.

`make corpus` prints how many were refused by whom.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import nbformat.v4 as v4
import pytest
from corpus import BROKEN, SOUND, WITHOUT_KERNEL, dump, made
from nbformat import NotebookNode
from test_structure import RULES, read

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {"OMP_NUM_THREADS": "2", "PYTHONWARNINGS": "error:old", "MPLBACKEND": "agg"}
ENVIRONMENT |= {"PYTHONPATH": str(ROOT)}
OPTIONS = (
    "-m pytest --nbval --nbval-cell-timeout 15 -n 2 --dist loadfile -p no:cacheprovider --color no"
    " --continue-on-collection-errors --junitxml report.xml notebooks"
)
CHANGES = SOUND | {name: change for name, (change, _) in (BROKEN | WITHOUT_KERNEL).items()}
WORDS = {name: words for name, (_, words) in (BROKEN | WITHOUT_KERNEL).items()}


class Verdict(NamedTuple):
    """Why a notebook was refused, by the gate and by the rules; empty where it passed."""

    gate: str
    rules: str


class Judged(NamedTuple):
    """The verdict on each notebook of the corpus by its name, and what stood on the screen."""

    verdicts: dict[str, Verdict]
    screen: str


def refused_by_rules(path: Path) -> str:
    """What the rules say, a line for each problem."""
    problems = []
    for rule in RULES:
        try:
            problems += rule(read(path))
        except Exception as error:  # its test fails
            problems.append(f"{type(error).__name__}: {error}")
    return "\n".join(problems)


def refused_by_gate(root: Path) -> tuple[dict[tuple[str, int], str], str]:
    """What the gate says by file and number of the cell, 0 for a file as a whole; the screen."""
    shutil.copy(ROOT / "conftest.py", root)
    command, environment = [sys.executable, *OPTIONS.split()], os.environ | ENVIRONMENT
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    refusals: dict[tuple[str, int], str] = defaultdict(str)
    for case in ElementTree.parse(root / "report.xml").iter("testcase"):
        place = f"{case.get('classname')} {case.get('name')}"
        stem, number = re.search(r"(\w+)\.ipynb(?: Cell (\d+))?", place).groups()
        texts = [child.text or "" for child in case if child.tag in ("failure", "error")]
        refusals[stem, int(number or 0)] += "".join(texts)
    return refusals, run.stdout


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """The corpus, judged in one run: the cells among it share one notebook and its kernel."""
    root, files = tmp_path_factory.mktemp("course"), tmp_path_factory.mktemp("files")
    (root / "notebooks").mkdir()
    paths = {name: files / f"n{number:03}.ipynb" for number, name in enumerate(CHANGES)}
    to_run = [name for name in CHANGES if name not in WITHOUT_KERNEL]
    cells = [name for name in to_run if isinstance(CHANGES[name], NotebookNode)]
    for name, path in paths.items():
        path.write_bytes(made(CHANGES[name]))
    for name in set(to_run) - set(cells):
        shutil.copy(paths[name], root / "notebooks")
    together = v4.new_notebook(cells=[CHANGES[name] for name in cells])
    (root / "notebooks/together.ipynb").write_text(dump(together), encoding="utf-8")
    refusals, screen = refused_by_gate(root)
    by_gate = defaultdict(str)
    for (stem, number), refusal in refusals.items():
        by_gate[cells[number] if stem == "together" else list(paths)[int(stem[1:])]] += refusal
    verdicts = {n: Verdict(by_gate[n], refused_by_rules(path)) for n, path in paths.items()}
    return Judged(verdicts, screen)


@pytest.mark.parametrize("name", SOUND)
def test_sound_notebook_passes(judged: Judged, name: str) -> None:
    assert judged.verdicts[name] == Verdict("", "")


@pytest.mark.parametrize("name", WORDS)
def test_broken_notebook_is_refused(judged: Judged, name: str) -> None:
    assert re.search(WORDS[name], "\n".join(judged.verdicts[name]), re.DOTALL)


def test_outputs_not_compared_are_counted(judged: Judged) -> None:
    number = list(SOUND).index("digits in place of MNIST")
    line = f"n{number:03}: MNIST could not be had, 2 data-dependent outputs were not compared"
    assert line in judged.screen.splitlines()


def test_corpus_table(judged: Judged) -> None:
    """Prints it: `make corpus`."""
    print(f"\n\n{'':16}{'passed':>7}{'refused by: gate':>19}{'rules':>7}{'both':>7}")
    parts = {"sound": SOUND, "broken": BROKEN, "without kernel": WITHOUT_KERNEL}
    for title, names in parts.items():
        by = Counter(tuple(map(bool, judged.verdicts[name])) for name in names)
        passed, rules, gate, both = (by[g, r] for g in (False, True) for r in (False, True))
        print(f"{title:16}{passed:7}{gate:19}{rules:7}{both:7}")
    assert len(SOUND) >= 30 and len(BROKEN) >= 60
