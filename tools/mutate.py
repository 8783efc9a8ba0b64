"""Change one thing at a time in notebooks and utils; report the changes that no test notices.

A change in a module must fail a test, or a notebook that imports it; a change in a notebook must
be refused by the gate. Processes are forked after the imports and, in a notebook, at the changed
cell, so that each costs seconds: this needs Linux or macOS. equivalents.txt lists the changes
that nobody could notice, with the reason.
"""

import argparse
import gc
import hashlib
import importlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from io import StringIO, TextIOBase
from multiprocessing import connection, get_context
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from coverage import Coverage
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_output
from traitlets.config import Config

from tools.mutants import Mutant, mutants
from tools.stamp import NOTEBOOKS, ROOT

SAMPLE = 600  # changes in all, unless more are asked for
ENOUGH = 0.95  # of them must be noticed, and all in gradients, losses and updates
PICTURES = {"drawing.py", "plotting.py"}  # where no gradient, loss or update is computed
EQUIVALENTS = ROOT / "tools/equivalents.txt"
ENVIRONMENT = {"MPLBACKEND": "agg", "TQDM_DISABLE": "1"}
ENVIRONMENT |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
FORK = get_context("fork")
OURS = {"utils", "tools", "tests", "conftest"}


@dataclass(frozen=True)
class Case:
    """A mutant in its place; its name does not change when lines or cells move."""

    name: str
    path: Path
    cell: int  # In[n] of a notebook
    mutant: Mutant


# ---- Choosing ----------------------------------------------------------------------------------


def cases(path: Path) -> list[Case]:
    """Return all mutants of a module, or of a notebook without its setup cell."""
    found, seen = [], Counter()
    for number, source in parts(path):
        for mutant in mutants(source):
            name = f"{path.name}: {mutant.text} [{mutant.change}]"
            seen[name] += 1
            mutant = replace(mutant, core=mutant.core and path.name not in PICTURES)
            name += f" #{seen[name]}" * (seen[name] > 1)
            found.append(Case(name, path, number, mutant))
    return found


def parts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield a module's source with number 0, or each code cell's with its number."""
    if path.suffix == ".py":
        yield 0, path.read_text(encoding="utf-8")
        return
    for number, cell in enumerate(code_cells(path), 1):
        if "setup" not in cell.metadata.get("tags", []):
            yield number, cell.source


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def sample(found: list[Case], number: int) -> list[Case]:
    """Return some cases: the same ones as long as their own lines are the same."""
    return sorted(found, key=lambda c: hashlib.sha256(c.name.encode()).digest())[:number]


def equivalents() -> dict[str, str]:
    """Return the reason of each name in equivalents.txt: a reason, then its names, indented."""
    reason, reasons = "", {}
    for line in EQUIVALENTS.read_text(encoding="utf-8").splitlines():
        if line.startswith("    "):
            reasons[line.strip()] = reason
        else:
            reason = line
    return reasons


# ---- Forking -----------------------------------------------------------------------------------


class Jobs:
    """Runs work in forked processes, `number` at a time, each with a limit in seconds."""

    def __init__(self, number: int, limit: float):
        self.number, self.limit, self.running, self.survivors = number, int(limit) + 1, {}, []

    def start(self, case: Case, work: Callable[..., bool], *args) -> None:
        """Start `work(case, *args)`; the case survives if it returns True."""
        while len(self.running) >= self.number:
            self.reap()
        process = FORK.Process(target=self.child, args=(work, case, *args))
        process.start()
        self.running[process.sentinel] = case, process

    def child(self, work: Callable[..., bool], *args) -> None:
        os.setsid()
        # If it loops. Unlike a resource limit, this does not count for kernels: nbval limits these.
        signal.setitimer(signal.ITIMER_PROF, self.limit)
        signal.alarm(20 * self.limit)  # if it waits
        for stream in 0, 1, 2:
            os.dup2(os.open(os.devnull, os.O_RDWR), stream)
        sys.exit(not work(*args))

    def reap(self) -> None:
        """Wait until a process ends, and remove what it may have left."""
        for sentinel in connection.wait(list(self.running)):
            case, process = self.running.pop(sentinel)
            process.join()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            shutil.rmtree(scratch(process.pid), ignore_errors=True)
            self.survivors += [case] * (process.exitcode == 0)

    def finish(self) -> list[Case]:
        while self.running:
            self.reap()
        return self.survivors


def apart(work: Callable, *args):
    """Return what `work` returns in a fork of this process."""
    with ProcessPoolExecutor(1, mp_context=FORK) as pool:
        return pool.submit(work, *args).result()


def scratch(pid: int) -> Path:
    return Path(tempfile.gettempdir(), f"mutate-{pid}")


def move(root: Path) -> None:
    """Let this process import the course from this folder."""
    os.chdir(root)
    for name in list(sys.modules):
        if name.split(".")[0] in OURS:
            del sys.modules[name]
    sys.path[:] = [str(root), *(p for p in sys.path if p not in ("", str(ROOT)))]


# ---- By tests ----------------------------------------------------------------------------------


class Tests:
    """A file's own tests, and the notebooks that import it.

    As a pytest plugin, it learns which tests run which lines, and how long they take.
    """

    def __init__(self, path: Path):
        name = rf'(definitions, |NOTEBOOK = )"{path.stem[:2]}'
        users = sorted(ROOT.glob("tests/test_*.py"))
        if path.suffix == ".py":
            name = rf"utils(\.| import .*){path.stem}\b"
            users = [p for p in users if p.stem == f"test_{path.stem}"] or users
            users += sorted(NOTEBOOKS.glob("*.ipynb"))
        self.users = [p for p in users if re.search(name, p.read_text(encoding="utf-8"))]
        self.path, self.seconds, self.lines = path, {}, {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)
        self.seconds[nodeid] = time.process_time()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.seconds[nodeid] = time.process_time() - self.seconds[nodeid]

    def run(self, root: Path, suffixes: tuple[str, ...], *plugins: object) -> bool:
        """Return whether no test of the course in `root` fails."""
        move(root)
        files = [str(p.relative_to(ROOT)) for p in self.users if p.suffix in suffixes]
        options = "-x --assert=plain -p no:cacheprovider -p no:logging -cpyproject.toml --rootdir=."
        return pytest.main([*options.split(), *files], list(plugins)) == 0

    def trace(self) -> tuple[dict[str, float], dict[int, list[str]]]:
        """Return the seconds of each test, and the tests of each line. All must pass."""
        self.coverage = Coverage(data_file=None, config_file=False, include=[str(self.path)])
        with self.coverage.collect(), redirect_stdout(StringIO()) as told, redirect_stderr(told):
            passed = self.run(ROOT, (".py",), self)
        if not passed:
            told = told.getvalue()[-2000:]
            raise RuntimeError(f"{self.path.name}: a test fails without any change\n{told}")
        self.coverage.set_option("run:disable_warnings", ["no-data-collected"])  # a notebook's
        return self.seconds, self.coverage.get_data().contexts_by_lineno(str(self.path))

    def survives(self, case: Case) -> bool:
        """Return whether all pass in a copy of the course that has this one change."""
        root = scratch(os.getpid())
        away = shutil.ignore_patterns(".*", "node_modules", "build", "data", "__pycache__")
        shutil.rmtree(root, ignore_errors=True)  # of a killed run: numbers of processes come again
        shutil.copytree(ROOT, root, ignore=away)
        for name in "data", "node_modules":
            (root / name).symlink_to(ROOT / name)
        copy, source = root / self.path.relative_to(ROOT), case.mutant.source
        if case.cell:
            notebook = nbformat.read(copy, as_version=4)
            cells = [c for c in notebook.cells if c.cell_type == "code"]
            cells[case.cell - 1].source = source
            source = nbformat.writes(notebook)
        copy.write_text(source, encoding="utf-8")
        return self.run(root, (".py", ".ipynb"), Chosen(self, case))

    def failure(self, case: Case) -> str:
        """Return the end of what is said where a case does not survive."""
        try:
            with redirect_stdout(StringIO()) as told, redirect_stderr(told):
                return "" if self.survives(case) else told.getvalue()[-2000:]
        finally:
            shutil.rmtree(scratch(os.getpid()), ignore_errors=True)

    def judge(self, alive: list[Case], number: int) -> list[Case]:
        """Return the cases that survive; where none does, make sure that no change would."""
        if not (self.users and alive):
            return alive
        self.seconds, self.lines = apart(self.trace)
        jobs = Jobs(number, 120 + 3 * sum(self.seconds.values()))
        for case in alive:
            jobs.start(case, self.survives)
        if not jobs.finish():
            same = replace(alive[0].mutant, source=dict(parts(self.path))[alive[0].cell])
            if told := apart(self.failure, replace(alive[0], mutant=same)):
                raise RuntimeError(f"{self.path.name}: a test fails without any change\n{told}")
        return jobs.survivors


class Chosen:
    """A pytest plugin: the tests that run the changed lines, fast ones first; then the others.

    Notebooks come last, in their order: 05 takes longest.
    """

    def __init__(self, tests: Tests, case: Case):
        self.first = {t for line in case.mutant.lines for t in tests.lines.get(line, ())}
        self.seconds = tests.seconds

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        def rank(item: pytest.Item) -> tuple[str, bool, float]:
            notebook = item.path.stem * (item.path.suffix == ".ipynb")
            return notebook, item.nodeid not in self.first, self.seconds.get(item.nodeid, 0)

        items.sort(key=rank)


# ---- By the gate -------------------------------------------------------------------------------


class Stream(TextIOBase):
    """Standard output or error of a cell."""

    def __init__(self, name: str, outputs: list):
        self.kind, self.outputs = name, outputs

    def write(self, text: str) -> int:
        if text:
            self.outputs.append(new_output("stream", name=self.kind, text=text))
        return len(text)


class Publisher(DisplayPublisher):
    def publish(self, data, metadata=None, **options):
        output = new_output("display_data", data=data, metadata=metadata or {})
        self.shell.outputs.append(output)


class Hook(DisplayHook):
    def write_output_prompt(self):
        pass

    def write_format_data(self, format_dict, md_dict=None):
        output = new_output("execute_result", data=format_dict, metadata=md_dict or {})
        self.shell.outputs.append(output)


class Shell(InteractiveShell):
    """IPython without a terminal: what a cell shows is kept in `outputs`."""

    def _showtraceback(self, etype, evalue, stb):
        error = {"ename": etype.__name__, "evalue": str(evalue), "traceback": stb}
        self.outputs.append(new_output("error", **error))


class Player:
    """Passes the cells of a notebook through the gate in this process, so that it can be forked."""

    def __init__(self, path: Path):
        move(ROOT)
        self.gate = importlib.import_module("conftest")
        self.stored, self.nb = code_cells(path), SimpleNamespace(cells=code_cells(path))
        self._display_id_map = {}  # as nbclient's, for the gate
        classes = {"displayhook_class": Hook, "display_pub_class": Publisher}
        self.shell = Shell(config=Config({"HistoryManager": {"enabled": False}}), **classes)
        InteractiveShell._instance = self.shell

    def execute_cell(self, cell: nbformat.NotebookNode, number: int, store_history: bool) -> None:
        """Run a cell as nbclient does, for the gate."""
        cell.outputs = self.shell.outputs = out = []
        with redirect_stdout(Stream("stdout", out)), redirect_stderr(Stream("stderr", out)):
            done = self.shell.run_cell(cell.source, store_history=store_history)
        if not done.success and "raises-exception" not in cell.metadata.get("tags", []):
            raise CellExecutionError("", out[-1].ename, out[-1].evalue)

    def play(self, index: int) -> None:
        """Pass one cell through the gate. Raises its Refused."""
        client = SimpleNamespace(client=self, fallback=False)
        item = {"cell": self.stored[index], "cell_num": index, "parent": client}
        options = {"skip": False, "check": True}
        self.gate.run_cell(SimpleNamespace(**item, options=options, user_properties=[]))

    def survives(self, case: Case) -> bool:
        """Return whether the changed cell and all that follow pass."""
        self.nb.cells[case.cell - 1].source = case.mutant.source
        for index in range(case.cell - 1, len(self.stored)):
            self.play(index)
        return True

    def judge(self, alive: list[Case], number: int) -> list[Case]:
        """Return the cases that survive: play the notebook, and fork at each cell."""
        jobs = Jobs(number, 240)
        for index in range(len(self.stored)):
            for case in (c for c in alive if c.cell == index + 1):
                jobs.start(case, self.survives)
            self.play(index)
        return jobs.finish()


# ---- All of it ---------------------------------------------------------------------------------


def judge(path: Path, alive: list[Case], number: int) -> list[Case]:
    """Return the cases of a file that nothing notices."""
    if path.suffix == ".ipynb" and alive:
        names = apart(judge_by_gate, path, alive, number)
        alive = [case for case in alive if case.name in names]
    return Tests(path).judge(alive, number)


def judge_by_gate(path: Path, alive: list[Case], number: int) -> set[str]:
    return {case.name for case in Player(path).judge(alive, number)}


def find(names: list[str]) -> dict[Path, list[Case]]:
    """Return all cases of the files that are named, or of all. Ends the program if one is not."""
    paths = [*sorted((ROOT / "utils").glob("*.py")), *sorted(NOTEBOOKS.glob("*.ipynb"))]
    for name in names:
        if not any(path.name.startswith(name) for path in paths):
            sys.exit(f"no file {name}* in utils/ or notebooks/")
    found = {p: cases(p) for p in paths if not names or p.name.startswith(tuple(names))}
    known = {case.name for all_of_it in found.values() for case in all_of_it}
    for name in equivalents():
        if name.split(":")[0] in [path.name for path in found] and name not in known:
            sys.exit(f"equivalents.txt: no change is called {name}")
    return {path: all_of_it for path, all_of_it in found.items() if all_of_it}


def preload() -> None:
    """Import the libraries that the course imports, so that forked processes have them."""
    for path in [*ROOT.glob("utils/*.py"), *ROOT.glob("tests/*.py"), ROOT / "conftest.py"]:
        for name in re.findall(r"(?m)^\s*(?:import|from) (\w[\w.]*)", path.read_text("utf-8")):
            if name.split(".")[0] not in OURS:
                with suppress(ImportError):
                    importlib.import_module(name)
    gc.freeze()  # no later collection looks at them


def report(path: Path, chosen: list[Case], survivors: list[Case]) -> Counter:
    """Print a row of the table, and every survivor; return the numbers."""
    numbers = Counter(mutants=len(chosen), survived=len(survivors))
    numbers["equivalent"] = sum(case.name in equivalents() for case in chosen)
    numbers["core"] = sum(case.mutant.core and case.name not in equivalents() for case in chosen)
    numbers["core survived"] = sum(case.mutant.core for case in survivors)
    row(path.name, numbers)
    for case in sorted(survivors, key=lambda c: (c.cell, c.mutant.lines[-1], c.name)):
        place = f"In[{case.cell}] line " * bool(case.cell) + str(case.mutant.lines[-1])
        print(f"    {place}{' core' * case.mutant.core}\t{case.name}", flush=True)
    return numbers


def row(name: str, n: Counter) -> None:
    judged = n["mutants"] - n["equivalent"]
    killed, core = judged - n["survived"], n["core"] - n["core survived"]
    share = f"{100 * killed / judged:.1f} %" if judged else "-"
    print(
        f"{name:31}{n['mutants']:8}{n['equivalent']:11}{killed:8}{n['survived']:9}{share:>9}"
        f"{core:8} of {n['core']}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.mutate", description=__doc__)
    parser.add_argument("names", nargs="*", help="files by the beginning of their names")
    parser.add_argument("--all", action="store_true", help="every change, which takes hours")
    parser.add_argument("--core", action="store_true", help="all in gradients, losses and updates")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    args = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    start, found, total = time.perf_counter(), find(args.names), Counter()
    preload()
    print("file                            mutants equivalent  killed survived    share    core")
    for path, some in found.items():
        if args.core:
            some = [case for case in some if case.mutant.core]
        chosen = some if args.all or args.core else sample(some, SAMPLE // len(found))
        alive = [case for case in chosen if case.name not in equivalents()]
        total += report(path, chosen, judge(path, alive, args.jobs))
    row("all", total)
    print(f"{time.perf_counter() - start:.0f} s")
    gc.unfreeze()
    enough = total["survived"] <= (1 - ENOUGH) * (total["mutants"] - total["equivalent"])
    return int(not enough or total["core survived"] > 0)


if __name__ == "__main__":
    sys.exit(main())
