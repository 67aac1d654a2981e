"""The values that travel through a run, frozen, in the order of the journey.

Text becomes a `Suite`, a `Suite` a `Plan` of `Cell`s, a `Batch` and an attack's candidates an
`Outcome`, outcomes a `CellResult`, results a `Summary`, and the `Summary` a `Verdict`.
Nothing here imports a heavy library at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from pydantic import BaseModel
    from torch import Tensor

Norm = Literal["linf", "l2", "l1", "l0", "none"]
Access = Literal["gradient", "score", "decision", "none"]
Role = Literal["attack", "control"]
Kind = Literal["fixed-budget", "minimal-norm"]
Effort = Literal["single-step", "iterative", "exhaustive", "random"]
Output = Literal["logits", "probabilities", "log-probabilities", "independent-probabilities"]
CellStatus = Literal["ok", "invalid", "failed", "skipped", "timeout"]
Severity = Literal["error", "warning", "note"]
GateStatus = Literal["PASS", "FAIL", "INCONCLUSIVE", "INVALID"]
Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

ACCESS: tuple[Access, ...] = ("none", "decision", "score", "gradient")
NORMS: tuple[Norm, ...] = ("linf", "l2", "l1", "l0")  # distances that the judge measures
NO_NORM: Norm = "none"  # a set that the attack defines (rotations, fog); eps is its strength there
THREATS: tuple[Norm, ...] = (*NORMS, NO_NORM)
CLEAN = "clean"
WORST_CASE = "worst-case"


def covers(granted: Access, needed: Access) -> bool:
    """Whether what a model offers is enough for what an attack needs."""
    return ACCESS.index(granted) >= ACCESS.index(needed)


# ---------------------------------------------------------------- the threat model


@dataclass(frozen=True, slots=True)
class Box:
    """The declared range of every input component; budgets are measured in this space."""

    low: float = 0.0
    high: float = 1.0

    @property
    def width(self) -> float:
        """`high - low`, in the data's unit."""
        return self.high - self.low


@dataclass(frozen=True, slots=True)
class Eps:
    """A radius as an exact fraction, with the user's own text (`8/255`) for display and joins."""

    value: Fraction
    text: str

    def __float__(self) -> float:
        return float(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What an attack may spend on one sample: the ball of radius `eps` in `norm`, inside `box`.

    `norm` "l0" counts changed pixels of an image [c, h, w] (a pixel counts once, whatever number
    of its channels changed) and changed components of any other shape. Under "none" the attack
    itself defines what it may do at strength `eps`; the judge then checks the box alone.
    A minimal-norm attack gets the largest eps of its grid.
    """

    norm: Norm
    eps: float
    box: Box


class Cost(NamedTuple):
    """Passes per sample: `queries` (forward samples) and `gradients` (backward samples)."""

    queries: float
    gradients: float


# ---------------------------------------------------------------- text -> Suite


@dataclass(frozen=True, slots=True, order=True)
class Where:
    """A place in a text file, printed as `file:line:col` (both from 1)."""

    file: str
    line: int
    col: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.col}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a run may look for files: passed to loaders, which never read the environment.

    `suite`: folder of the suite file. `data`: root of local data sets (`ROBEVAL_DATA`), if any.
    `cache`: folder for downloads.
    """

    suite: Path
    data: Path | None
    cache: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which samples of a source are used, in source order unless `stratified`."""

    take: int | None = None
    skip: int = 0
    indices: tuple[int, ...] | None = None
    stratified: bool = False
    seed: int = 0
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """`models.<name>` of a suite: its loader with validated parameters, the pinned hash."""

    name: str
    loader: str
    params: BaseModel
    sha256: str | None
    where: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetEntry:
    """`datasets.<name>` of a suite: its loader, parameters, and the samples selected from it."""

    name: str
    loader: str
    params: BaseModel
    selection: Selection
    sha256: str | None
    where: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackEntry:
    """`attacks.<name>` of a suite: one attack with its parameters over a grid of eps.

    `source`: the model it is crafted on (None: the model under attack, white box); several are
    one, "a + b" with `sources` ("a", "b"), whose logits are averaged.
    `target`: None (untargeted), "next", "random", "least-likely", or a class index as text.
    `repeats`: independent draws; a sample counts as broken if any draw breaks it.
    `fallback`: the gradient-free attack to run if the source turns out to have no usable
    gradient ("off" for none, None for the default of the norm).
    `eot`: passes averaged for every answer of a randomised model. `bpda`: steps of the model whose
    gradient is taken to be the identity's. `time_limit`: seconds that it may take on one model.
    """

    name: str
    attack: str
    params: BaseModel
    norm: Norm
    eps: tuple[Eps, ...]
    source: str | None
    target: str | None
    repeats: int
    where: Where
    fallback: str | None = None
    eps_where: tuple[Where, ...] = ()
    sources: tuple[str, ...] = ()
    eot: int = 1
    bpda: tuple[str, ...] = ()
    time_limit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One line of `evaluate`: a model and a dataset under some attacks (names of entries)."""

    model: str
    dataset: str
    attacks: tuple[str, ...]
    where: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """`gates.<name>`: a floor (`min`) or ceiling (`max`) on a metric of the selected cells.

    Every selector that is None selects all; a gate over several cells passes if each one passes.
    `sequential`: its cells stop as soon as the samples seen so far decide it.
    `max_drop`: instead of min and max, how much below the baseline's rate it may be. `baseline`: a
    file that `robeval baseline set` wrote, or a run directory. `for_each`: axes over which every
    combination is a claim of its own, Holm's correction over them; `per_class`: every class is one.
    `min_samples`: fewer are no evidence. `allow_partial`: a partial run may be judged by it.
    `analysis`: judge the column `verdict` of that analysis' table instead of a metric.
    """

    name: str
    metric: str
    model: str | None
    dataset: str | None
    attack: str | None
    norm: Norm | None
    eps: Eps | None
    minimum: float | None
    maximum: float | None
    confidence: float
    where: Where
    sequential: bool = False
    max_drop: float | None = None
    baseline: Path | None = None
    for_each: tuple[str, ...] = ()
    per_class: bool = False
    min_samples: int | None = None
    allow_partial: bool = False
    analysis: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """`waivers.<name>`: a finding about a model that someone answers for until a day.

    `expires`: the last day on which it holds. A waived error leaves its cells valid; the report
    shows it all the same.
    """

    name: str
    finding: str
    model: str
    reason: str
    owner: str
    expires: date
    where: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisEntry:
    """`analyses.<name>`: an analysis over the finished run, with its validated parameters."""

    name: str
    analysis: str
    params: BaseModel
    where: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A suite that is valid in itself: every name resolves, every value has its type."""

    name: str
    path: Path
    text: str
    resolved: Mapping[str, Json]
    models: tuple[ModelEntry, ...]
    datasets: tuple[DatasetEntry, ...]
    attacks: tuple[AttackEntry, ...]
    evaluations: tuple[Evaluation, ...]
    gates: tuple[Gate, ...]
    analyses: tuple[AnalysisEntry, ...]
    reports: tuple[str, ...]
    controls: Literal["auto", "off"]
    seed: int
    python_path: tuple[Path, ...]
    self_test: bool = True
    waivers: tuple[Waiver, ...] = ()


# ---------------------------------------------------------------- Suite -> Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A model or dataset of a plan, with what its content id was computed from.

    `content`: hash of loader, its code version, parameters (without paths) and file contents.
    `files`: name -> sha256 of the files that the content covers. `parameters`: for display.
    `members`: the models whose logits it averages, if it is such a source. `origin`: the content
    id of what the loader gives, before samples are selected. `refers`: entries that it is made of.
    """

    name: str
    loader: str
    content: str
    files: Mapping[str, str]
    parameters: Mapping[str, Json]
    access: Access = "none"
    members: tuple[str, ...] = ()
    origin: str = ""
    refers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number to measure: a model on a dataset under one attack at one eps.

    `entry` is the name in the suite, `attack` the plug-in's name (both "clean" for the clean pass).
    `source` is the model it is crafted on (equal to `model` for white box).
    `carried`: smaller eps of the same grid whose broken samples are carried here.
    `skip`: why it cannot run (it is then listed as skipped), or None.
    `reach`: the largest eps of its grid, which a minimal-norm attack is given.
    `fallback_for`: the entry that it stands in for, should that one find no gradient to use.
    `access`: what its attack asks of the model. `eot`, `bpda`, `time_limit`: as in the entry.
    `family`: the entry of the suite that stands for several attacks, of which this is one, and
    `why`: why it was picked. `union`: whether the family is judged by the worst of its members.
    """

    id: str
    model: str
    dataset: str
    entry: str
    attack: str
    source: str
    role: Role
    kind: Kind
    effort: Effort
    norm: Norm | None
    eps: Eps | None
    target: str | None
    repeats: int
    params: Mapping[str, Json]
    carried: tuple[Eps, ...]
    implicit: bool
    skip: str | None
    cost: Cost | None
    reach: Eps | None = None
    fallback_for: str | None = None
    access: Access = "none"
    eot: int = 1
    bpda: tuple[str, ...] = ()
    time_limit: float | None = None
    family: str | None = None
    why: str = ""
    union: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a run will do, with a content id for every cell; clean cells come first.

    Plain data: it is stored as plan.json and read back without any plug-in; there a value that
    came from the environment is its reference. `arguments`: cell id -> the attack's parameters
    with their real values, never stored.
    """

    suite: str
    seed: int
    models: Mapping[str, Component]
    datasets: Mapping[str, Component]
    cells: tuple[Cell, ...]
    arguments: Mapping[str, BaseModel] = field(default_factory=dict)


# ---------------------------------------------------------------- models, data, attacks at run time


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How well a differentiable stand-in agrees with the artefact on some inputs.

    `difference`: largest absolute difference of outputs; `tolerance`: what is allowed.
    `agreement`: share of equal decisions. `reason`: why it must not be used, "" if it may.
    """

    difference: float
    tolerance: float
    agreement: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """What a model loader returns.

    `predict`: the artefact: x [n, *shape] float32 in the data's box -> its own output [n, k]
    float32 on x's device, no graph. It decides every verdict.
    `differentiable`: a torch module x -> logits [n, k] with a graph, or None (score access only).
    It is in eval mode, its parameters need no gradient. For a torch model it is the artefact.
    `no_gradient`: why `differentiable` is None. `verify(x)`: for a stand-in (a twin), compares it
    with the artefact on x; the run asks before any gradient attack, and skips it on a reason.
    `output`: what `predict` gives; "independent-probabilities" are one yes or no for each class, so
    that they need no sum of one; their logits are those of the sigmoid.
    `input_shape`: one sample's shape, None where it is free.
    `leaves_input`: `predict` never writes to x, so that it need not be given a copy.
    `device`, `provider`: where it really runs. `facts`: printable facts for manifest and doctor.
    """

    predict: Callable[[Tensor], Tensor]
    differentiable: torch.nn.Module | None
    num_classes: int
    input_shape: tuple[int, ...] | None
    output: Output
    device: str
    provider: str
    facts: Mapping[str, Json] = field(default_factory=dict)
    no_gradient: str = ""
    verify: Callable[[Tensor], Parity] | None = None
    leaves_input: bool = False

    def __post_init__(self) -> None:
        """Refuse an `output` that is none: it would be read as logits."""
        known = get_args(Output)
        if self.output not in known:
            raise ValueError(f"output '{self.output}' is not one of {', '.join(known)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """What a dataset loader returns: labels and ids at once, inputs only when read.

    `ids`: a stable name for each of the N samples. `labels`: int64 [N] on the CPU.
    `read(positions)`: float32 [len(positions), *shape] in `box`, on the CPU.
    `classes`: names of the classes, in label order.
    """

    ids: Sequence[str]
    labels: Tensor
    read: Callable[[Sequence[int]], Tensor]
    shape: tuple[int, ...]
    box: Box
    classes: tuple[str, ...]


class Bench(Protocol):
    """Where a plug-in whose parameters refer to other entries of the suite gets what they name."""

    @property
    def content(self) -> str:
        """Content id of the entry that is being made, for what it keeps in the cache."""
        ...

    @property
    def device(self) -> str:
        """Where to compute: "cpu" or "cuda:i"."""
        ...

    def dataset(self, name: str) -> DataSource:
        """The samples that the suite selects for a dataset. Raises DataError."""
        ...

    def model(self, name: str) -> LoadedModel:
        """A model of the suite, loaded once. Raises ModelError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A slice of the selected samples.

    `start`: position of the first one in the selection. `keys`: int64 [n], a hash of each id, the
    sample's identity for random numbers. `x`: float32 [n, *shape] in `box`; `y`: int64 [n].
    `hashes`: content hash of each (input, label).
    """

    start: int
    ids: tuple[str, ...]
    hashes: tuple[str, ...]
    keys: Tensor
    x: Tensor
    y: Tensor
    box: Box


class Evaluated(NamedTuple):
    """One forward and backward pass: loss [n], its gradient [n, *shape], logits [n, k]."""

    value: Tensor
    gradient: Tensor
    logits: Tensor


Loss = str | Callable[["Tensor", "Tensor"], "Tensor"]


class Classifier(Protocol):
    """The model as an attack sees it; every pass through it is counted.

    Inputs are float32 [n, *shape] in `box`. A method that the declared access does not cover
    raises `AccessDenied`. A `loss` is "cross-entropy", "margin" or a function (logits, y) ->
    per-sample loss [n]; it is summed for the backward pass, and an attack maximises it.
    """

    @property
    def num_classes(self) -> int:
        """Number of classes k."""
        ...

    @property
    def box(self) -> Box:
        """Range of every input component."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        ...

    @property
    def device(self) -> torch.device:
        """Where inputs are expected."""
        ...

    def logits(self, x: Tensor) -> Tensor:
        """Scores [n, k] without a graph. Needs access "score"."""
        ...

    def decide(self, x: Tensor) -> Tensor:
        """Predicted classes, int64 [n]. Needs access "decision"."""
        ...

    def gradient(self, x: Tensor, y: Tensor, loss: Loss = "cross-entropy") -> Tensor:
        """Gradient of the per-sample loss, [n, *shape]. Needs access "gradient"."""
        ...

    def value_and_gradient(self, x: Tensor, y: Tensor, loss: Loss = "cross-entropy") -> Evaluated:
        """Loss, gradient and the logits of the same pass. Needs access "gradient"."""
        ...

    def averaged(self, draws: int) -> Classifier:
        """The same model, each answer the mean over `draws` passes (EOT, Athalye et al. 2018)."""
        ...

    def rows(self, index: Tensor) -> Classifier:
        """The same model for the samples `index` (int64 [m], may repeat) of the batch.

        Use it whenever the rows that are passed are not the batch's rows in order, so that the
        passes are counted on the right samples.
        """
        ...

    def module(self) -> torch.nn.Module:
        """A private copy as an `nn.Module`, for adapters. Needs access "gradient"."""
        ...


# ---------------------------------------------------------------- judging


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The judge's word on n candidates; arrays are numpy, one row per sample.

    `legal`: in the box, in the ball, finite, of the right shape. `adv_pred` is -1 and
    `adv_correct`, `success` are False where a candidate is not legal or the output not finite.
    `success`: legal and goal reached (a wrong class; for a targeted attack the target class).
    `survives_uint8`: success remains after rounding x_adv to 256 levels of the box.
    `pixel`: flat position of the only changed pixel, -1 where not exactly one changed.
    `problems`: why candidates are not legal -> how many samples.
    """

    legal: NDArray[np.bool_]
    adv_pred: NDArray[np.int64]
    adv_confidence: NDArray[np.float32]
    adv_correct: NDArray[np.bool_]
    success: NDArray[np.bool_]
    survives_uint8: NDArray[np.bool_]
    l0: NDArray[np.float64]
    l1: NDArray[np.float64]
    l2: NDArray[np.float64]
    linf: NDArray[np.float64]
    pixel: NDArray[np.int64]
    problems: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """The per-sample table of one cell as columns of equal length n (see reports/README.md)."""

    sample_id: NDArray[np.object_]
    sample_hash: NDArray[np.object_]
    label: NDArray[np.int64]
    clean_pred: NDArray[np.int64]
    clean_confidence: NDArray[np.float32]
    adv_pred: NDArray[np.int64]
    adv_confidence: NDArray[np.float32]
    clean_correct: NDArray[np.bool_]
    adv_correct: NDArray[np.bool_]
    success: NDArray[np.bool_]
    legal: NDArray[np.bool_]
    l0: NDArray[np.float64]
    l1: NDArray[np.float64]
    l2: NDArray[np.float64]
    linf: NDArray[np.float64]
    survives_uint8: NDArray[np.bool_]
    pixel: NDArray[np.int64]
    queries: NDArray[np.float64]
    gradients: NDArray[np.float64]
    status: NDArray[np.object_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about the measurement itself, with its numbers and what to do.

    `cells`: ids of the cells it touches. Severity "error" makes them invalid, unless it is
    `waived` (by whom, until when and why).
    """

    id: str
    severity: Severity
    message: str
    advice: str
    cells: tuple[str, ...]
    numbers: Mapping[str, float] = field(default_factory=dict)
    waived: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """A few samples for the gallery: positions in the cell's table and exact float32 images."""

    positions: NDArray[np.int64]
    x: NDArray[np.float32]
    x_adv: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The points that an attack ended on, exact float32, to be judged again by `robeval replay`.

    `sample_id`: text [m]. `x`, `x_adv`: [m, *shape], the clean input and the legal candidate.
    """

    sample_id: NDArray[np.str_]
    x: NDArray[np.float32]
    x_adv: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a run is spent. What it measures is the same under any terms, only how much of it.

    `first`: ids of cells that are worked on before all others. `deadline`: the `time.monotonic()`
    at which the run ends, whatever is left. `stops`: cell id -> the sequential gates that end it
    once the samples seen decide all of them. `keep`: whether candidates are stored for a replay.
    """

    first: Collection[str] = ()
    deadline: float = float("inf")
    stops: Mapping[str, Sequence[Gate]] = field(default_factory=dict)
    keep: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Samples `start` to `stop` of one cell, finished and stored: a kill loses no more than one.

    They are counted in the order in which the samples are run. `observed`: what was seen about
    the measurement, as counts (see `diagnose.py`). `candidates`: for a replay; None once on disk.
    """

    start: int
    stop: int
    samples: Samples
    examples: Examples
    observed: Mapping[str, float]
    seconds: float
    batch_size: int
    candidates: Candidates | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """A finished cell. `samples` is None where status is not "ok", or where they stay on disk.

    `environment`: the cell failed because of device, model file or dataset, not of the attack.
    `stopped`: which sequential gates ended it before its last sample, in words ("" if none did).
    """

    cell: Cell
    status: CellStatus
    reason: str
    samples: Samples | None
    examples: Examples | None
    observed: Mapping[str, float] = field(default_factory=dict)
    seconds: float
    device: str
    provider: str
    batch_size: int
    traceback: str = ""
    environment: bool = False
    stopped: str = ""


class PartStore(Protocol):
    """Where finished parts of running cells are kept."""

    def parts(self, cell_id: str) -> Sequence[Part]:
        """Finished parts of a cell, in sample order."""
        ...

    def save_part(self, cell_id: str, part: Part) -> None:
        """Keep one more."""
        ...


class Observer(Protocol):
    """Told of progress; what it raises is logged and never changes a result."""

    def advanced(self, cell: Cell, done: int, total: int, robust: int) -> None:
        """`done` of `total` samples are judged, `robust` of them correct and unbroken."""
        ...

    def finished(self, result: CellResult) -> None:
        """A cell is complete."""
        ...


# ---------------------------------------------------------------- results -> Summary -> Verdict


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` of `n` with its two-sided 95 % Wilson interval; value is NaN when n is 0."""

    count: int
    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of tables/cells.csv: a cell at one eps, the clean pass, or a worst case.

    Rates are None unless status is "ok". `members`: the cells of a worst case. `fallback_for`: the
    entry whose gradients could not be used. `family`: the entry of the suite that it belongs to;
    `union`: gates on that entry judge the union of its rows, not this one. `stopped`: as of its
    cell; the intervals of its rates are then anytime-valid (`stats.anytime_limits`), not Wilson's.
    """

    cell_id: str
    model: str
    dataset: str
    attack: str
    plugin: str
    source: str
    role: Role
    kind: Kind
    norm: Norm | None
    eps: Eps | None
    n: int
    status: CellStatus
    reason: str
    clean_accuracy: Rate | None
    robust_accuracy: Rate | None
    attack_success_rate: Rate | None
    adversarial_error: Rate | None
    confidence_on_mistakes: float | None
    median_distance: float | None
    survives_uint8: Rate | None
    queries_mean: float | None
    gradients_mean: float | None
    seconds: float
    device: str
    provider: str
    batch_size: int
    members: tuple[str, ...] = ()
    fallback_for: str | None = None
    family: str | None = None
    union: bool = False
    stopped: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Every row of a run with the findings; the order is the plan's, worst cases last."""

    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]
    partial: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """One gate on one row: the measured rate, its limits, and what follows.

    `low`, `high`: one-sided limits at the gate's confidence, corrected where it is one of several
    claims: Clopper-Pearson's for a rate, anytime-valid ones where the gate is sequential or its
    cell was stopped early. Of a `max_drop` gate, value and limits are those of the
    difference, run minus baseline, and `newly_broken` names the samples right in the baseline
    alone. `needed`: for INCONCLUSIVE, about how many samples would decide, if any number can.
    `missing`: INVALID since evidence is not there (too few samples, nothing to compare with).
    """

    gate: str
    status: GateStatus
    metric: str
    threshold: str
    subject: str
    cell_id: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str
    needed: int | None
    where: str
    newly_broken: tuple[str, ...] = ()
    missing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The gates' results and the exit code, with the sentence that says why."""

    gates: tuple[GateResult, ...]
    exit_code: int
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAnalysis:
    """An analysis of the suite that has no table to rely on, and why.

    `environment`: device, model file or dataset, not the analysis.
    """

    name: str
    reason: str
    environment: bool = False


# ---------------------------------------------------------------- two runs -> Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One measured number in two runs, on the samples that both have (paired by sample hash).

    `metric`: "clean_accuracy" or "robust_accuracy"; right means clean-correct and unbroken.
    `base`, `head`: rates over the `n` common samples. `newly_broken`: sample ids right in the base
    alone (b of them), `newly_fixed`: in the head alone (c). `difference`: head minus base, with
    its 95 % limits. `p_value`: exact McNemar, mid-p below 25 discordant pairs. `reason`: why the
    two cannot be compared, or "" (the rates are then None).
    """

    subject: str
    metric: str
    model: str
    dataset: str
    attack: str
    norm: Norm | None
    eps: Eps | None
    base_cell: str
    head_cell: str
    n: int
    base: Rate | None
    head: Rate | None
    newly_broken: tuple[str, ...]
    newly_fixed: tuple[str, ...]
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs, change by change, in the head's order; `base` and `head` name them for display.

    `unmatched`: what only one of them has, and what else differs (seed, versions), in words.
    """

    base: str
    head: str
    changes: tuple[Change, ...]
    unmatched: tuple[str, ...] = ()


# ---------------------------------------------------------------- runs over time


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One gate on one row of an earlier run; a run without gates is one, its `gate` empty.

    `started`: UTC, ISO 8601. `model_sha256`: of the model file, or the content id of a model that
    is not one file. `exit_code`: of the whole run.
    """

    run: str
    started: str
    suite: str
    gate: str
    status: str
    metric: str
    subject: str
    model: str
    model_sha256: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    threshold: str
    reason: str
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Judged runs in order of their start. `left_out`: which were not, and why."""

    rows: tuple[Past, ...]
    left_out: tuple[str, ...] = ()
