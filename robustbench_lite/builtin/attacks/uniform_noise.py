"""Control: a point drawn uniformly from the budget's ball."""

# ruff: noqa: ARG001  (a control never looks at the model)

from __future__ import annotations

from typing import TYPE_CHECKING

from robustbench_lite import AttackSpec, Budget, Classifier

from .ball import uniform_in_ball
from .cost import no_passes

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng


def uniform_noise(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> Tensor:
    """`x` plus noise uniform in the ball, then clipped to the box: float32 [n, *shape]."""
    from robustbench_lite import norms

    noise = uniform_in_ball(rng, tuple(x.shape[1:]), budget.norm, budget.eps)
    return norms.clip(x + noise, x, budget)


SPEC = AttackSpec(
    name="uniform-noise",
    implementation=uniform_noise,
    summary="a uniform point of the ball: the control of a gradient attack",
    norms=("linf", "l2", "l1"),
    access="none",
    role="control",
    effort="random",
    cost=no_passes,
)
