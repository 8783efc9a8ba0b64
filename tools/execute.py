"""Execute the notebooks: `run` into build/, `refresh` in place with clean outputs and figures/."""

import argparse
import base64
import logging
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

try:  # the imports take a second, in which Ctrl-C must not print a traceback either
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    from tools.kernel import ThisPython
    from tools.stamp import NOTEBOOKS, ROOT, dump, write
except KeyboardInterrupt:
    sys.exit(130)

BUILD, FIGURES = ROOT / "build", ROOT / "figures"
CELL_SECONDS = 300
FALL_BACK = "scikit-learn's bundled digits"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
TIMING = ("execution", "ExecuteTime", "executionInfo")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Result:
    """What became of one notebook: `failure` is empty when every cell did what it should."""

    name: str
    cells: int = 0
    seconds: float = 0.0
    data: str = "-"
    failure: str = ""


def environment() -> dict[str, str]:
    """The kernels' environment: nothing in it may change what a notebook prints."""
    env = {"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONHASHSEED": "0", "TQDM_DISABLE": "1"}
    env.pop("MPLBACKEND", None)
    return env


def find(names: list[str]) -> list[Path]:
    """The notebooks whose names begin with one of `names`, or all of them."""
    stems = [Path(name).stem for name in names]
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    for stem in stems or [""]:
        if not any(path.stem.startswith(stem) for path in paths):
            sys.exit(f"no notebook {stem}*.ipynb in notebooks/")
    return [path for path in paths if not stems or path.stem.startswith(tuple(stems))]


def read(path: Path) -> nbformat.NotebookNode:
    """The notebook as if never executed."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:
        sys.exit(f"{path.name} is not a notebook: {type(error).__name__}")
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    return notebook


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def execute(name: str, notebook: nbformat.NotebookNode) -> Result:
    """Run the notebook in a fresh kernel up to its end or its first failure, with progress."""
    result, start = Result(name), time.perf_counter()
    client = NotebookClient(
        notebook,
        kernel_manager_class=ThisPython,
        record_timing=False,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
        shutdown_kernel="immediate",
        timeout=CELL_SECONDS,
    )
    try:
        with client.setup_kernel(env=environment()):
            run_cells(client, result)
    except (RuntimeError, OSError) as error:  # outside of any cell
        result.failure = f"{name}: no kernel: {first_line(error)}"
    result.seconds = time.perf_counter() - start
    result.data = data_set(notebook)
    line = result.failure or f"{name}: {result.cells} cells, {result.seconds:.1f} s"
    print(f"\r\x1b[K{line}" if sys.stdout.isatty() else line, flush=True)
    return result


def run_cells(client: NotebookClient, result: Result) -> None:
    """Run the cells one by one, counting them in `result`, until one fails."""
    total = len(code_cells(client.nb))
    for index, cell in enumerate(client.nb.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        result.cells += 1
        if sys.stdout.isatty():
            print(f"\r\x1b[K{result.name}: cell {result.cells}/{total}", end="", flush=True)
        reason = run_cell(client, cell, index)
        if reason:
            result.failure = f"{result.name}, cell {result.cells}: {reason}"
            return


def run_cell(client: NotebookClient, cell: nbformat.NotebookNode, index: int) -> str:
    """Why the cell failed, in one line; empty when it did what it should."""
    try:
        client.execute_cell(cell, index)
    except CellExecutionError as error:
        return f"{error.ename}: {first_line(error.evalue)}"
    except CellTimeoutError:
        return f"not done after {CELL_SECONDS} s"
    except DeadKernelError:
        return "the kernel died, perhaps for want of memory: 2 GB are enough"
    raised = any(output.output_type == "error" for output in cell.outputs)
    expected = "raises-exception" in cell.metadata.get("tags", [])
    return "no exception, though tagged raises-exception" if expected and not raised else ""


def first_line(message: object) -> str:
    return ANSI.sub("", str(message)).strip().partition("\n")[0]


def data_set(notebook: nbformat.NotebookNode) -> str:
    """What the outputs name after `Data set: `, up to a bracket, or `-`."""
    for output in (output for cell in code_cells(notebook) for output in cell.outputs):
        text = output.get("text") or output.get("data", {}).get("text/plain", "")
        if found := re.search(r"Data set: (.+?)(?: \(|\n|$)", text):
            return found[1]
    return "-"


def normalize(notebook: nbformat.NotebookNode) -> str:
    """The text to store: no timing, no path, no color; streams joined and tracebacks cut."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        for key in TIMING:
            cell.metadata.pop(key, None)
    for cell in code_cells(notebook):
        outputs = []
        for output in cell.outputs:
            last = outputs[-1] if outputs else {}
            if output.output_type == "stream" and output.name == last.get("name"):
                last.text += output.text
                continue
            if output.output_type == "error":
                output.traceback = cut(output.traceback)
            outputs.append(output)
        cell.outputs = outputs
    return dump(notebook)


def cut(traceback: list[str]) -> list[str]:
    """The cell's own frames and the message, without colors and the libraries' frames."""
    plain = (ANSI.sub("", entry) for entry in traceback)
    return [entry for entry in plain if not entry.startswith("File ")]


def figures() -> dict[Path, bytes]:
    """The pictures that the stored notebooks name, each with the path it belongs to."""
    pictures = {}
    for path in find([]):
        for cell in code_cells(nbformat.read(path, as_version=4)):
            for output in cell.outputs:
                name = output.get("metadata", {}).get("image/png", {}).get("save")
                if name:
                    pictures[FIGURES / f"{name}.png"] = base64.b64decode(output.data["image/png"])
    return pictures


def run(paths: list[Path]) -> int:
    """Execute into build/, a failing notebook too, and print the table."""
    results = []
    for path, notebook in [(path, read(path)) for path in paths]:
        results.append(execute(path.stem, notebook))
        write(BUILD / path.name, dump(notebook))
    width = max(len(result.name) for result in results)
    print(f"\n{'notebook':{width}}  cells  seconds  data set")
    for r in results:
        data = "FAILED" if r.failure else r.data
        print(f"{r.name:{width}}  {r.cells:5}  {r.seconds:7.1f}  {data}")
    return int(any(result.failure for result in results))


def refresh(paths: list[Path]) -> int:
    """Execute in place, then write figures/; write nothing unless every notebook ran on MNIST."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a GPU rounds differently
    notebooks = {path: read(path) for path in paths}
    results = [execute(path.stem, notebook) for path, notebook in notebooks.items()]
    for result in results:
        if result.data == FALL_BACK:
            sys.exit(f"{result.name}: ran on {FALL_BACK}, not on MNIST; nothing was written")
    if any(result.failure for result in results):
        sys.exit("nothing was written")
    for path, text in {path: normalize(notebook) for path, notebook in notebooks.items()}.items():
        write(path, text)
    pictures = figures()
    for path, data in pictures.items():
        write(path, data)
    for path in set(FIGURES.glob("*.png")) - set(pictures):
        path.unlink()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.execute", description=__doc__)
    parser.add_argument("command", choices=["run", "refresh"])
    parser.add_argument("names", nargs="*", help="notebooks by the beginning of their names")
    args = parser.parse_args()
    logging.getLogger("traitlets").setLevel(logging.CRITICAL)
    try:
        return {"run": run, "refresh": refresh}[args.command](find(args.names))
    except KeyboardInterrupt:
        print("\nstopped before the end", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
