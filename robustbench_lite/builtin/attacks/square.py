"""Square: random search with windows that shrink, on scores alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params

from .goal import Goal, goal_of
from .square_l2 import bumps, shifts
from .square_linf import colours, stripes
from .square_windows import Anew, as_images, share

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

DRAWN_AHEAD = 50
"""Moves whose random numbers are drawn at once; a constant, so that nothing depends on it."""


class SquareParams(Params):
    """Parameters of `square`."""

    queries: int = Field(
        default=5000,
        ge=1,
        description="points tried per sample; 5000 is AutoAttack's standard, the paper's is 10,000",
    )
    p_init: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="share of the image that the first window covers; the paper's is 0.05 (linf) "
        "and 0.1 (l2), 0.8 is AutoAttack's",
    )
    rescale_schedule: bool = Field(
        default=True,
        description="windows shrink over the queries there are; false: as for 10,000 of them, the "
        "AutoAttack standard",
    )


class _Try(Protocol):
    """A move that is being tried: `point` [m, c, h, w], whose memory may be that of `best`."""

    @property
    def point(self) -> Tensor: ...

    def settled(self, better: Tensor) -> Tensor:
        """The best points [m, c, h, w] now that the rows `better` (bool [m]) are kept."""
        ...


class _Moves(Protocol):
    """Moves drawn ahead for m samples."""

    def of(self, index: Tensor) -> _Moves: ...

    def tried(self, number: int, x: Tensor, best: Tensor) -> _Try: ...


_Draw = Callable[["Tensor", Sequence[float], "Tensor", "Tensor"], _Moves]


@dataclass(frozen=True, slots=True)
class _Survivors:
    """The m samples not broken yet and the best point of each.

    `model` covers exactly these. `index`: int64 [m], places in the batch. `x`, `best`:
    [m, c, h, w]. `value`: margin at `best`, [m]. `moves`: the next ones, None before the first.
    """

    model: Classifier
    index: Tensor
    x: Tensor
    goal: Goal
    best: Tensor
    value: Tensor
    moves: _Moves | None = None

    def rows(self, model: Classifier, index: Tensor) -> _Survivors:
        places = self.index[index]
        return _Survivors(
            model.rows(places),
            places,
            self.x.index_select(0, index),
            self.goal.rows(index),
            self.best.index_select(0, index),
            self.value[index],
            self.moves and self.moves.of(index),
        )

    def having_seen(self, move: _Try, value: Tensor, better: Tensor) -> _Survivors:
        return replace(self, best=move.settled(better), value=value.where(better, self.value))

    def at_move(
        self, number: int, drawn: _Draw, covered: Callable[[int], float], rng: SampleRng
    ) -> _Survivors:
        """With the moves from `number` on, where none are left."""
        if number % DRAWN_AHEAD:
            return self
        chances = rng.rows(self.index).uniform((DRAWN_AHEAD, 5 + self.x.shape[1]))
        shares = [covered(number + ahead) for ahead in range(DRAWN_AHEAD)]
        return replace(self, moves=drawn(chances, shares, self.x, self.best))

    def tried(self, number: int) -> _Try:
        """Move `number` on the best points."""
        assert self.moves is not None
        return self.moves.tried(number % DRAWN_AHEAD, self.x, self.best)


def square(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None = None,
    queries: int = 5000,
    p_init: float = 0.8,
    rescale_schedule: bool = True,
) -> Tensor:
    """The point of highest margin that random search finds: float32 [n, *shape].

    The first point is x with vertical stripes of +-eps (linf) or a grid of bumps (l2); every other
    one changes a random window of the best point so far and is kept if the margin grows. A sample
    that is broken leaves at once, one that is misclassified (or at its target) from the beginning
    is returned as it came. The margin is the loss for targeted runs too, where the paper takes
    the cross-entropy. An input [h, w] is an image of one channel, one that is no image a strip of
    height 1.

    Andriushchenko, Croce, Flammarion, Hein, "Square Attack: a query-efficient black-box
    adversarial attack via random search", ECCV 2020, algorithms 1 to 3.
    """
    from robustbench_lite import losses

    if not x.shape[0]:
        return x.clone()
    goal = goal_of(y, target)
    margin = losses.resolve(goal.objective("margin"))
    start = stripes if budget.norm == "linf" else bumps
    drawn: _Draw = partial(colours if budget.norm == "linf" else shifts, budget=budget)
    covered = partial(share, moves=queries, initial=p_init, rescaled=rescale_schedule)
    x_adv = as_images(x).clone()
    alive = _unbroken(model, x, goal)
    for query in range(queries):
        if not alive.index.shape[0]:
            break
        if query == 0:
            move: _Try = Anew(start(alive.x, budget, rng.rows(alive.index)), alive.best)
        else:
            alive = alive.at_move(query - 1, drawn, covered, rng)
            move = alive.tried(query - 1)
        logits = alive.model.logits(move.point.view(-1, *x.shape[1:]))
        value = margin(logits, alive.goal.labels)
        calm = bool((value < 0).all())  # the only time a query waits for the device
        value = value.nan_to_num_(-math.inf, -math.inf, -math.inf)  # huge logits overflow
        better = value > alive.value
        if calm:
            alive = alive.having_seen(move, value, better)
            continue
        broken = alive.goal.reached(logits)
        alive = alive.having_seen(move, value, better | broken)
        gone, left = _indices(broken), _indices(~broken)
        x_adv.index_copy_(0, alive.index[gone], alive.best.index_select(0, gone))
        alive = alive.rows(model, left)
    return x_adv.index_copy(0, alive.index, alive.best).view_as(x)


def _unbroken(model: Classifier, x: Tensor, goal: Goal) -> _Survivors:
    index = _indices(~goal.reached(model.logits(x)))
    images = as_images(x[index])
    nothing = images.new_full((index.shape[0],), -math.inf)
    return _Survivors(model.rows(index), index, images, goal.rows(index), images.clone(), nothing)


def _indices(mask: Tensor) -> Tensor:
    return mask.nonzero().squeeze(1)


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, SquareParams)
    return Cost(queries=1 + params.queries, gradients=0)


SPEC = AttackSpec(
    name="square",
    implementation=square,
    summary="random search with windows that shrink, best point kept",
    norms=("linf", "l2"),
    access="score",
    params=SquareParams,
    paper="https://arxiv.org/abs/1912.00049",
    effort="iterative",
    targeted=True,
    carries=True,
    cost=_cost,
)
