"""Distances, projections and exact linear maxima for linf, l2, l1 and l0, on pure tensors.

Rows come first: x, delta, grad: [n, *shape]. Sums are taken in float64, so that a distance means
the same on every device. Under "l0" an image [n, c, h, w] is counted in pixels: a pixel counts
once whatever number of its channels changed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .types import Box, Budget, Norm

RELATIVE_SLACK = 1e-6  # of eps, what the judge forgives
FLOAT32_STEP = 2.0**-23  # spacing of float32 numbers, relative
SMALLEST = torch.finfo(torch.float64).tiny  # of a divisor
INWARDS = 1.0 - FLOAT32_STEP  # a rescaled point stays in the ball when it is rounded to float32


class Distances(NamedTuple):
    """The four norms of one perturbation per sample: float64 [n] each."""

    linf: Tensor
    l2: Tensor
    l1: Tensor
    l0: Tensor


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """`values` [n] reshaped to broadcast against `like` [n, *shape]."""
    return values.reshape(values.shape[0], *[1] * (like.ndim - 1))


def distance(delta: Tensor, norm: Norm) -> Tensor:
    """The norm of each row of delta [n, *shape], float64 [n]; "l0" is a count."""
    if norm == "l0":
        return (_pixel_sums((delta != 0).double()) > 0).sum(dim=1).double()
    return _size(_flat(delta).double(), norm)


def distances(x: Tensor, x_adv: Tensor) -> Distances:
    """All four norms of `x_adv - x` [n, *shape], computed in float64."""
    delta = x_adv.double() - x.double()
    flat = _flat(delta)
    return Distances(
        linf=_size(flat, "linf"),
        l2=_size(flat, "l2"),
        l1=_size(flat, "l1"),
        l0=distance(delta, "l0"),
    )


def project(delta: Tensor, norm: Norm, eps: float | Tensor) -> Tensor:
    """The nearest point of the ball: argmin over d of ||d - delta||_2 subject to ||d||_norm <= eps.

    linf clamps, l2 scales, l1 shrinks by the threshold of the simplex projection (Duchi et al.
    2008), l0 keeps the floor(eps) largest pixels (by their l2 norm; the first of equals).

    delta: [n, *shape]; eps: one radius or float [n]. A row inside the ball comes back bit for bit.
    """
    radius = _radius(eps, delta)
    if norm == "linf":
        bound = per_sample(radius, delta).to(delta.dtype)
        return torch.where(delta.abs() > bound, delta.sign() * bound, delta)
    if norm == "l0":
        scores = _pixel_sums(delta.double().square())
        kept = _kept(scores, radius, delta) | (delta == 0)
        return torch.where(kept, delta, torch.zeros_like(delta))
    size = distance(delta, norm)
    outside = per_sample(size > radius, delta)
    nearest = _flat(delta).double()
    if norm == "l1":
        nearest = _shrunk(_flat(delta), radius)
        size = _size(nearest, "l1")
    scale = (radius / size.clamp_min(SMALLEST)).clamp_max(1.0) * INWARDS
    inwards = (nearest * scale[:, None]).reshape(delta.shape).to(delta.dtype)
    return torch.where(outside, inwards, delta)


def clip(x_adv: Tensor, x: Tensor, budget: Budget) -> Tensor:
    """`x_adv` [n, *shape] into the ball around x, then into the box.

    x must lie in the box: the second step then leads towards x and stays in the ball. A point that
    is legal already comes back bit for bit.
    """
    if budget.norm == "linf":
        near = x_adv.clamp(x - budget.eps, x + budget.eps)
    else:
        delta = x_adv - x
        nearest = project(delta, budget.norm, budget.eps)
        near = torch.where(nearest == delta, x_adv, x + nearest)
    return near.clamp_(budget.box.low, budget.box.high)


def steepest(grad: Tensor, norm: Norm) -> Tensor:
    """The unit-norm direction d that maximises <grad, d>, per row; 0 where the gradient is 0.

    A NaN in a row, or Inf beside Inf, moves nothing there, so that a step stays finite.
    linf: the sign; l2: grad / ||grad||; l1: the sign of the largest |grad| alone (the first of
    equals). "l0" has no such direction, because its ball is not bounded: ValueError.
    """
    if norm == "linf":
        return grad.sign()
    flat = _flat(grad)
    if norm == "l2":
        size = _size(flat.double(), "l2")[:, None]
        unit = torch.where(size > 0, flat.double() / size, torch.zeros_like(size)).nan_to_num_()
        return unit.to(grad.dtype).reshape(grad.shape)
    if norm == "l1":
        largest = flat.abs().argmax(dim=1, keepdim=True)
        direction = torch.zeros_like(flat).scatter(1, largest, flat.gather(1, largest).sign())
        return direction.reshape(grad.shape)
    raise ValueError("l0 has no steepest direction; use linear_maximum, which knows the box")


def linear_maximum(grad: Tensor, x: Tensor, budget: Budget) -> Tensor:
    """The exact best answer to a linear model: argmax over delta of <grad, delta>
    subject to ||delta||_norm <= eps and x + delta in the box.

    Components with a zero gradient stay 0. grad, x, result: [n, *shape].
    """
    slope = _flat(grad).double()
    start = _flat(x).double()
    room = torch.where(slope > 0, budget.box.high - start, start - budget.box.low).clamp_min(0.0)
    room = torch.where(slope == 0, 0.0, room)
    if budget.norm == "linf":
        amount = room.clamp_max(budget.eps)
    elif budget.norm == "l2":
        amount = _water_filled(slope.abs(), room, budget.eps)
    elif budget.norm == "l1":
        amount = _greedy(slope.abs(), room, budget.eps)
    else:
        gains = _pixel_sums((slope.abs() * room).reshape(grad.shape))
        kept = _kept(gains, _radius(budget.eps, grad), grad).expand_as(grad)
        amount = torch.where(_flat(kept), room, 0.0)
    return (slope.sign() * amount).reshape(grad.shape).to(grad.dtype)


def tolerance(norm: Norm, eps: float, box: Box, shape: tuple[int, ...]) -> float:
    """How far beyond eps a distance may be measured through float32 rounding alone.

    1e-6 of eps, and one float32 step of the largest number in the box per component, summed as
    the norm sums it. 0 for "l0", a count.
    """
    if norm == "l0":
        return 0.0
    step = FLOAT32_STEP * max(box.width, abs(box.low), abs(box.high))
    components = math.prod(shape)
    sums = {"linf": 1.0, "l2": math.sqrt(components), "l1": float(components)}
    return RELATIVE_SLACK * eps + step * sums[norm]


def _flat(values: Tensor) -> Tensor:
    return values.reshape(values.shape[0], math.prod(values.shape[1:]))


def _size(flat: Tensor, norm: Norm) -> Tensor:
    if norm == "linf" and flat.shape[1]:  # a tenth of the time that `vector_norm` takes on a CPU
        return flat.abs().amax(dim=1)
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    size: Tensor = torch.linalg.vector_norm(flat, ord=order, dim=1)
    return size


def _radius(eps: float | Tensor, like: Tensor) -> Tensor:
    if isinstance(eps, Tensor):
        return eps.to(device=like.device, dtype=torch.float64).expand(like.shape[0])
    return torch.full((like.shape[0],), eps, dtype=torch.float64, device=like.device)


def _pixel_sums(values: Tensor) -> Tensor:
    """values [n, *shape] summed over the channels of an image: [n, pixels]."""
    return _flat(values.sum(dim=1) if values.ndim == 4 else values)


def _kept(scores: Tensor, count: Tensor, like: Tensor) -> Tensor:
    """Mask of the `count` best pixels of scores [n, pixels], to broadcast against `like`."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    rank = torch.empty_like(order).scatter(1, order, places)
    kept = rank < count.floor()[:, None]
    if like.ndim == 4:
        return kept.reshape(like.shape[0], 1, *like.shape[2:])
    return kept.reshape(like.shape)


def _shrunk(flat: Tensor, radius: Tensor) -> Tensor:
    """Projection of rows outside the l1 ball, [n, d] -> float64 (Duchi et al. 2008, figure 1)."""
    falling = flat.abs().sort(dim=1, descending=True).values.double()
    excess = falling.cumsum(dim=1) - radius[:, None]
    place = torch.arange(1, flat.shape[1] + 1, device=flat.device)
    active = (falling * place > excess).sum(dim=1, keepdim=True).clamp_min(1)
    threshold = excess.gather(1, active - 1) / active
    return flat.sign() * (flat.abs().double() - threshold).clamp_min(0.0)


def _greedy(slope: Tensor, room: Tensor, eps: float) -> Tensor:
    """argmax of <slope, a> subject to 0 <= a <= room, sum(a) <= eps: steepest components first."""
    order = slope.argsort(dim=1, descending=True, stable=True)
    sorted_room = room.gather(1, order)
    spent = sorted_room.cumsum(dim=1) - sorted_room
    filled = torch.minimum((eps - spent).clamp_min(0.0), sorted_room)
    return torch.zeros_like(room).scatter(1, order, filled)


def _water_filled(slope: Tensor, room: Tensor, eps: float) -> Tensor:
    """argmax of <slope, a> subject to 0 <= a <= room, ||a||_2 <= eps.

    The answer is a = min(t * slope, room) for one t >= 0 per row. Component i is full from
    t = room_i / slope_i on, and between two such points ||a||^2 is the sum of room^2 over the full
    components and of t^2 slope^2 over the open ones.
    """
    full_at = torch.where(slope > 0, room / slope, 0.0)
    full_at, order = full_at.sort(dim=1)
    rooms = room.gather(1, order).square()
    slopes = slope.gather(1, order).square()
    full = rooms.cumsum(dim=1) - rooms
    opened = slopes.flip(1).cumsum(dim=1).flip(1)
    number_full = (full + full_at.square() * opened < eps**2).sum(dim=1, keepdim=True)
    last = number_full.clamp_max(slope.shape[1] - 1)
    level = ((eps**2 - full.gather(1, last)).clamp_min(0.0) / opened.gather(1, last)).sqrt()
    level = torch.where(number_full == slope.shape[1], math.inf, level)
    return torch.where(slope > 0, torch.minimum(slope * level, room), 0.0)
