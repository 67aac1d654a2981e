"""The dataset `classes-of`: some classes of another dataset, numbered anew from 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from robustbench_lite import DataError, DatasetRef, DatasetSpec, DataSource, Params, Places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from robustbench_lite import Bench


class ClassesOfParams(Params):
    """`of`: a dataset of the suite. `keep`: names of its classes, in the order of new labels."""

    of: DatasetRef
    keep: Annotated[tuple[str, ...], Field(min_length=2)]


def load(params: ClassesOfParams, *, places: Places, bench: Bench) -> DataSource:  # noqa: ARG001
    """The samples of the kept classes in their own order, labels 0 to k - 1. Raises DataError."""
    import torch

    source = bench.dataset(params.of)
    unknown = [name for name in params.keep if name not in source.classes]
    if unknown:
        known = ", ".join(source.classes)
        raise DataError(f"keep: '{unknown[0]}' is no class of '{params.of}'; there are: {known}")
    new = torch.full((len(source.classes),), -1, dtype=torch.int64)
    for label, name in enumerate(params.keep):
        new[source.classes.index(name)] = label
    labels = new[source.labels]
    rows = torch.nonzero(labels >= 0).flatten()

    def read(positions: Sequence[int]) -> Tensor:
        return source.read(rows[list(positions)].tolist())

    return DataSource(
        ids=[source.ids[row] for row in rows.tolist()],
        labels=labels[rows],
        read=read,
        shape=source.shape,
        box=source.box,
        classes=params.keep,
    )


SPEC = DatasetSpec(
    name="classes-of",
    implementation=load,
    summary="some classes of another dataset of the suite, numbered from 0",
    params=ClassesOfParams,
)
