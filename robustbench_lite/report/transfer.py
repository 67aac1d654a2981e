"""The transfer matrix: what an attack crafted on one model does to another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..stats import rate
from ..types import WORST_CASE, Cell, Plan, Rate, Row
from .tallies import Place, Tally
from .words import budget


@dataclass(frozen=True, slots=True)
class Crossing:
    """Crafted on a source and judged on a target: what it broke of the clean-correct.

    `white_box`: source and target are one model. `agreement`: of the samples broken on both, those
    to which both models give the same wrong class; None where the source was not attacked itself.
    """

    row: Row
    white_box: bool
    agreement: Rate | None


@dataclass(frozen=True, slots=True)
class Matrix:
    """One attack at one budget: a line per source, a column per target, None if not measured.

    Where a target is no source itself, the last line holds every white box, to compare with.
    """

    attack: str
    budget: str
    dataset: str
    targets: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Crossing | None, ...]], ...]


# A transfer runs to its end, a white box may stop at the first point that breaks its own model.
_WHEN_TO_STOP = frozenset({"stop_when_broken"})

ITSELF = "the target itself"
_Key = tuple[str, str, str]  # dataset, attack with its parameters, budget
_Spot = tuple[str, str]  # source, target


def groups(
    rows: Sequence[Row], plan: Plan, places: Iterable[Place]
) -> dict[_Key, dict[_Spot, Row]]:
    """Rows of one attack, parameters and budget by (source, target), where any of them transfers.

    A transfer and a white-box attack meet here if plug-in, parameters, goal and repeats are equal;
    their names in the suite differ.
    """
    cells = {cell.id: cell for cell in plan.cells}
    shown = set(places)
    found: dict[_Key, dict[_Spot, Row]] = {}
    for row in rows:
        if row.plugin == WORST_CASE or row.eps is None or row.role != "attack":
            continue
        if (row.model, row.dataset) not in shown:
            continue
        key = (row.dataset, _recipe(cells.get(row.cell_id), row), budget(row))
        found.setdefault(key, {}).setdefault((row.source, row.model), row)
    return {
        key: by_spot
        for key, by_spot in found.items()
        if any(source != target for source, target in by_spot)
    }


def _recipe(cell: Cell | None, row: Row) -> str:
    if cell is None:
        return row.plugin
    params = {name: value for name, value in cell.params.items() if name not in _WHEN_TO_STOP}
    asked = [cell.attack, cell.target, cell.repeats, params]
    return json.dumps(asked, sort_keys=True, default=str)


def paired(found: Mapping[_Key, Mapping[_Spot, Row]]) -> set[str]:
    """Ids of the cells whose wrong answers are compared."""
    return {row.cell_id for by_spot in found.values() for row in by_spot.values()}


def matrices(
    found: Mapping[_Key, Mapping[_Spot, Row]], tallied: Mapping[str, Tally]
) -> list[Matrix]:
    """One matrix per attack, parameters and budget."""
    return [_matrix(key, by_spot, tallied) for key, by_spot in found.items()]


def _matrix(key: _Key, by_spot: Mapping[_Spot, Row], tallied: Mapping[str, Tally]) -> Matrix:
    dataset, _, words = key
    targets = tuple(dict.fromkeys(target for _, target in by_spot))
    crossed = dict.fromkeys(source for source, target in by_spot if source != target)
    sources = [name for name in targets if name in crossed]
    sources += [name for name in crossed if name not in targets]
    lines = [
        (source, tuple(_crossing(by_spot, source, target, tallied) for target in targets))
        for source in sources
    ]
    if any(source == target and source not in crossed for source, target in by_spot):
        own = tuple(_crossing(by_spot, target, target, tallied) for target in targets)
        lines.append((ITSELF, own))
    return Matrix(next(iter(by_spot.values())).plugin, words, dataset, targets, tuple(lines))


def _crossing(
    by_spot: Mapping[_Spot, Row], source: str, target: str, tallied: Mapping[str, Tally]
) -> Crossing | None:
    row = by_spot.get((source, target))
    if row is None:
        return None
    own = by_spot.get((source, source))
    agreed = None
    if source != target and own is not None:
        agreed = _agreement(tallied.get(own.cell_id), tallied.get(row.cell_id))
    return Crossing(row, source == target, agreed)


def _agreement(there: Tally | None, here: Tally | None) -> Rate | None:
    if there is None or here is None or there.wrong.shape != here.wrong.shape:
        return None
    both = (there.wrong >= 0) & (here.wrong >= 0)
    same = int(np.count_nonzero(there.wrong[both] == here.wrong[both]))
    return rate(same, int(both.sum())) if both.any() else None
