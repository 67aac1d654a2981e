"""A stored run -> its findings and its summary: what gates, reports and tables start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from . import diagnose, records, summary
from .diagnose import Before
from .group import rows
from .store import StoredRun
from .types import Cell, CellResult, Finding, Gate, Row, Samples, Summary

Read = Callable[[str], Samples | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessed:
    """What a run says before any gate.

    `cells`: those that count (no stand-in that was not needed). `lacking(row)`: why a worst case
    rests on too little, or "".
    """

    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...]
    summary: Summary
    lacking: Callable[[Row], str]


def assess(
    stored: StoredRun, gates: Sequence[Gate], before: Mapping[str, Before] | None = None
) -> Assessed:
    """Findings and rows of a run; needs no plug-in, model or device, and writes nothing.

    `before`: of each model that a baseline knows, its files there.
    """
    cells = tuple(cell for cell in stored.plan.cells if not _spared(cell, stored))
    asked = diagnose.Asked(
        gates=gates,
        models=stored.plan.models,
        waivers=records.waivers_from_json(stored.manifest.get("waivers")),
        today=datetime.now(UTC).date(),
        self_test=stored.manifest.get("self_test") is not False,
        before=before or {},
        failed=records.failed_from_json(stored.manifest.get(records.FAILED_ANALYSES)),
    )
    found = _findings(cells, stored.results, stored.samples, asked)
    unfinished = stored.manifest.get("unfinished")
    table = summary.make(
        cells,
        stored.results,
        stored.samples,
        found,
        partial=stored.partial,
        unfinished=unfinished if isinstance(unfinished, str) else "",
    )
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

    return Assessed(cells=cells, findings=found, summary=table, lacking=lacking)


def _spared(cell: Cell, stored: StoredRun) -> bool:
    """Whether a cell only stands by for an attack whose gradients can be used, or may be."""
    result = stored.results.get(cell.id)
    if cell.fallback_for is None or (result is not None and result.status != "skipped"):
        return False
    return result is not None or not any(
        stored.results[other.id].status == "skipped"
        for other in stored.plan.cells
        if other.id in stored.results and _stands_for(cell, other)
    )


def _stands_for(cell: Cell, other: Cell) -> bool:
    same = (cell.model, cell.dataset, cell.norm) == (other.model, other.dataset, other.norm)
    return same and cell.fallback_for == other.entry and cell.eps == other.eps


def _findings(
    cells: Sequence[Cell],
    results: Mapping[str, CellResult],
    samples: Read,
    asked: diagnose.Asked,
) -> tuple[Finding, ...]:
    """Every finding; a cell that was stopped early is set against others where all have samples.

    The others are compared among themselves on all of theirs.
    """
    stopped = {cell.id: cell for cell in cells if cell.id in results and results[cell.id].stopped}
    if not stopped:
        return diagnose.all_findings(cells, results, samples, asked)
    whole = diagnose.all_findings(
        cells, results, lambda cell_id: None if cell_id in stopped else samples(cell_id), asked
    )
    common = _Common(cells, stopped, samples)
    again = diagnose.all_findings(cells, results, common.samples, asked)
    told = {(found.id, found.cells) for found in whole}
    more = [found for found in again if stopped.keys() & set(found.cells)]
    return (*whole, *(found for found in more if (found.id, found.cells) not in told))


class _Common:
    """Tables cut to the samples that every cell of the same model and dataset has."""

    def __init__(self, cells: Sequence[Cell], stopped: Mapping[str, Cell], samples: Read) -> None:
        self._samples = samples
        self._spot = {cell.id: (cell.model, cell.dataset) for cell in cells}
        self._ids: dict[tuple[str, str], set[str]] = {}
        for cell in stopped.values():
            table = samples(cell.id)
            if table is not None:
                ids, spot = set(table.sample_id), self._spot[cell.id]
                self._ids[spot] = self._ids.get(spot, ids) & ids

    def samples(self, cell_id: str) -> Samples | None:
        """The table of a cell, or what of it the others have too."""
        table, ids = self._samples(cell_id), self._ids.get(self._spot[cell_id])
        if table is None or ids is None:
            return table
        return rows(table, np.flatnonzero([name in ids for name in table.sample_id]))
