"""Binder and the workflows: what they install and call is what the course needs and has."""

import re
from pathlib import Path

import pytest
import yaml

from tools import bundle

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
MAKE = re.compile(r"\bmake ([a-z -]+)")


def packages(path: Path) -> set[str]:
    return set(re.findall(r"^[a-z][\w-]*", path.read_text("utf-8"), re.MULTILINE))


def test_binder_installs_what_the_notebooks_import_for_the_processor():
    wanted = packages(ROOT / "requirements.txt") - {"jupyter", "nbval"}  # Binder's own; the tests'
    assert packages(ROOT / ".binder/requirements.txt") == wanted
    options = re.findall(r"^-.*", (ROOT / ".binder/requirements.txt").read_text(), re.MULTILINE)
    assert options == [
        "--extra-index-url https://download.pytorch.org/whl/cpu",
        "-c ../tests/constraints.txt",
    ]
    version = (ROOT / ".binder/runtime.txt").read_text().removeprefix("python-").strip()
    tested = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    assert f'python: "{version}"' in tested


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_calls_commands_that_the_makefile_has(path):
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"].values()
    steps = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    called = {name for step in steps for name in " ".join(MAKE.findall(step)).split()}
    assert called and called <= TARGETS


def test_every_command_that_is_written_down_is_one():
    for text in ((ROOT / "README.md").read_text("utf-8"), bundle.FIRST_PAGE):
        called = set(re.findall(r"(?:`|<code>|^)make ([a-z]+)", text, re.MULTILINE))
        assert called and called <= TARGETS
