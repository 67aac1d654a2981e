"""What minimal-norm attacks share: the samples to search for and the nearest point of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_lite import Box, Budget, Classifier, Norm

from .ball import chosen
from .goal import Goal, goal_of

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

SMALLEST = 1e-30  # of a divisor, in float32
CLEAR = 1e-5
"""Margin, relative to the largest logit, from which a point counts as broken.

A minimal-norm answer lies on the boundary, where the last bits of a logit decide. Those depend on
batch and runtime; the judge must see what the attack saw.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The m samples that are not broken as they come.

    `model` covers exactly these rows. `x`: [m, *shape] in `box`. `logits`: at x, [m, k].
    `radius`: the largest eps that the answers will be judged at.
    """

    model: Classifier
    x: Tensor
    goal: Goal
    logits: Tensor
    box: Box
    norm: Norm
    radius: float
    rng: SampleRng

    def rows(self, index: Tensor) -> Task:
        """The task for the samples `index` (int64)."""
        return Task(
            model=self.model.rows(index),
            x=self.x[index],
            goal=self.goal.rows(index),
            logits=self.logits[index],
            box=self.box,
            norm=self.norm,
            radius=self.radius,
            rng=self.rng.rows(index),
        )

    def clamped(self, points: Tensor) -> Tensor:
        """`points` [m, *shape] inside the box."""
        return points.clamp(self.box.low, self.box.high)

    def judged(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """How far the goal is missed (negative) or met, [m], and whether clearly met, bool [m]."""
        from robustbench_lite import losses

        margin = losses.resolve(self.goal.objective("margin"))(logits, self.goal.labels)
        clear = margin > CLEAR * logits.abs().amax(dim=1)
        return margin, clear & self.goal.reached(logits)

    def farthest(self) -> Tensor:
        """Distance of x to the farthest point of the box, float64 [m]."""
        from robustbench_lite import norms

        reach = (self.x - self.box.low).maximum(self.box.high - self.x)
        return norms.distance(reach, self.norm)


@dataclass(frozen=True, slots=True)
class Nearest:
    """The best point of each of m samples so far.

    `point`: [m, *shape], the nearest that reached the goal; where none did, the one of largest
    margin among those that differ from x. `distance`: of a point that reached it, float64 [m],
    else inf. `margin`: at `point`, [m].
    """

    x: Tensor
    norm: Norm
    point: Tensor
    distance: Tensor
    margin: Tensor

    @staticmethod
    def none(task: Task) -> Nearest:
        """Nothing was looked at."""
        unknown = task.x.new_full((task.x.shape[0],), math.inf)
        return Nearest(task.x, task.norm, task.x, unknown.double(), -unknown)

    def rows(self, index: Tensor) -> Nearest:
        """What is known of the samples `index` (int64)."""
        columns = (self.point[index], self.distance[index], self.margin[index])
        return Nearest(self.x[index], self.norm, *columns)

    def put(self, index: Tensor, other: Nearest) -> Nearest:
        """With the samples `index` (int64 [l]) replaced by those of `other`."""
        return Nearest(
            self.x,
            self.norm,
            self.point.index_copy(0, index, other.point),
            self.distance.index_copy(0, index, other.distance),
            self.margin.index_copy(0, index, other.margin),
        )

    def having_seen(self, point: Tensor, margin: Tensor, broken: Tensor) -> Nearest:
        """With the points [m, *shape], their margins [m] and whether they reached the goal."""
        from robustbench_lite import norms

        distance = norms.distance(point.double() - self.x.double(), self.norm)
        nearer = broken & (distance < self.distance)
        higher = (distance > 0) & self.distance.isinf() & (margin > self.margin)
        better = nearer | (higher & ~broken)
        return Nearest(
            self.x,
            self.norm,
            chosen(better, point, self.point),
            distance.where(nearer, self.distance),
            margin.where(better, self.margin),
        )


def on_unbroken(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    target: Tensor | None,
    *,
    budget: Budget,
    rng: SampleRng,
    search: Callable[[Task], Tensor],
) -> Tensor:
    """What `search` finds for the samples that are not broken as they come, float32 [n, *shape].

    The others come back unchanged, and so does everything at eps 0. A sample that the search
    could not move at all (a gradient of zero) gets a random point of the box, so that a search
    which saw nothing is not mistaken for one that found nothing to change.
    """
    from robustbench_lite import norms

    if not x.shape[0] or budget.eps <= 0:
        return x.clone()
    goal = goal_of(y, target)
    logits = model.logits(x)
    index = indices(~goal.reached(logits))
    if not index.shape[0]:
        return x.clone()
    task = Task(
        model=model.rows(index),
        x=x[index],
        goal=goal.rows(index),
        logits=logits[index],
        box=budget.box,
        norm=budget.norm,
        radius=budget.eps,
        rng=rng.rows(index),
    )
    found = search(task)
    anywhere = task.rng.fork("unmoved").uniform(tuple(x.shape[1:]), budget.box.low, budget.box.high)
    moved = norms.per_sample((found != task.x).flatten(1).any(dim=1), x)
    return x.index_copy(0, index, found.where(moved, anywhere))


def indices(mask: Tensor) -> Tensor:
    """Positions of True in a mask [n], int64."""
    return mask.nonzero().squeeze(1)


def cosine(progress: float, start: float, end: float) -> float:
    """Half a cosine from `start` at progress 0 to `end` at progress 1."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def unit(grad: Tensor, otherwise: Tensor) -> Tensor:
    """grad / ||grad||_2 per row [n, *shape]; `otherwise` where that is zero or not finite."""
    from robustbench_lite import norms

    direction = norms.steepest(grad, "l2")
    usable = norms.distance(direction, "l2") > 0.5  # 1, or 0, or NaN
    return direction.where(norms.per_sample(usable, direction), otherwise)
