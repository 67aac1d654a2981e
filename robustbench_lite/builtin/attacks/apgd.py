"""APGD: projected gradient ascent that finds its own step size, from random starts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Evaluated, Loss, Params

from .apgd_climb import Ascent, climb
from .apgd_l1 import sparse_climb
from .ball import chosen
from .goal import Goal, goal_of

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

L1_STAGES = ((3.0, 0.3), (2.0, 0.6), (1.0, 1.0))  # radius in eps, share of the steps at its end
TARGETED = "dlr-targeted"


class ApgdParams(Params):
    """Parameters of `apgd`."""

    loss: Literal["cross-entropy", "dlr", "dlr-targeted", "margin"] = Field(
        default="cross-entropy",
        description="what the steps raise; dlr-targeted: a run towards each of n_targets classes",
    )
    steps: int = Field(default=100, ge=1, description="gradient steps of one run")
    restarts: int = Field(default=1, ge=1, description="runs on the samples not broken yet")
    n_targets: int = Field(
        default=9, ge=1, description="classes that dlr-targeted tries, the likeliest ones"
    )


@dataclass(frozen=True, slots=True)
class _Search:
    """The samples not broken yet, m of n: where they stand in the batch, the best of all runs.

    `answers`: [n, *shape], of those that are broken. `index`: int64 [m]. `x`, `best`: [m, *shape].
    `clean`: logits at x, [m, k]. `value`: loss at `best`, [m]. `goal`: what breaks a sample; `aim`:
    what the run at hand climbs towards. `rivals`: classes that targeted runs aim at, int64 [m, t].
    """

    answers: Tensor
    index: Tensor
    x: Tensor
    clean: Tensor
    goal: Goal
    aim: Goal
    rivals: Tensor
    best: Tensor
    value: Tensor

    def rows(self, index: Tensor) -> _Search:
        return _Search(
            self.answers,
            self.index[index],
            self.x.index_select(0, index),
            self.clean[index],
            self.goal.rows(index),
            self.aim.rows(index),
            self.rivals[index],
            self.best.index_select(0, index),
            self.value[index],
        )

    def answered(self, point: Tensor) -> _Search:
        return replace(self, answers=self.answers.index_copy(0, self.index, point))

    def aiming(self, rival: int | None) -> _Search:
        aim = self.goal if rival is None else Goal(self.rivals[:, rival], targeted=True)
        return replace(self, aim=aim)

    def having_found(self, point: Tensor, value: Tensor) -> _Search:

        better = value > self.value
        best = chosen(better, point, self.best)
        return replace(self, best=best, value=value.where(better, self.value))


@dataclass(frozen=True, slots=True)
class _Eye:
    """How some samples are looked at: the model of exactly these, their classes and the loss."""

    seen: Classifier
    labels: Tensor
    loss: Loss

    def look(self, point: Tensor, *, last: bool) -> Evaluated:
        """Loss, gradient (all 0 where it is the `last` look) and logits at `point`."""
        from robustbench_lite import losses

        if not last:
            return self.seen.value_and_gradient(point, self.labels, self.loss)
        logits = self.seen.logits(point)
        value = losses.resolve(self.loss)(logits, self.labels)
        return Evaluated(value, point.new_zeros(()).expand_as(point), logits)


def _eye(model: Classifier, search: _Search, loss: str) -> _Eye:
    from robustbench_lite import losses

    seen, aim = model.rows(search.index), search.aim
    if loss != "cross-entropy":
        return _Eye(seen, aim.labels, aim.objective(loss))
    rescaled = losses.rescaled_cross_entropy(search.clean)
    return _Eye(seen, aim.labels, losses.targeted(rescaled) if aim.targeted else rescaled)


def apgd(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None = None,
    loss: str = "cross-entropy",
    steps: int = 100,
    restarts: int = 1,
    n_targets: int = 9,
) -> Tensor:
    """The worst point met on the way: float32 [n, *shape].

    point <- clip(point + 0.75 (ahead - point) + 0.25 (point - before)), ahead being one projected
    step of steepest ascent. A run starts on the sphere of radius eps with steps of 2 eps. Checks
    come after 22 % of the steps and then ever sooner; where at most 3 of 4 steps raised the loss,
    or the best point of an unchanged step size has not moved, the step halves and the run goes on
    from its best point. A sample that is broken leaves at once with the point that broke it, one
    that is misclassified (or at its target) from the beginning is returned as it came. Of the
    others the point with the highest loss over all runs is returned, the last one included.

    l1 (`apgd_l1`): steps on the steepest components alone, as many as the best point suggests,
    and projected to ball and box together; 3 of 10 steps go through a ball of 3 eps, 3 through one
    of 2 eps.

    "cross-entropy" is `losses.rescaled_cross_entropy`: the same ascent, whatever the scale of the
    logits. "dlr-targeted" makes one run for each of the `n_targets` classes that are likeliest on
    the clean input (at most k - 1); whatever class is reached, the sample is broken. With a
    `target` there is one run, towards it.

    Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", ICML 2020, algorithm 1; l1: "Mind the box: l1-APGD for sparse
    adversarial attacks on image classifiers", ICML 2021.
    """
    if not x.shape[0]:
        return x.clone()
    each = loss == TARGETED and target is None
    eyes = partial(_eye, model, loss=loss.removesuffix("-targeted"))
    search = _unbroken(model.logits(x), x, goal_of(y, target), n_targets if each else 0)
    rivals: list[int | None] = [*range(search.rivals.shape[1])] if each else [None]
    for restart, rival in itertools.product(range(restarts), rivals):
        stream = rng.fork(f"restart-{restart}").fork(f"rival-{rival}")
        search = _run(eyes, search.aiming(rival), budget, steps, stream)
    return search.answered(search.best).answers


def _unbroken(logits: Tensor, x: Tensor, goal: Goal, n_rivals: int) -> _Search:
    """The `n_rivals` likeliest classes that are not the label, or all there are, as `rivals`."""
    index = _indices(~goal.reached(logits))
    kept, start, clean = goal.rows(index), x[index], logits[index]
    others = clean.scatter(1, kept.labels[:, None], -math.inf)
    rivals = others.topk(min(n_rivals, clean.shape[1] - 1), dim=1).indices
    nothing = start.new_full((index.shape[0],), -math.inf)
    return _Search(x.clone(), index, start, clean, kept, kept, rivals, start, nothing)


def _run(
    eyes: Callable[[_Search], _Eye], search: _Search, budget: Budget, steps: int, rng: SampleRng
) -> _Search:
    """One ascent from one random point; in l1 it comes from outside, through larger balls."""
    ascent: Ascent | None = None
    for ball, count in _stages(budget, steps):
        ascent = _begun(search.x, ascent, ball, rng.rows(search.index))
        search, ascent = _ascended(eyes, search, ascent, count, ends=ball == budget)
    assert ascent is not None
    return search.having_found(ascent.best, ascent.best_value)


def _stages(budget: Budget, steps: int) -> list[tuple[Budget, int]]:
    """The balls that a run goes through, and its steps in each: all in the last one but in l1."""
    if budget.norm != "l1":
        return [(budget, steps)]
    balls = [replace(budget, eps=factor * budget.eps) for factor, _ in L1_STAGES]
    ends = [round(share * steps) for _, share in L1_STAGES]
    return [(ball, to - at) for ball, at, to in zip(balls, [0, *ends], ends, strict=False)]


def _begun(x: Tensor, last: Ascent | None, ball: Budget, rng: SampleRng) -> Ascent:
    if ball.norm != "l1":
        return climb(x, ball, rng)
    return sparse_climb(x, None if last is None else last.best, ball, rng)


def _ascended(
    eyes: Callable[[_Search], _Eye], search: _Search, ascent: Ascent, steps: int, *, ends: bool
) -> tuple[_Search, Ascent]:
    """`steps` steps further, one gradient each.

    `ends`: the points are in the budget, so a broken sample leaves and the last point is looked at.
    """
    checkpoints, eye = ascent.checkpoints(steps), eyes(search)
    for step in range(steps + ends):
        if not search.index.shape[0]:
            break
        value, grad, logits = eye.look(ascent.point, last=step == steps)
        ascent = ascent.having_seen(value, grad)
        if ends:
            broken = search.goal.reached(logits)
            kept = _indices(~broken)  # the only time a step waits for the device
            if kept.shape[0] < broken.shape[0]:
                search = search.answered(ascent.point).rows(kept)
                ascent, eye = ascent.rows(kept), eyes(search)
        if step in checkpoints:
            ascent = ascent.checked(checkpoints[step])
        if step < steps:
            ascent = ascent.moved()
    return search, ascent


def _indices(mask: Tensor) -> Tensor:
    return mask.nonzero().squeeze(1)


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, ApgdParams)
    rivals = params.n_targets if classes is None else min(params.n_targets, classes - 1)
    passes = params.restarts * (rivals if params.loss == TARGETED else 1)
    return Cost(queries=1 + passes * (params.steps + 1), gradients=passes * params.steps)


SPEC = AttackSpec(
    name="apgd",
    implementation=apgd,
    summary="gradient ascent that finds its own step size, best point kept",
    norms=("linf", "l2", "l1"),
    access="gradient",
    params=ApgdParams,
    paper="https://arxiv.org/abs/2003.01690",
    effort="iterative",
    targeted=True,
    carries=True,
    cost=_cost,
)
