"""Inputs and labels in array files: .npz, .npy, .safetensors or .parquet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from robustbench_lite import Box, DataError, DatasetSpec, DataSource, Params, Places, SuitePath

from .columns import NUMBERS, Array, Column, open_columns
from .levels import UNIT, scaled

MAX_BYTES = 16 * 2**30


class ArraysParams(Params):
    """Where inputs and labels stand, and what the values mean.

    `path`: .npz, .npy, .safetensors or .parquet. `x`, `y`, `ids`: keys of an .npz or .safetensors,
    columns of a .parquet; `x` may be a list of columns, one for each feature. `labels`: another
    file that holds `y` (needed beside an .npy). `range`: lowest and highest value, the box in which
    budgets are measured; inputs that are all bytes (uint8) are spread over it. `shape`: of one
    sample in the file. `layout`: "hwc" images are turned to channels first. `class_names`,
    `num_classes`: the classes, otherwise 0 to the largest label. `max_bytes`: of what compressed
    members may unpack to.
    """

    path: SuitePath
    labels: SuitePath | None = None
    x: str | tuple[str, ...] = "x"
    y: str = "y"
    ids: str | None = None
    range: tuple[float, float] = (UNIT.low, UNIT.high)
    shape: tuple[int, ...] | None = None
    layout: Literal["chw", "hwc"] = "chw"
    class_names: tuple[str, ...] | None = None
    num_classes: int | None = Field(default=None, ge=1)
    max_bytes: int = Field(default=MAX_BYTES, ge=1)


def load(params: ArraysParams, *, places: Places) -> DataSource:  # noqa: ARG001  (the loaders' form)
    """The samples; inputs are read by rows. A sample without an id is named by its row number.

    Raises `DataError` where a file or key is missing, or lengths, shape, types or labels are not
    as declared.
    """
    box = Box(*params.range)
    if not (math.isfinite(box.low) and math.isfinite(box.high) and box.low < box.high):
        raise DataError(f"{params.path}: range: {list(params.range)}; expected finite low < high")
    inputs, answers, names = _columns(params)
    for what, column in (("labels", answers), ("ids", names)):
        if column is not None and column.shape[0] != inputs.shape[0]:
            raise DataError(
                f"{params.path}: {inputs.shape[0]} inputs and {column.shape[0]} {what}; expected "
                "as many"
            )
    if inputs.dtype.kind not in NUMBERS:
        raise DataError(f"{params.path}: the inputs are {inputs.dtype}; expected numbers")
    stored, shape = _shapes(params, inputs.shape[1:])
    labels, classes = _labels(params, answers.everything())

    def read(positions: Sequence[int]) -> Tensor:
        rows = inputs.rows(positions).reshape(len(positions), *stored)
        x = _floats(rows, box)
        return x.movedim(-1, 1).contiguous() if params.layout == "hwc" else x

    return DataSource(
        ids=_ids(names, inputs.shape[0]),
        labels=labels,
        read=read,
        shape=shape,
        box=box,
        classes=classes,
    )


def _columns(params: ArraysParams) -> tuple[Column, Column, Column | None]:
    """Inputs, labels and ids, each from the file that holds it."""
    features = (params.x,) if isinstance(params.x, str) else params.x
    if not features:
        raise DataError(f"{params.path}: x: names no column")
    single = params.path.suffix == ".npy"
    if single and params.labels is None:
        raise DataError(f"{params.path}: labels: is missing; an .npy holds no labels of its own")
    if single and (params.ids or len(features) > 1):
        raise DataError(f"{params.path}: an .npy is one array; expected neither ids: nor a list x:")
    here = (*features, *((params.ids,) if params.ids else ()))
    if params.labels is None:
        found = open_columns(params.path, (*here, params.y), params.max_bytes)
        answers = found[params.y]
    else:
        found = open_columns(params.path, here, params.max_bytes)
        answers = open_columns(params.labels, (params.y,), params.max_bytes)[params.y]
    names = found[params.ids] if params.ids else None
    if isinstance(params.x, str):
        return found[params.x], answers, names
    return _stacked(params.path, {name: found[name] for name in features}), answers, names


def _stacked(path: Path, columns: Mapping[str, Column]) -> Column:
    """One column of shape [N, features]."""
    parts = tuple(columns.values())
    for name, column in columns.items():
        if len(column.shape) > 1 or column.shape != parts[0].shape:
            raise DataError(
                f"{path}: x: '{name}' has shape {list(column.shape)}; expected one number for each "
                f"of {parts[0].shape[0]} samples"
            )
        if column.dtype.kind not in NUMBERS:
            raise DataError(f"{path}: x: '{name}' is {column.dtype}; expected numbers")
    types = {column.dtype for column in parts}
    dtype = types.pop() if len(types) == 1 else np.dtype(np.float64)
    return Column(
        shape=(parts[0].shape[0], len(parts)),
        dtype=dtype,
        rows=lambda positions: np.stack(
            [part.rows(positions).astype(dtype) for part in parts], axis=1
        ),
    )


def _shapes(
    params: ArraysParams, found: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of a sample as it is stored, and as the source gives it."""
    stored = params.shape or found or (1,)
    if math.prod(stored) != math.prod(found) or min(stored) < 1:
        raise DataError(
            f"{params.path}: shape: {list(stored)} does not hold the {math.prod(found)} values of "
            f"a sample, which are stored as {list(found)}"
        )
    if params.layout == "chw":
        return stored, stored
    if len(stored) != 3:
        raise DataError(
            f"{params.path}: layout: hwc needs samples of three axes (height, width, channels); "
            f"found {list(stored)}. Declare shape:"
        )
    return stored, (stored[2], *stored[:2])


def _floats(rows: Array, box: Box) -> Tensor:
    """Fresh float32; what is too large for float32 becomes infinite and is refused as such."""
    if rows.dtype == np.uint8:
        return scaled(rows.astype(np.uint8, copy=False), box)
    with np.errstate(over="ignore"):
        return torch.from_numpy(rows.astype(np.float32))


def _labels(params: ArraysParams, found: Array) -> tuple[Tensor, tuple[str, ...]]:
    """Labels int64 [N] and the names of the classes."""
    where = params.labels or params.path
    flat = found.reshape(-1) if found.shape[1:] == (1,) else found
    if flat.ndim != 1 or flat.dtype.kind not in "biu":
        raise DataError(
            f"{where}: the labels are {found.dtype} of shape {list(found.shape)}; expected whole "
            "numbers [N], the class of each sample"
        )
    labels: NDArray[np.int64] = flat.astype(np.int64)
    total = len(params.class_names) if params.class_names else params.num_classes
    if params.class_names and params.num_classes not in (None, total):
        raise DataError(f"{where}: num_classes: {params.num_classes}, but {total} class_names")
    total = total or int(labels.max(initial=0)) + 1
    wrong = np.flatnonzero((labels < 0) | (labels >= total))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{where}: sample {row} has the label {labels[row]}; expected 0 to {total - 1} "
            f"({len(wrong)} of {len(labels)} labels are out of range)"
        )
    return torch.from_numpy(labels), params.class_names or tuple(map(str, range(total)))


def _ids(column: Column | None, total: int) -> tuple[str, ...]:
    if column is None:
        return tuple(str(row) for row in range(total))
    named = column.everything().tolist()
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in named)


def content(params: Params, places: Places) -> Mapping[str, Path]:  # noqa: ARG001
    """The files that hold inputs and labels."""
    assert isinstance(params, ArraysParams)
    files = {"x": params.path, "y": params.labels}
    return {name: path for name, path in files.items() if path is not None}


SPEC = DatasetSpec(
    name="arrays",
    implementation=load,
    summary="inputs and labels in .npz, .npy, .safetensors or .parquet files",
    params=ArraysParams,
    content=content,
)
