"""Plan -> stream of CellResult: groups, batches, out-of-memory and failures.

Cells that share dataset, source and attack form a group: each batch is crafted once per eps and
judged on every target. How batches are cut never changes a number.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import cast

import torch

from . import preflight
from .craft import CHANGED_MODEL, changes_itself, fingerprint
from .errors import EnvironmentProblem
from .group import (
    PARITY_DIFFERENCE,
    PARITY_TOLERANCE,
    Failure,
    Group,
    Tables,
    clean_chunk,
    out_of_memory,
    split,
    take,
)
from .params import Params
from .plugins import Registry, implementation
from .records import join
from .samples import Selected
from .stock import Stock, named, too_few_classes
from .trial import look
from .types import (
    CLEAN,
    Cell,
    CellResult,
    CellStatus,
    LoadedModel,
    Observer,
    Part,
    PartStore,
    Places,
    Plan,
    Samples,
    Selection,
    Suite,
)
from .work import attack

log = logging.getLogger(__name__)

GALLERY = 8  # examples kept per cell
SHARD = 1000  # samples per stored part
BATCH = {"cpu": 250, "cuda": 1000}
NOT_NEEDED = "not needed: the gradients of its source can be used"


def cells(
    suite: Suite,
    plan: Plan,
    todo: Collection[str],
    *,
    registry: Registry,
    places: Places,
    device: str,
    threads: int,
    batch_size: int | None,
    shard: int | None,
    selections: Mapping[str, Selection],
    parts: PartStore,
    stored: Callable[[str], Samples | None],
    observer: Observer,
) -> Iterator[CellResult]:
    """Compute the cells whose ids are in `todo`, one result at a time, clean cells first.

    `batch_size`, `shard` None: chosen here. `stored(cell id)`: samples of a cell finished earlier
    (clean cells that are not in `todo`). Raises PluginError before anything runs if the code of a
    plug-in that is needed cannot be imported.
    """
    unique = {cell.id: cell for cell in reversed(plan.cells)}
    firsts = [cell for cell in plan.cells if unique[cell.id] is cell]
    wanted = [cell for cell in firsts if cell.id in todo]
    members = {name: part.members for name, part in plan.models.items() if part.members}
    _import_all(suite, wanted, members, registry)
    stock = Stock(suite, registry, places, device, threads, members, plan)
    size = batch_size or BATCH[torch.device(device).type]
    runner = _Runner(
        plan,
        registry,
        stock,
        parts,
        stored,
        observer,
        size,
        shard or SHARD,
        self_test=suite.self_test,
    )
    runner.todo = {cell.id for cell in wanted if cell.skip is None}
    for cell in wanted:
        if cell.skip is not None:
            yield runner.without_samples(cell, "skipped", cell.skip)
    runnable = [cell for cell in firsts if cell.id in runner.todo or _carries_into(cell, wanted)]
    waiting = {name: [cell for cell in runnable if cell.dataset == name] for name in plan.datasets}
    for dataset in plan.datasets:
        mine = waiting.pop(dataset)
        later = {name for cells in waiting.values() for c in cells for name in (c.model, c.source)}
        if mine:
            yield from runner.dataset(dataset, selections[dataset], mine, later)


def _import_all(
    suite: Suite, wanted: Sequence[Cell], members: Mapping[str, Sequence[str]], registry: Registry
) -> None:
    models = {entry.name: entry.loader for entry in suite.models}
    datasets = {entry.name: entry.loader for entry in suite.datasets}
    for name in dict.fromkeys(name for cell in wanted for name in (cell.model, cell.source)):
        for member in members.get(name, (name,)):
            implementation(registry.models[models[member]])
    for name in dict.fromkeys(cell.dataset for cell in wanted):
        implementation(registry.datasets[datasets[name]])
    for name in dict.fromkeys(cell.attack for cell in wanted if cell.attack != CLEAN):
        implementation(registry.attacks[name])


def _carries_into(cell: Cell, wanted: Sequence[Cell]) -> bool:
    """Whether a wanted cell starts from what this finished one has broken: it is run again."""
    return any(
        cell.eps in other.carried
        and (cell.entry, cell.model, cell.dataset) == (other.entry, other.model, other.dataset)
        for other in wanted
    )


class _Runner:
    """What lives across groups: the stock, clean tables, the batch size in force."""

    def __init__(
        self,
        plan: Plan,
        registry: Registry,
        stock: Stock,
        parts: PartStore,
        stored: Callable[[str], Samples | None],
        observer: Observer,
        batch_size: int,
        shard: int,
        *,
        self_test: bool,
    ) -> None:
        self.plan = plan
        self.registry = registry
        self.stock = stock
        self.parts = parts
        self.stored = stored
        self.observer = observer
        self.batch_size = batch_size
        self.shard = shard
        self.self_test = self_test
        self.clean: dict[tuple[str, str], Samples | Failure] = {}
        self.todo: set[str] = set()

    def dataset(
        self, name: str, selection: Selection, cells: Sequence[Cell], later: Collection[str]
    ) -> Iterator[CellResult]:
        """Every cell of one dataset; models not needed `later` are let go of as they finish."""
        selected = self.stock.selected(name, selection)
        if isinstance(selected, Failure):
            yield from self._failed_all(cells, selected)
            return
        names = {cell.source for cell in cells} | {cell.model for cell in cells}
        self.stock.open(selected, len(names))
        waiting = split(cells)
        while waiting:
            current = waiting.pop(0)
            yield from self._group(selected, current)
            needed = {name for g in waiting for c in g.cells for name in (c.model, c.source)}
            self.stock.release(needed | set(later))
        self.stock.drop_batches()

    def _group(self, selected: Selected, group: Group) -> Iterator[CellResult]:
        source = self.stock.model(group.source)
        if not isinstance(source, Failure):
            source = too_few_classes(selected, group.source, source) or source
        if isinstance(source, Failure):
            yield from self._failed_all(group.cells, source)
            return
        alive: list[Cell] = []
        for cell in group.cells:
            problem = self._target_problem(selected, cell, source)
            if problem is None:
                alive.append(cell)
            else:
                yield from self._failed_all([cell], problem)
        refusal = self._no_gradient(selected, group, source)
        if refusal is not None:
            skipped = [cell for cell in alive if cell.id in self.todo]
            yield from (self.without_samples(cell, "skipped", refusal) for cell in skipped)
            return
        tables = self._run(selected, Group(group.source, tuple(alive)), source)
        for cell in alive:
            if cell.id in self.todo:
                yield self._result(selected, cell, tables)

    def _run(self, selected: Selected, group: Group, source: LoadedModel) -> Tables:
        starts = range(0, selected.n, self.shard)
        spans = [(start, min(start + self.shard, selected.n)) for start in starts]
        tables = Tables(group.cells, self.parts, self.todo, spans)
        before = fingerprint(source.differentiable)
        for start, stop in spans:
            observed: dict[str, float] = {}
            if start == 0 and tables.missing(start, stop):
                observed |= look(
                    group,
                    source,
                    selected,
                    stock=self.stock,
                    registry=self.registry,
                    plan=self.plan,
                    batch_size=self.batch_size,
                    self_test=self.self_test,
                )
            self._span(selected, group, tables, source, start, stop)
            if fingerprint(source.differentiable) != before:
                batch = self.stock.batch(selected, 0, 1)
                observed |= {} if changes_itself(source, batch.x) else {CHANGED_MODEL: 1}
                self.stock.forget(group.source)
            tables.close(start, stop, self.batch_size, observed)
        return tables

    def _span(
        self,
        selected: Selected,
        group: Group,
        tables: Tables,
        source: LoadedModel,
        start: int,
        stop: int,
    ) -> None:
        missing = tables.missing(start, stop)
        position = start
        while missing and position < stop:
            end = min(position + self.batch_size, stop)
            try:
                self._batch(selected, group, tables, missing, source, position, end)
            except Exception as problem:  # noqa: BLE001  (whatever a model or a dataset raises)
                if out_of_memory(problem) and end - position > 1:
                    self._halve(end - position)
                    continue
                failure = _failure(group, problem, position, end)
                for cell in missing:
                    tables.add(cell, failure)
            position = end
            missing = [cell for cell in missing if cell.id not in tables.failures]
            for cell in missing:
                self._tell(cell, tables, selected.n)

    def _batch(
        self,
        selected: Selected,
        group: Group,
        tables: Tables,
        missing: Sequence[Cell],
        source: LoadedModel,
        start: int,
        stop: int,
    ) -> None:
        batch = self.stock.batch(selected, start, stop)
        if group.cells[0].attack == CLEAN:
            chunk = clean_chunk(source, batch)
            counts = preflight.counts(chunk.samples)
            observed = {**chunk.observed, **counts}
            tables.add(missing[0], dataclasses.replace(chunk, observed=observed))
            return
        names = dict.fromkeys(cell.model for cell in missing)
        registered = self.registry.attacks[group.cells[0].attack]
        rows = attack(
            registered.spec,
            implementation(registered),
            missing,
            batch,
            self.stock.memory(group.source, source, batch),
            targets={name: cast("LoadedModel", self.stock.model(name)) for name in names},
            clean={
                name: take(cast("Samples", self._clean(selected.name, name)), start, stop)
                for name in names
            },
            seed=self.plan.seed,
            params=cast("Params", self.plan.arguments[missing[0].id]),
            clock=tables.clock,
        )
        for cell in missing:
            tables.add(cell, rows[cell.id])

    def _target_problem(
        self, selected: Selected, cell: Cell, source: LoadedModel
    ) -> Failure | None:
        model = self.stock.model(cell.model)
        if isinstance(model, Failure):
            return model
        few = too_few_classes(selected, cell.model, model)
        if few is not None:
            return few
        if cell.attack == CLEAN:
            return self.stock.refusal(selected, cell.model, model)
        classes = min(model.num_classes, source.num_classes)
        if cell.target is not None and cell.target.isdecimal() and int(cell.target) >= classes:
            return Failure(
                f"target: class {cell.target} does not exist; the classes are 0 to {classes - 1}"
            )
        clean = self._clean(selected.name, cell.model)
        return clean if isinstance(clean, Failure) else None

    def _no_gradient(self, selected: Selected, group: Group, source: LoadedModel) -> str | None:
        """Why the group is skipped: its gradients cannot be had, or its stand-in is not needed."""
        first = group.cells[0]
        if first.attack == CLEAN:
            return None
        needs = self.registry.attacks[first.attack].spec.access == "gradient"
        if not needs and first.fallback_for is None:
            return None
        reason = source.no_gradient
        if source.differentiable is not None:
            parity = self.stock.parity(selected, group.source, source, self.plan.seed)
            reason = "" if parity is None else parity.reason
        elif not reason:
            reason = "the model gives no gradients"
        if needs:
            return f"model '{group.source}': {reason}" if reason else None
        return None if reason else NOT_NEEDED

    def _clean(self, dataset: str, model: str) -> Samples | Failure:
        key = (dataset, model)
        if key not in self.clean:
            clean = (cell for cell in self.plan.cells if cell.attack == CLEAN)
            cell = next(cell for cell in clean if (cell.dataset, cell.model) == key)
            found = self.stored(cell.id)
            missing = Failure(f"there is no clean pass of model '{model}' on '{dataset}'")
            self.clean[key] = missing if found is None else found
        return self.clean[key]

    def _halve(self, size: int) -> None:
        self.batch_size = max(1, size // 2)
        self.stock.drop_batches()
        log.warning("out of memory at batch size %d: going on with %d", size, self.batch_size)

    def _tell(self, cell: Cell, tables: Tables, total: int) -> None:
        done, robust = tables.progress(cell)
        try:
            self.observer.advanced(cell, done, total, robust)
        except Exception:  # an observer never changes a result
            log.exception("progress display failed")

    def _result(self, selected: Selected, cell: Cell, tables: Tables) -> CellResult:
        if cell.id in tables.failures:
            return self._failed(cell, tables.failures[cell.id])
        parts: Sequence[Part] = tables.parts[cell.id]
        samples, examples, observed = join(parts, GALLERY)
        assert len(samples.label) == selected.n, (cell.id, len(samples.label), selected.n)
        if cell.attack == CLEAN:
            self.clean[cell.dataset, cell.model] = samples
        model = cast("LoadedModel", self.stock.model(cell.model))
        if model.verify is not None and cell.source == cell.model:
            observed |= self._parity_figures(selected, cell, model)
        return CellResult(
            cell=cell,
            status="ok",
            reason="",
            samples=samples,
            examples=examples,
            observed=observed,
            seconds=sum(part.seconds for part in parts),
            device=model.device,
            provider=model.provider,
            batch_size=max(part.batch_size for part in parts),
        )

    def _parity_figures(
        self, selected: Selected, cell: Cell, model: LoadedModel
    ) -> dict[str, float]:
        if cell.attack == CLEAN or self.registry.attacks[cell.attack].spec.access != "gradient":
            return {}
        parity = self.stock.parity(selected, cell.model, model, self.plan.seed)
        assert parity is not None
        return {PARITY_DIFFERENCE: parity.difference, PARITY_TOLERANCE: parity.tolerance}

    def _failed_all(self, cells: Sequence[Cell], failure: Failure) -> Iterator[CellResult]:
        yield from (self._failed(cell, failure) for cell in cells if cell.id in self.todo)

    def _failed(self, cell: Cell, failure: Failure) -> CellResult:
        if cell.attack == CLEAN:
            self.clean[cell.dataset, cell.model] = failure
        return dataclasses.replace(
            self.without_samples(
                cell, "timeout" if failure.timed_out else "failed", failure.reason
            ),
            traceback=failure.traceback,
            environment=failure.environment,
        )

    def without_samples(self, cell: Cell, status: CellStatus, reason: str) -> CellResult:
        """A skipped or failed cell."""
        return CellResult(
            cell=cell,
            status=status,
            reason=reason,
            samples=None,
            examples=None,
            seconds=0.0,
            device=str(self.stock.device),
            provider="",
            batch_size=self.batch_size,
        )


def _failure(group: Group, problem: Exception, start: int, stop: int) -> Failure:
    """What went wrong outside the attack: in the data, the model, or for want of memory."""
    if isinstance(problem, EnvironmentProblem):
        return named(group.source, problem)
    if out_of_memory(problem):
        return Failure.of("out of memory even for one sample", problem, environment=True)
    what = f"model '{group.source}' failed on samples {start} to {stop - 1}"
    return Failure.of(what, problem, environment=group.cells[0].attack == CLEAN)
