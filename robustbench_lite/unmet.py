"""What gates lack when a run did not finish, in words."""

from __future__ import annotations

from collections.abc import Sequence

from .types import GateResult, Row, Summary
from .words import listed

NAMED = 3  # gates, and cells of each, that are named before the rest is only counted


def unmet(results: Sequence[GateResult], summary: Summary, unfinished: Sequence[Row]) -> str:
    """`Gate 'a' lacks pgd linf 0.3 on 'm'; gate 'b' lacks ...`, or "" if no gate lacks a cell."""
    missing = {row.cell_id: row for row in unfinished}
    rows = {row.cell_id: row for row in summary.rows}
    lacks: dict[str, dict[str, None]] = {}
    for result in results:
        row = rows.get(result.cell_id)
        if result.status != "INVALID" or row is None:
            continue
        for cell_id in row.members or (row.cell_id,):
            if cell_id in missing:
                lacks.setdefault(result.gate, {})[_cell(missing[cell_id])] = None
    told = [f"gate '{gate}' lacks {_some(list(cells))}" for gate, cells in lacks.items()]
    text = "; ".join(told[:NAMED])
    if len(told) > NAMED:
        text += f"; {len(told) - NAMED} more gates lack cells"
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{listed(names[:NAMED])}{more}"


def _cell(row: Row) -> str:
    budget = f" {row.norm} {row.eps.text}" if row.norm and row.eps else ""
    return f"{row.attack}{budget} on '{row.model}'"
