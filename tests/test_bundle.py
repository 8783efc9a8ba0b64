"""`make bundle`: what is in the zip, that it is whole or not there, and that a browser reads it."""

import os
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import Page
from small_course import contents, make_course

from tools import bundle
from utils import course

ZIP = "build/computing-gradients-in-pytorch-v1.0.zip"
FOLDER = "computing-gradients-in-pytorch-v1.0"
DECK = "<!doctype html><html lang='en'><title>Deck</title><h1>A deck</h1>"
MNIST = [f"{name}-ubyte" for name in ("a-idx3", "a-idx1", "b-idx3", "b-idx1")]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small course in git with slides and site, some files that git ignores, and MNIST."""
    root = make_course(tmp_path / "c", **{"01_a": ["1"], "02_b": ["2"]})
    files = {
        ".gitignore": "build/\nprivate\ndata/",
        ".ci/run": "#!/bin/sh\n",
        "private": "secret",
        "build/01_a.ipynb": "executed",
        "build/site/index.html": DECK.replace("deck", "site").replace("Deck", "Site"),
        "build/site/_static/a.js": "",
        "build/slides/01_a.html": DECK,
        "build/slides/01_a.pdf": "%PDF",
        "build/slides/02_b.html": DECK,
        **{f"data/MNIST/raw/{name}{end}": name for name in MNIST for end in ("", ".gz")},
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    for module, name, value in [
        (bundle, "ROOT", root),
        (bundle, "NOTEBOOKS", root / "notebooks"),
        (course, "DATA_DIR", root / "data"),
        (course, "REPO_REF", "v1.0"),
    ]:
        monkeypatch.setattr(module, name, value)
    return root


def names(root: Path) -> list[str]:
    """What is in the zip, without its one folder."""
    with zipfile.ZipFile(root / ZIP) as archive:
        assert archive.testzip() is None
        assert {name.partition("/")[0] for name in archive.namelist()} == {FOLDER}
        return [name.partition("/")[2] for name in archive.namelist()]


def test_bundle_holds_what_is_tracked_and_built_and_mnist(small, capsys):
    bundle.main()
    ignored = {"private", "build/01_a.ipynb", *(f"data/MNIST/raw/{name}" for name in MNIST)}
    there = {name for name in contents(small) if not name.startswith(".git/") and name != ZIP}
    assert names(small) == sorted(there - ignored | {"OPEN_ME.html"})
    size = f"{(small / ZIP).stat().st_size / 1e6:.1f} MB"
    assert capsys.readouterr().out == f"{ZIP}: {len(names(small))} files, {size}, with MNIST\n"
    with zipfile.ZipFile(small / ZIP) as archive:
        assert archive.read(f"{FOLDER}/utils/course.py") == (small / "utils/course.py").read_bytes()
        mode = archive.getinfo(f"{FOLDER}/.ci/run").external_attr >> 16
        assert stat.S_ISREG(mode) and mode & 0o111


def test_bundle_has_the_same_bytes_whenever_it_is_made(small):
    bundle.main()
    first = (small / ZIP).read_bytes()
    for path in small.rglob("*.html"):
        path.write_bytes(path.read_bytes())
        path.chmod(0o600)
    bundle.main()
    assert (small / ZIP).read_bytes() == first


def test_bundle_without_all_of_mnist_has_none_and_says_so(small, capsys):
    (small / f"data/MNIST/raw/{MNIST[0]}.gz").unlink()
    bundle.main()
    assert not [name for name in names(small) if name.startswith("data")]
    assert capsys.readouterr().out.endswith(", without MNIST\n")
    assert "MNIST is downloaded by notebook 05" in bundle.first_page(mnist=False)


@pytest.mark.parametrize(
    "lost, reason",
    [
        ("build/slides", r"build/slides/01_a.html is missing: make slides and site first"),
        (
            "build/slides/02_b.html",
            r"build/slides/02_b.html is missing: make slides and site first",
        ),
        ("build/site", r"build/site/index.html is missing: make slides and site first"),
        (".git", r"the bundle holds what git tracks: run this with git, in a clone of the course"),
        ("utils/course.py", r".*course.py: No such file or directory; nothing was written"),
    ],
)
def test_bundle_is_not_made_without_what_belongs_in_it(lost, reason, small, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(small.parent))
    path = small / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = contents(small)
    with pytest.raises(SystemExit, match=f"^{reason}$"):
        bundle.main()
    assert contents(small) == before


def test_bundle_is_whole_or_not_there(small, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    before = contents(small)
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bundle.main()
    assert contents(small) == before


def test_first_page_leads_everywhere_without_a_network(small, tmp_path, page: Page):
    bundle.main()
    with zipfile.ZipFile(small / ZIP) as archive:
        archive.extractall(tmp_path / "a stick, à moi")
    first = tmp_path / "a stick, à moi" / FOLDER / "OPEN_ME.html"
    page.goto(first.as_uri())
    assert len(page.query_selector_all("li")) == 5
    links = [a.get_attribute("href") for a in page.query_selector_all("a")]
    decks = ["01_a.html", "01_a.pdf", "02_b.html"]
    assert links == ["build/site/index.html", *(f"build/slides/{deck}" for deck in decks)]
    assert [link for link in links if not (first.parent / unquote(link)).is_file()] == []
    for link, title in {"the course as web pages": "Site", "1. Title": "Deck"}.items():
        page.goto(first.as_uri())
        page.click(f"text={link}")
        assert page.title() == title
