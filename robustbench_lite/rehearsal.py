"""What two samples of every cell show of the attacks of a suite, each at its line."""

from __future__ import annotations

from collections.abc import Mapping

from . import diagnose
from .prepare import Prepared
from .types import Cell, CellResult

BREACHES = frozenset({"illegal-candidate", "changed-model"})
SLIPS = frozenset({"changed-input", "touched-global-rng", "not-reproducible"})


def rehearsed(prepared: Prepared, results: Mapping[str, CellResult]) -> tuple[list[str], list[str]]:
    """Attacks that raised or broke their contract, and those that only touched what they may not.

    What is said of the model or of how hard an attack tried needs more samples, and is left out.
    """
    where = {entry.name: str(entry.where) for entry in prepared.suite.attacks}
    cells = {cell.id: cell for cell in prepared.plan.cells}
    problems = [
        f"{_place(cells[key], where, 'error')}: {result.reason}"
        for key, result in results.items()
        if result.status == "failed"
    ]
    warnings: list[str] = []
    for found in diagnose.findings(prepared.plan.cells, results):
        told = f"{found.message}\n  help: {found.advice}"
        if found.id in BREACHES:
            problems.append(f"{_place(cells[found.cells[0]], where, 'error')}: {told}")
        elif found.id in SLIPS:
            warnings.append(f"{_place(cells[found.cells[0]], where, 'warning')}: {told}")
    return list(dict.fromkeys(problems)), warnings


def _place(cell: Cell, where: Mapping[str, str], severity: str) -> str:
    name = cell.family or cell.fallback_for or cell.entry
    return f"{where.get(name, name)}: {severity}: attacks.{name}"
