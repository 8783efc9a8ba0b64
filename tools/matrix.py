"""Run the whole suite on the oldest and newest versions, and on Colab's; write README's table.

Each set of versions gets an environment of its own in build/matrix/. A changed text of PyTorch's
error messages is counted apart; anything else that differs is a failure.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from tools.canary import failures
from tools.execute import BUILD
from tools.stamp import ROOT, write

COLAB = "torch==2.11.* torchvision==0.26.* numpy==2.1.3 matplotlib==3.10.0 ipython==7.34.0"
SETS = {  # Python, and how uv chooses the packages
    "oldest": ("3.10", ["--resolution=lowest-direct"]),
    "Colab": ("3.13", COLAB.split()),
    "locked": ("3.11", ["-c", "tests/constraints.txt"]),
    "newest": ("3.13", ["--upgrade"]),
}
SHOWN = ["torch", "torchvision", "numpy", "matplotlib", "ipython"]
ERROR_TEXT = "the text of this error has changed"
TABLE = re.compile(r"(<!-- matrix -->\n).*?(\n<!-- /matrix -->)", re.DOTALL)


def uv(*args: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "uv", *args], cwd=ROOT, check=True)


def install(name: str) -> Path:
    """The Python of a fresh environment with the set's packages."""
    version, choice = SETS[name]
    folder = BUILD / "matrix" / name
    uv("venv", "--quiet", "--clear", "--python", version, folder)
    python = next(p for p in [folder / "bin/python", folder / "Scripts/python.exe"] if p.exists())
    uv(
        "pip",
        "install",
        "-q",
        "--compile-bytecode",
        "--python",
        python,
        "-r",
        "requirements-dev.txt",
        *choice,
    )
    return python


def versions(python: Path) -> list[str]:
    """Python's version and those of the packages in `SHOWN`, as the environment has them."""
    code = "import sys, platform; from importlib.metadata import version"
    code += "; print(platform.python_version(), *map(version, sys.argv[1:]))"
    done = subprocess.run([python, "-c", code, *SHOWN], capture_output=True, text=True, check=True)
    return done.stdout.split()


def run(name: str) -> list[str]:
    """A row of the table: the set, its versions, and what the suite said."""
    python, report = install(name), BUILD / "matrix" / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = [python, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider"]
    subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT)
    if not report.exists():
        return [name, *versions(python), "no test ran"]
    found = failures(report)
    texts = sum(ERROR_TEXT in text for _, text in found)
    tests, skipped = (
        sum(map(int, re.findall(rf'<testsuite [^>]*?\b{what}="(\d+)"', report.read_text("utf-8"))))
        for what in ("tests", "skipped")
    )
    result = (
        f"{tests - len(found) - skipped} passed, {len(found) - texts} failed, {skipped} skipped"
    )
    return [name, *versions(python), result, str(texts)]


def render(rows: list[list[str]]) -> str:
    """The table in Markdown."""
    head = ["versions", "Python", *SHOWN, "suite", "changed error texts"]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.matrix", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SETS)}: only these, no README")
    names = parser.parse_args().names
    if unknown := set(names) - set(SETS):
        sys.exit(f"no set of versions {', '.join(unknown)}; there are {', '.join(SETS)}")
    rows = [run(name) for name in names or SETS]
    table = render(rows)
    print(table)
    if not names:
        readme = ROOT / "README.md"
        write(readme, TABLE.sub(lambda m: m[1] + table + m[2], readme.read_text("utf-8")))
    return int(any(" 0 failed" not in row[-2] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
