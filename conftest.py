"""Makes `pytest --nbval` strict: what a reader would see is compared, and every cell runs twice.

nbval alone passes wrong pictures, changed order, cells never run or skipped, and expected errors
that never come. Here it keeps its command line and its test per code cell; how a cell is run
(by nbclient) and compared is replaced. nbval has no hooks for that, so the last five lines assign
methods of its classes. They are written for nbval 0.11.0.
"""

import base64
import difflib
import io
import json
import os
import re
from collections import Counter
from contextlib import ExitStack
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbval.plugin import IPyNbCell, IPyNbFile
from PIL import Image

from tools.kernel import ThisPython

SQUARE, LIMIT = 16, 10.0  # pixels; gray levels of 255 by which a square of a picture may differ
FALLBACK = re.compile(r"^Data set: scikit-learn's bundled digits", re.MULTILINE)
NOT_COMPARED = "outputs not compared"
Output = tuple[str, dict]  # kind and, by name, its parts


class Refused(Exception):
    """Why the gate does not let a cell pass."""


def comparable(outputs: list) -> list[Output]:
    """Outputs in their order, adjacent streams joined, without counts and traceback frames."""
    result: list[Output] = []
    for out in outputs:
        if out.output_type == "stream":
            kind, parts = out.name, {"text": out.text}
        elif out.output_type == "error":
            kind, parts = "error", {"error": f"{out.ename}: {out.evalue}"}
        else:
            kind = f"{out.output_type} ({', '.join(sorted(out.data))})"
            parts = {**out.data, "metadata": json.dumps(out.metadata, indent=1, sort_keys=True)}
        if "text" in parts and result and result[-1][0] == kind:
            result[-1][1]["text"] += parts["text"]
        else:
            result.append((kind, parts))
    return result


def picture_problem(old: str, new: str, limit: float) -> str:
    """How two base64 PNG pictures differ, empty if no square of them differs by more than `limit`.

    The measure is the RMS difference. Over the whole picture, a wrong digit would not be seen.
    """
    try:
        a, b = (
            np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA"), float)
            for png in (old, new)
        )
    except (OSError, ValueError) as error:
        return f"not a picture: {error}"
    if a.shape != b.shape:
        return f"sizes {a.shape[1::-1]} and {b.shape[1::-1]}"
    height, width = (-(-side // SQUARE) for side in a.shape[:2])
    squared = np.zeros((height * SQUARE, width * SQUARE))
    squared[: a.shape[0], : a.shape[1]] = ((a - b) ** 2).mean(axis=2)
    rms = np.sqrt(squared.reshape(height, SQUARE, width, SQUARE).mean(axis=(1, 3)))
    y, x = np.unravel_index(rms.argmax(), rms.shape)
    if rms[y, x] <= limit:
        return ""
    where = f"the {SQUARE} pixels from x = {x * SQUARE}, y = {y * SQUARE}"
    return f"RMS difference {rms[y, x]:.1f} > {limit} gray levels in {where}"


def text_problem(old: str, new: str, names: tuple[str, str]) -> str:
    """The first lines in which two texts differ, empty if they are equal."""
    a, b = ([repr(line) for line in str(text).splitlines(keepends=True)] for text in (old, new))
    diff = list(difflib.unified_diff(a, b, *names, n=0, lineterm=""))
    return "\n".join(line[:200] for line in diff[:15])


def compare(
    old: list[Output], new: list[Output], names: tuple[str, str], limit: float = LIMIT
) -> None:
    """Refuse the cell unless both lists have the same kinds and the same contents, in order."""
    kinds = [[kind for kind, _ in side] for side in (old, new)]
    if kinds[0] != kinds[1]:
        stderr = "".join(parts["text"] for kind, parts in new if kind == "stderr")[:500]
        lines = [f"{name}: {kind}" for name, kind in zip(names, kinds, strict=True)]
        raise Refused("\n".join(["kinds of outputs differ", *lines, stderr]).rstrip())
    for (kind, a), (_, b) in zip(old, new, strict=True):
        for part in a:
            if part == "image/png":
                problem = picture_problem(a[part], b[part], limit)
            else:
                problem = text_problem(a[part], b[part], names)
            if problem and kind == "error":
                between = f"between {' and '.join(names)} (PyTorch {version('torch')})"
                was = f"was {a[part]!r}, is {b[part]!r}"
                raise Refused(f"the text of this error has changed {between}: {was}")
            if problem:
                raise Refused(f"{kind}: {part} differs between {' and '.join(names)}\n{problem}")


def start_kernel(notebook: IPyNbFile) -> None:
    """Start the kernel where and how the stored outputs were not made: they must not depend on it.

    They are made in `notebooks/` with PYTHONHASHSEED=0; progress bars are never stored.
    """
    env = {"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONHASHSEED": "12345", "TQDM_DISABLE": "1"}
    env["CUDA_VISIBLE_DEVICES"] = ""  # a GPU rounds differently
    env.pop("MPLBACKEND", None)
    code = deepcopy(notebook.nb)
    code.cells = [cell for cell in code.cells if cell.cell_type == "code"]
    notebook.fallback = False
    notebook.client = NotebookClient(
        code,
        kernel_manager_class=ThisPython,
        timeout=int(notebook.config.option.nbval_cell_timeout),
        iopub_timeout=60,
        raise_on_iopub_timeout=True,
        shutdown_kernel="immediate",
        skip_cells_with_tag="",
    )
    kernel = ExitStack()
    notebook.addfinalizer(kernel.close)
    kernel.enter_context(notebook.client.setup_kernel(env=env, cwd=str(Path(__file__).parent)))


def execute(item: IPyNbCell, count: bool) -> list[Output]:
    """The outputs of one execution of the cell. Refuses a lost kernel and unexpected errors.

    Only a run that is to `count` moves In[n] and Out[n] on, so that they stay a reader's.
    """
    client, number = item.parent.client, item.cell_num
    if client is None:
        raise Refused("not run, because an earlier cell lost the kernel")
    cell = client.nb.cells[number]
    for shown in client._display_id_map.values():
        shown.pop(number, None)  # by an earlier run of this cell, or nbclient would update that
    try:
        client.execute_cell(cell, number, store_history=count)
    except CellExecutionError as error:
        traceback = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback).rpartition("-" * 18)[2]
        frames = traceback.strip().splitlines()[-12:]
        raise Refused("\n".join([f"raised {error.ename}: {error.evalue}", *frames])) from None
    except (DeadKernelError, CellTimeoutError) as error:
        item.parent.client = None
        raise Refused(f"lost the kernel: {str(error).splitlines()[0]}") from None
    outputs = comparable(cell.outputs)
    if "raises-exception" in cell.metadata.get("tags", []) and "error" not in dict(outputs):
        raise Refused("tagged raises-exception, but raised nothing")
    item.parent.fallback |= any(FALLBACK.search(parts.get("text", "")) for _, parts in outputs)
    return outputs


def run_cell(item: IPyNbCell) -> None:
    """Run the cell twice and compare: first run with the stored outputs, second with the first.

    Without MNIST, cells tagged `mnist` need not give the stored outputs, only the same ones twice.
    Cells tagged `measured` draw times, which differ from run to run: of their pictures, only size
    and alternative text are compared.
    """
    tags = item.cell.metadata.get("tags", [])
    limit = float("inf") if "measured" in tags else LIMIT
    if item.options["skip"] or not item.options["check"]:
        raise Refused("markers that skip or ignore are not allowed")
    if item.cell.execution_count is None:
        raise Refused("was never executed before it was stored")
    stored, first = comparable(item.cell.outputs), execute(item, count=True)
    if "mnist" in tags and item.parent.fallback:
        item.user_properties.append((NOT_COMPARED, len(stored)))
    else:
        compare(stored, first, ("stored", "now"), limit)
    if "not-idempotent" not in tags:
        compare(first, execute(item, count=False), ("first run", "second run"), limit)


def explain(item: IPyNbCell, excinfo: pytest.ExceptionInfo) -> str:
    """What stands under FAILURES: notebook, cell and reason; other errors with their traceback."""
    if not isinstance(excinfo.value, Refused):
        return str(excinfo.getrepr(style="short"))
    first_line = item.cell.source.partition("\n")[0][:60]
    return f"{item.path.name}, In[{item.cell_num + 1}] {first_line!r}: {excinfo.value}"


def collect(notebook: IPyNbFile) -> list[IPyNbCell]:
    """nbval's items, one per code cell. Refuses what has none or is no notebook."""
    try:
        cells = list(collect_cells(notebook))
    except (ValueError, KeyError, AttributeError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise notebook.CollectError(f"{notebook.path.name} is not a notebook: {reason}") from None
    if not cells:
        raise notebook.CollectError(f"{notebook.path.name} has no code cell")
    return cells


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to scatter the cells of one notebook over kernels."""
    if config.option.nbval and config.getoption("dist", "no") not in ("no", "loadfile"):
        raise pytest.UsageError("with --nbval, say -n 2 --dist loadfile")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put notebooks first, the last one at the very front: it takes longest and must not wait."""
    items.sort(key=lambda i: i.path.stem * (i.path.suffix == ".ipynb"), reverse=True)


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Say in one line per notebook what was not compared: xdist carries items' properties here."""
    missed: Counter = Counter()
    for report in (r for reports in terminalreporter.stats.values() for r in reports):
        if getattr(report, "when", None) == "call":
            missed[Path(report.fspath).stem] += dict(report.user_properties).get(NOT_COMPARED, 0)
    for name, count in (+missed).items():
        terminalreporter.write_line(
            f"{name}: MNIST could not be had, {count} data-dependent outputs were not compared"
        )


collect_cells = IPyNbFile.collect
IPyNbFile.collect = collect
IPyNbFile.setup = start_kernel
IPyNbCell.runtest = run_cell
IPyNbCell.repr_failure = explain
