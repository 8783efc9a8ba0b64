"""`make stamp`: the address goes to its places and nowhere else, and a stale copy is noticed."""

import difflib
import json
import re
import shutil
from pathlib import Path

import pytest
from small_course import command, contents, make_course, use

from tools import stamp
from utils import course

OWNER = ("--repo", "owner/name", "--ref", "v1.0")
PLACES = (
    r"""REPO_(URL|REF) = |.*<!-- badge|\s*"url, ref, here = |.*<a href="""  # what stamping changes
)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the real README, address and two of the notebooks, without an address."""
    places = {".": "README.md", "utils": "course.py", "notebooks": "0[23]*.ipynb"}
    for folder, files in places.items():
        (tmp_path / folder).mkdir(exist_ok=True)
        for path in (stamp.ROOT / folder).glob(files):
            shutil.copy(path, tmp_path / folder)
    use(tmp_path, monkeypatch)
    command(stamp, monkeypatch, "--repo", "", "--ref", "main")
    return tmp_path


def test_no_copy_of_the_address_is_stale():
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


def test_stamping_changes_its_places_alone_and_stamping_back_restores_the_bytes(copy, monkeypatch):
    before = contents(copy)
    assert command(stamp, monkeypatch, *OWNER) == 0
    after = contents(copy)
    assert after.keys() == before.keys()
    for name in before:
        old, new = (text[name].decode().splitlines(keepends=True) for text in (before, after))
        changed = [line for line in difflib.ndiff(old, new) if line[0] in "+-"]
        assert len(changed) == {".ipynb": 4, ".md": 10, ".py": 4}[Path(name).suffix]
        assert [line for line in changed if not re.match(PLACES, line[2:])] == []
    command(stamp, monkeypatch, "--repo", "", "--ref", "main")
    assert contents(copy) == before


def test_stamped_links_lead_to_the_notebook_at_the_address(copy, monkeypatch):
    assert b"one-click links to come" in contents(copy)["README.md"]
    command(stamp, monkeypatch, *OWNER)
    after = {name: data.decode() for name, data in contents(copy).items()}
    colab = "https://colab.research.google.com/github/owner/name/blob/v1.0/notebooks/"
    binder = "https://mybinder.org/v2/gh/owner/name/v1.0?labpath=notebooks/"
    for path in stamp.NOTEBOOKS.glob("*.ipynb"):
        cells = json.loads(after[f"notebooks/{path.name}"])["cells"]
        title = "".join(cells[0]["source"])
        for text in (title, after["README.md"]):
            assert f'<a href="{colab}{path.name}">' in text
            assert f'<a href="{binder}{path.name}">' in text
        assert "<img" not in title, "slides and site would ask a server for it"
        setup = next(c for c in cells if "setup" in c["metadata"].get("tags", []))
        address = 'url, ref, here = "https://github.com/owner/name", "v1.0", Path.cwd()\n'
        assert address in setup["source"]
    address = 'REPO_URL = "https://github.com/owner/name"\nREPO_REF = "v1.0"\n'
    assert address in after["utils/course.py"]


STALE = {
    "utils/course.py": ("REPO_REF = ", "REPO_REF =  "),
    "README.md": ("links to come", "links have come"),
    "notebooks/02_computational_graphs.ipynb": ("import subprocess", "import  subprocess"),
    "notebooks/03_pitfalls.ipynb": ("<!-- badge -->", "<!-- badge -->Now! "),
}


@pytest.mark.parametrize("name", STALE)
def test_check_names_what_is_stale_and_writes_nothing(name, copy, monkeypatch, capsys):
    capsys.readouterr()
    assert command(stamp, monkeypatch, "--repo", "", "--ref", "main", "--check") == 0
    assert capsys.readouterr().out == ""
    text = (copy / name).read_text("utf-8")
    assert STALE[name][0] in text
    (copy / name).write_text(text.replace(*STALE[name], 1), "utf-8", newline="\n")
    before = contents(copy)
    assert command(stamp, monkeypatch, "--repo", "", "--ref", "main", "--check") == 1
    says = "is stale: make stamp writes its address, badge and setup cell anew"
    assert capsys.readouterr().out == f"{name} {says}\n"
    assert contents(copy) == before


BAD_REPOS = ["name", "a/b/c", "https://x/y", 'a/b"', "a b/c", "a/b\n", "-a/b", "a/..", "a/b.git"]


@pytest.mark.parametrize(
    "args",
    [(f"--repo={bad}",) for bad in BAD_REPOS]
    + [("--repo=a/b", f"--ref={bad}") for bad in ("-x", "a b", "", 'v"', "a..b", "a/")],
)
def test_a_bad_address_is_refused(args, monkeypatch):
    monkeypatch.delattr(stamp, "write")
    with pytest.raises(SystemExit, match="must (look like|be the name).*nothing was written$"):
        command(stamp, monkeypatch, *args)


def broken(root: Path, what: str) -> str:
    """The text of a notebook that cannot be stamped."""
    tag = None if what == "no setup cell" else "setup"
    path = make_course(root, **{"02_b": [("1", tag)]}) / "notebooks/02_b.ipynb"
    text = path.read_text("utf-8")
    return {"no badge": text.replace("<!-- badge -->", ""), "no JSON": "<<<<<<<"}.get(what, text)


@pytest.mark.parametrize(
    "what, reason",
    [
        ("no setup cell", "needs one cell tagged setup and one badge in its first cell"),
        ("no badge", "needs one cell tagged setup and one badge in its first cell"),
        ("no JSON", "is not a notebook: NotJSONError; nothing was written"),
    ],
)
def test_a_notebook_that_cannot_be_stamped_is_named(what, reason, copy, monkeypatch):
    (copy / "notebooks/06_b.ipynb").write_text(broken(copy / "other", what))
    before = contents(copy)
    with pytest.raises(SystemExit, match=f"^06_b.ipynb:? {reason}$"):
        command(stamp, monkeypatch, *OWNER)
    assert contents(copy) == before
