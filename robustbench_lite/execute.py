"""Plan -> stream of CellResult: models, devices, batches, out-of-memory and failures.

Cells that share dataset, source and attack form a group: each batch is crafted once per eps and
judged on every target. How batches are cut never changes a number.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import cast

import torch

from . import group as groups
from .access import BatchMemory
from .craft import CHANGED_MODEL, fingerprint
from .errors import EnvironmentProblem, RobevalError
from .group import (
    PARITY_DIFFERENCE,
    PARITY_TOLERANCE,
    Failure,
    Group,
    Tables,
    out_of_memory,
)
from .hookspecs import DatasetSpec, ModelSpec
from .params import Params
from .plugins import Registered, Registry, implementation
from .records import join
from .rng import SampleRng
from .samples import Selected, select
from .types import (
    CLEAN,
    Batch,
    Cell,
    CellResult,
    LoadedModel,
    Observer,
    Parity,
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
PARITY_SAMPLES = 32  # clean ones, and as many with noise
PARITY_NOISE = 0.1  # of the box width
NOT_NEEDED = "not needed: the gradients of its source can be used"
CACHE_BYTES = 512 * 2**20  # a data set that fits with its clean gradients is kept, else re-read


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How cells are computed; none of it changes a number. `shard`: samples per stored part."""

    device: str
    threads: int
    batch_size: int
    shard: int


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
    (clean cells that are not in `todo`).
    """
    settings = Settings(
        device=device,
        threads=threads,
        batch_size=batch_size or BATCH[torch.device(device).type],
        shard=shard or SHARD,
    )
    unique = {cell.id: cell for cell in reversed(plan.cells)}
    firsts = [cell for cell in plan.cells if unique[cell.id] is cell]
    wanted = [cell for cell in firsts if cell.id in todo]
    runner = _Runner(suite, plan, registry, places, settings, parts, stored, observer)
    runner.todo = {cell.id for cell in wanted if cell.skip is None}
    for cell in wanted:
        if cell.skip is not None:
            yield runner.without_samples(cell, "skipped", cell.skip)
    runnable = [cell for cell in firsts if cell.id in runner.todo or _carries_into(cell, wanted)]
    for dataset in plan.datasets:
        mine = [cell for cell in runnable if cell.dataset == dataset]
        if mine:
            yield from runner.dataset(dataset, selections[dataset], mine)


def _carries_into(cell: Cell, wanted: Sequence[Cell]) -> bool:
    """Whether a wanted cell starts from what this finished one has broken: it is run again."""
    return any(
        cell.eps in other.carried
        and (cell.entry, cell.model, cell.dataset) == (other.entry, other.model, other.dataset)
        for other in wanted
    )


class _Runner:
    """What lives across cells: loaded models, cached batches, the batch size in force."""

    def __init__(
        self,
        suite: Suite,
        plan: Plan,
        registry: Registry,
        places: Places,
        settings: Settings,
        parts: PartStore,
        stored: Callable[[str], Samples | None],
        observer: Observer,
    ) -> None:
        self.suite = suite
        self.plan = plan
        self.registry = registry
        self.places = places
        self.settings = settings
        self.parts = parts
        self.stored = stored
        self.observer = observer
        self.device = torch.device(settings.device)
        self.batch_size = settings.batch_size
        self.models: dict[str, LoadedModel | Failure] = {}
        self.clean: dict[tuple[str, str], Samples | Failure] = {}
        self.batches: dict[tuple[int, int], Batch] = {}
        self.memories: dict[tuple[str, int, int], BatchMemory] = {}
        self.parities: dict[tuple[str, str], Parity] = {}
        self.caching = False
        self.todo: set[str] = set()

    def dataset(
        self, name: str, selection: Selection, cells: Sequence[Cell]
    ) -> Iterator[CellResult]:
        """Every cell of one dataset; its data are let go of at the end."""
        selected = self._selected(name, selection)
        if isinstance(selected, Failure):
            for cell in cells:
                yield self.failed(cell, selected)
            return
        models = len({cell.source for cell in cells} | {cell.model for cell in cells})
        numel = int(torch.Size(selected.shape).numel())
        self.caching = selected.n * numel * 4 * (1 + 2 * models) <= CACHE_BYTES
        waiting = groups.split(cells)
        while waiting:
            current = waiting.pop(0)
            yield from self._group(selected, current)
            needed = {cell.model for g in waiting for cell in g.cells}
            self._release(needed | {g.source for g in waiting})
        self.batches.clear()
        self.memories.clear()

    def _group(self, selected: Selected, group: Group) -> Iterator[CellResult]:
        source = self._model(group.source)
        if isinstance(source, Failure):
            yield from (self.failed(cell, source) for cell in group.cells)
            return
        alive: list[Cell] = []
        for cell in group.cells:
            problem = self._target_problem(selected, cell)
            if problem is None:
                alive.append(cell)
            else:
                yield self.failed(cell, problem)
        if not alive:
            return
        refusal = self._no_gradient(selected, group, source)
        if refusal is not None:
            for cell in alive:
                if cell.id in self.todo:
                    yield self.without_samples(cell, "skipped", refusal)
            return
        tables = Tables(alive, self.parts, self.todo)
        before = fingerprint(source.differentiable)
        for start in range(0, selected.n, self.settings.shard):
            stop = min(start + self.settings.shard, selected.n)
            self._shard(selected, group, tables, source, start, stop)
            observed: dict[str, float] = {}
            if fingerprint(source.differentiable) != before:
                observed = {CHANGED_MODEL: 1}
                self._forget(group.source, source)
            tables.close(start, stop, self.batch_size, observed)
        for cell in alive:
            if cell.id in self.todo:
                yield self._result(cell, tables, selected.n)

    def _shard(
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
            except Exception as problem:
                if not out_of_memory(problem) or end - position == 1:
                    raise
                self._halve(end - position)
                continue
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
        batch = self._read(selected, start, stop)
        memory = self._memory(group.source, source, batch, stop)
        targets = {cell.model: cast("LoadedModel", self._model(cell.model)) for cell in missing}
        if group.cells[0].attack == CLEAN:
            cell = missing[0]
            tables.add(cell, groups.clean_chunk(source, batch))
            return
        clean = {
            name: groups.take(
                cast("Samples", self._clean_samples(selected.name, name)), start, stop
            )
            for name in targets
        }
        registered = self.registry.attacks[group.cells[0].attack]
        rows = attack(
            registered.spec,
            implementation(registered),
            missing,
            batch,
            memory,
            targets=targets,
            clean=clean,
            seed=self.plan.seed,
            params=cast("Params", self.plan.arguments[missing[0].id]),
        )
        for cell in missing:
            tables.add(cell, rows[cell.id])

    def _selected(self, name: str, selection: Selection) -> Selected | Failure:
        entry = next(entry for entry in self.suite.datasets if entry.name == name)
        registered: Registered[DatasetSpec] = self.registry.datasets[entry.loader]
        try:
            load = implementation(registered)
            source = load(entry.params, places=self.places)
            return select(name, source, selection)  # type: ignore[arg-type]  # checked by select
        except EnvironmentProblem as problem:
            return Failure(f"dataset '{name}': {problem}", environment=True)
        except RobevalError:
            raise
        except Exception as problem:  # noqa: BLE001  (a plug-in's loader may raise anything)
            return Failure.of(f"dataset '{name}' could not be loaded", problem, environment=True)

    def _model(self, name: str) -> LoadedModel | Failure:
        if name not in self.models:
            self.models[name] = self._loaded(name)
        return self.models[name]

    def _loaded(self, name: str) -> LoadedModel | Failure:
        entry = next(entry for entry in self.suite.models if entry.name == name)
        registered: Registered[ModelSpec] = self.registry.models[entry.loader]
        try:
            load = implementation(registered)
            model = load(
                entry.params,
                places=self.places,
                device=self.settings.device,
                threads=self.settings.threads,
            )
        except EnvironmentProblem as problem:
            return Failure(f"model '{name}': {problem}", environment=True)
        except Exception as problem:
            if out_of_memory(problem):
                raise
            return Failure.of(f"model '{name}' could not be loaded", problem, environment=True)
        if not isinstance(model, LoadedModel):
            found = type(model).__name__
            return Failure(
                f"model '{name}': its loader returned {found}, expected LoadedModel",
                environment=True,
            )
        return model

    def _target_problem(self, selected: Selected, cell: Cell) -> Failure | None:
        model = self._model(cell.model)
        if isinstance(model, Failure):
            return model
        highest = int(selected.labels.max())
        if highest >= model.num_classes:
            return Failure(
                f"dataset '{selected.name}' has label {highest} and model '{cell.model}' knows"
                f" classes 0 to {model.num_classes - 1}; use the model's own data or labels",
                environment=True,
            )
        if cell.attack == CLEAN:
            return self._refusal(selected, cell.model, model)
        clean = self._clean_samples(selected.name, cell.model)
        return clean if isinstance(clean, Failure) else None

    def _refusal(self, selected: Selected, name: str, model: LoadedModel) -> Failure | None:
        """Whether the model takes the data's shape at all, tried on one sample."""
        try:
            one = selected.batch(0, 1, self.device)
            groups.clean_chunk(model, one)
        except EnvironmentProblem as problem:
            return Failure(str(problem), environment=True)
        except Exception as problem:  # noqa: BLE001  (whatever a model raises on a shape)
            return Failure.of(
                f"model '{name}' refuses inputs of shape {list(selected.shape)} from dataset"
                f" '{selected.name}'",
                problem,
                environment=True,
            )
        return None

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
            parity = self._parity(selected, group.source, source)
            reason = "" if parity is None else parity.reason
        elif not reason:
            reason = "the model gives no gradients"
        if needs:
            return f"model '{group.source}': {reason}" if reason else None
        return None if reason else NOT_NEEDED

    def _parity(self, selected: Selected, name: str, model: LoadedModel) -> Parity | None:
        """The stand-in against the artefact, on clean and noisy samples, once per data set."""
        if model.verify is None:
            return None
        key = (selected.name, name)
        if key not in self.parities:
            batch = selected.batch(0, min(PARITY_SAMPLES, selected.n), self.device)
            rng = SampleRng(self.plan.seed, "twin parity", batch.keys)
            reach = PARITY_NOISE * batch.box.width
            noise = rng.uniform(selected.shape, -reach, reach)
            noisy = (batch.x + noise).clamp(batch.box.low, batch.box.high)
            self.parities[key] = model.verify(torch.cat([batch.x, noisy]))
        return self.parities[key]

    def _clean_samples(self, dataset: str, model: str) -> Samples | Failure:
        key = (dataset, model)
        if key not in self.clean:
            cell = next(
                cell
                for cell in self.plan.cells
                if cell.attack == CLEAN and (cell.dataset, cell.model) == key
            )
            found = self.stored(cell.id)
            self.clean[key] = (
                Failure(f"there is no clean pass of model '{model}' on '{dataset}'")
                if found is None
                else found
            )
        return self.clean[key]

    def _read(self, selected: Selected, start: int, stop: int) -> Batch:
        key = (start, stop)
        if key not in self.batches:
            if not self.caching:
                self.batches.clear()
                self.memories.clear()
            self.batches[key] = selected.batch(start, stop, self.device)
        return self.batches[key]

    def _memory(self, name: str, model: LoadedModel, batch: Batch, stop: int) -> BatchMemory:
        key = (name, batch.start, stop)
        if key not in self.memories:
            self.memories[key] = BatchMemory(model, batch.x, batch.y)
        return self.memories[key]

    def _release(self, needed: Collection[str]) -> None:
        for name in [name for name in self.models if name not in needed]:
            waiting = any(
                name in (cell.model, cell.source) for cell in self.plan.cells if cell.skip is None
            )
            if not waiting or isinstance(self.models[name], Failure):
                continue
            del self.models[name]
            for key in [key for key in self.memories if key[0] == name]:
                del self.memories[key]

    def _halve(self, size: int) -> None:
        self.batch_size = max(1, size // 2)
        self.batches.clear()
        self.memories.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning("out of memory at batch size %d: going on with %d", size, self.batch_size)

    def _forget(self, name: str, model: LoadedModel) -> None:
        """An attack reached the artefact's weights or mode: load it again before its next use."""
        if model.differentiable is not None:
            model.differentiable.eval()
        self.models.pop(name, None)
        self.memories.clear()

    def _tell(self, cell: Cell, tables: Tables, total: int) -> None:
        done, robust = tables.progress(cell)
        try:
            self.observer.advanced(cell, done, total, robust)
        except Exception:  # an observer never changes a result
            log.exception("progress display failed")

    def _result(self, cell: Cell, tables: Tables, total: int) -> CellResult:
        if cell.id in tables.failures:
            return self.failed(cell, tables.failures[cell.id])
        parts: Sequence[Part] = tables.parts[cell.id]
        samples, examples, observed = join(parts, GALLERY)
        assert len(samples.label) == total, (cell.id, len(samples.label), total)
        if cell.attack == CLEAN:
            self.clean[cell.dataset, cell.model] = samples
        model = cast("LoadedModel", self._model(cell.model))
        parity = self.parities.get((cell.dataset, cell.source))
        if parity is not None and cell.source == cell.model:
            observed[PARITY_DIFFERENCE] = parity.difference
            observed[PARITY_TOLERANCE] = parity.tolerance
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

    def failed(self, cell: Cell, failure: Failure) -> CellResult:
        """A result without numbers, and why."""
        if cell.attack == CLEAN:
            self.clean[cell.dataset, cell.model] = failure
        result = self.without_samples(cell, "failed", failure.reason)
        return dataclasses.replace(
            result, traceback=failure.traceback, environment=failure.environment
        )

    def without_samples(self, cell: Cell, status: str, reason: str) -> CellResult:
        """A skipped or failed cell."""
        return CellResult(
            cell=cell,
            status=status,  # type: ignore[arg-type]  # "skipped" or "failed"
            reason=reason,
            samples=None,
            examples=None,
            seconds=0.0,
            device=self.settings.device,
            provider="",
            batch_size=self.batch_size,
        )
