"""CIFAR-10 batches of both kinds, and pickles that are programs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from robustbench_lite import DataError, DataSource, Places
from robustbench_lite.builtin.data import cifar10, plain_pickle
from robustbench_lite.builtin.data.cifar10 import Cifar10Params
from robustbench_lite.builtin.data.plain_pickle import Stored, load_plain

Images = np.typing.NDArray[np.uint8]

rng = np.random.default_rng(3)
PER_BATCH = 4
IMAGES = rng.integers(0, 256, (6, PER_BATCH, 3, 32, 32), dtype=np.uint8)
LABELS = rng.integers(0, 10, (6, PER_BATCH))
NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def places(tmp_path: Path, data: Path | None = None) -> Places:
    return Places(suite=tmp_path, data=data, cache=tmp_path / "cache")


def entries(part: int) -> dict[bytes, object]:
    """What a python batch of CIFAR-10 holds."""
    return {
        b"batch_label": b"testing batch 1 of 1",
        b"labels": LABELS[part].tolist(),
        b"data": IMAGES[part].reshape(PER_BATCH, -1),
        b"filenames": [b"domestic_cat_s_000907.png"] * PER_BATCH,
    }


def write_python(folder: Path, protocol: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, name in enumerate(NAMES):
        (folder / name).write_bytes(pickle.dumps(entries(part), protocol=protocol))
    return folder


def write_binary(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, name in enumerate(NAMES):
        records = np.concatenate(
            [LABELS[part][:, None].astype(np.uint8), IMAGES[part].reshape(PER_BATCH, -1)], axis=1
        )
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


def load(tmp_path: Path, root: Path | None, **params: object) -> DataSource:
    return cifar10.load(
        Cifar10Params(root=root, **params),  # type: ignore[arg-type]
        places=places(tmp_path),
    )


@pytest.mark.parametrize("kind", ["python", "binary"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_both_kinds_give_the_images(tmp_path: Path, kind: str, split: str) -> None:
    root = (write_python if kind == "python" else write_binary)(tmp_path / "root")
    source = load(tmp_path, root, split=split)
    parts = slice(0, 5) if split == "train" else slice(5, 6)
    images = IMAGES[parts].reshape(-1, 3, 32, 32)
    assert source.labels.tolist() == LABELS[parts].reshape(-1).tolist()
    order = [3, 1, 2] if split == "test" else [19, 0, 7, 8, 4, 3]
    x = source.read(order)
    assert x.dtype == torch.float32
    assert np.array_equal(x.numpy(), images[order].astype(np.float32) / np.float32(255))
    assert source.ids[:2] == (f"cifar10/{split}/00000", f"cifar10/{split}/00001")
    assert (source.shape, len(source.classes), len(source.ids)) == ((3, 32, 32), 10, len(images))
    x.fill_(-1)
    assert float(source.read(order).min()) >= 0


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_every_pickle_protocol_that_numpy_writes_in_one_piece(
    tmp_path: Path, protocol: int
) -> None:
    source = load(tmp_path, write_python(tmp_path / "root", protocol))
    assert np.array_equal((source.read([0]).numpy() * 255).round(), IMAGES[5, :1])


@pytest.mark.parametrize("below", ["cifar-10-batches-py", "cifar-10-batches-bin"])
def test_found_below_the_root_and_in_the_local_data(tmp_path: Path, below: str) -> None:
    write = write_python if below.endswith("py") else write_binary
    write(tmp_path / "data" / "cifar10" / below)
    there = places(tmp_path, tmp_path / "data")
    assert len(cifar10.load(Cifar10Params(), places=there).ids) == PER_BATCH
    content = cifar10.content(Cifar10Params(split="train"), there)
    assert len(content) == 5
    assert all(path.is_file() for path in content.values())


# what is not there or not whole


def test_missing_folders_and_batches(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no root: is given"):
        load(tmp_path, None)
    with pytest.raises(
        DataError, match=r"found neither test_batch.bin nor test_batch in .*nowhere"
    ):
        load(tmp_path, tmp_path / "nowhere")
    root = write_binary(tmp_path / "root")
    (root / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"missing data_batch_4.bin; expected 5 batches"):
        load(tmp_path, root, split="train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw[:-1], "12291 bytes; expected a multiple of 3073"),
        (lambda _: b"", "0 bytes; expected a multiple of 3073"),
        (
            lambda raw: raw[:3073] + b"\x0a" + raw[3074:],
            "image 1 has the label 10; expected 0 to 9",
        ),
    ],
)
def test_binary_batches_that_are_not(tmp_path: Path, change: object, message: str) -> None:
    path = write_binary(tmp_path) / "test_batch.bin"
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        load(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({b"data": None}, "expected data, labels"),
        ({b"data": np.zeros((PER_BATCH, 3071), np.uint8)}, r"data \[4, 3071\] and 4 labels"),
        ({b"data": np.zeros((3, 3072), np.uint8)}, r"data \[3, 3072\] and 4 labels"),
        ({b"data": np.zeros((PER_BATCH, 3072), np.int8)}, "not one of unsigned bytes"),
        ({b"data": np.zeros((PER_BATCH, 3072), np.float32)}, "not one of unsigned bytes"),
        ({b"data": np.zeros((3072, PER_BATCH), np.uint8).T}, "not one of unsigned bytes"),
        ({b"labels": [1, 2, 3, 11]}, "image 3 has the label 11; expected 0 to 9"),
        ({b"labels": [1, 2, 3, -1]}, "image 3 has the label -1"),
        ({b"labels": [1, 2, 3, "x"]}, "not all whole numbers"),
        ({b"labels": [1, 2, 3, 2**70]}, "image 3 has the label 1180591620717411303424"),
    ],
)
def test_python_batches_that_are_not(
    tmp_path: Path, changes: dict[bytes, object], message: str
) -> None:
    path = tmp_path / "test_batch"
    path.write_bytes(pickle.dumps(entries(5) | changes, protocol=2))
    with pytest.raises(DataError, match=message):
        load(tmp_path, tmp_path)


def test_a_batch_that_is_too_large(tmp_path: Path) -> None:
    with (tmp_path / "test_batch").open("wb") as stream:
        stream.truncate(cifar10.MAX_BYTES + 1)
    with pytest.raises(DataError, match="a batch has at most"):
        load(tmp_path, tmp_path)


# pickles


class Evil:
    """Unpickled by `pickle.load`, it makes a folder."""

    def __init__(self, call: object, *given: object) -> None:
        self.made = (call, given)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:  # type: ignore[override]
        return self.made  # type: ignore[return-value]


def test_a_pickle_that_is_a_program_is_refused_and_not_run(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "test_batch"
    path.write_bytes(pickle.dumps(entries(5) | {b"more": Evil(os.mkdir, str(trace))}))
    with pytest.raises(DataError, match=r"refused as a pickle .* it asks for (posix|nt)\.mkdir"):
        load(tmp_path, tmp_path)
    assert not trace.exists()
    with path.open("rb") as stream:
        pickle.load(stream)
    assert trace.exists(), "the pickle of this test does nothing evil"


@pytest.mark.parametrize(
    "evil",
    [
        Evil(eval, "1"),
        Evil(getattr, "x", "upper"),
        Evil(np.load, "x", None, True),
        Evil(np.frombuffer, b"x"),
        Evil(pickle.loads, b""),
        np.array([Evil(eval, "1")], dtype=object),
        np.float64(1.0),
        Path("x"),
        {1, 2},
    ],
)
def test_only_plain_values_are_made(tmp_path: Path, evil: object) -> None:
    path = tmp_path / "p"
    path.write_bytes(pickle.dumps(evil, protocol=2))
    with pytest.raises(DataError, match="it asks for"):
        load_plain(path)


@pytest.mark.parametrize("raw", [b"", b"<html>", b"\x80\x02", b"\x80\x02}q\x00(", b"\x80\xff."])
def test_what_is_no_pickle_at_all(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "p"
    path.write_bytes(raw)
    with pytest.raises(DataError, match="refused as a pickle of plain values"):
        load_plain(path)


def test_objects_inside_an_array_stay_plain(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_bytes(pickle.dumps(np.array([{"a": 1}], dtype=object), protocol=2))
    stored = load_plain(path)
    assert isinstance(stored, Stored)
    with pytest.raises(DataError, match="not one of unsigned bytes"):
        stored.array(path)


def test_a_header_that_promises_more_than_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "p"
    honest = pickle.dumps(np.zeros((2, 3), np.uint8), protocol=2)
    path.write_bytes(honest.replace(b"K\x02K\x03\x86", b"J\xff\xff\xff\x7fK\x03\x86"))
    assert path.read_bytes() != honest
    stored = load_plain(path)
    assert isinstance(stored, Stored)
    with pytest.raises(DataError, match="not one of unsigned bytes"):
        stored.array(path)


@pytest.mark.parametrize(("module", "name"), plain_pickle._SUBSTITUTES)
def test_a_pickle_cannot_change_the_reader(tmp_path: Path, module: str, name: str) -> None:
    """The BUILD instruction, which sets attributes, must reach nothing that outlives the file."""
    path = tmp_path / "p"
    state = b"(N}X\x05\x00\x00\x00arrayX\x04\x00\x00\x00evilst"
    path.write_bytes(b"c" + f"{module}\n{name}\n".encode() + state + b"b.")
    load_plain(path)
    assert not any(
        getattr(substitute, "array", None) == "evil"
        for substitute in plain_pickle._SUBSTITUTES.values()
    )
