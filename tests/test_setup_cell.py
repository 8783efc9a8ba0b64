"""The setup cell, run for real: anywhere, alone, twice, without git, beside another `utils`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_course import make_course

from tools import stamp

TELL = (
    "\nprint(course.__file__)\nassert sys.path[0] == str(root) and sys.path.count(str(root)) == 1"
)


def run_cell(
    cwd: Path, url: str = "", ref: str = "main", before: str = "", after: str = TELL, **env: str
) -> subprocess.CompletedProcess:
    """Run the setup cell as a kernel does, in a fresh interpreter with the folder on its path."""
    cwd.mkdir(parents=True, exist_ok=True)
    code = f"{before}\n{stamp.render_setup(url, ref)}\n{after}"
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
    root = make_course(tmp_path / "a course, à côté")
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


def test_setup_fetches_into_any_folder_and_leaves_what_is_there(bare, tmp_path):
    here = tmp_path / "my folder, à moi"
    (here / "utils").mkdir(parents=True)
    (here / "utils/__init__.py").write_text("raise ImportError('another package')")
    assert found(run_cell(here, bare)) == here / "course/utils/course.py"
    assert sorted(os.listdir(here)) == ["course", "utils"]


def test_setup_fetches_the_stamped_tag(bare, tmp_path):
    subprocess.run(["git", "tag", "v1.0"], cwd=tmp_path / "bare.git", check=True)
    done = run_cell(tmp_path / "content", bare, ref="v1.0")
    assert found(done) == tmp_path / "content/course/utils/course.py"
    done = run_cell(tmp_path / "other", bare, ref="v2.0")
    assert "v2.0 not found" in refused(done, tmp_path / "other")


def refused(done: subprocess.CompletedProcess, here: Path) -> str:
    """Why, after checking that the cell failed with one message, and left nothing behind."""
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    reason, _, fix = done.stderr.rstrip().partition("RuntimeError: ")[2].rpartition("\n")
    assert "could not be fetched: copy the course's folder utils beside this notebook" in fix
    assert os.listdir(here) == []
    return reason + fix


@pytest.mark.parametrize("url", ["", "file:///no/such/repository"])
def test_setup_with_a_wrong_address_says_so(url, tmp_path):
    reason = refused(run_cell(tmp_path, url), tmp_path)
    assert reason.startswith("fatal: ")
    assert (url or "an address not set yet") + " could not be fetched" in reason


def test_setup_without_git_says_so(bare, tmp_path):
    here = tmp_path / "content"
    done = run_cell(here, bare, PATH=str(tmp_path / "empty"))
    assert re.search(r"No such file .*'git'|cannot find the file", refused(done, here))


def test_setup_without_the_right_to_write_says_so(bare, tmp_path):
    deny = "import tempfile\ndef no(*args, **kw): raise PermissionError(13, 'Permission denied')\n"
    here = tmp_path / "content"
    done = run_cell(here, bare, before=deny + "tempfile.mkdtemp = no")
    assert refused(done, here).startswith("[Errno 13] Permission denied")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for git is a shell script")
@pytest.mark.parametrize(
    "script, reason",
    [("kill -9 $$", "SIGKILL"), ("echo prompts: $GIT_TERMINAL_PROMPT >&2; exit 1", "prompts: 0")],
)
def test_setup_leaves_nothing_of_a_clone_that_failed_and_lets_git_ask_nothing(
    script, reason, tmp_path
):
    git = tmp_path / "bin/git"
    git.parent.mkdir()
    git.write_text(f'#!/bin/sh\nfor last; do :; done\nmkdir -p "$last/utils"\n{script}\n')
    git.chmod(0o755)
    here = tmp_path / "content"
    done = run_cell(here, PATH=f"{git.parent}{os.pathsep}{os.environ['PATH']}")
    assert reason in refused(done, here)


def test_setup_twice_keeps_the_modules_and_the_path(tmp_path):
    root = make_course(tmp_path / "c")
    again = f"\nkept = course\n{stamp.render_setup('', 'main')}\nassert course is kept{TELL}"
    assert found(run_cell(root / "notebooks", after=again)) == root / "utils/course.py"


@pytest.mark.parametrize(
    "file, imported",
    [
        ("utils.py", ""),
        ("utils.py", "import utils"),
        ("utils/__init__.py", ""),
        ("utils/__init__.py", "import utils"),
        ("utils/theirs.py", "import utils.theirs"),
    ],
)
def test_setup_prefers_ours_to_a_foreign_utils(file, imported, tmp_path):
    root = make_course(tmp_path / "c")
    foreign = root / "notebooks" / file
    foreign.parent.mkdir(exist_ok=True)
    foreign.touch()
    gone = "\nassert 'utils.theirs' not in sys.modules"
    done = run_cell(root / "notebooks", before=imported, after=TELL + gone)
    assert found(done) == root / "utils/course.py"
