"""MNIST, Fashion-MNIST and the embedded sample; downloads come from a server on the loopback."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from robustbench_lite import DataError, DataSource, NoParams, Places
from robustbench_lite.builtin.data import idx, mnist, mnist_sample, robeval_datasets
from robustbench_lite.builtin.data.idx import Pinned, array_of, obtain
from robustbench_lite.builtin.data.mnist import MnistParams, Name, Split
from robustbench_lite.samples import select
from robustbench_lite.types import Selection

Served = dict[str, bytes]

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
LABELS = np.array([7, 2, 1, 0, 4], dtype=np.uint8)
NAMES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_bytes(values: np.typing.NDArray[np.uint8]) -> bytes:
    """The IDX format as its authors describe it: 0, 0, type, axes, sizes, values."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


CONTENTS = dict(zip(NAMES, (idx_bytes(IMAGES), idx_bytes(LABELS)), strict=True))
TINY = Pinned(
    name=NAMES[0],
    shape=IMAGES.shape,
    sha256=hashlib.sha256(CONTENTS[NAMES[0]]).hexdigest(),
)


def places(tmp_path: Path, data: Path | None = None) -> Places:
    return Places(suite=tmp_path, data=data, cache=tmp_path / "cache")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST has a test split of five images."""
    monkeypatch.setattr(mnist, "COUNTS", {"test": 5})
    hashes = tuple(hashlib.sha256(content).hexdigest() for content in CONTENTS.values())
    monkeypatch.setattr(mnist, "SHA256", {("mnist", "test"): hashes})


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Served]]:
    """The address of a server on the loopback, and what it answers; 404 for anything else."""
    answers: Served = {}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = answers.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", answers
        server.shutdown()
        thread.join()


def put(folder: Path, *, packed: bool, contents: dict[str, bytes] = CONTENTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, 1))
        else:
            (folder / name).write_bytes(content)
    return folder


def check_tiny(source: DataSource) -> None:
    assert source.labels.tolist() == LABELS.tolist()
    assert source.labels.dtype == torch.int64
    x = source.read([4, 1])
    assert x.dtype == torch.float32
    assert np.array_equal(x.numpy()[:, 0], IMAGES[[4, 1]].astype(np.float32) / np.float32(255))


# where the files are found


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["root", "data/mnist", "cache/mnist"])
def test_found_in_each_place(tmp_path: Path, place: str, packed: bool) -> None:
    put(tmp_path / place, packed=packed)
    params = MnistParams(root=tmp_path / "root" if place == "root" else None)
    source = mnist.load(params, places=places(tmp_path, tmp_path / "data"), name="mnist")
    check_tiny(source)
    assert source.ids == tuple(f"mnist/test/0000{row}" for row in range(5))
    assert (source.shape, source.classes) == ((1, 28, 28), tuple("0123456789"))


@pytest.mark.usefixtures("tiny")
def test_the_root_goes_before_the_rest(tmp_path: Path) -> None:
    put(tmp_path / "root", packed=True)
    put(tmp_path / "data/mnist", packed=False, contents=dict.fromkeys(NAMES, b"wrong"))
    both = places(tmp_path, tmp_path / "data")
    check_tiny(mnist.load(MnistParams(root=tmp_path / "root"), places=both, name="mnist"))
    with pytest.raises(DataError, match="5 bytes uncompressed; expected 3936"):
        mnist.load(MnistParams(), places=both, name="mnist")


def test_what_is_read_is_fresh(tmp_path: Path) -> None:
    source = mnist.source(IMAGES, LABELS, list("abcde"), tuple("0123456789"))
    source.read([0, 1]).fill_(-1)
    check_tiny(source)


# bytes that are not the original's


@pytest.mark.parametrize("packed", [False, True])
def test_other_bytes_are_refused_with_both_hashes(tmp_path: Path, packed: bool) -> None:
    changed = bytearray(CONTENTS[NAMES[0]])
    changed[-1] ^= 1
    put(tmp_path, packed=packed, contents={NAMES[0]: bytes(changed)})
    with pytest.raises(DataError) as raised:
        obtain(TINY, [tmp_path], [])
    found = hashlib.sha256(changed).hexdigest()
    assert f"sha256 of the uncompressed bytes is {found}; expected {TINY.sha256}" in str(
        raised.value
    )
    assert str(tmp_path / NAMES[0]) in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html></html>", "cannot be read"),
        (gzip.compress(CONTENTS[NAMES[0]])[:-200], "cannot be read"),
        (gzip.compress(CONTENTS[NAMES[0]][:-1]), "holds 3935 bytes uncompressed; expected 3936"),
        (gzip.compress(b"\0" * 10**7), "holds more than 3936 bytes"),
        (b"", "holds 0 bytes"),
    ],
)
def test_broken_gzip_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / f"{NAMES[0]}.gz").write_bytes(content)
    with pytest.raises(DataError, match=message):
        obtain(TINY, [tmp_path], [])


# downloads


def test_fetched_once_into_the_last_folder(tmp_path: Path, served: tuple[str, Served]) -> None:
    mirror, answers = served
    answers[f"/{TINY.name}.gz"] = gzip.compress(CONTENTS[TINY.name])
    folders = [tmp_path / "data", tmp_path / "cache"]
    assert np.array_equal(array_of(TINY, obtain(TINY, folders, [mirror])), IMAGES)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{TINY.name}.gz"]
    assert not (tmp_path / "data").exists()
    answers.clear()
    assert obtain(TINY, folders, [mirror]) == CONTENTS[TINY.name]


def test_a_second_mirror_stands_in_for_a_broken_one(
    tmp_path: Path, served: tuple[str, Served]
) -> None:
    mirror, answers = served
    answers[f"/a/{TINY.name}.gz"] = b"<html>a captive portal</html>"
    answers[f"/b/{TINY.name}.gz"] = gzip.compress(CONTENTS[TINY.name])
    assert obtain(TINY, [tmp_path], [f"{mirror}a/", f"{mirror}b/"]) == CONTENTS[TINY.name]


def test_wrong_bytes_from_every_mirror_are_not_kept(
    tmp_path: Path, served: tuple[str, Served]
) -> None:
    mirror, answers = served
    answers[f"/{TINY.name}.gz"] = gzip.compress(CONTENTS[TINY.name][:-1] + b"\0")
    with pytest.raises(DataError) as raised:
        obtain(TINY, [tmp_path / "data", tmp_path / "cache"], [mirror, f"{mirror}none/"])
    message = str(raised.value)
    for part in (TINY.sha256, "404", str(tmp_path / "data"), str(tmp_path / "cache"), "root:"):
        assert part in message
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("tiny")
def test_the_loader_fetches_both_files(
    tmp_path: Path, served: tuple[str, Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, answers = served
    monkeypatch.setattr(mnist, "MIRRORS", {"mnist": (mirror,)})
    answers.update({f"/{name}.gz": gzip.compress(content) for name, content in CONTENTS.items()})
    check_tiny(mnist.load(MnistParams(), places=places(tmp_path), name="mnist"))
    assert len(list((tmp_path / "cache/mnist").iterdir())) == 2


def test_nowhere_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    closed = "http://127.0.0.1:1/"
    monkeypatch.setattr(mnist, "MIRRORS", {"mnist": (closed,)})
    params = MnistParams(root=tmp_path / "mine")
    with pytest.raises(DataError) as raised:
        mnist.load(params, places=places(tmp_path, tmp_path / "data"), name="mnist")
    message = str(raised.value)
    for folder in ("mine", "data/mnist", "cache/mnist"):
        assert str(tmp_path / folder) in message
    assert f"{closed}t10k-images-idx3-ubyte.gz: ConnectionError" in message
    assert "Put t10k-images-idx3-ubyte.gz into one of these folders" in message


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="FileExistsError"):
        obtain(TINY, [tmp_path / "cache"], ["http://127.0.0.1:1/"])


# specs


def test_planning_needs_no_file(tmp_path: Path) -> None:
    specs = {spec.name: spec for spec in robeval_datasets()}
    contents = [
        specs[name].content(MnistParams(split=split), places(tmp_path))
        for name in ("mnist", "fashion-mnist")
        for split in ("train", "test")
    ]
    hashes = [value for content in contents for value in content.values()]
    assert len(set(hashes)) == 8
    assert all(str(value).startswith("sha256:") and len(str(value)) == 71 for value in hashes)
    assert not (tmp_path / "cache").exists()


def test_parameters_are_checked() -> None:
    with pytest.raises(ValidationError, match="'train' or 'test'"):
        MnistParams(split="validation")  # type: ignore[arg-type]


def test_the_header_that_is_expected() -> None:
    assert CONTENTS[TINY.name].startswith(TINY.header)
    assert TINY.size == len(CONTENTS[TINY.name])
    assert replace(TINY, shape=(2,)).header == bytes([0, 0, 8, 1, 0, 0, 0, 2])
    assert idx.UNSIGNED_BYTES == 8


# the embedded sample


def test_the_embedded_sample(tmp_path: Path) -> None:
    source = mnist_sample.load(NoParams(), places=places(tmp_path))
    selected = select("sample", source, Selection())
    assert selected.n == 1000
    assert selected.ids[17] == "mnist/test/00017"
    assert torch.bincount(selected.labels).tolist() == [85, 126, 116, 107, 110, 87, 87, 99, 89, 94]
    batch = selected.batch(0, 1000, torch.device("cpu"))
    assert batch.x.shape == (1000, 1, 28, 28)
    assert len(set(batch.hashes)) == 1000
    content = mnist_sample.SPEC.content(NoParams(), places(tmp_path))
    assert all(isinstance(path, Path) and path.is_file() for path in content.values())


# the original files


@pytest.mark.fulldata
@pytest.mark.parametrize(
    ("name", "split", "mean", "deviation"),
    [
        ("mnist", "test", 0.13251, 0.31048),
        ("mnist", "train", 0.13066, 0.30811),
        ("fashion-mnist", "test", 0.28685, 0.35244),
        ("fashion-mnist", "train", 0.28604, 0.35302),
    ],
)
def test_the_original_files(
    full_data: Path, tmp_path: Path, name: Name, split: Split, mean: float, deviation: float
) -> None:
    """Means and deviations are those that everybody finds."""
    source = mnist.load(MnistParams(split=split), places=places(tmp_path, full_data), name=name)
    count = mnist.COUNTS[split]
    assert len(source.ids) == len(source.labels) == count
    shares = torch.bincount(source.labels, minlength=10).tolist()
    if name == "fashion-mnist":
        assert shares == [count // 10] * 10
    if (name, split) == ("mnist", "test"):
        assert shares == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    x = source.read(range(count))
    assert float(x.double().mean()) == pytest.approx(mean, abs=2e-5)
    assert float(x.double().std()) == pytest.approx(deviation, abs=2e-5)


@pytest.mark.fulldata
def test_the_embedded_sample_is_the_start_of_the_test_set(full_data: Path, tmp_path: Path) -> None:
    there = places(tmp_path, full_data)
    whole = select("a", mnist.load(MnistParams(), places=there, name="mnist"), Selection(take=1000))
    sample = select("b", mnist_sample.load(NoParams(), places=there), Selection())
    a, b = (each.batch(0, 1000, torch.device("cpu")) for each in (whole, sample))
    assert a.ids == b.ids
    assert a.hashes == b.hashes
    assert torch.equal(a.x, b.x)
