"""What `robeval plugins` shows: plug-ins with provenance, and the names that they add."""

from __future__ import annotations

from collections.abc import Mapping

from .plugins import Plugin, Registered, Registry
from .types import Json


def _kinds(registry: Registry) -> dict[str, Mapping[str, Registered]]:  # type: ignore[type-arg]
    return {
        "attacks": registry.attacks,
        "models": registry.models,
        "datasets": registry.datasets,
        "analyses": registry.analyses,
        "reporters": registry.reporters,
        "executors": registry.executors,
    }


def as_json(registry: Registry) -> dict[str, Json]:
    """Plug-ins and specs as plain values."""
    listing: dict[str, Json] = {
        "plugins": [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "origin": plugin.origin,
                "status": plugin.status,
                "reason": plugin.reason,
                "hooks": list(plugin.hooks),
            }
            for plugin in registry.plugins
        ]
    }
    for kind, specs in _kinds(registry).items():
        listing[kind] = [
            {
                "name": name,
                "distribution": registered.plugin.distribution,
                "summary": registered.spec.summary,
            }
            for name, registered in specs.items()
        ]
    return listing


def lines(registry: Registry, *, causes: bool) -> list[str]:
    """The same for a reader; `causes`: with the traceback of every broken plug-in."""
    text = [_plugin(plugin) for plugin in registry.plugins]
    if causes:
        for plugin in registry.plugins:
            if plugin.status == "broken":
                text += ["", f"{plugin}: {plugin.reason}", plugin.traceback.rstrip()]
    for kind, specs in _kinds(registry).items():
        if specs:
            text += ["", f"{kind}:"]
            text += [f"  {name:18}  {entry.spec.summary}" for name, entry in specs.items()]
    return text


def _plugin(plugin: Plugin) -> str:
    reason = f"  {plugin.reason}" if plugin.reason else ""
    return f"{plugin.status:8} {plugin.name:20} {plugin.distribution} {plugin.version}{reason}"
