"""Measure what the course promises to be fast, on one thread, and print it as a table."""

import argparse
import sys
from collections.abc import Callable, Iterable

import torch

from tools.bench import code, growth, waiting
from tools.bench.measure import Row

MEASURES: list[Callable[[], Iterable[Row]]] = [
    *(code.preparation, code.sweep, code.simple_nn, code.logistic, code.engine),
    *(code.cheap_gradient, growth.growth, waiting.imports, waiting.lecture, waiting.notebooks),
]
LINE = "{:15} {:57} {:>20} {:>16} {:>8} {:>7} {}"


def show(name: str, row: Row) -> bool:
    """Print the row, and return whether it is within its bar."""
    met = row.ratio <= row.bar
    figures = f"{row.ratio:.2g}", f"{row.bar:.2g}", "" if met else "MISSED"
    print(LINE.format(name, row.what, row.course, row.against, *figures).rstrip(), flush=True)
    return met


def main() -> int:
    """Print the rows of all measures, or of those named; return 1 if a bar is missed."""
    known = {measure.__name__: measure for measure in MEASURES}
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(known)}: only these")
    names = parser.parse_args().names or list(known)
    if unknown := set(names) - set(known):
        sys.exit(f"no measure {', '.join(unknown)}; there are {', '.join(known)}")
    torch.set_num_threads(1)
    print(LINE.format("measure", "", "course", "against", "ratio", "bar", ""))
    return int(not all([show(name, row) for name in names for row in known[name]()]))


if __name__ == "__main__":
    sys.exit(main())
