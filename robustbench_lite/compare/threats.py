"""Whether two lines say the same of an attacker, and if not, what differs, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from ..types import Json, Norm
from .side import Line, Side

_Spot = tuple[str, str, Norm | None, Fraction | None]


@dataclass(frozen=True, slots=True)
class Named:
    """The lines of a side by cell id; `models`: what the head calls its models."""

    side: str
    lines: Mapping[str, Line]
    models: Mapping[str, str]


def differences(old: Line, new: Line, base: Named, head: Named) -> list[str]:
    """What differs between two lines that stand at the same spot; of unions, member by member."""
    if not old.members and not new.members:
        return _of_values(old.threat, new.threat, base.side, head.side)
    before, now = _members(old, base), _members(new, head)
    alone = [
        f"only in {named.side}: {_name(spot)}"
        for named, here, other in ((base, before, now), (head, now, before))
        for spot in here
        if spot not in other
    ]
    if alone:
        return alone
    return [
        f"{_name(spot)}: {each}"
        for spot, line in now.items()
        for each in _of_values(before[spot].threat, line.threat, base.side, head.side)
    ]


def circumstances(base: Side, head: Side) -> list[str]:
    """What else differs between two measurements and moves single samples: seed and versions."""
    told = []
    for key in ("seed", "versions"):
        old, new = base.provenance.get(key), head.provenance.get(key)
        if old is not None and new is not None:
            told += _of_values({key: old}, {key: new}, base.name, head.name)
    return [f"measured otherwise: {each}" for each in told]


def _members(line: Line, named: Named) -> dict[_Spot, Line]:
    found = {}
    for each in (named.lines[name] for name in line.members):
        own = each.source == each.model
        source = "" if own else named.models.get(each.source, each.source)
        found[each.attack, source, each.norm, each.eps.value if each.eps else None] = each
    return found


def _name(spot: _Spot) -> str:
    attack, source, norm, eps = spot
    return f"{attack}{f' (from {source})' if source else ''} {norm} {eps}"


def _of_values(old: Mapping[str, Json], new: Mapping[str, Json], base: str, head: str) -> list[str]:
    if old == new:
        return []
    before, now = dict(_flat(old)), dict(_flat(new))
    return [
        f"{key} is {_text(before.get(key))} in {base} and {_text(now.get(key))} in {head}"
        for key in dict.fromkeys((*before, *now))
        if before.get(key) != now.get(key)
    ]


def _flat(value: Mapping[str, Json], path: str = "") -> Iterator[tuple[str, Json]]:
    for key, inner in value.items():
        name = f"{path}.{key}" if path else key
        if isinstance(inner, Mapping):
            yield from _flat(inner, name)
        else:
            yield name, json.loads(json.dumps(inner))  # tuples and lists are alike


def _text(value: Json) -> str:
    return "not set" if value is None else json.dumps(value)
