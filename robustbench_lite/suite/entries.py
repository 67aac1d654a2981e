"""The named entries of a suite: models, datasets, attacks and analyses.

Each reader gives the entry with its resolved JSON, or None after noting what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..contract import COMMON_KEYS, SpecKind
from ..hookspecs import Spec
from ..params import Params, refers_to
from ..plugins import Registered, Registry, missing
from ..types import (
    AnalysisEntry,
    DatasetEntry,
    Json,
    ModelEntry,
    Places,
    Selection,
    Where,
)
from ..words import did_you_mean, listed
from .sections import Section
from .settings import read_params, resolved_entry

S = TypeVar("S", bound=Spec)
T = TypeVar("T")
Resolved = Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """What entries are checked against: the plug-ins installed and the places of the run."""

    registry: Registry
    places: Places


def read_model(
    name: str, where: Where, section: Section, shop: Shop
) -> tuple[ModelEntry, Resolved] | None:
    """`models.<name>`."""
    before = len(section.problems.found)
    spec = spec_of(section, "load", "model", shop.registry, shop.registry.models)
    sha256 = section.sha256("sha256")
    params = own_params(section, "model", spec, shop)
    if spec is None or params is None or len(section.problems.found) > before:
        return None
    entry = ModelEntry(name=name, loader=spec.name, params=params, sha256=sha256, where=where)
    return entry, resolved_entry(section, params, COMMON_KEYS["model"], load=spec.name)


def read_dataset(
    name: str, where: Where, section: Section, shop: Shop
) -> tuple[DatasetEntry, Resolved] | None:
    """`datasets.<name>`."""
    before = len(section.problems.found)
    spec = spec_of(section, "load", "dataset", shop.registry, shop.registry.datasets)
    sha256 = section.sha256("sha256")
    selection = _selection(section)
    params = own_params(section, "dataset", spec, shop)
    if spec is None or params is None or len(section.problems.found) > before:
        return None
    entry = DatasetEntry(
        name=name,
        loader=spec.name,
        params=params,
        selection=selection,
        sha256=sha256,
        where=where,
    )
    resolved = resolved_entry(
        section,
        params,
        COMMON_KEYS["dataset"],
        load=spec.name,
        take=selection.take,
        skip=selection.skip,
        stratified=selection.stratified,
        seed=selection.seed,
    )
    return entry, resolved


def read_analysis(
    name: str, where: Where, section: Section, shop: Shop
) -> tuple[AnalysisEntry, Resolved] | None:
    """`analyses.<name>`."""
    before = len(section.problems.found)
    spec = spec_of(section, "analysis", "analysis", shop.registry, shop.registry.analyses)
    params = own_params(section, "analysis", spec, shop)
    if spec is None or params is None or len(section.problems.found) > before:
        return None
    entry = AnalysisEntry(name=name, analysis=spec.name, params=params, where=where)
    return entry, resolved_entry(section, params, COMMON_KEYS["analysis"], analysis=spec.name)


def check_references(
    root: Section, key: str, entries: Mapping[str, Params], names: Mapping[str, Sequence[str]]
) -> None:
    """Note every parameter below `key` that names an entry which is not in `names` of its kind."""
    for name, section in root.sections(key):
        if name not in entries:
            continue
        for reference in refers_to(entries[name]):
            known = names[reference.kind]
            if reference.name not in known:
                helps = did_you_mean(reference.name, known) or (
                    f"{reference.kind}s: {listed(known)}",
                )
                message = f"there is no {reference.kind} '{reference.name}'"
                section.note(reference.field, message, *helps)


# ---------------------------------------------------------------- the keys of an entry


def spec_of(
    section: Section,
    key: str,
    kind: SpecKind,
    registry: Registry,
    table: Mapping[str, Registered[S]],
) -> S | None:
    """The spec that `key` names in `table`, or None after noting what is wrong."""
    if not section.require(key, f"one of {listed(table)}"):
        return None
    name = section.text(key)
    if name is None:
        return None
    if name not in table:
        section.note(key, missing(registry, kind, name))
        return None
    return table[name].spec


def own_params(section: Section, kind: SpecKind, spec: Spec | None, shop: Shop) -> Params | None:
    """The plug-in's own parameters, or None after noting what is wrong."""
    if spec is None:
        return None
    model: type[Params] = getattr(spec, "params", Params)
    return read_params(section, model, COMMON_KEYS[kind], shop.places)


def _selection(section: Section) -> Selection:
    return Selection(
        take=section.integer("take", least=1),
        skip=section.integer("skip", least=0) or 0,
        indices=_indices(section),
        stratified=section.flag("stratified") or False,
        seed=section.integer("seed", least=0) or 0,
        classes=_classes(section),
    )


def _indices(section: Section) -> tuple[int, ...] | None:
    found: dict[int, None] = {}
    for node in section.items("indices"):
        value = node.value
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            message = f"expected whole numbers of at least 0, found {node.shown}"
            section.problems.note(node.where, section.at("indices"), message)
            return None
        if value in found:
            section.problems.note(node.where, section.at("indices"), f"{value} stands twice")
            return None
        found[value] = None
    return _some(section, "indices", tuple(found))


def _classes(section: Section) -> tuple[str, ...] | None:
    found: dict[str, None] = {}
    for node in section.items("classes"):
        value = node.value
        if not isinstance(value, int | str) or isinstance(value, bool) or node.text in found:
            twice = f"'{node.text}' stands twice"
            kind = f"expected names or numbers of classes, found {node.shown}"
            message = twice if node.text in found else kind
            section.problems.note(node.where, section.at("classes"), message)
            return None
        found[str(value)] = None
    return _some(section, "classes", tuple(found))


def _some(section: Section, key: str, found: tuple[T, ...]) -> tuple[T, ...] | None:
    if key not in section.values:
        return None
    if not found:
        section.note(key, "the list is empty; leave the key out for all")
    return found
