"""Data sets as tensors ready to use: MNIST, odd or even digits, two moons, least squares."""

import contextlib
import gzip
import hashlib
import http.client
import io
import os
import shutil
import socket
import struct
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from utils import course

# Seconds without an answer after which a download is given up (per address that is tried).
TIMEOUT = 10.0

# How the names of the folders begin in which files are half-made, here and in the system's.
PART = ".course-part-"

# Checksums of the four files, packed and unpacked. torchvision knows those of the packed files
# too, but importing it takes seconds, and only a download needs it.
MD5 = {
    "train-images-idx3-ubyte": (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "6bbc9ace898e44ae57da46a324031adb",
    ),
    "train-labels-idx1-ubyte": (
        "d53e105ee54ea40749a09fcbcd1e9432",
        "a25bea736e30d166cdddb491f175f624",
    ),
    "t10k-images-idx3-ubyte": (
        "9fb629c4189551a2d022fa330f9573f3",
        "2646ac647ad5339dbf082846283269ea",
    ),
    "t10k-labels-idx1-ubyte": (
        "ec29112dd5afa0611ce80d1b7f02629c",
        "27ae3e4e09519cfbb04c329615203637",
    ),
}

# All that urllib, http.client, gzip and torchvision raise when a download goes wrong.
DOWNLOAD_ERRORS = (OSError, RuntimeError, http.client.HTTPException, EOFError, zlib.error)


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
    """Return MNIST, or scikit-learn's small bundled digits where MNIST cannot be had.

    Looks in `course.DATA_DIR`, then downloads; prints which data set it is, and every fault met.
    Only files with the official checksum are used. X is (60000, 784) and (10000, 784), or
    (1297, 784) and (500, 784), each pixel x in 0..255 normalized to (x/255 - 0.1307) / 0.3081.
    """
    folder = course.DATA_DIR / "MNIST" / "raw"
    _tidy(folder)
    files, bad = _read_files(folder)
    notes = []
    missing = [f"{stem}.gz" for stem in MD5 if stem not in files]
    if missing:
        files, notes = _download(folder, missing)
    digits = _mnist(files) if files else _bundled_digits()
    lines = [_headline(digits)]
    for path, (md5, problem) in bad.items():
        good = _is_good(path, md5)
        fate = "replaced by a good one" if good else "not used and left as it is; delete it"
        lines.append(f"{path} {problem}: {fate}.")
    print(*lines, *notes, sep="\n")
    return digits


def load_parity(
    digits: Digits, seed: int, num_train: int = 4000, num_val: int = 1000
) -> tuple[Split, Split, Split]:
    """Return the training, validation and test split of the task "is the digit odd?".

    Training and validation images are drawn from the training images by `seed`, none of them
    twice; the test split is all test images. If there are fewer than num_train + num_val
    training images, at most a fifth of them are for validation and the rest for training.
    """
    pool = len(digits.y_train)
    if num_train + num_val > pool:
        num_val = min(num_val, pool // 5)
        num_train = min(num_train, pool - num_val)
    order = torch.randperm(pool, generator=torch.Generator().manual_seed(seed))
    train, val = order[:num_train], order[num_train : num_train + num_val]
    return (
        _split(digits.X_train[train], digits.y_train[train]),
        _split(digits.X_train[val], digits.y_train[val]),
        _split(digits.X_test, digits.y_test),
    )


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
    standard deviation `noise`. Raises ValueError if there are more curvatures than points.
    """
    n, p = num_points, len(curvatures)
    if p > n:
        raise ValueError(f"{n} points have at most {n} curvatures, not {p}")
    generator = torch.Generator().manual_seed(seed)
    tall, square = (
        torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((n, p), (p, p))
    )
    U, V = torch.linalg.qr(tall)[0], torch.linalg.qr(square)[0]
    X = U * (n * torch.tensor(curvatures, dtype=torch.float64)).sqrt() @ V.T
    size, sign = torch.rand(2, p, generator=generator, dtype=torch.float64)
    w_true = (1 + size) * torch.where(sign < 0.5, -1, 1)
    y = X @ w_true + noise * torch.randn(n, generator=generator, dtype=torch.float64)
    return X, y, w_true


def _headline(digits: Digits) -> str:
    """Return the line that says which data set it is."""
    pixels = "28 × 28 pixels"
    if digits.source != "MNIST":
        pixels = "8 × 8 pixels, enlarged to 28 × 28"
    counts = f"{len(digits.y_train):,} training and {len(digits.y_test):,} test images"
    return f"Data set: {digits.source} ({counts} of {pixels})"


def _split(X: Tensor, digit: Tensor) -> Split:
    """Return the images with their labels: y = digit mod 2."""
    return Split(X, (digit % 2).float(), digit)


def _normalize(images: Tensor) -> Tensor:
    """Return uint8 images (n, ...) as float32 (n, 784): (x/255 - 0.1307) / 0.3081.

    Bitwise what torchvision's ToTensor and Normalize give, for all images at once and in place.
    """
    return images.flatten(1).float().div_(255).sub_(0.1307).div_(0.3081)


def _mnist(files: dict[str, bytes]) -> Digits:
    """Return the data set in the four unpacked files."""
    X_train, y_train, X_test, y_test = (_parse_idx(files[stem]) for stem in MD5)
    return Digits(_normalize(X_train), y_train.long(), _normalize(X_test), y_test.long(), "MNIST")


def _parse_idx(data: bytes) -> Tensor:
    """Return the uint8 tensor in an IDX file: 0, 0, 8, ndim, then ndim big-endian sizes, values."""
    ndim = data[3]
    shape = struct.unpack_from(f">{ndim}I", data, offset=4)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=4 + 4 * ndim).view(shape)


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


def _read_files(folder: Path) -> tuple[dict[str, bytes], dict[Path, tuple[str, str]]]:
    """Return the contents of the good files, unpacked, and the md5 wanted and fault of the bad."""
    good, bad = {}, {}
    for stem, (packed, unpacked) in MD5.items():
        for path, expected in ((folder / f"{stem}.gz", packed), (folder / stem, unpacked)):
            try:
                data = _read(path, expected)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                bad[path] = expected, f"cannot be read ({error.strerror or error})"
            except ValueError as error:
                bad[path] = expected, str(error)
            else:
                good[stem] = gzip.decompress(data) if path.suffix == ".gz" else data
                break
    return good, bad


def _read(path: Path, md5: str) -> bytes:
    """Return the bytes of a file; raise OSError or ValueError if they are not those wanted."""
    data = path.read_bytes()
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != md5:
        raise ValueError(f"{_diagnose(path, data)} (its md5 is {found}, expected {md5})")
    return data


def _is_good(path: Path, md5: str) -> bool:
    """Return whether the file can be read and has this md5."""
    with contextlib.suppress(OSError, ValueError):
        return bool(_read(path, md5))
    return False


def _diagnose(path: Path, data: bytes) -> str:
    """Return what is wrong with the bytes of a bad file, as far as can be told."""
    if not data:
        return "is empty"
    if data[:100].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "is a web page, not data"
    if path.suffix == ".gz":
        try:
            gzip.decompress(data)
        except EOFError:
            return "is truncated"
        except (OSError, zlib.error):
            return "is not a sound gzip file"
    return "has a wrong checksum"


def _download(folder: Path, missing: list[str]) -> tuple[dict[str, bytes], list[str]]:
    """Return the contents of the files, kept in `folder`, or none of them; and lines to print."""
    try:
        with tempfile.TemporaryDirectory(prefix=PART) as temporary:
            raw = _fetch(temporary)
            return _read_files(raw)[0], _keep(raw, folder)
    except DOWNLOAD_ERRORS as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return {}, [
            f"Why not MNIST: {folder} has no good {', '.join(missing)}; "
            f"and the download failed ({reason}).",
            f"To use MNIST, connect to the internet, or put its four .gz files into {folder}, or "
            "set COURSE_DATA to a folder that has them in MNIST/raw; then restart and run again.",
        ]


def _tidy(folder: Path) -> None:
    """Remove what loads that were killed, an hour ago or more, left half-made."""
    with contextlib.suppress(OSError):
        for place in (folder, Path(tempfile.gettempdir())):
            for part in place.glob(f"{PART}*"):
                if part.stat().st_mtime < time.time() - 3600:
                    shutil.rmtree(part)


def _fetch(folder: str) -> Path:
    """Return where the files are that torchvision has downloaded, with a progress bar, to `folder`.

    Raises one of DOWNLOAD_ERRORS if it fails, or if a server is silent for TIMEOUT seconds.
    """
    from torchvision.datasets import MNIST

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return Path(MNIST(folder, download=True).raw_folder)
    finally:
        socket.setdefaulttimeout(before)


def _keep(raw: Path, folder: Path) -> list[str]:
    """Return lines to print after copying the .gz files from `raw` to `folder`, each atomically.

    A good file that is there already stays.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, md5 in ((f"{stem}.gz", packed) for stem, (packed, _) in MD5.items()):
            if not _is_good(folder / name, md5):
                with tempfile.TemporaryDirectory(prefix=PART, dir=folder) as part:
                    os.replace(shutil.copy(raw / name, part), folder / name)
    except OSError as error:
        reason = error.strerror or error
        return [
            f"The downloaded files could not be kept in {folder} ({reason}), so the next run "
            "downloads them again: set COURSE_DATA to a folder that you can write to."
        ]
    return []
