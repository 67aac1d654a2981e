"""The worst examples of each model: clean, adversarial and amplified difference, lossless."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ..types import CLEAN, NO_NORM, WORST_CASE, Examples, Row, Samples
from .svg import bars
from .view import FinishedRun, summary_of
from .words import attack_name, budget, number

PER_MODEL = 8
MOST_BYTES = 2_500_000  # of pictures in one page; the whole page stays under 5 MB
SHOWN_SIDE = 100  # pixels on the page; smaller images are enlarged by whole factors
MOST_BARS = 32
Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Specimen:
    """One broken sample with its three pictures and the words under them.

    `factor`: the difference is amplified by it, around mid-grey (or zero).
    """

    attack: str
    budget: str
    sample_id: str
    label: int
    clean_pred: int
    clean_confidence: float
    adv_pred: int
    adv_confidence: float
    distance: str
    factor: str
    note: str
    clean: Markup
    adversarial: Markup
    difference: Markup


@dataclass(frozen=True, slots=True)
class Wall:
    """The specimens of a model on a dataset; `left_out`: how many the page had no room for."""

    model: str
    dataset: str
    specimens: tuple[Specimen, ...]
    left_out: int


def walls(run: FinishedRun) -> list[Wall]:
    """The worst examples per model and dataset: the most confident mistakes, attacks in turn."""
    places: dict[tuple[str, str], list[Row]] = {}
    for row in summary_of(run).rows:
        if row.status == "ok" and row.attack not in (CLEAN, WORST_CASE):
            places.setdefault((row.model, row.dataset), []).append(row)
    room = MOST_BYTES
    found: list[Wall] = []
    for (model, dataset), rows in places.items():
        chosen = _choose(run, rows)
        shown: list[Specimen] = []
        for candidate in chosen:
            specimen = _specimen(run, candidate)
            size = sum(map(len, (specimen.clean, specimen.adversarial, specimen.difference)))
            if size <= room:
                room -= size
                shown.append(specimen)
        if chosen:
            found.append(Wall(model, dataset, tuple(shown), len(chosen) - len(shown)))
    return found


class _Candidate(NamedTuple):
    """A broken example: its cell, its index in the examples, its position in the table."""

    row: Row
    at: int
    position: int


def _choose(run: FinishedRun, rows: Sequence[Row]) -> list[_Candidate]:
    """Up to eight, each sample once: every attack's worst in turn, controls if room is left."""
    first: dict[int, _Candidate] = {}
    for role in ("attack", "control"):
        if len(first) >= PER_MODEL:
            break
        per_cell = [_by_confidence(run, row) for row in rows if row.role == role]
        for turn in zip_longest(*per_cell):
            for candidate in turn:
                if candidate is not None:
                    first.setdefault(candidate.position, candidate)
    return list(first.values())[:PER_MODEL]


def _by_confidence(run: FinishedRun, row: Row) -> list[_Candidate]:
    """A cell's broken examples, the most confident mistake first."""
    examples, samples = run.examples(row.cell_id), run.samples(row.cell_id)
    if examples is None or samples is None:
        return []
    at = examples.positions
    broken = np.flatnonzero(samples.clean_correct[at] & samples.success[at])
    order = broken[np.argsort(-samples.adv_confidence[at][broken], kind="stable")]
    return [_Candidate(row, int(index), int(at[index])) for index in order[:PER_MODEL]]


def _specimen(run: FinishedRun, candidate: _Candidate) -> Specimen:
    row, at, position = candidate
    samples, examples = run.samples(row.cell_id), run.examples(row.cell_id)
    assert samples is not None
    assert examples is not None
    low, high = _range(examples, at)
    x, x_adv = examples.x[at], examples.x_adv[at]
    delta = x_adv - x
    factor = amplification(float(np.abs(delta).max(initial=0.0)), high - low)
    middle = (low + high) / 2
    pixels = as_pixels(x) is not None
    draw, swing = (_picture, 0.0) if pixels else (_bars, middle)
    return Specimen(
        attack=attack_name(row),
        budget=budget(row),
        sample_id=str(samples.sample_id[position]),
        label=int(samples.label[position]),
        clean_pred=int(samples.clean_pred[position]),
        clean_confidence=float(samples.clean_confidence[position]),
        adv_pred=int(samples.adv_pred[position]),
        adv_confidence=float(samples.adv_confidence[position]),
        distance=_distance(row, samples, position),
        factor=f"{factor:,.6g}",
        note=_note(x, low, high),
        clean=draw(x, low, high, "clean"),
        adversarial=draw(x_adv, low, high, "adversarial"),
        difference=draw(middle - swing + factor * delta, low - swing, high - swing, "difference"),
    )


def _distance(row: Row, samples: Samples, position: int) -> str:
    if row.norm is None or row.norm == NO_NORM:
        return ""
    return f"{row.norm} distance {number(float(getattr(samples, row.norm)[position]))}"


def _note(x: Image, low: float, high: float) -> str:
    parts = []
    if as_pixels(x) is None and x.size > MOST_BARS:
        parts.append(f"first {MOST_BARS} of {x.size:,} components")
    if (low, high) != (0.0, 1.0):
        parts.append(f"shown from {number(low)} to {number(high)}")
    return "; ".join(parts)


def _range(examples: Examples, at: int) -> tuple[float, float]:
    """The displayed range: a usual one that holds both pictures, else their own."""
    low = float(min(examples.x[at].min(initial=0.0), examples.x_adv[at].min(initial=0.0)))
    high = float(max(examples.x[at].max(initial=0.0), examples.x_adv[at].max(initial=0.0)))
    for usual in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        if usual[0] <= low and high <= usual[1]:
            return usual
    return low, high


def amplification(largest: float, width: float) -> float:
    """Largest of 1, 2, 5, 10, ... that keeps a difference of at most `largest` inside `width`."""
    if largest <= 0:
        return 1.0
    wanted = 0.5 * width / largest
    return max((step for step in _steps() if step <= wanted), default=1.0)


def _steps() -> Iterator[float]:
    return (digit * 10.0**power for power in range(5) for digit in (1, 2, 5))


def as_pixels(x: Image) -> Image | None:
    """An image as [h, w] (grey) or [h, w, 3] (RGB), or None for any other shape."""
    if x.ndim == 2 and min(x.shape) > 1:
        return x
    if x.ndim != 3 or min(x.shape[1:]) <= 1:
        return None
    if x.shape[0] == 1:
        return x.reshape(x.shape[1:])
    return x.transpose(1, 2, 0) if x.shape[0] == 3 else None


def _picture(x: Image, low: float, high: float, alt: str) -> Markup:
    """A PNG as a data URI; 8-bit, so that the exact floats stay in examples.npz."""
    from PIL import Image as Pillow

    pixels = as_pixels(x)
    assert pixels is not None
    levels = np.rint((np.clip(pixels, low, high) - low) / (high - low) * 255).astype(np.uint8)
    stream = io.BytesIO()
    Pillow.fromarray(levels).save(stream, format="PNG", optimize=True)
    height, width = levels.shape[:2]
    scale = max(1, SHOWN_SIDE // max(height, width))
    shrink = min(1.0, SHOWN_SIDE / max(height, width))
    return Markup('<img src="{}" alt="{}" width="{}" height="{}" class="{}">').format(
        "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode(),
        alt,
        round(width * scale * shrink),
        round(height * scale * shrink),
        "pixels" if scale > 1 else "photo",
    )


def _bars(x: Image, low: float, high: float, alt: str) -> Markup:  # noqa: ARG001  (as _picture)
    return bars([float(value) for value in x.reshape(-1)[:MOST_BARS]], low, high)
