"""Make `pytest --nbval` strict: compare all outputs, run every cell twice. PYTEST_DONT_REWRITE."""

import difflib
import io
import json
import re
from base64 import b64decode
from contextlib import ExitStack
from importlib.metadata import version

import numpy as np
import pytest
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat.v4 import new_code_cell
from nbval.plugin import IPyNbCell, IPyNbFile
from PIL import Image

from tools.execute import BUNDLED, ROOT, kernel, run_cell

SAME_PIXELS = f"\nmatplotlib=={version('matplotlib')}\n" in (ROOT / "requirements.lock").read_text()


def contents(cell: dict) -> list[tuple[str, str]]:
    """Return what a reader sees as pairs of kind and text, in order and in short lines."""
    CoalesceStreamsPreprocessor().preprocess_cell(cell, {}, 0)
    seen = []
    for output in cell.outputs:
        if output.output_type == "stream":
            parts = {output.name: output.text}
        elif output.output_type == "error":
            parts = {"error": f"{output.ename}: {output.evalue}"}
        else:
            metadata = json.dumps(output.metadata, indent=1, sort_keys=True)
            parts = {"kind": output.output_type, "metadata": metadata, **output.data}
            if not SAME_PIXELS:  # sizes of pictures, and HTML that holds one
                parts["metadata"] = re.sub(r'"(width|height)": \d+,?', "", metadata)
                parts.pop("text/html", None)
        for kind, text in sorted(parts.items()):
            lines = [text] if kind == "image/png" else re.findall(".{0,99}\n|.{1,99}", str(text))
            seen += [(kind, line) for line in lines]
    return seen


def compare_pictures(old: str, new: str, names: str) -> None:
    """Fail if sizes differ, or squares of 16 by 16 pixels by more than 10 levels of 255."""
    files = [io.BytesIO(b64decode(text)) for text in (old, new)]
    a, b = (np.asarray(Image.open(file).convert("RGBA"), float) for file in files)
    assert a.shape == b.shape, f"the size of a picture differs between {names}"
    squares = ((a - b) ** 2).mean(axis=2)
    for axis in (0, 1):  # the mean over the whole picture would hide a wrong digit
        squares = np.add.reduceat(squares, range(0, squares.shape[axis], 16), axis)
    levels = np.sqrt(squares.max()) / 16
    assert levels <= 10, f"a picture differs between {names} by {levels:.1f} gray levels"


def compare(old: list, new: list, names: str, pictures: bool = True) -> None:
    """Fail if texts or their order differ, and show the lines that do; then compare pictures."""
    shown = [[k if k == "image/png" else f"{k}: {t!r}" for k, t in side] for side in (old, new)]
    diff = list(difflib.unified_diff(*shown, *names.split(" and "), n=0, lineterm=""))[:15]
    assert not diff, "\n".join([f"differs between {names} (PyTorch {version('torch')})", *diff])
    for (kind, a), (_, b) in zip(old, new, strict=True):
        if kind == "image/png" and pictures:
            compare_pictures(a, b, names)


def start_kernel(notebook: IPyNbFile) -> None:
    """Start a kernel in another folder and with another hash seed than `make refresh` does."""
    code = [cell for cell in notebook.nb.cells if cell.cell_type == "code"]
    cells = [new_code_cell(cell.source, metadata=cell.metadata) for cell in code]
    other = {"PYTHONHASHSEED": "12345", "CUDA_VISIBLE_DEVICES": ""}
    stack = ExitStack()
    notebook.addfinalizer(stack.close)
    notebook.client = stack.enter_context(kernel(cells, ROOT, **other))
    notebook.client.timeout = int(notebook.config.option.nbval_cell_timeout)


def run(item: IPyNbCell) -> list[tuple[str, str]]:
    """Return what the cell shows now; without a kernel, no later cell is run."""
    client = item.parent.client
    assert client, "not run, because an earlier cell lost the kernel"
    client.clear_display_id_mapping(item.cell_num)  # or it would update the first run's outputs
    try:
        run_cell(client, item.cell_num)
    except (DeadKernelError, CellTimeoutError):
        item.parent.client = None
        raise
    return contents(client.nb.cells[item.cell_num])


def run_twice(item: IPyNbCell) -> None:
    """Compare the first run with what is stored, and the second run with the first."""
    tags = item.cell.metadata.get("tags", [])
    stored, first = contents(item.cell), run(item)
    ran = item.parent.client.nb.cells
    if "mnist" in tags and any(BUNDLED in text for cell in ran for _, text in contents(cell)):
        item.user_properties.append(("not compared", len(item.cell.outputs)))
    else:
        compare(stored, first, "stored and now", pictures=SAME_PIXELS)
    compare(first, run(item), "first run and second run")


def explain(item: IPyNbCell, excinfo: pytest.ExceptionInfo) -> str:
    """Name notebook and cell, and say the reason, with the last lines of a traceback."""
    text = f"{excinfo.typename}: {excinfo.value}"
    lines = re.sub("^(Assertion|Runtime)Error: ", "", text).splitlines()
    return "\n".join([f"{item.path.name}, In[{item.cell_num + 1}]: {lines[0]}", *lines[1:][-15:]])


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Say how much was not compared; xdist carries the properties of items here."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    if count := sum(dict(report.user_properties).get("not compared", 0) for report in reports):
        terminalreporter.write_line(f"MNIST is missing: {count} outputs were not compared")
    if not SAME_PIXELS:
        terminalreporter.write_line("Matplotlib is not the locked one: pictures were not compared")


# nbval 0.11 has no hooks for this
IPyNbFile.setup, IPyNbCell.runtest, IPyNbCell.repr_failure = start_kernel, run_twice, explain
