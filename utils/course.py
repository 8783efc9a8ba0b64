"""Where the course's files are, and the state every notebook starts from."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA_DIR = Path(os.environ.get("COURSE_DATA") or ROOT / "data").expanduser()

# Written by `make stamp REPO=owner/name`; empty until the course has a public address.
REPO_URL = ""


def setup(seed: int) -> None:
    """Seed PyTorch's global generator and set the style of all figures.

    Every notebook's first cell calls it, so that a run from top to bottom is reproducible.
    """
    import warnings

    import torch

    from utils.plotting import set_style

    # PyTorch 2.15 warns of itself at the first use of forward mode.
    warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", FutureWarning)
    torch.manual_seed(seed)
    set_style()
