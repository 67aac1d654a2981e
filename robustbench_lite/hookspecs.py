"""The contract for plug-ins: six hooks, their markers, and the records they return.

A hook is for wiring and returns records; nothing here is called in an inner loop. A record's
`implementation` is the object itself or `"package.module:name"`, imported only by a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import pluggy

from .params import NoParams, Params
from .types import Access, Cost, Effort, Json, Kind, Norm, Places, Role

GROUP = "robeval"
API_VERSION = 1

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

Implementation = Callable[..., object] | str
Content = Mapping[str, Path | str]


class CostEstimate(Protocol):
    """Passes per sample for the given parameters; `shape` and `classes` are None when unknown."""

    def __call__(
        self, params: Params, shape: tuple[int, ...] | None, classes: int | None
    ) -> Cost | None:
        """The estimate, an upper bound for one sample."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One attack that an entry of a family stands for.

    `label`: told apart from its siblings by it. `params`: of the attack, those that differ from
    its defaults. `why`: why it was picked, a clause for `robeval plan`.
    """

    label: str
    attack: str
    why: str
    params: Mapping[str, Json] = field(default_factory=dict)


class Pick(Protocol):
    """Which attacks a family stands for, on a model that offers `access`, in `norm`."""

    def __call__(self, params: Params, norm: Norm, access: Access) -> Sequence[Member]:
        """The members; empty if there is none for that norm and access."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackSpec:
    """An attack or control.

    `implementation(model, x, y, *, budget, rng, **params) -> x_adv`, see the plug-in guide; a
    targeted-capable one (`targeted=True`) also takes `target: Tensor | None` (int64 [n]).
    `access`: the least it needs. `effort`: how hard it tries, for the findings.
    `carries`: a sample broken at a smaller eps of the grid counts as broken at a larger one.
    `default_eps`: used when the suite gives none; several are separated by commas. `control`: name
    of its control (None: chosen by norm). `clip_parameter`: name of a boolean parameter that, when
    false, lets the attack leave the box (a paper's convention); the judge then checks the ball
    alone. `when_transferred`: defaults of parameters that the suite does not set, when the source
    is another model.
    `cost`: an upper bound of passes per sample.
    `members`: for a family, an entry that stands for several attacks; its own implementation is
    never called. `union`: a sample counts as broken if any member breaks it, and gates on the
    entry judge that; otherwise they judge every member.
    """

    name: str
    implementation: Implementation
    summary: str
    norms: tuple[Norm, ...]
    access: Access
    params: type[Params] = NoParams
    paper: str = ""
    role: Role = "attack"
    kind: Kind = "fixed-budget"
    effort: Effort = "iterative"
    targeted: bool = False
    carries: bool = False
    default_eps: str | None = None
    control: str | None = None
    clip_parameter: str | None = None
    when_transferred: Mapping[str, Json] = field(default_factory=dict)
    cost: CostEstimate | None = None
    members: Pick | None = None
    union: bool = False
    api: int = API_VERSION


def _no_content(params: Params, places: Places) -> Content:  # noqa: ARG001  (the default of a field)
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model loader.

    `implementation(params, *, places, device, threads) -> LoadedModel`, `device` being "cpu" or
    "cuda:i". `access(params)`: what an attack can have of it, known before loading.
    `content(params, places)`: name -> path of every file that decides the result.
    `stand_in`: gradients come from a twin that the run verifies, so they may turn out missing.
    `suffixes`: file endings that `robeval doctor` opens with it, through `from_path(path)`.
    Where `params` has fields of type `ModelRef` or `DatasetRef`, the implementation is also given
    `bench`, a `Bench` that has what they name; so have a dataset's and an analysis'.
    """

    name: str
    implementation: Implementation
    summary: str
    params: type[Params] = NoParams
    access: Callable[[Params], Access] = lambda params: "gradient"  # noqa: ARG005
    content: Callable[[Params, Places], Content] = _no_content
    stand_in: bool = False
    suffixes: tuple[str, ...] = ()
    from_path: Callable[[Path], Params] | None = None
    api: int = API_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """A dataset loader.

    `implementation(params, *, places) -> DataSource`. `content(params, places)`: name -> path of
    every file that decides the samples, or `"sha256:..."` where it is known without the file.
    Take, skip, indices, stratified and classes are the harness's work, not the loader's.
    """

    name: str
    implementation: Implementation
    summary: str
    params: type[Params] = NoParams
    content: Callable[[Params, Places], Content] = _no_content
    license: str = ""
    api: int = API_VERSION


Shown = Literal["text", "number", "percent", "mark"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """How the report shows one column of an analysis' table.

    `shown`: `text`, as it is; `number`, four significant digits; `percent`, of a share in [0, 1];
    `mark`: `yes` and `no` with a sign that can be seen at a glance. `unit`: the column that says
    `percent` or `number` in each row, in place of `shown`. `low`, `high`: the columns of its
    limits, and `below` that of a note: they stand in small below the value. `signed`: positive
    values with their sign.
    """

    name: str
    title: str
    shown: Shown = "text"
    unit: str = ""
    low: str = ""
    high: str = ""
    below: str = ""
    signed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisSpec:
    """A table computed from a finished run: `implementation(run, **params) -> pandas.DataFrame`.

    `run` is a `StoredRun`. The frame is written to tables/<name>.csv and shown in the report: what
    `columns` names, in that order, or every column as it is if there are none.
    """

    name: str
    implementation: Implementation
    summary: str
    params: type[Params] = NoParams
    paper: str = ""
    columns: tuple[Column, ...] = ()
    api: int = API_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class ReporterSpec:
    """A projection of a finished run: `implementation(run)` writes `files` into run.path."""

    name: str
    implementation: Implementation
    summary: str
    files: tuple[str, ...]
    api: int = API_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorSpec:
    """How cells are computed: `implementation(suite, plan, todo, ...) -> Iterator[CellResult]`.

    It is called as `robustbench_lite.execute.cells` is, `terms` included: a cell that the deadline
    leaves unfinished has no result.
    """

    name: str
    implementation: Implementation
    summary: str
    api: int = API_VERSION


Spec = AttackSpec | ModelSpec | DatasetSpec | AnalysisSpec | ReporterSpec | ExecutorSpec


class RobevalHooks:
    """The hooks; implement any of them in a module named by an entry point of group `robeval`."""

    @hookspec
    def robeval_attacks(self) -> Iterable[AttackSpec]:
        """Attacks and controls that the distribution adds."""
        raise AssertionError

    @hookspec
    def robeval_models(self) -> Iterable[ModelSpec]:
        """Model loaders that the distribution adds."""
        raise AssertionError

    @hookspec
    def robeval_datasets(self) -> Iterable[DatasetSpec]:
        """Dataset loaders that the distribution adds."""
        raise AssertionError

    @hookspec
    def robeval_analyses(self) -> Iterable[AnalysisSpec]:
        """Analyses of a finished run that the distribution adds."""
        raise AssertionError

    @hookspec
    def robeval_reporters(self) -> Iterable[ReporterSpec]:
        """Report formats that the distribution adds."""
        raise AssertionError

    @hookspec
    def robeval_executors(self) -> Iterable[ExecutorSpec]:
        """Ways to compute cells that the distribution adds."""
        raise AssertionError
