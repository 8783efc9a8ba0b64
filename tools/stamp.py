"""Write the course's address into utils/course.py, the setup cells and the badges.

The address stands in utils/course.py; everything else is derived from it. `make stamp` without
a REPO therefore only brings the copies up to date.
"""

import argparse
import os
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
GITHUB, COLAB = "https://github.com/", "https://colab.research.google.com"
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
        fix = "Copy the course's folder utils beside this notebook and run this cell again"
        raise RuntimeError(f"git clone: {getattr(error, 'stderr', '') or error}\\n{fix}") from None
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


def render_badge(name: str, url: str, ref: str) -> str:
    """The way into Colab for notebook `name`: a link, or words while there is no address.

    In HTML, since Markdown beside a comment that begins a line is not rendered.
    """
    if not url:
        return "Colab: upload this notebook and the folder utils (one-click link to come)"
    link = f"{COLAB}/github/{url.removeprefix(GITHUB)}/blob/{ref}/notebooks/{name}.ipynb"
    picture = f'<img src="{COLAB}/assets/colab-badge.svg" alt="Open in Colab: {name}">'
    return f'<a href="{link}">{picture}</a>'


def stamp_text(text: str, name: str, url: str, ref: str) -> str:
    """`text` with every badge renewed; a badge that names no notebook is one for `name`."""
    return BADGE.sub(lambda m: m[1] + render_badge(m[2] or name, url, ref) + m[3], text)


def stamp_notebook(path: Path, url: str, ref: str) -> str:
    """The notebook's text with its setup cell and its badge renewed."""
    notebook = nbformat.read(path, as_version=4)
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
    path.parent.mkdir(exist_ok=True)
    half = path.with_name(f".{path.name}.half")
    try:
        half.write_bytes(data.encode() if isinstance(data, str) else data)
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)


def main() -> None:
    from utils import course

    parser = argparse.ArgumentParser(prog="python -m tools.stamp", description=__doc__)
    parser.add_argument("--repo", help="owner/name on GitHub; '' for no address")
    parser.add_argument("--ref", default=course.REPO_REF, help="branch or tag")
    args = parser.parse_args()
    repo = r"[A-Za-z0-9][A-Za-z0-9-]*/(?!\.+$)[\w.-]+(?<!\.git)"
    if args.repo and not re.fullmatch(repo, args.repo, re.ASCII):
        sys.exit(f"REPO must look like owner/name, not {args.repo!r}; nothing was written")
    if not re.fullmatch(r"\w+([./-]\w+)*", args.ref, re.ASCII):
        sys.exit(f"REF must be the name of a branch or tag, not {args.ref!r}; nothing was written")
    url = course.REPO_URL if args.repo is None else args.repo and GITHUB + args.repo
    texts = stamp_all(url, args.ref)
    for path, text in texts.items():
        write(path, text)
        print(f"stamped {path.relative_to(ROOT).as_posix()}")


if __name__ == "__main__":
    main()
