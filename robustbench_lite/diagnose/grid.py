"""What every finished attack of a run broke, as bits, and what each of them may prove.

Tables are read one at a time and only booleans are kept. A cell that is not "ok", or that an error
finding touches already (`invalid`), is evidence for nothing: it neither shows that another attack
is fine nor that one is beaten, and it is not accused a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ..stats import lower_limit
from ..types import CLEAN, NO_NORM, Cell, CellResult, Norm, Samples

Bits = NDArray[np.bool_]
SHARE = 0.01  # of all n samples: broken by one attack and missed by another, to be worth words
FEWEST = 2  # samples; a single one is no pattern, however small n is


@dataclass(frozen=True, slots=True)
class Spot:
    """Where attacks can be compared per sample: one model, dataset, norm and eps."""

    model: str
    dataset: str
    norm: Norm
    eps: Fraction


@dataclass(frozen=True, slots=True)
class Broken:
    """A finished attack or control: bool [n], clean-correct and broken."""

    cell: Cell
    bits: Bits


@dataclass(frozen=True, slots=True)
class Clean:
    """The clean answers of one model on one dataset.

    `correct`: bool [n]. `most_frequent`: clean-correct samples of the label that has most of them.
    `constant`: every answer is the same class.
    """

    correct: Bits
    most_frequent: int
    constant: bool


@dataclass(frozen=True, slots=True)
class Grid:
    """All that was measured, by spot in plan order; the clean answers per (model, dataset)."""

    spots: Mapping[Spot, Sequence[Broken]]
    clean: Mapping[tuple[str, str], Clean]

    def at(self, spot: Spot) -> Sequence[Broken]:
        """What was measured at that very eps."""
        return self.spots.get(spot, ())

    def within(self, spot: Spot) -> list[Broken]:
        """What was measured at that eps or a smaller one: its points lie in the ball as well."""
        return [each for at, here in self.spots.items() if reaches(at, spot) for each in here]

    def broken(self) -> list[Broken]:
        """Everything, spot by spot."""
        return [each for here in self.spots.values() for each in here]


def read(
    cells: Sequence[Cell],
    results: Mapping[str, CellResult],
    samples: Callable[[str], Samples | None],
    invalid: Collection[str] = (),
) -> Grid:
    """The bits of every valid attack and control that has a norm."""
    spots: dict[Spot, list[Broken]] = {}
    clean: dict[tuple[str, str], Clean] = {}
    for cell in cells:
        table = samples(cell.id) if valid(cell, results, invalid) else None
        if table is None or len(table.success) == 0:
            continue
        first = clean.setdefault((cell.model, cell.dataset), _clean(table))
        if len(first.correct) == len(table.success):  # if not, the summary stops the run
            broken = Broken(cell, table.clean_correct & table.success)
            spots.setdefault(spot_of(cell), []).append(broken)
    return Grid(spots, clean)


def _clean(table: Samples) -> Clean:
    labels = table.label[table.clean_correct]
    return Clean(
        correct=table.clean_correct,
        most_frequent=int(np.unique(labels, return_counts=True)[1].max(initial=0)),
        constant=len(np.unique(table.clean_pred)) == 1,
    )


def valid(cell: Cell, results: Mapping[str, CellResult], invalid: Collection[str]) -> bool:
    """Whether the cell has a place in the grid, finished, and no error finding touches it."""
    result = results.get(cell.id)
    return (
        has_spot(cell) and result is not None and result.status == "ok" and cell.id not in invalid
    )


def has_spot(cell: Cell) -> bool:
    """Whether the cell can be compared with others: not the clean pass, not a set of its own."""
    return cell.attack != CLEAN and cell.eps is not None and cell.norm not in {None, NO_NORM}


def spot_of(cell: Cell) -> Spot:
    """Where a cell stands that `has_spot`."""
    assert cell.norm is not None
    assert cell.eps is not None
    return Spot(cell.model, cell.dataset, cell.norm, cell.eps.value)


def reaches(smaller: Spot, larger: Spot) -> bool:
    """Whether what lies in the ball of the first lies in that of the second."""
    same = (smaller.model, smaller.dataset, smaller.norm)
    return same == (larger.model, larger.dataset, larger.norm) and smaller.eps <= larger.eps


# ---------------------------------------------------------------- what kind of evidence a cell is


def is_transfer(cell: Cell) -> bool:
    """An attack that was crafted on another model."""
    return cell.role == "attack" and cell.source != cell.model


def searches(cell: Cell) -> bool:
    """An attack on the model itself that looks at more than one point on its way."""
    thorough = cell.effort in {"iterative", "exhaustive"} or cell.kind == "minimal-norm"
    return cell.role == "attack" and cell.source == cell.model and thorough


def follows_gradients(cell: Cell) -> bool:
    """An untargeted iterative (or minimal-norm) white box attack: none weaker may beat it.

    A targeted one is none: its rate is of reaching the target, which is harder than any mistake.
    """
    return searches(cell) and cell.access == "gradient" and cell.target is None


def is_single_step(cell: Cell) -> bool:
    """A white box attack of one step."""
    own = cell.role == "attack" and cell.source == cell.model
    return own and cell.access == "gradient" and not searches(cell)


def asks_only(cell: Cell) -> bool:
    """An attack on the model itself that uses no gradient: scores, decisions or nothing at all."""
    return cell.role == "attack" and cell.source == cell.model and cell.access != "gradient"


def checks_gradients(cell: Cell) -> bool:
    """A gradient-free attack that learns from the model's answers; noise learns nothing."""
    return asks_only(cell) and cell.access in {"score", "decision"}


# ---------------------------------------------------------------- counting


def union(broken: Sequence[Broken], like: Bits) -> Bits:
    """What any of them broke, bool [n] as `like`."""
    found: Bits = np.zeros_like(like)
    for each in broken:
        found |= each.bits
    return found


def notable(count: int, n: int) -> bool:
    """More than 1 % of n, and more than a single sample."""
    return count >= FEWEST and count > SHARE * n


def surely(count: int, n: int, share: float) -> bool:
    """Whether the rate is above `share`: its exact lower limit is, at 95 %."""
    return count >= FEWEST and lower_limit(count, n) > share
