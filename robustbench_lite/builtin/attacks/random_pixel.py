"""Control of `single-pixel`: one random pixel at one random corner of the box."""

# ruff: noqa: ARG001  (a control never looks at the model)

from __future__ import annotations

from typing import TYPE_CHECKING

from robustbench_lite import AttackSpec, Budget, Classifier

from .cost import no_passes
from .pixels import painted, pixel_grid

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng


def random_pixel(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> Tensor:
    """`x` with one random pixel set to low or high, a fair coin for each channel.

    One pixel whatever the eps, like the attack it controls; none below eps 1. Returns float32
    [n, *shape].
    """
    if budget.eps < 1:
        return x.clone()
    channels, positions = pixel_grid(tuple(x.shape[1:]))
    where = rng.integers(0, positions, (1,))
    ends = x.new_tensor((budget.box.low, budget.box.high))
    return painted(x, None, where, ends[rng.integers(0, 2, (channels, 1))])


SPEC = AttackSpec(
    name="random-pixel",
    implementation=random_pixel,
    summary="one random pixel at a random corner of the box: the control of single-pixel",
    norms=("l0",),
    access="none",
    role="control",
    effort="random",
    default_eps="1",
    cost=no_passes,
)
