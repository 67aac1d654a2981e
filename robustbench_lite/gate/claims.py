"""What a gate claims of one row, or of one class of it, and the evidence for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..bits import Bits, Mask, of_row
from ..metrics import CLEAN_ACCURACY, CONFIDENCE, DISTANCE
from ..stats import Values
from ..types import CLEAN, NORMS, Change, Comparison, Gate, Rate, Row, Samples
from .evidence import Drop, Evidence, Mean, Median, Share

_LOST = "its per-sample table is missing from the run directory; run again with --retry-errors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The rows of the summary by cell id, and their tables."""

    rows: Mapping[str, Row]
    samples: Callable[[str], Samples | None]


@dataclass(frozen=True, slots=True)
class Lack:
    """Why there is no evidence; `missing`: it is not there, rather than broken. `n`: what is."""

    reason: str
    missing: bool = False
    n: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """That a number of `row` keeps the gate's bound; `label`: of one class of it."""

    row: Row
    label: int | None
    evidence: Evidence | Lack

    @property
    def subject(self) -> str:
        """In words."""
        row = self.row
        crafted = "" if row.source in (row.model, "") else f" (from {row.source})"
        budget = f" {row.norm} {row.eps.text}" if row.norm and row.eps else ""
        of_class = "" if self.label is None else f", class {self.label}"
        return f"{row.model} on {row.dataset}, {row.attack}{crafted}{budget}{of_class}"


def claims_of(
    gate: Gate, row: Row, sources: Sources, comparison: Comparison | str
) -> Iterator[Claim]:
    """One claim, or one for each class of the row; too few samples are no evidence."""
    for label, evidence in _evidence(gate, row, sources, comparison):
        yield Claim(row=row, label=label, evidence=_enough(gate, evidence))


def _enough(gate: Gate, evidence: Evidence | Lack) -> Evidence | Lack:
    if isinstance(evidence, Lack) or gate.min_samples is None or evidence.n >= gate.min_samples:
        return evidence
    reason = f"{evidence.n:,} samples, fewer than the min_samples of {gate.min_samples:,}"
    return Lack(reason, missing=True, n=evidence.n)


def _evidence(
    gate: Gate, row: Row, sources: Sources, comparison: Comparison | str
) -> Iterator[tuple[int | None, Evidence | Lack]]:
    if row.status != "ok":
        yield None, Lack(f"{row.status}: {row.reason}")
    elif gate.max_drop is not None:
        yield None, _drop(row, comparison)
    elif gate.metric in {CONFIDENCE, DISTANCE}:
        yield None, _of_values(gate, row, sources)
    elif gate.per_class:
        yield from _by_class(gate, row, sources)
    else:
        yield None, _share(gate, row)


def _measured(metric: str, row: Row) -> Rate | None:
    rates = {
        CLEAN_ACCURACY: row.clean_accuracy,
        "attack_success_rate": row.attack_success_rate,
        "adversarial_error": row.adversarial_error,
        "survives_uint8": row.survives_uint8,
    }
    return rates.get(metric, row.robust_accuracy)


def _share(gate: Gate, row: Row) -> Share | Lack:
    measured = _measured(gate.metric, row)
    if measured is None or measured.n == 0:
        return Lack(_undefined(gate.metric))
    return Share(measured.count, measured.n, anytime=_anytime(gate, row))


def _anytime(gate: Gate, row: Row) -> bool:
    """Whether the samples may have ended on what they showed."""
    return gate.sequential or bool(row.stopped)


def _undefined(metric: str) -> str:
    return f"{metric} is not defined here: no sample is in its denominator"


# ---------------------------------------------------------------- against a baseline


def _drop(row: Row, comparison: Comparison | str) -> Drop | Lack:
    if isinstance(comparison, str):
        return Lack(comparison, missing=True)
    change = next((each for each in comparison.changes if each.head_cell == row.cell_id), None)
    if change is None:
        there = "; ".join(comparison.unmatched)
        return Lack(f"'{comparison.base}' has no such row{there and f' ({there})'}", missing=True)
    return _of_change(change, comparison.base)


def _of_change(change: Change, base: str) -> Drop | Lack:
    if change.reason or change.n == 0:
        reason = change.reason or "no sample is in both"
        return Lack(f"cannot be compared with '{base}': {reason}", missing=True)
    return Drop(change.newly_broken, len(change.newly_fixed), change.n)


# ---------------------------------------------------------------- means, medians, classes


def _of_values(gate: Gate, row: Row, sources: Sources) -> Evidence | Lack:
    """Of a cell's own samples; a union of cells has no one adversarial example per sample."""
    measured = row.confidence_on_mistakes if gate.metric == CONFIDENCE else row.median_distance
    if row.members or measured is None:
        return Lack(_undefined(gate.metric))
    table = sources.samples(row.cell_id)
    if table is None:
        return Lack(_LOST, missing=True)
    if gate.metric == CONFIDENCE:
        return Mean(_confidences(table, clean=row.attack == CLEAN))
    assert row.norm in NORMS
    distances = np.asarray(getattr(table, row.norm), dtype=np.float64)
    return Median(distances[table.clean_correct & table.success], row.norm)


def _confidences(table: Samples, *, clean: bool) -> Values:
    """Of the decided inputs that are wrong, as in `summary`."""
    if clean:
        wrong = ~table.clean_correct & (table.clean_pred >= 0)
        return table.clean_confidence[wrong].astype(np.float64)
    wrong = ~table.adv_correct & (table.adv_pred >= 0)
    return table.adv_confidence[wrong].astype(np.float64)


def _by_class(
    gate: Gate, row: Row, sources: Sources
) -> Iterator[tuple[int | None, Evidence | Lack]]:
    bits = of_row(row, sources.rows, sources.samples)
    if bits is None:
        yield None, Lack(_LOST, missing=True)
        return
    kept, of = _masks(gate.metric, bits)
    if kept is None:
        yield None, Lack(_undefined(gate.metric))
        return
    for label in np.unique(bits.label):
        here = of & (bits.label == label)
        count, n = int((kept & here).sum()), int(here.sum())
        yield (
            int(label),
            Share(count, n, anytime=_anytime(gate, row)) if n else Lack(_undefined(gate.metric)),
        )


def _masks(metric: str, bits: Bits) -> tuple[Mask | None, Mask]:
    """What a rate counts, and of which samples."""
    everyone = np.ones(len(bits.label), dtype=bool)
    match metric:
        case "clean_accuracy":
            return bits.correct, everyone
        case "attack_success_rate":
            return bits.broken, bits.correct
        case "adversarial_error":
            return ~bits.adv_correct, everyone
        case "survives_uint8":
            return bits.survived, bits.broken
        case _:
            return bits.robust, everyone
