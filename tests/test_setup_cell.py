"""The setup cell, run for real in every situation, and the address that `make stamp` puts there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

from tools import stamp
from utils.course import REPO_URL, ROOT, setup

NAMES = sorted(path.name for path in ROOT.glob("notebooks/*.ipynb"))
STAMPED = ["README.md", *(f"notebooks/{name}" for name in NAMES)]
URL = "https://github.com/octo/gradients"
COLAB = "https://colab.research.google.com/github/octo/gradients/blob/main/notebooks/"
CLOUDS = ["COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"]
MESSAGE = """AssertionError: This notebook needs the course's utils folder. Download the whole \
course and open the notebook from there. Searched: """


@pytest.fixture
def course(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Copy the course without an address, with utils that need no PyTorch; stamp works there."""
    root = tmp_path / "à côté" / "course"
    for name in STAMPED:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / "utils").mkdir()
    (root / "utils/__init__.py").touch()
    code = 'REPO_URL = ""\n\n\ndef setup(seed):\n    print(__file__)\n'
    (root / "utils/course.py").write_text(code)
    monkeypatch.setattr(stamp, "ROOT", root)
    monkeypatch.setattr(stamp, "REPO_URL", "")
    stamp.main()
    return root


def setup_cell(root: Path, name: str = NAMES[0]) -> str:
    cells = nbformat.read(root / "notebooks" / name, as_version=4).cells
    return next(cell.source for cell in cells if "setup" in cell.metadata.get("tags", []))


def contents(root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): p.read_text("utf-8") for p in root.rglob("*.*")}


def test_address_reaches_its_places_alone_and_leaves_no_trace(course):
    before = contents(course)
    with pytest.raises(SystemExit, match="REPO must look like owner/name, not .*nothing was wri"):
        stamp.main('octo/gradients"')
    assert contents(course) == before
    stamp.main("octo/gradients")
    after = contents(course)
    assert f'REPO_URL = "{URL}"' in after["utils/course.py"]
    for name in NAMES:
        link = f'<a href="{COLAB}{name}">'
        assert link in after["README.md"] and URL in setup_cell(course, name)
        assert json.dumps(link)[1:-1] in after[f"notebooks/{name}"]
    assert "".join(after.values()).count("octo/") == 1 + 3 * len(NAMES)
    stamp.main()  # writes what utils/course.py said when the course was opened
    assert contents(course) == before


def test_no_place_is_stale(course, monkeypatch):
    monkeypatch.setattr(stamp, "REPO_URL", REPO_URL)
    stamp.main()
    for name in STAMPED:
        texts = [(root / name).read_text("utf-8") for root in (course, ROOT)]
        assert texts[0] == texts[1], "run `make stamp`"


def run(code: str, folder: Path, **env: str) -> subprocess.CompletedProcess:
    """Run code as a kernel does, in a fresh interpreter with the folder on its path."""
    folder.mkdir(parents=True, exist_ok=True)
    how = {"cwd": folder, "env": os.environ | env, "capture_output": True, "text": True}
    return subprocess.run([sys.executable, "-c", code], **how)


FOREIGN, VS_CODE = "import utils", "__vsc_ipynb_file__ = {!r} + '/notebooks/01.ipynb'"


@pytest.mark.parametrize(
    ("folder", "before"),
    [(".", ""), ("notebooks", ""), ("notebooks", FOREIGN), ("..", ""), ("../elsewhere", VS_CODE)],
)
def test_course_is_found_twice_from_any_folder_and_beside_a_foreign_utils(folder, before, course):
    (course / "notebooks/utils.py").touch()
    cell = setup_cell(course)
    code = [before.format(str(course)), cell, "kept = course", cell, "assert course is kept"]
    done = run("\n".join(code), course / folder)
    assert Path(done.stdout.splitlines()[-1]) == course / "utils/course.py", done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Colab and Kaggle run Linux")
@pytest.mark.parametrize("cloud", CLOUDS)
def test_alone_in_the_cloud_it_fetches_the_course_once(cloud, course, monkeypatch, tmp_path):
    git, here = ["git", "-c", "user.name=x", "-c", "user.email=x@x.x"], tmp_path / "content"
    for args in (["init", "-q"], ["add", "utils"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *args], cwd=course, check=True)
    for address in (course.as_uri(), "file:///not/asked/again"):
        monkeypatch.setattr(stamp, "REPO_URL", address)
        stamp.main()
        done = run(setup_cell(course), here, **{cloud: "x"})
        assert done.stdout == f"{here / 'course/utils/course.py'}\n" and done.stderr == ""


@pytest.mark.parametrize("env", [{}, {CLOUDS[0]: "x"}], ids=["no cloud", "no network"])
def test_alone_without_cloud_or_network_it_names_the_folder(env, course, monkeypatch, tmp_path):
    monkeypatch.setattr(stamp, "REPO_URL", "file:///nowhere")
    stamp.main()
    done = run(setup_cell(course), tmp_path / "alone", **env)
    assert done.stderr.endswith(f"{MESSAGE}{tmp_path / 'alone'}\n")
    assert ("fatal: " in done.stderr) == bool(env) and os.listdir(tmp_path / "alone") == []


def test_errors_show_the_lines_of_the_notebook_alone(capsys):
    shell = InteractiveShell.instance()
    setup(seed=0)
    shell.run_cell("import torch\ndef f(x):\n    return x.backward()\nf(torch.ones(2))")
    InteractiveShell.clear_instance()
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "f(torch.ones(2))" in shown and "return x.backward()" in shown
    assert "RuntimeError" in shown and "_tensor.py" not in shown and "interactiveshell" not in shown
