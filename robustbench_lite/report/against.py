"""What changed against the baseline: every paired number, and what is newly broken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..types import Change
from .pictures import Trio, trio
from .view import FinishedRun

MOST_IDS = 60  # named per change
MOST_PICTURED = 12  # changes whose examples are looked at
PER_CHANGE = 4
WORDS = ("WORSE", "BETTER", "NOT COMPARED", "UNCLEAR", "SAME")  # the gravest first


@dataclass(frozen=True, slots=True)
class Seen:
    """A newly broken sample with its pictures and the classes it was given."""

    sample_id: str
    label: int
    clean_pred: int
    adv_pred: int
    trio: Trio


@dataclass(frozen=True, slots=True)
class Changed:
    """A change as the page shows it. `word`: WORSE or BETTER if its interval is clear of zero."""

    change: Change
    word: str
    broken: tuple[str, ...]
    broken_left: int
    fixed: tuple[str, ...]
    fixed_left: int
    seen: tuple[Seen, ...]


def changes(run: FinishedRun, lines: int, room: int) -> list[Changed]:
    """At most `lines` changes, those clear of zero first, with `room` bytes of pictures."""
    if run.comparison is None:
        return []
    ordered = sorted(run.comparison.changes, key=_gravity)[:lines]
    found: list[Changed] = []
    pictured = 0
    for change in ordered:
        seen: tuple[Seen, ...] = ()
        if change.newly_broken and pictured < MOST_PICTURED:
            seen = _seen(run, change, room)
            room -= sum(each.trio.size for each in seen)
            pictured += 1
        found.append(_changed(change, seen))
    return found


def word(change: Change) -> str:
    """WORSE, BETTER, UNCLEAR (the interval holds zero), SAME, or NOT COMPARED."""
    if change.reason or change.difference is None or change.low is None or change.high is None:
        return "NOT COMPARED"
    if change.high < 0:
        return "WORSE"
    if change.low > 0:
        return "BETTER"
    return "UNCLEAR" if change.newly_broken or change.newly_fixed else "SAME"


def _gravity(change: Change) -> int:
    return WORDS.index(word(change))


def _changed(change: Change, seen: tuple[Seen, ...]) -> Changed:
    broken, fixed = change.newly_broken, change.newly_fixed
    return Changed(
        change,
        word(change),
        broken[:MOST_IDS],
        max(0, len(broken) - MOST_IDS),
        fixed[:MOST_IDS],
        max(0, len(fixed) - MOST_IDS),
        seen,
    )


def _seen(run: FinishedRun, change: Change, room: int) -> tuple[Seen, ...]:
    """The newly broken samples that the head run kept pictures of."""
    examples, samples = run.examples(change.head_cell), run.samples(change.head_cell)
    if examples is None or samples is None:
        return ()
    wanted = frozenset(change.newly_broken)
    found: list[Seen] = []
    for index, position in enumerate(examples.positions):
        sample_id = str(samples.sample_id[position])
        if sample_id not in wanted or len(found) == PER_CHANGE:
            continue
        clean, adversarial = int(samples.clean_pred[position]), int(samples.adv_pred[position])
        names = (f"clean, seen as {clean}", f"adversarial, seen as {adversarial}")
        pictures = trio(examples.x[index], examples.x_adv[index], names)
        if pictures.size <= room:
            room -= pictures.size
            label = int(samples.label[position])
            found.append(Seen(sample_id, label, clean, adversarial, pictures))
    return tuple(found)


def counted(changes_: Iterable[Change]) -> Mapping[str, int]:
    """How many changes there are of each word, the gravest first."""
    words = [word(change) for change in changes_]
    return {each: words.count(each) for each in WORDS if each in words}
