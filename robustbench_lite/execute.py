"""Plan -> stream of CellResult: groups, batches, out-of-memory and failures.

Cells that share dataset, source and attack form a group: each batch is crafted once per eps and
judged on every target. How batches are cut never changes a number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import cast

import torch

from . import sequential
from .advance import Advance
from .group import MODEL_CLASSES, PARITY_DIFFERENCE, PARITY_TOLERANCE, Failure, Group
from .ledger import Tables, in_order
from .plugins import Registry, implementation
from .records import join
from .samples import Selected
from .stock import Stock, too_few_classes
from .turns import models, turns
from .types import (
    CLEAN,
    Cell,
    CellResult,
    CellStatus,
    LoadedModel,
    Observer,
    PartStore,
    Places,
    Plan,
    Samples,
    Selection,
    Suite,
    Terms,
)

GALLERY = 8  # examples kept per cell
SHARD = 1000  # samples per stored part
BATCH = {"cpu": 250, "cuda": 1000}
EVERYTHING = Terms()
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
    terms: Terms = EVERYTHING,
    claim: Callable[[Sequence[Cell]], bool] = lambda _: True,
) -> Iterator[CellResult]:
    """Compute the cells whose ids are in `todo`, one result at a time, clean cells first.

    `batch_size`, `shard` None: chosen here. `stored(cell id)`: samples of a cell finished earlier
    (clean cells that are not in `todo`). A cell that the deadline of `terms` leaves unfinished has
    no result. `claim(cells of a group)`: whether the group is for this call, asked as its turn
    comes. Raises PluginError before anything runs if the code of a plug-in that is needed
    cannot be imported.
    """
    unique = {cell.id: cell for cell in reversed(plan.cells)}
    firsts = [cell for cell in plan.cells if unique[cell.id] is cell]
    wanted = [cell for cell in firsts if cell.id in todo]
    members = {name: part.members for name, part in plan.models.items() if part.members}
    _import_all(suite, wanted, members, registry)
    stock = Stock(suite, registry, places, device, threads, members, plan)
    runner = _Runner(plan, registry, stock, stored, terms, claim)
    runner.advance = Advance(
        plan,
        registry,
        stock,
        parts,
        observer,
        runner.clean_pass,
        batch_size or BATCH[torch.device(device).type],
        shard or SHARD,
        terms,
        self_test=suite.self_test,
    )
    runner.todo = {cell.id for cell in wanted if cell.skip is None}
    for cell in wanted:
        if cell.skip is not None:
            yield runner.without_samples(cell, "skipped", cell.skip)
    runnable = [cell for cell in firsts if cell.id in runner.todo or _carries_into(cell, wanted)]
    order = turns(plan, runnable, selections, terms.first)
    for at, (dataset, groups) in enumerate(order):
        later = {name for _, waiting in order[at + 1 :] for name in models(waiting)}
        yield from runner.dataset(dataset, selections[dataset], groups, later)


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
    """What lives across groups: the stock, the clean tables."""

    def __init__(
        self,
        plan: Plan,
        registry: Registry,
        stock: Stock,
        stored: Callable[[str], Samples | None],
        terms: Terms,
        claim: Callable[[Sequence[Cell]], bool],
    ) -> None:
        self.plan = plan
        self.registry = registry
        self.stock = stock
        self.stored = stored
        self.terms = terms
        self.claim = claim
        self.clean: dict[tuple[str, str], Samples | Failure] = {}
        self.todo: set[str] = set()
        self.advance: Advance

    def dataset(
        self, name: str, selection: Selection, groups: Sequence[Group], later: Collection[str]
    ) -> Iterator[CellResult]:
        """Some groups of one dataset; models not needed `later` are let go of as they finish."""
        selected: Selected | Failure | None = None
        waiting = list(groups)
        while waiting and self.advance.left() > 0:
            current = waiting.pop(0)
            if not self.claim(current.cells):
                continue
            if selected is None:
                selected = self.stock.selected(name, selection)
                if isinstance(selected, Selected):
                    self.stock.open(selected, len(models(groups)))
            if isinstance(selected, Failure):
                yield from self._failed_all(current.cells, selected)
            else:
                yield from self._group(selected, current)
                self.stock.release(models(waiting) | set(later))
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
        tables = self.advance.group(selected, Group(group.source, tuple(alive)), source, self.todo)
        for cell in alive:
            if cell.id in self.todo and tables.ended(cell):
                yield self._result(selected, cell, tables)

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
        clean = self.clean_pass(selected.name, cell.model)
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

    def clean_pass(self, dataset: str, model: str) -> Samples | Failure:
        """The clean table of a model on a dataset, or why there is none."""
        key = (dataset, model)
        if key not in self.clean:
            clean = (cell for cell in self.plan.cells if cell.attack == CLEAN)
            cell = next(cell for cell in clean if (cell.dataset, cell.model) == key)
            found = self.stored(cell.id)
            missing = Failure(f"there is no clean pass of model '{model}' on '{dataset}'")
            self.clean[key] = missing if found is None else found
        return self.clean[key]

    def _result(self, selected: Selected, cell: Cell, tables: Tables) -> CellResult:
        if cell.id in tables.failures:
            return self._failed(cell, tables.failures[cell.id])
        parts = tables.kept(cell)
        samples, examples, observed = join(parts, GALLERY)
        samples, examples = in_order(samples, examples, selected.ids)
        at = tables.stopped.get(cell.id, selected.n)
        assert len(samples.label) == at, (cell.id, len(samples.label), at)
        model = cast("LoadedModel", self.stock.model(cell.model))
        if cell.attack == CLEAN:
            self.clean[cell.dataset, cell.model] = samples
            observed[MODEL_CLASSES] = model.num_classes
        if model.verify is not None and cell.source == cell.model:
            observed |= self._parity_figures(selected, cell, model)
        gates = self.terms.stops.get(cell.id, ())
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
            stopped="" if at == selected.n else sequential.told(gates, at, selected.n),
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
            batch_size=self.advance.batch_size,
        )
