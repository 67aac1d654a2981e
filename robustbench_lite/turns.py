"""The order of the work: datasets in turn, and in each the groups that gates need first."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from .group import Group, split
from .types import Cell, Plan, Selection


def turns(
    plan: Plan,
    cells: Sequence[Cell],
    selections: Mapping[str, Selection],
    first: Collection[str],
) -> list[tuple[str, list[Group]]]:
    """The datasets in turn with their groups; those with a cell of `first` before all others.

    The second round begins with the dataset that the first one ended on: it is not read again.
    """
    names = list(plan.datasets)
    if first:
        names.sort(key=lambda name: selections[name].take or math.inf)
    groups = {name: split(cell for cell in cells if cell.dataset == name) for name in names}
    found: list[tuple[str, list[Group]]] = []
    for before in (True, False):
        last = found[-1][0] if found else ""
        for name in sorted(names, key=lambda name: name != last):
            now = [group for group in groups[name] if _holds(group, first) is before]
            if found and found[-1][0] == name:
                found[-1][1].extend(now)
            elif now:
                found.append((name, now))
    return found


def _holds(group: Group, first: Collection[str]) -> bool:
    return any(cell.id in first for cell in group.cells)


def models(groups: Sequence[Group]) -> set[str]:
    """Names of the models and sources of some groups."""
    return {name for group in groups for c in group.cells for name in (c.model, c.source)}
