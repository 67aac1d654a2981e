"""Gradient ascent on gradients that are estimated from mirrored queries, for NES and SPSA."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from robustbench_lite import Box, Budget, Classifier

from .goal import Goal

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

PAIRS_AT_ONCE = 8
"""Mirrored pairs whose directions are drawn at once; a constant, so that nothing depends on it."""
ROWS_AT_ONCE = 1024  # of one forward pass; it bounds memory and changes no number

Memory = tuple["Tensor", ...]
Draw = Callable[["SampleRng", tuple[int, ...]], "Tensor"]
Move = Callable[["Tensor", Memory, int], tuple["Tensor", Memory]]
"""(gradient [m, *shape], memory, step from 0) -> what is added to the points, new memory.

Every tensor of a memory has one row per sample.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How a gradient is estimated: `samples` queries, in pairs at +-`width` along `draw`."""

    samples: int
    width: float
    draw: Draw


@dataclass(frozen=True, slots=True)
class _Survivors:
    """The m samples not broken yet: where each stands, and the best point it met.

    `index`: int64 [m], places in the batch. `x`, `point`, `best`: [m, *shape]. `value`: margin at
    `best`, [m].
    """

    index: Tensor
    x: Tensor
    goal: Goal
    point: Tensor
    best: Tensor
    value: Tensor
    memory: Memory

    def rows(self, index: Tensor) -> _Survivors:
        return _Survivors(
            self.index[index],
            self.x[index],
            self.goal.rows(index),
            self.point[index],
            self.best[index],
            self.value[index],
            tuple(kept[index] for kept in self.memory),
        )

    def having_seen(self, value: Tensor, broken: Tensor) -> _Survivors:
        from robustbench_lite import norms

        better = broken | (value > self.value)
        best = self.point.where(norms.per_sample(better, self.point), self.best)
        return replace(self, best=best, value=value.where(better, self.value))


def climb(
    model: Classifier,
    x: Tensor,
    goal: Goal,
    budget: Budget,
    rng: SampleRng,
    *,
    steps: int,
    probe: Probe,
    move: Move,
    remember: Callable[[Tensor], Memory],
) -> Tensor:
    """The point of highest margin met on the way up from x, [n, *shape].

    Each step estimates the gradient of the margin, moves, projects (ball, then box) and looks once
    at the new point. A sample that is broken leaves at once, one that has reached its goal from
    the beginning is returned as it came. `remember(x)`: the memory of samples that start at x.
    """
    from robustbench_lite import losses, norms

    if not x.shape[0]:
        return x.clone()
    margin = losses.resolve(goal.objective("margin"))
    x_adv = x.clone()
    index = (~goal.reached(model.logits(x))).nonzero().squeeze(1)
    clean = x[index]
    nothing = clean.new_full((index.shape[0],), -math.inf)
    alive = _Survivors(index, clean, goal.rows(index), clean, clean, nothing, remember(clean))
    for step in range(steps):
        if not alive.index.shape[0]:
            break
        grad = estimated_gradient(
            model.rows(alive.index),
            alive.point,
            alive.goal,
            rng.rows(alive.index).fork(f"step-{step}"),
            probe=probe,
            box=budget.box,
        )
        change, memory = move(grad, alive.memory, step)
        point = norms.clip(alive.point + change, alive.x, budget)
        logits = model.rows(alive.index).logits(point)
        value, broken = margin(logits, alive.goal.labels), alive.goal.reached(logits)
        value = value.where(value.isfinite(), -math.inf)
        alive = replace(alive, point=point, memory=memory).having_seen(value, broken)
        kept = (~broken).nonzero().squeeze(1)
        if kept.shape[0] < broken.shape[0]:
            x_adv.index_copy_(0, alive.index, alive.best)
            alive = alive.rows(kept)
    return x_adv.index_copy(0, alive.index, alive.best)


def estimated_gradient(
    model: Classifier, point: Tensor, goal: Goal, rng: SampleRng, *, probe: Probe, box: Box
) -> Tensor:
    """Mean over directions u of (L(point + width u) - L(point - width u)) / (2 width) u.

    L is the margin of `goal`. Queries stay in the box: at its edge one of a pair is cut short,
    which makes the estimate smaller there and leaves its sign. A pair whose outputs are not finite
    counts as flat. point, result: [m, *shape]; model and rng have m rows.
    """
    import torch

    grad = torch.zeros_like(point)
    pairs = probe.samples // 2
    group_size = max(1, ROWS_AT_ONCE // (2 * PAIRS_AT_ONCE))
    for first in range(0, pairs, PAIRS_AT_ONCE):
        count = min(PAIRS_AT_ONCE, pairs - first)
        everyone = torch.arange(point.shape[0], device=point.device)
        for group in torch.split(everyone, group_size):
            drawn = rng.rows(group).fork(f"pairs-{first}")
            along = probe.draw(drawn, (count, *point.shape[1:]))
            rise = _rises(model, point, goal, group, along * probe.width, box)
            total = grad[group]
            for pair in range(count):  # one by one: a sum's rounding may depend on the batch
                total = total + rise[:, pair].view(-1, *[1] * (point.ndim - 1)) * along[:, pair]
            grad[group] = total
    return grad / (2 * probe.width * pairs)


def _rises(
    model: Classifier, point: Tensor, goal: Goal, group: Tensor, offset: Tensor, box: Box
) -> Tensor:
    """L(point + offset) - L(point - offset), [g, pairs], for offsets [g, pairs, *shape]."""
    import torch

    from robustbench_lite import losses

    middle = point[group].unsqueeze(1)
    ends = torch.stack((middle + offset, middle - offset), dim=1).clamp(box.low, box.high)
    rows = group.repeat_interleave(ends.shape[1] * ends.shape[2])
    logits = model.rows(rows).logits(ends.flatten(0, 2))
    margin = losses.resolve(goal.objective("margin"))(logits, goal.labels[rows])
    up, down = margin.view(ends.shape[:3]).unbind(1)
    rise = up - down
    return rise.where(rise.isfinite(), 0.0)
