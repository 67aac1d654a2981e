"""The named entries of a suite: models, datasets, attacks and analyses.

Each reader gives the entry with its resolved JSON, or None after noting what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from ..contract import COMMON_KEYS, SpecKind
from ..hookspecs import AttackSpec, Spec
from ..params import Params
from ..plugins import Registered, Registry, missing
from ..types import (
    CLEAN,
    NORMS,
    WORST_CASE,
    AnalysisEntry,
    AttackEntry,
    DatasetEntry,
    Eps,
    Json,
    ModelEntry,
    Norm,
    Places,
    Selection,
    Where,
)
from ..words import did_you_mean, listed
from .sections import Section, radius
from .settings import read_params, resolved_entry
from .yamltext import exact

ALL = "all"
RESERVED = (CLEAN, WORST_CASE, ALL)
OFF = "off"
TARGETS = ("next", "random", "least-likely")
_MEANT: Mapping[str, Norm] = MappingProxyType(
    {"inf": "linf", ".inf": "linf", "max": "linf", "2": "l2", "1": "l1", "0": "l0"}
)

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
    spec = _spec(section, "load", "model", shop.registry, shop.registry.models)
    sha256 = section.sha256("sha256")
    params = _params(section, "model", spec, shop)
    if spec is None or params is None or len(section.problems.found) > before:
        return None
    entry = ModelEntry(name=name, loader=spec.name, params=params, sha256=sha256, where=where)
    return entry, resolved_entry(section, params, COMMON_KEYS["model"], load=spec.name)


def read_dataset(
    name: str, where: Where, section: Section, shop: Shop
) -> tuple[DatasetEntry, Resolved] | None:
    """`datasets.<name>`."""
    before = len(section.problems.found)
    spec = _spec(section, "load", "dataset", shop.registry, shop.registry.datasets)
    sha256 = section.sha256("sha256")
    selection = _selection(section)
    params = _params(section, "dataset", spec, shop)
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


def read_attack(
    name: str, where: Where, section: Section, shop: Shop, models: Collection[str]
) -> tuple[AttackEntry, Resolved] | None:
    """`attacks.<name>`; `models`: names that `source` may have."""
    before = len(section.problems.found)
    if name in RESERVED:
        message = f"'{name}' is a name that reports use; give the attack another one"
        section.problems.note(where, section.path, message)
    spec = _spec(section, "attack", "attack", shop.registry, shop.registry.attacks)
    norm = _norm(section, spec)
    grid = _grid(section, spec, norm)
    source = section.text("source")
    if source is not None and source not in models:
        helps = did_you_mean(source, models) or (f"models: {listed(models)}",)
        section.note("source", f"unknown model '{source}'", *helps)
    target = _target(section, spec)
    repeats = section.integer("repeats", least=1) or 1
    fallback = _fallback(section, shop, norm)
    params = _params(section, "attack", spec, shop)
    if spec is None or norm is None or params is None or len(section.problems.found) > before:
        return None
    entry = AttackEntry(
        name=name,
        attack=spec.name,
        params=params,
        norm=norm,
        eps=tuple(grid),
        source=source,
        target=target,
        repeats=repeats,
        fallback=fallback,
        where=where,
        eps_where=tuple(grid.values()),
    )
    resolved = resolved_entry(
        section,
        params,
        COMMON_KEYS["attack"],
        attack=spec.name,
        norm=norm,
        eps=[eps.text for eps in grid],
        repeats=repeats,
    )
    return entry, resolved


def _fallback(section: Section, shop: Shop, norm: Norm | None) -> str | None:
    """The gradient-free attack that stands by, or "off"."""
    name = section.text("fallback")
    if name is None or name == OFF:
        return name
    if name not in shop.registry.attacks:
        section.note("fallback", missing(shop.registry, "attack", name))
        return name
    known = {name: each.spec for name, each in shop.registry.attacks.items()}
    free = [
        each
        for each, spec in known.items()
        if spec.access != "gradient" and spec.role == "attack" and norm in {*spec.norms, None}
    ]
    if name not in free:
        norms = listed(known[name].norms)
        message = f"'{name}' is no gradient-free attack for {norm} (its norms: {norms})"
        section.note("fallback", message, f"expected {OFF} or one of {listed(free)}")
    return name


def read_analysis(
    name: str, where: Where, section: Section, shop: Shop
) -> tuple[AnalysisEntry, Resolved] | None:
    """`analyses.<name>`."""
    before = len(section.problems.found)
    spec = _spec(section, "analysis", "analysis", shop.registry, shop.registry.analyses)
    params = _params(section, "analysis", spec, shop)
    if spec is None or params is None or len(section.problems.found) > before:
        return None
    entry = AnalysisEntry(name=name, analysis=spec.name, params=params, where=where)
    return entry, resolved_entry(section, params, COMMON_KEYS["analysis"], analysis=spec.name)


# ---------------------------------------------------------------- the keys of an entry


def _spec(
    section: Section,
    key: str,
    kind: SpecKind,
    registry: Registry,
    table: Mapping[str, Registered[S]],
) -> S | None:
    if not section.require(key, f"one of {listed(table)}"):
        return None
    name = section.text(key)
    if name is None:
        return None
    if name not in table:
        section.note(key, missing(registry, kind, name))
        return None
    return table[name].spec


def _params(section: Section, kind: SpecKind, spec: Spec | None, shop: Shop) -> Params | None:
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


def _norm(section: Section, spec: AttackSpec | None) -> Norm | None:
    node = section.values.get("norm")
    if node is None:
        return None if spec is None else spec.norms[0]
    norm = next((each for each in NORMS if each == node.value), None)
    if norm is None:
        meant = _MEANT.get(node.text.lower())
        helps = (f"did you mean '{meant}'?",) if meant else did_you_mean(node.text, NORMS)
        section.note("norm", f"{node.shown} is not one of {listed(NORMS)}", *helps)
    elif spec is not None and norm not in spec.norms:
        known = listed(spec.norms)
        section.note("norm", f"attack '{spec.name}' has no {norm} form; expected {known}")
    return norm


def _grid(section: Section, spec: AttackSpec | None, norm: Norm | None) -> dict[Eps, Where]:
    """Every eps with its place; empty after a problem."""
    if "eps" not in section.values:
        return _default_grid(section, spec)
    before = len(section.problems.found)
    grid: dict[Eps, Where] = {}
    for node in section.items("eps"):
        eps = radius(node)
        if isinstance(eps, str):
            section.problems.note(node.where, section.at("eps"), eps)
            continue
        twin = next((each for each in grid if each.value == eps.value), None)
        if twin is not None:
            message = f"{eps.text} stands twice in the grid (first as {twin.text})"
            section.problems.note(node.where, section.at("eps"), message)
        elif norm == "l0" and eps.value.denominator != 1:
            message = f"l0 counts changed pixels: expected a whole number, found {node.shown}"
            section.problems.note(node.where, section.at("eps"), message)
        else:
            grid[eps] = node.where
    if not grid and len(section.problems.found) == before:
        section.note("eps", "the list is empty; give at least one eps")
    return grid


def _default_grid(section: Section, spec: AttackSpec | None) -> dict[Eps, Where]:
    if spec is None:
        return {}
    if spec.default_eps is None:
        section.require("eps", "a radius such as 8/255, or a list of them")
        return {}
    value = exact(spec.default_eps)
    if value is None or value < 0:
        message = (
            f"attack '{spec.name}' has the default eps {spec.default_eps!r}, which is no radius"
        )
        section.note("eps", message, "give eps here, and tell the author of the plug-in")
        return {}
    return {Eps(value=value, text=spec.default_eps): section.node.where}


def _target(section: Section, spec: AttackSpec | None) -> str | None:
    node = section.values.get("target")
    if node is None:
        return None
    index = isinstance(node.value, int) and not isinstance(node.value, bool) and node.value >= 0
    if not index and node.value not in TARGETS:
        message = f"{node.shown} is not one of {listed(TARGETS)} or the number of a class"
        section.note("target", message, *did_you_mean(node.text, TARGETS))
    elif spec is not None and not spec.targeted:
        section.note("target", f"attack '{spec.name}' cannot be targeted; remove the key")
    return str(node.value)
