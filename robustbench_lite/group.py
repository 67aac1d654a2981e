"""Cells that share dataset, source and attack, and the rows that they have so far."""

from __future__ import annotations

import dataclasses
import json
import time
import traceback
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .judge import decide
from .records import COLUMNS, concat
from .types import (
    Batch,
    Cell,
    Examples,
    LoadedModel,
    Part,
    PartStore,
    Samples,
)

GALLERY = 8  # examples kept per batch
ILLEGAL = "illegal: "
UNCHANGED = "unchanged"
FOUND_ON_TWIN = "found on twin"
NOT_CONFIRMED = "not confirmed by the file"
PARITY_DIFFERENCE = "twin difference"
PARITY_TOLERANCE = "twin tolerance"
ATTACKABLE = "attackable"
BOX_LOW = "box low"
BOX_HIGH = "box high"
DIMENSION = "dimension "  # with its number, of the shape of one sample
NO_PREFLIGHT = "no look beforehand"
SILENT = "silent success"
TAKEN_BACK = "taken back by the judge"
RISING = "loss still rising"
CLIMBED = "loss watched"
UNSPENT = "half the budget unspent"
UNBROKEN = "unbroken"
NOT_REPEATED = "not repeated"
REPEATED = "run twice"
ASKED_AGAIN = "asked again"
OTHERWISE = "answered otherwise"


class TimeLimit(Exception):
    """An attack took longer than the suite allows."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a cell has no numbers; `environment`: device, file or data, not the attack.

    `timed_out`: it took longer than its time limit.
    """

    reason: str
    environment: bool = False
    traceback: str = ""
    timed_out: bool = False

    @staticmethod
    def of(what: str, problem: Exception, *, environment: bool = False) -> Failure:
        """A failure from an exception, with its traceback."""
        if isinstance(problem, TimeLimit):
            return Failure(str(problem), timed_out=True)
        text = "".join(traceback.format_exception(problem))
        return Failure(f"{what}: {type(problem).__name__}: {problem}", environment, text)


@dataclass(frozen=True, slots=True)
class Group:
    """Cells of one attack entry crafted on one source (for the clean pass: one model)."""

    source: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One batch's rows of one cell."""

    samples: Samples
    examples: Examples
    observed: Mapping[str, float]
    seconds: float


def split(cells: Iterable[Cell]) -> list[Group]:
    """Groups in the order of their first cell; what is crafted alike is crafted once.

    A white-box cell stays alone: its broken rows leave the work, whoever else is judged.
    """
    found: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        found.setdefault(_alike(cell), []).append(cell)
    return [Group(members[0].source, tuple(members)) for members in found.values()]


def _alike(cell: Cell) -> tuple[object, ...]:
    params = json.dumps(cell.params, sort_keys=True)
    white_box = cell.model == cell.source
    return (cell.entry, cell.attack, cell.source, white_box, cell.norm, cell.target, params)


@dataclass(slots=True)
class Clock:
    """Seconds that an attack may still take."""

    left: float


class Tables:
    """What a group has finished so far: stored parts, the rows of the running part, failures."""

    def __init__(
        self,
        cells: Sequence[Cell],
        store: PartStore,
        todo: Collection[str],
        spans: Collection[tuple[int, int]],
    ) -> None:
        self._cells = cells
        self._store = store
        self._todo = todo  # the others are run again only for what they carry into these
        self._carries = any(cell.carried for cell in cells)
        self.parts: dict[str, list[Part]] = {
            cell.id: [part for part in store.parts(cell.id) if (part.start, part.stop) in spans]
            for cell in cells
        }
        self.failures: dict[str, Failure] = {}
        self.clock = Clock(cells[0].time_limit or float("inf")) if cells else Clock(float("inf"))
        self._chunks: dict[str, list[Chunk]] = {}
        self._span = (0, 0)

    def missing(self, start: int, stop: int) -> list[Cell]:
        """Cells to run on samples `start` to `stop`: a whole grid that carries, if one needs it."""
        self._span = (start, stop)
        alive = [cell for cell in self._cells if cell.id not in self.failures]
        lacking = [cell for cell in alive if not self._has(cell.id, start, stop)]
        if not any(cell.id in self._todo for cell in lacking):
            return []
        return alive if self._carries else lacking

    def _has(self, cell_id: str, start: int, stop: int) -> bool:
        return any((part.start, part.stop) == (start, stop) for part in self.parts[cell_id])

    def add(self, cell: Cell, chunk: Chunk | Failure) -> None:
        """One more batch of the running part, or the end of the cell."""
        if isinstance(chunk, Failure):
            self._fail(cell, chunk)
        elif cell.id not in self.failures:
            self._chunks.setdefault(cell.id, []).append(chunk)

    def _fail(self, cell: Cell, failure: Failure) -> None:
        self.failures[cell.id] = failure
        self._chunks.pop(cell.id, None)
        for other in self._cells:
            starts_here = cell.eps in other.carried and other.model == cell.model
            if starts_here and other.id not in self.failures:
                eps = cell.eps.text if cell.eps else ""
                reason = f"it starts from eps {eps}, which failed: {failure.reason}"
                self._fail(other, dataclasses.replace(failure, reason=reason))

    @property
    def begun(self) -> bool:
        """Whether the running part has rows."""
        return bool(self._chunks)

    def close(self, start: int, stop: int, batch_size: int, noticed: Mapping[str, float]) -> None:
        """Store the running part of every cell that has one and lacks it."""
        for cell_id, chunks in self._chunks.items():
            if cell_id not in self._todo or self._has(cell_id, start, stop):
                continue
            observed = dict(noticed)
            for chunk in chunks:
                for key, value in chunk.observed.items():
                    observed[key] = observed.get(key, 0) + value
            part = Part(
                start=start,
                stop=stop,
                samples=concat([chunk.samples for chunk in chunks]),
                examples=_gallery([chunk.examples for chunk in chunks]),
                observed=observed,
                seconds=sum(chunk.seconds for chunk in chunks),
                batch_size=batch_size,
            )
            self.parts[cell_id].append(part)
            self._store.save_part(cell_id, part)
        self._chunks.clear()

    def progress(self, cell: Cell) -> tuple[int, int]:
        """Samples judged so far, and how many of them are correct and unbroken."""
        tables = [part.samples for part in self.parts[cell.id]]
        if not self._has(cell.id, *self._span):
            tables += [chunk.samples for chunk in self._chunks.get(cell.id, [])]
        robust = sum(int((table.clean_correct & ~table.success).sum()) for table in tables)
        return sum(len(table.label) for table in tables), robust


def _gallery(examples: Sequence[Examples]) -> Examples:
    return Examples(
        positions=np.concatenate([part.positions for part in examples])[:GALLERY],
        x=np.concatenate([part.x for part in examples])[:GALLERY],
        x_adv=np.concatenate([part.x_adv for part in examples])[:GALLERY],
    )


def take(samples: Samples, start: int, stop: int) -> Samples:
    """Rows `start` to `stop` of a table."""
    return Samples(**{name: getattr(samples, name)[start:stop] for name in COLUMNS})


def clean_chunk(model: LoadedModel, batch: Batch) -> Chunk:
    """The clean pass over one batch."""
    begin = time.perf_counter()
    decision = decide(model, batch.x)
    n = batch.x.shape[0]
    pred = decision.pred.cpu().numpy().astype(np.int64)
    confidence = decision.confidence.cpu().numpy().astype(np.float32)
    seconds = time.perf_counter() - begin
    label = batch.y.cpu().numpy()
    zero = np.zeros(n)
    unfinished = int((~decision.finite).sum())
    samples = Samples(
        sample_id=np.array(batch.ids, dtype=object),
        sample_hash=np.array(batch.hashes, dtype=object),
        label=label,
        clean_pred=pred,
        clean_confidence=confidence,
        adv_pred=pred,
        adv_confidence=confidence,
        clean_correct=pred == label,
        adv_correct=pred == label,
        success=np.zeros(n, dtype=bool),
        legal=np.ones(n, dtype=bool),
        l0=zero,
        l1=zero,
        l2=zero,
        linf=zero,
        survives_uint8=np.zeros(n, dtype=bool),
        pixel=np.full(n, -1, dtype=np.int64),
        queries=np.ones(n),
        gradients=zero,
        status=np.where(pred < 0, "no-decision", "ok").astype(object),
    )
    none = np.zeros((0, *batch.x.shape[1:]), dtype=np.float32)
    return Chunk(
        samples=samples,
        examples=Examples(positions=np.zeros(0, dtype=np.int64), x=none, x_adv=none),
        observed={f"{ILLEGAL}model output not finite": unfinished} if unfinished else {},
        seconds=seconds,
    )


def out_of_memory(problem: BaseException) -> bool:
    """Whether a smaller batch may help (torch and onnxruntime say it differently)."""
    if isinstance(problem, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(problem).lower()
    return isinstance(problem, RuntimeError) and (
        "out of memory" in text or "failed to allocate memory" in text or "can't allocate" in text
    )
