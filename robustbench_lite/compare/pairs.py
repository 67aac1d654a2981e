"""Two sides, line by line on the samples of both: counts, exact test, limits, names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import paired, stats
from ..bits import Mask
from ..errors import UsageError
from ..types import CLEAN, NO_NORM, Change, Comparison, Norm, Rate
from ..words import listed
from .side import Line, Pool, Side
from .threats import Named, circumstances, differences

FEWEST = 0.5  # of the smaller side's samples: below it the two are other data
_NAMED = 3  # reasons that a refusal tells before it only counts them


class _Spot(NamedTuple):
    """Where a line stands, in the names of the head; `source` is "" for white box and unions."""

    model: str
    dataset: str
    attack: str
    source: str
    norm: Norm | None
    eps: Fraction | None


@dataclass(frozen=True, slots=True)
class _Common:
    """The samples that both sides have of a dataset: their positions in either pool."""

    base: NDArray[np.int64]
    head: NDArray[np.int64]
    ids: NDArray[np.object_]


def pair_models(
    base: Mapping[str, object], head: Mapping[str, object], named: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Base model -> head model: as `named`, else by name; a single one of each whatever its name.

    Raises UsageError where `named` names a model that is not judged there.
    """
    named = named or {}
    for old, new in named.items():
        for name, side, where in ((old, base, "base"), (new, head, "head")):
            if name not in side:
                raise UsageError(
                    f"--model {old}={new}: the {where} judges no model '{name}';"
                    f" it judges: {listed(side)}"
                )
    if len(base) == len(head) == 1 and not named:
        return dict(zip(base, head, strict=True))
    taken = {*named, *named.values()}
    return {**{name: name for name in base if name in head and name not in taken}, **named}


def compare(base: Side, head: Side, models: Mapping[str, str] | None = None) -> Comparison:
    """Every line of the head against the same line of the base, in the head's order.

    `models`: base model -> head model, where their names differ.
    """
    names = pair_models(base.models, head.models, models)
    sets = _paired_datasets(base, head)
    old = {_spot(line, names, sets): line for line in base.lines}
    new = {_spot(line, {}, {}): line for line in head.lines}
    common = {
        name: _common(base.pools[was], head.pools[name])
        for was, name in sets.items()
        if was in base.pools and name in head.pools
    }
    sides = _Sides(_named(base, names), _named(head, {}), common)
    changes = [sides.change(old[spot], line) for spot, line in new.items() if spot in old]
    alone = [
        f"only in {side.name}: {subject(line)}"
        for side, lines, other in ((base, old, new), (head, new, old))
        for spot, line in lines.items()
        if spot not in other
    ]
    return Comparison(
        base=base.name,
        head=head.name,
        changes=tuple(changes),
        unmatched=(*alone, *circumstances(base, head)),
    )


def refusal(comparison: Comparison) -> str:
    """Why nothing of the two could be compared, "" if something could."""
    if any(not change.reason for change in comparison.changes):
        return ""
    reasons: dict[str, str] = {}
    for change in comparison.changes:
        reasons.setdefault(change.reason, change.subject)
    told = [f"{where}: {reason}" for reason, where in reasons.items()] or [*comparison.unmatched]
    more = f"\n  and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    listing = "".join(f"\n  {each}" for each in told[:_NAMED])
    return f"'{comparison.base}' and '{comparison.head}' cannot be compared:{listing}{more}"


def subject(line: Line) -> str:
    """A line in words."""
    crafted = "" if line.source in (line.model, "") else f" (from {line.source})"
    if line.norm is None or line.eps is None:
        return f"{line.model} on {line.dataset}, {line.attack}"
    norm = "strength" if line.norm == NO_NORM else line.norm
    return f"{line.model} on {line.dataset}, {line.attack}{crafted} {norm} {line.eps.text}"


def _spot(line: Line, models: Mapping[str, str], sets: Mapping[str, str]) -> _Spot:
    white = line.source == line.model
    return _Spot(
        models.get(line.model, line.model),
        sets.get(line.dataset, line.dataset),
        line.attack,
        "" if white else models.get(line.source, line.source),
        line.norm,
        None if line.eps is None else line.eps.value,
    )


def _paired_datasets(base: Side, head: Side) -> dict[str, str]:
    old = dict.fromkeys(line.dataset for line in base.lines)
    new = dict.fromkeys(line.dataset for line in head.lines)
    if len(old) == len(new) == 1:
        return dict(zip(old, new, strict=True))
    return {name: name for name in old if name in new}


def _common(base: Pool, head: Pool) -> _Common:
    at = {key: position for position, key in enumerate(base.keys)}
    both = [(at[key], position) for position, key in enumerate(head.keys) if key in at]
    positions = np.array(both, dtype=np.int64).reshape(-1, 2)
    ids = np.array([head.ids[position] for _, position in both], dtype=object)
    return _Common(positions[:, 0], positions[:, 1], ids)


def _named(side: Side, models: Mapping[str, str]) -> Named:
    return Named(side.name, {line.cell_id: line for line in side.lines}, models)


@dataclass(frozen=True, slots=True)
class _Sides:
    """Two sides and the samples of both."""

    base: Named
    head: Named
    common: Mapping[str, _Common]

    def change(self, old: Line, new: Line) -> Change:
        """The head's line against the base's."""
        common = self.common.get(new.dataset)
        reason = self._reason(old, new, common)
        both = None if common is None else _seen(old, new, common)
        if reason or common is None or both is None or old.right is None or new.right is None:
            return _change(old, new, reason or "there is no per-sample table")
        before, now = old.right[common.base][both], new.right[common.head][both]
        broken, fixed = before & ~now, now & ~before
        b, c, n = int(broken.sum()), int(fixed.sum()), len(before)
        low, high = paired.interval(b, c, n)
        return _change(
            old,
            new,
            base=stats.rate(int(before.sum()), n),
            head=stats.rate(int(now.sum()), n),
            broken=tuple(sorted(common.ids[both][broken].tolist())),
            fixed=tuple(sorted(common.ids[both][fixed].tolist())),
            difference=paired.difference(b, c, n),
            limits=(low, high),
            p_value=stats.mcnemar(b, c),
        )

    def _reason(self, old: Line, new: Line, common: _Common | None) -> str:
        for line, side in ((old, self.base), (new, self.head)):
            if line.status != "ok":
                return f"{line.status} in {side.side}: {line.reason}"
        found = differences(old, new, self.base, self.head)
        if found:
            return f"the threat model differs: {'; '.join(found[:_NAMED])}"
        return self._other_data(old, new, common)

    def _other_data(self, old: Line, new: Line, common: _Common | None) -> str:
        sizes = [0 if line.seen is None else int(line.seen.sum()) for line in (old, new)]
        seen = None if common is None else _seen(old, new, common)
        both = 0 if seen is None else int(seen.sum())
        if both and both >= FEWEST * min(sizes):
            return ""
        return (
            f"the data differ: {both:,} samples are in both, of {sizes[0]:,} in {self.base.side}"
            f" and {sizes[1]:,} in {self.head.side} (by the hash of input and label)"
        )


def _seen(old: Line, new: Line, common: _Common) -> Mask | None:
    """Which of the samples of both were run for either line."""
    if old.seen is None or new.seen is None:
        return None
    return old.seen[common.base] & new.seen[common.head]


def _change(
    old: Line,
    new: Line,
    reason: str = "",
    *,
    base: Rate | None = None,
    head: Rate | None = None,
    broken: tuple[str, ...] = (),
    fixed: tuple[str, ...] = (),
    difference: float | None = None,
    limits: tuple[float | None, float | None] = (None, None),
    p_value: float | None = None,
) -> Change:
    return Change(
        subject=subject(new),
        metric="clean_accuracy" if new.attack == CLEAN else "robust_accuracy",
        model=new.model,
        dataset=new.dataset,
        attack=new.attack,
        norm=new.norm,
        eps=new.eps,
        base_cell=old.cell_id,
        head_cell=new.cell_id,
        n=base.n if base else 0,
        base=base,
        head=head,
        newly_broken=broken,
        newly_fixed=fixed,
        difference=difference,
        low=limits[0],
        high=limits[1],
        p_value=p_value,
        reason=reason,
    )
