"""What the numbers cost: passes per sample and time, by attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..types import CLEAN, WORST_CASE, Role, Row
from .words import attack_name


@dataclass(frozen=True, slots=True)
class Cost:
    """One attack over all models, datasets and eps: means per sample, sums of time.

    `share`: of the compute time of all cells.
    """

    name: str
    attack: str
    role: Role
    cells: int
    samples: int
    queries: float
    gradients: float
    seconds: float
    share: float


def costs(rows: Sequence[Row]) -> list[Cost]:
    """The dearest first; cells that did not run cost nothing and are not counted."""
    groups: dict[str, list[Row]] = {}
    for row in paid(rows):
        if row.queries_mean is not None:
            groups.setdefault(attack_name(row), []).append(row)
    total = sum(row.seconds for group in groups.values() for row in group)
    found = [_cost(name, group, total) for name, group in groups.items()]
    return sorted(found, key=lambda cost: -cost.seconds)


def paid(rows: Sequence[Row]) -> list[Row]:
    """The rows whose cost adds up: one run of a minimal-norm attack serves its whole grid."""
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        if row.plugin == WORST_CASE:
            continue
        once = row.kind == "minimal-norm"
        spot = (row.model, row.dataset, attack_name(row)) if once else (row.cell_id,)
        found[spot] = row
    return list(found.values())


def _cost(name: str, rows: Sequence[Row], total: float) -> Cost:
    samples = sum(row.n for row in rows)
    seconds = sum(row.seconds for row in rows)
    first = rows[0]
    return Cost(
        "clean pass" if first.attack == CLEAN else name,
        "" if first.attack == CLEAN else first.attack,
        first.role,
        len(rows),
        samples,
        sum((row.queries_mean or 0.0) * row.n for row in rows) / max(samples, 1),
        sum((row.gradients_mean or 0.0) * row.n for row in rows) / max(samples, 1),
        seconds,
        seconds / total if total else 0.0,
    )
