"""Norms of the weights: what confidence under attack grows with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from robustbench_lite import AnalysisSpec, ModelRef, Params

from .outputs import network

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from robustbench_lite import Bench, StoredRun


class WeightParams(Params):
    """`models`: networks whose weights are measured."""

    models: Annotated[tuple[ModelRef, ...], Field(min_length=1)]


def weights(run: StoredRun, *, bench: Bench, models: tuple[str, ...]) -> pd.DataFrame:  # noqa: ARG001
    """One row per weight matrix of every model.

    l1, l2: of all its numbers. row_l1, row_l2: mean over the rows, the incoming weights of one
    output; l1 of a row is what an eps sign step moves that output by, over eps.
    """
    import pandas as pd

    rows: list[dict[str, object]] = []
    for name in models:
        for layer, (key, weight) in enumerate(_matrices(bench, name)):
            flat = weight.detach().double().flatten(1)
            rows.append(
                {"model": name, "layer": layer, "name": key, "rows": flat.shape[0],
                 "columns": flat.shape[1], "l1": float(flat.abs().sum()), "l2": float(flat.norm()),
                 "row_l1": float(flat.abs().sum(dim=1).mean()),
                 "row_l2": float(flat.norm(dim=1).mean())}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _matrices(bench: Bench, name: str) -> list[tuple[str, Tensor]]:
    net = network(bench.model(name), name)
    return [(key, value) for key, value in net.named_parameters() if value.ndim > 1]


SPEC = AnalysisSpec(
    name="weight-norms",
    implementation=weights,
    summary="norms of every weight matrix",
    params=WeightParams,
)
