"""Entry points -> `Registry`: what is installed, whose it is, and what could not be loaded.

Every plug-in gets a pluggy manager of its own, so that a broken one is named and set aside without
a trace in the others. Two owners of one name are an error always: a result must say whose code
made it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Generic, Literal, TypeVar

from .contract import WORDS, SpecKind, collect
from .errors import PluginError
from .hookspecs import (
    GROUP,
    AnalysisSpec,
    AttackSpec,
    DatasetSpec,
    ExecutorSpec,
    ModelSpec,
    ReporterSpec,
    Spec,
)
from .raised import cause
from .words import did_you_mean, listed

OWN_DISTRIBUTION = "robustbench-lite"
Status = Literal["ok", "blocked", "broken"]

S = TypeVar("S", bound=Spec)
S_co = TypeVar("S_co", bound=Spec, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One entry point of the group `robeval`: whose it is and whether it could be loaded.

    `origin`: the file it came from (the folder of its distribution if it was not loaded).
    `reason`: why it is blocked or broken. `hooks`: the hooks it implements.
    """

    name: str
    distribution: str
    version: str
    origin: str
    status: Status = "ok"
    reason: str = ""
    hooks: tuple[str, ...] = ()
    traceback: str = ""

    def __str__(self) -> str:
        return f"plug-in {self.name} of distribution {self.distribution}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered(Generic[S_co]):
    """A spec with the plug-in that it came from."""

    spec: S_co
    plugin: Plugin


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Every installed spec by name, sorted, and every plug-in found, loaded or not."""

    attacks: Mapping[str, Registered[AttackSpec]]
    models: Mapping[str, Registered[ModelSpec]]
    datasets: Mapping[str, Registered[DatasetSpec]]
    analyses: Mapping[str, Registered[AnalysisSpec]]
    reporters: Mapping[str, Registered[ReporterSpec]]
    executors: Mapping[str, Registered[ExecutorSpec]]
    plugins: tuple[Plugin, ...]

    def names(self, kind: SpecKind) -> tuple[str, ...]:
        """Names of the installed specs of one kind."""
        return tuple(
            {
                "attack": self.attacks,
                "model": self.models,
                "dataset": self.datasets,
                "analysis": self.analyses,
                "reporter": self.reporters,
                "executor": self.executors,
            }[kind]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A plug-in before it is loaded; `load()` imports it."""

    plugin: Plugin
    load: Callable[[], object] = field(repr=False)


def load(
    *, block: Collection[str] = (), no_plugins: bool = False, strict: bool = False
) -> Registry:
    """The registry of everything installed.

    `block`: names of entry points or distributions that are not even imported. `no_plugins`: only
    what ships with robeval. `strict`: a broken plug-in is an error, not merely set aside.
    Raises `PluginError` for two owners of one name, and for a broken plug-in if `strict`.
    """
    points = importlib.metadata.entry_points(group=GROUP)
    sources = [_source(point) for point in points]
    if no_plugins:
        own = _canonical(OWN_DISTRIBUTION)
        sources = [s for s in sources if _canonical(s.plugin.distribution) == own]
    return assemble(sources, block=block, strict=strict)


def build(modules: Iterable[object]) -> Registry:
    """The registry of the given modules or objects with hooks, without entry points.

    Raises `PluginError` for anything wrong with them.
    """
    return assemble([_source_of(module) for module in modules], strict=True)


def assemble(
    sources: Iterable[Source], *, block: Collection[str] = (), strict: bool = False
) -> Registry:
    """The registry of `sources`, loaded in the order of (distribution, name); see `load`."""
    blocked = {_canonical(name) for name in block}
    ordered = sorted(sources, key=lambda s: (_canonical(s.plugin.distribution), s.plugin.name))
    ready = [s for s in ordered if not _names(s.plugin) & blocked]
    _refuse_twins(s.plugin for s in ready)
    opened: list[tuple[Plugin, tuple[Spec, ...]]] = []
    for source in ordered:
        if source in ready:
            opened.append(_open(source, strict))
        else:
            reason = "blocked by name (-p no:NAME or ROBEVAL_DISABLE_PLUGINS)"
            opened.append((replace(source.plugin, status="blocked", reason=reason), ()))
    return Registry(
        attacks=_owned(AttackSpec, "attack", opened),
        models=_owned(ModelSpec, "model", opened),
        datasets=_owned(DatasetSpec, "dataset", opened),
        analyses=_owned(AnalysisSpec, "analysis", opened),
        reporters=_owned(ReporterSpec, "reporter", opened),
        executors=_owned(ExecutorSpec, "executor", opened),
        plugins=tuple(plugin for plugin, _ in opened),
    )


def implementation(registered: Registered[Spec]) -> Callable[..., object]:
    """The object that does the work, imported now if the spec names it as text.

    Raises `PluginError` naming the plug-in and the cause.
    """
    target = registered.spec.implementation
    if not isinstance(target, str):
        return target
    module, _, name = target.partition(":")
    subject = f"{registered.plugin}: implementation '{target}' of '{registered.spec.name}'"
    try:
        found: object = reduce(getattr, name.split("."), import_module(module))
    except (Exception, SystemExit) as error:
        raise PluginError(f"{subject} cannot be imported: {cause(error)}") from error
    if not callable(found):
        raise PluginError(f"{subject} is {type(found).__name__}, expected something to call")
    return found


def source_hash(registered: Registered[Spec]) -> str:
    """Hex sha256 of the file that holds the implementation, for content ids.

    Inside a package the files beside it count too: an attack's helpers decide its numbers.

    A module named as text is found without importing it (its parent packages are imported). Where
    there is no file, the distribution's name and version stand for it.
    Raises `PluginError` if the module that the text names does not exist.
    """
    target = registered.spec.implementation
    path = _named_file(registered, target) if isinstance(target, str) else _file_of(target)
    if path is not None:
        sources = sorted(path.parent.glob("*.py")) if _in_package(path) else [path]
        return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    plugin = registered.plugin
    return hashlib.sha256(f"{plugin.distribution} {plugin.version}".encode()).hexdigest()


def unused(block: Collection[str], registry: Registry) -> list[str]:
    """The names in `block` that no installed plug-in or distribution has."""
    there = {name for plugin in registry.plugins for name in _names(plugin)}
    return [name for name in block if _canonical(name) not in there]


def missing(registry: Registry, kind: SpecKind, name: str) -> str:
    """What to tell a user whose suite names a spec that is not there; `  help:` lines follow."""
    names = registry.names(kind)
    helps = list(did_you_mean(name, names)) or [f"installed: {listed(names)}"]
    for plugin in registry.plugins:
        if plugin.status == "broken":
            helps.append(f"{plugin} could not be loaded: {plugin.reason}")
        elif plugin.status == "blocked":
            helps.append(f"{plugin} is {plugin.reason}")
    return "\n  help: ".join([f"unknown {WORDS.get(kind, kind)} '{name}'", *helps])


# ---------------------------------------------------------------- from entry point to specs


def _source(point: importlib.metadata.EntryPoint) -> Source:
    dist = point.dist
    plugin = Plugin(
        name=point.name,
        distribution=dist.name if dist else "unknown",
        version=dist.version if dist else "unknown",
        origin=str(dist.locate_file("")) if dist else "",
    )
    return Source(plugin=plugin, load=point.load)


def _source_of(module: object) -> Source:
    name = getattr(module, "__name__", type(module).__qualname__)
    package = str(getattr(module, "__module__", name)).partition(".")[0]
    plugin = Plugin(name=name, distribution=package, version="unknown", origin="")
    return Source(plugin=plugin, load=lambda: module)


def _open(source: Source, strict: bool) -> tuple[Plugin, tuple[Spec, ...]]:
    plugin = source.plugin
    try:
        loaded = source.load()
        plugin = replace(plugin, origin=str(getattr(loaded, "__file__", None) or plugin.origin))
        hooks, specs = collect(loaded)
    except (Exception, SystemExit) as error:
        if strict:
            raise PluginError(f"{plugin} could not be loaded: {cause(error)}") from error
        text = "".join(traceback.format_exception(error))
        return replace(plugin, status="broken", reason=cause(error), traceback=text), ()
    return replace(plugin, hooks=hooks), specs


def _refuse_twins(plugins: Iterable[Plugin]) -> None:
    seen: dict[str, Plugin] = {}
    for plugin in plugins:
        first = seen.setdefault(plugin.name, plugin)
        if first is not plugin:
            raise PluginError(
                f"two plug-ins are called '{plugin.name}': one of distribution "
                f"{first.distribution}, one of distribution {plugin.distribution}; "
                "uninstall one, or block one by its distribution's name"
            )


def _owned(
    cls: type[S], kind: SpecKind, opened: Iterable[tuple[Plugin, tuple[Spec, ...]]]
) -> Mapping[str, Registered[S]]:
    owners: dict[str, Registered[S]] = {}
    for plugin, specs in opened:
        for spec in specs:
            if not isinstance(spec, cls):
                continue
            first = owners.setdefault(spec.name, Registered(spec=spec, plugin=plugin))
            if first.plugin is not plugin:
                raise PluginError(
                    f"two plug-ins give {WORDS.get(kind, kind)} '{spec.name}': "
                    f"{first.plugin}, and {plugin}; uninstall or block (-p no:NAME) one of them"
                )
    return MappingProxyType(dict(sorted(owners.items())))


# ---------------------------------------------------------------- where the code stands


def _named_file(registered: Registered[Spec], target: str) -> Path | None:
    module = target.partition(":")[0]
    subject = f"{registered.plugin}: implementation '{target}' of '{registered.spec.name}'"
    try:
        found = importlib.util.find_spec(module)
    except (Exception, SystemExit) as error:
        raise PluginError(f"{subject} cannot be found: {cause(error)}") from error
    if found is None:
        raise PluginError(f"{subject} cannot be found: there is no module '{module}'")
    return Path(found.origin) if found.has_location and found.origin else None


def _file_of(target: Callable[..., object]) -> Path | None:
    while isinstance(target, partial):
        target = target.func
    inner = inspect.unwrap(target)
    holder = inner if inspect.isroutine(inner) or inspect.isclass(inner) else type(inner)
    try:
        name = inspect.getsourcefile(holder)
    except TypeError:  # built into the interpreter or an extension
        return None
    return Path(name) if name is not None and Path(name).is_file() else None


def _in_package(path: Path) -> bool:
    return path.with_name("__init__.py").is_file()


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).casefold()


def _names(plugin: Plugin) -> set[str]:
    return {_canonical(plugin.name), _canonical(plugin.distribution)}
