"""A small world for tests of the core: models, data and attacks given as objects, a plan, a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from robustbench_lite import (
    AttackSpec,
    Box,
    DatasetSpec,
    DataSource,
    Eps,
    LoadedModel,
    ModelSpec,
    NoParams,
    Norm,
    Places,
    hookimpl,
    plugins,
)
from robustbench_lite import plan as planning
from robustbench_lite.execute import cells as execute
from robustbench_lite.plugins import Registry
from robustbench_lite.rng import sample_keys
from robustbench_lite.run import Silence
from robustbench_lite.types import (
    AttackEntry,
    Batch,
    Cell,
    CellResult,
    DatasetEntry,
    Evaluation,
    ModelEntry,
    Observer,
    Output,
    Part,
    PartStore,
    Plan,
    Samples,
    Selection,
    Suite,
    Terms,
    Where,
)

UNIT = Box(0.0, 1.0)
WHERE = Where("suite.yaml", 1, 1)
PLACES = Places(suite=Path(), data=None, cache=Path())
Controls = Literal["auto", "off"]
Build = Callable[[], LoadedModel]


def eps(text: str) -> Eps:
    """`8/255` or `0.1` as the suite reads it."""
    return Eps(Fraction(text), text)


# ---------------------------------------------------------------- models


class Linear(nn.Module):
    """Logits W x + b of the flat input."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone(), requires_grad=False)
        bias = torch.zeros(len(weight)) if bias is None else bias
        self.bias = nn.Parameter(bias.clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


def random_linear(seed: int, classes: int = 3, size: int = 6) -> Linear:
    """A random linear model whose classes are about equally frequent on [0, 1]^size."""
    weight = torch.randn((classes, size), generator=torch.Generator().manual_seed(seed))
    return Linear(weight, -weight.sum(dim=1) / 2)


def loaded(
    net: nn.Module,
    classes: int,
    *,
    output: Output = "logits",
    differentiable: bool = True,
    predict: Callable[[Tensor], Tensor] | None = None,
) -> LoadedModel:
    """What a loader returns for `net` (or for `predict` alone)."""

    @torch.no_grad()
    def run(x: Tensor) -> Tensor:
        answer: Tensor = net(x)
        return answer

    return LoadedModel(
        predict=run if predict is None else predict,
        differentiable=net.eval() if differentiable else None,
        num_classes=classes,
        input_shape=None,
        output=output,
        device="cpu",
        provider="torch",
    )


def model_spec(
    name: str,
    build: Callable[..., object],
    *,
    access: Literal["gradient", "score"] = "gradient",
    tag: str = "",
) -> ModelSpec:
    """A loader for one model; `tag`: its content (its name where none is given)."""
    return ModelSpec(
        name=name,
        implementation=lambda params, *, places, device, threads: build(),
        summary="",
        access=lambda params: access,
        content=lambda params, places: {"net": f"sha256:{tag or name}"},
    )


# ---------------------------------------------------------------- data


def points(n: int, size: int = 6, *, seed: int = 0, box: Box = UNIT) -> Tensor:
    """Random inputs of the box, float32 [n, size], away from its faces."""
    unit = torch.rand((n, size), generator=torch.Generator().manual_seed(seed + 1000))
    return box.low + box.width * (0.3 + 0.4 * unit)


def source(x: Tensor, y: Tensor, *, classes: int = 3, box: Box = UNIT) -> DataSource:
    """The samples as a dataset loader gives them."""
    return DataSource(
        ids=tuple(f"sample-{i}" for i in range(len(x))),
        labels=y,
        read=lambda positions: x[list(positions)],
        shape=tuple(x.shape[1:]),
        box=box,
        classes=tuple(f"class {k}" for k in range(classes)),
    )


def dataset_spec(name: str, build: Callable[[], object]) -> DatasetSpec:
    """A loader for one dataset."""
    return DatasetSpec(
        name=name,
        implementation=lambda params, *, places: build(),
        summary="",
        content=lambda params, places: {"points": f"sha256:{name}"},
    )


def batch(x: Tensor, y: Tensor, *, box: Box = UNIT, start: int = 0) -> Batch:
    """The samples as one batch."""
    ids = tuple(f"sample-{start + i}" for i in range(len(x)))
    return Batch(
        start=start, ids=ids, hashes=ids, keys=sample_keys(ids, x.device), x=x, y=y, box=box
    )


# ---------------------------------------------------------------- attacks


def attack_spec(
    function: Callable[..., object] | str, name: str = "mine", **own: object
) -> AttackSpec:
    """An attack of a test: any norm, gradient access."""
    fields: dict[str, object] = {
        "summary": "",
        "norms": ("linf", "l2", "l1", "l0"),
        "access": "gradient",
        **own,
    }
    return AttackSpec(name=name, implementation=function, **fields)  # type: ignore[arg-type]


def entry(
    name: str,
    spec: AttackSpec,
    *grid: str,
    norm: Norm = "linf",
    source: str | None = None,
    target: str | None = None,
    repeats: int = 1,
    **params: object,
) -> AttackEntry:
    """`attacks.<name>` of a suite."""
    return AttackEntry(
        name=name,
        attack=spec.name,
        params=spec.params(**params),
        norm=norm,
        eps=tuple(eps(text) for text in grid),
        source=source,
        target=target,
        repeats=repeats,
        where=WHERE,
    )


class Room:
    """A plug-in that gives the specs of a test."""

    def __init__(
        self,
        attacks: Iterable[AttackSpec] = (),
        models: Iterable[ModelSpec] = (),
        datasets: Iterable[DatasetSpec] = (),
    ) -> None:
        self.attacks, self.models, self.datasets = list(attacks), list(models), list(datasets)

    @hookimpl
    def robeval_attacks(self) -> Iterable[AttackSpec]:
        return self.attacks

    @hookimpl
    def robeval_models(self) -> Iterable[ModelSpec]:
        return self.models

    @hookimpl
    def robeval_datasets(self) -> Iterable[DatasetSpec]:
        return self.datasets


# ---------------------------------------------------------------- a run


class Parts:
    """Finished parts in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, list[Part]] = {}

    def parts(self, cell_id: str) -> Sequence[Part]:
        return list(self.kept.get(cell_id, []))

    def save_part(self, cell_id: str, part: Part) -> None:
        self.kept.setdefault(cell_id, []).append(part)


@dataclass(frozen=True, kw_only=True)
class World:
    """A planned suite that can be run in memory."""

    registry: Registry
    suite: Suite
    plan: Plan
    places: Places = PLACES

    def cell(self, name: str, radius: str | None = None, *, model: str | None = None) -> Cell:
        """The one planned cell of an entry (at an eps, on a model)."""
        (found,) = [
            cell
            for cell in self.plan.cells
            if cell.entry == name
            and (radius is None or (cell.eps is not None and cell.eps.value == Fraction(radius)))
            and (model is None or cell.model == model)
        ]
        return found

    def stream(
        self,
        *,
        todo: Collection[str] | None = None,
        batch_size: int | None = 4,
        shard: int | None = None,
        parts: PartStore | None = None,
        earlier: Mapping[str, CellResult] | None = None,
        observer: Observer | None = None,
        terms: Terms | None = None,
    ) -> Iterator[CellResult]:
        """Results one at a time; each is `stored` before the next is computed, as in a run."""
        done = dict(earlier or {})

        def stored(cell_id: str) -> Samples | None:
            return done[cell_id].samples if cell_id in done else None

        for result in execute(
            self.suite,
            self.plan,
            {cell.id for cell in self.plan.cells} if todo is None else todo,
            registry=self.registry,
            places=self.places,
            device="cpu",
            threads=1,
            batch_size=batch_size,
            shard=shard,
            selections={each.name: each.selection for each in self.suite.datasets},
            parts=Parts() if parts is None else parts,
            stored=stored,
            observer=Silence() if observer is None else observer,
            terms=Terms() if terms is None else terms,
        ):
            done[result.cell.id] = result
            yield result

    def run(
        self,
        *,
        todo: Collection[str] | None = None,
        batch_size: int | None = 4,
        shard: int | None = None,
        parts: PartStore | None = None,
        earlier: Mapping[str, CellResult] | None = None,
        observer: Observer | None = None,
        terms: Terms | None = None,
    ) -> dict[str, CellResult]:
        """Every result by cell id; a cell that comes twice is an error of the executor."""
        results: dict[str, CellResult] = {}
        for result in self.stream(
            todo=todo,
            batch_size=batch_size,
            shard=shard,
            parts=parts,
            earlier=earlier,
            observer=observer,
            terms=terms,
        ):
            assert result.cell.id not in results, f"two results for {result.cell}"
            results[result.cell.id] = result
        return results

    def samples(self, name: str, radius: str | None = None, *, model: str | None = None) -> Samples:
        """The table of one cell of a whole run."""
        return table(self.run()[self.cell(name, radius, model=model).id])


def table(result: CellResult) -> Samples:
    """The samples of a cell that must be complete."""
    assert result.status == "ok", (result.reason, result.traceback)
    assert result.samples is not None
    return result.samples


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a world is made of; `evaluate`: (model, dataset, entries), default everything."""

    models: Sequence[ModelSpec]
    datasets: Sequence[DatasetSpec]
    specs: Sequence[AttackSpec] = ()
    attacks: Sequence[AttackEntry] = ()
    evaluate: Sequence[tuple[str, str, Sequence[str]]] | None = None
    controls: Controls = "off"
    seed: int = 0
    take: int | None = None
    self_test: bool = True

    def world(self) -> World:
        """Registry, suite and plan."""
        named = {spec.name: spec for spec in self.specs}
        registry = plugins.build([Room(named.values(), self.models, self.datasets)])
        suite = self._suite()
        return World(registry=registry, suite=suite, plan=planning.make(suite, registry, PLACES))

    def _suite(self) -> Suite:
        sources = {each.source for each in self.attacks}
        names = [each.name for each in self.attacks]
        lines = self.evaluate or [
            (model.name, dataset.name, names)
            for model in self.models
            if model.name not in sources
            for dataset in self.datasets
        ]
        return Suite(
            name="small",
            self_test=self.self_test,
            path=Path("suite.yaml"),
            text="",
            resolved={},
            models=tuple(
                ModelEntry(name=m.name, loader=m.name, params=NoParams(), sha256=None, where=WHERE)
                for m in self.models
            ),
            datasets=tuple(
                DatasetEntry(
                    name=d.name,
                    loader=d.name,
                    params=NoParams(),
                    selection=Selection(take=self.take),
                    sha256=None,
                    where=WHERE,
                )
                for d in self.datasets
            ),
            attacks=tuple(self.attacks),
            evaluations=tuple(
                Evaluation(model=model, dataset=dataset, attacks=tuple(entries), where=WHERE)
                for model, dataset, entries in lines
            ),
            gates=(),
            analyses=(),
            reports=(),
            controls=self.controls,
            seed=self.seed,
            python_path=(),
        )


N = 10


def net_spec(name: str, seed: int, *, classes: int = 3) -> ModelSpec:
    """A random linear model."""
    return model_spec(name, lambda: loaded(random_linear(seed, classes), classes))


def labelled(seed: int, n: int = N, *, classes: int = 3, wrong: int = 1) -> DataSource:
    """Points that `net_spec(_, seed)` classifies correctly, but for the last `wrong` of them."""
    x = points(n)
    y = random_linear(seed, classes)(x).argmax(dim=1)
    y[n - wrong :] = (y[n - wrong :] + 1) % classes
    return source(x, y, classes=classes)


def simple(*attacks: tuple[AttackSpec, AttackEntry], seed: int = 0, n: int = N) -> Given:
    """Model `m` (random linear) on dataset `d`, under the attacks."""
    return Given(
        models=[net_spec("m", seed)],
        datasets=[dataset_spec("d", lambda: labelled(seed, n))],
        specs=[spec for spec, _ in attacks],
        attacks=[each for _, each in attacks],
    )


def changed(given: Given, **fields: object) -> Given:
    """The same with other fields."""
    return dataclasses.replace(given, **fields)  # type: ignore[arg-type]


def failing_result(cell: Cell, reason: str) -> CellResult:
    """A cell that failed."""
    return CellResult(
        cell=cell,
        status="failed",
        reason=reason,
        samples=None,
        examples=None,
        seconds=0.0,
        device="cpu",
        provider="",
        batch_size=1,
    )
