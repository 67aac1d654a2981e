"""Two models on the same samples: who is right where the other is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustbench_lite import AnalysisSpec, Column, Params

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from robustbench_lite import StoredRun


class PairedParams(Params):
    """`pairs`: [model, model] whose clean passes on `dataset` are compared."""

    pairs: tuple[tuple[str, str], ...]
    dataset: str


def paired(run: StoredRun, *, pairs: tuple[tuple[str, str], ...], dataset: str) -> pd.DataFrame:
    """One row per pair: errors, samples that only one has wrong, exact McNemar (two-sided).

    A difference of 0.1 points on 10,000 samples cannot be told from chance by one pair of runs.
    """
    import pandas as pd
    from scipy.stats import binomtest

    rows: list[dict[str, object]] = []
    for base, head in pairs:
        right = [_right(run, name, dataset) for name in (base, head)]
        if right[0] is None or right[1] is None:
            continue
        only_base = int((~right[0] & right[1]).sum())
        only_head = int((right[0] & ~right[1]).sum())
        apart = only_base + only_head
        rows.append(
            {
                "base": base,
                "head": head,
                "n": len(right[0]),
                "base_error": float((~right[0]).mean()),
                "head_error": float((~right[1]).mean()),
                "only_base_wrong": only_base,
                "only_head_wrong": only_head,
                "p_value": float(binomtest(only_head, apart).pvalue) if apart else 1.0,
            }
        )
    columns = ["base", "head", "n", "base_error", "head_error"]
    return pd.DataFrame(rows, columns=[*columns, "only_base_wrong", "only_head_wrong", "p_value"])


def _right(run: StoredRun, model: str, dataset: str) -> NDArray[np.bool_] | None:
    for cell in run.plan.cells:
        if (cell.attack, cell.model, cell.dataset) == ("clean", model, dataset):
            table = run.samples(cell.id)
            return None if table is None else table.clean_correct
    return None


SPEC = AnalysisSpec(
    name="paired-errors",
    implementation=paired,
    summary="clean errors of two models on the same samples, with McNemar's test",
    params=PairedParams,
    columns=(
        Column(name="base", title="Base"),
        Column(name="head", title="Head"),
        Column(name="n", title="Samples", shown="number"),
        Column(name="base_error", title="Error of base", shown="percent"),
        Column(name="head_error", title="Error of head", shown="percent"),
        Column(name="only_base_wrong", title="Only base wrong", shown="number"),
        Column(name="only_head_wrong", title="Only head wrong", shown="number"),
        Column(name="p_value", title="p (McNemar)", shown="number"),
    ),
)
