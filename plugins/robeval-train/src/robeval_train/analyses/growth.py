"""Linear growth: a step eps sign(w) moves w.x by eps m n, m the mean |w| of n weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, FiniteFloat

from robustbench_lite import AnalysisSpec, DatasetRef, ModelError, ModelRef, Params

from .outputs import batches, network

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_lite import Bench, StoredRun


class GrowthParams(Params):
    """`models`: networks of one linear layer; `samples` of `dataset` are moved by `eps`."""

    models: Annotated[tuple[ModelRef, ...], Field(min_length=1)]
    dataset: DatasetRef
    samples: int = Field(default=100, ge=1)
    eps: FiniteFloat = Field(default=0.25, gt=0)


def growth(
    run: StoredRun,  # noqa: ARG001  (nothing of the run is needed but its models)
    *,
    bench: Bench,
    models: tuple[str, ...],
    dataset: str,
    samples: int,
    eps: float,
) -> pd.DataFrame:
    """One row per model and output of its linear layer.

    predicted: eps m n. measured: mean change of the layer's output at the moved samples, by passes
    of the layer itself; relative_gap: |measured - predicted| / predicted.
    Raises ModelError for a model with more than one linear layer.
    """
    import pandas as pd
    import torch

    source = bench.dataset(dataset)
    rows: list[dict[str, object]] = []
    for name in models:
        net = network(bench.model(name), name)
        linear = [layer for layer in net.modules() if isinstance(layer, torch.nn.Linear)]
        if len(linear) != 1:
            raise ModelError(f"activation-growth: '{name}' has {len(linear)} linear layers, not 1")
        weight = linear[0].weight.detach()
        for unit in range(len(weight)):
            moved = torch.zeros((), dtype=torch.float64)
            total = 0
            for _, x, _ in batches(source, samples, bench.device):
                flat = x.flatten(1)
                with torch.no_grad():
                    change = linear[0](flat + eps * weight[unit].sign()) - linear[0](flat)
                moved += change[:, unit].double().sum().cpu()
                total += len(flat)
            m, n = float(weight[unit].abs().double().mean()), weight.shape[1]
            predicted, measured = eps * m * n, float(moved) / total
            gap = abs(measured - predicted) / predicted if predicted else 0.0
            rows.append(
                {"model": name, "unit": unit, "eps": eps, "m": m, "n": n, "predicted": predicted,
                 "measured": measured, "relative_gap": gap}
            )  # fmt: skip
    return pd.DataFrame(rows)


SPEC = AnalysisSpec(
    name="activation-growth",
    implementation=growth,
    summary="eps m n of a linear model against the change that is measured",
    params=GrowthParams,
    paper="https://arxiv.org/abs/1412.6572",
)
