"""`robeval replay`: the stored adversarial points of a run, judged again in seconds.

What it says is a lower bound on what an attacker can do: the points were made against the model of
the run, nobody attacks the one that is judged here. It is no measure of robustness, and no gate is
passed by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from . import rebuild
from .errors import FOREIGN, DataError, ModelError, UsageError
from .group import MODEL_CLASSES, rows
from .judge import decide
from .plugins import Registry
from .report.words import interval, percent
from .samples import content_hashes
from .stats import rate
from .store import StoredRun
from .types import CLEAN, Candidates, Cell, Json, LoadedModel, Places, Rate, Samples
from .words import did_you_mean, listed

BATCH = 250
CAUTION = (
    "These points were made against the models of the stored run. What still breaks is a lower"
    " bound on what an attacker can do; it is no measure of robustness, and no gate is passed by it"
)
Bits = NDArray[np.bool_]
Ids = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The points of one cell on the model judged now.

    `accuracy`: right on their clean inputs. `error`: wrong on the points. `broke`: how many broke
    the model of the run, and `still` of those the one judged now. `newly_right`: ids of points that
    broke then and no longer do; `newly_wrong`: of points that were right then and are wrong now.
    """

    cell: Cell
    accuracy: Rate
    error: Rate
    broke: int
    still: int
    newly_right: Ids
    newly_wrong: Ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """`--model [NAME=]FILE`: the file that is judged, in the place of one model or of all."""

    name: str | None
    file: Path


def given(text: str, stored: StoredRun) -> Given:
    """Read `[NAME=]FILE`; NAME is a model of the run. Raises UsageError for another name."""
    head, equals, tail = text.partition("=")
    if equals and head in stored.plan.models:
        return Given(name=head, file=Path(tail))
    if equals and Path(tail).is_file() and not Path(text).is_file():
        helps = did_you_mean(head, stored.plan.models) or (
            f"models of the run: {listed(stored.plan.models)}",
        )
        raise UsageError("\n  help: ".join([f"--model: the run has no model '{head}'", *helps]))
    return Given(name=None, file=Path(text))


def replay(
    stored: StoredRun,
    registry: Registry,
    places: Places,
    *,
    device: str,
    threads: int,
    instead: Given | None = None,
) -> tuple[Replayed, ...]:
    """Every cell of the run that kept points, on its own model or on the one in its place.

    Raises UsageError for a run without points, EnvironmentProblem for a model that cannot be had.
    """
    judged = _Judged(stored, registry, places, device, threads, instead)
    cells = [cell for cell in stored.plan.cells if judged.concerns(cell)]
    found = tuple(judged.cell(cell) for cell in cells if stored.has_candidates(cell.id))
    if not found:
        raise UsageError(
            f"'{stored.path}' holds no adversarial points to replay: it was run with --no-examples,"
            " by an older robeval, or no attack was made"
        )
    return found


class _Judged:
    """The models that are judged now, each loaded once, and what they say of clean inputs."""

    def __init__(
        self,
        stored: StoredRun,
        registry: Registry,
        places: Places,
        device: str,
        threads: int,
        instead: Given | None,
    ) -> None:
        self._stored = stored
        self._registry = registry
        self._places = places
        self._device = device
        self._threads = threads
        self._instead = instead
        self._models: dict[str, LoadedModel] = {}
        self._clean: dict[tuple[str, str], int] = {}

    def concerns(self, cell: Cell) -> bool:
        """Whether the cell's points are judged at all."""
        name = self._instead.name if self._instead else None
        return cell.attack != CLEAN and name in {None, cell.model}

    def cell(self, cell: Cell) -> Replayed:
        """All points of one cell."""
        table = self._stored.samples(cell.id)
        assert table is not None, cell.id
        model = self._model(cell)
        place = {name: row for row, name in enumerate(table.sample_id)}
        seen: list[tuple[Samples, NDArray[np.int64], NDArray[np.int64]]] = []
        for points in self._points(cell, place):
            index = np.array([place[name] for name in points.sample_id.tolist()], dtype=np.int64)
            known = rows(table, index)
            _check(points, known, cell)
            clean = self._clean_pred(model, cell, points, known)
            seen.append((known, clean, self._pred(model, points.x_adv)))
        return _counted(cell, seen)

    def _points(self, cell: Cell, place: Mapping[str, int]) -> Iterator[Candidates]:
        """Points in small pieces; a cell that was stopped early has some that it does not count."""
        for points in self._stored.candidates(cell.id):
            counted = np.flatnonzero([name in place for name in points.sample_id.tolist()])
            for start in range(0, len(counted), BATCH):
                index = counted[start : start + BATCH]
                yield Candidates(
                    sample_id=points.sample_id[index], x=points.x[index], x_adv=points.x_adv[index]
                )

    def _model(self, cell: Cell) -> LoadedModel:
        key = "" if self._instead else cell.model
        if key not in self._models:
            self._models[key] = rebuild.load(
                self._stored,
                cell.model,
                self._instead.file if self._instead else None,
                self._registry,
                self._places,
                device=self._device,
                threads=self._threads,
            )
        self._check_classes(cell, self._models[key])
        return self._models[key]

    def _check_classes(self, cell: Cell, model: LoadedModel) -> None:
        clean = (c for c in self._stored.plan.cells if c.attack == CLEAN and c.model == cell.model)
        results = (self._stored.results.get(each.id) for each in clean)
        known = [each.observed.get(MODEL_CLASSES) for each in results if each is not None]
        expected = next((int(each) for each in known if each is not None), model.num_classes)
        if model.num_classes != expected:
            raise ModelError(
                f"{self._what(cell)} has {model.num_classes} classes and '{cell.model}' of the run"
                f" has {expected}: its points say nothing about another task"
            )

    def _what(self, cell: Cell) -> str:
        return f"model '{self._instead.file if self._instead else cell.model}'"

    def _clean_pred(
        self, model: LoadedModel, cell: Cell, points: Candidates, known: Samples
    ) -> NDArray[np.int64]:
        """Classes of the clean inputs; each input is asked once, whatever was made from it."""
        key = "" if self._instead else cell.model
        names = [(key, digest) for digest in known.sample_hash.tolist()]
        new = [at for at, name in enumerate(names) if name not in self._clean]
        if new:
            try:
                found = self._pred(model, points.x[new]).tolist()
            except FOREIGN as problem:
                shape = list(points.x.shape[1:])
                raise ModelError(
                    f"{self._what(cell)} does not take the inputs of '{cell.dataset}', of shape"
                    f" {shape}: {type(problem).__name__}: {problem}"
                ) from problem
            self._clean |= {names[at]: each for at, each in zip(new, found, strict=True)}
        return np.array([self._clean[name] for name in names], dtype=np.int64)

    def _pred(self, model: LoadedModel, x: NDArray[np.float32]) -> NDArray[np.int64]:
        pred: NDArray[np.int64] = (
            decide(model, torch.from_numpy(x).to(self._device)).pred.cpu().numpy()
        )
        return pred


def _check(points: Candidates, known: Samples, cell: Cell) -> None:
    """The stored inputs are those of the table: their content hash says so."""
    found = content_hashes(torch.from_numpy(points.x), torch.from_numpy(known.label))
    for name, digest, wanted in zip(points.sample_id, found, known.sample_hash, strict=True):
        if digest != wanted:
            raise DataError(
                f"cell {cell.id}: the stored input of sample '{name}' has the hash {digest}, its"
                f" table says {wanted}: the run directory was changed"
            )


def _counted(
    cell: Cell, seen: Sequence[tuple[Samples, NDArray[np.int64], NDArray[np.int64]]]
) -> Replayed:
    ids: list[str] = []
    right = wrong = broke = still = 0
    fixed: list[str] = []
    broken: list[str] = []
    for known, clean, pred in seen:
        goal = pred == known.adv_pred if cell.target is not None else pred != known.label
        now: Bits = goal & (pred >= 0)
        ids += known.sample_id.tolist()
        right += int((clean == known.label).sum())
        wrong += int((pred != known.label).sum())
        broke += int(known.success.sum())
        still += int((known.success & now).sum())
        fixed += known.sample_id[known.success & ~now].tolist()
        turned = known.adv_correct & (pred != known.label) & (pred >= 0)
        broken += known.sample_id[turned].tolist()
    return Replayed(
        cell=cell,
        accuracy=rate(right, len(ids)),
        error=rate(wrong, len(ids)),
        broke=broke,
        still=still,
        newly_right=tuple(fixed),
        newly_wrong=tuple(broken),
    )


# ---------------------------------------------------------------- for people and programs


def as_json(stored: StoredRun, found: Sequence[Replayed], instead: Given | None) -> dict[str, Json]:
    """The result as plain values."""
    return {
        "run": str(stored.path),
        "model": None if instead is None else str(instead.file),
        "instead_of": None if instead is None else instead.name,
        "caution": CAUTION,
        "cells": [_cell_json(each) for each in found],
    }


def _cell_json(each: Replayed) -> dict[str, Json]:
    cell = each.cell
    return {
        "cell_id": cell.id,
        "model": cell.model,
        "dataset": cell.dataset,
        "attack": cell.entry,
        "source": cell.source,
        "role": cell.role,
        "norm": cell.norm,
        "eps_text": cell.eps.text if cell.eps else None,
        "n": each.error.n,
        "clean_accuracy": each.accuracy.value,
        "adversarial_error": each.error.value,
        "adversarial_error_lo": each.error.low,
        "adversarial_error_hi": each.error.high,
        "broke": each.broke,
        "still_break": each.still,
        "newly_right": list(each.newly_right),
        "newly_wrong": list(each.newly_wrong),
    }


HEAD = (
    "made for", "attack", "eps", "points", "clean right", "error on points", "broke", "still",
    "newly wrong",
)  # fmt: skip


def lines(found: Sequence[Replayed]) -> list[str]:
    """The result as a plain table with the sentence that says what it is worth."""
    table = [HEAD, *(_values(each) for each in found)]
    widths = [max(len(row[at]) for row in table) for at in range(len(HEAD))]
    told = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
    return [*told, "", f"{CAUTION}."]


def _values(each: Replayed) -> tuple[str, ...]:
    cell = each.cell
    crafted = "" if cell.source == cell.model else f" from {cell.source}"
    told = cell.role != "control" or cell.implicit  # whose entry says so itself
    control = "" if told else " (control)"
    return (
        f"{cell.model} on {cell.dataset}",
        f"{cell.entry}{control}{crafted}",
        f"{cell.norm} {cell.eps.text}" if cell.eps else "-",
        f"{each.error.n:,}",
        percent(each.accuracy.value),
        f"{percent(each.error.value)} [{interval(each.error.low, each.error.high)}]",
        f"{each.broke:,}",
        f"{each.still:,}",
        f"{len(each.newly_wrong):,}",
    )
