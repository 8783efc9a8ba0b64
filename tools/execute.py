"""Execute the notebooks: `run` into build/, `refresh` in place with clean outputs and figures/."""

import os
import re
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert.preprocessors import ClearOutputPreprocessor, CoalesceStreamsPreprocessor
from nbformat import NotebookNode
from nbformat.reader import NotJSONError

from utils.course import ROOT

BUILD, FIGURES, NOTEBOOKS = ROOT / "build", ROOT / "figures", ROOT / "notebooks"
BUNDLED = "Data set: scikit-learn's bundled digits"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
METADATA = "tags", "slideshow", "cellView", "jupyter"  # of cells; editors write more, which goes


@contextmanager
def kernel(cells: list[NotebookNode], folder: Path, **variables: str) -> Iterator[NotebookClient]:
    """Start a kernel of this interpreter in `folder`; yield the client that executes `cells`."""
    options = {"timeout": 300, "iopub_timeout": 300, "shutdown_kernel": "immediate"}
    notebook = nbformat.v4.new_notebook(cells=cells)
    plain = ["--InteractiveShell.colors=NoColor"]  # no color codes in tracebacks
    client = NotebookClient(notebook, skip_cells_with_tag="", extra_arguments=plain, **options)
    manager = client.create_kernel_manager()
    manager.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])  # not the user's own
    if os.name == "posix":  # two kernels that start at once can get the same port, but no file
        manager.transport, manager.ip = "ipc", f"/tmp/kernel-{os.getpid()}"
    env = {"OMP_NUM_THREADS": "1"} | os.environ
    env |= {"TQDM_DISABLE": "1", "MPLBACKEND": "", "NO_COLOR": "1"}
    with client.setup_kernel(env=env | variables, cwd=str(folder)):
        yield client


def run_cell(client: NotebookClient, index: int) -> None:
    """Execute one cell; raise RuntimeError or OSError unless it does what its tags announce."""
    cell = client.nb.cells[index]
    try:
        client.execute_cell(cell, index)
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


def execute(path: Path, refresh: bool) -> bool:
    """Execute a notebook into build/, print its row, and return whether it did what it should."""
    number, failure, start = 0, "", time.perf_counter()
    print(f"{path.stem:28}", end="", flush=True)
    notebook, _ = ClearOutputPreprocessor().preprocess(nbformat.read(path, as_version=4), {})
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
    nbformat.write(notebook, BUILD / path.name)
    return not failure


def clean(notebook: NotebookNode) -> None:
    """Take out what changes from run to run; give MyST-NB the text of a cell's pictures."""
    notebook.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"})
    for cell in notebook.cells:
        cell.metadata = {key: cell.metadata[key] for key in METADATA if key in cell.metadata}
        outputs = cell.get("outputs", [])
        pictures = [output.get("metadata", {}).get("image/png", {}) for output in outputs]
        texts = [picture["alt"] for picture in pictures if "alt" in picture]
        if texts:
            cell.metadata["mystnb"] = {"image": {"alt": " ".join(texts)}}


def saved_pictures() -> list[tuple[str, bytes]]:
    """Return name and content of every stored picture that belongs in figures/."""
    pictures = []
    for path in find([]):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                if name := output.get("metadata", {}).get("image/png", {}).get("save"):
                    pictures.append((f"{name}.png", b64decode(output.data["image/png"])))
    return pictures


def store(paths: list[Path]) -> None:
    """Copy notebooks, cleaned, from build/ to their places, and their pictures into figures/."""
    for path in paths:
        notebook = nbformat.read(BUILD / path.name, as_version=4)
        clean(notebook)
        nbformat.write(notebook, path)
    pictures = saved_pictures()
    for path in FIGURES.glob("*.png"):
        path.unlink()
    for name, picture in pictures:
        (FIGURES / name).write_bytes(picture)


def main(command: str, *names: str) -> None:
    refresh, paths = command == "refresh", find(names)
    BUILD.mkdir(exist_ok=True)
    print(f"{'notebook':28}cells  seconds  data set")
    failed = [path.stem for path in paths if not execute(path, refresh)]
    if failed:
        stored = "Nothing was stored. " if refresh else ""
        sys.exit(f"\n{' and '.join(failed)} failed. {stored}The executed copies lie in build/.")
    if refresh:
        store(paths)
    advice = "See what changed with: git diff" if refresh else "Open JupyterLab with: make lab"
    print(f"\nEvery cell ran. {advice}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except NotJSONError as error:  # of the notebook printed last, or of one not asked for
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped before the end.")
