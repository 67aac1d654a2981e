"""Brightness: every component of a sample shifted by one common amount, up or down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from robustbench_lite import SampleRng


class BrightnessParams(Params):
    """`levels`: shifts tried in each direction, evenly spaced up to eps."""

    levels: int = Field(default=1, ge=1, le=100)


def brightness(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,  # noqa: ARG001  (the contract hands it to every attack; this one draws nothing)
    levels: int,
) -> Tensor:
    """The shift that leaves the true class the smallest margin over the best other class.

    x: [n, *shape] float32 in the box; y: int64 [n]; returns x_adv [n, *shape] within eps of x.
    """
    import torch

    smallest = torch.full_like(y, torch.inf, dtype=x.dtype)
    x_adv = x
    for level in range(1, levels + 1):
        for direction in (-1.0, 1.0):
            shift = direction * budget.eps * level / levels
            shifted = (x + shift).clamp(budget.box.low, budget.box.high)
            margin = _margin(model.logits(shifted), y)
            better = margin < smallest
            smallest = torch.where(better, margin, smallest)
            x_adv = torch.where(better.view(-1, *[1] * (x.dim() - 1)), shifted, x_adv)
    return x_adv


def _margin(logits: Tensor, y: Tensor) -> Tensor:
    """Score of the true class minus the best other score, [n]; negative where y has lost."""
    true = logits.gather(1, y[:, None]).squeeze(1)
    others = logits.scatter(1, y[:, None], float("-inf"))
    return true - others.amax(dim=1)


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, BrightnessParams)
    return Cost(queries=2.0 * params.levels, gradients=0.0)


@hookimpl
def robeval_attacks() -> Iterable[AttackSpec]:
    """The attacks of this distribution: one."""
    return [
        AttackSpec(
            name="brightness",
            implementation=brightness,
            summary="shifts the whole input up or down by up to eps",
            norms=("linf",),
            access="score",
            params=BrightnessParams,
            effort="exhaustive",
            cost=_cost,
        )
    ]
