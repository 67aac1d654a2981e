"""Per-sample tables -> counts -> rates with intervals, and the worst case over attacks.

Definitions, over the n samples of a cell:

* clean accuracy = clean-correct / n
* robust accuracy = clean-correct and not broken / n
* attack success rate = clean-correct and broken / clean-correct
* adversarial error = wrong on x_adv / n, the papers' number: it counts an input that was wrong
  before, and a candidate that is not legal
* confidence on mistakes = mean confidence of the decided inputs x_adv that are wrong
* median distance = median of the cell's norm distance over the clean-correct and broken samples
* survives uint8 = share of those whose success remains in 8-bit storage

*Broken* is the judge's `success`. In the worst case a sample is robust if it is clean-correct and
no cell of that model, dataset and norm with an eps that is not larger broke it. There is one only
where an attack spends that very eps: noise alone, or weaker budgets, prove nothing about it.
The union of a family's attacks is the same over its own cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .errors import RobevalError
from .stats import rate
from .types import (
    CLEAN,
    NO_NORM,
    NORMS,
    WORST_CASE,
    Cell,
    CellResult,
    CellStatus,
    Eps,
    Finding,
    Norm,
    Row,
    Samples,
    Summary,
)

Bits = NDArray[np.bool_]
_GRAVITY: tuple[CellStatus, ...] = ("invalid", "failed", "timeout", "skipped")
_NOT_RUN = "not run: the run ended before this cell; run again with --resume"
_LOST = "its per-sample table is missing from the run directory; run again with --retry-errors"
_NAMED = 3  # members that a worst case names before it only counts them


def make(
    cells: Sequence[Cell],
    results: Mapping[str, CellResult],
    samples: Callable[[str], Samples | None],
    findings: Sequence[Finding],
    *,
    partial: bool = False,
    unfinished: str = "",
) -> Summary:
    """One row per cell in plan order, then families, then worst cases per model, norm and eps.

    `samples(cell_id)` is called once per finished cell, one table is held at a time.
    `partial`: the run was cut (`--limit`, `-k`), its rows do not stand for the suite.
    `unfinished`: why the run ended before its last cell. A cell that was stopped early has
    anytime-valid intervals; a worst case over it counts the samples that all its cells have.
    Raises RobevalError (internal) if two cells of a model and dataset differ in their samples.
    """
    touched = _touched(findings)
    merged = _Worst()
    unfinished = unfinished or _NOT_RUN
    rows = [
        _row(cell, results.get(cell.id), samples, touched, merged, unfinished) for cell in cells
    ]
    return Summary(rows=(*rows, *merged.rows(rows)), findings=tuple(findings), partial=partial)


def _touched(findings: Sequence[Finding]) -> dict[str, str]:
    """Why a cell is invalid: cell id -> messages of the errors that touch it."""
    reasons: dict[str, list[str]] = {}
    for finding in findings:
        if finding.severity == "error" and not finding.waived:
            for cell_id in finding.cells:
                reasons.setdefault(cell_id, []).append(finding.message)
    return {cell_id: "; ".join(messages) for cell_id, messages in reasons.items()}


def _row(
    cell: Cell,
    result: CellResult | None,
    samples: Callable[[str], Samples | None],
    touched: Mapping[str, str],
    merged: _Worst,
    unfinished: str,
) -> Row:
    row = _empty(cell, result, unfinished)
    if row.status not in ("ok", "invalid"):
        return row
    table = samples(cell.id)
    if table is None:
        return replace(row, status="failed", reason=_LOST) if row.status == "ok" else row
    row = replace(
        row,
        n=len(table.sample_id),
        queries_mean=_mean(table.queries),
        gradients_mean=_mean(table.gradients),
    )
    if cell.id in touched:
        return replace(row, status="invalid", reason=touched[cell.id])
    if row.status == "invalid":
        return row
    merged.add(cell, table, stopped=bool(row.stopped))
    return _clean(row, table) if cell.attack == CLEAN else _attacked(row, table)


def _empty(cell: Cell, result: CellResult | None, unfinished: str) -> Row:
    status: CellStatus = "timeout"
    reason = unfinished
    if result is not None:
        status, reason = result.status, result.reason or result.stopped
    elif cell.skip is not None:
        status, reason = "skipped", cell.skip
    return Row(
        cell_id=cell.id,
        model=cell.model,
        dataset=cell.dataset,
        attack=cell.entry,
        plugin=cell.attack,
        source=cell.source,
        role=cell.role,
        kind=cell.kind,
        norm=cell.norm,
        eps=cell.eps,
        n=0,
        status=status,
        reason=reason,
        clean_accuracy=None,
        robust_accuracy=None,
        attack_success_rate=None,
        adversarial_error=None,
        confidence_on_mistakes=None,
        median_distance=None,
        survives_uint8=None,
        queries_mean=None,
        gradients_mean=None,
        seconds=result.seconds if result else 0.0,
        device=result.device if result else "",
        provider=result.provider if result else "",
        batch_size=result.batch_size if result else 0,
        fallback_for=cell.fallback_for,
        family=cell.family,
        union=cell.union,
        stopped=result.stopped if result else "",
    )


def _clean(row: Row, table: Samples) -> Row:
    """The clean pass: robust accuracy is the accuracy, nothing was attacked."""
    correct = int(table.clean_correct.sum())
    wrong = ~table.clean_correct & (table.clean_pred >= 0)
    return replace(
        row,
        clean_accuracy=rate(correct, row.n),
        robust_accuracy=rate(correct, row.n),
        adversarial_error=rate(row.n - correct, row.n),
        confidence_on_mistakes=_mean(table.clean_confidence[wrong]),
    )


def _attacked(row: Row, table: Samples) -> Row:
    correct = table.clean_correct
    broken = correct & table.success
    mistakes = ~table.adv_correct & (table.adv_pred >= 0)
    measured = row.norm if row.norm in NORMS else None
    distances: NDArray[np.float64] | None = getattr(table, measured) if measured else None
    survived = int((broken & table.survives_uint8).sum())
    early = bool(row.stopped)
    return replace(
        row,
        clean_accuracy=rate(int(correct.sum()), row.n, anytime=early),
        robust_accuracy=rate(int((correct & ~table.success).sum()), row.n, anytime=early),
        attack_success_rate=rate(int(broken.sum()), int(correct.sum()), anytime=early),
        adversarial_error=rate(int((~table.adv_correct).sum()), row.n, anytime=early),
        confidence_on_mistakes=_mean(table.adv_confidence[mistakes]),
        median_distance=None if distances is None else _median(distances[broken]),
        survives_uint8=rate(survived, int(broken.sum()), anytime=early),
    )


def _mean(values: NDArray[np.floating]) -> float | None:
    return float(values.mean(dtype=np.float64)) if len(values) else None


def _median(values: NDArray[np.float64]) -> float | None:
    return float(np.median(values)) if len(values) else None


# ---------------------------------------------------------------- worst case


@dataclass(frozen=True, slots=True)
class _Bits:
    """What n samples of one model and dataset kept: under a clean pass, a cell, or all of them.

    `seen`: the samples that were run; False for those that a cell was stopped before.
    """

    clean: Bits
    robust: Bits
    adv_correct: Bits
    seen: Bits

    def __and__(self, other: _Bits) -> _Bits:
        return _Bits(
            self.clean & other.clean,
            self.robust & other.robust,
            self.adv_correct & other.adv_correct,
            self.seen & other.seen,
        )

    def common(self) -> _Bits:
        """The samples alone that all have run."""
        kept = [getattr(self, name)[self.seen] for name in self.__dataclass_fields__]
        return _Bits(*kept)


_Group = tuple[str, str, Norm, str]  # model, dataset, norm, the family or "" for all attacks
_Spot = tuple[_Group, Fraction]


def _groups(model: str, dataset: str, norm: Norm | None, family: str | None) -> list[_Group]:
    """What a cell or row counts for: a worst case needs a norm, its own family never does."""
    if norm is None:
        return []
    found: list[_Group] = [] if norm == NO_NORM else [(model, dataset, norm, "")]
    return [*found, (model, dataset, norm, family)] if family else found


@dataclass(slots=True)
class _Worst:
    """Bits per group and eps, merged while cells pass by one at a time."""

    order: dict[tuple[str, str], Mapping[str, int]] = field(default_factory=dict)
    bits: dict[_Spot, _Bits] = field(default_factory=dict)

    def add(self, cell: Cell, table: Samples, *, stopped: bool) -> None:
        """Count a finished cell; only one that was `stopped` may have fewer samples."""
        place = self._place(cell, table, stopped=stopped)
        if cell.eps is None or place is None:
            return
        robust = table.clean_correct & ~table.success
        columns = (table.clean_correct, robust, table.adv_correct, np.ones_like(robust))
        n = len(self.order[cell.model, cell.dataset])
        found = _Bits(*(_spread(column, place, n) for column in columns))
        family = cell.family if cell.union else None
        for group in _groups(cell.model, cell.dataset, cell.norm, family):
            spot = (group, cell.eps.value)
            self.bits[spot] = self.bits[spot] & found if spot in self.bits else found

    def _place(self, cell: Cell, table: Samples, *, stopped: bool) -> NDArray[np.int64] | None:
        """Where each row stands among the samples of its model and dataset."""
        key = (cell.model, cell.dataset)
        ids = tuple(table.sample_id)
        order = self.order.setdefault(key, {name: at for at, name in enumerate(ids)})
        if stopped and order.keys() >= set(ids):
            return np.array([order[name] for name in ids], dtype=np.int64)
        if tuple(order) != ids:
            raise RobevalError(
                f"internal error: cell {cell.id} ('{cell.entry}' on model '{cell.model}', dataset"
                f" '{cell.dataset}') has other samples, or another order, than the cells before"
                " it; the worst case per sample cannot be taken"
            )
        return np.arange(len(ids), dtype=np.int64)

    def rows(self, rows: Sequence[Row]) -> list[Row]:
        """Families, then worst cases, in the order of the plan, eps ascending within a norm."""
        groups: dict[_Group, list[Row]] = {}
        for row in rows:
            family = row.family if row.union else None
            for group in _groups(row.model, row.dataset, row.norm, family):
                if row.eps is not None:
                    groups.setdefault(group, []).append(row)
        ordered = sorted(groups, key=lambda group: not group[3])
        return [worst for group in ordered for worst in self._grid(group, groups[group])]

    def _grid(self, spot: _Group, group: Sequence[Row]) -> list[Row]:
        texts: dict[Fraction, Eps] = {}
        for row in group:
            assert row.eps is not None
            texts.setdefault(row.eps.value, row.eps)
        found: list[Row] = []
        bits: _Bits | None = None
        for value in sorted(texts):
            here = self.bits.get((spot, value))
            if here is not None:
                bits = here if bits is None else bits & here
            members = [row for row in group if row.eps is not None and row.eps.value <= value]
            if any(_attacks_at(row, value) for row in members):
                found.append(_worst(spot[3] or WORST_CASE, members, texts[value], bits))
        return found


def _spread(column: Bits, place: NDArray[np.int64], n: int) -> Bits:
    whole = np.zeros(n, dtype=bool)
    whole[place] = column
    return whole


def _attacks_at(row: Row, eps: Fraction) -> bool:
    """Whether the row is an attack that spends just this eps: controls alone are no worst case."""
    return row.role == "attack" and row.eps is not None and row.eps.value == eps


def _worst(name: str, members: Sequence[Row], eps: Eps, bits: _Bits | None) -> Row:
    first = members[0]
    paid = _paid(members)
    status, reason = _gravest([row for row in members if not _replaced(row, members)])
    early = next((row.stopped for row in members if row.stopped), "")
    row = replace(
        first,
        cell_id="/".join((name, first.model, first.dataset, str(first.norm), str(eps.value))),
        attack=name,
        plugin=WORST_CASE,
        source=_common({row.source for row in members}),
        role="attack",
        kind="fixed-budget",
        eps=eps,
        n=min(row.n for row in members) if early else max(row.n for row in members),
        status=status,
        reason=reason,
        clean_accuracy=None,
        robust_accuracy=None,
        attack_success_rate=None,
        adversarial_error=None,
        confidence_on_mistakes=None,
        median_distance=None,
        survives_uint8=None,
        queries_mean=_sum([row.queries_mean for row in paid]),
        gradients_mean=_sum([row.gradients_mean for row in paid]),
        seconds=sum(row.seconds for row in paid),
        device=_common({row.device for row in members}),
        provider=_common({row.provider for row in members}),
        batch_size=first.batch_size if len({row.batch_size for row in members}) == 1 else 0,
        members=tuple(row.cell_id for row in members),
        fallback_for=None,
        family=None,
        union=False,
        stopped=early,
    )
    if status != "ok":
        return row
    assert bits is not None
    bits = bits.common()
    n, correct, robust = len(bits.clean), int(bits.clean.sum()), int(bits.robust.sum())
    broken = correct - int((bits.clean & bits.robust).sum())
    return replace(
        row,
        n=n,
        reason=early,
        clean_accuracy=rate(correct, n, anytime=bool(early)),
        robust_accuracy=rate(robust, n, anytime=bool(early)),
        attack_success_rate=rate(broken, correct, anytime=bool(early)),
        adversarial_error=rate(int((~bits.adv_correct).sum()), n, anytime=bool(early)),
    )


def _paid(members: Sequence[Row]) -> list[Row]:
    """The rows whose cost adds up: one run of a minimal-norm attack serves its whole grid."""
    once = {row.attack: row for row in members if row.kind == "minimal-norm"}
    return [row for row in members if row.kind != "minimal-norm" or once[row.attack] is row]


def _replaced(row: Row, members: Sequence[Row]) -> bool:
    """Whether a skipped gradient attack has its gradient-free fallback beside it."""
    return row.status == "skipped" and any(
        other.fallback_for == row.attack and other.eps == row.eps and other.status == "ok"
        for other in members
    )


def _gravest(members: Sequence[Row]) -> tuple[CellStatus, str]:
    """Status of the worst member that is not ok, with a reason that names such members."""
    for status in _GRAVITY:
        bad = [row for row in members if row.status == status]
        if bad:
            named = [f"{row.attack} at eps {row.eps.text if row.eps else ''}" for row in bad]
            more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            return status, f"{', '.join(named[:_NAMED])}{more}: {bad[0].reason}"
    return "ok", ""


def _common(names: set[str]) -> str:
    """The one name that all share; empty if they differ."""
    return next(iter(names)) if len(names) == 1 else ""


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
