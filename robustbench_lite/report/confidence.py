"""How sure a model is of its mistakes, attack by attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from ..types import CLEAN, Role
from .svg import at, short, tag
from .tallies import Place, Tally
from .words import attack_name, budget, percent

WIDTH, LINE, TOP = 460, 26, 22
LEFT, RIGHT = 8, 12


@dataclass(frozen=True, slots=True)
class Strip:
    """Quantiles (10, 25, 50, 75, 90 %) of the confidence in the wrong decisions of one cell."""

    name: str
    attack: str
    role: Role
    budget: str
    mistakes: int
    quantiles: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Confidence:
    """The mistakes of a model: on clean inputs, and under each attack at its largest budget."""

    model: str
    dataset: str
    strips: tuple[Strip, ...]


def confidence(found: Mapping[str, Tally]) -> list[Confidence]:
    """One per model and dataset with a wrong decision; clean first, then attacks, then controls."""
    largest: dict[Place, dict[str, Tally]] = {}
    for tally in found.values():
        group = largest.setdefault((tally.row.model, tally.row.dataset), {})
        other = group.get(attack_name(tally.row))
        if other is None or float(tally.row.eps or 0) > float(other.row.eps or 0):
            group[attack_name(tally.row)] = tally
    every = [Confidence(*place, _strips(group)) for place, group in largest.items()]
    return [each for each in every if any(strip.mistakes for strip in each.strips)]


def _strips(group: Mapping[str, Tally]) -> tuple[Strip, ...]:
    strips = [
        Strip(
            "clean inputs" if tally.row.attack == CLEAN else name,
            "" if tally.row.attack == CLEAN else tally.row.attack,
            tally.row.role,
            budget(tally.row) if tally.row.eps else "",
            tally.mistakes,
            tally.confidence,
        )
        for name, tally in group.items()
    ]
    return tuple(sorted(strips, key=lambda strip: (strip.attack != "", strip.role == "control")))


def strip_picture(strip: Strip) -> Markup:
    """10 to 90 % of the mistakes as a line, the middle half as a bar, the median as a tick."""
    if not strip.quantiles:
        return Markup("")
    p10, p25, p50, p75, p90 = strip.quantiles
    said = (
        f"{strip.name}: half of {strip.mistakes:,} mistakes above {percent(p50, 0)},"
        f" the middle half from {percent(p25, 0)} to {percent(p75, 0)}"
    )
    style = "control" if strip.role == "control" else "attack"
    return tag(
        "svg",
        tag("title", said),
        tag("path", d="M0 10H200", class_="rail"),
        tag("path", d=f"M{at(200 * p10, 10)}H{short(200 * p90)}", class_=f"thin {style}"),
        tag("path", d=f"M{at(200 * p25, 10)}H{short(200 * p75)}", class_=f"thick {style}"),
        tag("path", d=f"M{at(200 * p50, 2)}v16", class_="median"),
        viewBox="-2 0 204 20",
        role="img",
        class_="strip pt",
    )
