"""The samples of one group, batch by batch: spans, batches, out of memory, and the deadline."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import cast

from . import candidates, preflight, sequential
from .craft import CHANGED_MODEL, changes_itself, fingerprint
from .errors import FOREIGN, EnvironmentProblem
from .group import Failure, Group, clean_chunk, out_of_memory
from .ledger import Clock, Tables, aligned, same_data
from .lookback import LookBack
from .params import Params
from .plugins import Registry, implementation
from .samples import Selected
from .stock import Stock, named
from .trial import look
from .types import CLEAN, Cell, LoadedModel, Observer, PartStore, Plan, Samples, Terms
from .work import attack

log = logging.getLogger(__name__)


class Advance:
    """What takes a group through its samples; the batch size in force lives across groups.

    `clean(dataset, model)`: the clean table of a model, or why there is none.
    """

    def __init__(
        self,
        plan: Plan,
        registry: Registry,
        stock: Stock,
        parts: PartStore,
        observer: Observer,
        clean: Callable[[str, str], Samples | Failure],
        batch_size: int,
        shard: int,
        terms: Terms,
        *,
        self_test: bool,
    ) -> None:
        self.batch_size = batch_size
        self._plan = plan
        self._registry = registry
        self._stock = stock
        self._parts = parts
        self._observer = observer
        self._clean = clean
        self._shard = shard
        self._terms = terms
        self._self_test = self_test
        self._look_back = LookBack(stock, plan.seed)

    def left(self) -> float:
        """Seconds before the deadline."""
        return self._terms.deadline - time.monotonic()

    def group(
        self, selected: Selected, group: Group, source: LoadedModel, todo: Collection[str]
    ) -> Tables:
        """Run what is missing of a group, up to its last sample, its stop or the deadline."""
        stops = {c.id: self._terms.stops[c.id] for c in group.cells if c.id in self._terms.stops}
        running = selected
        if stops:
            running = selected.reordered(sequential.order(selected.ids, self._plan.seed))
        tables = Tables(group.cells, self._parts, todo, running.ids, stops)
        before = fingerprint(source.differentiable)
        for start, stop in tables.spans(self._shard):
            observed: dict[str, float] = {}
            if start == 0 and tables.missing(start, stop):
                observed |= self._look(selected, group, source)
            reached = self._span(running, group, tables, source, start, stop)
            changed = fingerprint(source.differentiable) != before
            if changed and not changes_itself(source, self._stock.batch(selected, 0, 1).x):
                observed[CHANGED_MODEL] = 1
            elif tables.begun and (stops or stop == selected.n):  # a stop may come at any look
                observed |= self._look_back.at(group, selected, self.batch_size)
            if changed:
                self._stock.forget(group.source)
            tables.close(start, reached, self.batch_size, observed)
            if reached < stop:
                break
            tables.look(stop)
        return tables

    def _look(self, selected: Selected, group: Group, source: LoadedModel) -> dict[str, float]:
        return look(
            group,
            source,
            selected,
            stock=self._stock,
            registry=self._registry,
            plan=self._plan,
            batch_size=self.batch_size,
            self_test=self._self_test,
            seconds=self.left(),
        )

    def _span(
        self,
        selected: Selected,
        group: Group,
        tables: Tables,
        source: LoadedModel,
        start: int,
        stop: int,
    ) -> int:
        """Run what is missing of the samples `start` to `stop`; up to where there was time."""
        missing = tables.missing(start, stop)
        position = start
        while missing and position < stop:
            end = min(position + self.batch_size, stop)
            try:
                if not self._batch(selected, group, tables, missing, source, position, end):
                    return position
            except FOREIGN as problem:  # whatever a model or a dataset raises
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
        return stop

    def _batch(
        self,
        selected: Selected,
        group: Group,
        tables: Tables,
        missing: Sequence[Cell],
        source: LoadedModel,
        start: int,
        stop: int,
    ) -> bool:
        """Run one batch; False, with nothing added, if the deadline came before its end."""
        if self.left() <= 0:
            return False
        batch = self._stock.batch(selected, start, stop)
        if group.cells[0].attack == CLEAN:
            chunk = clean_chunk(source, batch)
            counts = preflight.counts(chunk.samples)
            observed = {**chunk.observed, **counts}
            tables.add(missing[0], dataclasses.replace(chunk, observed=observed))
            return True
        names = dict.fromkeys(cell.model for cell in missing)
        clean = {
            name: aligned(cast("Samples", self._clean(selected.name, name)), batch.ids)
            for name in names
        }
        for table in clean.values():
            same_data(selected.name, batch, table)
        registered = self._registry.attacks[group.cells[0].attack]
        clock = Clock(min(tables.clock.left, self.left()))
        given = clock.left
        found = attack(
            registered.spec,
            implementation(registered),
            missing,
            batch,
            self._stock.memory(group.source, source, batch),
            targets={name: cast("LoadedModel", self._stock.model(name)) for name in names},
            clean=clean,
            seed=self._plan.seed,
            params=cast("Params", self._plan.arguments[missing[0].id]),
            clock=clock,
            keep=self._kept(selected),
        )
        late = any(isinstance(each, Failure) and each.timed_out for each in found.values())
        if late and self.left() <= 0:
            return False
        tables.clock.left -= given - clock.left
        for cell in missing:
            tables.add(cell, found[cell.id])
        return True

    def _kept(self, selected: Selected) -> int:
        """Of how many samples the points are kept for a replay."""
        if not self._terms.keep:
            return 0
        cells = sum(cell.attack != CLEAN for cell in self._plan.cells)
        return candidates.room(cells, selected.shape)

    def _halve(self, size: int) -> None:
        self.batch_size = max(1, size // 2)
        self._stock.drop_batches()
        log.warning("out of memory at batch size %d: going on with %d", size, self.batch_size)

    def _tell(self, cell: Cell, tables: Tables, total: int) -> None:
        done, robust = tables.progress(cell)
        try:
            self._observer.advanced(cell, done, total, robust)
        except Exception:  # an observer never changes a result
            log.exception("progress display failed")


def _failure(group: Group, problem: BaseException, start: int, stop: int) -> Failure:
    """What went wrong outside the attack: in the data, the model, or for want of memory."""
    if isinstance(problem, EnvironmentProblem):
        return named(group.source, problem)
    if out_of_memory(problem):
        return Failure.of("out of memory even for one sample", problem, environment=True)
    what = f"model '{group.source}' failed on samples {start} to {stop - 1}"
    return Failure.of(what, problem, environment=group.cells[0].attack == CLEAN)
