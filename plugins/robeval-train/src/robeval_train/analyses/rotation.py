"""Turning x by a small angle towards the gradient: another direction, the same effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, FiniteFloat

from robustbench_lite import AnalysisSpec, Column, DatasetRef, ModelRef, Params

from .outputs import batches, cost_gradient
from .shares import column, share

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from robustbench_lite import Bench, LoadedModel, StoredRun

TINY = 1e-12
Angle = Annotated[FiniteFloat, Field(ge=0, le=180)]


class RotationParams(Params):
    """`degrees`: by how much every sample is turned."""

    models: Annotated[tuple[ModelRef, ...], Field(min_length=1)]
    dataset: DatasetRef
    samples: int = Field(default=1000, ge=1)
    degrees: tuple[Angle, ...] = (0.0, 5.0, 10.0, 20.0, 30.0)


def rotation(
    run: StoredRun,  # noqa: ARG001  (nothing of the run is needed but its models)
    *,
    bench: Bench,
    models: tuple[str, ...],
    dataset: str,
    samples: int,
    degrees: tuple[float, ...],
) -> pd.DataFrame:
    """One row per model and angle: the error over all samples, and the mean change in l2.

    x turns in the plane of itself and the gradient; its length stays.
    """
    import pandas as pd

    source = bench.dataset(dataset)
    rows: list[dict[str, object]] = []
    for name in models:
        model = bench.model(name)
        found = {angle: [0, 0.0] for angle in degrees}
        total = 0
        for _, x, y in batches(source, samples, bench.device):
            across = _across(x, cost_gradient(model, name, x, y))
            total += len(y)
            for angle in degrees:
                wrong, moved = _turned(model, x, y, across, angle)
                found[angle][0] += wrong
                found[angle][1] += moved
        rows += [
            {"model": name, "degrees": angle, "n": total, **share("error", int(wrong), total),
             "mean_l2": moved / total}
            for angle, (wrong, moved) in found.items()
        ]  # fmt: skip
    return pd.DataFrame(rows)


def _across(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient's part orthogonal to x, of x's length, [n, features]."""
    flat, g = x.flatten(1).double(), grad.flatten(1).double()
    square = (flat * flat).sum(dim=1, keepdim=True).clamp_min(TINY)
    rest = g - flat * ((g * flat).sum(dim=1, keepdim=True) / square)
    length = (rest * rest).sum(dim=1, keepdim=True).sqrt().clamp_min(TINY)
    return rest / length * square.sqrt()


def _turned(
    model: LoadedModel, x: Tensor, y: Tensor, across: Tensor, angle: float
) -> tuple[int, float]:
    import math

    radians = math.radians(angle)
    turned = math.cos(radians) * x.flatten(1).double() + math.sin(radians) * across
    moved = turned.to(x.dtype).view_as(x)
    wrong = int((model.predict(moved).argmax(dim=1) != y).sum())
    return wrong, float((moved - x).flatten(1).norm(dim=1).double().sum())


SPEC = AnalysisSpec(
    name="rotation",
    implementation=rotation,
    summary="the error when samples are turned by an angle towards the gradient",
    params=RotationParams,
    paper="https://arxiv.org/abs/1412.6572",
    columns=(
        Column(name="model", title="Model"),
        Column(name="degrees", title="Degrees", shown="number"),
        Column(name="n", title="Samples", shown="number"),
        column("error", "Error"),
        Column(name="mean_l2", title="Mean l2", shown="number"),
    ),
)
