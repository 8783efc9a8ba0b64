"""What a student waits for: the notebooks, their imports, and the lecture's MNIST example."""

import gzip
import json
import logging
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tools.bench.measure import Row, Run, in_turn, medians
from tools.execute import code_cells, environment, find, read
from tools.kernel import ThisPython
from tools.stamp import NOTEBOOKS
from utils.course import DATA_DIR
from utils.data import MD5

PROBE = """import resource, time
print(time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"""
LINE = "{:26} {:>8} {:>8} {:>8} {:>10} {:>6} {:>13} {:>8}"


def imports() -> Iterator[Row]:
    """The first cells of notebooks 01 to 04, against three imports; each in a fresh process."""
    commands = {"plain": ["-c", "import torch, torchvision, matplotlib.pyplot"]}
    for path in find(["01", "02", "03", "04"]):
        commands[path.stem] = ["-c", "\n".join(cell.source for cell in beginning(read(path)))]
    times = {name: [r.processor for r in runs] for name, runs in in_turn(commands, 5).items()}
    plain = times.pop("plain")
    for name, own in times.items():
        ours, theirs, ratio = medians(own, plain)
        what = f"imports of {name[:2]}, against torch, torchvision, pyplot"
        yield Row(what, f"{ours:.2f} s", f"{theirs:.2f} s", ratio, 0.7)


def beginning(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The setup cell and the visible imports, which are the first two code cells."""
    return code_cells(notebook)[:2]


def lecture() -> Iterator[Row]:
    """The lecture's MNIST example the course's way, against the plain one; in fresh processes."""
    raw = DATA_DIR / "MNIST" / "raw"
    if not all((raw / f"{stem}.gz").exists() for stem in MD5):
        print(f"lecture: skipped, for {raw} has no MNIST; `make run` puts it there")
        return
    with tempfile.TemporaryDirectory() as folder:
        unpack(raw, Path(folder, "MNIST", "raw"))  # torchvision does so once, not in each run
        commands = {
            "course": ["-m", "tools.bench.lecture_course"],
            "plain": ["-m", "tools.bench.lecture_plain", folder],
        }
        course, plain = in_turn(commands, 3).values()
    for a, b in zip(map(notes, course), map(notes, plain), strict=True):
        assert a["sizes"] == b["sizes"], "not the same models, or not as many images"
        for x, y in zip(a["accuracy"], b["accuracy"], strict=True):
            assert abs(x - y) <= 0.01, f"validation accuracies {x} and {y}: not the same work"
    whole = [[r.processor for r in runs] for runs in (course, plain)]
    work = [[r.processor - notes(r)["imports"] for r in runs] for runs in (course, plain)]
    for what, times, bar in ("whole", whole, 0.75), ("imports left out", work, 1.0):
        a, b, ratio = medians(*times)
        yield Row(f"MNIST example, {what}, against plain", f"{a:.2f} s", f"{b:.2f} s", ratio, bar)


def notes(run: Run) -> dict:
    """What the example's last line says: seconds up to the imports' end, sizes and accuracies."""
    return json.loads(run.printed.splitlines()[-1])


def unpack(packed: Path, folder: Path) -> None:
    """Write the unpacked files to `folder`."""
    folder.mkdir(parents=True)
    for stem in MD5:
        (folder / stem).write_bytes(gzip.decompress((packed / f"{stem}.gz").read_bytes()))


def notebooks() -> Iterable[Row]:
    """What each notebook takes in a fresh kernel, as a table of its own, without bars."""
    print("\nEach notebook executed once, as by `make run`; s of processor, where not s of clock.")
    print("Imports: from the kernel's start to the end of the setup cell and the visible imports.")
    head = "clock s", "s", "peak MB", "imports s", "share", "1st figure s", "clock s"
    print(LINE.format("notebook", *head))
    logging.getLogger("traitlets").setLevel(logging.CRITICAL)
    for path in find([]):
        print(LINE.format(path.stem, *execute(read(path))), flush=True)
    return ()


def execute(notebook: nbformat.NotebookNode) -> list[str]:
    """The columns of one notebook: its costs, those of its imports, and those up to a figure."""
    client = NotebookClient(
        notebook,
        kernel_manager_class=ThisPython,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
        shutdown_kernel="immediate",
    )
    cells = [(i, c) for i, c in enumerate(notebook.cells) if c.cell_type == "code" and c.source]
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    start, spent, figure = time.perf_counter(), [], None
    with client.setup_kernel(env=environment()):
        for index, cell in cells:
            client.execute_cell(cell, index)
            spent.append(probe(client))
            if not figure and any("image/png" in o.get("data", {}) for o in cell.outputs):
                figure = time.perf_counter() - start, spent[-1][0]
    clock, (total, peak) = time.perf_counter() - start, spent[-1]
    loaded = spent[1][0]  # after the setup cell and the visible imports
    columns = f"{clock:.1f} {total:.1f} {peak / 1024:.0f} {loaded:.1f} {loaded / total:.0%}"
    return [*columns.split(), *(f"{t:.1f}" for t in reversed(figure))]


def probe(client: NotebookClient) -> tuple[float, int]:
    """The kernel's processor seconds up to now, and its peak memory in kB (as Linux counts it)."""
    cell = client.nb.cells[-1]
    client.execute_cell(cell, len(client.nb.cells) - 1, store_history=False)
    seconds, peak = "".join(output.text for output in cell.outputs).split()
    return float(seconds), int(peak)
