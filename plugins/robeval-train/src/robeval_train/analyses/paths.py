"""Scores along the line x + e sign(grad J): piecewise linear, and wrong for a long while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, FiniteFloat

from robustbench_lite import AnalysisSpec, DatasetRef, ModelRef, Params

from .outputs import batches, cost_gradient, network

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from robustbench_lite import Bench, StoredRun

KINK = 1e-3  # second difference, of the largest first difference: above float32's own noise


class PathParams(Params):
    """`reach`: e goes from -reach to reach in `points` steps; `eps`: where the attack stands."""

    models: Annotated[tuple[ModelRef, ...], Field(min_length=1)]
    dataset: DatasetRef
    samples: int = Field(default=50, ge=1)
    reach: FiniteFloat = Field(default=10.0, gt=0)
    points: int = Field(default=801, ge=5)
    eps: FiniteFloat = Field(default=0.25, ge=0)


def paths(
    run: StoredRun,  # noqa: ARG001  (nothing of the run is needed but its models)
    *,
    bench: Bench,
    models: tuple[str, ...],
    dataset: str,
    samples: int,
    reach: float,
    points: int,
    eps: float,
) -> pd.DataFrame:
    """One row per model and sample.

    pieces: linear pieces of the scores on the grid (at least; kinks closer than a step are one).
    right_from, right_to: the interval of e around 0 with the true class, empty where the sample
    itself is wrong. wrong_from, wrong_width:
    start and width of the longest stretch of e > 0 with one and the same wrong class. wrong_share:
    share of e in [eps, reach] with a wrong class.
    """
    import pandas as pd
    import torch

    source = bench.dataset(dataset)
    e = torch.linspace(-reach, reach, points, device=bench.device)
    rows: list[dict[str, object]] = []
    for name in models:
        model = bench.model(name)
        net = network(model, name)
        for positions, x, y in batches(source, samples, bench.device):
            sign = cost_gradient(model, name, x, y).sign()
            for at, position in enumerate(positions):
                line = x[at] + e.view(-1, *[1] * x[at].dim()) * sign[at]
                with torch.no_grad():
                    scores = net(line)
                row = _row(e, scores, int(y[at]), eps)
                rows.append({"model": name, "sample": source.ids[position], **row})
    return pd.DataFrame(rows)


def _row(e: Tensor, scores: Tensor, label: int, eps: float) -> dict[str, object]:
    pred = scores.argmax(dim=1)
    wrong = pred != label
    beyond = e >= eps
    start, width = _longest(e, pred, label)
    low, high = _around_zero(e, ~wrong)
    return {
        "label": label,
        "pieces": pieces(scores),
        "right_from": low,
        "right_to": high,
        "wrong_from": start,
        "wrong_width": width,
        "wrong_share": float(wrong[beyond].double().mean()),
    }


def pieces(scores: Tensor) -> int:
    """Linear pieces of scores [points, k] on an even grid; curved stretches count every step."""
    first = scores.double().diff(dim=0)
    bend = first.diff(dim=0).abs().amax(dim=1) > KINK * first.abs().amax().clamp_min(1e-12)
    # one kink between two grid points bends at one or both of them
    runs = int((bend[1:] & ~bend[:-1]).sum()) + int(bend[:1].sum())
    return runs + 1


def _around_zero(e: Tensor, right: Tensor) -> tuple[float | None, float | None]:
    """Ends of the stretch of `right` that holds the point nearest to e = 0."""
    marks = right.tolist()
    low = high = int(e.abs().argmin())
    if not marks[low]:
        return None, None
    while low > 0 and marks[low - 1]:
        low -= 1
    while high + 1 < len(marks) and marks[high + 1]:
        high += 1
    return float(e[low]), float(e[high])


def _longest(e: Tensor, pred: Tensor, label: int) -> tuple[float | None, float]:
    """Start and width of the longest stretch of e > 0 with one and the same wrong class."""
    best: tuple[float | None, float] = (None, 0.0)
    positive = [(at, k) for at, k in zip(e.tolist(), pred.tolist(), strict=True) if at > 0]
    begin = 0
    for at in range(1, len(positive) + 1):
        if at < len(positive) and positive[at][1] == positive[begin][1]:
            continue
        width = positive[at - 1][0] - positive[begin][0]
        if positive[begin][1] != label and width > best[1]:
            best = (positive[begin][0], width)
        begin = at
    return best


SPEC = AnalysisSpec(
    name="logit-paths",
    implementation=paths,
    summary="scores along the gradient's sign: linear pieces, and how long the class stays wrong",
    params=PathParams,
    paper="https://arxiv.org/abs/1412.6572",
)
