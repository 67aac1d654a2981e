"""Mean confidence on clean inputs, right and wrong ones together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustbench_lite import AnalysisSpec, Column

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_lite import StoredRun


def confidence(run: StoredRun) -> pd.DataFrame:
    """One row per clean pass: mean probability of the decided class over its n samples."""
    import pandas as pd

    rows: list[dict[str, object]] = []
    for cell in run.plan.cells:
        table = run.samples(cell.id) if cell.attack == "clean" else None
        if table is not None:
            mean = float(table.clean_confidence.mean(dtype="float64"))
            rows.append(
                {
                    "model": cell.model,
                    "dataset": cell.dataset,
                    "n": len(table.label),
                    "confidence": mean,
                }
            )
    return pd.DataFrame(rows, columns=["model", "dataset", "n", "confidence"])


SPEC = AnalysisSpec(
    name="clean-confidence",
    implementation=confidence,
    summary="mean confidence of every model on clean inputs",
    columns=(
        Column(name="model", title="Model"),
        Column(name="dataset", title="Dataset"),
        Column(name="n", title="Samples", shown="number"),
        Column(name="confidence", title="Mean confidence", shown="percent"),
    ),
)
