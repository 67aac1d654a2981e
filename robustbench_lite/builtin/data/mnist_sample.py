"""The first 1,000 images of the MNIST test set, inside the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robustbench_lite import DatasetSpec, DataSource, NoParams, Params, Places

from .mnist import CLASSES, LICENSES, sample_ids, source

FILE = Path(__file__).parents[2] / "embedded" / "mnist_sample.npz"


def load(params: NoParams, *, places: Places) -> DataSource:  # noqa: ARG001  (the loaders' form)
    """The sample; its ids are those of `mnist`, split test, so that results can be joined."""
    with np.load(FILE, allow_pickle=False) as stored:
        images, labels = stored["x"], stored["y"]
    return source(images, labels, sample_ids("mnist", "test", len(images)), CLASSES["mnist"])


def content(params: Params, places: Places) -> Mapping[str, Path | str]:  # noqa: ARG001
    """The file inside the package."""
    return {FILE.name: FILE}


SPEC = DatasetSpec(
    name="mnist-sample",
    implementation=load,
    summary="the first 1,000 MNIST test images, embedded in the package",
    params=NoParams,
    content=content,
    license=LICENSES["mnist"],
)
