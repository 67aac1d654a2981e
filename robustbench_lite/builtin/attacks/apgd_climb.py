"""The ascent of APGD in linf and l2: momentum, and steps that halve where they stop paying."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self

from robustbench_lite import Budget

from .ball import TINY, chosen, on_sphere, room, walls

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

FIRST_STEP = 2.0  # of eps
MOMENTUM = 0.75  # weight of the new step, the rest goes to the last move
STRETCHES = 2
INWARDS = 1 - 1e-6  # what rounding in float32 may add to the length again
ENOUGH_RISES = 0.75  # rho: share of the steps since the last checkpoint that must raise the loss


class Ascent(Protocol):
    """One run on m samples. `point`, `best`: [m, *shape]; `best_value`: the loss at `best`, [m]."""

    @property
    def point(self) -> Tensor:
        """Where the samples stand."""
        ...

    @property
    def best(self) -> Tensor:
        """The highest point of the run."""
        ...

    @property
    def best_value(self) -> Tensor:
        """The loss there, -inf before anything was seen."""
        ...

    def rows(self, index: Tensor) -> Self:
        """The run of the samples `index` (int64 [k])."""
        ...

    def having_seen(self, value: Tensor, grad: Tensor) -> Self:
        """Told the loss [m] and its gradient [m, *shape] at `point`."""
        ...

    def checkpoints(self, steps: int) -> Mapping[int, int]:
        """Numbers of the steps of a run before which to check -> `interval`."""
        ...

    def checked(self, interval: int) -> Self:
        """At a checkpoint, `interval` steps after the last one."""
        ...

    def moved(self) -> Self:
        """One step further."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """An `Ascent` in linf or l2.

    `before`: the point before `point`, None at the start. `grad`, `best_grad`: gradients at
    `point` and `best`. `value`: loss at `point`. `checked_value`: `best_value` at the last
    checkpoint; `halved`: whose step was halved there. `length`: of a step, [m]. `rises`: steps
    since the last checkpoint that raised the loss, [m]. `walls`: in linf, the lowest and the
    highest legal point, [m, *shape] each.
    """

    budget: Budget
    x: Tensor
    walls: tuple[Tensor, Tensor] | None
    point: Tensor
    before: Tensor | None
    grad: Tensor
    value: Tensor
    best: Tensor
    best_grad: Tensor
    best_value: Tensor
    checked_value: Tensor
    halved: Tensor
    length: Tensor
    rises: Tensor

    def rows(self, index: Tensor) -> Climb:
        """The run of the samples `index` (int64 [k])."""
        return Climb(
            budget=self.budget,
            x=self.x.index_select(0, index),
            walls=self.walls
            and (self.walls[0].index_select(0, index), self.walls[1].index_select(0, index)),
            point=self.point.index_select(0, index),
            before=None if self.before is None else self.before.index_select(0, index),
            grad=self.grad.index_select(0, index),
            value=self.value[index],
            best=self.best.index_select(0, index),
            best_grad=self.best_grad.index_select(0, index),
            best_value=self.best_value[index],
            checked_value=self.checked_value[index],
            halved=self.halved[index],
            length=self.length[index],
            rises=self.rises[index],
        )

    def having_seen(self, value: Tensor, grad: Tensor) -> Climb:
        """Told the loss [m] and its gradient [m, *shape] at `point`."""
        better = value > self.best_value
        return replace(
            self,
            grad=grad,
            value=value,
            best=chosen(better, self.point, self.best),
            best_grad=chosen(better, grad, self.best_grad),
            best_value=value.where(better, self.best_value),
            rises=self.rises + (value > self.value),
        )

    def checkpoints(self, steps: int) -> Mapping[int, int]:
        """Numbers of the steps before which to check -> steps since the last checkpoint.

        The first after 22 % of all steps, every next interval shorter by 3 %, none below 6 %.
        """
        interval, shorter, shortest = (max(1, int(share * steps)) for share in (0.22, 0.03, 0.06))
        at, intervals = interval, {}
        while at < steps:
            intervals[at] = interval
            interval = max(shortest, interval - shorter)
            at += interval
        return intervals

    def checked(self, interval: int) -> Climb:
        """Where too few steps raised the loss, or none since the last checkpoint raised the best
        of an unchanged step: halve the step and go on from the best point.
        """
        stuck = ~self.halved & (self.best_value <= self.checked_value)
        halved = stuck | (self.rises <= ENOUGH_RISES * interval)
        return replace(
            self,
            point=chosen(halved, self.best, self.point),
            grad=chosen(halved, self.best_grad, self.grad),
            value=self.best_value.where(halved, self.value),
            checked_value=self.best_value,
            halved=halved,
            length=(self.length / 2).where(halved, self.length),
            rises=self.rises.new_zeros(self.rises.shape),
        )

    def moved(self) -> Climb:
        """A step, projected, then averaged with the last move and drawn in again."""
        ahead = self._cut(self._stepped(), legal)
        if self.before is not None:
            mixed = self.point.lerp(ahead, MOMENTUM)
            mixed.add_(self.point - self.before, alpha=1 - MOMENTUM)
            ahead = self._cut(mixed, drawn_in)
        return replace(self, point=ahead, before=self.point)

    def _cut(self, point: Tensor, l2: Callable[[Tensor, Tensor, Budget], Tensor]) -> Tensor:
        if self.walls is None:
            return l2(point, self.x, self.budget)
        return point.clamp_(*self.walls)

    def _stepped(self) -> Tensor:
        """A step of `length` in the steepest direction; none where the gradient is 0."""
        import torch

        from robustbench_lite import norms

        if self.budget.norm == "linf":
            pace, way = self.length, self.grad.sign()
        else:
            size = norms.distance(self.grad, "l2")
            pace = (self.length / size).clamp_max(torch.finfo(self.grad.dtype).max)
            pace, way = pace.where(size > 0, 0.0).to(self.grad.dtype), self.grad
        return self.point.addcmul(norms.per_sample(pace, way), way)


def drawn_in(x_adv: Tensor, x: Tensor, budget: Budget) -> Tensor:
    """`x_adv` [m, *shape] scaled to the l2 ball, then cut to the box.

    Where a point hardly leaves the ball this is `legal`, at a fifth of the price.
    """
    import torch

    from robustbench_lite import norms

    delta = x_adv - x
    size = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    scale = (budget.eps * INWARDS / size).clamp_max_(1.0)
    moved = x.addcmul(norms.per_sample(scale, delta), delta)
    return moved.clamp_(budget.box.low, budget.box.high)


def legal(x_adv: Tensor, x: Tensor, budget: Budget) -> Tensor:
    """`x_adv` [m, *shape] brought to the nearest point of l2 ball and box together.

    That is x + clamp(s * delta) for the largest s <= 1 per row that stays in the ball. A point
    scaled to the ball and then cut to the box falls short of it, by much on images whose pixels lie
    on the faces of the box; each of the `STRETCHES` spends what the last cut removed on the
    components that can still move, and none leaves the ball.
    """
    import torch

    delta = (x_adv - x).flatten(1)
    wanted, granted = delta.square(), room(x.flatten(1), delta, budget.box)
    cut_from = granted / delta.abs()  # infinite where delta is 0
    granted.square_()
    scale = budget.eps / wanted.sum(dim=1, keepdim=True).sqrt()
    mask = torch.empty_like(delta)  # 0 and 1: a product is far cheaper than a `where`
    for _ in range(STRETCHES):
        scale.clamp_max_(1.0)
        spent = torch.le(cut_from, scale, out=mask).mul_(granted).sum(dim=1, keepdim=True)
        rest = torch.gt(cut_from, scale, out=mask).mul_(wanted).sum(dim=1, keepdim=True)
        scale = ((budget.eps**2 - spent).clamp_min_(0.0) / rest.clamp_min_(TINY)).sqrt_()
    scale = torch.where(scale < 1.0, scale * INWARDS, 1.0)
    moved = x.flatten(1).addcmul(scale, delta).clamp_(budget.box.low, budget.box.high)
    return moved.view_as(x)


def climb(x: Tensor, budget: Budget, rng: SampleRng) -> Climb:
    """A run from a random point of the sphere of radius eps around x, cut to the box.

    linf: uniform in the cube, stretched until its largest component is eps.
    """
    import torch

    from robustbench_lite import norms

    n, *shape = x.shape
    if budget.norm == "linf":
        noise = rng.uniform(tuple(shape), -1.0, 1.0)
        largest = norms.distance(noise, "linf").to(noise.dtype)
        noise = noise * (budget.eps / norms.per_sample(largest, noise).clamp_min(TINY))
    else:
        noise = on_sphere(rng, tuple(shape), budget.norm, budget.eps)
    start = norms.clip(x + noise, x, budget)
    lowest = x.new_full((n,), -math.inf)
    flat = torch.zeros_like(x)
    return Climb(
        budget=budget,
        x=x,
        walls=walls(x, budget) if budget.norm == "linf" else None,
        point=start,
        before=None,
        grad=flat,
        value=-lowest,  # the start itself is no rise
        best=start,
        best_grad=flat,
        best_value=lowest,
        checked_value=lowest,
        halved=torch.zeros_like(lowest, dtype=torch.bool),
        length=x.new_full((n,), FIRST_STEP * budget.eps),
        rises=torch.zeros_like(lowest),
    )
