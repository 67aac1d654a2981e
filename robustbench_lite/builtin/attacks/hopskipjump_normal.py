"""The normal of a decision boundary, estimated from decisions around a point on it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .decision_task import Task, at_once

if TYPE_CHECKING:
    from torch import Tensor

BLOCKS = 8  # of one estimate; after each the centre of the queries is moved
SPREAD = 0.1  # distance of a query from the point, of the point's to x; 0.03 and 0.3 do alike
FIRST_GAIN, SMALLEST_GAIN, LARGEST_GAIN = 0.05, 1e-3, 2.0
ONE_SIDED = 0.6  # a block in which the mean of +-1 is beyond that has missed the boundary


def spread(point: Tensor, x: Tensor) -> Tensor:
    """How far queries lie from points [l, *shape], [l]."""
    from robustbench_lite import norms

    return SPREAD * norms.distance(point.double() - x.double(), "l2")


def estimated(
    task: Task,
    index: Tensor,
    point: Tensor,
    way: Tensor,
    shift: Tensor,
    gain: Tensor,
    count: int,
    name: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum over `count` queries of (decision - mean decision) * offset, [l, *shape].

    Decisions are 1 (broken) or -1, offsets Gaussian and what the box leaves of them: the paper's
    estimate with its baseline, of a length that grows with what it knows.
    Other than in the paper, queries are not centred at the point but further along `way` (l2 unit
    vectors) or nearer, where they are of both kinds: in a corner of the boundary, and wherever
    components lie on the face of the box, nearly all around the point are of one kind and say
    nothing. In l2 the offsets are orthogonal to `way`, along which the normal is known.

    `shift`: where the centre is, in units of `spread`, and `gain`: of its next correction, float64
    [l];
    both are returned as they are after the last block.
    """
    import torch

    from robustbench_lite import norms

    width = spread(point, task.x[index])
    total, before = torch.zeros_like(point), torch.zeros_like(shift)
    for block in range(BLOCKS):
        size = (count + block) // BLOCKS
        middle = task.clamped(point + norms.per_sample((shift * width).to(way.dtype), way) * way)
        signed, plain, broken = _asked(task, index, middle, way, width, size, f"{name}-{block}")
        tilt = 2 * broken / size - 1
        total += signed - norms.per_sample(tilt.to(plain.dtype), plain) * plain
        again = (tilt * before > 0) & (tilt.abs() > ONE_SIDED)
        opposite = tilt * before < 0
        gain = gain * (1.0 + again.to(gain.dtype)) / (1.0 + 0.5 * opposite.to(gain.dtype))
        gain = gain.clamp(SMALLEST_GAIN, LARGEST_GAIN)
        shift, before = shift - gain * tilt, tilt
    return total, shift, gain


def _asked(
    task: Task, index: Tensor, middle: Tensor, way: Tensor, width: Tensor, size: int, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Of `size` queries per sample: sum of decision * offset, sum of offsets, number broken."""
    import torch

    signed, plain = torch.zeros_like(middle), torch.zeros_like(middle)
    broken = torch.zeros_like(width)
    most = at_once(middle)
    everyone = torch.arange(middle.shape[0], device=middle.device)
    for first in range(0, size, most):
        few = min(most, size - first)
        for group in torch.split(everyone, max(1, most // few)):
            drawn = task.rng.rows(index[group]).fork(f"{name}-{first}")
            offset = drawn.normal((few, *middle.shape[1:]))
            offset = _sideways(offset, way[group]) if task.norm == "l2" else offset
            scale = width[group].to(middle.dtype) / math.sqrt(max(1, middle[:1].numel()))
            here = middle[group].unsqueeze(1)
            points = task.clamped(here + offset * scale.view(-1, *[1] * middle.ndim))
            offset = points - here
            rows = index[group].repeat_interleave(few)
            hit = task.broken(rows, points.flatten(0, 1)).view(-1, few).to(middle.dtype)
            sign = (2 * hit - 1).view(-1, few, *[1] * (middle.ndim - 1))
            for draw in range(few):  # one by one: a sum's rounding may depend on the batch
                signed[group] += sign[:, draw] * offset[:, draw]
                plain[group] += offset[:, draw]
            broken[group] += hit.sum(dim=1)
    return signed, plain, broken


def _sideways(offset: Tensor, way: Tensor) -> Tensor:
    """Offsets [l, few, *shape] less their part along `way` [l, *shape], unit vectors."""
    way = way.unsqueeze(1)
    along = (offset * way).flatten(2).sum(dim=2)
    return offset - along.view(*along.shape, *[1] * (way.ndim - 2)) * way
