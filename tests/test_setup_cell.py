"""The setup cell, run for real in every situation, and the address that `make stamp` puts there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from tools import stamp
from utils.course import REPO_URL, ROOT, setup

NAMES = sorted(path.name for path in ROOT.glob("notebooks/*.ipynb"))
URL = "https://github.com/octo/gradients"
COLAB = "https://colab.research.google.com/github/octo/gradients/blob/main/notebooks/"
MESSAGE = """AssertionError: This notebook needs the course's utils folder. Download the whole \
course and open the notebook from there. Searched: """
CLOUDS = [{"COLAB_RELEASE_TAG": "x"}, {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}]


def setup_cell(root: Path, name: str = NAMES[0]) -> str:
    cells = json.loads((root / "notebooks" / name).read_text("utf-8"))["cells"]
    (cell,) = (cell for cell in cells if "setup" in cell["metadata"].get("tags", []))
    return "".join(cell["source"])


SETUP = setup_cell(ROOT)


def contents(root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): p.read_text("utf-8") for p in root.rglob("*.*")}


@pytest.fixture
def copy(monkeypatch, tmp_path) -> Path:
    """Copy what `make stamp` works on, without an address, and let it work there."""
    for name in ("README.md", "utils/course.py", *(f"notebooks/{name}" for name in NAMES)):
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "copy" / name)
    monkeypatch.setattr(stamp, "ROOT", tmp_path / "copy")
    monkeypatch.setattr(stamp, "REPO_URL", "")
    stamp.main()
    return tmp_path / "copy"


def test_address_reaches_its_places_alone_and_leaves_no_trace(copy, monkeypatch):
    before = contents(copy)
    with pytest.raises(SystemExit, match="REPO must look like owner/name, not .*nothing was wri"):
        stamp.main('octo/gradients"')
    assert contents(copy) == before
    assert "colab.research" not in "".join(before.values())
    stamp.main("octo/gradients")
    after = contents(copy)
    assert [after[name].count(URL) for name in before] == ["README" not in name for name in before]
    for name in NAMES:
        assert f'"{COLAB}{name}"' in after["README.md"] and URL in setup_cell(copy, name)
        assert json.dumps(f'<a href="{COLAB}{name}">')[1:-1] in after[f"notebooks/{name}"]
    assert "".join(after.values()).count("octo/") == 1 + 3 * len(NAMES)
    monkeypatch.setattr(stamp, "REPO_URL", "")  # what utils/course.py says is written anew
    stamp.main()
    assert contents(copy) == before


def test_no_place_is_stale(copy, monkeypatch):
    monkeypatch.setattr(stamp, "REPO_URL", REPO_URL)
    stamp.main()
    here = {name: (ROOT / name).read_text("utf-8") for name in contents(copy)}
    assert contents(copy) == here, "run `make stamp`"


def make_course(root: Path) -> Path:
    """Make a course whose utils need no PyTorch; return the file that the cell imports."""
    for folder in ("notebooks", "utils"):
        (root / folder).mkdir(parents=True)
    (root / "utils/__init__.py").touch()
    (root / "utils/course.py").write_text("def setup(seed):\n    print(__file__)\n")
    return root / "utils/course.py"


def run(code: str, folder: Path, **env: str) -> subprocess.CompletedProcess:
    """Run code as a kernel does, in a fresh interpreter with the folder on its path."""
    folder.mkdir(parents=True, exist_ok=True)
    env = {k: v for k, v in os.environ.items() if k not in (*CLOUDS[0], *CLOUDS[1])} | env
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def found(done: subprocess.CompletedProcess) -> Path:
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


FOREIGN, VS_CODE = "import utils", "__vsc_ipynb_file__ = {!r} + '/notebooks/01.ipynb'"


@pytest.mark.parametrize(
    ("folder", "before"),
    [(".", ""), ("notebooks", ""), ("notebooks", FOREIGN), ("..", ""), ("../elsewhere", VS_CODE)],
)
def test_course_is_found_twice_from_any_folder_and_beside_a_foreign_utils(folder, before, tmp_path):
    root = tmp_path / "à côté" / "course"
    file = make_course(root)
    (root / "notebooks/utils.py").touch()
    code = [before.format(str(root)), SETUP, "kept = course", SETUP, "assert course is kept"]
    assert found(run("\n".join(code), root / folder)) == file


def redirect(address: str) -> dict[str, str]:
    """Return an environment in which git takes another address for the stamped one."""
    names = ("GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0")
    return dict(zip(names, ("1", f"url.{address}.insteadOf", URL), strict=True))


@pytest.fixture
def origin(copy, tmp_path) -> dict[str, str]:
    """Stamp an address, and return an environment in which it leads to a course."""
    stamp.main("octo/gradients")
    make_course(tmp_path / "origin")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x.x"]
    for args in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *args], cwd=tmp_path / "origin", check=True)
    return redirect((tmp_path / "origin").as_uri())


@pytest.mark.skipif(sys.platform == "win32", reason="Colab and Kaggle run Linux")
@pytest.mark.parametrize("cloud", CLOUDS, ids=["Colab", "Kaggle"])
def test_alone_in_the_cloud_it_fetches_the_course_once(cloud, origin, copy, tmp_path):
    here = tmp_path / "content"
    for env in (origin, redirect("file:///not/asked/again")):
        done = run(setup_cell(copy), here, **cloud, **env)
        assert found(done) == here / "course/utils/course.py" and done.stderr == ""


@pytest.mark.parametrize("address, cloud", [("", {}), ("file:///nowhere", CLOUDS[0])])
def test_alone_without_cloud_or_network_it_names_the_folder(address, cloud, origin, copy, tmp_path):
    env = redirect(address) if address else origin
    done = run(setup_cell(copy), tmp_path / "alone", **cloud, **env)
    assert done.stderr.endswith(f"{MESSAGE}{tmp_path / 'alone'}\n")
    assert ("fatal: " in done.stderr) == bool(address) and os.listdir(tmp_path / "alone") == []


def test_errors_show_the_lines_of_the_notebook_alone(capsys):
    shell = InteractiveShell.instance()
    setup(seed=0)
    shell.run_cell("import torch\ndef f(x):\n    return x.backward()\nf(torch.ones(2))")
    InteractiveShell.clear_instance()
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "f(torch.ones(2))" in shown and "return x.backward()" in shown
    assert "RuntimeError" in shown and "_tensor.py" not in shown and "interactiveshell" not in shown
