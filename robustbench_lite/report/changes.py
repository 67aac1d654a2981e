"""Two runs compared, as text, Markdown and JSON: one line per number that both have."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..stats import holm
from ..types import Change, Comparison, Json
from .markdown import escaped
from .terminal import Grid, aligned, rich_table
from .words import NOTHING, percent, plain

if TYPE_CHECKING:
    from rich.console import Console

CHANCE = 0.05  # error of saying that anything changed, over all lines together (Holm)
NAMED = 8  # sample ids of a line that are named before they are only counted
MOST_NAMED = 20  # lines whose samples are named
MOST_LINES = 500  # of a Markdown table: a CI summary page is cut at 1 MiB
HEAD = ("what", "base", "head", "difference [95 %]", "broken", "fixed", "p", "n")
RIGHT = frozenset({1, 2, 3, 4, 5, 6, 7})


def surely(comparison: Comparison) -> dict[str, float]:
    """Head cell -> p-value of its change, corrected for how many there are (Holm)."""
    tested = [each for each in comparison.changes if each.p_value is not None]
    corrected = holm([each.p_value or 0.0 for each in tested])
    return {each.head_cell: p for each, p in zip(tested, corrected, strict=True)}


def sentence(comparison: Comparison) -> str:
    """How many numbers changed by more than chance explains."""
    p = surely(comparison)
    sure = [each for each in _compared(comparison) if p[each.head_cell] <= CHANCE]
    worse = sum((each.difference or 0) < 0 for each in sure)
    alike = len(p) - len(sure)
    sizes = sorted({each.n for each in _compared(comparison)})
    spread = " to ".join(f"{n:,}" for n in dict.fromkeys((*sizes[:1], *sizes[-1:])))
    return (
        f"{comparison.head} against {comparison.base}, {len(p)} compared on {spread} samples of"
        f" both: {worse} worse, {len(sure) - worse} better, {alike} within chance"
        f" (McNemar, Holm over all at {CHANCE:g})."
    )


def lines(comparison: Comparison) -> list[str]:
    """As plain lines, ASCII but for the user's own names."""
    return [*aligned(_grid(comparison)), "", *_notes(comparison), plain(sentence(comparison))]


def render(comparison: Comparison, console: Console) -> None:
    """Print it: a rich table on a terminal, plain aligned lines elsewhere."""
    if not console.is_terminal:
        for line in lines(comparison):
            console.out(line, highlight=False)
        return
    from rich.text import Text

    console.print(rich_table(_grid(comparison)))
    for note in _notes(comparison):
        console.print(Text(note))
    console.print(Text(plain(sentence(comparison)), style="bold"))


def _compared(comparison: Comparison) -> list[Change]:
    return [each for each in comparison.changes if not each.reason]


def _grid(comparison: Comparison) -> Grid:
    p = surely(comparison)
    shown = _compared(comparison)
    sure = {at for at, each in enumerate(shown) if p[each.head_cell] <= CHANCE}
    return Grid(
        title="right in both: correct and unbroken, of the samples that both runs have",
        head=HEAD,
        rows=tuple(tuple(map(plain, cells(each))) for each in shown),
        right=RIGHT,
        marks=frozenset(sure),
    )


def cells(change: Change) -> tuple[str, ...]:
    """A comparable change as the cells of a table under `HEAD`."""
    assert change.base is not None
    assert change.head is not None
    return (
        change.subject,
        percent(change.base.value),
        percent(change.head.value),
        points(change),
        f"{len(change.newly_broken):,}",
        f"{len(change.newly_fixed):,}",
        probability(change.p_value),
        f"{change.n:,}",
    )


def points(change: Change) -> str:
    """`-1.2 [-2.0, -0.4]`, in points of a percentage, or a dash."""
    if change.difference is None or change.low is None or change.high is None:
        return NOTHING
    low, high = 100 * change.low, 100 * change.high
    return f"{100 * change.difference:+.1f} [{low:+.1f}, {high:+.1f}]"


def probability(p: float | None) -> str:
    """A p-value: `0.031`, `< 0.001`, or a dash."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _notes(comparison: Comparison) -> list[str]:
    """Which samples broke and were fixed, what could not be compared, what only one has."""
    found = []
    named = [each for each in _compared(comparison) if each.newly_broken or each.newly_fixed]
    for change in named[:MOST_NAMED]:
        for word, ids in (("broken", change.newly_broken), ("fixed", change.newly_fixed)):
            if ids:
                found.append(plain(f"newly {word}, {change.subject}: {names(ids)}"))
    if len(named) > MOST_NAMED:
        found.append(f"{len(named) - MOST_NAMED} more lines have such samples; -f json names all")
    found += [
        plain(f"not compared, {each.subject}: {each.reason}")
        for each in comparison.changes
        if each.reason
    ]
    found += [plain(each) for each in comparison.unmatched]
    return [*found, ""] if found else []


def names(ids: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(ids) - NAMED:,} more" if len(ids) > NAMED else ""
    return f"{', '.join(ids[:NAMED])}{more}"


def markdown(comparison: Comparison) -> str:
    """The comparison as Markdown; every name is escaped."""
    p = surely(comparison)
    shown = _compared(comparison)
    kept = shown[:MOST_LINES]
    rule = ["---:" if at in RIGHT else "---" for at in range(len(HEAD))]
    table = [f"| {' | '.join(HEAD)} |", f"| {' | '.join(rule)} |"]
    for change in kept:
        strong = "**" if p[change.head_cell] <= CHANCE else ""
        what, *numbers = map(escaped, cells(change))
        table.append(f"| {strong}{what}{strong} | {' | '.join(numbers)} |")
    parts = [
        f"# {escaped(comparison.head)} against {escaped(comparison.base)}",
        escaped(sentence(comparison)),
        "\n".join(table),
        *([f"{len(shown) - len(kept):,} more are left out."] if len(shown) > len(kept) else []),
        "\n".join(f"- {escaped(note)}" for note in _notes(comparison) if note),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_json(comparison: Comparison) -> dict[str, Json]:
    """Everything, each change with its corrected p-value `p_holm`."""
    p = surely(comparison)
    return {
        "base": comparison.base,
        "head": comparison.head,
        "sentence": sentence(comparison),
        "changes": [_record(change, p.get(change.head_cell)) for change in comparison.changes],
        "unmatched": list(comparison.unmatched),
    }


def _record(change: Change, corrected: float | None) -> dict[str, Json]:
    record = {f.name: getattr(change, f.name) for f in dataclasses.fields(change)}
    for side in ("base", "head"):
        rate = getattr(change, side)
        record[side] = None if rate is None else dataclasses.asdict(rate)
    record["eps"] = None if change.eps is None else float(change.eps)
    record["eps_text"] = None if change.eps is None else change.eps.text
    record["newly_broken"] = list(change.newly_broken)
    record["newly_fixed"] = list(change.newly_fixed)
    record["p_holm"] = corrected
    return record
