"""What a model's numbers look like: logits or probabilities, one answer or many."""

from __future__ import annotations

import torch
from torch import Tensor

from ..types import Output
from . import keys

UNIT_SLACK = 1e-3  # beyond [0, 1]: half precision
SUM_SLACK = 0.01  # of a row of probabilities: half precision, 8-bit steps
LOG_SLACK = 1e-3  # of a row's logsumexp: float32 over 1,000 classes
WRONG_SUM = 0.1  # what no rounding of a softmax explains
SAME = 1e-6  # of the largest score: float32 cannot tell more
DECIMALS = range(5)
DECIMAL_SLACK = 1e-6  # of a value, and absolute: what float32 makes of a decimal fraction


def shown(output: Tensor, declared: Output) -> dict[str, float]:
    """What the rows of `output` [n, k] are like, and what they were declared to be."""
    finite = output.isfinite().all(dim=1)
    observed: dict[str, float] = {
        keys.NOT_FINITE: int((~finite).sum()),
        f"{keys.DECLARED}{declared}": 1,
    }
    rows = output[finite].double()
    if not len(rows):
        return observed
    observed[f"{keys.LOOKS_LIKE}{kind(rows, declared)}"] = 1
    decimals = _decimals(rows)
    if decimals is not None and _in_unit(rows):
        observed[f"{keys.DECIMALS}{decimals}"] = 1
    if declared == "probabilities":
        observed[keys.OUTSIDE_UNIT] = int((~_unit_rows(rows)).sum())
        observed[keys.WRONG_SUMS] = int(((rows.sum(dim=1) - 1).abs() > WRONG_SUM).sum())
    same = (rows - rows[0]).abs() <= SAME * rows.abs().max()
    return observed | {
        keys.ALIKE: int(same.all(dim=1).sum()),
        keys.DISTINCT: len(torch.unique(rows, dim=0)),
        keys.DECISIONS: len(torch.unique(rows.argmax(dim=1))),
    }


def kind(output: Tensor, declared: Output) -> Output:
    """What the rows of `output` [n, k] look like; what cannot be told apart is as declared."""
    rows = output.double()
    if declared == "independent-probabilities":
        return declared if _in_unit(rows) else "logits"
    if _are_probabilities(rows):
        return "probabilities"
    if bool((rows.logsumexp(dim=1).abs() <= LOG_SLACK).all()):
        return "log-probabilities"
    return "logits" if declared == "log-probabilities" else declared


def _are_probabilities(rows: Tensor) -> bool:
    """All in [0, 1] with a sum of 1, as near as the decimals that they were rounded to allow."""
    if not _in_unit(rows):
        return False
    decimals = _decimals(rows)
    slack = SUM_SLACK
    if decimals:  # one-hot rows (no decimals) have an exact sum
        slack += rows.shape[1] * 0.5 * 10.0**-decimals
    return float((rows.sum(dim=1) - 1).abs().max()) <= slack


def _in_unit(rows: Tensor) -> bool:
    return bool(_unit_rows(rows).all())


def _unit_rows(rows: Tensor) -> Tensor:
    return ((rows >= -UNIT_SLACK) & (rows <= 1 + UNIT_SLACK)).all(dim=1)


def _decimals(rows: Tensor) -> int | None:
    """The fewest decimals that hold every value, None for more than a few."""
    for decimals in DECIMALS:
        steps = rows * 10.0**decimals
        if bool(((steps - steps.round()).abs() <= DECIMAL_SLACK * (1 + steps.abs())).all()):
            return decimals
    return None
