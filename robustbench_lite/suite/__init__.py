"""YAML text -> Suite: text ends here, and every error is shown at once, where it stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, cast

from ..errors import SuiteError
from ..params import Params, refers_to
from ..plugins import Registry, missing
from ..types import (
    AnalysisEntry,
    AttackEntry,
    DatasetEntry,
    Gate,
    Json,
    ModelEntry,
    Places,
    Suite,
    Waiver,
    Where,
)
from ..words import Problem, did_you_mean, listed, render
from .attacks import read_attack
from .entries import (
    Resolved,
    Shop,
    check_references,
    read_analysis,
    read_dataset,
    read_model,
)
from .gates import read_gate
from .rules import Names, read_evaluations, resolved_evaluations
from .sections import KEYS, SCHEMA, Problems, Section, bad_name, written
from .suitefile import Tree, read_text, read_tree
from .waivers import read_waiver

MAX_SEED = 2**63 - 1
DEFAULT_REPORTS = ("html", "markdown", "junit", "csv", "parquet")

E = TypeVar("E")


def load(
    path: Path,
    registry: Registry,
    *,
    overrides: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    places: Places,
) -> Suite:
    """The suite in a file, checked against the plug-ins of `registry`.

    `overrides`: texts `a.b.c=value` that replace values. `env`: what `${env:NAME}` may read.
    Raises `SuiteError` with every problem, sorted by where it stands.
    """
    return loads(read_text(path), registry, path=path, overrides=overrides, env=env, places=places)


def loads(
    text: str,
    registry: Registry,
    *,
    path: Path,
    overrides: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    places: Places,
) -> Suite:
    """The suite in `text`, as if it stood in the file `path`; see `load`."""
    tree = read_tree(path, text, overrides, env or {})
    problems = Problems()
    suite = _read(
        Section(tree.root, "", problems), Shop(registry=registry, places=places), path, text
    )
    _raise(tree, problems)
    return suite


class _Entries(NamedTuple):
    models: dict[str, tuple[ModelEntry, Resolved]]
    datasets: dict[str, tuple[DatasetEntry, Resolved]]
    attacks: dict[str, tuple[AttackEntry, Resolved]]
    analyses: dict[str, tuple[AnalysisEntry, Resolved]]


def _read(root: Section, shop: Shop, path: Path, text: str) -> Suite:
    root.only(KEYS)
    _check_schema(root)
    name = _name(root, path)
    entries = _entries(root, shop)
    referred = _references(root, entries)
    names = Names(
        models=_declared(root, "models"),
        datasets=_declared(root, "datasets"),
        ingredients=referred,
        analyses=_declared(root, "analyses"),
        attack_names=_declared(root, "attacks"),
        attacks={key: entry for key, (entry, _) in entries.attacks.items()},
    )
    evaluations = read_evaluations(root, names)
    gates = _each(
        root, "gates", lambda n, where, inner: read_gate(n, where, inner, names, evaluations)
    )
    waivers = _each(
        root, "waivers", lambda n, where, inner: read_waiver(n, where, inner, names.models)
    )
    suite = Suite(
        name=name,
        path=path,
        text=text,
        resolved={},
        models=tuple(entry for entry, _ in entries.models.values()),
        datasets=tuple(entry for entry, _ in entries.datasets.values()),
        attacks=tuple(entry for entry, _ in entries.attacks.values()),
        evaluations=evaluations,
        gates=tuple(gate for gate, _ in gates.values()),
        analyses=tuple(entry for entry, _ in entries.analyses.values()),
        reports=_reports(root, shop.registry),
        controls=_controls(root),
        seed=root.integer("seed", least=0, most=MAX_SEED) or 0,
        python_path=_python_path(root),
        self_test=root.choice("self_test", ("auto", "off")) != "off",
        waivers=tuple(waiver for waiver, _ in waivers.values()),
    )
    return dataclasses.replace(suite, resolved=_resolved(root, suite, entries, gates, waivers))


def _entries(root: Section, shop: Shop) -> _Entries:
    models = _declared(root, "models")
    for key in ("models", "datasets"):
        if root.require(key, "a suite needs at least one") and not _declared(root, key):
            root.note(key, "there is no entry; a suite needs at least one")
    variables = root.values.get("vars")
    if variables is not None and not isinstance(variables.value, Mapping):
        root.wrong("vars", "a mapping of names to values")
    return _Entries(
        _each(root, "models", lambda n, where, inner: read_model(n, where, inner, shop)),
        _each(root, "datasets", lambda n, where, inner: read_dataset(n, where, inner, shop)),
        _each(root, "attacks", lambda n, where, inner: read_attack(n, where, inner, shop, models)),
        _each(root, "analyses", lambda n, where, inner: read_analysis(n, where, inner, shop)),
    )


def _references(root: Section, entries: _Entries) -> frozenset[str]:
    """Check what entries refer to; the datasets that models are made of."""
    names = {"model": _declared(root, "models"), "dataset": _declared(root, "datasets")}
    referred: set[str] = set()
    for key, section in (
        ("models", entries.models),
        ("datasets", entries.datasets),
        ("analyses", entries.analyses),
    ):
        params = {name: cast("Params", entry.params) for name, (entry, _) in section.items()}
        check_references(root, key, params, names)
        if key == "models":
            found = [each for own in params.values() for each in refers_to(own)]
            referred |= {each.name for each in found if each.kind == "dataset"}
    return frozenset(referred)


def _each(
    root: Section, key: str, read: Callable[[str, Where, Section], tuple[E, Resolved] | None]
) -> dict[str, tuple[E, Resolved]]:
    node = root.values.get(key)
    keys = {} if node is None else node.keys
    written = [name for name, where in keys.items() if where.line]
    entries: dict[str, tuple[E, Resolved]] = {}
    for name, inner in root.sections(key):
        before = len(root.problems.found)
        entry = read(name, keys[name], inner)
        if entry is not None:
            entries[name] = entry
        elif not keys[name].line and len(root.problems.found) > before:  # only a --set made it
            first = root.problems.found[before]
            told = (f"the suite's own {key}: {listed(written)}",)
            helps = (*first.helps, *(did_you_mean(name, written) or told))
            root.problems.found[before] = dataclasses.replace(first, helps=helps)
    return entries


def _declared(root: Section, key: str) -> tuple[str, ...]:
    node = root.values.get(key)
    return tuple(node.value) if node is not None and isinstance(node.value, Mapping) else ()


# ---------------------------------------------------------------- the other keys of the top level


def _check_schema(root: Section) -> None:
    if not root.require("schema", f"write 'schema: {SCHEMA}' at the top"):
        return
    node = root.values["schema"]
    if node.value == SCHEMA and isinstance(node.value, int) and not isinstance(node.value, bool):
        return
    newer = isinstance(node.value, int) and node.value > SCHEMA
    helps = ("upgrade robustbench-lite to read newer suites",) if newer else ()
    root.wrong("schema", str(SCHEMA), *helps)


def _name(root: Section, path: Path) -> str:
    name = root.text("name") or path.stem
    reason = "cannot name a folder" if name in (".", "..") else bad_name(name)
    if reason is not None:
        root.note("name", f"name {name!r} {reason}")
    return name


def _controls(root: Section) -> Literal["auto", "off"]:
    return "off" if root.choice("controls", ("auto", "off")) == "off" else "auto"


def _reports(root: Section, registry: Registry) -> tuple[str, ...]:
    if "reports" not in root.values:
        return tuple(name for name in DEFAULT_REPORTS if name in registry.reporters)
    chosen: dict[str, None] = {}
    for node in root.items("reports"):
        if not isinstance(node.value, str):
            message = f"expected the name of a report, found {node.shown}"
            root.problems.note(node.where, "reports", message)
        elif node.value not in registry.reporters:
            message = missing(registry, "reporter", node.value)
            root.problems.note(node.where, "reports", message)
        elif node.text in chosen:
            root.problems.note(node.where, "reports", f"'{node.text}' stands twice")
        chosen[node.text] = None
    return tuple(chosen)


def _python_path(root: Section) -> tuple[Path, ...]:
    folders: list[Path] = []
    for node in root.items("python_path"):
        if not isinstance(node.value, str) or not node.value:
            message = f"expected the path of a folder, found {node.shown}"
            root.problems.note(node.where, "python_path", message)
        elif not (node.base / node.value).is_dir():
            message = f"there is no folder {node.shown}"
            where = f"paths start from the suite's folder: {node.base.resolve()}"
            root.problems.note(node.where, "python_path", message, where)
        else:
            folders.append(node.base / node.value)
    return tuple(folders)


# ---------------------------------------------------------------- results


def _resolved(
    root: Section,
    suite: Suite,
    entries: _Entries,
    gates: Mapping[str, tuple[Gate, Resolved]],
    waivers: Mapping[str, tuple[Waiver, Resolved]],
) -> dict[str, Json]:
    given = {key: written(root.values[key]) for key in KEYS if key in root.values}
    named: dict[str, Mapping[str, tuple[object, Resolved]]] = {
        "models": entries.models,
        "datasets": entries.datasets,
        "attacks": entries.attacks,
        "gates": gates,
        "analyses": entries.analyses,
        **({"waivers": waivers} if waivers else {}),
    }
    filled: dict[str, Json] = {
        "schema": SCHEMA,
        "name": suite.name,
        "seed": suite.seed,
        "reports": list(suite.reports),
        "controls": suite.controls,
        "self_test": "auto" if suite.self_test else "off",
        **given,
        **{key: {name: json for name, (_, json) in each.items()} for key, each in named.items()},
        "evaluate": resolved_evaluations(suite.evaluations),
    }
    return {key: filled[key] for key in KEYS if key in filled}


def _raise(tree: Tree, problems: Problems) -> None:
    noise = [each for each in problems.found if each.where in tree.unresolved]
    found = problems.found if tree.whole else ()
    kept = [each for each in (*tree.problems, *found) if each not in noise]
    unique = dict.fromkeys(render(each) for each in sorted(kept, key=_place))
    if unique:
        raise SuiteError(list(unique))


def _place(problem: Problem) -> tuple[Where, str]:
    return problem.where, problem.path
