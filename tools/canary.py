"""Say what the newest packages broke: the JUnit file of a test run becomes the text of an issue.

The first line is the title, and names the first cell or test that failed; below stand the versions
installed and, for each failure, what was expected and what is there now.
"""

import argparse
import xml.etree.ElementTree as ElementTree
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ["torch", "torchvision", "numpy", "matplotlib", "scikit-learn", "ipykernel", "nbval"]
MOST = 20  # failures spelled out


def failures(report: Path) -> list[tuple[str, str]]:
    """Name and message of every test that failed, in the order in which they ran."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        for problem in [*case.iter("failure"), *case.iter("error")]:
            found.append((f"{case.get('classname')} {case.get('name')}", problem.text or ""))
    return found


def title(name: str, text: str) -> str:
    """What broke first: a cell as the strict comparison names it, or a test."""
    first = text.partition("\n")[0]
    return first if ".ipynb, In[" in first else name


def installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} is not installed"


def describe(report: Path) -> str:
    """The issue in Markdown; without a report, that no test could run."""
    found = failures(report) if report.exists() else []
    if not found:
        return "The newest versions: no test ran\n\nInstallation or collection failed; see the log."
    lines = [f"The newest versions: {title(*found[0])[:150]}", ""]
    lines += [", ".join(map(installed, PACKAGES)) + f". {len(found)} failures.", ""]
    for name, text in found[:MOST]:
        lines += [f"**{name}**", "", "~~~diff", text[:2000], "~~~", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.canary", description=__doc__)
    parser.add_argument("report", type=Path, help="written by pytest --junitxml")
    print(describe(parser.parse_args().report))
