"""tables/: cells.csv, metrics.csv and samples.parquet, as documented in reports/README.md."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import starmap
from typing import NamedTuple

import numpy as np

from ..types import Rate, Row, Samples
from .view import FinishedRun, summary_of, write_text, writing

CELL_COLUMNS = (
    "cell_id",
    "model",
    "dataset",
    "attack",
    "source",
    "role",
    "norm",
    "eps",
    "eps_text",
    "n",
    "status",
    "reason",
    "clean_accuracy",
    "robust_accuracy",
    "robust_lo",
    "robust_hi",
    "attack_success_rate",
    "adversarial_error",
    "confidence_on_mistakes",
    "median_distance",
    "queries_mean",
    "gradients_mean",
    "seconds",
    "device",
    "provider",
    "batch_size",
)
METRIC_COLUMNS = (
    "cell_id",
    "model",
    "dataset",
    "attack",
    "norm",
    "eps",
    "eps_text",
    "metric",
    "value",
    "lo",
    "hi",
    "n",
    "higher_is_better",
    "unit",
)
SAMPLE_COLUMNS = ("cell_id", *(field.name for field in dataclasses.fields(Samples)))
_TEXT = ("sample_id", "sample_hash", "status")


class Metric(NamedTuple):
    """One number of a row in long form; `n` is its denominator, `better` None if neither is."""

    name: str
    value: float
    low: float | None
    high: float | None
    n: int
    better: bool | None
    unit: str


def write_csv(run: FinishedRun) -> None:
    """Write tables/cells.csv and tables/metrics.csv."""
    rows = summary_of(run).rows
    folder = run.path / "tables"
    write_text(folder / "cells.csv", _csv(CELL_COLUMNS, map(cell_values, rows)))
    lines = (metric_values(row, metric) for row in rows for metric in metrics(row))
    write_text(folder / "metrics.csv", _csv(METRIC_COLUMNS, lines))


def write_parquet(run: FinishedRun) -> None:
    """Write tables/samples.parquet, one row group per cell; one cell is in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(list(starmap(pa.field, _sample_types())))
    with (
        writing(run.path / "tables" / "samples.parquet") as aside,
        pq.ParquetWriter(aside, schema, compression="zstd") as writer,
    ):
        for cell in run.plan.cells:
            samples = run.samples(cell.id)
            if samples is not None and len(samples.sample_id):
                writer.write_table(pa.table(_sample_values(cell.id, samples), schema=schema))


def metrics(row: Row) -> Iterator[Metric]:
    """Every number of a row that is known, with its interval, denominator and unit."""
    rates = (
        ("clean_accuracy", row.clean_accuracy, True),
        ("robust_accuracy", row.robust_accuracy, True),
        ("attack_success_rate", row.attack_success_rate, False),
        ("adversarial_error", row.adversarial_error, False),
        ("survives_uint8", row.survives_uint8, False),
    )
    for name, rate, better in rates:
        if rate is not None and rate.n:
            yield Metric(name, rate.value, rate.low, rate.high, rate.n, better, "share")
    wrong = row.adversarial_error.count if row.adversarial_error else 0
    broken = row.attack_success_rate.count if row.attack_success_rate else 0
    scalars = (
        ("confidence_on_mistakes", row.confidence_on_mistakes, wrong, False, "probability"),
        ("median_distance", row.median_distance, broken, True, row.norm or ""),
        ("queries_mean", row.queries_mean, row.n, None, "forward samples per sample"),
        ("gradients_mean", row.gradients_mean, row.n, None, "backward samples per sample"),
        ("seconds", row.seconds, row.n, None, "s"),
    )
    for name, value, n, direction, unit in scalars:
        if value is not None:
            yield Metric(name, value, None, None, n, direction, unit)


def cell_values(row: Row) -> Sequence[object]:
    """The values of CELL_COLUMNS."""
    robust = row.robust_accuracy
    return (
        row.cell_id,
        row.model,
        row.dataset,
        row.attack,
        row.source,
        row.role,
        row.norm,
        None if row.eps is None else float(row.eps),
        None if row.eps is None else row.eps.text,
        row.n,
        row.status,
        row.reason,
        _value(row.clean_accuracy),
        _value(robust),
        robust.low if robust and robust.n else None,
        robust.high if robust and robust.n else None,
        _value(row.attack_success_rate),
        _value(row.adversarial_error),
        row.confidence_on_mistakes,
        row.median_distance,
        row.queries_mean,
        row.gradients_mean,
        row.seconds,
        row.device,
        row.provider,
        row.batch_size or None,
    )


def metric_values(row: Row, metric: Metric) -> Sequence[object]:
    """The values of METRIC_COLUMNS."""
    return (
        row.cell_id,
        row.model,
        row.dataset,
        row.attack,
        row.norm,
        None if row.eps is None else float(row.eps),
        None if row.eps is None else row.eps.text,
        metric.name,
        metric.value,
        metric.low,
        metric.high,
        metric.n,
        None if metric.better is None else str(metric.better).lower(),
        metric.unit,
    )


def _value(rate: Rate | None) -> float | None:
    return rate.value if rate is not None and rate.n else None


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(_exact(row) for row in rows)
    return text.getvalue()


def _exact(row: Sequence[object]) -> list[object]:
    """Floats by their shortest exact text, whatever numpy scalar they came as."""
    return [repr(float(each)) if isinstance(each, (float, np.floating)) else each for each in row]


def _sample_types() -> Iterator[tuple[str, object]]:
    import pyarrow as pa

    kinds: dict[str, object] = dict.fromkeys(SAMPLE_COLUMNS, pa.float64())
    kinds |= dict.fromkeys(("cell_id", *_TEXT), pa.string())
    kinds |= dict.fromkeys(("label", "clean_pred", "adv_pred", "pixel"), pa.int64())
    kinds |= dict.fromkeys(("clean_confidence", "adv_confidence"), pa.float32())
    flags = ("clean_correct", "adv_correct", "success", "legal", "survives_uint8")
    kinds |= dict.fromkeys(flags, pa.bool_())
    return iter(kinds.items())


def _sample_values(cell_id: str, samples: Samples) -> dict[str, object]:
    values: dict[str, object] = {"cell_id": [cell_id] * len(samples.sample_id)}
    for name in SAMPLE_COLUMNS[1:]:
        column = getattr(samples, name)
        values[name] = column.tolist() if name in _TEXT else column
    return values
