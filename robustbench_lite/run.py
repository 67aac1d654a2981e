"""The order of the journey, from suite to verdict and reports: the only file that knows it.

Effects are here and below; the command line only chooses options and prints.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import torch

from . import diagnose, gate, identity, machine, needs, plugins, records, store, tablegate
from . import plan as planning
from . import suite as suites
from .analyse import analyse, table_path
from .assess import assess
from .blame import blaming
from .errors import EnvironmentProblem, PluginError, UsageError
from .plugins import Registry
from .prepare import Options, Prepared, prepare, registry_of
from .progress import line
from .stock import Stock
from .store import RunDirectory, StoredRun
from .types import (
    Cell,
    CellResult,
    Gate,
    Json,
    Observer,
    Places,
    Plan,
    Summary,
    Terms,
    Verdict,
)
from .versus import Baselines, chosen, overridden
from .words import slug

log = logging.getLogger(__name__)

REPORTS = Path("reports")
RETRIED = frozenset({"failed", "timeout"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A judged run."""

    run: StoredRun
    summary: Summary
    verdict: Verdict
    computed: int
    reused: int


def run(path: Path, options: Options, observer: Observer) -> Finished:
    """Run a suite to its verdict; every finished cell is kept, whatever happens after it."""
    deadline = time.monotonic() + (options.time_budget or float("inf"))
    prepared = prepare(path, options)
    terms = _terms(prepared, options, deadline)
    device = machine.device(options.device)
    threads = machine.threads(options.threads)
    torch.set_num_threads(threads)
    machine.full_precision()
    machine.keep_freed_memory()
    gates = overridden(prepared.suite.gates, options.baseline)
    baselines = chosen(gates, options.baseline)
    directory = _directory(prepared, options)
    manifest = _manifest(prepared, options, device, threads)
    manifest |= {"gates": records.gates_to_json(gates), **baselines.keep(directory.path)}
    reused = _settle(directory, prepared, options, terms, gates)
    store.write_json(directory.path / store.MANIFEST, manifest)
    directory.write_start(
        prepared.suite, prepared.plan, json.dumps(prepared.suite.resolved, indent=2)
    )
    computed = 0
    status = "interrupted"
    try:
        for result in _compute(prepared, options, directory, device, threads, observer, terms):
            directory.save(result)
            computed += result.status != "skipped"
            log.info("%s", line(result))
            _tell(observer, result)
        status = "finished"
    finally:
        ended = _ended(directory.path, prepared.plan, options, status)
        store.write_json(directory.path / store.MANIFEST, manifest | ended)
    finished = judge_run(directory.path, gates)
    stock = stock_of(prepared, device, threads)
    analyse(finished.run, prepared.suite.analyses, prepared.registry, stock, device)
    if any(each.analysis for each in gates):
        finished = judge_run(directory.path, gates)
    finished = dataclasses.replace(finished, computed=computed, reused=reused)
    _write_reports(finished.run, prepared.registry, prepared.suite.reports)
    return finished


def _terms(prepared: Prepared, options: Options, deadline: float) -> Terms:
    """How the run is spent: what gates need first if time is short, and what may end early."""
    gates, cells = prepared.suite.gates, prepared.plan.cells
    return Terms(
        first=needs.needed(gates, cells) if options.time_budget is not None else (),
        deadline=deadline,
        stops=needs.stops(gates, cells),
        keep=not options.no_examples,
    )


def _ended(path: Path, plan: Plan, options: Options, status: str) -> dict[str, Json]:
    """What the manifest says of a run when it ends, however it does."""
    results = store.load_results(path, plan)
    left = len({cell.id for cell in plan.cells} - results.keys())
    unfinished = ""
    if status == "interrupted":
        unfinished = "the run was interrupted before it was finished; run again with --resume"
    elif left and options.time_budget is not None:
        status = "out of time"
        unfinished = (
            f"the time budget of {options.time_budget:g} s ended before it was finished; run again"
            " with --resume"
        )
    return {
        "status": status,
        "ended": _now(),
        "providers": {each.cell.model: each.provider for each in results.values() if each.provider},
        "unfinished": unfinished,
        "stopped": {key: each.stopped for key, each in results.items() if each.stopped},
    }


def rehearse(path: Path, options: Options) -> int:
    """Load everything and run 2 samples of every cell; how many cells. Nothing is kept.

    Raises the first failure as EnvironmentProblem (device, file, data) or PluginError (attack).
    """
    options = dataclasses.replace(options, limit=2)
    prepared = prepare(path, options)
    device, threads = machine.device(options.device), machine.threads(options.threads)
    torch.set_num_threads(threads)
    machine.full_precision()
    machine.keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        directory = store.open_directory(Path(folder) / "run", planning.plan_id(prepared.plan))
        terms = Terms(keep=False)
        for result in _compute(prepared, options, directory, device, threads, Silence(), terms):
            if result.status == "failed":
                raise (
                    EnvironmentProblem(result.reason)
                    if result.environment
                    else PluginError(result.reason)
                )
            directory.save(result)
    return len(prepared.plan.cells)


def rejudge(
    path: Path,
    suite_path: Path | None,
    options: Options,
    *,
    reports: bool,
    formats: Sequence[str] | None = None,
) -> Finished:
    """Judge a stored run again, by its own gates or those of another suite; render if asked.

    The verdict of other gates, or against another baseline, is told and not kept.
    """
    stored = store.load_run(path)
    gates = records.gates_from_json(stored.manifest.get("gates"))
    if suite_path is not None:
        places = Places(suite=suite_path.parent, data=options.data, cache=options.cache)
        suite = suites.load(
            suite_path,
            registry_of(options),
            overrides=options.overrides,
            env=options.env,
            places=places,
        )
        gates = suite.gates
    elif options.overrides:
        raise UsageError("--set changes a suite: name the suite with --suite")
    own = suite_path is None and options.baseline is None
    finished = judge_run(path, gates, options.baseline, keep=own)
    if reports:
        names = formats or cast("Sequence[str]", stored.manifest.get("reports", ()))
        _write_reports(finished.run, registry_of(options), names)
    return finished


class Silence:
    """An observer that shows nothing."""

    def advanced(self, cell: Cell, done: int, total: int, robust: int) -> None:
        """Nothing to show."""

    def finished(self, result: CellResult) -> None:
        """Nothing to show."""


def judge_run(
    path: Path, gates: Sequence[Gate], baseline: Path | None = None, *, keep: bool = True
) -> Finished:
    """Summarise and judge a stored run; needs no plug-in, model or device.

    `baseline`: takes the place of the baselines that the run was started with. `keep`: write the
    verdict and the findings into the run.
    """
    stored = store.load_run(path)
    baselines = Baselines(stored, baseline)
    gates = overridden(gates, baseline)
    on_cells = [each for each in gates if each.analysis is None]
    assessed = assess(stored, on_cells, baselines.before())
    table = assessed.summary
    compared, comparison = baselines.against(table)
    environment = [result.reason for result in stored.results.values() if result.environment]
    measured = gate.check(
        on_cells, table, assessed.lacking, samples=stored.samples, compared=compared
    )
    told = tablegate.check(gates, lambda name: table_path(path, name), partial=stored.partial)
    verdict = gate.verdict(
        (*measured, *told), table, environment=environment[0] if environment else ""
    )
    if keep:
        store.write_findings(path, table.findings)
        store.write_verdict(path, verdict)
    stored = dataclasses.replace(stored, summary=table, verdict=verdict, comparison=comparison)
    return Finished(run=stored, summary=table, verdict=verdict, computed=0, reused=0)


def _write_reports(run: StoredRun, registry: Registry, names: Sequence[str]) -> None:
    for name in names:
        if name not in registry.reporters:
            raise UsageError(plugins.missing(registry, "reporter", name))
        registered = registry.reporters[name]
        with (
            blaming(registered, f"reporter '{name}'"),
            store.naming_disk_problems(run.path),
        ):
            plugins.implementation(registered)(run)


def stock_of(prepared: Prepared, device: str, threads: int) -> Stock:
    """The models and datasets of a suite, outside of any cell."""
    return Stock(
        prepared.suite, prepared.registry, prepared.places, device, threads, plan=prepared.plan
    )


def _compute(
    prepared: Prepared,
    options: Options,
    directory: RunDirectory,
    device: str,
    threads: int,
    observer: Observer,
    terms: Terms,
) -> Iterator[CellResult]:
    registry = prepared.registry
    if options.executor not in registry.executors:
        raise UsageError(plugins.missing(registry, "executor", options.executor))
    compute = plugins.implementation(registry.executors[options.executor])
    todo = {cell.id for cell in prepared.plan.cells if not directory.has(cell.id)}
    reader = StoredRun(
        path=directory.path, manifest={}, plan=prepared.plan, suite_text="", results={}
    )
    results = compute(
        prepared.suite,
        prepared.plan,
        todo,
        registry=registry,
        places=prepared.places,
        device=device,
        threads=threads,
        batch_size=options.batch_size,
        shard=options.shard,
        selections={
            entry.name: identity.selection(entry, options.limit)
            for entry in prepared.suite.datasets
        },
        parts=directory,
        stored=reader.samples,
        observer=observer,
        terms=terms,
    )
    yield from results  # type: ignore[misc]  # an executor yields results by contract


def _tell(observer: Observer, result: CellResult) -> None:
    try:
        observer.finished(result)
    except Exception:  # an observer never changes a result
        log.exception("progress display failed")


def _directory(prepared: Prepared, options: Options) -> RunDirectory:
    plan_id = planning.plan_id(prepared.plan)
    if options.output is not None:
        return store.open_directory(options.output, plan_id)
    root = REPORTS / slug(prepared.suite.name)
    if options.resume:
        for manifest in sorted(root.glob(f"*/{store.MANIFEST}"), reverse=True):
            if store.plan_id_of(manifest.parent) == plan_id:
                return store.open_directory(manifest.parent, plan_id)
        raise UsageError(
            f"--resume: there is no run of this plan ({plan_id}) below '{root}';"
            " leave --resume away, or name the directory with -o"
        )
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return store.open_directory(root / f"{stamp}-{secrets.token_hex(3)}", plan_id)


def _settle(
    directory: RunDirectory,
    prepared: Prepared,
    options: Options,
    terms: Terms,
    gates: Sequence[Gate],
) -> int:
    """Forget what is to be computed again, adopt what another run has finished; how many."""
    plan = prepared.plan
    _forget_stopped(directory, prepared.plan, gates)
    finished = store.load_results(directory.path, plan)
    if options.retry_errors:
        broken = _invalid(plan, finished)
        for cell_id, result in finished.items():
            if result.status in RETRIED or (cell_id in broken and result.status == "ok"):
                directory.forget(cell_id)
    missing = [
        cell for cell in plan.cells if not directory.has(cell.id) and cell.id not in terms.stops
    ]
    if options.refresh:
        return 0
    found = store.find_finished(directory.path.parent, missing, directory.path)
    if options.retry_errors:
        results = {cell_id: store.load_result(folder) for cell_id, folder in found.items()}
        found = {key: found[key] for key in found.keys() - _invalid(plan, results)}
    for cell_id, folder in found.items():
        directory.adopt(cell_id, folder)
    kept = store.load_results(directory.path, plan)
    return sum(result.status != "skipped" for result in kept.values())


def _forget_stopped(directory: RunDirectory, plan: Plan, gates: Sequence[Gate]) -> None:
    """Drop cells that gates ended early which are not the gates of today."""
    if store.gates_of(directory.path) == records.gates_to_json(gates):
        return
    for cell_id, result in store.load_results(directory.path, plan).items():
        if result.stopped:
            directory.forget(cell_id)


def _invalid(plan: Plan, results: Mapping[str, CellResult]) -> set[str]:
    """Cells that a finding of severity error touches."""
    return diagnose.spoilt(diagnose.findings(plan.cells, results))


def _manifest(prepared: Prepared, options: Options, device: str, threads: int) -> dict[str, Json]:
    suite, plan = prepared.suite, prepared.plan
    return {
        "schema_version": 1,
        "status": "started",
        "started": _now(),
        "suite": suite.name,
        "suite_file": suite.path.name,
        "suite_folder": str(suite.path.parent),
        "suite_sha256": identity.text_hash(suite.text),
        "plan_id": planning.plan_id(plan),
        "waivers": records.waivers_to_json(suite.waivers),
        "self_test": suite.self_test,
        "reports": list(suite.reports),
        "partial": options.limit is not None or options.select is not None,
        "seed": plan.seed,
        "argv": list(options.argv),
        "models": {name: dict(part.files) for name, part in plan.models.items()},
        "datasets": {name: dict(part.files) for name, part in plan.datasets.items()},
        "plugins": [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "status": plugin.status,
                "reason": plugin.reason,
            }
            for plugin in prepared.registry.plugins
        ],
        **machine.facts(device, threads),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
