"""What changed against the baseline: every paired number, and what is newly broken."""

from __future__ import annotations

from dataclasses import dataclass

from ..types import Change
from .outcome import gravest
from .shots import Shot, shots
from .view import FinishedRun

MOST_IDS = 60  # named per change
MOST_PICTURED = 12  # changes whose examples are looked at
PER_CHANGE = 4


@dataclass(frozen=True, slots=True)
class Changed:
    """A change as the page shows it. `word`: one of `outcome.WORDS`."""

    change: Change
    word: str
    broken: tuple[str, ...]
    broken_left: int
    fixed: tuple[str, ...]
    fixed_left: int
    seen: tuple[Shot, ...]


def changes(run: FinishedRun, lines: int, room: int) -> list[Changed]:
    """At most `lines` changes, those clear of zero first, with `room` bytes of pictures."""
    if run.comparison is None:
        return []
    found: list[Changed] = []
    pictured = 0
    for said, change in gravest(run.comparison)[:lines]:
        seen: tuple[Shot, ...] = ()
        if change.newly_broken and pictured < MOST_PICTURED:
            seen = shots(run, change.head_cell, change.newly_broken, most=PER_CHANGE, room=room)
            room -= sum(each.trio.size for each in seen)
            pictured += 1
        found.append(_changed(said, change, seen))
    return found


def _changed(said: str, change: Change, seen: tuple[Shot, ...]) -> Changed:
    broken, fixed = change.newly_broken, change.newly_fixed
    return Changed(
        change,
        said,
        broken[:MOST_IDS],
        max(0, len(broken) - MOST_IDS),
        fixed[:MOST_IDS],
        max(0, len(fixed) - MOST_IDS),
        seen,
    )
