"""Findings about the measurement, computed from what the run recorded.

Severity, decided once (`catalogue.py`): `error` means that the number would be wrong (the cell
becomes invalid and every gate that needs it fails closed); `warning` that it is right but says less
than it seems; `note` that it is worth knowing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from ..group import BOX_HIGH, BOX_LOW, DIMENSION
from ..types import (
    CLEAN,
    Cell,
    CellResult,
    Component,
    FailedAnalysis,
    Finding,
    Gate,
    Samples,
    Waiver,
)
from . import across, gatework
from .analyses import of_analyses
from .budgets import Extent
from .cells import of_cells
from .changed import Before as Before
from .changed import of_files
from .enough import evidence as evidence
from .grid import Grid, read
from .preflight import of_models
from .selftests import of_self_tests
from .twins import of_twins, without_gradients
from .waivers import waived


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a suite asks of a run, beside its cells; `today`: the day on which it is judged.

    `before`: of each judged model that a baseline knows, its files there. `failed`: the analyses
    that have no table to rely on.
    """

    gates: Sequence[Gate]
    models: Mapping[str, Component]
    waivers: Sequence[Waiver]
    today: date
    self_test: bool
    before: Mapping[str, Before] = field(default_factory=dict)
    failed: Sequence[FailedAnalysis] = ()


def findings(cells: Sequence[Cell], results: Mapping[str, CellResult]) -> tuple[Finding, ...]:
    """What single cells and models say of themselves, without reading a table."""
    return (
        *of_models(cells, results),
        *of_cells(cells, results),
        *without_gradients(cells, results),
        *of_twins(cells, results),
    )


def all_findings(
    cells: Sequence[Cell],
    results: Mapping[str, CellResult],
    samples: Callable[[str], Samples | None],
    asked: Asked,
) -> tuple[Finding, ...]:
    """Every finding of a finished run, with its waivers.

    `samples(cell id)` is called once per finished cell. A cell that an error touches, and that
    nobody waived, is no evidence about another.
    """
    extents = _extents(cells, results)
    told = [
        *of_files(cells, asked.models, asked.before),
        *findings(cells, results),
        *of_self_tests(cells, results, on=asked.self_test, extents=extents),
        *of_analyses(asked.failed),
    ]
    found = waived(told, asked.waivers, cells, asked.today)
    grid = read(cells, results, samples, spoilt(found))
    more = across.of_bits(grid, boxes=extents)
    compared = waived(more, asked.waivers, cells, asked.today)[: len(more)]
    grid = _without(grid, spoilt(compared))
    return (*found, *compared, *gatework.of_bits(asked.gates, cells, grid, asked.models))


def spoilt(found: Sequence[Finding]) -> set[str]:
    """Cells that an error touches which nobody waived."""
    errors = [each for each in found if each.severity == "error" and not each.waived]
    return {cell for each in errors for cell in each.cells}


def _without(grid: Grid, cells: Collection[str]) -> Grid:
    spots = {
        spot: [each for each in here if each.cell.id not in cells]
        for spot, here in grid.spots.items()
    }
    return Grid(spots=spots, clean=grid.clean)


def _extents(cells: Sequence[Cell], results: Mapping[str, CellResult]) -> dict[str, Extent]:
    """Box and shape of every dataset, as its clean passes recorded them."""
    extents: dict[str, Extent] = {}
    for cell in cells:
        result = results.get(cell.id)
        if cell.attack != CLEAN or result is None or BOX_LOW not in result.observed:
            continue
        seen = result.observed
        shape = [int(value) for key, value in seen.items() if key.startswith(DIMENSION)]
        extents[cell.dataset] = (seen[BOX_LOW], seen[BOX_HIGH], tuple(shape))
    return extents
