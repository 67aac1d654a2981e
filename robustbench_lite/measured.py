"""A stored run -> its findings and its summary; nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from . import diagnose, records, summary
from .diagnose import Before
from .store import StoredRun
from .types import Cell, CellResult, Gate, Row, Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a run says before any gate; `lacking(row)`: why a worst case rests on too little."""

    summary: Summary
    lacking: Callable[[Row], str]


def measure(
    stored: StoredRun, gates: Sequence[Gate], before: Mapping[str, Before] | None = None
) -> Measured:
    """Summarise a stored run; needs no plug-in, model or device.

    `before`: of each model that a baseline knows, its files there.
    """
    cells = [cell for cell in stored.plan.cells if not _spared(cell, stored.results)]
    asked = diagnose.Asked(
        gates=gates,
        models=stored.plan.models,
        waivers=records.waivers_from_json(stored.manifest.get("waivers")),
        today=datetime.now(UTC).date(),
        self_test=stored.manifest.get("self_test") is not False,
        before=before or {},
    )
    found = diagnose.all_findings(cells, stored.results, stored.samples, asked)
    table = summary.make(cells, stored.results, stored.samples, found, partial=stored.partial)
    spoilt = diagnose.spoilt(found)

    def lacking(row: Row) -> str:
        if row.norm is None or row.eps is None:
            return ""
        return diagnose.evidence(
            cells,
            stored.results,
            spoilt,
            model=row.model,
            dataset=row.dataset,
            norm=row.norm,
            eps=row.eps,
        )

    return Measured(summary=table, lacking=lacking)


def _spared(cell: Cell, results: Mapping[str, CellResult]) -> bool:
    """Whether a cell only stood by for an attack whose gradients turned out usable."""
    result = results.get(cell.id)
    return cell.fallback_for is not None and result is not None and result.status == "skipped"
