"""Write the course's address, or what utils/course.py says, into setup cells and Colab links."""

import re
import sys

import nbformat

from utils.course import REPO_URL, ROOT

FETCH = """if os.getenv("COLAB_RELEASE_TAG") or os.getenv("KAGGLE_KERNEL_RUN_TYPE"):
    url = "<url>"
    os.system(f"test -d course || git clone -q --depth 1 {url} course")"""


def edit(name: str, old: str, new: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    (ROOT / name).write_text(re.sub(old, new, text), "utf-8")


def main(repo: str = "") -> None:
    if repo and not re.fullmatch(r"[A-Za-z\d][A-Za-z\d-]*/(?!\.+$)[\w.-]+(?<!\.git)", repo, re.A):
        sys.exit(f"REPO must look like owner/name, not {repo!r}; nothing was written")
    url = f"https://github.com/{repo}" if repo else REPO_URL
    colab = url.replace("github.com", "colab.research.google.com/github") + "/blob/main/notebooks"
    edit("utils/course.py", "REPO_URL = .*", f'REPO_URL = "{url}"')
    fetch = FETCH.replace("<url>", url) + "\n" if url else ""
    setup = ""
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        link = f'\n\n<a href="{colab}/{path.name}">Open in Colab</a>' if url else ""
        edit("README.md", rf"({path.name}\))( <a .*?</a>)?", rf"\1 {link.strip()}".strip())
        nb = nbformat.read(path, as_version=4)
        nb.cells[0].source = re.sub(r"\A(.*)(\n\n<a .*)?", rf"\1{link}", nb.cells[0].source)
        cell = next(cell for cell in nb.cells if "setup" in cell.metadata.get("tags", []))
        setup = setup or re.sub(r"\n\n(if .*\n( .*\n)+)?", f"\n\n{fetch}", cell.source, count=1)
        cell.source = setup  # that of notebook 01 is the pattern for all
        nbformat.write(nb, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
