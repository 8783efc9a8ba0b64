"""Write the course's address into utils/course.py, the setup cells and the badges.

The address stands in utils/course.py; everything else is derived from it. `make stamp` without
a REPO therefore only brings the copies up to date, and with CHECK=1 says which are not.
"""

import argparse
import contextlib
import os
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
GITHUB = "https://github.com/"
COLAB, BINDER = "https://colab.research.google.com", "https://mybinder.org"
BADGE = re.compile(r"(<!-- badge(?: (\w+))? -->\n?).*?(\n?<!-- /badge -->)", re.DOTALL)
SETUP = """\
# @title Setup: find the course's files or fetch them { display-mode: "form" }
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

url, ref, here = "<url>", "<ref>", Path.cwd()
places = [here, *here.parents, here / "course"]
root = next((p for p in places if (p / "utils/course.py").is_file()), None)
if root is None:  # the notebook was opened alone, as in Colab
    try:
        with TemporaryDirectory(dir=here) as half:  # nothing half-made stays behind
            clone = ["git", "clone", "-q", "--depth", "1", "--branch", ref, url, half + "/course"]
            env = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
            subprocess.run(clone, check=True, capture_output=True, text=True, env=env)
            root = Path(half, "course").rename(here / "course")
    except (OSError, subprocess.CalledProcessError) as error:
        fix = f"{url} could not be fetched: copy the course's folder utils beside this notebook"
        raise RuntimeError(f"{getattr(error, 'stderr', '') or error}\\n{fix}") from None
sys.path[:] = [str(root), *(p for p in sys.path if p != str(root))]
if Path(getattr(sys.modules.get("utils"), "__file__", None) or "").parent != root / "utils":
    for name in [m for m in sys.modules if m.split(".")[0] == "utils"]:
        del sys.modules[name]  # another package called utils
from utils import course

course.setup(seed=0)
"""


def render_setup(url: str, ref: str) -> str:
    """The source of the setup cell, the same in every notebook."""
    source = SETUP.replace("<url>", url or "an address not set yet")
    return source.replace("<ref>", ref).rstrip("\n")


def render_badge(name: str, url: str, ref: str, pictures: bool = False) -> str:
    """The ways into Colab and Binder for notebook `name`; words while there is no address.

    In HTML, since Markdown beside a comment that begins a line is not rendered.
    """
    if not url:
        return "Colab and Binder: one-click links to come"
    repo, path = url.removeprefix(GITHUB), f"notebooks/{name}.ipynb"
    ways = {
        "Colab": (f"{COLAB}/github/{repo}/blob/{ref}/{path}", f"{COLAB}/assets/colab-badge.svg"),
        "Binder": (f"{BINDER}/v2/gh/{repo}/{ref}?labpath={path}", f"{BINDER}/badge_logo.svg"),
    }
    if not pictures:
        return "Open in " + " or ".join(f'<a href="{w[0]}">{way}</a>' for way, w in ways.items())
    return " ".join(
        f'<a href="{link}"><img src="{picture}" alt="Open in {way}: {name}"></a>'
        for way, (link, picture) in ways.items()
    )


def stamp_text(text: str, name: str, url: str, ref: str) -> str:
    """`text` with every badge renewed; a badge that names no notebook is one for `name`.

    Only those that name one get pictures, as in the README: those of a notebook would be fetched
    by slides and site, which must not need a network.
    """
    return BADGE.sub(lambda m: m[1] + render_badge(m[2] or name, url, ref, bool(m[2])) + m[3], text)


def stamp_notebook(path: Path, url: str, ref: str) -> str:
    """The notebook's text with its setup cell and its badge renewed."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat promises no particular one
        sys.exit(f"{path.name} is not a notebook: {type(error).__name__}; nothing was written")
    title = notebook.cells[0] if notebook.cells else {"source": ""}
    setups = [c for c in notebook.cells if "setup" in c.metadata.get("tags", [])]
    if len(setups) != 1 or len(BADGE.findall(title["source"])) != 1:
        sys.exit(f"{path.name}: needs one cell tagged setup and one badge in its first cell")
    title.source = stamp_text(title.source, path.stem, url, ref)
    setups[0].source = render_setup(url, ref)
    return dump(notebook)


def stamp_all(url: str, ref: str) -> dict[Path, str]:
    """The new text of every file that does not say `url` and `ref` yet."""
    source, readme = ROOT / "utils/course.py", ROOT / "README.md"
    text = re.sub("^REPO_URL = .*", f'REPO_URL = "{url}"', source.read_text("utf-8"), flags=re.M)
    texts = {source: re.sub("^REPO_REF = .*", f'REPO_REF = "{ref}"', text, flags=re.M)}
    if readme.exists():
        texts[readme] = stamp_text(readme.read_text("utf-8"), "", url, ref)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        texts[path] = stamp_notebook(path, url, ref)
    return {path: text for path, text in texts.items() if text != path.read_text("utf-8")}


def dump(notebook: nbformat.NotebookNode) -> str:
    """The notebook as the text that its file holds."""
    return nbformat.writes(notebook) + "\n"


def write(path: Path, data: str | bytes) -> None:
    """Write the whole file or nothing: a reader never meets half of it."""
    half = path.with_name(f".{path.name}.half")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(data.encode() if isinstance(data, str) else data)
        os.replace(half, path)
    except OSError as error:
        sys.exit(f"{path} cannot be written: {error.strerror}")
    finally:
        with contextlib.suppress(OSError):
            half.unlink()


def main() -> int:
    from utils import course

    parser = argparse.ArgumentParser(prog="python -m tools.stamp", description=__doc__)
    parser.add_argument("--repo", help="owner/name on GitHub; '' for no address")
    parser.add_argument("--ref", default=course.REPO_REF, help="branch or tag")
    parser.add_argument("--check", action="store_true", help="write nothing, fail where stale")
    args = parser.parse_args()
    repo = r"[A-Za-z0-9][A-Za-z0-9-]*/(?!\.+$)[\w.-]+(?<!\.git)"
    if args.repo and not re.fullmatch(repo, args.repo, re.ASCII):
        sys.exit(f"REPO must look like owner/name, not {args.repo!r}; nothing was written")
    if not re.fullmatch(r"\w+([./-]\w+)*", args.ref, re.ASCII):
        sys.exit(f"REF must be the name of a branch or tag, not {args.ref!r}; nothing was written")
    url = course.REPO_URL if args.repo is None else args.repo and GITHUB + args.repo
    texts = stamp_all(url, args.ref)
    for path, text in texts.items():
        name = path.relative_to(ROOT).as_posix()
        if args.check:
            print(f"{name} is stale: make stamp writes its address, badge and setup cell anew")
        else:
            write(path, text)
            print(f"stamped {name}")
    return int(args.check and bool(texts))


if __name__ == "__main__":
    sys.exit(main())
