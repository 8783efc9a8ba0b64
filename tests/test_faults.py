"""Killed processes, full and read-only disks, odd folders and missing tools: whole files or none.

Each works afterwards, or says in one line what is missing.
"""

import base64
import gzip
import hashlib
import itertools
import math
import os
import random
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from nbformat import v4
from small_course import command, contents, make_course, use
from torchvision.datasets import MNIST

from tools import bundle, execute, site, slides, stamp
from utils import course, data

posix = pytest.mark.skipif(os.name != "posix", reason="needs fork, signals and a shell")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's mount namespaces")
forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

SHOW = """from IPython.display import display
display({{"image/png": "{}"}}, metadata={{"image/png": {{"save": "curve"}}}}, raw=True)"""
ODD = "un été, l'an 100%"  # a name with spaces, accents, a quote and a percent sign
REAL = stamp.ROOT
NAMESPACE = ["unshare", "--map-root-user", "--mount"]


def cell(picture: bytes) -> str:
    """Code that shows the picture and has it saved as figures/curve.png."""
    return SHOW.format(base64.b64encode(picture).decode())


OLD, NEW = b"\x89PNG old" * 500, b"\x89PNG new" * 500


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell shows `NEW` at once, without a kernel."""
    picture = v4.new_output(
        "display_data",
        {"image/png": base64.b64encode(NEW).decode()},
        metadata={"image/png": {"save": "curve"}},
    )

    def at_once(name, notebook):
        for number, code in enumerate(execute.code_cells(notebook), 1):
            code.outputs, code.execution_count = [picture], number
        return execute.Result(name, data="MNIST")

    monkeypatch.setattr(execute, "execute", at_once)


@pytest.fixture
def small_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A web edition of one page, made without Sphinx."""
    root = make_course(tmp_path / "web", **{"01_a": ["1"]})
    (root / "site/_static").mkdir(parents=True)
    (root / "site/_static/a.css").touch()
    for name, value in [
        ("NOTEBOOKS", root / "notebooks"),
        ("MATHJAX", root / "site/_static/a.css"),
    ]:
        monkeypatch.setattr(site, name, value)
    monkeypatch.setattr(site, "ROOT", root)

    def sphinx(arguments: list[str]) -> int:
        html = Path(arguments[-1])
        html.mkdir()
        (html / "index.html").write_bytes(NEW)
        return 0

    monkeypatch.setattr("sphinx.cmd.build.build_main", sphinx)


# ---- kill --------------------------------------------------------------------------------------

STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def before_step(number: int) -> None:
    """Let this process be killed when it is about to do something to a file, for the n-th time."""
    count = itertools.count()

    def hook(event: str, _) -> None:
        if event in STEPS and next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def inside_write(number: int) -> None:
    """Let this process be killed when a file that it writes grows beyond so many bytes."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))


def killed(work: Callable[[], object]) -> Iterator[bool]:
    """Do the work in processes killed ever later, until one ends; true for those killed."""
    moments = [(inside_write, size) for size in (0, 1, 300)]
    for arm, number in itertools.chain(moments, zip(itertools.repeat(before_step), range(1000))):
        if (pid := os.fork()) == 0:
            status = 1
            try:
                arm(number)
                work()
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status in (0, -signal.SIGKILL, -signal.SIGXFSZ)
        yield status != 0
        if status == 0:
            return


def visible(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files without those half-made, which bear another name."""
    return {name: data for name, data in files.items() if not name.endswith(".half")}


@posix
@forks
@pytest.mark.parametrize("name", ["run", "refresh"])
def test_killed_at_any_step_every_file_is_old_or_new(name, no_kernel, tmp_path, monkeypatch):
    root = make_course(tmp_path / "old", **{"01_a": [cell(OLD)], "02_b": ["1"]})
    use(root, monkeypatch)
    (root / "figures/curve.png").write_bytes(OLD)
    (root / "figures/orphan.png").write_bytes(OLD)
    shutil.copytree(root, before := tmp_path / "before")
    command(execute, monkeypatch, name)
    old, new = contents(before), contents(root)
    deaths = 0
    for was_killed in killed(lambda: command(execute, monkeypatch, name)):
        deaths += was_killed
        for path, text in visible(contents(root)).items():
            assert text in (old.get(path), new.get(path)), path
        command(execute, monkeypatch, name)
        assert contents(root) == new
        shutil.rmtree(root)
        shutil.copytree(before, root)
    assert deaths > 10


@posix
@forks
def test_killed_at_any_step_mnist_is_whole_and_the_rest_is_cleared_away(mirror, tmp_path):
    folder, good, deaths = tmp_path / "data/MNIST/raw", contents(mirror), 0
    for was_killed in killed(lambda: data._keep(mirror, folder)):
        deaths += was_killed
        parts = list(folder.glob(f"{data.PART}*"))
        whole = {path.name: path.read_bytes() for path in folder.glob("*.gz")}
        assert whole == {name: good[name] for name in whole}
        data._tidy(folder)
        assert sorted(folder.glob(f"{data.PART}*")) == sorted(parts)  # somebody may be at work
        for part in parts:
            os.utime(part, (0, 0))
        data._tidy(folder)
        assert not list(folder.glob(f"{data.PART}*"))
        assert data._keep(mirror, folder) == [] and contents(folder) == good
        shutil.rmtree(folder)
    assert deaths > 10


@posix
@forks
def test_killed_at_any_step_the_site_is_whole_or_not_there(small_site, tmp_path):
    target, deaths = tmp_path / "build/site", 0
    for was_killed in killed(lambda: site.build(target)):
        deaths += was_killed
        assert not target.exists() or list(contents(target).values()) in ([OLD], [NEW])
        site.build(target)
        assert contents(tmp_path / "build") == {"site/index.html": NEW}
        (target / "index.html").write_bytes(OLD)
    assert deaths > 10


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small MNIST in a folder and on a local server, which `data` and torchvision take for it."""
    folder = tmp_path / "mirror"
    sums = make_mnist(folder)
    monkeypatch.setattr(data, "MD5", sums)
    monkeypatch.setattr(MNIST, "resources", [(f"{stem}.gz", sums[stem][0]) for stem in sums])
    handler = partial(Handler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setenv("no_proxy", "*")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield folder
        server.shutdown()


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        """Say nothing."""


def make_mnist(folder: Path) -> dict[str, tuple[str, ...]]:
    """Write four small files of random images and labels; return their checksums."""
    folder.mkdir()
    sums = {}
    for stem in data.MD5:
        shape = (200, 28, 28) if "images" in stem else (200,)
        header = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
        content = header + random.Random(stem).randbytes(math.prod(shape))
        packed = gzip.compress(content, mtime=0)
        (folder / f"{stem}.gz").write_bytes(packed)
        sums[stem] = tuple(
            hashlib.md5(x, usedforsecurity=False).hexdigest() for x in (packed, content)
        )
    return sums


def real_course(root: Path, **notebooks: list) -> Path:
    """A small course with the real Makefile and tools, and this Python in its .venv."""
    make_course(root, **notebooks)
    (root / "tests").mkdir()
    for name in ("Makefile", "package.json", "package-lock.json", "tests/constraints.txt"):
        shutil.copy(REAL / name, root / name)
    for name in ("requirements.txt", "requirements-dev.txt"):
        shutil.copy(REAL / name, root)
    shutil.copytree(REAL / "tools", root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    set_python(root, f"exec {shlex.quote(sys.executable)} -B")
    (root / ".venv/installed").touch()
    return root


def set_python(root: Path, script: str) -> None:
    """Let the course's Python be a shell script, which passes its arguments on."""
    python = root / ".venv/bin/python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f'#!/bin/sh\n{script} "$@"\n')
    python.chmod(0o755)


def by_hand() -> dict[str, str]:
    """The environment without what a `make` around these tests has put there."""
    outer = {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "ARGS", "NAMES"}
    return {name: value for name, value in os.environ.items() if name not in outer}


def make(root: Path, *args: str, **env: str) -> subprocess.CompletedProcess:
    """What `make` says in the course, as if called there by hand."""
    command = [shutil.which("make"), *args]
    return subprocess.run(command, cwd=root, env=by_hand() | env, capture_output=True, text=True)


# ---- disk --------------------------------------------------------------------------------------


@pytest.fixture
def disk() -> Iterator[Path]:
    """A real disk of 200 kB, in a namespace of its own."""
    script = "mount -t tmpfs -o size=200k none /mnt && echo mounted && exec sleep 600"
    mount = [*NAMESPACE, "sh", "-c", script]
    with subprocess.Popen(mount, stdout=-1, stderr=-1, text=True) as process:
        try:
            if process.stdout.readline() != "mounted\n":
                pytest.skip(f"a small disk cannot be mounted here: {process.stderr.read().strip()}")
            yield Path(f"/proc/{process.pid}/root/mnt")
        finally:
            process.kill()


def fill(disk: Path) -> Path:
    """A file that takes what room there is."""
    ballast = disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(bytes(10**6))
    return ballast


COMMANDS = {
    "run": lambda root, patch: command(execute, patch, "run"),
    "refresh": lambda root, patch: command(execute, patch, "refresh"),
    "stamp": lambda root, patch: command(stamp, patch, "--repo", "owner/name"),
    "bundle": lambda root, patch: bundle.main(),
    "site": lambda root, patch: site.build(root / "build/site"),
    "slides": lambda root, patch: slides.build(execute.find([]), root / "build/slides"),
}


@pytest.fixture
def commands(no_kernel, small_site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let slides and bundle need neither nbconvert nor git."""
    for module, name, value in [
        (bundle, "tracked", lambda: [course.ROOT / "utils/course.py"]),
        (bundle, "built", lambda: []),
        (slides, "render", lambda path: "deck"),
    ]:
        monkeypatch.setattr(module, name, value)


def in_course(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """A small course, in which the commands work."""
    make_course(root, **{"01_a": [("1", "setup")], "02_b": [("2", "setup")]})
    use(root, patch)
    patch.setattr(bundle, "ROOT", root)
    patch.setattr(course, "ROOT", root)
    patch.setattr(course, "DATA_DIR", root / "data")
    return root


@linux
@pytest.mark.parametrize("name", COMMANDS)
def test_full_disk_is_named_in_one_line_and_changes_nothing(name, commands, disk, monkeypatch):
    root = in_course(disk / ODD, monkeypatch)
    before, ballast = contents(root), fill(disk)
    with pytest.raises(SystemExit, match=r"^[^\n]+ cannot be written: No space left on device$"):
        COMMANDS[name](root, monkeypatch)
    assert contents(root) == before
    ballast.unlink()
    assert not COMMANDS[name](root, monkeypatch)
    assert contents(root) != before


@pytest.mark.parametrize("name", ["run", "bundle", "site", "slides"])
def test_build_that_is_no_folder_is_named_in_one_line(name, commands, tmp_path, monkeypatch):
    root = in_course(tmp_path / ODD, monkeypatch)
    (root / "build").touch()
    with pytest.raises(SystemExit, match=r"^[^\n]+build[^\n]+ cannot be written: [^\n]+$"):
        COMMANDS[name](root, monkeypatch)


@linux
def test_download_that_fills_the_disk_falls_back_and_leaves_nothing(
    disk, mirror, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(course, "DATA_DIR", tmp_path / "data")
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    assert data.load_mnist().source == "scikit-learn's bundled digits"
    assert re.search(r"the download failed \(OSError:.* No space left", capsys.readouterr().out)
    assert contents(disk) == {} and not (tmp_path / "data").exists()
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert data.load_mnist().source == "MNIST"
    assert contents(tmp_path / "data/MNIST/raw") == contents(mirror)


@linux
def test_data_folder_that_is_full_is_named_and_left_as_it_was(disk, mirror, monkeypatch, capsys):
    monkeypatch.setattr(course, "DATA_DIR", disk)
    ballast = fill(disk)
    assert data.load_mnist().source == "MNIST"
    assert "could not be kept in" in (said := capsys.readouterr().out)
    assert "(No space left on device), so the next run downloads them again" in said
    assert [path.name for path in disk.rglob("*") if path.is_file()] == ["ballast"]
    ballast.unlink()


@linux
def test_kernel_that_finds_no_room_is_named_in_one_line(disk, tmp_path, monkeypatch, capsys):
    use(make_course(tmp_path / "c", **{"01_a": ["1"]}), monkeypatch)
    fill(disk)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    assert command(execute, monkeypatch, "run") == 1
    first = capsys.readouterr().out.partition("\n")[0]
    assert re.fullmatch(r"01_a: no kernel: .*No space left on device.*", first)


@linux
def test_read_only_course_runs_and_says_in_one_line_that_it_keeps_nothing(tmp_path):
    root = real_course(tmp_path / ODD, **{"01_a": ["1"], "02_b": ["2"]})
    before = contents(root)
    script = (
        'mount --bind . . && mount -o remount,bind,ro . && cd "$PWD" && echo mounted && make run'
    )
    command = [*NAMESPACE, "sh", "-c", script]
    done = subprocess.run(command, cwd=root, env=by_hand(), capture_output=True, text=True)
    if not done.stdout.startswith("mounted\n"):
        pytest.skip(f"a folder cannot be made read-only here: {done.stderr.strip()}")
    assert re.fullmatch(r"mounted\n01_a: 1 cells, \d+\.\d s\n", done.stdout)
    reason, *rest = done.stderr.splitlines()
    assert re.fullmatch(r".*/build/01_a.ipynb cannot be written: Read-only file system", reason)
    assert done.returncode and len(rest) == 1 and rest[0].startswith("make: ***")
    assert contents(root) == before


# ---- folders and tools -------------------------------------------------------------------------


@pytest.mark.skipif(
    not (slides.MODULES / ".package-lock.json").exists(), reason="reveal.js is missing: run npm ci"
)
def test_slides_are_built_and_printed_in_an_odd_folder(tmp_path, page, monkeypatch):
    root = make_course(tmp_path / ODD / "#1?", **{"01_a": ["1"]})
    slides.build([root / "notebooks/01_a.ipynb"], root / "build/slides")
    slides.print_deck(page, root / "build/slides/01_a.html")
    assert (root / "build/slides/01_a.pdf").read_bytes().startswith(b"%PDF")


@posix
def test_without_npm_tests_go_on_and_slides_say_in_one_line_what_is_missing(tmp_path):
    root = real_course(tmp_path / ODD)
    set_python(root, "echo python")
    (tmp_path / "empty").mkdir()
    done = make(root, "test", PATH=str(tmp_path / "empty"))
    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == "npm is missing: install Node.js"
    assert done.stdout.splitlines()[-2:] == [
        "so slides and site are not tested",
        "python -m pytest -n 2",
    ]
    for name in ("slides", "site", "bundle"):
        done = make(root, name, PATH=str(tmp_path / "empty"))
        reason, *rest = done.stderr.splitlines()
        assert reason == "npm is missing: install Node.js" and done.stdout == ""
        assert done.returncode and len(rest) == 1 and rest[0].startswith("make: ***")


def test_run_needs_neither_git_nor_make(tmp_path):
    root = real_course(tmp_path / "c", **{"01_a": ["1"]})
    args = [sys.executable, "-m", "tools.execute", "run"]
    env = os.environ | {"PATH": str(tmp_path / "empty")}
    done = subprocess.run(args, cwd=root, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
