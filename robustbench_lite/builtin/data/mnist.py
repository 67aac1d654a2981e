"""MNIST and Fashion-MNIST from the original IDX files, pinned by sha256, fetched if need be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustbench_lite import DatasetSpec, DataSource, Params, Places, SuitePath

from .idx import Pinned, array_of, obtain
from .levels import UNIT, scaled

Name = Literal["mnist", "fashion-mnist"]
Split = Literal["train", "test"]

SHAPE = (1, 28, 28)
COUNTS: Mapping[Split, int] = {"train": 60_000, "test": 10_000}
PREFIXES: Mapping[Split, str] = {"train": "train", "test": "t10k"}
MIRRORS: Mapping[Name, tuple[str, ...]] = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": (
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
}
LICENSES: Mapping[Name, str] = {
    "mnist": "CC BY-SA 3.0 (Y. LeCun, C. Cortes, C. J. C. Burges)",
    "fashion-mnist": "MIT (Zalando SE)",
}
CLASSES: Mapping[Name, tuple[str, ...]] = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}
SHA256: Mapping[tuple[Name, Split], tuple[str, str]] = {  # (images, labels), uncompressed
    ("mnist", "train"): (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    ("mnist", "test"): (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    ("fashion-mnist", "train"): (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    ("fashion-mnist", "test"): (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


class MnistParams(Params):
    """`split`: train (60,000) or test (10,000). `root`: folder of the IDX files, plain or `.gz`."""

    split: Split = "test"
    root: SuitePath | None = None


def sample_ids(name: Name, split: Split, count: int) -> tuple[str, ...]:
    """Stable names such as "mnist/test/00017"; the number is the position in the original file."""
    return tuple(f"{name}/{split}/{row:05d}" for row in range(count))


def pinned(name: Name, split: Split) -> tuple[Pinned, Pinned]:
    """The split's image file and label file."""
    count, prefix, (images, labels) = COUNTS[split], PREFIXES[split], SHA256[name, split]
    return (
        Pinned(name=f"{prefix}-images-idx3-ubyte", shape=(count, 28, 28), sha256=images),
        Pinned(name=f"{prefix}-labels-idx1-ubyte", shape=(count,), sha256=labels),
    )


def load(params: MnistParams, *, places: Places, name: Name) -> DataSource:
    """Images [1, 28, 28] in [0, 1]. Holds the split as bytes: 8 MB (test) or 47 MB (train).

    Files are looked for in `root`, then in the folder `name` of the local data and of the cache,
    and fetched into the cache where they are in none. Raises `DataError` for a file whose bytes are
    not the original's, and for one that is found nowhere and cannot be fetched.
    """
    folders = (params.root, places.data and places.data / name, places.cache / name)
    searched = tuple(folder for folder in folders if folder is not None)
    images, labels = (
        array_of(file, obtain(file, searched, MIRRORS[name])) for file in pinned(name, params.split)
    )
    return source(images, labels, sample_ids(name, params.split, len(images)), CLASSES[name])


def source(
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    ids: Sequence[str],
    classes: tuple[str, ...],
) -> DataSource:
    """Grey images [n, 28, 28] and labels [n], both bytes, as a source of [1, 28, 28] in [0, 1]."""

    def read(positions: Sequence[int]) -> Tensor:
        return scaled(images[list(positions)][:, None])

    return DataSource(
        ids=ids,
        labels=torch.from_numpy(labels.astype(np.int64)),
        read=read,
        shape=SHAPE,
        box=UNIT,
        classes=classes,
    )


def content(params: Params, places: Places, *, name: Name) -> Mapping[str, str]:  # noqa: ARG001
    """The pinned hashes, known without the files."""
    assert isinstance(params, MnistParams)
    return {file.name: f"sha256:{file.sha256}" for file in pinned(name, params.split)}


def _spec(name: Name, summary: str) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        implementation=partial(load, name=name),
        summary=summary,
        params=MnistParams,
        content=partial(content, name=name),
        license=LICENSES[name],
    )


SPECS = (
    _spec("mnist", "handwritten digits, 28 x 28 grey, 10 classes (LeCun, Cortes, Burges)"),
    _spec("fashion-mnist", "clothing, 28 x 28 grey, 10 classes (Zalando)"),
)
