"""What must hold: the `gates` of a suite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

from ..metrics import (
    AXES,
    CLEAN_ACCURACY,
    CONFIDENCE,
    DISTANCE,
    METRICS,
    PAIRED,
    RATES,
    WORST,
)
from ..types import NO_NORM, THREATS, AttackEntry, Eps, Evaluation, Gate, Json, Norm, Where
from ..words import did_you_mean, listed
from .attacks import ALL
from .rules import Names
from .sections import Section, known, radius, written

GATE_KEYS = (
    "metric", "model", "dataset", "attack", "norm", "eps", "min", "max", "max_drop", "baseline",
    "confidence", "for_each", "per_class", "min_samples", "allow_partial", "sequential",
)  # fmt: skip
TABLE_GATE_KEYS = ("analysis",)
VERDICT = "verdict"  # column of an analysis' table that a gate may judge
DEFAULT_CONFIDENCE = 0.95


def read_gate(
    name: str, where: Where, section: Section, names: Names, evaluations: Sequence[Evaluation]
) -> tuple[Gate, dict[str, Json]] | None:
    """`gates.<name>` with its resolved JSON; None after noting what is wrong with it."""
    before = len(section.problems.found)
    if "analysis" in section.values:
        return _table_gate(name, where, section, names)
    section.only(GATE_KEYS)
    section.require("metric", f"one of {listed(METRICS)}")
    metric = section.choice("metric", METRICS) or ""
    gate = Gate(
        name=name,
        metric=metric,
        model=known(section, "model", names.models),
        dataset=known(section, "dataset", names.datasets),
        attack=known(section, "attack", (*names.attack_names, ALL)),
        norm=_norm(section),
        eps=_eps(section),
        minimum=_bound(section, "min", metric),
        maximum=_bound(section, "max", metric),
        confidence=_confidence(section),
        where=where,
        sequential=section.flag("sequential") or False,
        max_drop=section.share("max_drop"),
        baseline=_baseline(section),
        for_each=_axes(section),
        per_class=section.flag("per_class") or False,
        min_samples=section.integer("min_samples", least=1),
        allow_partial=section.flag("allow_partial") or False,
    )
    _check_limits(section, gate)
    _check_metric(section, gate)
    _check_options(section, gate)
    if len(section.problems.found) > before:
        return None
    _check_selection(section, gate, names, evaluations)
    if len(section.problems.found) > before:
        return None
    given = {key: written(node) for key, node in section.values.items()}
    return gate, {**given, "confidence": given.get("confidence", DEFAULT_CONFIDENCE)}


def _table_gate(
    name: str, where: Where, section: Section, names: Names
) -> tuple[Gate, dict[str, Json]] | None:
    """A gate on the verdicts in the table of an analysis."""
    before = len(section.problems.found)
    section.only(TABLE_GATE_KEYS)
    analysis = known(section, "analysis", names.analyses)
    if analysis is None or len(section.problems.found) > before:
        return None
    gate = Gate(
        name=name,
        metric=VERDICT,
        model=None,
        dataset=None,
        attack=None,
        norm=None,
        eps=None,
        minimum=None,
        maximum=None,
        confidence=DEFAULT_CONFIDENCE,
        where=where,
        analysis=analysis,
    )
    return gate, {"analysis": analysis}


# ---------------------------------------------------------------- values


def _norm(section: Section) -> Norm | None:
    found = section.choice("norm", THREATS)
    return next((norm for norm in THREATS if norm == found), None)


def _eps(section: Section) -> Eps | None:
    node = section.values.get("eps")
    if node is None:
        return None
    eps = radius(node)
    if isinstance(eps, str):
        section.note("eps", eps)
        return None
    return eps


def _confidence(section: Section) -> float:
    before = len(section.problems.found)
    confidence = section.share("confidence")
    if confidence is None or len(section.problems.found) > before:
        return DEFAULT_CONFIDENCE
    if not 0.5 < confidence < 1:
        found = section.values["confidence"].shown
        section.note("confidence", f"expected a number between 0.5 and 1, found {found}")
    return confidence


def _bound(section: Section, key: str, metric: str) -> float | None:
    """A share; for a distance any number that is not negative."""
    if metric != DISTANCE:
        return section.share(key)
    node = section.values.get(key)
    if node is None:
        return None
    value = node.value
    if not isinstance(value, int | float | Fraction) or isinstance(value, bool):
        section.wrong(key, "a distance such as 0.5 or 8/255")
    elif not 0 <= value < math.inf:
        section.note(key, f"expected a distance of at least 0, found {node.shown}")
    else:
        return float(value)
    return None


def _baseline(section: Section) -> Path | None:
    text = section.text("baseline")
    return None if text is None else section.values["baseline"].base / text


def _axes(section: Section) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for item in section.items("for_each"):
        if item.value not in AXES:
            helps = did_you_mean(item.text, AXES) or (f"known: {listed(AXES)}",)
            message = f"{item.shown} is nothing that gates can be counted by"
            section.problems.note(item.where, section.at("for_each"), message, *helps)
        elif item.text in found:
            message = f"'{item.text}' stands twice"
            section.problems.note(item.where, section.at("for_each"), message)
        found[item.text] = None
    return tuple(found)


# ---------------------------------------------------------------- what fits together


def _check_limits(section: Section, gate: Gate) -> None:
    if not section.values.keys() & {"min", "max", "max_drop"}:
        section.note("min", "missing; a gate needs min, max or max_drop")
    elif gate.minimum is not None and gate.maximum is not None and gate.minimum > gate.maximum:
        section.note("min", f"min {gate.minimum:g} is above max {gate.maximum:g}")
    if "max_drop" in section.values:
        for key in ("min", "max"):
            if key in section.values:
                section.note(key, f"a gate with max_drop has no {key}; write a second gate for it")
        if gate.metric and gate.metric not in PAIRED:
            section.note(
                "max_drop",
                f"{gate.metric} cannot be compared sample by sample",
                f"max_drop works with {listed(PAIRED)}",
            )
    elif "baseline" in section.values:
        section.note("baseline", "only max_drop compares with a baseline; add it, or remove this")


def _check_metric(section: Section, gate: Gate) -> None:
    if gate.metric == CLEAN_ACCURACY:
        for key in ("attack", "norm", "eps"):
            if key in section.values and section.values[key].value != ALL:
                section.note(key, f"clean_accuracy is measured without an attack; remove '{key}'")
    if gate.metric == WORST and gate.attack not in (None, ALL):
        section.note(
            "attack",
            "the worst case is over all attacks; remove 'attack'",
            "for one attack use robust_accuracy",
        )
    if gate.metric == DISTANCE and gate.norm is None and "norm" not in section.values:
        section.note("norm", "missing; distances of different norms have no common bound")
    if gate.metric == DISTANCE and gate.norm == NO_NORM:
        section.note("norm", "no distance is measured under 'none'; choose linf, l2, l1 or l0")


def _check_options(section: Section, gate: Gate) -> None:
    if gate.per_class and gate.metric in {CONFIDENCE, DISTANCE}:
        section.note("per_class", f"{gate.metric} is not split by class; use {listed(RATES)}")
    if gate.per_class and gate.max_drop is not None:
        section.note("per_class", "max_drop is not split by class; use min or max")
    rivals = [key for key in ("max_drop", "for_each", "per_class") if key in section.values]
    plain = gate.metric in RATES and gate.metric != "survives_uint8"
    if gate.sequential and (rivals or not plain):
        reason = f"with {rivals[0]}" if rivals else f"for {gate.metric}"
        section.note("sequential", f"a gate cannot stop early {reason}")


def _check_selection(
    section: Section, gate: Gate, names: Names, evaluations: Sequence[Evaluation]
) -> None:
    """Note a gate that selects nothing: it could never pass."""
    lines = [
        line
        for line in evaluations
        if gate.model in (None, line.model) and gate.dataset in (None, line.dataset)
    ]
    if evaluations and not lines:
        key = "model" if gate.model is not None else "dataset"
        section.note(key, "no line of `evaluate` has this model and dataset")
    selected = {name for line in lines for name in line.attacks}
    if gate.attack not in (None, ALL):
        if lines and gate.attack not in selected:
            section.note("attack", f"attack '{gate.attack}' is not evaluated here")
        selected &= {str(gate.attack)}
    if gate.metric == CLEAN_ACCURACY or not selected <= names.attacks.keys():
        return
    grids = [names.attacks[name] for name in names.attack_names if name in selected]
    if lines and not grids:
        section.note("metric", f"{gate.metric} needs an attack; none is evaluated here")
    in_norm = [entry for entry in grids if gate.norm in (None, entry.norm)]
    if grids and not in_norm:
        found = listed(sorted({entry.norm for entry in grids}))
        section.note("norm", f"no selected attack has norm {gate.norm}; there are: {found}")
    elif gate.eps is not None and in_norm:
        _check_eps(section, gate.eps, in_norm)


def _check_eps(section: Section, eps: Eps, entries: Iterable[AttackEntry]) -> None:
    grid = {each.value: each.text for entry in entries for each in entry.eps}
    if eps.value not in grid:
        there = listed(grid[value] for value in sorted(grid))
        section.note("eps", f"no selected attack has eps {eps.text}; there are: {there}")
