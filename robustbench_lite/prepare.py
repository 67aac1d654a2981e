"""From options to a plan: everything before the first weight is loaded, and nothing heavy."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import needs, plugins
from . import plan as planning
from . import suite as suites
from .choose import choose
from .errors import NothingSelected
from .plugins import Registry
from .types import Places, Plan, Suite

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line chose; see `robeval run --help`."""

    output: Path | None = None
    device: str = "auto"
    threads: int | None = None
    batch_size: int | None = None
    jobs: int = 1
    shard: int | None = None
    seed: int | None = None
    limit: int | None = None
    time_budget: float | None = None
    no_examples: bool = False
    select: str | None = None
    resume: bool = False
    retry_errors: bool = False
    refresh: bool = False
    overrides: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    no_plugins: bool = False
    strict: bool = False
    executor: str = "local"
    baseline: Path | None = None
    data: Path | None = None
    cache: Path = Path(".robeval")
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    argv: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Everything before the first weight is loaded."""

    registry: Registry
    suite: Suite
    plan: Plan
    places: Places


def registry_of(options: Options) -> Registry:
    """What is installed, less what is blocked; a name that blocks nothing is warned of."""
    found = plugins.load(block=options.block, no_plugins=options.no_plugins, strict=options.strict)
    for name in () if options.no_plugins else plugins.unused(options.block, found):
        log.warning(
            "'%s' blocks nothing (-p, ROBEVAL_DISABLE_PLUGINS): no installed plug-in or"
            " distribution has that name; `robeval plugins` lists them",
            name,
        )
    return found


def prepare(path: Path, options: Options) -> Prepared:
    """Text to plan. Raises SuiteError, PluginError or EnvironmentProblem; nothing has run."""
    registry = registry_of(options)
    places = Places(suite=path.parent, data=options.data, cache=options.cache)
    suite = suites.load(path, registry, overrides=options.overrides, env=options.env, places=places)
    for folder in suite.python_path:
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    plan = planning.make(suite, registry, places, seed=options.seed, limit=options.limit)
    needs.stops(suite.gates, plan.cells)  # tells of gates that cannot be sequential
    if options.select is not None:
        plan = choose(plan, options.select)
    if not plan.cells:
        raise NothingSelected(
            f"no cell of '{path}' is left to run"
            + (f" by -k '{options.select}'" if options.select else "; give it models and datasets")
        )
    return Prepared(registry=registry, suite=suite, plan=plan, places=places)
