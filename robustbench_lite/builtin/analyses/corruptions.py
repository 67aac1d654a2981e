"""Corruption table: the accuracy that is left on common corruptions, and its mean."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_lite import AnalysisSpec

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_lite import StoredRun

ATTACK = "corruption"
SEVERITIES = (1, 2, 3, 4, 5)
DIGITS = 12  # of a mean: what lies below is rounding
COLUMNS = (
    "model",
    "dataset",
    "corruption",
    "n",
    "clean_accuracy",
    *(f"severity_{severity}" for severity in SEVERITIES),
    "mean",
    "relative",
)


@dataclass(frozen=True, slots=True)
class _Measured:
    """Shares of n samples; not a number where the cell is not sound."""

    n: int = 0
    clean: float = math.nan
    accuracy: float = math.nan


_Kinds = dict[str, dict[int, _Measured]]  # corruption -> severity -> what was measured


def corruption_table(run: StoredRun) -> pd.DataFrame:
    """One row per model, dataset and corruption, then their mean: accuracy at every severity.

    Accuracy: right on the corrupted image, over all n samples (not only the clean-correct ones), as
    in ImageNet-C; it is no worst case. `mean`: over the severities of the suite; in the last row
    over corruptions too, *mean corruption accuracy*. `relative`: `mean` / clean accuracy. A mean is
    empty if one of its cells is not sound.

    Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
    perturbations", ICLR 2019, who divide errors by those of AlexNet; CIFAR-10-C has plain means.
    """
    import pandas as pd

    places: dict[tuple[str, str], _Kinds] = {}
    for (model, dataset, kind, severity), measured in _cells(run):
        kinds = places.setdefault((model, dataset), {})
        kinds.setdefault(kind, {}).setdefault(severity, measured)
    rows = [(*place, *line) for place, kinds in places.items() for line in _lines(kinds)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _cells(run: StoredRun) -> Iterator[tuple[tuple[str, str, str, int], _Measured]]:
    sound = {row.cell_id for row in run.summary.rows if row.status == "ok"} if run.summary else None
    for cell in run.plan.cells:
        if cell.attack != ATTACK or cell.eps is None:
            continue
        place = (cell.model, cell.dataset, str(cell.params["kind"]), round(float(cell.eps)))
        result = run.results.get(cell.id)
        samples = run.samples(cell.id) if result is not None and result.status == "ok" else None
        if (
            samples is None
            or not len(samples.label)
            or (sound is not None and cell.id not in sound)
        ):
            yield place, _Measured()
            continue
        clean, left = samples.clean_correct.mean(), samples.adv_correct.mean()
        yield place, _Measured(len(samples.label), float(clean), float(left))


def _lines(kinds: _Kinds) -> Iterator[tuple[object, ...]]:
    everything = [measured for severities in kinds.values() for measured in severities.values()]
    n = max(measured.n for measured in everything)
    clean = next((each.clean for each in everything if each.n), math.nan)
    for kind, severities in kinds.items():
        yield kind, n, clean, *_shares({s: [m.accuracy] for s, m in severities.items()}, clean)
    if len(kinds) > 1:
        together: dict[int, list[float]] = {}
        for severities in kinds.values():
            for severity, measured in severities.items():
                together.setdefault(severity, []).append(measured.accuracy)
        yield f"mean of {len(kinds)}", n, clean, *_shares(together, clean)


def _shares(accuracies: Mapping[int, list[float]], clean: float) -> Iterator[float]:
    """Mean at every severity, over all of them, and relative to the clean accuracy."""
    for severity in SEVERITIES:
        yield _mean(accuracies.get(severity, []))
    mean = _mean([accuracy for each in accuracies.values() for accuracy in each])
    yield mean
    yield mean / clean if clean else math.nan


def _mean(values: list[float]) -> float:
    return round(math.fsum(values) / len(values), DIGITS) if values else math.nan


SPEC = AnalysisSpec(
    name="corruption-table",
    implementation=corruption_table,
    summary="accuracy on every common corruption and severity, and its mean; no worst case",
    paper="https://arxiv.org/abs/1903.12261",
)
