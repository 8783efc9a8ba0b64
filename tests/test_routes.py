"""The shortened routes of site/instructors.md find everything that they need."""

import re

import matplotlib.pyplot as plt
import nbformat
import pytest

from utils import course, data

ROUTES = [  # notebook, and the sections that are run, in order
    ("01", [1, 2, 3, 4, 5, 6, 7, 10]),
    ("02", [1, 2, 4, 6, 7]),
    ("02", [1, 2, 3, 4, 5, 6, 7]),
    ("03", [3, 4]),
    ("03", [1, 2, 3, 4, 5]),
    ("03", [1, 3, 4, 5, 8, 10, 11, 13, 14, 15]),
    ("04", [3, 4, 5, 7]),
    ("05", [1, 2, 3, 4, 6, 7, 11, 12]),
    ("06", [1, 2, 3, 6, 8]),
]


@pytest.mark.parametrize(("number", "sections"), ROUTES, ids=str)
def test_route(number: str, sections: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the cells before the first section, then those of the sections."""
    monkeypatch.setattr("utils.plotting.display", lambda *args, **kwargs: None)
    monkeypatch.setattr("utils.data.load_mnist", data._bundled_digits)  # small, so fast
    (path,) = course.ROOT.glob(f"notebooks/{number}_*.ipynb")
    names, section, ran = {"__name__": "__main__"}, 0, set()
    course.setup(seed=0)
    for cell in nbformat.read(path, as_version=4).cells:
        if heading := re.search(rf"(?m)^## {int(number)}\.(\d+) ", cell.source):
            section = int(heading[1])
        tags = set(cell.metadata.get("tags", []))
        if cell.cell_type != "code" or "setup" in tags or section not in [0, *sections]:
            continue
        ran.add(section)
        try:
            exec(compile(cell.source, f"{path.stem}, section {section}", "exec"), names)
        except Exception:
            if "raises-exception" not in tags:
                raise
    plt.close("all")
    assert ran >= set(sections)
