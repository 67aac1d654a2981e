"""What a plug-in may give: its specs, collected from its hooks and checked before use."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import pluggy

from .errors import PluginError
from .hookspecs import (
    API_VERSION,
    GROUP,
    AnalysisSpec,
    AttackSpec,
    DatasetSpec,
    ExecutorSpec,
    ModelSpec,
    ReporterSpec,
    RobevalHooks,
    Spec,
)
from .params import Params
from .types import THREATS
from .words import did_you_mean, listed

SpecKind = Literal["attack", "model", "dataset", "analysis", "reporter", "executor"]

COMMON_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "model": ("load", "sha256"),
        "dataset": ("load", "sha256", "take", "skip", "indices", "stratified", "seed", "classes"),
        "attack": (
            "attack",
            "norm",
            "eps",
            "source",
            "target",
            "repeats",
            "fallback",
            "eot",
            "bpda",
            "time_limit",
        ),
        "analysis": ("analysis",),
    }
)
"""Keys of a suite's entry that are the harness's own: no plug-in may call a parameter so."""

KINDS: Mapping[str, tuple[SpecKind, type[Spec]]] = MappingProxyType(
    {
        "robeval_attacks": ("attack", AttackSpec),
        "robeval_models": ("model", ModelSpec),
        "robeval_datasets": ("dataset", DatasetSpec),
        "robeval_analyses": ("analysis", AnalysisSpec),
        "robeval_reporters": ("reporter", ReporterSpec),
        "robeval_executors": ("executor", ExecutorSpec),
    }
)
WORDS: Mapping[SpecKind, str] = MappingProxyType(
    {"model": "model loader", "dataset": "dataset loader"}
)
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def collect(loaded: object) -> tuple[tuple[str, ...], tuple[Spec, ...]]:
    """Names of the hooks that a loaded plug-in implements, and the specs that they return.

    Raises `PluginError` for a plug-in without hooks, an unknown hook, or a spec that is none; what
    a hook itself raises passes through.
    """
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(RobevalHooks)
    manager.register(loaded)
    callers = manager.get_hookcallers(loaded) or []
    for caller in callers:
        required = not all(each.optionalhook for each in caller.get_hookimpls())
        if not caller.has_spec() and required:
            near = "".join(f"; {text}" for text in did_you_mean(caller.name, KINDS))
            raise PluginError(f"unknown hook '{caller.name}'{near}")
    known = sorted((c for c in callers if c.has_spec()), key=lambda c: c.name)
    if not known:
        raise PluginError(
            "it has no robeval hooks: is @hookimpl of robustbench_lite missing, "
            "or does the entry point name the wrong module?"
        )
    specs = tuple(spec for caller in known for spec in _called(caller))
    _refuse_repeats(specs)
    return tuple(caller.name for caller in known), specs


def _called(caller: pluggy.HookCaller) -> list[Spec]:
    _, expected = KINDS[caller.name]
    results: Sequence[object] = caller()
    if not results:  # pluggy drops None
        raise PluginError(f"{caller.name} returned None, expected a list of {expected.__name__}")
    specs: list[Spec] = []
    for result in results:
        if not isinstance(result, Iterable) or isinstance(result, str):
            raise PluginError(
                f"{caller.name} returned {result!r}, expected a list of {expected.__name__}"
            )
        for spec in result:
            if not isinstance(spec, expected):
                raise PluginError(
                    f"{caller.name} gave {spec!r}, expected an object of {expected.__name__}"
                )
            check(spec)
            specs.append(spec)
    return specs


def check(spec: Spec) -> None:
    """Raise `PluginError` for a spec that nobody could use: name, API, implementation, params."""
    kind = next(kind for kind, cls in KINDS.values() if isinstance(spec, cls))
    subject = f"{kind} '{spec.name}'"
    if not str(spec.name).strip():
        raise PluginError(f"{kind} {spec.name!r} has no name")
    if spec.api > API_VERSION:
        raise PluginError(
            f"{subject} is written for plug-in API {spec.api}, this robeval has {API_VERSION}: "
            "upgrade robustbench-lite"
        )
    named = isinstance(spec.implementation, str) and _TARGET.fullmatch(spec.implementation)
    if not named and not callable(spec.implementation):
        raise PluginError(
            f"{subject}: implementation {spec.implementation!r} is neither something to call "
            "nor 'package.module:name'"
        )
    params = getattr(spec, "params", Params)
    if not (isinstance(params, type) and issubclass(params, Params)):
        raise PluginError(f"{subject}: params {params!r} is not a subclass of Params")
    taken = sorted(set(params.model_fields) & set(COMMON_KEYS.get(kind, ())))
    if taken:
        raise PluginError(f"{subject}: parameter '{taken[0]}' is a key that every {kind} has")
    if isinstance(spec, AttackSpec) and not (spec.norms and set(spec.norms) <= set(THREATS)):
        raise PluginError(f"{subject}: norms {spec.norms!r}, expected some of {listed(THREATS)}")


def _refuse_repeats(specs: Sequence[Spec]) -> None:
    counts = Counter((type(spec), spec.name) for spec in specs)
    for (cls, name), count in counts.items():
        if count > 1:
            raise PluginError(f"it gives {cls.__name__} '{name}' {count} times")
