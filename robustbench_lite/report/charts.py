"""Rows -> what a chart shows: accuracy against eps, one chart per model, dataset and norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..types import CLEAN, NORMS, WORST_CASE, Norm, Rate, Row
from .words import attack_name

SeriesKind = Literal["worst-case", "attack", "control"]


@dataclass(frozen=True, slots=True)
class Point:
    """Robust accuracy at one eps, with its 95 % interval and denominator."""

    eps: float
    text: str
    rate: Rate


@dataclass(frozen=True, slots=True)
class Series:
    """One curve. `slot` chooses colour and marker; it counts within the kind."""

    name: str
    kind: SeriesKind
    slot: int
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """The curves of a model on a dataset in one norm; `clean` is the point at eps 0.

    `missing`: what has no rate, in words.
    """

    model: str
    dataset: str
    norm: Norm
    clean: Point | None
    series: tuple[Series, ...]
    missing: tuple[str, ...]


def charts(rows: Sequence[Row]) -> list[Chart]:
    """One chart per model, dataset and norm: models in the order of the plan, then norms."""
    clean = {
        (row.model, row.dataset): Point(0.0, "0", row.robust_accuracy)
        for row in rows
        if row.attack == CLEAN and row.robust_accuracy is not None and row.robust_accuracy.n
    }
    groups: dict[tuple[str, str], dict[Norm, list[Row]]] = {}
    for row in rows:
        norms = groups.setdefault((row.model, row.dataset), {})
        if row.norm is not None:
            norms.setdefault(row.norm, []).append(row)
    return [
        Chart(*place, norm, clean.get(place), _series(norms[norm]), _missing(norms[norm]))
        for place, norms in groups.items()
        for norm in NORMS
        if norm in norms
    ]


def _series(rows: Sequence[Row]) -> tuple[Series, ...]:
    names: dict[tuple[SeriesKind, str], list[Point]] = {}
    for row in rows:
        kind: SeriesKind = "worst-case" if row.attack == WORST_CASE else row.role
        points = names.setdefault((kind, attack_name(row)), [])
        if row.status == "ok" and row.eps is not None and row.robust_accuracy is not None:
            points.append(Point(float(row.eps), row.eps.text, row.robust_accuracy))
    order: tuple[SeriesKind, ...] = ("worst-case", "attack", "control")
    found: list[Series] = []
    for kind in order:
        drawn = [(name, points) for (of, name), points in names.items() if of == kind and points]
        for slot, (name, points) in enumerate(drawn):
            ordered = tuple(sorted(points, key=lambda point: point.eps))
            found.append(Series("worst case" if kind == WORST_CASE else name, kind, slot, ordered))
    return tuple(found)


def _missing(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(
        f"{attack_name(row)} at eps {row.eps.text}: {row.status}"
        for row in rows
        if row.status != "ok" and row.eps is not None
    )
