"""Entries that refer to entries: their order, and the components that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .errors import SuiteError
from .identity import dataset_component, model_component
from .params import Reference, refers_to
from .plugins import Registry
from .types import Component, DatasetEntry, ModelEntry, Places, Suite

Entry = ModelEntry | DatasetEntry


class Key(NamedTuple):
    """An entry of the suite: "model" or "dataset", and its name."""

    kind: str
    name: str


class Components(NamedTuple):
    """The models and datasets of a plan by name, in the order of the suite."""

    models: dict[str, Component]
    datasets: dict[str, Component]


def order(suite: Suite) -> tuple[Key, ...]:
    """Every model and dataset, behind all that it refers to.

    Raises `SuiteError` for a name that is not there and for entries that refer to themselves.
    """
    entries = _entries(suite)
    done: dict[Key, None] = {}

    def visit(key: Key, chain: tuple[Key, ...]) -> None:
        if key in done:
            return
        if key in chain:
            names = " -> ".join(name for _, name in (*chain[chain.index(key) :], key))
            raise SuiteError(
                f"{entries[key].where}: error: {key.kind}s.{key.name}: refers to itself: {names}"
            )
        for reference in refers_to(entries[key].params):
            inner = Key(reference.kind, reference.name)
            if inner not in entries:
                raise SuiteError(_unknown(entries[key], key, reference))
            visit(inner, (*chain, key))
        done[key] = None

    for key in entries:
        visit(key, ())
    return tuple(done)


def _unknown(entry: Entry, key: Key, reference: Reference) -> str:
    place = f"{entry.where}: error: {key.kind}s.{key.name}.{reference.field}"
    return f"{place}: there is no {reference.kind} '{reference.name}'"


def components(
    suite: Suite, registry: Registry, places: Places, limit: int | None, problems: list[str]
) -> Components:
    """Every component that has no problem; what an entry is made of is never cut by `limit`."""
    entries = _entries(suite)
    whole: dict[Key, Component] = {}
    cut: dict[str, Component] = {}
    for key in order(suite):
        entry = entries[key]
        made_of = _made_of(entry, whole)
        if made_of is None:
            continue
        if isinstance(entry, ModelEntry):
            found = model_component(entry, suite, registry, places, problems, made_of)
        else:
            found = dataset_component(entry, suite, registry, places, None, problems, made_of)
            if found is not None and limit is not None:
                short = dataset_component(entry, suite, registry, places, limit, [], made_of)
                assert short is not None
                cut[entry.name] = short
        if found is not None:
            whole[key] = found
    return Components(
        models=_named(suite.models, "model", whole),
        datasets=_named(suite.datasets, "dataset", whole) | cut,
    )


def _entries(suite: Suite) -> dict[Key, Entry]:
    found: dict[Key, Entry] = {Key("model", entry.name): entry for entry in suite.models}
    return found | {Key("dataset", entry.name): entry for entry in suite.datasets}


def _made_of(entry: Entry, whole: Mapping[Key, Component]) -> dict[str, str] | None:
    """Content ids of what it refers to; None if one of them has a problem of its own."""
    made_of: dict[str, str] = {}
    for at, (field, kind, name) in enumerate(refers_to(entry.params)):
        component = whole.get(Key(kind, name))
        if component is None:
            return None
        made_of[f"{field} {at}"] = component.content
    return made_of


def _named(
    entries: Sequence[Entry], kind: str, whole: Mapping[Key, Component]
) -> dict[str, Component]:
    keys = (Key(kind, entry.name) for entry in entries)
    return {key.name: whole[key] for key in keys if key in whole}
