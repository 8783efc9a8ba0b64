"""Run the whole suite on the oldest and newest versions, and on Colab's; write README's table.

The locked versions are `make test`'s own. Each set here gets an environment in build/matrix/.
Counted apart are changed texts of PyTorch's error messages, and pictures that another Matplotlib
draws in other pixels; anything else that differs is a failure.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from tools.canary import failures
from tools.execute import BUILD
from tools.stamp import ROOT, write

COLAB = "torch==2.11.* torchvision==0.26.* numpy==2.1.3 matplotlib==3.10.0 ipython==7.34.0"
SETS = {  # Python, and how uv chooses the packages
    "oldest": ("3.11", ["--resolution=lowest-direct"]),
    "Colab": ("3.13", COLAB.split()),
    "newest": ("3.13", ["--upgrade"]),
}
SHOWN = ["torch", "torchvision", "numpy", "matplotlib", "ipython"]
APART = {  # what to look at, and how the gate reports it
    "changed error texts": "the text of this error has changed",
    "changed pictures": "image/png differs between stored and now",
}
TABLE = re.compile(r"(<!-- matrix -->\n).*?(<!-- /matrix -->)", re.DOTALL)


def uv(*args: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "uv", *args], cwd=ROOT, check=True)


def install(name: str) -> Path:
    """The Python of a fresh environment with the set's packages."""
    version, choice = SETS[name]
    folder = BUILD / "matrix" / name
    uv("venv", "--quiet", "--clear", "--python", version, folder)
    python = next(p for p in [folder / "bin/python", folder / "Scripts/python.exe"] if p.exists())
    packages = ["-r", "requirements-dev.txt", *choice]
    uv("pip", "install", "--quiet", "--compile-bytecode", "--python", python, *packages)
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
    return [name, *versions(python), *outcome(report)]


def outcome(report: Path) -> list[str]:
    """What a JUnit file says of the suite, and the numbers of failures that are counted apart."""
    if not report.exists():
        return ["no test ran", *("" for _ in APART)]
    found = [text for _, text in failures(report)]
    apart = [sum(sign in text for text in found) for sign in APART.values()]
    cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed, failed = len(cases) - len(found) - skipped, len(found) - sum(apart)
    return [f"{passed} passed, {failed} failed, {skipped} skipped", *map(str, apart)]


def render(rows: list[list[str]]) -> str:
    """The table in Markdown."""
    head = ["versions", "Python", *SHOWN, "suite", *APART]
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
        write(readme, TABLE.sub(lambda m: f"{m[1]}{table}\n{m[2]}", readme.read_text("utf-8")))
    return int(not all(" 0 failed" in " ".join(row) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
