"""What is evaluated and what must hold: the `evaluate` lines and the `gates` of a suite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..types import THREATS, AttackEntry, Eps, Evaluation, Gate, Json, Norm, Where
from ..words import did_you_mean, listed
from .attacks import ALL
from .sections import Section, radius, written

METRICS = (
    "clean_accuracy",
    "robust_accuracy",
    "worst_case_robust_accuracy",
    "attack_success_rate",
    "adversarial_error",
)
GATE_KEYS = (
    "metric", "model", "dataset", "attack", "norm", "eps", "min", "max", "confidence", "sequential",
)  # fmt: skip
TABLE_GATE_KEYS = ("analysis",)
VERDICT = "verdict"  # column of an analysis' table that a gate may judge
EVALUATE_KEYS = ("model", "dataset", "attacks")
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names that a suite declares; `attacks` holds the entries that are valid.

    `ingredients`: datasets that models are made of.
    """

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    attack_names: tuple[str, ...]
    attacks: Mapping[str, AttackEntry]
    ingredients: frozenset[str] = frozenset()
    analyses: tuple[str, ...] = ()


def read_evaluations(root: Section, names: Names) -> tuple[Evaluation, ...]:
    """The `evaluate` lines; without any, every model that is not only a source, on everything.

    A dataset that models are made of, such as their training data, is left out then.
    """
    node = root.values.get("evaluate")
    if node is None:
        return _everything(root, names)
    if not isinstance(node.value, tuple) or not node.value:
        root.wrong("evaluate", "a list of {model: ..., dataset: ..., attacks: ...}")
        return ()
    lines: list[Evaluation] = []
    for at, item in enumerate(node.value):
        line = _line(Section(item, f"evaluate.{at}", root.problems), names)
        if line is not None:
            _refuse_overlap(line, lines, root)
            lines.append(line)
    return tuple(lines)


def resolved_evaluations(evaluations: Iterable[Evaluation]) -> list[Json]:
    """The lines as JSON, `all` and the omitted form spelled out."""
    return [
        {"model": each.model, "dataset": each.dataset, "attacks": list(each.attacks)}
        for each in evaluations
    ]


def read_gate(
    name: str, where: Where, section: Section, names: Names, evaluations: Sequence[Evaluation]
) -> tuple[Gate, dict[str, Json]] | None:
    """`gates.<name>` with its resolved JSON; None after noting what is wrong with it."""
    before = len(section.problems.found)
    if "analysis" in section.values:
        return _table_gate(name, where, section, names)
    section.only(GATE_KEYS)
    section.require("metric", f"one of {listed(METRICS)}")
    metric = section.choice("metric", METRICS)
    gate = Gate(
        name=name,
        metric=metric or "",
        model=_known(section, "model", names.models),
        dataset=_known(section, "dataset", names.datasets),
        attack=_known(section, "attack", (*names.attack_names, ALL)),
        norm=_norm(section),
        eps=_eps(section),
        minimum=section.share("min"),
        maximum=section.share("max"),
        confidence=_confidence(section),
        where=where,
        sequential=section.flag("sequential") or False,
    )
    _check_limits(section, gate)
    _check_metric(section, gate)
    if len(section.problems.found) > before:
        return None
    _check_selection(section, gate, names, evaluations)
    if len(section.problems.found) > before:
        return None
    given = {key: written(node) for key, node in section.values.items()}
    return gate, {**given, "confidence": given.get("confidence", CONFIDENCE)}


def _table_gate(
    name: str, where: Where, section: Section, names: Names
) -> tuple[Gate, dict[str, Json]] | None:
    """A gate on the verdicts in the table of an analysis."""
    before = len(section.problems.found)
    section.only(TABLE_GATE_KEYS)
    analysis = _known(section, "analysis", names.analyses)
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
        confidence=CONFIDENCE,
        where=where,
        analysis=analysis,
    )
    return gate, {"analysis": analysis}


# ---------------------------------------------------------------- evaluate


def _everything(root: Section, names: Names) -> tuple[Evaluation, ...]:
    sources = {
        name for entry in names.attacks.values() for name in (entry.sources or (entry.source,))
    }
    gated = _gated_models(root)
    judged = [model for model in names.models if model not in sources or model in gated]
    if names.models and not judged:
        root.note(
            "models",
            "every model is the source of an attack, so none is left to judge",
            "say which to judge: evaluate: [{model: ..., dataset: ..., attacks: all}]",
        )
    return tuple(
        Evaluation(model=model, dataset=dataset, attacks=names.attack_names, where=root.node.where)
        for model in judged
        for dataset in _judged_on(names)
    )


def _judged_on(names: Names) -> list[str]:
    left = [name for name in names.datasets if name not in names.ingredients]
    return left or list(names.datasets)


def _gated_models(root: Section) -> set[str]:
    gates = root.values.get("gates")
    entries = gates.value.values() if gates and isinstance(gates.value, Mapping) else ()
    return {
        node.value["model"].text
        for node in entries
        if isinstance(node.value, Mapping) and "model" in node.value
    }


def _line(section: Section, names: Names) -> Evaluation | None:
    before = len(section.problems.found)
    if not isinstance(section.node.value, Mapping):
        message = f"expected {{model: ..., dataset: ..., attacks: ...}}, found {section.node.shown}"
        section.problems.note(section.node.where, section.path, message)
        return None
    section.only(EVALUATE_KEYS)
    section.require("model", f"one of {listed(names.models)}")
    section.require("dataset", f"one of {listed(names.datasets)}")
    model = _known(section, "model", names.models)
    dataset = _known(section, "dataset", names.datasets)
    attacks = _attacks(section, names)
    if model is None or dataset is None or len(section.problems.found) > before:
        return None
    return Evaluation(model=model, dataset=dataset, attacks=attacks, where=section.node.where)


def _attacks(section: Section, names: Names) -> tuple[str, ...]:
    node = section.values.get("attacks")
    if node is None or node.value == ALL:
        return names.attack_names
    chosen: dict[str, None] = {}
    for item in section.items("attacks"):
        if item.value not in names.attack_names:
            known = (*names.attack_names, ALL)
            helps = did_you_mean(item.text, known) or (f"attacks: {listed(known)}",)
            message = f"unknown attack {item.shown}"
            section.problems.note(item.where, section.at("attacks"), message, *helps)
        elif item.text in chosen:
            message = f"attack '{item.text}' stands twice"
            section.problems.note(item.where, section.at("attacks"), message)
        chosen[item.text] = None
    return tuple(chosen)


def _refuse_overlap(line: Evaluation, earlier: Iterable[Evaluation], root: Section) -> None:
    for other in earlier:
        if (other.model, other.dataset) == (line.model, line.dataset):
            twice = [name for name in line.attacks if name in other.attacks]
            if twice or not line.attacks:
                what = f"attack '{twice[0]}'" if twice else "the clean pass"
                message = f"{what} of model '{line.model}' on '{line.dataset}' is evaluated twice"
                root.problems.note(line.where, "evaluate", message, f"first at {other.where}")
                return


# ---------------------------------------------------------------- gates


def _known(section: Section, key: str, names: Sequence[str]) -> str | None:
    """The name under `key`, one of `names`."""
    node = section.values.get(key)
    if node is None or node.text in names:
        return None if node is None else node.text
    helps = did_you_mean(node.text, names) or (f"known: {listed(names)}",)
    section.note(key, f"unknown {key} {node.shown}", *helps)
    return None


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
        return CONFIDENCE
    if not 0.5 < confidence < 1:
        found = section.values["confidence"].shown
        section.note("confidence", f"expected a number between 0.5 and 1, found {found}")
    return confidence


def _check_limits(section: Section, gate: Gate) -> None:
    if "min" not in section.values and "max" not in section.values:
        section.note("min", "missing; a gate needs min or max (or both)")
    elif gate.minimum is not None and gate.maximum is not None and gate.minimum > gate.maximum:
        section.note("min", f"min {gate.minimum:g} is above max {gate.maximum:g}")


def _check_metric(section: Section, gate: Gate) -> None:
    if gate.metric == "clean_accuracy":
        for key in ("attack", "norm", "eps"):
            if key in section.values and section.values[key].value != ALL:
                section.note(key, f"clean_accuracy is measured without an attack; remove '{key}'")
    if gate.metric == "worst_case_robust_accuracy" and gate.attack not in (None, ALL):
        section.note(
            "attack",
            "the worst case is over all attacks; remove 'attack'",
            "for one attack use robust_accuracy",
        )


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
    if gate.metric == "clean_accuracy" or not selected <= names.attacks.keys():
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
