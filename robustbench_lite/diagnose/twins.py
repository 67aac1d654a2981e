"""Gradients that a stand-in gives: how well each twin stands for its file, and what ran instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..group import FOUND_ON_TWIN, NOT_CONFIRMED, PARITY_DIFFERENCE, PARITY_TOLERANCE
from ..types import Cell, CellResult, Finding
from .subject import subject

TRANSFER_FAILURE = 0.01  # share of the points found on a twin that its file does not confirm


def without_gradients(cells: Sequence[Cell], results: Mapping[str, CellResult]) -> list[Finding]:
    """Gradient attacks that a gradient-free one stands in for."""
    replaced = {(cell.fallback_for, cell.model, cell.dataset): cell for cell in cells}
    found: dict[tuple[str, str], Finding] = {}
    for cell in cells:
        result = results.get(cell.id)
        instead = replaced.get((cell.entry, cell.model, cell.dataset))
        if result is None or result.status != "skipped" or instead is None:
            continue
        found[cell.entry, cell.model] = Finding(
            id="no-gradients",
            severity="warning",
            message=(
                f"'{cell.entry}' on '{cell.model}' was skipped and '{instead.attack}' ran instead:"
                f" {result.reason}"
            ),
            advice=(
                "a worst case without a gradient attack says less than it seems; add a transfer"
                " attack from a `source:` that has gradients"
            ),
            cells=(cell.id, instead.id),
        )
    return list(found.values())


def of_twins(cells: Sequence[Cell], results: Mapping[str, CellResult]) -> list[Finding]:
    """How well each twin stands for its file: parity, and points that only the twin believes."""
    found: list[Finding] = []
    for model in dict.fromkeys(cell.model for cell in cells):
        mine = [c for c in cells if c.model == model and c.id in results]
        checked = [c for c in mine if PARITY_DIFFERENCE in results[c.id].observed]
        if not checked:
            continue
        observed = results[checked[0].id].observed
        found.append(
            Finding(
                id="twin-parity",
                severity="note",
                message=(
                    f"gradients for '{model}' come from its twin, which agrees with the file to"
                    f" {observed[PARITY_DIFFERENCE]:.2g} (allowed"
                    f" {observed[PARITY_TOLERANCE]:.2g}); the file itself judged every point"
                ),
                advice="nothing to do",
                cells=tuple(cell.id for cell in checked),
                numbers={key: observed[key] for key in (PARITY_DIFFERENCE, PARITY_TOLERANCE)},
            )
        )
        found += [
            _unconfirmed(cell, results[cell.id].observed)
            for cell in checked
            if results[cell.id].observed.get(NOT_CONFIRMED)
        ]
    return found


def _unconfirmed(cell: Cell, observed: Mapping[str, float]) -> Finding:
    share = observed[NOT_CONFIRMED] / observed[FOUND_ON_TWIN]
    return Finding(
        id="transfer-failure",
        severity="warning" if share > TRANSFER_FAILURE else "note",
        message=(
            f"{subject(cell)}: {observed[NOT_CONFIRMED]:.0f} of {observed[FOUND_ON_TWIN]:.0f}"
            f" points that break the twin do not break the file ({100 * share:.1f} %)"
        ),
        advice="run a gradient-free attack such as square too: it searches on the file itself",
        cells=(cell.id,),
        numbers={key: observed[key] for key in (FOUND_ON_TWIN, NOT_CONFIRMED)},
    )
