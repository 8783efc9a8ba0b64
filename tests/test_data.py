"""Bad files and bad servers never make `load_mnist` train on bad data or lose good."""

import gzip
import hashlib
import socket
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from struct import pack

import pytest
import torch
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToPILImage, ToTensor

from utils import course, data

IMAGES, *_ = NAMES = [name for name, _ in MNIST.resources]
TINY = "Data set: MNIST (6 training and 4 test images of 28 × 28 pixels)\n"
BUNDLED = "Data set: scikit-learn's bundled digits (1,297 training and 500 test images of 8 × 8"
NOWHERE = "http://127.0.0.1:9/"  # the port of an old service that nobody runs
PIXELS = torch.arange(6 * 784) % 251


def packed(name):
    """Return a file of MNIST with 6 images or labels to train, or with 4 to test."""
    count = 6 if "train" in name else 4
    if "labels" in name:
        return gzip.compress(pack(">2i", 2049, count) + bytes(range(count)))
    return gzip.compress(pack(">4i", 2051, count, 28, 28) + bytes(PIXELS[: count * 784].tolist()))


GOOD = {name: packed(name) for name in NAMES}


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Serve a tiny MNIST on this machine; return the folder, not yet made, where it belongs."""
    fill(tmp_path / "server", GOOD)
    monkeypatch.chdir(tmp_path / "server")  # whose files the server serves
    md5s = [(name, hashlib.md5(content).hexdigest()) for name, content in GOOD.items()]
    monkeypatch.setattr(MNIST, "resources", md5s)
    monkeypatch.setattr(MNIST, "mirrors", [NOWHERE, serve(SimpleHTTPRequestHandler)])
    monkeypatch.setattr(course, "DATA_DIR", tmp_path)
    monkeypatch.setenv("no_proxy", "*")
    yield tmp_path / "MNIST" / "raw"
    assert socket.getdefaulttimeout() is None, "the time-out was left"


def serve(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def fill(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_tiny(digits):
    normalize = Compose([ToPILImage(), ToTensor(), Normalize((0.1307,), (0.3081,))])
    X = torch.stack([normalize(image).flatten() for image in PIXELS.view(6, 28, 28).byte()])
    assert torch.equal(digits.X_train, X) and torch.equal(digits.X_test, X[:4])
    assert torch.equal(digits.y_train, torch.arange(6)) and digits.y_test.tolist() == [0, 1, 2, 3]


def assert_bundled(text, reason, missing=NAMES):
    """Check that the text says which data set, why, what to get from where, and where to put it."""
    addresses = "".join(f"    {MNIST.mirrors[0]}{name}\n" for name in missing)
    where = f"browser:\n{addresses}Put it into {course.DATA_DIR / 'MNIST' / 'raw'}, or "
    for words in (BUNDLED, "MNIST is not available: ", reason, where, "COURSE_DATA"):
        assert words in text


FAULTS = {
    "missing": {},
    "HTML": {IMAGES: b"<!DOCTYPE html><p>Log in"},
    "flipped": {IMAGES: GOOD[IMAGES][:40] + bytes([GOOD[IMAGES][40] ^ 1]) + GOOD[IMAGES][41:]},
}


@pytest.mark.parametrize("bad", FAULTS.values(), ids=FAULTS)
def test_bad_file_is_named_and_not_used_but_replaced(bad, folder, capsys):
    before = {name: GOOD[name] for name in NAMES[1:]} | bad
    fill(folder, before)
    named = f"{folder / IMAGES} was not used: it has the wrong checksum.\n" if bad else ""
    server = MNIST.mirrors.pop()
    data.load_mnist()
    assert_bundled(text := capsys.readouterr().out, "refused", [IMAGES])
    assert text.startswith(named) and contents(folder) == before
    MNIST.mirrors.append(server)
    assert_tiny(data.load_mnist())
    assert capsys.readouterr().out == named + TINY and contents(folder) == GOOD
    MNIST.mirrors.remove(server)
    assert_tiny(data.load_mnist())


SERVERS = {
    "silent": (b"", "timed out"),
    "silent half way": (b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "timed out"),
    "wrong bytes": (b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nhtml", "not found or corrupted"),
    "not HTTP": (b"hello\r\n", "hello"),
}


@pytest.mark.parametrize("answer, reason", SERVERS.values(), ids=SERVERS)
def test_bad_server_is_given_up(answer, reason, folder, capsys, monkeypatch):
    def handler(connection, *_):
        connection.sendall(answer)
        threading.Event().wait(9)  # silent

    monkeypatch.setattr(data, "TIMEOUT", 0.3)
    MNIST.mirrors[:] = [serve(handler)]
    data.load_mnist()
    assert_bundled(capsys.readouterr().out, reason)
    assert contents(folder) == {}


def test_folder_that_cannot_be_written_is_named(folder, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(course, "DATA_DIR", tmp_path / "server" / IMAGES)  # a file: root fails too
    data.load_mnist()
    assert_bundled(capsys.readouterr().out, "MNIST is not available: [")


def test_bundled_digits_are_told_apart_by_their_mean_images():
    X, y, X_test, y_test, _ = data._bundled_digits()
    pixels = torch.cat([X, X_test]) * 0.3081 + 0.1307
    assert pixels.min() > -1e-6 and 0.99 < pixels.max() < 1 + 1e-6
    centers = torch.stack([X[y == k].mean(0) for k in range(10)])
    assert (torch.cdist(X_test, centers).argmin(1) == y_test).float().mean() > 0.85


@pytest.mark.parametrize("sizes, expected", [((60, 20), (60, 20)), ((95, 30), (80, 20))])
def test_parity_splits_are_disjoint_labeled_and_fit_the_pool(sizes, expected):
    X, y = torch.arange(103.0).expand(784, 103).T, torch.arange(103) % 10
    splits = data.load_parity(data.Digits(X[:100], y[:100], X[100:], y[100:], ""), 0, *sizes)
    assert tuple(len(split.y) for split in splits) == (*expected, 3)
    rows = torch.cat([split.X[:, 0] for split in splits])
    assert len(rows.unique()) == sum(expected) + 3 and splits[2].X.min() == 100
    for X, y, digit in splits:
        assert torch.equal(digit, X[:, 0].long() % 10) and torch.equal(y, (digit % 2).float())


def test_least_squares_has_the_curvatures_and_the_noise_it_was_asked_for():
    X, y, w_true = data.make_least_squares(500, (3.0, 0.2, 1.0), noise=0.4, seed=0)
    found = torch.linalg.eigvalsh(X.T @ X / 500)
    assert torch.allclose(found, torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64))
    assert w_true.abs().min() >= 1 and w_true.abs().max() <= 2
    assert 0.36 < (y - X @ w_true).std() < 0.44
