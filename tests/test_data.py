"""Bad files, bad servers and interrupts never make `load_mnist` train on bad data or lose good."""

import codecs
import contextlib
import gzip
import hashlib
import http.client
import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import struct
import tempfile
import threading
import time
import urllib.error
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torchvision import transforms
from torchvision.datasets import MNIST

from utils import course, data

REAL_FOLDER = course.DATA_DIR / "MNIST" / "raw"
NAMES = [name for name, _ in MNIST.resources]
IMAGES, LABELS = NAMES[0], NAMES[1]
LOOPBACK = ("127.0.0.1", "::1", "localhost")
FAKE = "Data set: MNIST (6 training and 4 test images of 28 × 28 pixels)"
BUNDLED = (
    "Data set: scikit-learn's bundled digits (1,297 training and 500 test images of "
    "8 × 8 pixels, enlarged to 28 × 28)"
)


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture(autouse=True)
def blocked(monkeypatch):
    """No connection leaves this machine; a test that tries one unasked fails.

    Returns the list of what was tried; a test that means to try empties it.
    """
    tried, connect, lookup = [], socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOOPBACK:
            tried.append(address)
            raise OSError("blocked by the test")
        return connect(self, address)

    def guarded_lookup(host, *args, **kwargs):
        if host not in LOOPBACK:
            tried.append(host)
            raise socket.gaierror(-2, "Name or service not known")
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_lookup)
    monkeypatch.setenv("no_proxy", "*")
    yield tried
    assert not tried, f"tried to reach {tried}"


@pytest.fixture(autouse=True)
def temporary(monkeypatch, tmp_path):
    """Temporary files go to a folder of the test, which must be empty when it ends."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def official(monkeypatch):
    """The four files of a tiny MNIST, by name, which torchvision and `data` take for official."""
    generator = torch.Generator().manual_seed(0)
    files = {}
    for name in NAMES:
        count = 6 if name.startswith("train") else 4
        shape, top = ((count, 28, 28), 256) if "images" in name else ((count,), 10)
        values = torch.randint(top, shape, generator=generator, dtype=torch.uint8)
        header = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
        files[name] = gzip.compress(header + values.numpy().tobytes(), mtime=0)
    monkeypatch.setattr(MNIST, "resources", [(name, md5(files[name])) for name in NAMES])
    sums = {name[:-3]: (md5(files[name]), md5(gzip.decompress(files[name]))) for name in NAMES}
    monkeypatch.setattr(data, "MD5", sums)
    return files


@pytest.fixture
def folder(monkeypatch, tmp_path, official):
    """The folder MNIST/raw, not yet made, in which `load_mnist` looks."""
    monkeypatch.setattr(course, "DATA_DIR", tmp_path / "data")
    return tmp_path / "data" / "MNIST" / "raw"


class Server(ThreadingHTTPServer):
    """Serves `files`; a test may replace `answer(handler, content)`, which sends the body."""

    block_on_close = False

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.stop = files, [], threading.Event()
        self.answer = lambda handler, content: handler.wfile.write(content)
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, *args):
        """Say nothing of clients that hang up."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path[1:]
        self.server.requests.append(name)
        self.number = len(self.server.requests)
        if name not in self.server.files:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.files[name])))
        self.end_headers()
        self.server.answer(self, self.server.files[name])

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def server(official, monkeypatch):
    """A local server of the tiny MNIST, the only mirror torchvision knows."""
    server = Server(dict(official))
    monkeypatch.setattr(MNIST, "mirrors", [server.url])
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def offline(monkeypatch):
    """The only mirror is a port of this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{port}/"])


def fill(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def load(capsys):
    """Return the data set and the printed lines."""
    digits = data.load_mnist()
    return digits, capsys.readouterr().out.splitlines()


def assert_same(digits, official):
    """The data set is, bit for bit, what the good files hold."""
    X, y = (gzip.decompress(official[name]) for name in (IMAGES, LABELS))
    images = torch.frombuffer(bytearray(X[16:]), dtype=torch.uint8).view(-1, 784)
    assert torch.equal(digits.X_train, ((images.float() / 255) - 0.1307) / 0.3081)
    assert digits.y_train.tolist() == list(y[8:])
    assert (digits.X_test.shape, digits.y_test.shape) == ((4, 784), (4,))
    assert digits.y_train.dtype == digits.y_test.dtype == torch.int64
    assert digits.source == "MNIST"


def assert_fallback(lines, folder):
    """The three lines say which data set, why not MNIST, and what to do."""
    first, why, to_do = lines
    assert first == BUNDLED
    assert why.startswith(f"Why not MNIST: {folder} has no good ")
    assert str(folder) in to_do and "COURSE_DATA" in to_do and "connect" in to_do


# Where


FOLDERS = [("", course.ROOT / "data"), ("/x/y", Path("/x/y")), ("~/x", Path.home() / "x")]


@pytest.mark.parametrize("named, folder", FOLDERS)
def test_data_are_in_the_course_unless_the_environment_names_a_folder(named, folder, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", named)
    assert runpy.run_path(course.__file__)["DATA_DIR"] == folder


# Conversion


def test_normalize_equals_torchvision_bit_for_bit():
    images = torch.randint(256, (200, 28, 28), dtype=torch.uint8)
    images[0].view(-1)[:256] = torch.arange(256)
    steps = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    transform = transforms.Compose([transforms.ToPILImage(), *steps])
    expected = torch.stack([transform(image) for image in images]).flatten(1)
    before = images.clone()
    assert torch.equal(data._normalize(images), expected)
    assert torch.equal(images, before)


# Sources, in their order


def test_gz_files_are_used_without_network(folder, official, capsys):
    fill(folder, official)
    digits, lines = load(capsys)
    assert lines == [FAKE]
    assert_same(digits, official)
    assert contents(folder) == official


def test_unpacked_files_are_used_without_network(folder, official, capsys):
    fill(folder, {name[:-3]: gzip.decompress(official[name]) for name in NAMES})
    digits, lines = load(capsys)
    assert lines == [FAKE]
    assert_same(digits, official)


@pytest.mark.parametrize("exists", [True, False], ids=["empty folder", "no folder"])
def test_download(exists, folder, official, server, capsys, monkeypatch):
    if exists:
        fill(folder, {})
    download = MNIST.download

    def chatty(self):
        print("Downloading, as some versions of torchvision say")
        download(self)

    monkeypatch.setattr(MNIST, "download", chatty)
    digits = data.load_mnist()
    printed = capsys.readouterr()
    assert printed.out == FAKE + "\n"
    assert "B/s" in printed.err or os.environ.get("TQDM_DISABLE")
    assert_same(digits, official)
    assert contents(folder) == official
    requests = len(server.requests)
    assert load(capsys)[1] == [FAKE] and len(server.requests) == requests


def test_no_network_at_all(folder, blocked, capsys):
    digits, lines = load(capsys)
    assert blocked
    blocked.clear()
    assert_fallback(lines, folder)
    assert "Name or service not known" in lines[1]
    assert all(name in lines[1] for name in NAMES)
    assert digits.source == "scikit-learn's bundled digits"
    assert not folder.exists()


def test_bundled_digits(folder, offline, capsys):
    digits, _ = load(capsys)
    assert digits.X_train.shape == (1297, 784) and digits.X_test.shape == (500, 784)
    assert digits.X_train.dtype == torch.float32 and digits.y_train.dtype == torch.int64
    counts = torch.bincount(torch.cat([digits.y_train, digits.y_test]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    pixels = torch.cat([digits.X_train, digits.X_test]) * 0.3081 + 0.1307
    assert pixels.min() > -1e-6 and 0.99 < pixels.max() < 1 + 1e-6
    assert (255 * pixels - (255 * pixels).round()).abs().max() < 1e-3
    small = torch.from_numpy(load_digits().images)[:, None] * (255 / 16)
    exact = torch.nn.functional.interpolate(small, size=(28, 28), mode="bicubic").clamp(0, 255)
    assert abs(255 * pixels.double().mean() - exact.mean()) < 0.01  # rounded, not cut off
    images = pixels.view(-1, 1, 28, 28)
    bright = torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1) > 0.85
    assert images[bright].min() > 0.5  # no overflow to black
    centers = torch.stack([digits.X_train[digits.y_train == k].mean(0) for k in range(10)])
    nearest = torch.cdist(digits.X_test, centers).argmin(1)
    assert (nearest == digits.y_test).float().mean() > 0.85


def test_load_removes_what_a_killed_one_left(folder, offline, capsys):
    parts = [folder / f"{data.PART}{name}" for name in ("old", "new")]
    for part in parts:
        part.mkdir(parents=True)
    os.utime(parts[0], (0, 0))
    load(capsys)
    assert not parts[0].exists() and parts[1].exists()  # the new one's load may be at work


# Bad files


def flip_byte(content):
    return content[:40] + bytes([content[40] ^ 1]) + content[41:]


FAULTS = {
    "truncated": (IMAGES, lambda good: good[: len(good) // 2], "is truncated"),
    "empty": (IMAGES, lambda good: b"", "is empty"),
    "HTML": (IMAGES, lambda good: b"\n<!DOCTYPE html><p>Log in", "is a web page, not data"),
    "not gzip": (LABELS, lambda good: b"PK" + good, "is not a sound gzip file"),
    "another gzip": (LABELS, lambda good: gzip.compress(b"cat"), "has a wrong checksum"),
    "flipped": (LABELS, lambda good: good[:-6] + b"!" + good[-5:], "is not a sound gzip file"),
    "flipped, unpacked": (IMAGES[:-3], flip_byte, "has a wrong checksum"),
}


@pytest.fixture(params=FAULTS)
def fault(request, folder, official):
    """A folder with one bad file and otherwise good ones; the path, bytes and line of the bad."""
    name, spoil, problem = FAULTS[request.param]
    gz = name if name.endswith(".gz") else name + ".gz"
    good = official[gz] if name == gz else gzip.decompress(official[gz])
    bad = spoil(good)
    fill(folder, official)
    (folder / gz).unlink()
    (folder / name).write_bytes(bad)
    line = f"{folder / name} {problem} (its md5 is {md5(bad)}, expected {md5(good)}): "
    return folder / name, bad, line


def test_bad_file_is_refused_offline(fault, folder, official, offline, capsys):
    path, bad, line = fault
    before = contents(folder)
    digits, lines = load(capsys)
    assert digits.source != "MNIST"
    assert lines.pop(1) == line + "not used and left as it is; delete it."
    assert_fallback(lines, folder)
    assert contents(folder) == before


def test_bad_file_is_replaced_online(fault, folder, official, server, capsys):
    path, bad, line = fault
    is_gz = path.suffix == ".gz"
    stay = [entry for entry in folder.iterdir() if entry != path]
    inodes = [entry.stat().st_ino for entry in stay]
    digits, lines = load(capsys)
    assert_same(digits, official)
    fate = "replaced by a good one." if is_gz else "not used and left as it is; delete it."
    assert lines == [FAKE, line + fate]
    assert contents(folder) == official | ({} if is_gz else {path.name: bad})
    assert [entry.stat().st_ino for entry in stay] == inodes, "a good file was written again"


def test_bad_file_beside_a_good_unpacked_one(folder, official, capsys):
    files = official | {IMAGES: b"<html>", IMAGES[:-3]: gzip.decompress(official[IMAGES])}
    fill(folder, files)
    digits, lines = load(capsys)
    assert_same(digits, official)
    assert len(lines) == 2 and lines[1].endswith("not used and left as it is; delete it.")
    assert contents(folder) == files


def test_missing_labels_are_named(folder, official, offline, capsys):
    fill(folder, {name: official[name] for name in NAMES if name != LABELS})
    _, lines = load(capsys)
    assert_fallback(lines, folder)
    assert f"has no good {LABELS}; and the download failed" in lines[1]


def test_missing_labels_are_downloaded(folder, official, server, capsys):
    fill(folder, {name: official[name] for name in NAMES if name != LABELS})
    digits, lines = load(capsys)
    assert lines == [FAKE] and contents(folder) == official
    assert_same(digits, official)


def test_folder_in_place_of_a_file(folder, official, server, capsys):
    fill(folder, {})
    (folder / IMAGES).mkdir()
    digits, lines = load(capsys)
    assert_same(digits, official)
    assert lines[0] == FAKE and "cannot be read" in lines[1] and "could not be kept" in lines[2]


# Folders that cannot be written


@contextlib.contextmanager
def ordinary_user():
    """Root may write everywhere: for a while, be somebody who may not."""
    root = os.name == "posix" and os.geteuid() == 0
    if root:
        codecs.lookup("hex")  # torchvision's: what is imported late may be root's alone
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def read_only(monkeypatch):
    """A data folder that its user may read and not write, whoever runs the tests."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    base = Path(tempfile.mkdtemp())
    (base / "scratch").mkdir()
    (base / "scratch").chmod(0o777)
    (base / "data").mkdir()
    base.chmod(0o755)
    (base / "data").chmod(0o555)
    monkeypatch.setattr(tempfile, "tempdir", str(base / "scratch"))
    yield base / "data"
    (base / "data").chmod(0o755)
    shutil.rmtree(base)


@pytest.mark.skipif(os.name != "posix", reason="permissions of folders are POSIX's")
def test_read_only_folder(read_only, official, server, capsys, monkeypatch):
    monkeypatch.setattr(course, "DATA_DIR", read_only)
    with ordinary_user():
        digits, lines = load(capsys)
    assert_same(digits, official)
    assert lines[0] == FAKE and len(lines) == 2
    assert "could not be kept" in lines[1] and "(Permission denied)" in lines[1]
    assert "set COURSE_DATA to a folder that you can write to" in lines[1]
    assert list(read_only.iterdir()) == []
    assert list((read_only.parent / "scratch").iterdir()) == []


def test_data_folder_below_a_file(official, server, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("kept")
    monkeypatch.setattr(course, "DATA_DIR", tmp_path / "file" / "data")
    digits, lines = load(capsys)
    assert_same(digits, official)
    assert lines[0] == FAKE and "could not be kept" in lines[1] and len(lines) == 2
    assert (tmp_path / "file").read_text() == "kept"


# Servers that fail


def send_half(handler, content):
    handler.wfile.write(content[: len(content) // 2])


def send_html(handler, content):
    handler.wfile.write(b"<html>".ljust(len(content)))


@pytest.mark.parametrize("answer", [send_half, send_html])
def test_bad_download_is_not_kept(answer, folder, server, capsys):
    server.answer = answer
    _, lines = load(capsys)
    assert_fallback(lines, folder)
    assert "File not found or corrupted" in lines[1] and server.requests
    assert not folder.exists()


def test_server_without_the_files(folder, server, capsys):
    server.files.clear()
    _, lines = load(capsys)
    assert_fallback(lines, folder)
    assert "HTTP Error 404" in lines[1]


@pytest.mark.parametrize("start", ["at once", "half way"])
def test_silent_server_is_given_up(start, folder, server, capsys, monkeypatch):
    def fall_silent(handler, content):
        if start == "half way":
            send_half(handler, content)
        server.stop.wait(20)

    server.answer = fall_silent
    if start == "at once":
        monkeypatch.setattr(Handler, "send_response", lambda self, _: server.stop.wait(20))
    monkeypatch.setattr(data, "TIMEOUT", 0.3)
    before = time.monotonic()
    _, lines = load(capsys)
    assert 0.3 <= time.monotonic() - before < 3
    assert_fallback(lines, folder)
    assert "TimeoutError: timed out" in lines[1]
    assert not folder.exists()


@pytest.mark.parametrize("previous", [None, 77.0])
def test_time_out_is_restored(previous, folder, offline, capsys):
    socket.setdefaulttimeout(previous)
    try:
        load(capsys)
        assert socket.getdefaulttimeout() == previous
    finally:
        socket.setdefaulttimeout(None)


ERRORS = [
    urllib.error.URLError("no route"),
    TimeoutError("no route"),
    ConnectionResetError("no route"),
    http.client.IncompleteRead(b"no route"),
    http.client.BadStatusLine("no route"),
    RuntimeError("no route"),
    zlib.error("no route"),
    EOFError("no route"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_kind_of_failure_is_survived(error, folder, capsys, monkeypatch):
    def fail(self):
        raise error

    monkeypatch.setattr(MNIST, "download", fail)
    _, lines = load(capsys)
    assert_fallback(lines, folder)
    assert f"({type(error).__name__}: " in lines[1]


# Interrupts, and two at once


@pytest.mark.skipif(os.name != "posix", reason="needs a signal sent to a thread")
def test_interrupt_half_way_through_a_download(folder, official, server, monkeypatch, capsys):
    truncated = {IMAGES: official[IMAGES][:9]}
    fill(folder, truncated)
    main, sent = threading.main_thread().ident, []

    def interrupt(handler, content):
        send_half(handler, content)
        if handler.number == 2:  # the first request only looks for redirects
            sent.append(signal.pthread_kill(main, signal.SIGINT))
            server.stop.wait(20)

    server.answer = interrupt
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            data.load_mnist()
    finally:
        signal.signal(signal.SIGINT, previous)
    assert sent and contents(folder) == truncated
    assert socket.getdefaulttimeout() is None


def test_interrupt_while_files_are_kept(folder, official, server, monkeypatch):
    truncated = {LABELS: official[LABELS][:9]}
    fill(folder, truncated)
    copy = shutil.copy

    def half_copy(source, target):
        if source.name == IMAGES:
            return copy(source, target)
        Path(target, source.name).write_bytes(source.read_bytes()[:20])
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copy", half_copy)
    with pytest.raises(KeyboardInterrupt):
        data.load_mnist()
    assert contents(folder) == truncated | {IMAGES: official[IMAGES]}


def load_in_child(queue):
    digits = data.load_mnist()
    queue.put((os.getpid(), digits.source, digits.y_train.tolist(), digits.X_train.sum().item()))


@pytest.mark.skipif(os.name != "posix", reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_processes_at_once(folder, official, server, monkeypatch):
    fork = multiprocessing.get_context("fork")
    queue, copied, copy = fork.SimpleQueue(), fork.Barrier(2), shutil.copy

    def copy_at_the_same_time(source, target):
        path = copy(source, target)
        copied.wait(10)
        return path

    monkeypatch.setattr(shutil, "copy", copy_at_the_same_time)
    processes = [fork.Process(target=load_in_child, args=(queue,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(15)
    assert [process.exitcode for process in processes] == [0, 0]
    (pid, *first), (other_pid, *second) = queue.get(), queue.get()
    assert pid != other_pid and first == second and first[0] == "MNIST"
    assert contents(folder) == official


# The task, and the toy


def tiny(count):
    X = torch.arange(count + 3.0).repeat(784, 1).T.contiguous()
    y = torch.arange(count + 3) % 10
    return data.Digits(X[:count], y[:count], X[count:], y[count:], "a test")


def test_parity_splits_are_disjoint_and_labeled():
    digits = tiny(100)
    train, val, test = data.load_parity(digits, seed=0, num_train=60, num_val=20)
    assert [len(split.y) for split in (train, val, test)] == [60, 20, 3]
    rows = torch.cat([train.X[:, 0], val.X[:, 0]])
    assert len(rows.unique()) == 80 and rows.max() < 100
    assert torch.equal(test.X, digits.X_test)
    for split in (train, val, test):
        assert torch.equal(split.digit, split.X[:, 0].long() % 10)
        assert split.y.tolist() == [float(digit in (1, 3, 5, 7, 9)) for digit in split.digit]
        assert (split.X.dtype, split.y.dtype) == (torch.float32, torch.float32)


def test_parity_depends_on_the_seed_alone():
    digits = tiny(100)
    first = data.load_parity(digits, 0, 60, 20)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    again, other = data.load_parity(digits, 0, 60, 20), data.load_parity(digits, 1, 60, 20)
    assert torch.equal(torch.get_rng_state(), state)
    for index in (0, 1):
        assert torch.equal(first[index].X, again[index].X)
        assert not torch.equal(first[index].X, other[index].X)


@pytest.mark.parametrize(
    ("pool", "sizes", "expected"),
    [
        (1297, (4000, 1000), (1038, 259)),
        (4999, (4000, 1000), (4000, 999)),
        (5000, (4000, 1000), (4000, 1000)),
        (100, (50, 50), (50, 50)),
        (100, (95, 10), (90, 10)),
    ],
)
def test_parity_shrinks_with_the_pool(pool, sizes, expected):
    train, val, _ = data.load_parity(tiny(pool), 0, *sizes)
    assert (len(train.y), len(val.y)) == expected


def test_moons():
    X, y = data.make_moons(50, noise=0.1, seed=0)
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((50, 2), torch.float32, (50,), torch.float32)
    assert sorted(y.tolist()) == [0.0] * 25 + [1.0] * 25
    assert torch.equal(X, data.make_moons(50, noise=0.1, seed=0)[0])
    assert not torch.equal(X, data.make_moons(50, noise=0.1, seed=1)[0])
    clean, y = data.make_moons(50, noise=0.0, seed=0)
    center = torch.stack([y, y / 2], 1)
    assert torch.allclose((clean - center).norm(dim=1), torch.ones(50), atol=1e-5)


# The real thing


def test_checksums_are_those_of_torchvision():
    assert [(f"{stem}.gz", packed) for stem, (packed, _) in data.MD5.items()] == MNIST.resources


def test_real_mnist(capsys):
    files, _ = data._read_files(REAL_FOLDER)
    if len(files) < 4:
        pytest.skip(f"MNIST is not in {REAL_FOLDER}")
    assert {stem: md5(content) for stem, content in files.items()} == {
        stem: unpacked for stem, (_, unpacked) in data.MD5.items()
    }
    digits, lines = load(capsys)
    assert lines[0] == "Data set: MNIST (60,000 training and 10,000 test images of 28 × 28 pixels)"
    assert digits.X_train.shape == (60000, 784) and digits.X_test.shape == (10000, 784)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(digits.y_train).tolist() == counts
    assert torch.bincount(digits.y_test).sum() == 10000
    assert abs(digits.X_train.double().mean()) < 1e-3 and abs(digits.X_train.std() - 1) < 1e-3


def test_least_squares_has_the_curvatures_the_noise_and_the_truth_it_was_asked_for():
    X, y, w_true = data.make_least_squares(500, (3.0, 0.2, 1.0), noise=0.4, seed=0)
    assert (X.shape, y.shape, w_true.shape) == ((500, 3), (500,), (3,))
    assert {t.dtype for t in (X, y, w_true)} == {torch.float64}
    found = torch.linalg.eigvalsh(X.T @ X / 500)
    assert torch.allclose(found, torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64))
    assert w_true.abs().min() >= 1 and w_true.abs().max() <= 2
    assert 0.36 < (y - X @ w_true).std() < 0.44
    many = [data.make_least_squares(9, [1.0] * 9, noise=0.0, seed=i)[2] for i in range(9)]
    assert 0.3 < (torch.cat(many) > 0).double().mean() < 0.7
    X, y, w_true = data.make_least_squares(500, (3.0, 0.2), noise=0.0, seed=0)
    assert torch.equal(y, X @ w_true)


def test_least_squares_depends_on_its_seed_and_on_nothing_else():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = data.make_least_squares(9, (2.0, 1.0), noise=0.1, seed=0)
    assert torch.equal(state, torch.get_rng_state())
    again = data.make_least_squares(9, (2.0, 1.0), noise=0.1, seed=0)
    other = data.make_least_squares(9, (2.0, 1.0), noise=0.1, seed=1)
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))


def test_least_squares_refuses_more_curvatures_than_points():
    with pytest.raises(ValueError, match="at most 2 curvatures, not 3"):
        data.make_least_squares(2, (1.0, 1.0, 1.0), noise=0.1, seed=0)
