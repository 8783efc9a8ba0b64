"""The maintainers' commands, on small notebooks in a temporary course; the setup cell, for real."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat import v4

from tools import execute, stamp
from utils import course

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\nstands for a picture").decode()
SAVE = f"""from IPython.display import display
display({{"image/png": "{PNG}"}}, metadata={{"image/png": {{"save": "curve"}}}}, raw=True)"""
STUB = '"""Stub."""\n\nREPO_URL = ""\nREPO_REF = "main"\n\n\ndef setup(seed=0):\n    pass\n'
BADGE = "# 1. Title\n\n<!-- badge -->\n\n<!-- /badge -->\n"


def make_course(root: Path, **notebooks: list) -> Path:
    """A course whose utils need no PyTorch; a cell is its source, or source and tag."""
    for folder in ("notebooks", "figures", "utils"):
        (root / folder).mkdir(parents=True)
    (root / "utils/__init__.py").touch()
    (root / "utils/course.py").write_text(STUB, newline="\n")
    for name, cells in notebooks.items():
        pairs = [(cell, None) if isinstance(cell, str) else cell for cell in cells]
        code = [v4.new_code_cell(s, metadata={"tags": [t]} if t else {}) for s, t in pairs]
        notebook = v4.new_notebook(cells=[v4.new_markdown_cell(BADGE), *code])
        stamp.write(root / "notebooks" / f"{name}.ipynb", stamp.dump(notebook))
    return root


def use(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Let the tools work on the course in `root`."""
    for module, name in [(execute, "NOTEBOOKS"), (stamp, "NOTEBOOKS"), (execute, "FIGURES")]:
        patch.setattr(module, name, root / name.lower())
    patch.setattr(execute, "BUILD", root / "build")
    patch.setattr(stamp, "ROOT", root)


def command(module, patch: pytest.MonkeyPatch, *args: str):
    patch.setattr(sys, "argv", [module.__name__, *args])
    return module.main()


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


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
        "04_dies, cell 1: the kernel died",
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
    for name in ("execute.py", "stamp.py"):
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


# ---- stamp -------------------------------------------------------------------------------------

README = "| [One](notebooks/01_a.ipynb) | <!-- badge 01_a --><!-- /badge --> |\n"


@pytest.fixture
def small(tmp_path, monkeypatch):
    root = make_course(tmp_path / "c", **{"01_a": [("pass", "setup"), "1"]})
    (root / "README.md").write_text(README)
    use(root, monkeypatch)
    command(stamp, monkeypatch, "--repo", "")
    return root


def test_no_copy_of_the_address_has_drifted():
    stale = stamp.stamp_all(course.REPO_URL, course.REPO_REF)
    assert [path.name for path in stale] == [], "run `make stamp`"


def test_readme_badges_name_notebooks():
    readme = (stamp.ROOT / "README.md").read_text(encoding="utf-8")
    names = {name for _, name, _ in stamp.BADGE.findall(readme)}
    assert names == {path.stem for path in stamp.NOTEBOOKS.glob("*.ipynb")}


def test_readme_links_lead_somewhere():
    readme = (stamp.ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", readme) if "://" not in link]
    assert links
    assert [link for link in links if not (stamp.ROOT / link).exists()] == []


def test_stamping_writes_every_copy_and_unstamping_restores_the_bytes(small, monkeypatch):
    before = contents(small)
    assert b"one-click link to come" in before["README.md"]
    command(stamp, monkeypatch, "--repo", "owner/name", "--ref", "v1.0")
    after = contents(small)
    assert all(after[name] != before[name] for name in before if name != "utils/__init__.py")
    link = "https://colab.research.google.com/github/owner/name/blob/v1.0/notebooks/01_a.ipynb"
    notebook = json.loads(after["notebooks/01_a.ipynb"])
    assert f'href="{link}"' in "".join(notebook["cells"][0]["source"])
    assert f'href="{link}"' in after["README.md"].decode()
    setup = stamp.render_setup("https://github.com/owner/name", "v1.0")
    assert '"https://github.com/owner/name", "v1.0"' in setup
    assert "".join(notebook["cells"][1]["source"]) == setup
    assert 'REPO_URL = "https://github.com/owner/name"\nREPO_REF = "v1.0"' in (
        after["utils/course.py"].decode()
    )
    command(stamp, monkeypatch, "--repo", "", "--ref", "main")
    assert contents(small) == before


BAD_REPOS = ["name", "a/b/c", "https://x/y", 'a/b"', "a b/c", "a/b\n", "-a/b", "a/..", "a/b.git"]


@pytest.mark.parametrize(
    "args",
    [(f"--repo={bad}",) for bad in BAD_REPOS]
    + [("--repo=a/b", f"--ref={bad}") for bad in ("-x", "a b", "", 'v"', "a..b", "a/")],
)
def test_a_bad_address_is_refused(args, small, monkeypatch):
    before = contents(small)
    with pytest.raises(SystemExit, match="must (look like|be the name).*nothing was written$"):
        command(stamp, monkeypatch, *args)
    assert contents(small) == before


@pytest.mark.parametrize("cells, title", [(["1"], BADGE), ([("1", "setup")], "# No badge")])
def test_a_notebook_without_setup_cell_or_badge_is_named(cells, title, small, monkeypatch):
    make_course(small.parent / "d", **{"02_b": cells})
    text = (small.parent / "d/notebooks/02_b.ipynb").read_text()
    text = text.replace("<!-- badge -->", "") if title != BADGE else text
    (small / "notebooks/02_b.ipynb").write_text(text)
    before = contents(small)
    with pytest.raises(SystemExit, match="02_b.ipynb: needs one cell tagged setup and one badge"):
        command(stamp, monkeypatch, "--repo", "owner/name")
    assert contents(small) == before


# ---- the setup cell ----------------------------------------------------------------------------

TELL = (
    "\nprint(course.__file__)\nassert sys.path[0] == str(root) and sys.path.count(str(root)) == 1"
)


def run_cell(cwd: Path, url: str = "", before: str = "", after: str = TELL, **env: str):
    """Run the setup cell as a kernel does, in a fresh interpreter with the folder on its path."""
    cwd.mkdir(parents=True, exist_ok=True)
    code = f"{before}\n{stamp.render_setup(url, 'main')}\n{after}"
    args = [sys.executable, "-c", code]
    return subprocess.run(args, cwd=cwd, env=os.environ | env, capture_output=True, text=True)


def found(done: subprocess.CompletedProcess) -> Path:
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture
def bare(tmp_path) -> str:
    """The address of a bare repository that holds a course."""
    root = make_course(tmp_path / "origin")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x.x", "-c", "init.defaultBranch=main"]
    for args in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *args], cwd=root, check=True)
    subprocess.run([*git, "clone", "-q", "--bare", root, tmp_path / "bare.git"], check=True)
    return (tmp_path / "bare.git").as_uri()


def test_setup_cell_is_short_and_plain_python():
    lines = stamp.render_setup("", "main").splitlines()
    title = '# @title Setup: find the course\'s files or fetch them { display-mode: "form" }'
    assert lines[0] == title
    assert sum(bool(line.strip()) for line in lines) <= 25
    assert not any(line.lstrip().startswith(("!", "%")) or "pip" in line for line in lines)


@pytest.mark.parametrize("folder", [".", "notebooks", "notebooks/deeper/still"])
def test_setup_finds_the_course_from_inside(folder, tmp_path):
    root = make_course(tmp_path / "c")
    assert found(run_cell(root / folder)) == root / "utils/course.py"


def test_setup_alone_fetches_the_course_once(bare, tmp_path):
    colab = tmp_path / "fake/google/colab"
    colab.mkdir(parents=True)
    (colab / "__init__.py").touch()
    env = {"PYTHONPATH": str(tmp_path / "fake"), "COLAB_RELEASE_TAG": "x"}
    here = tmp_path / "content"
    target = here / "course/utils/course.py"
    assert found(run_cell(here, bare, before="import google.colab", **env)) == target
    assert os.listdir(here) == ["course"]
    assert found(run_cell(here, url="file:///not/asked/again", **env)) == target


@pytest.mark.parametrize("url", ["", "file:///no/such/repository"])
def test_setup_fails_loudly_and_leaves_nothing(url, tmp_path):
    done = run_cell(tmp_path / "content", url)
    assert done.returncode == 1
    message = done.stderr.partition("RuntimeError: ")[2]
    assert message.startswith("git clone: fatal: ")
    assert (url.removeprefix("file://") or "an address not set yet") in message
    assert "Copy the course's folder utils beside this notebook" in message
    assert os.listdir(tmp_path / "content") == []


def test_setup_without_git_says_so(bare, tmp_path):
    done = run_cell(tmp_path / "content", bare, PATH=str(tmp_path / "empty"))
    assert re.search(r"RuntimeError: git clone: .+", done.stderr)
    assert os.listdir(tmp_path / "content") == []


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for git is a shell script")
def test_setup_leaves_nothing_of_a_clone_that_was_killed(tmp_path):
    git = tmp_path / "bin/git"
    git.parent.mkdir()
    git.write_text('#!/bin/sh\nfor last; do :; done\nmkdir -p "$last/utils"\nkill -9 $$\n')
    git.chmod(0o755)
    done = run_cell(tmp_path / "content", PATH=f"{git.parent}{os.pathsep}{os.environ['PATH']}")
    assert re.search(r"RuntimeError: git clone: .+", done.stderr)
    assert os.listdir(tmp_path / "content") == []


def test_setup_twice_keeps_the_modules_and_the_path(tmp_path):
    root = make_course(tmp_path / "c")
    again = f"\nkept = course\n{stamp.render_setup('', 'main')}\nassert course is kept{TELL}"
    assert found(run_cell(root / "notebooks", after=again)) == root / "utils/course.py"


@pytest.mark.parametrize("imported", ["", "import utils, utils.theirs"])
def test_setup_prefers_ours_to_a_foreign_utils(imported, tmp_path):
    root = make_course(tmp_path / "c")
    foreign = root / "notebooks/utils"
    foreign.mkdir()
    (foreign / "__init__.py").touch()
    (foreign / "theirs.py").touch()
    gone = "\nassert 'utils.theirs' not in sys.modules"
    done = run_cell(root / "notebooks", before=imported, after=TELL + gone)
    assert found(done) == root / "utils/course.py"
