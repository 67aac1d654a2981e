"""What happens to each class under a telling attack, and what it is taken for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..stats import rate
from ..types import NO_NORM, Rate, Row
from .tallies import Place, Tally
from .words import attack_name, budget

MOST_IN_MATRIX = 16  # classes; beyond it the most frequent confusions are listed
MOST_CLASSES = 16
MOST_PAIRS = 12


@dataclass(frozen=True, slots=True)
class ClassLine:
    """One class: its samples, and how many are right before and under the attack."""

    label: int
    n: int
    clean: Rate
    robust: Rate


@dataclass(frozen=True, slots=True)
class Pair:
    """Samples of one class that are taken for another."""

    label: int
    answer: int
    count: int
    of: int


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of a model under one attack, the worst first; `left` are not shown.

    `answers`: columns of `matrix`, whose lines are (label, samples, counts per answer); both are
    empty with many classes, and `pairs` lists the most frequent confusions instead.
    """

    model: str
    dataset: str
    attack: str
    budget: str
    lines: tuple[ClassLine, ...]
    left: int
    answers: tuple[int, ...]
    matrix: tuple[tuple[int, int, tuple[int, ...]], ...]
    pairs: tuple[Pair, ...]


def classes(found: Mapping[str, Tally]) -> list[Classes]:
    """One per model and dataset: of the strongest attack at each budget, the most telling one.

    Telling is what leaves about half: where nothing or everything breaks, classes do not differ.
    Changes without a distance are taken only where there is no other attack.
    """
    strongest: dict[Place, dict[str, Tally]] = {}
    for tally in found.values():
        row = tally.row
        if row.role != "attack" or row.robust_accuracy is None or not len(tally.classes):
            continue
        budgets = strongest.setdefault((row.model, row.dataset), {})
        other = budgets.get(budget(row))
        if other is None or _left(row) < _left(other.row):
            budgets[budget(row)] = tally
    return [
        _classes(place, min(budgets.values(), key=_untold)) for place, budgets in strongest.items()
    ]


def _left(row: Row) -> float:
    return row.robust_accuracy.value if row.robust_accuracy else 1.0


def _untold(tally: Tally) -> tuple[bool, float]:
    return tally.row.norm == NO_NORM, abs(_left(tally.row) - 0.5)


def _classes(place: Place, tally: Tally) -> Classes:
    lines = [
        ClassLine(int(label), int(n), rate(int(clean), int(n)), rate(int(robust), int(n)))
        for label, n, clean, robust in tally.classes
    ]
    lines.sort(key=lambda line: (line.robust.value, line.label))
    totals = {line.label: line.n for line in lines}
    answers = sorted({*totals, *(answer for _, answer in tally.answers)})
    small = len(answers) <= MOST_IN_MATRIX
    return Classes(
        *place,
        attack_name(tally.row),
        budget(tally.row),
        tuple(lines[:MOST_CLASSES]),
        max(0, len(lines) - MOST_CLASSES),
        tuple(answers) if small else (),
        tuple(_matrix(tally, totals, answers)) if small else (),
        () if small else tuple(_pairs(tally, totals)),
    )


def _matrix(
    tally: Tally, totals: Mapping[int, int], answers: list[int]
) -> list[tuple[int, int, tuple[int, ...]]]:
    return [
        (label, totals[label], tuple(tally.answers.get((label, answer), 0) for answer in answers))
        for label in sorted(totals)
    ]


def _pairs(tally: Tally, totals: Mapping[int, int]) -> list[Pair]:
    wrong = [
        Pair(label, answer, count, totals[label])
        for (label, answer), count in tally.answers.items()
        if label != answer
    ]
    wrong.sort(key=lambda pair: (-pair.count, pair.label, pair.answer))
    return wrong[:MOST_PAIRS]
