"""`waivers.<name>` of a suite: a finding that someone answers for, until a day."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

from ..catalogue import FINDINGS
from ..types import Json, Waiver, Where
from ..words import did_you_mean, listed
from .sections import Section, written

WAIVER_KEYS = ("finding", "model", "reason", "owner", "expires")


def read_waiver(
    name: str, where: Where, section: Section, models: Collection[str]
) -> tuple[Waiver, dict[str, Json]] | None:
    """One waiver with its resolved JSON; None after noting what is wrong with it."""
    before = len(section.problems.found)
    section.only(WAIVER_KEYS)
    for key in WAIVER_KEYS:
        section.require(key, "a waiver names the finding, the model, a reason, an owner and a day")
    finding = _known(section, "finding", FINDINGS)
    model = _known(section, "model", models)
    reason, owner = section.text("reason"), section.text("owner")
    expires = _day(section)
    if len(section.problems.found) > before or expires is None:
        return None
    waiver = Waiver(
        name=name,
        finding=finding,
        model=model,
        reason=reason or "",
        owner=owner or "",
        expires=expires,
        where=where,
    )
    return waiver, {key: written(node) for key, node in section.values.items()}


def _known(section: Section, key: str, names: Collection[str]) -> str:
    found = section.text(key) or ""
    if found and found not in names:
        helps = did_you_mean(found, names) or (f"known: {listed(names)}",)
        section.note(key, f"unknown {key} '{found}'", *helps)
    return found


def _day(section: Section) -> date | None:
    text = section.text("expires")
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        section.wrong("expires", "a day such as 2027-01-31")
        return None
