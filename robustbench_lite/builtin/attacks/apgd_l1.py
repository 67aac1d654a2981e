"""The ascent of APGD in l1: sparse steps, and a projection that knows the box."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from robustbench_lite import Box, Budget

from .ball import chosen

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

CHECK_EVERY = 0.04  # of the steps in one ball
FIRST_SHARE = 0.2  # of the components, that the first step changes
SPARSER = 1.5  # a later step changes as many as the best point did, over this
STABLE = 0.95  # the best point has not become sparser: ratio of its changed components
SHORTER = 1.5  # then the step gets shorter by this
LONGEST_OVER_SHORTEST = 10.0
ROUNDED_INWARDS = 1.0 - 2.0**-22  # float32 rounding of a projected point stays in the ball


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseClimb:
    """An `Ascent` in l1.

    `grad`, `best_grad`: gradients at `point` and `best`. `length`: of a step, [m]. `width`: how
    many components it changes, int64 [m]. `changed`: components changed in `best` at the last
    checkpoint, int64 [m].
    """

    budget: Budget
    x: Tensor
    point: Tensor
    grad: Tensor
    best: Tensor
    best_grad: Tensor
    best_value: Tensor
    length: Tensor
    width: Tensor
    changed: Tensor

    def rows(self, index: Tensor) -> SparseClimb:
        """The run of the samples `index` (int64 [k])."""
        return SparseClimb(
            budget=self.budget,
            x=self.x[index],
            point=self.point[index],
            grad=self.grad[index],
            best=self.best[index],
            best_grad=self.best_grad[index],
            best_value=self.best_value[index],
            length=self.length[index],
            width=self.width[index],
            changed=self.changed[index],
        )

    def having_seen(self, value: Tensor, grad: Tensor) -> SparseClimb:
        """Told the loss [m] and its gradient [m, *shape] at `point`."""
        better = value > self.best_value
        return replace(
            self,
            grad=grad,
            best=chosen(better, self.point, self.best),
            best_grad=chosen(better, grad, self.best_grad),
            best_value=value.where(better, self.best_value),
        )

    def checkpoints(self, steps: int) -> Mapping[int, int]:
        """Every 4 % of the steps."""
        interval = max(1, int(CHECK_EVERY * steps))
        return dict.fromkeys(range(interval, steps, interval), interval)

    def checked(self, interval: int) -> SparseClimb:  # noqa: ARG002  (an `Ascent`)
        """Where the best point became sparser: long steps again, from there; else shorter ones.

        Either way a step changes as many components as the best point does, over 1.5.
        """
        changed = _changed(self.best, self.x)
        sparser = changed < STABLE * self.changed
        longest = self.budget.eps
        shorter = (self.length / SHORTER).clamp_min(longest / LONGEST_OVER_SHORTEST)
        return replace(
            self,
            point=chosen(sparser, self.best, self.point),
            grad=chosen(sparser, self.best_grad, self.grad),
            length=shorter.masked_fill(sparser, longest),
            width=_sparser(changed),
            changed=changed,
        )

    def moved(self) -> SparseClimb:
        """`length` spent equally on the steepest components that can still move, then projected."""
        from robustbench_lite import norms

        box = self.budget.box
        free = (self.point < box.high).where(self.grad > 0, self.point > box.low)
        flat = (self.grad * free).flatten(1)
        size = flat.abs()
        least = size.sort(dim=1, descending=True).values.gather(1, self.width[:, None] - 1)
        signs = flat.sign() * (size >= least)
        count = (signs != 0).sum(dim=1, keepdim=True).clamp_min(1)
        step = (self.length[:, None] * signs / count).view_as(self.point)
        delta = projected(self.point + step - self.x, self.x, self.budget.eps, box)
        return replace(self, point=norms.clip(self.x + delta, self.x, self.budget))


def sparse_climb(x: Tensor, start: Tensor | None, budget: Budget, rng: SampleRng) -> SparseClimb:
    """A run from `start` [m, *shape], projected to the ball; None: x and normal numbers."""
    import torch

    from robustbench_lite import norms

    delta = rng.normal(tuple(x.shape[1:])) if start is None else start - x
    point = norms.clip(x + projected(delta, x, budget.eps, budget.box), x, budget)
    lowest = x.new_full((x.shape[0],), -math.inf)
    if start is None:
        changed = torch.full_like(lowest, math.prod(x.shape[1:])).long()
        width = (FIRST_SHARE * changed).long().clamp_min(1)
    else:
        changed = _changed(start, x)
        width = _sparser(changed)
    flat = torch.zeros_like(x)
    return SparseClimb(
        budget=budget,
        x=x,
        point=point,
        grad=flat,
        best=point,
        best_grad=flat,
        best_value=lowest,
        length=torch.full_like(lowest, budget.eps),
        width=width,
        changed=changed,
    )


def projected(delta: Tensor, x: Tensor, eps: float, box: Box) -> Tensor:
    """argmin over u of ||u - delta||_2 subject to ||u||_1 <= eps and x + u in the box.

    With x in the box, u_i = sign(delta_i) * min(max(|delta_i| - t, 0), room_i) for one t >= 0 per
    row, room_i being the way to the face of the box. ||u||_1 falls in t, linear between the points
    |delta_i| and |delta_i| - room_i. delta, x, result: [n, *shape], x in the box.

    Croce and Hein 2021, proposition 2.1.
    """
    import torch

    d, at = delta.flatten(1).double(), x.flatten(1).double()
    size = d.abs()
    room = torch.where(d > 0, box.high - at, at - box.low).clamp_min(0.0)
    bends = torch.cat((size, (size - room).clamp_min(0.0)), dim=1)
    slopes = torch.cat((torch.ones_like(size), -torch.ones_like(size)), dim=1)
    bends, order = bends.sort(dim=1, descending=True, stable=True)
    rate = slopes.gather(1, order).cumsum(dim=1)  # of ||u||_1 just below each bend
    gaps = bends - torch.cat((bends[:, 1:], torch.zeros_like(bends[:, :1])), dim=1)
    below = (rate * gaps).cumsum(dim=1)  # ||u||_1 at the next bend
    place = (below <= eps).sum(dim=1, keepdim=True)
    inside = place == bends.shape[1]
    place = place.clamp_max(bends.shape[1] - 1)
    spent = torch.where(place > 0, below.gather(1, (place - 1).clamp_min(0)), 0.0)
    threshold = bends.gather(1, place) - (eps - spent) / rate.gather(1, place).clamp_min(1.0)
    threshold = threshold.masked_fill(inside, 0.0)
    u = d.sign() * torch.minimum((size - threshold).clamp_min(0.0), room)
    u = torch.where(inside, u, u * ROUNDED_INWARDS)
    return u.to(delta.dtype).view_as(delta)


def _changed(point: Tensor, x: Tensor) -> Tensor:
    return (point != x).flatten(1).sum(dim=1)


def _sparser(changed: Tensor) -> Tensor:
    return (changed / SPARSER).long().clamp_min(1)
