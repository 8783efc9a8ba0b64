"""Data sets as tensors ready to use: MNIST, odd or even digits, two moons, least squares."""

import gzip
import socket
from collections.abc import Iterable, Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from utils import course

TIMEOUT = 10.0  # seconds without an answer after which a download is given up
HELP = """MNIST is not available: {error}
To use MNIST, connect to the internet and run this cell again. If the download is blocked, get what
is missing in another way, for example with a browser:
    {files}
Put it into {folder}, or into MNIST/raw in the folder that the environment variable COURSE_DATA
names. Then restart the kernel and run the notebook again."""


class Digits(NamedTuple):
    """Images of handwritten digits as rows of normalized pixels, and the digits they show."""

    X_train: Tensor  # float32 (n, 784)
    y_train: Tensor  # int64 (n,)
    X_test: Tensor
    y_test: Tensor
    source: str  # "MNIST" or "scikit-learn's bundled digits"


class Split(NamedTuple):
    """Images, whether the digit they show is odd (1.0) or even (0.0), and the digit itself."""

    X: Tensor  # float32 (n, 784)
    y: Tensor  # float32 (n,)
    digit: Tensor  # int64 (n,)


def load_mnist() -> Digits:
    """Return MNIST or, if MNIST is unavailable, scikit-learn's small bundled digits.

    Looks in `course.DATA_DIR`, downloads MNIST if a file is missing or bad, and prints the data
    set and every fault. A file is used only if it has torchvision's checksum. X is (60000, 784) and
    (10000, 784), or (1297, 784) and (500, 784), with each pixel x in 0..255 normalized to
    (x/255 - 0.1307) / 0.3081.
    """
    # Importing torchvision takes a second: a notebook that needs no MNIST must not wait for it.
    from torchvision.datasets import MNIST
    from torchvision.datasets.utils import check_integrity

    folder, notes = course.DATA_DIR / "MNIST" / "raw", []
    paths = {folder / name: md5 for name, md5 in MNIST.resources}
    bad = [path for path, md5 in paths.items() if not check_integrity(path, md5)]
    for path in filter(Path.exists, bad):
        print(f"{path} was not used: it has the wrong checksum.")
    try:
        if bad:
            _download(folder, bad)
        digits, pixels = _read(paths), "28 × 28 pixels"
    except (OSError, RuntimeError, HTTPException) as error:
        digits, pixels = _bundled_digits(), "8 × 8 pixels, enlarged to 28 × 28"
        files = "\n    ".join(MNIST.mirrors[0] + path.name for path in bad)
        notes = [HELP.format(error=error, files=files, folder=folder)]
    counts = f"{len(digits.y_train):,} training and {len(digits.y_test):,} test images"
    print(f"Data set: {digits.source} ({counts} of {pixels})", *notes, sep="\n")
    return digits


def load_parity(
    digits: Digits, seed: int, num_train: int = 4000, num_val: int = 1000
) -> tuple[Split, Split, Split]:
    """Return the training, validation and test split of the task "is the digit odd?".

    Training and validation images are drawn from the training images by `seed`, none of them
    twice, and at most a fifth of all for validation. The test split is all test images.
    """
    pool = len(digits.y_train)
    num_val = min(num_val, pool // 5)
    num_train = min(num_train, pool - num_val)
    order = torch.randperm(pool, generator=torch.Generator().manual_seed(seed))
    train, val = order[:num_train], order[num_train : num_train + num_val]
    images = digits.X_train[train], digits.X_train[val], digits.X_test
    shown = digits.y_train[train], digits.y_train[val], digits.y_test
    return tuple(Split(X, (y % 2).float(), y) for X, y in zip(images, shown, strict=True))


def make_moons(num_points: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return X, float32 (num_points, 2), and y, float32 (num_points,): 0.0 or 1.0, two half moons.

    `noise` is the standard deviation of the Gaussian noise added to the points.
    """
    from sklearn import datasets

    X, y = datasets.make_moons(num_points, noise=noise, random_state=seed)
    return torch.from_numpy(X).float(), torch.from_numpy(y).float()


def make_least_squares(
    num_points: int, curvatures: Sequence[float], noise: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return X (n, p), y (n,) and w_true (p,), all float64, with y = X w_true + noise.

    X is random, with orthogonal columns in a random basis scaled so that XᵀX / n has exactly the
    p eigenvalues `curvatures`. Entries of w_true are from ±[1, 2]; the noise is Gaussian with
    standard deviation `noise`. There are at most n curvatures, and none of them is negative.
    """
    eigenvalues = torch.tensor(curvatures, dtype=torch.float64)
    n, p = num_points, len(curvatures)
    generator = torch.Generator().manual_seed(seed)
    gaussian = partial(torch.randn, generator=generator, dtype=torch.float64)
    U, V = (torch.linalg.qr(gaussian(rows, p))[0] for rows in (n, p))
    X = U * (n * eigenvalues).sqrt() @ V.T
    size, sign = torch.rand(2, p, generator=generator, dtype=torch.float64)
    w_true = (1 + size) * torch.where(sign < 0.5, -1, 1)
    return X, X @ w_true + noise * gaussian(n), w_true


def _normalize(images: Tensor) -> Tensor:
    """Return uint8 pixels as float32 (n, 784), in every bit as ToTensor and Normalize do."""
    return images.view(-1, 784).float().div_(255).sub_(0.1307).div_(0.3081)


def _bundled_digits() -> Digits:
    """Return scikit-learn's 1,797 images of 8 × 8 pixels, enlarged: 1,297 to train, 500 to test."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    images = torch.from_numpy(bundle.images).float()[:, None] * (255 / 16)
    images = interpolate(images, size=(28, 28), mode="bicubic").clamp(0, 255).round()
    X, y = _normalize(images.to(torch.uint8)), torch.from_numpy(bundle.target).long()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    train, test = order[:-500], order[-500:]
    return Digits(X[train], y[train], X[test], y[test], "scikit-learn's bundled digits")


def _read(paths: Iterable[Path]) -> Digits:
    """Return MNIST from its four files, which hold pixels after 16 bytes and labels after 8."""
    contents = [bytearray(gzip.decompress(path.read_bytes())) for path in paths]
    X_train, y_train, X_test, y_test = (torch.frombuffer(c, dtype=torch.uint8) for c in contents)
    X_train, X_test = _normalize(X_train[16:]), _normalize(X_test[16:])
    return Digits(X_train, y_train[8:].long(), X_test, y_test[8:].long(), "MNIST")


def _download(folder: Path, paths: Sequence[Path]) -> None:
    """Download MNIST and, once it is there with the right checksums, replace these files."""
    from torchvision.datasets import MNIST

    folder.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with TemporaryDirectory(dir=folder) as part:
            MNIST(part, download=True)
            for path in paths:
                Path(part, "MNIST", "raw", path.name).replace(path)
    finally:
        socket.setdefaulttimeout(before)
