"""Pictures of the samples that a comparison names, where a run kept them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..types import CLEAN, NO_NORM, Cell, Samples
from .pictures import Trio, trio
from .view import FinishedRun
from .words import number


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A sample with its pictures and what the model made of both. `distance`: "" without a norm."""

    sample_id: str
    label: int
    clean_pred: int
    clean_confidence: float
    adv_pred: int
    adv_confidence: float
    distance: str
    trio: Trio


def shots(
    run: FinishedRun | None, cell_id: str, ids: Collection[str], *, most: int, room: int
) -> tuple[Shot, ...]:
    """At most `most` of the samples `ids` that a cell keeps images of, within `room` bytes."""
    if run is None or room <= 0:
        return ()
    cell = next((each for each in run.plan.cells if each.id == cell_id), None)
    examples, samples = run.examples(cell_id), run.samples(cell_id)
    if cell is None or cell.attack == CLEAN or examples is None or samples is None:
        return ()
    wanted = frozenset(ids)
    found: list[Shot] = []
    for index, position in enumerate(examples.positions):
        row = int(position)
        if str(samples.sample_id[row]) not in wanted or len(found) == most:
            continue
        names = (
            f"clean, seen as {samples.clean_pred[row]}",
            f"adversarial, seen as {samples.adv_pred[row]}",
        )
        pictures = trio(examples.x[index], examples.x_adv[index], names)
        if pictures.size <= room:
            room -= pictures.size
            found.append(_shot(cell, samples, row, pictures))
    return tuple(found)


def _shot(cell: Cell, samples: Samples, row: int, pictures: Trio) -> Shot:
    measured = cell.norm if cell.norm != NO_NORM else None
    distance = None if measured is None else float(getattr(samples, measured)[row])
    return Shot(
        sample_id=str(samples.sample_id[row]),
        label=int(samples.label[row]),
        clean_pred=int(samples.clean_pred[row]),
        clean_confidence=float(samples.clean_confidence[row]),
        adv_pred=int(samples.adv_pred[row]),
        adv_confidence=float(samples.adv_confidence[row]),
        distance="" if distance is None else f"{measured} distance {number(distance)}",
        trio=pictures,
    )
