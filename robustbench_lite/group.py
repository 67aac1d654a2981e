"""Cells that share dataset, source and attack, and the rows of one batch."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .judge import decide
from .raised import place
from .records import COLUMNS
from .types import (
    Batch,
    Candidates,
    Cell,
    Examples,
    LoadedModel,
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
MODEL_CLASSES = "classes of the model"
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
    def of(what: str, problem: BaseException, *, environment: bool = False) -> Failure:
        """A failure from an exception, with its traceback."""
        if isinstance(problem, TimeLimit):
            return Failure(str(problem), timed_out=True)
        text = "".join(traceback.format_exception(problem))
        told = f"{what}: {type(problem).__name__}: {problem}{place(problem)}"
        return Failure(told, environment, text)


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
    candidates: Candidates | None = None


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


def take(samples: Samples, start: int, stop: int) -> Samples:
    """Rows `start` to `stop` of a table."""
    return rows(samples, slice(start, stop))


def rows(samples: Samples, index: slice | NDArray[np.int64]) -> Samples:
    """The rows of a table that `index` selects, in its order."""
    return Samples(**{name: getattr(samples, name)[index] for name in COLUMNS})


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
