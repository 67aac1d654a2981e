"""Changes without a distance, such as fog or a rotation: robust accuracy by attack and strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..types import NO_NORM, WORST_CASE, Row
from .tallies import Place
from .words import attack_name


@dataclass(frozen=True, slots=True)
class Strengths:
    """A line per attack, a column per strength of the suite; None where it was not asked."""

    model: str
    dataset: str
    texts: tuple[str, ...]
    lines: tuple[tuple[str, str, tuple[Row | None, ...]], ...]


def strengths(rows: Sequence[Row]) -> list[Strengths]:
    """One table per model and dataset that has such rows; a family's own row stands among them."""
    places: dict[Place, list[Row]] = {}
    for row in rows:
        if row.norm == NO_NORM and row.eps is not None and row.attack != WORST_CASE:
            places.setdefault((row.model, row.dataset), []).append(row)
    return [_table(place, group) for place, group in places.items()]


def _table(place: Place, rows: Sequence[Row]) -> Strengths:
    texts = {row.eps.value: row.eps.text for row in rows if row.eps}
    columns = sorted(texts)
    lines: dict[tuple[str, str], dict[object, Row]] = {}
    for row in rows:
        if row.eps is not None:
            lines.setdefault((attack_name(row), row.attack), {})[row.eps.value] = row
    return Strengths(
        *place,
        tuple(texts[value] for value in columns),
        tuple(
            (name, entry, tuple(by_value.get(value) for value in columns))
            for (name, entry), by_value in lines.items()
        ),
    )
