"""Rubbish-class error: how often a network is sure of a class where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, FiniteFloat

from robustbench_lite import AnalysisSpec, Column, ModelError, ModelRef, Params

from .outputs import BATCH, network, probabilities
from .shares import column, share

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from robustbench_lite import Bench, LoadedModel, StoredRun

SURE = 0.5  # of one class: the paper's criterion for a false positive


class RubbishParams(Params):
    """`samples` draws of N(0, I); `stepped` of them then take a step towards each class."""

    models: Annotated[tuple[ModelRef, ...], Field(min_length=1)]
    samples: int = Field(default=10_000, ge=1)
    stepped: int = Field(default=200, ge=0)
    eps: FiniteFloat = Field(default=0.25, gt=0, description="of the step")
    seed: int = Field(default=0, ge=0)


def rubbish(
    run: StoredRun,  # noqa: ARG001  (nothing of the run is needed but its models)
    *,
    bench: Bench,
    models: tuple[str, ...],
    samples: int,
    stepped: int,
    eps: float,
    seed: int,
) -> pd.DataFrame:
    """One row per model.

    error: share of the samples with a probability above 0.5 for some class. confidence: its mean
    over those. mode: the class named most often among them, share_<k>: the classes' shares.
    step_error: share of (sample, class) pairs for which one step of size eps along the sign of the
    gradient of the class' score makes that class likelier than 0.5 (the model's own target, so that
    a class already there counts).
    """
    import pandas as pd

    rows = [_row(name, bench.model(name), samples, stepped, eps, seed) for name in models]
    return pd.DataFrame(rows)


def _row(
    name: str, model: LoadedModel, samples: int, stepped: int, eps: float, seed: int
) -> dict[str, object]:
    import torch

    if model.input_shape is None:
        raise ModelError(f"rubbish: model '{name}' does not say the shape of its inputs")
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(samples, *model.input_shape, generator=rng).to(model.device)
    seen = torch.cat([probabilities(model, part) for part in torch.split(z, BATCH)])
    best, named = seen.max(dim=1)
    fooled = best > SURE
    count = int(fooled.sum())
    per_class = torch.bincount(named[fooled], minlength=model.num_classes)
    row: dict[str, object] = {"model": name, "n": samples, **share("error", count, samples)}
    row["confidence"] = float(best[fooled].double().mean()) if count else None
    row["mode"] = int(per_class.argmax()) if count else None
    row |= {f"share_{k}": float(per_class[k]) / max(count, 1) for k in range(model.num_classes)}
    hits = sum(_stepped(name, model, part, eps) for part in torch.split(z[:stepped], BATCH))
    return row | share("step_error", hits, min(stepped, samples) * model.num_classes)


def _stepped(name: str, model: LoadedModel, z: Tensor, eps: float) -> int:
    """How many pairs of sample and class succeed after one step."""
    import torch

    net = network(model, name)
    hits = 0
    for target in range(model.num_classes):
        leaf = z.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            scores = net(leaf)
            own = scores[:, target]
            aim = (
                own
                if model.output == "independent-probabilities"
                else (own - scores.logsumexp(dim=1))
            )
            (grad,) = torch.autograd.grad(aim.sum(), leaf)
        moved = z + eps * grad.sign()
        hits += int((probabilities(model, moved)[:, target] > SURE).sum())
    return hits


SPEC = AnalysisSpec(
    name="rubbish",
    implementation=rubbish,
    summary="how often Gaussian noise is taken for a class, and for which",
    params=RubbishParams,
    paper="https://arxiv.org/abs/1412.6572",
    columns=(
        Column(name="model", title="Model"),
        Column(name="n", title="Samples", shown="number"),
        column("error", "Taken for a class"),
        Column(name="confidence", title="Confidence", shown="percent"),
        Column(name="mode", title="Most often as"),
        column("step_error", "After one step"),
    ),
)
