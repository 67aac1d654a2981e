"""The worst examples of each model: clean, adversarial and amplified difference, lossless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ..types import Examples, Row
from .pictures import Trio, trio
from .tallies import Candidate, Place, Tally, rank
from .view import FinishedRun
from .words import attack_name, budget, number

PER_MODEL = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Specimen:
    """One broken sample with its three pictures and the words under them."""

    entry: str
    attack: str
    budget: str
    sample: Candidate
    distance: str
    trio: Trio


@dataclass(frozen=True, slots=True)
class Wall:
    """The specimens of a model on a dataset; `left_out`: how many the page had no room for."""

    model: str
    dataset: str
    specimens: tuple[Specimen, ...]
    left_out: int


def walls(run: FinishedRun, found: Mapping[str, Tally], room: int) -> list[Wall]:
    """The worst examples per model and dataset: the most confident mistakes, attacks in turn.

    `room`: bytes of pictures that the page may hold.
    """
    places: dict[Place, list[Tally]] = {}
    for tally in found.values():
        if tally.candidates:
            places.setdefault((tally.row.model, tally.row.dataset), []).append(tally)
    built: list[Wall] = []
    fair = room // max(len(places), 1)
    for place, group in places.items():
        chosen = _choose(group)
        shown = _specimens(run, chosen, fair)
        built.append(Wall(*place, tuple(shown), len(chosen) - len(shown)))
    return built


def _choose(group: Sequence[Tally]) -> list[tuple[Row, Candidate]]:
    """Up to eight, each sample once: every attack's worst in turn, the rest if room is left."""
    first: dict[int, tuple[Row, Candidate]] = {}
    for of in range(3):
        if len(first) >= PER_MODEL:
            break
        own = [[(t.row, each) for each in t.candidates] for t in group if rank(t.row) == of]
        for turn in zip_longest(*own):
            for pick in turn:
                if pick is not None:
                    first.setdefault(pick[1].position, pick)
    return list(first.values())[:PER_MODEL]


def _specimens(
    run: FinishedRun, chosen: Sequence[tuple[Row, Candidate]], room: int
) -> list[Specimen]:
    shown: list[Specimen] = []
    loaded: dict[str, Examples | None] = {}
    for row, sample in chosen:
        if row.cell_id not in loaded:
            loaded = {row.cell_id: run.examples(row.cell_id)}  # one cell's pictures at a time
        examples = loaded[row.cell_id]
        if examples is None:
            continue
        names = (f"clean, seen as {sample.clean_pred}", f"adversarial, seen as {sample.adv_pred}")
        pictures = trio(examples.x[sample.at], examples.x_adv[sample.at], names)
        if pictures.size <= room:
            room -= pictures.size
            shown.append(_specimen(row, sample, pictures))
    return shown


def _specimen(row: Row, sample: Candidate, pictures: Trio) -> Specimen:
    measured = sample.distance is not None
    return Specimen(
        entry=row.attack,
        attack=attack_name(row),
        budget=budget(row),
        sample=sample,
        distance=f"{row.norm} distance {number(sample.distance)}" if measured else "",
        trio=pictures,
    )
