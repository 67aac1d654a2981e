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

    The second round goes through the datasets backwards, so that the last one is not read again.
    """
    names = list(plan.datasets)
    if first:
        names.sort(key=lambda name: selections[name].take or math.inf)
    groups = {name: split(cell for cell in cells if cell.dataset == name) for name in names}
    found: list[tuple[str, list[Group]]] = []
    for round_, order in ((True, names), (False, names[::-1] if first else names)):
        for name in order:
            now = [group for group in groups[name] if _holds(group, first) is round_]
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
