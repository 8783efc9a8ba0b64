"""Execute the notebooks: `run` into build/, `refresh` in place with clean outputs and figures/."""

import argparse
import os
import re
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:  # the imports take a second, and Ctrl-C must not print a traceback then either
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from nbconvert.preprocessors import ClearOutputPreprocessor, CoalesceStreamsPreprocessor
    from nbformat import NotebookNode

    from utils.course import ROOT
except KeyboardInterrupt:
    sys.exit("\nStopped before the end.")

BUILD, FIGURES, NOTEBOOKS = ROOT / "build", ROOT / "figures", ROOT / "notebooks"
BUNDLED = "Data set: scikit-learn's bundled digits"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


@contextmanager
def kernel(cells: list[NotebookNode], folder: Path, **variables: str) -> Iterator[NotebookClient]:
    """Start a kernel of this interpreter in `folder`; yield the client that executes `cells`."""
    options = {"timeout": 300, "iopub_timeout": 300, "shutdown_kernel": "immediate"}
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(notebook, skip_cells_with_tag="", **options)
    manager = client.create_kernel_manager()
    manager.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])  # not the user's own
    if os.name == "posix":  # two kernels that start at once can get the same port, but no file
        manager.transport, manager.ip = "ipc", f"/tmp/kernel-{os.getpid()}"
    env = {"OMP_NUM_THREADS": "1"} | os.environ | {"TQDM_DISABLE": "1", "MPLBACKEND": ""}
    with client.setup_kernel(env=env | variables, cwd=str(folder)):
        yield client


def run_cell(client: NotebookClient, index: int, store_history: bool = True) -> None:
    """Execute one cell; raise RuntimeError or OSError unless it does what its tags announce."""
    cell = client.nb.cells[index]
    try:
        client.execute_cell(cell, index, store_history=store_history)
    except CellExecutionError as error:
        raise RuntimeError(f"raised {error.ename}: {error.evalue}\n{error}") from None
    CoalesceStreamsPreprocessor().preprocess_cell(cell, {}, index)
    raised = any(output.output_type == "error" for output in cell.outputs)
    if "raises-exception" in cell.metadata.get("tags", []) and not raised:
        raise RuntimeError("is tagged raises-exception, but raised nothing")


def find(names: list[str]) -> list[Path]:
    """Return the notebooks whose names begin with one of `names`, or all of them."""
    stems = tuple(Path(name).stem for name in names or [""])
    for stem in stems:
        if not list(NOTEBOOKS.glob(f"{stem}*.ipynb")):
            sys.exit(f"There is no notebook {stem}*.ipynb in {NOTEBOOKS}.")
    return [path for path in sorted(NOTEBOOKS.glob("*.ipynb")) if path.stem.startswith(stems)]


def execute(path: Path, notebook: NotebookNode, refresh: bool) -> bool:
    """Execute a notebook, print its row of the table, and return whether it did what it should."""
    number, failure, start = 0, "", time.perf_counter()
    print(f"{path.stem:28}", end="", flush=True)
    ClearOutputPreprocessor().preprocess(notebook, {})
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    variables = {"CUDA_VISIBLE_DEVICES": ""} if refresh else {}  # a GPU rounds differently
    try:
        with kernel(cells, NOTEBOOKS, PYTHONHASHSEED="0", **variables) as client:
            for number, _ in enumerate(cells, 1):
                run_cell(client, number - 1)
    except (RuntimeError, OSError) as error:
        failure = f"FAILED in In[{number}]: {str(error).splitlines()[0]}"
    text = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    if refresh and BUNDLED in text:
        failure = "FAILED to find MNIST: data/README.md says where to put it"
    data = (re.findall(r"^Data set: (.+?)(?: \(|$)", text, re.MULTILINE) or ["-"])[0]
    print(f"{number:5}{time.perf_counter() - start:9.1f}  {failure or data}", flush=True)
    return not failure


def clean(cell: NotebookNode) -> None:
    """Take out what changes from run to run; store pictures, and their texts for MyST-NB."""
    for key in ("execution", "ExecuteTime", "executionInfo", "mystnb"):
        cell.metadata.pop(key, None)
    texts = []
    for output in cell.get("outputs", []):
        if "traceback" in output:
            output.traceback = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in output.traceback]
        picture = output.get("metadata", {}).get("image/png", {})
        texts += [picture["alt"]] if "alt" in picture else []
        if "save" in picture:
            (FIGURES / f"{picture['save']}.png").write_bytes(b64decode(output.data["image/png"]))
    if texts:  # MyST-NB gives all pictures of a cell one text
        cell.metadata["mystnb"] = {"image": {"alt": " ".join(texts)}}


def store(notebooks: dict[Path, NotebookNode]) -> None:
    """Write notebooks as every machine would store them; remove figures that no output names."""
    for path, notebook in notebooks.items():
        notebook.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"})
        for cell in notebook.cells:
            clean(cell)
        nbformat.write(notebook, path)
    stored = "".join(path.read_text("utf-8") for path in find([]))
    for path in FIGURES.glob("*.png"):
        if f'"save": "{path.stem}"' not in stored:
            path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.execute", description=__doc__)
    parser.add_argument("command", choices=["run", "refresh"])
    parser.add_argument("names", nargs="*", help="notebooks by the beginning of their names")
    arguments = parser.parse_args()
    refresh = arguments.command == "refresh"
    notebooks = {}
    for path in find(arguments.names):
        try:
            notebooks[path] = nbformat.read(path, as_version=4)
        except Exception as error:  # nbformat promises no particular one
            sys.exit(f"{path.name} is not a notebook: {type(error).__name__}")
    print(f"{'notebook':28}cells  seconds  data set")
    failed = [path.stem for path in notebooks if not execute(path, notebooks[path], refresh)]
    if not refresh:
        BUILD.mkdir(exist_ok=True)
        for path, notebook in notebooks.items():
            nbformat.write(notebook, BUILD / path.name)
    if failed:
        copies = "Nothing was written." if refresh else "The executed copies lie in build/."
        sys.exit(f"\n{' and '.join(failed)} failed. {copies}")
    if refresh:
        store(notebooks)
    subject = f"All {len(notebooks)} notebooks" if len(notebooks) > 1 else "The notebook"
    advice = "See what changed with: git diff" if refresh else "Open JupyterLab with: make lab"
    print(f"\n{subject} ran. {advice}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped before the end.")
