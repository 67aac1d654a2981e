"""One of two runs, as far as it can be compared: which samples stayed right under what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..bits import Mask, of_row
from ..errors import RobevalError
from ..group import BOX_HIGH, BOX_LOW
from ..types import (
    CLEAN,
    Cell,
    CellResult,
    CellStatus,
    Component,
    Eps,
    Json,
    Norm,
    Plan,
    Row,
    Samples,
    Summary,
)

PREFIX = 12  # hex digits of a sample's hash: two of a million samples share them once in 560 sets
SEVERAL = " + "  # stands between the models of a source that averages several


class Stored(Protocol):
    """A run directory, as a comparison sees it."""

    @property
    def manifest(self) -> Mapping[str, Json]:
        """Provenance."""
        ...

    @property
    def plan(self) -> Plan:
        """Every cell, in order."""
        ...

    @property
    def results(self) -> Mapping[str, CellResult]:
        """Cell id -> result without samples."""
        ...

    def samples(self, cell_id: str) -> Samples | None:
        """The per-sample table of a cell, None if it has none."""
        ...


@dataclass(frozen=True, slots=True)
class Pool:
    """The samples of a dataset, sorted by key: a prefix of the content hash, and `~2` for the
    second of several that are alike. `ids`: their names, in the same order.
    """

    keys: tuple[str, ...]
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of a run. `right`: bool [n], clean-correct and unbroken, in the order of its pool.

    `threat`: what an attacker may do and how it was tried, as plain values. `members`: cell ids of
    a union of cells, whose threats are theirs; its `source` is "". `numbers`: its metrics.
    """

    cell_id: str
    model: str
    dataset: str
    attack: str
    source: str
    norm: Norm | None
    eps: Eps | None
    status: CellStatus
    reason: str
    threat: Mapping[str, Json]
    members: tuple[str, ...]
    right: Mask | None
    numbers: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of two runs. `models`: of each model that is judged, file -> sha256.

    `provenance`: where it comes from, as plain values. `partial`: it stands for a part of a suite.
    """

    name: str
    lines: tuple[Line, ...]
    pools: Mapping[str, Pool]
    models: Mapping[str, Mapping[str, str]]
    provenance: Mapping[str, Json]
    partial: bool


def of_run(name: str, run: Stored, summary: Summary) -> Side:
    """A run as a side; one per-sample table is held at a time.

    Raises RobevalError (internal) if two cells of a dataset differ in their samples.
    """
    cells = {cell.id: cell for cell in run.plan.cells}
    judged = judged_models(run.plan)
    boxes = _boxes(run)
    reader = _Reader(run, {row.cell_id: row for row in summary.rows})
    lines = []
    for row in summary.rows:
        cell = cells.get(row.cell_id)
        threat = {} if cell is None else _threat(cell, boxes.get(row.dataset), run.plan, judged)
        lines.append(_line(row, threat, reader))
    return Side(
        name=name,
        lines=tuple(lines),
        pools=reader.pools,
        models={model: _files(run.plan.models.get(model)) for model in judged},
        provenance=_provenance(run.manifest),
        partial=summary.partial,
    )


def judged_models(plan: Plan) -> list[str]:
    """The models that a plan judges, in its order; sources alone are not among them."""
    return list(dict.fromkeys(cell.model for cell in plan.cells))


def _files(model: Component | None) -> dict[str, str]:
    return {} if model is None else dict(model.files)


def _line(row: Row, threat: Mapping[str, Json], reader: _Reader) -> Line:
    status, reason = row.status, row.reason
    right = reader.right(row) if status == "ok" else None
    if status == "ok" and right is None:
        status, reason = "failed", "its per-sample table is missing from the run directory"
    return Line(
        cell_id=row.cell_id,
        model=row.model,
        dataset=row.dataset,
        attack=row.attack,
        source="" if row.members else row.source,
        norm=row.norm,
        eps=row.eps,
        status=status,
        reason=reason,
        threat=threat,
        members=tuple(name for name in row.members if reader.rows[name].status == "ok"),
        right=right,
        numbers=_numbers(row),
    )


def _numbers(row: Row) -> dict[str, float | None]:
    rates = {
        "clean_accuracy": row.clean_accuracy,
        "robust_accuracy": row.robust_accuracy,
        "attack_success_rate": row.attack_success_rate,
        "adversarial_error": row.adversarial_error,
    }
    shares = {name: None if not rate or not rate.n else rate.value for name, rate in rates.items()}
    return {
        **shares,
        "confidence_on_mistakes": row.confidence_on_mistakes,
        "median_distance": row.median_distance,
    }


class _Reader:
    """Reads each cell's table once; a union is that of what its members kept."""

    def __init__(self, run: Stored, rows: Mapping[str, Row]) -> None:
        self.rows = rows
        self.pools: dict[str, Pool] = {}
        self._run = run
        self._order: dict[str, NDArray[np.int64]] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._kept: dict[str, Mask] = {}

    def right(self, row: Row) -> Mask | None:
        """What a row kept, in the order of its dataset's pool."""
        if not row.members:
            return self._cell(row)
        found: Mask | None = None
        for name in row.members:
            if self.rows[name].status != "ok":
                continue
            here = self._cell(self.rows[name])
            if here is None:
                return None
            found = here if found is None else found & here
        return found

    def _cell(self, row: Row) -> Mask | None:
        if row.cell_id in self._kept:
            return self._kept[row.cell_id]
        bits = of_row(row, self.rows, self._run.samples)
        if bits is None:
            return None
        ids = tuple(str(name) for name in bits.sample_id)
        if row.dataset not in self._order:
            keys = keys_of([str(value) for value in bits.sample_hash])
            order = np.argsort(np.array(keys, dtype=object), kind="stable")
            self._order[row.dataset], self._names[row.dataset] = order, ids
            self.pools[row.dataset] = Pool(
                tuple(keys[at] for at in order), tuple(ids[at] for at in order)
            )
        if ids != self._names[row.dataset]:
            raise RobevalError(
                f"internal error: cell {row.cell_id} ('{row.attack}' on '{row.model}') has other"
                f" samples of '{row.dataset}' than the cells before it; it cannot be compared"
            )
        self._kept[row.cell_id] = bits.robust[self._order[row.dataset]]
        return self._kept[row.cell_id]


def keys_of(hashes: Sequence[str]) -> list[str]:
    """A key for each sample: the prefix of its hash, and its number among those alike."""
    seen: dict[str, int] = {}
    keys = []
    for each in hashes:
        prefix = each[:PREFIX]
        seen[prefix] = seen.get(prefix, 0) + 1
        keys.append(prefix if seen[prefix] == 1 else f"{prefix}~{seen[prefix]}")
    return keys


# ---------------------------------------------------------------- threat model and provenance


def _boxes(run: Stored) -> dict[str, list[float]]:
    """The range of every dataset's inputs, as its clean passes recorded it."""
    found: dict[str, list[float]] = {}
    for cell in run.plan.cells:
        result = run.results.get(cell.id)
        if cell.attack == CLEAN and result is not None and BOX_LOW in result.observed:
            found[cell.dataset] = [result.observed[BOX_LOW], result.observed[BOX_HIGH]]
    return found


def _threat(
    cell: Cell, box: Sequence[float] | None, plan: Plan, judged: Sequence[str]
) -> dict[str, Json]:
    """What decides what an attack may do and how hard it tries, beside norm and eps."""
    threat: dict[str, Json] = {} if box is None else {"box": list(box)}
    if cell.attack == CLEAN:
        return threat
    threat |= {
        "attack": cell.attack,
        "parameters": dict(cell.params),
        "target": cell.target,
        "repeats": cell.repeats,
        "eot": cell.eot,
        "bpda": list(cell.bpda),
        "time_limit": cell.time_limit,
    }
    if cell.kind == "minimal-norm" and cell.reach is not None:
        threat["largest eps"] = str(cell.reach.value)
    surrogates = [name for name in cell.source.split(SEVERAL) if name not in judged]
    if surrogates:
        threat["source"] = {name: _content(plan.models.get(name)) for name in surrogates}
    return threat


def _content(model: Component | None) -> Json:
    """The files of a surrogate; its content id where it has none."""
    if model is None:
        return None
    return _files(model) or model.content


def _provenance(manifest: Mapping[str, Json]) -> dict[str, Json]:
    wanted = ("suite", "suite_sha256", "seed", "plan_id", "ended", "versions", "python", "device")
    return {key: manifest[key] for key in wanted if key in manifest}
