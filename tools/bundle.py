"""Pack the course into build/NAME-REF.zip: it opens, and is read, without a network.

In the zip: a first page, every file that git tracks, build/slides, build/site, and MNIST where it
is at hand. The same files give the same bytes.
"""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat

from tools.stamp import NOTEBOOKS, ROOT, write
from utils import course

NAME = "computing-gradients-in-pytorch"
FIRST_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Computing gradients in PyTorch: what to open</title>
<style>
html { background: Canvas; color: CanvasText; font: 18px/1.6 system-ui, sans-serif }
body { max-width: 44rem; margin: 3rem auto; padding: 0 1rem }
h1 { line-height: 1.2 }
ol > li { margin: 0.7rem 0 }
</style>
<main>
<h1>Computing gradients in PyTorch</h1>
<p>Reading and projecting need a browser and nothing else, no network either.</p>
<ol>
<li><b>Read</b>: <a href="build/site/index.html">the course as web pages</a>.</li>
<li><b>Project</b>:<br><decks></li>
<li><b>Install</b>, once and with a network: in a terminal in this folder, <code>make run</code>
(Python 3.11 or newer). Without make, type the lines in README.md under <i>Start</i>.</li>
<li><b>Run</b> the notebooks, with or without a network: <code>make lab</code>.</li>
<li><b>Data</b>: MNIST <where>.</li>
</ol>
</main>
</html>
"""


def tracked() -> list[Path]:
    """The files that git tracks."""
    command = ["git", "ls-files", "-z"]
    try:
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        sys.exit("the bundle holds what git tracks: run this with git, in a clone of the course")
    return [ROOT / name for name in done.stdout.split("\0") if name]


def built() -> list[Path]:
    """The files of slides and site. Refuses if a notebook's deck or the front page is missing."""
    slides, site = ROOT / "build/slides", ROOT / "build/site"
    decks = [slides / f"{path.stem}.html" for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    for path in [*decks, site / "index.html"]:
        if not path.is_file():
            sys.exit(f"{path.relative_to(ROOT).as_posix()} is missing: make slides and site first")
    return [path for folder in (slides, site) for path in folder.rglob("*") if path.is_file()]


def first_page(mnist: bool) -> str:
    """What to open, in five lines of HTML."""
    links = []
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        title = nbformat.read(path, as_version=4).cells[0].source.partition("\n")[0].lstrip("# ")
        deck = f"build/slides/{path.stem}"
        pdf = f' (<a href="{deck}.pdf">PDF</a>)' if (ROOT / f"{deck}.pdf").is_file() else ""
        links.append(f'<a href="{deck}.html">{title}</a>{pdf}')
    where = "is in this folder" if mnist else "is downloaded by notebook 05, or smaller digits used"
    return FIRST_PAGE.replace("<decks>", "<br>\n".join(links)).replace("<where>", where)


def pack(files: dict[str, bytes], folder: str) -> bytes:
    """A zip of the files, by name, in one folder; same files, same bytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in sorted(files.items()):
            info = zipfile.ZipInfo(f"{folder}/{name}")  # of 1980, on every machine
            info.create_system, info.compress_type = 3, zipfile.ZIP_DEFLATED
            info.external_attr = (0o100755 if content.startswith(b"#!") else 0o100644) << 16
            archive.writestr(info, content)
    return data.getvalue()


def main() -> None:
    mnist = list((course.DATA_DIR / "MNIST/raw").glob("*-ubyte.gz"))
    mnist = mnist if len(mnist) == 4 else []  # all of it, or none
    paths = [*tracked(), *built()]
    try:
        files = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}
        files |= {f"data/MNIST/raw/{path.name}": path.read_bytes() for path in mnist}
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}; nothing was written")
    files["OPEN_ME.html"] = first_page(bool(mnist)).encode()
    stem = f"{NAME}-{course.REPO_REF.replace('/', '-')}"
    data = pack(files, stem)
    write(ROOT / f"build/{stem}.zip", data)
    size = f"{len(files)} files, {len(data) / 1e6:.1f} MB"
    print(f"build/{stem}.zip: {size}, {'with' if mnist else 'without'} MNIST")


if __name__ == "__main__":
    main()
