"""Spatial: the worst rotation and translation, over a grid or of a few random ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params

from .bilinear import as_images, centred, sampled
from .goal import goal_of

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng


class SpatialParams(Params):
    """Parameters of `spatial`."""

    mode: Literal["grid", "random"] = Field(
        default="grid", description="grid: every one of the grid; random: the worst of k"
    )
    rotation: float = Field(
        default=30.0, ge=0, le=180, description="widest angle at eps 1, in degrees, either way"
    )
    translation: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="longest shift at eps 1, as a share of the height and of the width, rounded to "
        "whole pixels (3 of 28)",
    )
    rotations: int = Field(default=31, ge=1, description="angles of the grid, an odd number")
    translations: int = Field(
        default=5, ge=1, description="shifts of the grid along each axis, an odd number"
    )
    k: int = Field(default=10, ge=1, description="random ones, for mode random")

    @model_validator(mode="after")
    def _identity_in_grid(self) -> Self:
        for name, count in (("rotations", self.rotations), ("translations", self.translations)):
            if count % 2 == 0:
                raise ValueError(
                    f"{name}: {count} leaves the input itself out of the grid; expected an odd "
                    "number"
                )
        return self


def spatial(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    mode: str = "grid",
    rotation: float = 30.0,
    translation: float = 0.1,
    rotations: int = 31,
    translations: int = 5,
    k: int = 10,
) -> Tensor:
    """The first rotation and shift that breaks each sample, else the one of largest margin.

    eps in (0, 1] scales both ranges, 1 being the whole of them, so that a set contains those of
    smaller eps. The grid has 31 angles x 5 x 5 shifts = 775 points as in the paper; the clean pass
    is the one in its middle, and the widest come first. Random: k points, uniform in the ranges.
    An image is turned about its middle, then shifted, in one bilinear resampling; pixels from
    outside it are 0, or the end of the box next to 0. A sample that is misclassified from the
    beginning is returned as it came. Returns float32 [n, *shape].

    Raises ValueError for samples that are no images, and for an eps above 1.

    Engstrom, Tran, Tsipras, Schmidt and Madry, "Exploring the landscape of spatial robustness",
    ICML 2019.
    """
    from robustbench_lite import losses, norms

    images = as_images(x, "spatial")
    x_adv = x.clone()
    if budget.eps > 1:
        raise ValueError(
            f"spatial: eps {budget.eps:g} is a share of the whole range, expected at most 1; set "
            "`rotation` and `translation` for a wider one"
        )
    if budget.eps == 0 or not x.shape[0]:
        return x_adv
    goal = goal_of(y, None)
    if mode == "grid":
        moves = _grid(images, rotation, translation, rotations, translations) * budget.eps
    else:
        moves = rng.uniform((k, 3), -1.0, 1.0) * _limits(images, rotation, translation)
        moves = moves * budget.eps
    value = x.new_full((x.shape[0],), -math.inf)
    alive = (~goal.reached(model.logits(x))).nonzero().squeeze(1)
    for at in range(moves.shape[1]):
        if not alive.shape[0]:
            break
        move = moves[:, at] if mode == "grid" else moves[alive, at]
        point = moved(images[alive], move, budget).view(-1, *x.shape[1:])
        logits = model.rows(alive).logits(point)
        margin = losses.margin(logits, y[alive])
        broken = goal.rows(alive).reached(logits)
        better = broken | (margin.where(margin.isfinite(), -math.inf) > value[alive])
        x_adv[alive] = point.where(norms.per_sample(better, point), x_adv[alive])
        value[alive] = margin.where(better, value[alive])
        alive = alive[~broken]
    return x_adv


def moved(x: Tensor, move: Tensor, budget: Budget) -> Tensor:
    """x [n, c, h, w] turned and then shifted, [n, c, h, w], in the box.

    `move`: [n, 3] or [1, 3]: angle in degrees counter-clockwise, pixels down, pixels to the right.
    """
    box = budget.box
    angle, down, right = move.double().unsqueeze(2).unsqueeze(3).unbind(1)
    angle = angle.deg2rad()
    row, column = centred(x.shape[2], x.shape[3], x)
    row, column = row - down, column - right
    turned = sampled(
        x,
        row * angle.cos() + column * angle.sin(),
        column * angle.cos() - row * angle.sin(),
        outside=min(max(0.0, box.low), box.high),
    )
    return turned.clamp(box.low, box.high)


def _limits(x: Tensor, rotation: float, translation: float) -> Tensor:
    """Widest angle in degrees, longest shifts in whole pixels down and to the right: [3]."""
    longest = [math.floor(translation * side + 0.5) for side in x.shape[2:]]
    return x.new_tensor([rotation, *longest])


def _grid(
    x: Tensor, rotation: float, translation: float, rotations: int, translations: int
) -> Tensor:
    """Every point of the grid but its middle, the widest first: float64 [1, points, 3]."""
    import torch

    angles, shifts = (
        torch.arange(-(count // 2), count // 2 + 1, dtype=torch.float64) / max(1, count // 2)
        for count in (rotations, translations)
    )
    points = torch.cartesian_prod(angles, shifts, shifts).to(x.device)
    points = points[points.abs().argsort(dim=0, descending=True, stable=True)[:, 0]]
    middle = (points == 0).all(dim=1)
    return (points[~middle] * _limits(x, rotation, translation)).unsqueeze(0)


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, SpatialParams)
    grid = params.rotations * params.translations**2
    return Cost(queries=grid if params.mode == "grid" else 1 + params.k, gradients=0)


SPEC = AttackSpec(
    name="spatial",
    implementation=spatial,
    summary="the worst of 775 rotations and translations, or of a few random ones",
    norms=("none",),
    access="score",
    params=SpatialParams,
    paper="https://arxiv.org/abs/1712.02779",
    effort="exhaustive",
    carries=True,
    default_eps="1",
    cost=_cost,
)
