"""What is evaluated: the `evaluate` lines of a suite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..types import AttackEntry, Evaluation, Json
from ..words import did_you_mean, listed
from .attacks import ALL
from .sections import Section, known

EVALUATE_KEYS = ("model", "dataset", "attacks")


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
    model = known(section, "model", names.models)
    dataset = known(section, "dataset", names.datasets)
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
            choices = (*names.attack_names, ALL)
            helps = did_you_mean(item.text, choices) or (f"attacks: {listed(choices)}",)
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
