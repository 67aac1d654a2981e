"""Analyses that ship with robeval: tables computed from a finished run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from robustbench_lite import AnalysisSpec, hookimpl

from . import corruptions

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from robustbench_lite import StoredRun

COLUMNS = (
    "model",
    "dataset",
    "attack",
    "norm",
    "eps_text",
    "label",
    "n",
    "clean_accuracy",
    "clean_lo",
    "clean_hi",
    "robust_accuracy",
    "robust_lo",
    "robust_hi",
)


@hookimpl
def robeval_analyses() -> Iterable[AnalysisSpec]:
    """Tables over classes and over common corruptions."""
    return [
        AnalysisSpec(
            name="per-class",
            implementation=per_class,
            summary="clean and robust accuracy of every class in every cell",
        ),
        corruptions.SPEC,
    ]


def per_class(run: StoredRun) -> pd.DataFrame:
    """One row per ok cell and class, worst robust accuracy first within a cell.

    n: samples of the class. Clean accuracy: clean-correct / n; robust accuracy: clean-correct and
    not broken / n; both with 95 % Wilson limits. Cells that the summary calls invalid are left out.
    """
    import pandas as pd

    sound = {row.cell_id for row in run.summary.rows if row.status == "ok"} if run.summary else None
    rows: list[tuple[object, ...]] = []
    for cell in run.plan.cells:
        result = run.results.get(cell.id)
        if result is None or result.status != "ok" or (sound is not None and cell.id not in sound):
            continue
        samples = run.samples(cell.id)
        if samples is None:
            continue
        place = (cell.model, cell.dataset, cell.entry, cell.norm, cell.eps.text if cell.eps else "")
        robust = samples.clean_correct & ~samples.success
        classes = _classes(samples.label, samples.clean_correct, robust)
        rows += [(*place, *line) for line in sorted(classes, key=lambda line: line[5])]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _classes(
    label: NDArray[np.int64], correct: NDArray[np.bool_], robust: NDArray[np.bool_]
) -> Iterator[tuple[int, int, float, float, float, float, float, float]]:
    import numpy as np

    for each in np.unique(label):
        own = label == each
        n = int(own.sum())
        clean, kept = int((own & correct).sum()), int((own & robust).sum())
        yield (int(each), n, clean / n, *_wilson(clean, n), kept / n, *_wilson(kept, n))


def _wilson(count: int, n: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(count, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
