"""Sparse-RS: random search over k pixels at the corners of the box, on scores alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params

from .goal import Goal, goal_of
from .pixels import as_pixels, pixel_grid

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

SCHEDULE_LENGTH = 10_000
SHRUNK_AFTER = (
    (8000, 20),
    (6000, 15),
    (4000, 12),
    (2000, 10),
    (1000, 8),
    (500, 6),
    (200, 5),
    (50, 4),
    (0, 2),
)
"""Queries (of 10,000) -> what alpha_init is divided by after them."""


class SparseRsParams(Params):
    """Parameters of `sparse-rs`."""

    queries: int = Field(
        default=5000,
        ge=1,
        description="points tried per sample; the paper runs 10,000 and, targeted, 100,000",
    )
    alpha_init: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of the k pixels that the first move exchanges; default: the paper's, "
        "0.3 and for a targeted run 0.1",
    )


@dataclass(frozen=True, slots=True)
class _Survivors:
    """The m samples not broken yet and the best point of each.

    `index`: int64 [m], places in the batch. `x`, `best`: [m, c, p]. `order`: int64 [m, p], all
    pixels, the k that `best` may change first. `value`: margin at `best`, [m].
    """

    index: Tensor
    x: Tensor
    goal: Goal
    best: Tensor
    order: Tensor
    value: Tensor

    def rows(self, index: Tensor) -> _Survivors:
        return _Survivors(
            self.index[index],
            self.x[index],
            self.goal.rows(index),
            self.best[index],
            self.order[index],
            self.value[index],
        )

    def having_seen(
        self, point: Tensor, order: Tensor, value: Tensor, broken: Tensor
    ) -> _Survivors:
        from robustbench_lite import norms

        kept = broken | (value >= self.value)
        return replace(
            self,
            best=point.where(norms.per_sample(kept, point), self.best),
            order=order.where(norms.per_sample(kept, order), self.order),
            value=value.where(kept, self.value),
        )


def sparse_rs(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None = None,
    queries: int = 5000,
    alpha_init: float | None = None,
) -> Tensor:
    """The point of highest margin that random search finds: float32 [n, *shape].

    The first point sets k = floor(eps) random pixels to random corners of the box; every other one
    exchanges some of them for pixels outside the set, fewer and fewer, and is kept if the margin
    does not fall. Below one pixel nothing is changed. A sample that is broken leaves at once, one
    that is misclassified (or at its target) from the beginning is returned as it came.

    Other than in the paper, a colour that would change nothing is turned into its opposite (half
    of the queries on a black and white image would be wasted), a pixel may be exchanged for itself
    in another colour (a good pixel in a wrong colour would be a dead end), and the margin is the
    loss of targeted runs too, in place of the cross-entropy.

    Croce, Andriushchenko, Singh, Flammarion, Hein, "Sparse-RS: a versatile framework for
    query-efficient sparse black-box adversarial attacks", AAAI 2022, algorithm 2 and appendix A.
    """
    from robustbench_lite import losses

    k = min(math.floor(budget.eps), pixel_grid(tuple(x.shape[1:]))[1])
    if k < 1 or not x.shape[0]:
        return x.clone()
    goal = goal_of(y, target)
    margin = losses.resolve(goal.objective("margin"))
    alpha = alpha_init or (0.1 if goal.targeted else 0.3)
    x_adv = as_pixels(x).clone()
    alive = _unbroken(model, x, goal, rng)
    for query in range(queries):
        if not alive.index.shape[0]:
            break
        rows = rng.rows(alive.index)
        if query == 0:
            point, order = _painted_set(alive, k, budget, rows), alive.order
        else:
            count = max(1, int(_alpha(query, queries, alpha) * k))
            point, order = _exchanged(alive, k, count, budget, rows)
        logits = model.rows(alive.index).logits(point.view(-1, *x.shape[1:]))
        value = margin(logits, alive.goal.labels)
        broken = alive.goal.reached(logits)
        value = value.where(value.isfinite(), -math.inf)
        alive = alive.having_seen(point, order, value, broken)
        kept = (~broken).nonzero().squeeze(1)  # the only time a query waits for the device
        if kept.shape[0] < broken.shape[0]:
            x_adv.index_copy_(0, alive.index, alive.best)
            alive = alive.rows(kept)
    return x_adv.index_copy(0, alive.index, alive.best).view_as(x)


def _unbroken(model: Classifier, x: Tensor, goal: Goal, rng: SampleRng) -> _Survivors:
    index = (~goal.reached(model.logits(x))).nonzero().squeeze(1)
    pixels = as_pixels(x[index])
    order = rng.rows(index).permutation(pixels.shape[2])
    nothing = pixels.new_full((index.shape[0],), -math.inf)
    return _Survivors(index, pixels, goal.rows(index), pixels, order, nothing)


def _painted_set(alive: _Survivors, k: int, budget: Budget, rng: SampleRng) -> Tensor:
    """x with the first k pixels of the order at random corners, [m, c, p]."""
    place = _in_all_channels(alive.order[:, :k], alive.x)
    chance = rng.uniform((place.shape[1], k))
    return alive.x.scatter(2, place, _corners(chance, alive.x.gather(2, place), budget))


def _exchanged(
    alive: _Survivors, k: int, count: int, budget: Budget, rng: SampleRng
) -> tuple[Tensor, Tensor]:
    """The best point with `count` pixels of its set exchanged, [m, c, p], and the new order.

    Pixels that leave get their clean values, those that enter random corners. One that enters is
    drawn from the pixels outside the set and the one that leaves, which then changes its colour.
    """
    channels, pixels = alive.x.shape[1:]
    pool = pixels - k + count  # outside, then those that leave
    draws = (1, 1) if count == 1 else (k, pool)
    chance = rng.uniform((sum(draws) + channels * count,))
    leaving_slot = _subset(chance[:, : draws[0]], count, k)
    entering_slot = k + _subset(chance[:, draws[0] : sum(draws)], count, pool)
    entering_slot = entering_slot.where(entering_slot < pixels, leaving_slot)
    leaving, entering = (alive.order.gather(1, slot) for slot in (leaving_slot, entering_slot))
    order = alive.order.scatter(1, leaving_slot, entering).scatter(1, entering_slot, leaving)
    place = _in_all_channels(leaving, alive.x)
    point = alive.best.scatter(2, place, alive.x.gather(2, place))
    place = _in_all_channels(entering, alive.x)
    coins = chance[:, sum(draws) :].view(-1, channels, count)
    return point.scatter(2, place, _corners(coins, alive.best.gather(2, place), budget)), order


def _subset(chance: Tensor, count: int, of: int) -> Tensor:
    """`count` different numbers below `of`, int64 [n, count], from uniform ones [n, 1 or of]."""
    if count == 1:
        return (chance * of).long()
    return chance.topk(count, dim=1).indices


def _corners(chance: Tensor, old: Tensor, budget: Budget) -> Tensor:
    """low or high for each chance [n, c, j], all channels of a pixel turned where it would stay."""
    high = chance < 1 / 2
    stays = (old == budget.box.low).where(~high, old == budget.box.high).all(dim=1, keepdim=True)
    high = high ^ stays
    ends = old.new_tensor((budget.box.low, budget.box.high))
    return ends[1].where(high, ends[0])


def _in_all_channels(place: Tensor, x: Tensor) -> Tensor:
    return place.unsqueeze(1).expand(-1, x.shape[1], -1)


def _alpha(query: int, queries: int, initial: float) -> float:
    """Share of the set that query number `query` of `queries` exchanges (appendix A)."""
    place = query * SCHEDULE_LENGTH // queries
    return initial / next((divisor for after, divisor in SHRUNK_AFTER if place > after), 1)


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, SparseRsParams)
    return Cost(queries=1 + params.queries, gradients=0)


SPEC = AttackSpec(
    name="sparse-rs",
    implementation=sparse_rs,
    summary="random search over k pixels at corners of the box, best point kept",
    norms=("l0",),
    access="score",
    params=SparseRsParams,
    paper="https://arxiv.org/abs/2006.12834",
    effort="iterative",
    targeted=True,
    carries=True,
    cost=_cost,
)
