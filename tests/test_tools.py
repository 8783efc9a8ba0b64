"""`make run` and `make refresh`, on small notebooks in a temporary course."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import IPython
import nbformat
import pytest
from nbformat import v4
from small_course import command, contents, make_course, use

from tools import execute, stamp
from tools.kernel import ThisPython

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\nstands for a picture").decode()
SAVE = f"""from IPython.display import display
display({{"image/png": "{PNG}"}}, metadata={{"image/png": {{"save": "curve"}}}}, raw=True)"""


def outputs(path: Path) -> list:
    return [c.outputs for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


# ---- execute run -------------------------------------------------------------------------------

SHOW_KERNEL = """import os, sys
names = "PYTHONHASHSEED", "OMP_NUM_THREADS", "TQDM_DISABLE"
print(sys.executable, os.getcwd(), *(os.environ[name] for name in names), sep="|")"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """One `run` over notebooks that fail in every way there is."""
    root = tmp_path_factory.mktemp("run") / "course"
    cells = {
        "01_sound": [SHOW_KERNEL, ("1 / 0", "raises-exception"), "print('Data set: MNIST (x)')"],
        "02_error": ["", "1", "raise ValueError('two\\nlines')", "print('not reached')"],
        "03_silent": [("1", "raises-exception")],
        "04_dies": ["import os\nos._exit(1)"],
        "05_endless": ["import time\ntime.sleep(60)"],
    }
    make_course(root, **cells)
    bogus = root / "jupyter/kernels/python3/kernel.json"
    bogus.parent.mkdir(parents=True)
    bogus.write_text(json.dumps({"argv": ["nonesuch"], "display_name": "x", "language": "x"}))
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        use(root, patch)
        patch.setenv("JUPYTER_PATH", str(root / "jupyter"))
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.setattr(execute, "CELL_SECONDS", 3)
        patch.setattr("builtins.print", lambda *a, **k: lines.extend(" ".join(a).split("\n")))
        status = command(execute, patch, "run")
    return SimpleNamespace(root=root, status=status, lines=lines)


def test_run_goes_on_and_names_each_failure_in_one_line(ran):
    assert ran.status == 1
    assert re.fullmatch(r"01_sound: 3 cells, \d+\.\d s", ran.lines[0])
    assert ran.lines[1:5] == [
        "02_error, cell 2: ValueError: two",
        "03_silent, cell 1: no exception, though tagged raises-exception",
        "04_dies, cell 1: the kernel died, perhaps for want of memory: 2 GB are enough",
        "05_endless, cell 1: not done after 3 s",
    ]


def test_run_ends_with_a_table(ran):
    rows = [line.split(maxsplit=3) for line in ran.lines[-6:]]
    assert rows[0] == ["notebook", "cells", "seconds", "data set"]
    assert [rows[1][i] for i in (0, 1, 3)] == ["01_sound", "3", "MNIST"]
    assert [rows[2][i] for i in (0, 1, 3)] == ["02_error", "2", "FAILED"]


def test_run_leaves_every_executed_copy_and_no_half_one(ran):
    names = sorted(path.name for path in (ran.root / "build").iterdir())
    assert names == sorted(path.name for path in (ran.root / "notebooks").iterdir())
    copy = outputs(ran.root / "build/02_error.ipynb")
    assert copy[2][0].ename == "ValueError" and copy[3] == []
    assert not any(outputs(ran.root / "notebooks/02_error.ipynb"))


def test_kernel_is_this_python_in_a_fixed_environment(ran):
    shown = outputs(ran.root / "build/01_sound.ipynb")[0][0].text.strip().split("|")
    assert shown == [sys.executable, str(ran.root / "notebooks"), "0", "1", "1"]


@pytest.mark.skipif(os.name != "posix", reason="this system connects kernels by ports alone")
def test_kernels_that_start_at_once_share_no_address():
    """Ports are given out some time before they are taken, so that two can be given the same."""
    one, other = ThisPython(), ThisPython()
    assert one.transport == other.transport == "ipc" and one.ip != other.ip


def test_kernels_take_ports_where_names_of_socket_files_would_be_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 80)))
    kernel = ThisPython()
    assert (kernel.transport, kernel.ip) == ("tcp", "127.0.0.1")


@pytest.mark.parametrize("names, found", [([], 2), (["01"], 1), (["notebooks/02_b.ipynb"], 1)])
def test_notebooks_are_found_by_the_beginning_of_their_names(names, found, tmp_path, monkeypatch):
    use(make_course(tmp_path / "c", **{"01_a": [], "02_b": []}), monkeypatch)
    assert len(execute.find(names)) == found
    with pytest.raises(SystemExit, match=r"no notebook 7\*.ipynb"):
        execute.find([*names, "7"])


def test_write_is_whole_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    stamp.write(path, "old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stamp.write(path, "new")
    assert contents(tmp_path) == {"a.txt": b"old"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_interrupt_ends_in_one_line_without_half_files_or_kernels(tmp_path):
    slow = "import os, pathlib, time\npathlib.Path('pid').write_text(f'{os.getpid()}\\n')"
    root = make_course(tmp_path / "c", **{"01_slow": [slow + "\ntime.sleep(60)"]})
    (root / "tools").mkdir()
    for name in ("execute.py", "kernel.py", "stamp.py"):
        (root / "tools" / name).write_bytes(Path(stamp.__file__).with_name(name).read_bytes())
    args = [sys.executable, "-m", "tools.execute", "run"]

    def heed() -> None:  # a job in the background is born ignoring Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(args, cwd=root, stdout=-1, stderr=-1, text=True, preexec_fn=heed)
    marker = root / "notebooks/pid"
    wait(lambda: marker.exists() and marker.read_text().endswith("\n"))
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "\nstopped before the end\n")
    assert process.returncode == 130
    assert contents(root / "build") == {}
    wait(lambda: not alive(int(marker.read_text())))


def wait(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ---- execute refresh ---------------------------------------------------------------------------

FRAMES = "import json\n\n\ndef inner():\n    json.loads('{')\n\n\ninner()"


@pytest.mark.skipif(IPython.version_info < (8, 7), reason="frames are named after temporary files")
def test_refresh_stores_clean_outputs_and_figures_and_is_idempotent(tmp_path, monkeypatch):
    cells = ["print('a')", "", SAVE, (FRAMES, "raises-exception"), "6 * 7"]
    root = make_course(tmp_path / "c", **{"01_a": cells})
    use(root, monkeypatch)
    path = root / "notebooks/01_a.ipynb"
    notebook = json.loads(path.read_text())
    ids = [cell["id"] for cell in notebook["cells"]]
    notebook["cells"][1]["metadata"]["execution"] = {"shell.execute_reply": "2026-01-01"}
    notebook["metadata"] = {"language_info": {"version": "3.1"}, "widgets": {}}
    path.write_text(json.dumps(notebook))
    (root / "figures/orphan.png").touch()

    assert command(execute, monkeypatch, "refresh") == 0
    first = contents(root)
    assert first["figures/curve.png"] == base64.b64decode(PNG)
    assert "figures/orphan.png" not in first
    text = first["notebooks/01_a.ipynb"].decode()
    assert text.endswith("}\n") and not text.endswith("\n\n") and text.startswith('{\n "cells"')
    notebook = json.loads(text)
    assert notebook["metadata"] == execute.METADATA
    assert [cell["id"] for cell in notebook["cells"]] == ids
    assert notebook["cells"][1]["metadata"] == {}
    counts = [c["execution_count"] for c in notebook["cells"] if c["cell_type"] == "code"]
    assert counts == [1, None, 2, 3, 4]
    trace = "\n".join(notebook["cells"][4]["outputs"][0]["traceback"])
    assert trace.count("Cell In[3]") == 2 and "in inner()" in trace
    assert trace.splitlines()[-1].startswith("JSONDecodeError: ")
    assert "\x1b" not in trace and "File" not in trace and "json/" not in trace

    assert command(execute, monkeypatch, "refresh", "01") == 0
    assert contents(root) == first


def test_refresh_joins_streams():
    one, two = (v4.new_output("stream", name="stdout", text=text) for text in ("a\n", "b\n"))
    error = v4.new_output("stream", name="stderr", text="c\n")
    cell = v4.new_code_cell("x", outputs=[one, two, error])
    stored = json.loads(execute.normalize(v4.new_notebook(cells=[cell])))["cells"][0]["outputs"]
    assert [output["text"] for output in stored] == [["a\n", "b\n"], ["c\n"]]


@pytest.mark.parametrize(
    "last, reason",
    [
        ("raise ValueError('no')", "nothing was written"),
        ('print("Data set: scikit-learn\'s bundled digits (1,797)")', "not on MNIST; nothing"),
    ],
)
def test_refresh_writes_all_or_nothing(last, reason, tmp_path, monkeypatch):
    root = make_course(tmp_path / "c", **{"01_a": [SAVE], "02_b": [last]})
    use(root, monkeypatch)
    before = contents(root)
    with pytest.raises(SystemExit, match=reason):
        command(execute, monkeypatch, "refresh")
    assert contents(root) == before


def test_a_file_that_is_no_notebook_is_named(tmp_path, monkeypatch):
    root = make_course(tmp_path / "c", **{"01_a": []})
    use(root, monkeypatch)
    (root / "notebooks/02_b.ipynb").write_text("{")
    with pytest.raises(SystemExit, match="02_b.ipynb is not a notebook"):
        command(execute, monkeypatch, "run")
