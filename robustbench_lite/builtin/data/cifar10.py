"""CIFAR-10 from its python or binary batches (Krizhevsky, 2009)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustbench_lite import DataError, DatasetSpec, DataSource, Params, Places, SuitePath

from .levels import UNIT, scaled
from .plain_pickle import Stored, load_plain

Images = NDArray[np.uint8]

SHAPE = (3, 32, 32)
VALUES = 3 * 32 * 32
MAX_BYTES = 64 * 2**20  # an original batch has 31 MB
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
BATCHES: Mapping[str, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test": ("test_batch",),
}
FOLDERS = (".", "cifar-10-batches-bin", "cifar-10-batches-py")


class Cifar10Params(Params):
    """`split`: train or test. `root`: folder of the batches, or the one above it."""

    split: Literal["train", "test"] = "test"
    root: SuitePath | None = None


def load(params: Cifar10Params, *, places: Places) -> DataSource:
    """Images [3, 32, 32] in [0, 1], red, green, blue.

    Binary batches stay on the disk; python batches are held as bytes (31 MB each). A python batch
    is a pickle: nothing in it is executed, and one that holds more than numbers and text is
    refused. Raises `DataError`.
    """
    parts = [_batch(path) for path in _files(params, places)]
    images, labels = zip(*parts, strict=True)
    ends = np.cumsum([len(part) for part in images])

    def read(positions: Sequence[int]) -> Tensor:
        rows = np.empty((len(positions), VALUES), dtype=np.uint8)
        wanted = np.asarray(positions, dtype=np.int64)
        owner = np.searchsorted(ends, wanted, side="right")
        for part in np.unique(owner).tolist():
            mine = owner == part
            first = ends[part] - len(images[part])
            rows[mine] = images[part][wanted[mine] - first]
        return scaled(rows.reshape(-1, *SHAPE))

    return DataSource(
        ids=tuple(f"cifar10/{params.split}/{row:05d}" for row in range(int(ends[-1]))),
        labels=torch.from_numpy(np.concatenate(labels)),
        read=read,
        shape=SHAPE,
        box=UNIT,
        classes=CLASSES,
    )


def _files(params: Cifar10Params, places: Places) -> list[Path]:
    """The split's batches, all binary or all python, in order."""
    root = params.root or (places.data and places.data / "cifar10")
    if root is None:
        raise DataError("cifar10: no root: is given; expected the folder of the CIFAR-10 batches")
    names = BATCHES[params.split]
    for folder in (root / name for name in FOLDERS):
        for suffix in (".bin", ""):
            paths = [folder / f"{name}{suffix}" for name in names]
            there = [path for path in paths if path.is_file()]
            if there and len(there) < len(paths):
                missing = ", ".join(path.name for path in paths if path not in there)
                raise DataError(f"{folder}: missing {missing}; expected {len(paths)} batches")
            if there:
                return paths
    looked = ", ".join(str(root / name) for name in FOLDERS)
    raise DataError(
        f"cifar10: found neither {names[0]}.bin nor {names[0]} in {looked}. Unpack the archive "
        "cifar-10-binary.tar.gz or cifar-10-python.tar.gz there, or give the dataset's root:"
    )


def _batch(path: Path) -> tuple[Images, NDArray[np.int64]]:
    """Values [n, 3072] and labels [n] of one batch file."""
    if path.suffix == ".bin":
        return _binary(path)
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: {path.stat().st_size} bytes; a batch has at most {MAX_BYTES}")
    entries = load_plain(path)
    if not isinstance(entries, dict):
        raise DataError(f"{path}: holds a {type(entries).__name__}; expected a dictionary")
    named = {key.decode() if isinstance(key, bytes) else key: entries[key] for key in entries}
    images, labels = named.get("data"), named.get("labels")
    if not isinstance(images, Stored) or not isinstance(labels, list):
        raise DataError(f"{path}: found the keys {sorted(map(str, named))}; expected data, labels")
    values = images.array(path)
    if values.ndim != 2 or values.shape[1] != VALUES or len(values) != len(labels):
        raise DataError(
            f"{path}: data {list(values.shape)} and {len(labels)} labels; expected [n, {VALUES}] "
            "and n"
        )
    if not all(type(label) is int for label in labels):
        raise DataError(f"{path}: labels are not all whole numbers")
    return values, _labels(path, np.asarray(labels))


def _binary(path: Path) -> tuple[Images, NDArray[np.int64]]:
    size, record = path.stat().st_size, VALUES + 1
    if not size or size % record:
        raise DataError(f"{path}: {size} bytes; expected a multiple of {record} (label, image)")
    rows = np.memmap(path, dtype=np.uint8, mode="r", shape=(size // record, record))
    return rows[:, 1:], _labels(path, rows[:, 0])


def _labels(path: Path, labels: NDArray[np.integer]) -> NDArray[np.int64]:
    wrong = np.flatnonzero((labels < 0) | (labels >= len(CLASSES)))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(f"{path}: image {row} has the label {labels[row]}; expected 0 to 9")
    return labels.astype(np.int64)


def content(params: Params, places: Places) -> Mapping[str, Path]:
    """The split's batch files."""
    assert isinstance(params, Cifar10Params)
    return {path.name: path for path in _files(params, places)}


SPEC = DatasetSpec(
    name="cifar10",
    implementation=load,
    summary="32 x 32 colour photographs, 10 classes, from python or binary batches",
    params=Cifar10Params,
    content=content,
    license="not stated by the authors (A. Krizhevsky, 2009); not shipped",
)
