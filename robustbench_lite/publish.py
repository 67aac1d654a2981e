"""The reports of a run, each by its plug-in; one that fails keeps none of the others."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from . import plugins, store
from .errors import FOREIGN, EnvironmentProblem
from .plugins import Registry
from .raised import cause
from .store import StoredRun

log = logging.getLogger(__name__)


def publish(run: StoredRun, registry: Registry, names: Sequence[str]) -> tuple[str, ...]:
    """Write every report that `names` asks for; what could not be written, a sentence each.

    Raises `EnvironmentProblem` if the disk did not take one, after the others were tried.
    """
    problems: list[str] = []
    disk: EnvironmentProblem | None = None
    for name in names:
        if name not in registry.reporters:
            problems.append(plugins.missing(registry, "reporter", name))
            continue
        try:
            with store.naming_disk_problems(run.path):
                plugins.implementation(registry.reporters[name])(run)
        except EnvironmentProblem as problem:
            disk = disk or problem
        except FOREIGN as problem:  # of this report alone: the verdict stands
            log.info("report '%s' could not be written", name, exc_info=True)
            plugin = registry.reporters[name].plugin
            problems.append(f"report '{name}' of {plugin} could not be written: {cause(problem)}")
    if disk is not None:
        raise disk
    return tuple(problems)
