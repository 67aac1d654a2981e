"""What lives across cells: loaded models, selected data, cached batches, the twins' parity."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from .access import BatchMemory
from .ensemble import ensemble
from .errors import (
    FOREIGN,
    DataError,
    EnvironmentProblem,
    ModelError,
    NothingSelected,
    RobevalError,
)
from .group import Failure, clean_chunk, out_of_memory
from .hookspecs import DatasetSpec, ModelSpec
from .params import referring
from .plugins import Registered, Registry, implementation
from .rng import SampleRng
from .samples import Selected, select
from .types import Batch, DataSource, LoadedModel, Parity, Places, Plan, Selection, Suite

CACHE_BYTES = 512 * 2**20  # a data set that fits with its clean gradients is kept, else re-read
PARITY_SAMPLES = 32  # clean ones, and as many with noise
PARITY_NOISE = 0.1  # of the box width


def named(model: str, problem: EnvironmentProblem) -> Failure:
    """A failure with the model's name in front; a dataset's problem names itself."""
    text = f"model '{model}': {problem}" if isinstance(problem, ModelError) else str(problem)
    return Failure(text, environment=True)


def too_few_classes(selected: Selected, name: str, model: LoadedModel) -> Failure | None:
    """Whether the data hold a label that the model does not know."""
    highest = int(selected.labels.max())
    if highest < model.num_classes:
        return None
    return Failure(
        f"dataset '{selected.name}' has label {highest} and model '{name}' knows classes 0 to"
        f" {model.num_classes - 1}; use the model's own data or labels",
        environment=True,
    )


def _verified(verify: Callable[[Tensor], Parity], x: Tensor) -> Parity:
    """The parity on x, on fewer samples where memory is short; a check that fails is a reason."""
    try:
        return verify(x)
    except FOREIGN as problem:  # a plug-in's check may raise anything
        if out_of_memory(problem) and len(x) > 1:
            return _verified(verify, x[::2])
        reason = f"its twin could not be checked: {type(problem).__name__}: {problem}"
        return Parity(difference=math.nan, tolerance=math.nan, agreement=math.nan, reason=reason)


def as_source(selected: Selected) -> DataSource:
    """A selection as a source of its own, for those who refer to it."""

    def read(positions: Sequence[int]) -> Tensor:
        return selected.source.read(selected.positions[list(positions)].tolist())

    return DataSource(
        ids=selected.ids,
        labels=selected.labels,
        read=read,
        shape=selected.shape,
        box=selected.box,
        classes=selected.classes,
    )


@dataclass(frozen=True, slots=True)
class StockBench:
    """A `Bench` over a stock; `content` is the id of the entry that is being made."""

    _stock: Stock
    content: str
    device: str

    def dataset(self, name: str) -> DataSource:
        """The samples that the suite selects for a dataset. Raises DataError."""
        return self._stock.whole(name)

    def model(self, name: str) -> LoadedModel:
        """A model of the suite, loaded once. Raises ModelError."""
        model = self._stock.model(name)
        if isinstance(model, Failure):
            raise ModelError(model.reason)
        return model


class Stock:
    """Models and batches, each loaded at most once while it is needed."""

    def __init__(
        self,
        suite: Suite,
        registry: Registry,
        places: Places,
        device: str,
        threads: int,
        members: Mapping[str, Sequence[str]] = MappingProxyType({}),
        plan: Plan | None = None,
    ) -> None:
        """`members`: names of the models that a source of several averages.

        `plan`: has the content ids of entries that refer to others.
        """
        self._plan = plan
        self._suite = suite
        self._members = members
        self._registry = registry
        self._places = places
        self._name = device
        self._threads = threads
        self.device = torch.device(device)
        self._models: dict[str, LoadedModel | Failure] = {}
        self._batches: dict[tuple[str, ...], Batch] = {}
        self._memories: dict[tuple[str, tuple[str, ...]], BatchMemory] = {}
        self._parities: dict[tuple[str, str], Parity] = {}
        self._caching = False

    def selected(self, name: str, selection: Selection) -> Selected | Failure:
        """The samples of a dataset entry. Raises NothingSelected where none is left."""
        entry = next(entry for entry in self._suite.datasets if entry.name == name)
        registered: Registered[DatasetSpec] = self._registry.datasets[entry.loader]
        try:
            bench = self._bench(name, "datasets", registered)
            source = implementation(registered)(entry.params, places=self._places, **bench)
            return select(name, source, selection)  # type: ignore[arg-type]  # checked by select
        except EnvironmentProblem as problem:
            return Failure(f"dataset '{name}': {problem}", environment=True)
        except NothingSelected as problem:
            raise NothingSelected(f"{entry.where}: {problem}") from problem
        except RobevalError:
            raise
        except FOREIGN as problem:  # a plug-in's loader may raise anything
            return Failure.of(f"dataset '{name}' could not be loaded", problem, environment=True)

    def open(self, selected: Selected, models: int) -> None:
        """Start on a data set that `models` models will see."""
        self.drop_batches()
        size = selected.n * int(torch.Size(selected.shape).numel()) * 4
        self._caching = size * (1 + 2 * models) <= CACHE_BYTES

    def model(self, name: str) -> LoadedModel | Failure:
        """A loaded model, or why there is none."""
        if name not in self._models:
            self._models[name] = self._load(name)
        return self._models[name]

    def fresh(self, name: str) -> LoadedModel | Failure:
        """Another copy of a model, which nobody has asked anything; the caller lets go of it."""
        return self._load(name)

    def _load(self, name: str) -> LoadedModel | Failure:
        if name in self._members:
            return self._together(name)
        entry = next(entry for entry in self._suite.models if entry.name == name)
        registered: Registered[ModelSpec] = self._registry.models[entry.loader]
        what = f"model '{name}'"
        try:
            model = implementation(registered)(
                entry.params,
                places=self._places,
                device=self._name,
                threads=self._threads,
                **self._bench(name, "models", registered),
            )
        except EnvironmentProblem as problem:
            return Failure(f"{what}: {problem}", environment=True)
        except FOREIGN as problem:  # a plug-in's loader may raise anything
            how = "does not fit into memory" if out_of_memory(problem) else "could not be loaded"
            return Failure.of(f"{what} {how}", problem, environment=True)
        if not isinstance(model, LoadedModel):
            found = type(model).__name__
            reason = f"{what}: its loader returned {found}, expected LoadedModel"
            return Failure(reason, environment=True)
        return model

    def whole(self, name: str) -> DataSource:
        """The samples that the suite selects for a dataset. Raises DataError."""
        entry = next(entry for entry in self._suite.datasets if entry.name == name)
        selected = self.selected(name, entry.selection)
        if isinstance(selected, Failure):
            raise DataError(selected.reason)
        return as_source(selected)

    def _bench(
        self, name: str, kind: str, registered: Registered[ModelSpec] | Registered[DatasetSpec]
    ) -> dict[str, StockBench]:
        """What a loader that refers to other entries is given beside its parameters."""
        if not referring(registered.spec.params):
            return {}
        assert self._plan is not None
        component = (self._plan.models if kind == "models" else self._plan.datasets)[name]
        return {"bench": StockBench(self, component.origin, self._name)}

    def _together(self, name: str) -> LoadedModel | Failure:
        """A source of several models: the mean of their logits."""
        parts: dict[str, LoadedModel] = {}
        for member in self._members[name]:
            part = self.model(member)
            if isinstance(part, Failure):
                return part
            parts[member] = part
        try:
            return ensemble(parts)
        except ModelError as problem:
            return named(name, problem)

    def refusal(self, selected: Selected, name: str, model: LoadedModel) -> Failure | None:
        """Why the model cannot be judged on this data, tried on one sample."""
        try:
            clean_chunk(model, selected.batch(0, 1, self.device))
        except EnvironmentProblem as problem:
            return named(name, problem)
        except FOREIGN as problem:  # whatever a model raises on a shape
            return Failure.of(
                f"model '{name}' refuses inputs of shape {list(selected.shape)} from dataset"
                f" '{selected.name}'",
                problem,
                environment=True,
            )
        return None

    def batch(self, selected: Selected, start: int, stop: int) -> Batch:
        """Samples `start` to `stop`, kept if the whole data set fits."""
        key = selected.ids[start:stop]
        if key not in self._batches:
            if not self._caching:  # no garbage collection here: it costs more than most batches
                self._batches.clear()
                self._memories.clear()
            self._batches[key] = selected.batch(start, stop, self.device)
        return self._batches[key]

    def memory(self, name: str, model: LoadedModel, batch: Batch) -> BatchMemory:
        """What is known of a batch on a model."""
        key = (name, batch.ids)
        if key not in self._memories:
            self._memories[key] = BatchMemory(model, batch.x, batch.y)
        return self._memories[key]

    def parity(self, selected: Selected, name: str, model: LoadedModel, seed: int) -> Parity | None:
        """The stand-in against the artefact, on clean and noisy samples; None: no stand-in."""
        if model.verify is None:
            return None
        key = (selected.name, name)
        if key not in self._parities:
            batch = selected.batch(0, min(PARITY_SAMPLES, selected.n), self.device)
            reach = PARITY_NOISE * batch.box.width
            noise = SampleRng(seed, "twin parity", batch.keys).uniform(
                selected.shape, -reach, reach
            )
            noisy = (batch.x + noise).clamp(batch.box.low, batch.box.high)
            self._parities[key] = _verified(model.verify, torch.cat([batch.x, noisy]))
        return self._parities[key]

    def forget(self, name: str) -> None:
        """An attack reached the model's weights or mode: load it again before its next use."""
        model = self._models.pop(name, None)
        if isinstance(model, LoadedModel) and model.differentiable is not None:
            model.differentiable.eval()
        self._memories.clear()

    def release(self, needed: Collection[str]) -> None:
        """Let go of models that no waiting cell needs."""
        for name in [name for name in self._models if name not in needed]:
            del self._models[name]
            for key in [key for key in self._memories if key[0] == name]:
                del self._memories[key]

    def drop_batches(self) -> None:
        """Free everything that can be read again."""
        self._batches.clear()
        self._memories.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
