"""What attacks that see decisions alone share: the samples to search for and the way to x."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_lite import Box, Budget, Classifier, Norm

from .goal import Goal, goal_of
from .minimal_search import indices

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

ROWS_AT_ONCE = 2048  # of one forward pass; like the next it bounds memory and changes no number
NUMBERS_AT_ONCE = 2**22
BISECTIONS = 16  # a straight way is cut down to 2^-16 of its length
LAST_QUERY = 1
CLEAR = 1e-4
"""Share by which an answer is moved away from x once more, if it stays broken.

On the boundary the last bits of a logit decide, and those depend on batch and runtime; the judge
must see what the attack saw.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The m samples that are not broken as they come.

    `model` covers exactly these rows. `x`: [m, *shape] in `box`.
    """

    model: Classifier
    x: Tensor
    goal: Goal
    box: Box
    norm: Norm
    rng: SampleRng

    def clamped(self, points: Tensor) -> Tensor:
        """`points` [l, *shape] inside the box."""
        return points.clamp(self.box.low, self.box.high)

    def broken(self, rows: Tensor, points: Tensor) -> Tensor:
        """Whether the model's decision at points [l, *shape] of the samples `rows` is as wanted."""
        import torch

        size = min(ROWS_AT_ONCE, at_once(points))
        parts = zip(torch.split(rows, size), torch.split(points, size), strict=True)
        seen = [self.model.rows(part).decide(inputs) for part, inputs in parts if part.shape[0]]
        return _met(self.goal.rows(rows), torch.cat(seen) if seen else rows)

    def on_way(self, rows: Tensor, offset: Tensor, radius: Tensor) -> Tensor:
        """x plus the offset [l, *shape] projected to the ball of `radius` [l], in the box.

        The paper's projections: l2 shortens the offset, linf cuts its components.
        """
        from robustbench_lite import norms

        return self.clamped(self.x[rows] + norms.project(offset, self.norm, radius))


def at_once(points: Tensor) -> int:
    """How many samples like those of points [l, *shape] are worked on together."""
    return max(1, NUMBERS_AT_ONCE // max(1, points[:1].numel()))


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

    The others come back unchanged, and so does everything at eps 0. What was found is moved
    outwards by `CLEAR` if it stays broken there, for one query (`LAST_QUERY`).
    """
    if not x.shape[0] or budget.eps <= 0:
        return x.clone()
    goal = goal_of(y, target)
    index = indices(~_met(goal, model.decide(x)))
    if not index.shape[0]:
        return x.clone()
    task = Task(
        model=model.rows(index),
        x=x[index],
        goal=goal.rows(index),
        box=budget.box,
        norm=budget.norm,
        rng=rng.rows(index),
    )
    return x.index_copy(0, index, _cleared(task, search(task)))


def _cleared(task: Task, found: Tensor) -> Tensor:
    rows = indices((found != task.x).flatten(1).any(dim=1))
    if not rows.shape[0]:
        return found
    outwards = task.clamped(found[rows].lerp(task.x[rows], -CLEAR))
    held = indices(task.broken(rows, outwards))
    return found.index_copy(0, rows[held], outwards[held])


def _met(goal: Goal, decisions: Tensor) -> Tensor:
    return (decisions == goal.labels) == goal.targeted


def bisected(task: Task, rows: Tensor, offset: Tensor) -> Tensor:
    """The least radius found at which the way along `offset` [l, *shape] is broken: float64 [l].

    x plus the whole offset is broken. Costs `BISECTIONS` queries per sample; the point at the
    radius that is returned was looked at.
    """
    import torch

    from robustbench_lite import norms

    high = norms.distance(offset, task.norm)
    low = torch.zeros_like(high)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        broken = task.broken(rows, task.on_way(rows, offset, middle))
        low, high = low.where(broken, middle), middle.where(broken, high)
    return high
