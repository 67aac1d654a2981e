"""PGD: projected gradient ascent inside the budget, from random starts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from robustbench_lite import (
    AttackSpec,
    Budget,
    Classifier,
    Cost,
    Evaluated,
    Loss,
    Params,
)

from .ball import uniform_in_ball, walls
from .goal import Goal, goal_of

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng


class PgdParams(Params):
    """Parameters of `pgd`."""

    steps: int = Field(default=40, ge=1, description="gradient steps of one restart")
    step_size: float | None = Field(
        default=None,
        gt=0,
        description="length of every step, in the norm; default: falling from eps to 0",
    )
    restarts: int = Field(default=1, ge=1, description="runs on the samples not broken yet")
    random_start: bool = Field(default=True, description="start anywhere in the ball, not at x")
    loss: Literal["cross-entropy", "margin"] = Field(
        default="cross-entropy", description="what the steps raise"
    )
    stop_when_broken: bool = Field(
        default=True,
        description="let a broken sample leave; false: every sample takes every step, to the "
        "highest loss (the default in transfer, where breaking the source proves nothing)",
    )

    @model_validator(mode="after")
    def _restarts_differ(self) -> Self:
        if self.restarts > 1 and not self.random_start:
            raise ValueError(
                f"restarts: {self.restarts} would repeat one computation, because random_start is "
                "false; expected restarts: 1 or random_start: true"
            )
        return self


@dataclass(frozen=True, slots=True)
class _Survivors:
    """The m samples not broken yet: where they stand in the batch and the best found for each.

    `index`: int64 [m]. `x`, `best`: [m, *shape]. `walls`: in linf, the lowest and the highest legal
    point. `value`: loss at `best`, [m].
    """

    budget: Budget
    index: Tensor
    x: Tensor
    walls: tuple[Tensor, Tensor] | None
    goal: Goal
    best: Tensor
    value: Tensor

    def rows(self, index: Tensor) -> _Survivors:
        return _Survivors(
            self.budget,
            self.index[index],
            self.x.index_select(0, index),
            self.walls
            and (self.walls[0].index_select(0, index), self.walls[1].index_select(0, index)),
            self.goal.rows(index),
            self.best.index_select(0, index),
            self.value[index],
        )

    def having_seen(self, point: Tensor, value: Tensor) -> _Survivors:
        from robustbench_lite import norms

        better = value > self.value
        share = norms.per_sample(better.to(point.dtype), point)  # points are finite, so exact
        best = self.best.lerp_(point, share)  # a quarter of the time of copying rows
        return replace(self, best=best, value=value.where(better, self.value))

    def start(self, rng: SampleRng) -> Tensor:
        """Random points of the ball, [m, *shape]."""
        shape = tuple(self.x.shape[1:])
        ball = self.budget
        return self.cut(
            uniform_in_ball(rng.rows(self.index), shape, ball.norm, ball.eps).add_(self.x)
        )

    def cut(self, point: Tensor) -> Tensor:
        """`point` [m, *shape] into the ball and the box, perhaps in its own memory."""
        from robustbench_lite import norms

        if self.walls is None:
            return norms.clip(point, self.x, self.budget)
        return point.clamp_(*self.walls)


def _look(model: Classifier, alive: _Survivors, point: Tensor, loss: Loss, last: bool) -> Evaluated:
    from robustbench_lite import losses

    seen = model.rows(alive.index)
    if not last:
        return seen.value_and_gradient(point, alive.goal.labels, loss)
    logits = seen.logits(point)
    value = losses.resolve(loss)(logits, alive.goal.labels)
    return Evaluated(value, point.new_zeros(()).expand_as(point), logits)


def pgd(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None = None,
    steps: int = 40,
    step_size: float | None = None,
    restarts: int = 1,
    random_start: bool = True,
    loss: str = "cross-entropy",
    stop_when_broken: bool = True,
) -> Tensor:
    """The worst point met on the way: float32 [n, *shape].

    point <- clip(point + step_size * steepest(grad)), to the ball and then to the box; a start is
    uniform in the ball. A sample that is broken leaves at once with the point that broke it, one
    that is misclassified (or at its target) from the beginning is returned as it came. Of the
    others the point with the highest loss over all restarts is returned, the last one included.
    Without `stop_when_broken` that holds for every sample.

    A given `step_size` is used throughout, as in the paper (linf: 0.01 at eps 0.3 on MNIST, 2/255
    at eps 8/255 on CIFAR-10). The default falls from eps to 0 along a half cosine: large steps
    leave flat regions, small ones settle. At equal cost it breaks many more samples of a model
    that flattens its loss, and on a linear model it converges to the exact answer.

    Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018.
    """
    import torch

    from robustbench_lite import norms

    goal = goal_of(y, target)
    objective = goal.objective(loss)
    x_adv = x.clone()
    if not x.shape[0]:
        return x_adv
    closed = goal.reached(model.logits(x)) if stop_when_broken else torch.zeros_like(y).bool()
    unbroken = _indices(~closed)
    everyone = x.new_full((x.shape[0],), -math.inf)
    alive = _Survivors(
        budget,
        unbroken,
        x[unbroken],
        walls(x[unbroken], budget) if budget.norm == "linf" else None,
        goal.rows(unbroken),
        x[unbroken],
        everyone[unbroken],
    )
    for restart in range(restarts):
        fork = rng.fork(f"restart-{restart}")
        point = alive.start(fork) if random_start else alive.x
        for step in range(steps + 1):
            if not alive.index.shape[0]:
                return x_adv
            value, grad, logits = _look(model, alive, point, objective, last=step == steps)
            if step or random_start:  # the clean input itself is never an answer
                broken = alive.goal.reached(logits) & stop_when_broken
                gone = _indices(broken)  # the only time a step waits for the device
                if gone.shape[0]:
                    x_adv.index_copy_(0, alive.index[gone], point.index_select(0, gone))
                    kept = _indices(~broken)
                    alive, value = alive.rows(kept), value[kept]
                    point, grad = point.index_select(0, kept), grad.index_select(0, kept)
                alive = alive.having_seen(point, value)
            if step == steps:
                break
            length = step_size or budget.eps * _half_cosine(step / steps)
            way = norms.steepest(grad, budget.norm)
            point = alive.cut(torch.add(point, way, alpha=length, out=way))
    return x_adv.index_copy(0, alive.index, alive.best)


def _half_cosine(progress: float) -> float:
    """From 1 at progress 0 to 0 at progress 1."""
    return (1 + math.cos(math.pi * progress)) / 2


def _indices(mask: Tensor) -> Tensor:
    return mask.nonzero().squeeze(1)


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, PgdParams)
    return Cost(
        queries=params.stop_when_broken + params.restarts * (params.steps + 1),
        gradients=params.restarts * params.steps,
    )


SPEC = AttackSpec(
    name="pgd",
    implementation=pgd,
    summary="projected gradient ascent from random starts, best point kept",
    norms=("linf", "l2"),
    access="gradient",
    params=PgdParams,
    paper="https://arxiv.org/abs/1706.06083",
    effort="iterative",
    targeted=True,
    carries=True,
    when_transferred={"stop_when_broken": False},
    cost=_cost,
)
