"""Rows and tallies -> what a chart shows: accuracy against eps, distances of what was broken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..types import CLEAN, NORMS, WORST_CASE, Norm, Rate, Row
from .tallies import Place, Tally
from .words import attack_name

SeriesKind = Literal["worst-case", "attack", "control"]
KINDS: tuple[SeriesKind, ...] = ("worst-case", "attack", "control")
MOST_STEPS = 60  # of a distance curve


@dataclass(frozen=True, slots=True)
class Point:
    """Robust accuracy at one eps, with its 95 % interval and denominator."""

    eps: float
    text: str
    rate: Rate


@dataclass(frozen=True, slots=True)
class Series:
    """One curve. `slot` chooses its look, the same for an attack everywhere on the page.

    `attack`: the entry of the suite, "" for the worst case.
    """

    name: str
    kind: SeriesKind
    slot: int
    points: tuple[Point, ...]
    attack: str = ""


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

    @property
    def single(self) -> str:
        """The text of the eps if only one was measured, else ""."""
        texts = {point.text for series in self.series for point in series.points}
        return next(iter(texts)) if len(texts) == 1 else ""


def slots(rows: Iterable[Row]) -> dict[str, int]:
    """Attack with its source -> its look; attacks and controls count apart, in the plan's order."""
    attacks: dict[str, int] = {}
    controls: dict[str, int] = {}
    for row in rows:
        if row.norm in NORMS and row.attack != WORST_CASE:
            of = controls if row.role == "control" else attacks
            of.setdefault(attack_name(row), len(of))
    return controls | attacks


def charts(rows: Sequence[Row]) -> list[Chart]:
    """One chart per model, dataset and norm: models in the order of the plan, then norms."""
    clean = {
        (row.model, row.dataset): Point(0.0, "0", row.robust_accuracy)
        for row in rows
        if row.attack == CLEAN and row.robust_accuracy is not None and row.robust_accuracy.n
    }
    groups: dict[Place, dict[Norm, list[Row]]] = {}
    for row in rows:
        norms = groups.setdefault((row.model, row.dataset), {})
        if row.norm is not None:
            norms.setdefault(row.norm, []).append(row)
    looks = slots(rows)
    return [
        Chart(*place, norm, clean.get(place), _series(norms[norm], looks), _missing(norms[norm]))
        for place, norms in groups.items()
        for norm in NORMS
        if norm in norms
    ]


def _series(rows: Sequence[Row], looks: Mapping[str, int]) -> tuple[Series, ...]:
    found: dict[tuple[SeriesKind, str], tuple[str, list[Point]]] = {}
    for row in rows:
        worst = row.attack == WORST_CASE
        kind: SeriesKind = "worst-case" if worst else row.role
        name = "worst case" if worst else attack_name(row)
        _, points = found.setdefault((kind, name), ("" if worst else row.attack, []))
        if row.status == "ok" and row.eps is not None and row.robust_accuracy is not None:
            points.append(Point(float(row.eps), row.eps.text, row.robust_accuracy))
    return tuple(
        Series(name, kind, looks.get(name, 0), tuple(sorted(points, key=_eps)), attack)
        for wanted in KINDS
        for (kind, name), (attack, points) in found.items()
        if kind == wanted and points
    )


def _eps(point: Point) -> float:
    return point.eps


def _missing(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(
        f"{attack_name(row)} at eps {row.eps.text}: {row.status}"
        for row in rows
        if row.status != "ok" and row.eps is not None
    )


@dataclass(frozen=True, slots=True)
class Staircase:
    """One minimal-norm attack: the share that is still right at every distance that it found.

    `steps`: (distance, share) from distance 0, thinned; the share holds up to the next distance.
    `quartiles`: of the distances of the `broken` samples, empty without one.
    """

    name: str
    attack: str
    slot: int
    n: int
    broken: int
    steps: tuple[tuple[float, float], ...]
    quartiles: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Distances:
    """The minimal-norm attacks on a model and dataset in one norm, up to the radius `reach`."""

    model: str
    dataset: str
    norm: Norm
    reach: float
    reach_text: str
    stairs: tuple[Staircase, ...]


def distances(found: Mapping[str, Tally], looks: Mapping[str, int]) -> list[Distances]:
    """Per model, dataset and norm, from the cell of the largest eps of each attack's grid."""
    widest: dict[tuple[Place, Norm], dict[str, Tally]] = {}
    for tally in found.values():
        row = tally.row
        if row.kind != "minimal-norm" or row.eps is None or row.norm not in NORMS:
            continue
        group = widest.setdefault(((row.model, row.dataset), row.norm), {})
        other = group.get(attack_name(row))
        if other is None or float(other.row.eps or 0) < float(row.eps):
            group[attack_name(row)] = tally
    return [_distances(place, norm, group, looks) for (place, norm), group in widest.items()]


def _distances(
    place: Place, norm: Norm, group: Mapping[str, Tally], looks: Mapping[str, int]
) -> Distances:
    last = max((tally.row.eps for tally in group.values() if tally.row.eps), key=float)
    stairs = tuple(_staircase(name, tally, looks.get(name, 0)) for name, tally in group.items())
    return Distances(*place, norm, float(last), last.text, stairs)


def _staircase(name: str, tally: Tally, slot: int) -> Staircase:
    correct = int(tally.classes[:, 2].sum())
    n, broken = tally.row.n, len(tally.distances)
    kept = _thinned(tally.distances)
    steps = [(0.0, correct / n), *((float(d), (correct - below) / n) for d, below in kept)]
    quartiles = np.quantile(tally.distances, (0.25, 0.5, 0.75)) if broken else ()
    return Staircase(
        name, tally.row.attack, slot, n, broken, tuple(steps), tuple(float(q) for q in quartiles)
    )


def _thinned(sorted_distances: NDArray[np.float64]) -> list[tuple[float, int]]:
    """At most MOST_STEPS (distance, samples broken within it), the last one kept."""
    n = len(sorted_distances)
    at = np.unique(np.linspace(0, n - 1, min(n, MOST_STEPS)).round().astype(np.int64))
    return [(float(sorted_distances[index]), int(index) + 1) for index in at]
