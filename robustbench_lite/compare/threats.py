"""Whether two lines say the same of an attacker, and if not, what differs, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fractions import Fraction

from ..types import Json, Norm
from .side import Line, Side

_Spot = tuple[str, str, Norm | None, Fraction | None]


def differences(
    old: Line, new: Line, base: Side, head: Side, models: Mapping[str, str]
) -> list[str]:
    """What differs between two lines that stand at the same spot; of unions, member by member."""
    if not old.members and not new.members:
        return _of_values(old.threat, new.threat, base.name, head.name)
    before, now = _members(old, base, models), _members(new, head, {})
    alone = [
        f"only in {side.name}: {_name(spot)}"
        for side, here, other in ((base, before, now), (head, now, before))
        for spot in here
        if spot not in other
    ]
    if alone:
        return alone
    return [
        f"{_name(spot)}: {each}"
        for spot, line in now.items()
        for each in _of_values(before[spot].threat, line.threat, base.name, head.name)
    ]


def _members(line: Line, side: Side, models: Mapping[str, str]) -> dict[_Spot, Line]:
    wanted = set(line.members)
    found = {}
    for each in side.lines:
        if each.cell_id in wanted:
            own = each.source == each.model
            source = "" if own else models.get(each.source, each.source)
            found[each.attack, source, each.norm, each.eps.value if each.eps else None] = each
    return found


def _name(spot: _Spot) -> str:
    attack, source, norm, eps = spot
    return f"{attack}{f' (from {source})' if source else ''} {norm} {eps}"


def _of_values(old: Mapping[str, Json], new: Mapping[str, Json], base: str, head: str) -> list[str]:
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
