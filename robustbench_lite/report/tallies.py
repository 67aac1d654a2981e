"""One pass over the per-sample tables of a run: each is read once, counted and forgotten."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..types import CLEAN, NO_NORM, NORMS, WORST_CASE, Row, Samples
from .view import FinishedRun, summary_of
from .words import attack_name

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
PER_CELL = 8  # examples of a cell that are looked at
MOST_CELLS = 12  # cells of a model whose examples are looked at: pictures may be large
Place = tuple[str, str]  # model, dataset


class Candidate(NamedTuple):
    """A broken example: its index in the cell's examples, and its row of the cell's table."""

    at: int
    position: int
    sample_id: str
    label: int
    clean_pred: int
    clean_confidence: float
    adv_pred: int
    adv_confidence: float
    distance: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What the table of one cell says beyond its rates.

    `classes`: [k, 4] int64 per class that occurs: label, samples, clean-correct, robust.
    `answers`: (label, class on the adversarial input) -> samples, decided ones only.
    `confidence`: the quantiles of the model's confidence in its `mistakes` wrong decisions.
    `distances`: sorted distances of what a minimal-norm attack broke, else empty.
    `pixels`: flat position of a single changed pixel -> samples that it broke.
    `wrong`: int32 [n], the class a broken sample was given, -1 elsewhere; empty if nobody asked.
    `shape`: of one sample, where examples tell it.
    """

    row: Row
    classes: NDArray[np.int64]
    answers: Mapping[tuple[int, int], int]
    mistakes: int
    confidence: tuple[float, ...]
    distances: NDArray[np.float64]
    pixels: Mapping[int, int]
    wrong: NDArray[np.int32]
    candidates: tuple[Candidate, ...]
    shape: tuple[int, ...] | None


def tallies(
    run: FinishedRun, places: Collection[Place], paired: Collection[str]
) -> dict[str, Tally]:
    """Cell id -> tally, for every sound cell of these models and datasets.

    `paired`: cells whose wrong answers are to be compared with those of another cell.
    """
    pictured = _pictured(summary_of(run).rows, places)
    found: dict[str, Tally] = {}
    for row in summary_of(run).rows:
        if row.status != "ok" or row.plugin == WORST_CASE or (row.model, row.dataset) not in places:
            continue
        samples = run.samples(row.cell_id)
        if samples is not None:
            found[row.cell_id] = _tally(
                run, row, samples, paired=row.cell_id in paired, pictured=row.cell_id in pictured
            )
    return found


def _pictured(rows: Sequence[Row], places: Collection[Place]) -> set[str]:
    """A few cells per model that broke something: one of each attack before a second one."""
    turns: dict[tuple[str, ...], int] = {}
    broke: dict[Place, list[tuple[int, int, str]]] = {place: [] for place in places}
    for row in rows:
        of = broke.get((row.model, row.dataset))
        if of is None or row.plugin == WORST_CASE:
            continue
        if row.attack_success_rate is not None and row.attack_success_rate.count:
            spot = (row.model, row.dataset, attack_name(row))
            turns[spot] = turns.get(spot, 0) + 1
            of.append((rank(row), turns[spot], row.cell_id))
    chosen = (sorted(cells, key=_turn)[:MOST_CELLS] for cells in broke.values())
    return {cell_id for cells in chosen for _, _, cell_id in cells}


def _turn(cell: tuple[int, int, str]) -> tuple[int, int]:
    return cell[:2]


def rank(row: Row) -> int:
    """Attacks in a ball come first, then changes without a distance, then controls."""
    return 2 if row.role == "control" else int(row.norm == NO_NORM)


def _tally(run: FinishedRun, row: Row, samples: Samples, *, paired: bool, pictured: bool) -> Tally:
    broken = samples.clean_correct & samples.success
    clean = row.attack == CLEAN
    pred = samples.clean_pred if clean else samples.adv_pred
    confidence = samples.clean_confidence if clean else samples.adv_confidence
    mistaken = (pred >= 0) & (pred != samples.label)
    candidates, shape = _examples(run, row, samples) if pictured else ((), None)
    return Tally(
        row=row,
        classes=_classes(samples),
        answers=_counted(samples.label[pred >= 0], pred[pred >= 0]),
        mistakes=int(mistaken.sum()),
        confidence=_quantiles(confidence[mistaken]),
        distances=_distances(row, samples, broken),
        pixels=_pixels(samples.pixel[broken]),
        wrong=(np.where(broken, pred, -1) if paired else np.empty(0)).astype(np.int32),
        candidates=candidates,
        shape=shape,
    )


def _classes(samples: Samples) -> NDArray[np.int64]:
    labels, at = np.unique(samples.label, return_inverse=True)
    k = len(labels)
    robust = samples.clean_correct & ~samples.success
    columns = [
        labels,
        np.bincount(at, minlength=k),
        np.bincount(at[samples.clean_correct], minlength=k),
        np.bincount(at[robust], minlength=k),
    ]
    return np.stack(columns, axis=1).astype(np.int64)


def _counted(label: NDArray[np.int64], pred: NDArray[np.int64]) -> dict[tuple[int, int], int]:
    answers = int(pred.max(initial=0)) + 1
    codes, counts = np.unique(label * answers + pred, return_counts=True)
    return {
        divmod(int(code), answers): int(count) for code, count in zip(codes, counts, strict=True)
    }


def _quantiles(values: NDArray[np.float32]) -> tuple[float, ...]:
    finite = values[np.isfinite(values)].astype(np.float64)
    if not len(finite):
        return ()
    return tuple(float(each) for each in np.quantile(finite, QUANTILES))


def _distances(row: Row, samples: Samples, broken: NDArray[np.bool_]) -> NDArray[np.float64]:
    if row.kind != "minimal-norm" or row.norm not in NORMS:
        return np.empty(0)
    found: NDArray[np.float64] = getattr(samples, row.norm)[broken]
    return np.sort(found)


def _pixels(positions: NDArray[np.int64]) -> dict[int, int]:
    where, counts = np.unique(positions[positions >= 0], return_counts=True)
    return {int(at): int(count) for at, count in zip(where, counts, strict=True)}


def _examples(
    run: FinishedRun, row: Row, samples: Samples
) -> tuple[tuple[Candidate, ...], tuple[int, ...] | None]:
    """A cell's broken examples, the most confident mistake first, and the shape of a sample."""
    examples = run.examples(row.cell_id)
    if examples is None or not len(examples.positions):
        return (), None
    at = examples.positions
    broken = np.flatnonzero(samples.clean_correct[at] & samples.success[at])
    order = broken[np.argsort(-samples.adv_confidence[at][broken], kind="stable")]
    chosen = tuple(_candidates(row, samples, at, order[:PER_CELL]))
    return chosen, tuple(int(size) for size in examples.x.shape[1:])


def _candidates(
    row: Row, samples: Samples, positions: NDArray[np.int64], order: NDArray[np.int64]
) -> Iterator[Candidate]:
    measured = row.norm not in (None, NO_NORM)
    for index in order:
        at = int(positions[index])
        yield Candidate(
            at=int(index),
            position=at,
            sample_id=str(samples.sample_id[at]),
            label=int(samples.label[at]),
            clean_pred=int(samples.clean_pred[at]),
            clean_confidence=float(samples.clean_confidence[at]),
            adv_pred=int(samples.adv_pred[at]),
            adv_confidence=float(samples.adv_confidence[at]),
            distance=float(getattr(samples, str(row.norm))[at]) if measured else None,
        )
