"""One of two runs, as far as it can be compared: which samples stayed right under what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from ..bits import Mask, of_row
from ..errors import RobevalError
from ..types import (
    CellResult,
    CellStatus,
    Eps,
    Json,
    Norm,
    Plan,
    Row,
    Samples,
    Summary,
)
from .terms import boxes, files_of, provenance_of, threat_of

PREFIX = 12  # hex digits of a sample's hash: two of a million samples share them once in 560 sets


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

    `seen`: bool [n], False for the samples that it was stopped before; None with `right`.
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
    seen: Mask | None
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
    spans = boxes(run.plan, run.results)
    reader = _Reader(run, {row.cell_id: row for row in summary.rows})
    lines = []
    for row in summary.rows:
        cell = cells.get(row.cell_id)
        threat = {} if cell is None else threat_of(cell, spans.get(row.dataset), run.plan, judged)
        lines.append(_line(row, threat, reader))
    return Side(
        name=name,
        lines=tuple(lines),
        pools=reader.pools,
        models={model: files_of(run.plan.models.get(model)) for model in judged},
        provenance=provenance_of(run.manifest),
        partial=summary.partial,
    )


def judged_models(plan: Plan) -> list[str]:
    """The models that a plan judges, in its order; sources alone are not among them."""
    return list(dict.fromkeys(cell.model for cell in plan.cells))


def _line(row: Row, threat: Mapping[str, Json], reader: _Reader) -> Line:
    status, reason = row.status, row.reason
    kept = reader.kept(row) if status == "ok" else None
    if status == "ok" and kept is None:
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
        right=None if kept is None else kept.right,
        seen=None if kept is None else kept.seen,
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


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a row kept, in the order of its dataset's pool; see `Line`."""

    right: Mask
    seen: Mask

    def __and__(self, other: _Kept) -> _Kept:
        return _Kept(self.right & other.right, self.seen & other.seen)


class _Reader:
    """Reads each cell's table once; a union is that of what its members kept."""

    def __init__(self, run: Stored, rows: Mapping[str, Row]) -> None:
        self.rows = rows
        self.pools: dict[str, Pool] = {}
        self._kept: dict[str, _Kept] = {}
        found = _tables(run, rows)
        for dataset in dict.fromkeys(rows[name].dataset for name in found):
            names = [name for name in found if rows[name].dataset == dataset]
            whole = max((found[name] for name in names), key=lambda table: len(table.ids))
            keys = keys_of(whole.hashes)
            order = sorted(range(len(keys)), key=keys.__getitem__)
            place = {whole.ids[at]: position for position, at in enumerate(order)}
            self.pools[dataset] = Pool(tuple(sorted(keys)), tuple(place))
            for name in names:
                self._kept[name] = _placed(found[name], place, rows[name])

    def kept(self, row: Row) -> _Kept | None:
        """What a row kept; None where a table is lost."""
        if not row.members:
            return self._kept.get(row.cell_id)
        found: _Kept | None = None
        for name in row.members:
            if self.rows[name].status != "ok":
                continue
            if name not in self._kept:
                return None
            found = self._kept[name] if found is None else found & self._kept[name]
        return found


class _Table(NamedTuple):
    ids: tuple[str, ...]
    hashes: tuple[str, ...]
    right: Mask


def _tables(run: Stored, rows: Mapping[str, Row]) -> dict[str, _Table]:
    """Of every cell that is ok; equal names are held once."""
    found: dict[str, _Table] = {}
    shared: dict[str, _Table] = {}
    for row in rows.values():
        bits = None if row.members or row.status != "ok" else of_row(row, rows, run.samples)
        if bits is None:
            continue
        ids = tuple(map(str, bits.sample_id))
        known = shared.get(row.dataset)
        if known is None or known.ids != ids:
            known = _Table(ids, tuple(map(str, bits.sample_hash)), bits.robust)
            shared[row.dataset] = known
        found[row.cell_id] = known._replace(right=bits.robust)
    return found


def _placed(table: _Table, place: Mapping[str, int], row: Row) -> _Kept:
    """A table in the order of its pool."""
    if not place.keys() >= set(table.ids):
        raise RobevalError(
            f"internal error: cell {row.cell_id} ('{row.attack}' on '{row.model}') has other"
            f" samples of '{row.dataset}' than the other cells; it cannot be compared"
        )
    at = np.array([place[name] for name in table.ids], dtype=np.int64)
    right, seen = (np.zeros(len(place), dtype=bool) for _ in range(2))
    right[at], seen[at] = table.right, True
    return _Kept(right, seen)


def keys_of(hashes: Sequence[str]) -> list[str]:
    """A key for each sample: the prefix of its hash, and its number among those alike."""
    seen: dict[str, int] = {}
    keys = []
    for each in hashes:
        prefix = each[:PREFIX]
        seen[prefix] = seen.get(prefix, 0) + 1
        keys.append(prefix if seen[prefix] == 1 else f"{prefix}~{seen[prefix]}")
    return keys
