"""Three-valued: limits that clear every bound, limits that miss one, or neither.

Where a gate is several claims (`for_each`, `per_class`), Holm's procedure keeps the chance that any
of them is passed wrongly below the gate's error, and likewise the chance that any is failed
wrongly. Rows that one claim covers are judged together: it passes if each of them does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..metrics import DIFFERENCE, PAIRED
from ..stats import holm_levels
from ..types import Gate, GateStatus
from .claims import Claim, Lack
from .evidence import Drop, Evidence

_SMALLEST = 1e-9  # errors below it are as good as none
_LARGEST = 0.499
_STEPS = 30  # of bisecting the error on a logarithmic scale


class Levels(NamedTuple):
    """The error that a row may spend on being passed wrongly, and on being failed wrongly."""

    passing: float
    failing: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What follows for one claim."""

    status: GateStatus
    reason: str
    value: float
    low: float
    high: float
    n: int
    needed: int | None
    newly_broken: tuple[str, ...]


def bounds(gate: Gate) -> tuple[float | None, float | None]:
    """Floor and ceiling; a tolerated drop is a floor on the difference."""
    if gate.max_drop is not None:
        return -gate.max_drop, None
    return gate.minimum, gate.maximum


def threshold(gate: Gate) -> str:
    """The bounds as text, "" if the gate has none that it could decide on."""
    if gate.max_drop is not None:
        return f"{DIFFERENCE} >= {-gate.max_drop:.6g}" if gate.metric in PAIRED else ""
    signs = ((">=", gate.minimum), ("<=", gate.maximum))
    return ", ".join(f"{sign} {bound:.6g}" for sign, bound in signs if bound is not None)


# ---------------------------------------------------------------- one claim


def decide(gate: Gate, evidence: Evidence, levels: Levels) -> Decision:
    """PASS, FAIL or INCONCLUSIVE at these levels, with the limits that say so."""
    if _passes(gate, evidence, levels.passing):
        status: GateStatus = "PASS"
    else:
        status = "FAIL" if _fails(gate, evidence, levels.failing) else "INCONCLUSIVE"
    below, above = _shown(gate, status, levels)
    low, high = evidence.low(1 - below), evidence.high(1 - above)
    needed = _needed(gate, evidence, levels, low, high) if status == "INCONCLUSIVE" else None
    return Decision(
        status=status,
        reason=_reason(gate, evidence, status, low, high),
        value=evidence.value,
        low=low,
        high=high,
        n=evidence.n,
        needed=needed,
        newly_broken=evidence.newly_broken,
    )


def _passes(gate: Gate, evidence: Evidence, error: float) -> bool:
    floor, ceiling = bounds(gate)
    above = floor is None or evidence.low(1 - error) >= floor
    return above and (ceiling is None or evidence.high(1 - error) <= ceiling)


def _fails(gate: Gate, evidence: Evidence, error: float) -> bool:
    floor, ceiling = bounds(gate)
    below = floor is not None and evidence.high(1 - error) < floor
    return below or (ceiling is not None and evidence.low(1 - error) > ceiling)


def _shown(gate: Gate, status: GateStatus, levels: Levels) -> tuple[float, float]:
    """The errors of the two limits that a result carries: those that its status rests on."""
    floor, ceiling = bounds(gate)
    if floor is not None and ceiling is not None:
        error = levels.passing if status == "PASS" else levels.failing
        return error, error
    return levels if floor is not None else (levels.failing, levels.passing)


def _reason(gate: Gate, evidence: Evidence, status: GateStatus, low: float, high: float) -> str:
    if isinstance(evidence, Drop):
        return _reason_of_drop(gate, evidence, status, low, high)
    floor, ceiling = bounds(gate)
    least, most = f"at least {evidence.shown(low)}", f"at most {evidence.shown(high)}"
    if status == "INCONCLUSIVE":
        return f"between {evidence.shown(low)} and {evidence.shown(high)}: too wide to decide"
    if status == "PASS":
        return ", ".join(([] if floor is None else [least]) + ([] if ceiling is None else [most]))
    if floor is not None and high < floor:
        return f"{most}, below the floor of {_bound(evidence, floor)}"
    assert ceiling is not None
    return f"{least}, above the ceiling of {_bound(evidence, ceiling)}"


def _bound(evidence: Evidence, bound: float) -> str:
    """As the user wrote it: `80 %` where a measured rate would be `80.00 %`."""
    return f"{100 * bound:.6g} %" if "%" in evidence.shown(bound) else evidence.shown(bound)


def _reason_of_drop(gate: Gate, drop: Drop, status: GateStatus, low: float, high: float) -> str:
    said = {
        "PASS": f"at worst {drop.shown(low)} against the baseline",
        "FAIL": f"at best {drop.shown(high)} against the baseline",
    }.get(status, f"between {drop.shown(low)} and {drop.shown(high)} against the baseline")
    allowed = f"{-100 * (gate.max_drop or 0):.6g} allowed"
    open_ = ": too wide to decide" if status == "INCONCLUSIVE" else ""
    return f"{said}, {allowed}{open_}; {drop.names()}"


def _needed(gate: Gate, evidence: Evidence, levels: Levels, low: float, high: float) -> int | None:
    """Samples that would decide every bound that lies inside the limits, if any number can."""
    confidence = 1 - min(levels)
    open_bounds = [each for each in bounds(gate) if each is not None and low <= each <= high]
    counts = [evidence.needed(bound, confidence) for bound in open_bounds]
    known = [count for count in counts if count is not None]
    if not known or len(known) < len(counts):
        return None
    return max(*known, evidence.n + 1)


# ---------------------------------------------------------------- families of claims


def levels_of(gate: Gate, claims: Sequence[Claim]) -> list[Levels]:
    """The error that each claim's rows may spend, in the order of `claims`."""
    error = 1 - gate.confidence
    if not gate.for_each and not gate.per_class:
        return [Levels(error, error)] * len(claims)
    groups: dict[tuple[str, ...], list[int]] = {}
    for at, claim in enumerate(claims):
        groups.setdefault(_key(gate, claim, at), []).append(at)
    members = list(groups.values())
    passing = [max(_error(claims[at], gate, _passes) for at in group) for group in members]
    failing = [
        min(1.0, len(group) * min(_error(claims[at], gate, _fails) for at in group))
        for group in members
    ]
    pass_levels, fail_levels = holm_levels(passing, error), holm_levels(failing, error)
    found = [Levels(error, error)] * len(claims)
    for group, passes, fails in zip(members, pass_levels, fail_levels, strict=True):
        for at in group:
            found[at] = Levels(passes, fails / len(group))
    return found


def _key(gate: Gate, claim: Claim, at: int) -> tuple[str, ...]:
    """Rows of equal key are one claim; with classes alone, each is one of its own."""
    if not gate.for_each:
        return (str(at),)
    eps = str(claim.row.eps.value) if claim.row.eps else ""
    axes = tuple(eps if axis == "eps" else str(getattr(claim.row, axis)) for axis in gate.for_each)
    return (*axes, "" if claim.label is None else str(claim.label))


def _error(claim: Claim, gate: Gate, holds: Callable[[Gate, Evidence, float], bool]) -> float:
    """The smallest error at which it holds: a p-value. 1 where it never does."""
    evidence = claim.evidence
    if isinstance(evidence, Lack) or not holds(gate, evidence, _LARGEST):
        return 1.0
    if holds(gate, evidence, _SMALLEST):
        return _SMALLEST
    small, large = math.log(_SMALLEST), math.log(_LARGEST)
    for _ in range(_STEPS):
        middle = (small + large) / 2
        small, large = (
            (small, middle) if holds(gate, evidence, math.exp(middle)) else (middle, large)
        )
    return math.exp(large)
