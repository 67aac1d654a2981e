"""Findings about the measurement, computed from what the run recorded.

Severity, decided once: `error` means that the number would be wrong (the cell becomes invalid and
every gate that needs it fails closed); `warning` that it is right but says less than it seems;
`note` that it is worth knowing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..types import Cell, CellResult, Finding
from .cells import of_cells
from .preflight import of_models
from .twins import of_twins, without_gradients


def findings(cells: Sequence[Cell], results: Mapping[str, CellResult]) -> tuple[Finding, ...]:
    """Every finding of a finished run."""
    return (
        *of_models(cells, results),
        *of_cells(cells, results),
        *without_gradients(cells, results),
        *of_twins(cells, results),
    )
