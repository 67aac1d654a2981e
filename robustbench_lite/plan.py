"""Suite + Registry -> Plan: references resolved, grids expanded, every cell with its content id.

Everything that can be wrong before a weight is loaded is raised here, together: missing files,
hashes that differ from their pins. Only bytes of files are read, to hash them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import BaseModel

from . import graph
from .errors import EnvironmentProblem, PluginError
from .hookspecs import AttackSpec, Member
from .identity import (
    content_hash,
    param_files,
    shown,
    without_paths,
)
from .params import Params
from .plugins import Registered, Registry, source_hash
from .types import (
    ACCESS,
    CLEAN,
    NO_NORM,
    AttackEntry,
    Cell,
    Component,
    Cost,
    Eps,
    Json,
    Norm,
    Places,
    Plan,
    Suite,
    covers,
)

IDENTITY_VERSION = 3  # raised when a change to the harness changes numbers
PRECISION = "float32"
ENSEMBLE = "ensemble"  # the loader of a source that averages several models
DEFAULT_FALLBACK: Mapping[Norm, str] = {"linf": "square", "l2": "square", "l0": "sparse-rs"}
DEFAULT_CONTROL: Mapping[Norm, str] = {
    "linf": "uniform-noise",
    "l2": "gaussian-noise",
    "l1": "uniform-noise",
    "l0": "salt-and-pepper",
}


def make(
    suite: Suite,
    registry: Registry,
    places: Places,
    *,
    seed: int | None = None,
    limit: int | None = None,
) -> Plan:
    """Plan a suite. Raises EnvironmentProblem naming every missing or changed file at once.

    Raises SuiteError for entries that refer to each other in a circle.
    """
    problems: list[str] = []
    models, datasets = graph.components(suite, registry, places, limit, problems)
    if problems:
        raise EnvironmentProblem("\n".join(problems))
    planner = _Planner(suite, registry, models, datasets, suite.seed if seed is None else seed)
    return Plan(
        suite=suite.name,
        seed=planner.seed,
        models=planner.models,
        datasets=datasets,
        cells=tuple(planner.cells()),
        arguments=planner.arguments,
    )


def plan_id(plan: Plan) -> str:
    """Content id of a whole plan: two runs with the same id measure the same cells."""
    return content_hash(sorted(cell.id for cell in plan.cells))


class _Planner:
    def __init__(
        self,
        suite: Suite,
        registry: Registry,
        models: Mapping[str, Component],
        datasets: Mapping[str, Component],
        seed: int,
    ) -> None:
        self.suite = suite
        self.registry = registry
        ensembles = {
            entry.source: _ensemble(entry.source, [models[name] for name in entry.sources])
            for entry in suite.attacks
            if entry.source and entry.sources
        }
        self.models = {**models, **ensembles}
        self.datasets = datasets
        self.seed = seed
        self.arguments: dict[str, BaseModel] = {}

    def cells(self) -> list[Cell]:
        """Clean cells, then controls and attacks, cheapest first within a dataset."""
        wanted = list(self._wanted())
        clean = {(model, dataset): self._clean(model, dataset) for model, dataset, _ in wanted}
        attacks = [
            cell
            for model, dataset, entry in wanted
            if entry is not None
            for cell in self._entry(model, dataset, entry)
        ]
        controls = self._implicit_controls(attacks)
        ordered = sorted([*attacks, *controls], key=_effort)
        return [*clean.values(), *ordered]

    def _entry(self, model: str, dataset: str, entry: AttackEntry) -> Iterator[Cell]:
        """The cells of one entry: its own grid, or those of the attacks it stands for."""
        spec = self.registry.attacks[entry.attack].spec
        if spec.members is None:
            yield from self._grid(model, dataset, entry, implicit=False)
            yield from self._fallback(model, dataset, entry)
            return
        assert isinstance(entry.params, Params)
        offered = self.models[entry.source or model].access
        members = spec.members(entry.params, entry.norm, offered)
        if not members:
            yield from self._grid(model, dataset, entry, implicit=False)  # skipped, with the reason
        for member in members:
            yield from self._member(model, dataset, entry, spec, member)

    def _member(
        self, model: str, dataset: str, family: AttackEntry, spec: AttackSpec, member: Member
    ) -> Iterator[Cell]:
        """One attack of a family, on the family's budget."""
        if member.attack not in self.registry.attacks:
            raise PluginError(f"attack '{spec.name}' names the unknown attack '{member.attack}'")
        own = self.registry.attacks[member.attack].spec
        try:
            params = own.params(**member.params)
        except ValueError as problem:
            raise PluginError(f"attack '{spec.name}' sets {member.attack} so: {problem}") from None
        entry = dataclasses.replace(
            family, name=f"{family.name}: {member.label}", attack=member.attack, params=params
        )
        cells = [
            *self._grid(model, dataset, entry, implicit=False),
            *self._fallback(model, dataset, entry),
        ]
        for cell in cells:
            yield dataclasses.replace(
                cell, family=family.name, why=member.why, union=spec.union and not cell.fallback_for
            )

    def _wanted(self) -> Iterator[tuple[str, str, AttackEntry | None]]:
        entries = {entry.name: entry for entry in self.suite.attacks}
        seen: set[tuple[str, str, str]] = set()
        for line in self.suite.evaluations:
            yield line.model, line.dataset, None
            for name in line.attacks:
                if (line.model, line.dataset, name) not in seen:
                    seen.add((line.model, line.dataset, name))
                    yield line.model, line.dataset, entries[name]

    def _clean(self, model: str, dataset: str) -> Cell:
        identity: dict[str, Json] = {
            "model": self.models[model].content,
            "dataset": self.datasets[dataset].content,
            "attack": CLEAN,
        }
        return Cell(
            id=self._id(identity),
            model=model,
            dataset=dataset,
            entry=CLEAN,
            attack=CLEAN,
            source=model,
            role="control",
            kind="fixed-budget",
            effort="random",
            norm=None,
            eps=None,
            target=None,
            repeats=1,
            params={},
            carried=(),
            implicit=False,
            skip=None,
            cost=Cost(1, 0),
        )

    def _grid(
        self,
        model: str,
        dataset: str,
        entry: AttackEntry,
        *,
        implicit: bool,
        fallback_for: str | None = None,
    ) -> Iterator[Cell]:
        registered = self.registry.attacks[entry.attack]
        spec = registered.spec
        entry = _transferred(entry, spec, model)
        grid = sorted(entry.eps, key=lambda eps: eps.value)
        source = entry.source or model
        for position, eps in enumerate(grid):
            carried = tuple(grid[:position]) if spec.carries else ()
            identity = self._attack_identity(registered, entry, model, source, dataset)
            identity |= {"eps": str(eps.value), "carried": [str(e.value) for e in carried]}
            if spec.kind == "minimal-norm":
                identity |= {"reach": str(grid[-1].value)}
            if fallback_for is not None:  # it may be spared, where its like in the suite may not
                identity |= {"fallback": True}
            cell_id = self._id(identity)
            self.arguments[cell_id] = entry.params
            yield Cell(
                id=cell_id,
                model=model,
                dataset=dataset,
                entry=entry.name,
                attack=entry.attack,
                source=source,
                role=spec.role,
                kind=spec.kind,
                effort=spec.effort,
                norm=entry.norm,
                eps=eps,
                target=entry.target,
                repeats=entry.repeats,
                params=shown(entry.params, self.suite, "attacks", entry.name),
                carried=carried,
                implicit=implicit,
                skip=self._skip(spec, entry, source),
                cost=_cost(spec, entry),
                reach=grid[-1],
                fallback_for=fallback_for,
                access=spec.access,
                eot=entry.eot,
                time_limit=entry.time_limit,
                bpda=entry.bpda if spec.access == "gradient" else (),
            )

    def _attack_identity(
        self,
        registered: Registered[AttackSpec],
        entry: AttackEntry,
        model: str,
        source: str,
        dataset: str,
    ) -> dict[str, Json]:
        adaptive: dict[str, Json] = {"eot": entry.eot} if entry.eot > 1 else {}
        if entry.bpda and registered.spec.access == "gradient":
            adaptive |= {"bpda": list(entry.bpda)}
        return adaptive | {
            "model": self.models[model].content,
            "source": self.models[source].content,
            "dataset": self.datasets[dataset].content,
            "attack": entry.attack,
            "version": registered.plugin.version,
            "code": source_hash(registered),
            "params": without_paths(entry.params),
            "files": param_files(entry),
            "norm": entry.norm,
            "target": entry.target,
            "repeats": entry.repeats,
        }

    def _id(self, identity: dict[str, Json]) -> str:
        harness: dict[str, Json] = {
            "identity": IDENTITY_VERSION,
            "seed": self.seed,
            "precision": PRECISION,
        }
        return content_hash(identity | harness)

    def _skip(self, spec: AttackSpec, entry: AttackEntry, source: str) -> str | None:
        offered = self.models[source]
        if spec.members is not None:
            return (
                f"{spec.name} knows no attack in {entry.norm} for a model that offers"
                f" {offered.access} access only, as '{source}' ({offered.loader}) does"
            )
        if covers(offered.access, spec.access):
            return None
        return (
            f"{spec.name} needs {spec.access} access and model '{source}' ({offered.loader}) offers"
            f" {offered.access} only; give attack '{entry.name}' a `source:` model that offers"
            f" {spec.access}, or use an attack that needs less"
        )

    def _fallback(self, model: str, dataset: str, entry: AttackEntry) -> Iterator[Cell]:
        """The cells that run instead, should a twin's gradients turn out unusable."""
        spec = self.registry.attacks[entry.attack].spec
        source = self.models[entry.source or model]
        stands_in = any(
            self.registry.models[self.models[name].loader].spec.stand_in
            for name in source.members or (source.name,)
        )
        name = entry.fallback or DEFAULT_FALLBACK.get(entry.norm, "off")
        if spec.access != "gradient" or not stands_in or name not in self.registry.attacks:
            return
        stand_in = self.registry.attacks[name].spec
        if entry.norm not in stand_in.norms or (entry.target and not stand_in.targeted):
            return
        instead = dataclasses.replace(
            entry, name=f"{entry.name} (fallback {name})", attack=name, params=stand_in.params()
        )
        yield from self._grid(model, dataset, instead, implicit=True, fallback_for=entry.name)

    def _implicit_controls(self, attacks: Iterable[Cell]) -> list[Cell]:
        attacks = list(attacks)
        have = {_spot(cell) for cell in attacks if cell.role == "control"}
        added: list[Cell] = []
        for cell in attacks:
            if cell.role == "control" or cell.fallback_for or _spot(cell) in have:
                continue
            if cell.norm is None or cell.norm == NO_NORM:
                continue  # nobody can spend such a budget blindly
            if self.suite.controls == "off" and not cell.union:
                continue
            name = self.registry.attacks[cell.attack].spec.control or DEFAULT_CONTROL[cell.norm]
            if name not in self.registry.attacks:
                raise PluginError(f"attack '{cell.attack}' names the unknown control '{name}'")
            have.add(_spot(cell))
            assert cell.eps is not None
            entry = AttackEntry(
                name=f"{name} (control)",
                attack=name,
                params=self.registry.attacks[name].spec.params(),
                norm=cell.norm,
                eps=(cell.eps,),
                source=None,
                target=None,
                repeats=1,
                where=self.suite.attacks[0].where,
            )
            added += self._grid(cell.model, cell.dataset, entry, implicit=True)
        return added


def _ensemble(name: str, members: Sequence[Component]) -> Component:
    """Several sources as one: the mean of their logits (Liu et al. 2017)."""
    return Component(
        name=name,
        loader=ENSEMBLE,
        content=content_hash([ENSEMBLE, *(member.content for member in members)]),
        files={f"{m.name}: {file}": digest for m in members for file, digest in m.files.items()},
        parameters={"members": [member.name for member in members]},
        access=min((member.access for member in members), key=ACCESS.index),
        members=tuple(member.name for member in members),
    )


def _transferred(entry: AttackEntry, spec: AttackSpec, model: str) -> AttackEntry:
    """The entry with the attack's defaults for transfer, where the suite does not say otherwise."""
    if entry.source in {None, model} or not spec.when_transferred:
        return entry
    unset = spec.when_transferred.keys() - entry.params.model_fields_set
    update = {name: spec.when_transferred[name] for name in unset}
    return dataclasses.replace(entry, params=entry.params.model_copy(update=update))


def _spot(cell: Cell) -> tuple[str, str, Norm | None, Eps | None]:
    eps = None if cell.eps is None else Eps(cell.eps.value, "")
    return cell.model, cell.dataset, cell.norm, eps


def _effort(cell: Cell) -> tuple[str, float, str, str, float]:
    passes = sum(cell.cost) if cell.cost else float("inf")
    radius = float(cell.eps) if cell.eps else 0.0
    return cell.dataset, passes, cell.entry, cell.model, radius


def _cost(spec: AttackSpec, entry: AttackEntry) -> Cost | None:
    assert isinstance(entry.params, Params)
    once = spec.cost(entry.params, None, None) if spec.cost else None
    if once is None:
        return None
    times = entry.repeats * entry.eot
    return Cost(once.queries * times, once.gradients * times)
