"""Which rows of a summary a gate is about."""

from __future__ import annotations

from ..metrics import CLEAN_ACCURACY, WORST
from ..types import CLEAN, WORST_CASE, Gate, Row, Summary

ALL = "all"


def selects(gate: Gate, row: Row) -> bool:
    """Whether the row is one that the gate judges."""
    return (
        _kind_matches(gate, row)
        and gate.model in (None, row.model)
        and gate.dataset in (None, row.dataset)
        and gate.norm in (None, row.norm)
        and (gate.eps is None or (row.eps is not None and row.eps.value == gate.eps.value))
    )


def _kind_matches(gate: Gate, row: Row) -> bool:
    everything = gate.attack in (None, ALL)
    if gate.metric == CLEAN_ACCURACY:
        return row.attack == CLEAN and (everything or gate.attack == CLEAN)
    if gate.metric == WORST:
        return row.attack == WORST_CASE and (everything or gate.attack == WORST_CASE)
    if everything:
        return row.role == "attack" and row.attack not in (CLEAN, WORST_CASE)
    return row.attack == gate.attack or (row.family == gate.attack and not row.union)


def nothing(gate: Gate, summary: Summary) -> str:
    """Why no row is selected: what was wanted, and what there is."""
    wanted = [
        f"{name} {value}"
        for name, value in (
            ("model", gate.model),
            ("dataset", gate.dataset),
            ("attack", gate.attack),
            ("norm", gate.norm),
            ("eps", gate.eps.text if gate.eps else None),
        )
        if value is not None
    ]
    there = {f"{row.attack} at eps {row.eps.text}" for row in summary.rows if row.eps is not None}
    needs = (
        "; a worst case takes an attack at that very eps, not noise alone"
        if gate.metric == WORST
        else ""
    )
    return (
        f"no row of this run matches {gate.metric}{' with ' if wanted else ''}{', '.join(wanted)};"
        f" it has: {', '.join(sorted(there)) or 'only clean passes'}{needs}"
    )
