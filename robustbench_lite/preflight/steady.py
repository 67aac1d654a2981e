"""Whether the same input always gives the same output: again, alone, and beside other samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import FOREIGN
from ..group import out_of_memory
from ..rng import SampleRng, sample_keys
from ..types import Box
from . import keys

Predict = Callable[[Tensor], Tensor]

ROWS = 16
"""In the batch that is repeated."""
REPEATS = 4
"""Passes after the first: one draw of 2 equal chances is seen in 15 of 16 cases."""
ALONE = 8
"""Samples that are shown one by one."""
RADII = (0.1, 0.3)
"""Of the box's width: how far samples are moved, to see what only such inputs set off."""

FELT = 1e-3
"""Of the range of a row's scores; two float16 passes, or two kinds of kernel, stay below it."""
MUCH = 1e-2
"""The same for what is more than the last digits."""
STEP = 0.05
"""The same between batches of two sizes, where quantised files flip a rounding."""
SMALLEST_UNIT = 1e-30
OFFSET = 1e-6  # of the largest score: below it, float32 cannot tell two scores apart
LARGEST = 1e9  # a change that is larger, or not finite, is as bad


def steadiness(predict: Predict, x: Tensor, whole: Tensor, box: Box) -> dict[str, float]:
    """How the output of a row changes when nothing about that row does.

    x: [n, *shape] in `box`. `whole`: predict(x), [n, k]. The first rows are passed again as they
    are; then, if that changes nothing, one by one, in reverse order and with inverted images in
    the place of every second half. A few, moved to extreme points near them, are passed together,
    one by one and beside clean ones: a defence may act on what looks attacked. The same batch
    shape must give the same bits but for races on a GPU; another one changes the kernels and so
    the last digits.
    """
    base = x[:ROWS]
    first = whole if len(base) == len(x) else predict(base)
    observed = _repeated(predict, base, first)
    if keys.randomised(observed):
        return observed
    observed |= _beside(predict, base, first, box)
    resized = _resized(predict, base, first, whole)
    if not resized or keys.REFUSED_ALONE in resized:
        return observed | resized
    return observed | _added(resized, _moved(predict, base, box))


def apart(a: Tensor, b: Tensor) -> Tensor:
    """Largest difference between the scores of two rows, [n], in units of the range of a's.

    The unit is at least the median range of all rows, so that a flat row is not a matter of noise.
    """
    a, b = _finite(a), _finite(b)
    ranges = a.amax(dim=1) - a.amin(dim=1)
    floor = torch.maximum(ranges.median(), a.abs().max() * OFFSET).clamp_min(SMALLEST_UNIT)
    return ((a - b).abs().amax(dim=1) / ranges.maximum(floor)).clamp_max(LARGEST)


def _finite(scores: Tensor) -> Tensor:
    scores = scores.double()
    return torch.where(scores.isfinite(), scores, torch.zeros_like(scores))


def _other_decision(a: Tensor, b: Tensor) -> Tensor:
    return _finite(a).argmax(dim=1) != _finite(b).argmax(dim=1)


def _repeated(predict: Predict, base: Tensor, first: Tensor) -> dict[str, float]:
    variation = torch.zeros(len(base), dtype=torch.float64, device=first.device)
    other = torch.zeros(len(base), dtype=torch.bool, device=first.device)
    for _ in range(REPEATS):
        again = predict(base)
        variation = variation.maximum(apart(first, again))
        other |= _other_decision(first, again)
    return {
        keys.REPEATS: REPEATS,
        keys.REPEATED: len(base),
        keys.VARYING: _count(variation > FELT),
        keys.VARYING_MUCH: _count(variation > MUCH),
        keys.VARYING_DECISIONS: _count(other & (variation > FELT)),
        keys.VARIATION: float(variation.max()),
    }


def _beside(predict: Predict, base: Tensor, first: Tensor, box: Box) -> dict[str, float]:
    """The first half of the rows, each in its own place, with other neighbours behind it."""
    if len(base) < 2:
        return {}
    kept = (len(base) + 1) // 2
    inverted = box.low + box.high - base[kept:]
    mixed = predict(torch.cat([base[:kept], inverted]))[:kept]
    movement = apart(first[:kept], mixed)
    return {
        keys.COMPARED: kept,
        keys.MOVED: _count(movement > FELT),
        keys.MOVED_MUCH: _count(movement > STEP),
        keys.MOVED_DECISIONS: _count(_other_decision(first[:kept], mixed) & (movement > MUCH)),
        keys.MOVEMENT: float(movement.max()),
    }


def _resized(predict: Predict, base: Tensor, first: Tensor, whole: Tensor) -> dict[str, float]:
    """The rows in a larger batch, in another order, and each alone."""
    n = len(base)
    if n < 2:
        return {}
    turned = predict(base.flip(0)).flip(0)
    change = apart(first, whole[:n]).maximum(apart(first, turned))
    other = _other_decision(first, whole[:n]) | _other_decision(first, turned)
    alone = _alone(predict, base[:ALONE])
    if alone is None:
        return {keys.RESIZED: n, keys.REFUSED_ALONE: 1}
    m = len(alone)
    change[:m] = change[:m].maximum(apart(first, _padded(alone, first))[:m])
    other[:m] |= _other_decision(first[:m], alone)
    return _told(change, other)


def _moved(predict: Predict, base: Tensor, box: Box) -> dict[str, float]:
    """The same for some rows that look attacked: alone, and beside clean ones."""
    few = base[:ALONE]
    places = sample_keys([str(row) for row in range(len(few))], base.device)
    signs = SampleRng(0, "moved", places).uniform(tuple(few.shape[1:]), -1.0, 1.0).sign()
    radii = torch.tensor(RADII, device=base.device).repeat(ALONE)[: len(few)] * box.width
    moved = few + signs * radii.reshape(-1, *[1] * (few.ndim - 1))
    moved = moved.clamp(box.low, box.high)
    together = predict(moved)
    beside = predict(torch.cat([moved, few]))[: len(few)]
    alone = _alone(predict, moved)
    if alone is None:
        return {}
    change = apart(together, alone).maximum(apart(together, beside))
    return _told(change, _other_decision(together, alone) | _other_decision(together, beside))


def _added(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    """Counts of two sets of rows, and the larger of their changes."""
    both = {key: value + second.get(key, 0) for key, value in first.items()}
    return both | {keys.RESIZE: max(first[keys.RESIZE], second.get(keys.RESIZE, 0))}


def _told(change: Tensor, other: Tensor) -> dict[str, float]:
    return {
        keys.RESIZED: len(change),
        keys.RESIZED_MUCH: _count(change > STEP),
        keys.RESIZED_DECISIONS: _count(other & (change > STEP)),
        keys.RESIZE: float(change.max()),
    }


def _padded(rows: Tensor, like: Tensor) -> Tensor:
    return torch.cat([rows, like[len(rows) :]])


def _alone(predict: Predict, rows: Tensor) -> Tensor | None:
    """Each row as a batch of one; None for a model that cannot take one."""
    try:
        return torch.cat([predict(row) for row in rows[:, None]])
    except FOREIGN as problem:
        if out_of_memory(problem):
            raise
        return None


def _count(mask: Tensor) -> int:
    return int(mask.sum())
