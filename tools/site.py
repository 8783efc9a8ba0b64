"""Build the web edition, `site/` and the notebooks as they are stored, into build/site/."""

import os
import shutil
import sys
import time
import zipfile
from pathlib import Path

from tools.stamp import NOTEBOOKS, ROOT

SITE, MATHJAX = ROOT / "build/site", ROOT / "node_modules/mathjax/es5/tex-svg.js"
DOWNLOAD = ["notebooks/*.ipynb", "utils/*.*", "data/README.md", "requirements.txt", "LICENSE"]
UNUSED = ("*.map", "_static/locales", "_sphinx_design_static", ".buildinfo", "objects.inv")


def build(target: Path) -> None:
    """Build the site at `target`: all of it or, after a warning of Sphinx, nothing."""
    from sphinx.cmd.build import build_main

    work = target.with_name(f".{target.name}.half")
    source, html = work / "source", work / "html"
    try:
        shutil.rmtree(work, ignore_errors=True)  # what a build that was killed has left
        stage(source)
        arguments = ["-q", "-W", "--keep-going", "-d", work / "doctrees", source, html]
        if build_main([str(argument) for argument in arguments]):
            sys.exit("the site has mistakes (see above); nothing was written")
        for path in [path for pattern in UNUSED for path in html.rglob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if target.exists():
            target.rename(work / "old")
        os.replace(html, target)
    except OSError as error:
        reason = error.strerror or error.args[0][-1][-1]  # shutil.Error has a list of them
        sys.exit(f"{target} cannot be written: {reason}")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def stage(source: Path) -> None:
    """Lay out what Sphinx reads: pages, notebooks, pictures, MathJax, the course as one zip."""
    shutil.copytree(ROOT / "site", source, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "figures", source / "figures")
    for notebook in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(notebook, source)
    (source / "_static/mathjax").mkdir()
    shutil.copy(MATHJAX, source / "_static/mathjax")
    with zipfile.ZipFile(source / "course.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for pattern in DOWNLOAD for path in ROOT.glob(pattern)):
            name = zipfile.ZipInfo(f"course/{path.relative_to(ROOT).as_posix()}")
            archive.writestr(name, path.read_bytes(), zipfile.ZIP_DEFLATED)


def main() -> None:
    if not MATHJAX.exists():
        sys.exit("MathJax is missing: run npm ci")
    start = time.perf_counter()
    build(SITE)
    size = sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) / 1e6
    print(f"{SITE / 'index.html'}: {time.perf_counter() - start:.1f} s, {size:.1f} MB")


if __name__ == "__main__":
    main()
