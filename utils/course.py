"""Where the course's files are, and the state every notebook starts from."""

import os
import sysconfig
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[1]
DATA_DIR = Path(os.environ.get("COURSE_DATA") or ROOT / "data").expanduser()
LIBRARIES = "-packages", sysconfig.get_path("stdlib"), str(ROOT / "utils")

# Written by `make stamp REPO=owner/name`; empty until the course has a public address.
REPO_URL = ""


def setup(seed: int) -> None:
    """Seed PyTorch's global generator, and set the style of figures and of error messages.

    Every notebook's first cell calls it, so that a run from top to bottom is reproducible.
    """
    import warnings

    import torch
    from IPython import get_ipython

    from utils.plotting import set_style

    # PyTorch 2.15 warns of itself at the first use of forward mode.
    warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", FutureWarning)
    torch.manual_seed(seed)
    set_style()
    if shell := get_ipython():
        shell.set_custom_exc((Exception,), _show_error)


def _show_error(shell, kind: type, error: BaseException, frames: TracebackType, tb_offset=None):
    """Show an error with the lines of the notebook that led to it, without those of libraries."""
    shown, each = None, [frames]
    while each[-1].tb_next:
        each.append(each[-1].tb_next)
    for frame in reversed(each):
        if not any(name in frame.tb_frame.f_code.co_filename for name in LIBRARIES):
            frame.tb_next, shown = shown, frame
    return shell.showtraceback((kind, error, shown or each[-1]), tb_offset=0)
