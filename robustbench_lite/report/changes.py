"""Two runs compared, as text, Markdown and JSON: one line per number that both have."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ..types import Change, Comparison, Json
from .markdown import changed_lines, escaped
from .outcome import (
    HEAD,
    RIGHT,
    SURE,
    TITLE,
    cells,
    compared,
    judged,
    names,
    sentence,
    surely,
)
from .terminal import Grid, aligned, rich_table
from .words import plain

if TYPE_CHECKING:
    from rich.console import Console

MOST_NAMED = 20  # lines whose samples are named
MOST_LINES = 500  # of a Markdown table: a CI summary page is cut at 1 MiB


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


def _grid(comparison: Comparison) -> Grid:
    shown = compared(comparison)
    return Grid(
        title=TITLE,
        head=HEAD,
        rows=tuple(tuple(map(plain, cells(said, each))) for said, each in shown),
        right=RIGHT,
        marks=frozenset(at for at, (said, _) in enumerate(shown) if said in SURE),
    )


def _notes(comparison: Comparison) -> list[str]:
    """Which samples broke and were fixed, what could not be compared, what only one has."""
    found = []
    named = [each for _, each in compared(comparison) if each.newly_broken or each.newly_fixed]
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


def markdown(comparison: Comparison) -> str:
    """The comparison as Markdown; every name is escaped."""
    parts = [
        f"# {escaped(comparison.head)} against {escaped(comparison.base)}",
        escaped(sentence(comparison)),
        *changed_lines(compared(comparison), MOST_LINES),
        "\n".join(f"- {escaped(note)}" for note in _notes(comparison) if note),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_json(comparison: Comparison) -> dict[str, Json]:
    """Everything, each change with its corrected p-value `p_holm` and `word`."""
    p = surely(comparison)
    return {
        "base": comparison.base,
        "head": comparison.head,
        "sentence": sentence(comparison),
        "changes": [
            _record(said, change, p.get(change.head_cell)) for said, change in judged(comparison)
        ],
        "unmatched": list(comparison.unmatched),
    }


def _record(said: str, change: Change, corrected: float | None) -> dict[str, Json]:
    record = {f.name: getattr(change, f.name) for f in dataclasses.fields(change)}
    for side in ("base", "head"):
        rate = getattr(change, side)
        record[side] = None if rate is None else dataclasses.asdict(rate)
    record["eps"] = None if change.eps is None else float(change.eps)
    record["eps_text"] = None if change.eps is None else change.eps.text
    record["newly_broken"] = list(change.newly_broken)
    record["newly_fixed"] = list(change.newly_fixed)
    record["p_holm"] = corrected
    record["word"] = said
    return record
