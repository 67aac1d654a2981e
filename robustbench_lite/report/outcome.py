"""What a comparison says of each number, in the words and the order that every report shares."""

from __future__ import annotations

from collections.abc import Sequence

from ..stats import holm
from ..types import Change, Comparison
from .words import difference, p_value, percent

CHANCE = 0.05  # error of saying that anything changed, over all lines together (Holm)
WORDS = ("WORSE", "BETTER", "NOT COMPARED", "UNCLEAR", "SAME")  # the gravest first
SURE = WORDS[:2]  # beyond chance
NAMED = 8  # sample ids of a line that are named before they are only counted
HEAD = ("what", "change", "base", "head", "points [95 %]", "broken", "fixed", "p", "n")
RIGHT = frozenset(range(2, len(HEAD)))  # columns of numbers
TITLE = "right: correct and unbroken, of the samples that both runs have"


def surely(comparison: Comparison) -> dict[str, float]:
    """Head cell -> p-value of its change, corrected for how many there are (Holm)."""
    tested = [each for each in comparison.changes if each.p_value is not None]
    corrected = holm([each.p_value or 0.0 for each in tested])
    return {each.head_cell: p for each, p in zip(tested, corrected, strict=True)}


def word(change: Change, corrected: float | None) -> str:
    """WORSE or BETTER beyond chance, UNCLEAR, SAME (no sample differs), or NOT COMPARED."""
    if change.reason or change.difference is None:
        return "NOT COMPARED"
    if corrected is not None and corrected <= CHANCE and change.difference:
        return "WORSE" if change.difference < 0 else "BETTER"
    return "UNCLEAR" if change.newly_broken or change.newly_fixed else "SAME"


def judged(comparison: Comparison) -> list[tuple[str, Change]]:
    """Every change with its word, in the order of the comparison."""
    corrected = surely(comparison)
    return [(word(each, corrected.get(each.head_cell)), each) for each in comparison.changes]


def gravest(comparison: Comparison) -> list[tuple[str, Change]]:
    """The same, the gravest first."""
    return sorted(judged(comparison), key=lambda pair: WORDS.index(pair[0]))


def compared(comparison: Comparison) -> list[tuple[str, Change]]:
    """Only what could be compared, in the order of the comparison."""
    return [pair for pair in judged(comparison) if pair[0] != "NOT COMPARED"]


def sentence(comparison: Comparison) -> str:
    """How many numbers changed by more than chance explains."""
    found = compared(comparison)
    words = [said for said, _ in found]
    worse, better = words.count("WORSE"), words.count("BETTER")
    sizes = sorted({each.n for _, each in found})
    spread = " to ".join(f"{n:,}" for n in dict.fromkeys((*sizes[:1], *sizes[-1:])))
    heading = f"{comparison.head} against {comparison.base}"
    if not found:
        return f"{heading}: nothing could be compared."
    return (
        f"{heading}, {len(found)} compared on {spread} samples of both:"
        f" {worse} worse, {better} better, {len(found) - worse - better} within chance"
        f" (McNemar, Holm over all at {CHANCE:g})."
    )


def cells(said: str, change: Change) -> tuple[str, ...]:
    """A comparable change as the cells of a table under `HEAD`."""
    assert change.base is not None
    assert change.head is not None
    return (
        change.subject,
        said,
        percent(change.base.value),
        percent(change.head.value),
        difference(change.difference, change.low, change.high),
        f"{len(change.newly_broken):,}",
        f"{len(change.newly_fixed):,}",
        p_value(change.p_value),
        f"{change.n:,}",
    )


def names(ids: Sequence[str], most: int = NAMED) -> str:
    """The first few, and how many more."""
    more = f" and {len(ids) - most:,} more" if len(ids) > most else ""
    return f"{', '.join(ids[:most])}{more}"
