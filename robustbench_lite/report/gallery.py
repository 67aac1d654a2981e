"""The worst examples of each model: clean, adversarial and amplified difference, lossless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..types import Examples, Row
from .pictures import Trio, trio
from .tallies import Candidate, Place, Tally, rank
from .view import FinishedRun
from .words import attack_name, budget, number

PER_MODEL = 8
_Pick = tuple[Row, Candidate]


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


def _choose(group: Sequence[Tally]) -> list[_Pick]:
    """Up to eight, each sample once: every attack's worst in turn, the rest if room is left."""
    chosen: dict[int, _Pick] = {}
    for of in range(3):
        queues = _by_attack([tally for tally in group if rank(tally.row) == of])
        while any(queues) and len(chosen) < PER_MODEL:
            for queue in queues:
                fresh = next((at for at, pick in enumerate(queue) if _new(pick, chosen)), None)
                if fresh is None:
                    queue.clear()
                elif len(chosen) < PER_MODEL:
                    chosen[queue[fresh][1].position] = queue[fresh]
                    del queue[: fresh + 1]
    return list(chosen.values())


def _new(pick: _Pick, chosen: Mapping[int, _Pick]) -> bool:
    return pick[1].position not in chosen


def _by_attack(group: Sequence[Tally]) -> list[list[_Pick]]:
    """The examples of each attack over all of its budgets, the most confident mistake first."""
    attacks: dict[str, list[_Pick]] = {}
    for tally in group:
        own = attacks.setdefault(attack_name(tally.row), [])
        own += [(tally.row, each) for each in tally.candidates]
    return [sorted(own, key=_doubt) for own in attacks.values()]


def _doubt(pick: _Pick) -> float:
    return -pick[1].adv_confidence


def _specimens(run: FinishedRun, chosen: Sequence[_Pick], room: int) -> list[Specimen]:
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
