"""`attacks.<name>` of a suite: the attack, its budget, where and how it is crafted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from ..contract import COMMON_KEYS
from ..hookspecs import AttackSpec
from ..plugins import missing
from ..types import CLEAN, NORMS, THREATS, WORST_CASE, AttackEntry, Eps, Norm, Where
from ..words import did_you_mean, duration, listed
from .entries import Resolved, Shop, own_params, spec_of
from .sections import Section, radius
from .settings import resolved_entry
from .yamltext import exact

ALL = "all"
RESERVED = (CLEAN, WORST_CASE, ALL)
OFF = "off"
IDENTITY = "identity"
TARGETS = ("next", "random", "least-likely")
_MEANT: Mapping[str, Norm] = MappingProxyType(
    {"inf": "linf", ".inf": "linf", "max": "linf", "2": "l2", "1": "l1", "0": "l0"}
)


def read_attack(
    name: str, where: Where, section: Section, shop: Shop, models: Collection[str]
) -> tuple[AttackEntry, Resolved] | None:
    """One attack; `models`: names that `source` may have."""
    before = len(section.problems.found)
    if name in RESERVED:
        message = f"'{name}' is a name that reports use; give the attack another one"
        section.problems.note(where, section.path, message)
    spec = spec_of(section, "attack", "attack", shop.registry, shop.registry.attacks)
    norm = _norm(section, spec)
    grid = _grid(section, spec, norm)
    sources = _sources(section, models)
    target = _target(section, spec)
    repeats = section.integer("repeats", least=1) or 1
    eot = section.integer("eot", least=1) or 1
    fallback = _fallback(section, shop, norm)
    bpda = _bpda(section, spec)
    params = own_params(section, "attack", spec, shop)
    if spec is None or norm is None or params is None or len(section.problems.found) > before:
        return None
    entry = AttackEntry(
        name=name,
        attack=spec.name,
        params=params,
        norm=norm,
        eps=tuple(grid),
        source=" + ".join(sources) or None,
        sources=sources if len(sources) > 1 else (),
        target=target,
        repeats=repeats,
        fallback=fallback,
        where=where,
        eps_where=tuple(grid.values()),
        eot=eot,
        bpda=bpda,
        time_limit=_seconds(section),
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


def _sources(section: Section, models: Collection[str]) -> tuple[str, ...]:
    """The models it is crafted on; none means the model under attack."""
    found: dict[str, None] = {}
    for node in section.items("source"):
        name = node.value
        if not isinstance(name, str) or name not in models:
            helps = did_you_mean(node.text, models) or (f"models: {listed(models)}",)
            section.problems.note(
                node.where, section.at("source"), f"unknown model {node.shown}", *helps
            )
        elif name in found:
            section.problems.note(node.where, section.at("source"), f"'{name}' stands twice")
        else:
            found[name] = None
    if "source" in section.values and not section.items("source"):
        section.note("source", "the list is empty; leave the key out for the model under attack")
    return tuple(found)


def _seconds(section: Section) -> float | None:
    """`time_limit`: seconds, or a text such as 90s, 10m or 2h."""
    node = section.values.get("time_limit")
    if node is None:
        return None
    seconds = duration(node.text)
    if seconds is None or isinstance(node.value, bool | Mapping | tuple):
        section.wrong("time_limit", "seconds, or a time such as 90s, 10m or 2h")
    return seconds


def _bpda(section: Section, spec: AttackSpec | None) -> tuple[str, ...]:
    """Steps of the model whose gradient is the identity's."""
    node = section.values.get("bpda")
    if node is None:
        return ()
    expected = "a mapping from a step of the model to `identity`, such as {quantise: identity}"
    if not isinstance(node.value, Mapping) or not node.value:
        section.wrong("bpda", expected)
        return ()
    for rule in node.value.values():
        if rule.value != IDENTITY:
            message = f"{rule.shown} is not one of {IDENTITY}"
            section.problems.note(rule.where, section.at("bpda"), message)
    if spec is not None and spec.access != "gradient" and spec.members is None:
        section.note("bpda", f"attack '{spec.name}' takes no gradients; remove the key")
    return tuple(node.value)


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


def _norm(section: Section, spec: AttackSpec | None) -> Norm | None:
    node = section.values.get("norm")
    if node is None:
        return None if spec is None else spec.norms[0]
    norm = next((each for each in THREATS if each == node.value), None)
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
    texts = [text.strip() for text in spec.default_eps.split(",")]
    values = [exact(text) for text in texts]
    grid = {
        Eps(value=value, text=text): section.node.where
        for value, text in zip(values, texts, strict=True)
        if value is not None and value >= 0
    }
    if len(grid) < len(texts):
        message = (
            f"attack '{spec.name}' has the default eps {spec.default_eps!r}, which is no radius"
        )
        section.note("eps", message, "give eps here, and tell the author of the plug-in")
        return {}
    return grid


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
