"""What a larger budget must do: break no less than a smaller one, and all of it at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..stats import mcnemar
from ..types import Cell, Finding, Norm
from .duel import ITS_NATURE, WEAK_ATTACK, Duel
from .grid import (
    Broken,
    Clean,
    Grid,
    Spot,
    follows_gradients,
    is_single_step,
    is_transfer,
    notable,
    spot_of,
)
from .subject import subject

CHANCE = 0.05  # largest p-value of a difference between two eps of one attack

Extent = tuple[float, float, tuple[int, ...]]
"""Lower and upper end of a dataset's box, and the shape of one sample."""


def unbounded(here: Sequence[Broken], spot: Spot, clean: Clean, box: Extent) -> list[Finding]:
    """What a budget must break that reaches every input, or the middle of the box, from any x.

    From anywhere in the box all inputs lie within `radius` of 1; the middle within that of 1/2,
    and there the model gives one answer, so that only samples of that label can stay unbroken.
    """
    low, high, shape = box
    whole = float(spot.eps) >= radius(spot.norm, high - low, shape, 1.0)
    middle = float(spot.eps) >= radius(spot.norm, high - low, shape, 0.5)
    if clean.constant or not middle:
        return []
    may_stay = 0 if whole else clean.most_frequent
    reach = "every input" if whole else "the middle of the box, one and the same input for all,"
    n = len(clean.correct)
    found: list[Finding] = []
    for each in here:
        left = int((clean.correct & ~each.bits).sum())
        if not follows_gradients(each.cell) or not notable(left - may_stay, n):
            continue
        found.append(
            Finding(
                id="unbounded-not-zero",
                severity="error",
                message=(
                    f"{subject(each.cell)} leaves {left} of {n} samples unbroken, although its"
                    f" budget reaches {reach} from anywhere: at most {may_stay} could stay"
                ),
                advice=WEAK_ATTACK,
                cells=(each.cell.id,),
                numbers={"samples": n, "unbroken": left, "could stay": may_stay},
            )
        )
    return found


def radius(norm: Norm, width: float, shape: tuple[int, ...], share: float) -> float:
    """Distance within which `share` of the box's width is reached in every component at once."""
    components = math.prod(shape)
    match norm:
        case "linf":
            return width * share
        case "l2":
            return width * share * math.sqrt(components)
        case "l1":
            return width * share * components
        case "l0":
            return math.prod(shape[1:]) if len(shape) == 3 else components
        case _:
            return math.inf


def weaker_at_larger_eps(grid: Grid) -> list[Finding]:
    """Attacks that carry nothing from the smaller eps, and break less at the larger one.

    By more than 1 % of n, and by more than chance (exact McNemar test at 5 %).
    """
    entries: dict[tuple[str | None, ...], list[Broken]] = {}
    for each in grid.broken():
        cell = each.cell
        if cell.role == "attack" and not cell.carried:
            key = (cell.model, cell.dataset, cell.norm, cell.entry, cell.source, cell.target)
            entries.setdefault(key, []).append(each)
    return [finding for group in entries.values() for finding in _along(group)]


def _along(group: Sequence[Broken]) -> list[Finding]:
    """Each eps of one attack against the one below that broke most."""
    grid = sorted(group, key=lambda each: spot_of(each.cell).eps)
    found: list[Finding] = []
    for position in range(1, len(grid)):
        larger = grid[position]
        best = max(grid[:position], key=lambda each: int(each.bits.sum()))
        duel = Duel.of(larger.bits, best.bits)
        lost = duel.missed - duel.extra
        if notable(lost, duel.n) and mcnemar(duel.missed, duel.extra) <= CHANCE:
            found.append(_non_monotone(larger.cell, best.cell, duel))
    return found


def _non_monotone(cell: Cell, smaller: Cell, duel: Duel) -> Finding:
    assert smaller.eps is not None
    crude = is_transfer(cell) or is_single_step(cell)
    return Finding(
        id="larger-eps-weaker",
        severity="note" if crude else "warning",
        message=(
            f"{subject(cell)} breaks {duel.own} of {duel.n} samples and {duel.rival} at"
            f" {smaller.eps.text}, a smaller budget: {duel.missed} of them at the smaller one only"
        ),
        advice=ITS_NATURE if crude else WEAK_ATTACK,
        cells=(cell.id, smaller.id),
        numbers=duel.numbers(),
    )
