"""Control: some random pixels turned black or white."""

# ruff: noqa: ARG001  (a control never looks at the model)

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from robustbench_lite import AttackSpec, Budget, Classifier

from .cost import no_passes
from .pixels import painted, pixel_grid

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng


def salt_and_pepper(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> Tensor:
    """`x` with floor(eps) random pixels set to the box's low or high by a fair coin.

    All channels of a pixel get the same value; a pixel that had it already stays as it is.
    Returns float32 [n, *shape].
    """
    channels, positions = pixel_grid(tuple(x.shape[1:]))
    count = min(math.floor(budget.eps), positions)
    where = rng.permutation(positions)[:, :count]
    values = x.new_tensor((budget.box.low, budget.box.high))[rng.integers(0, 2, (count,))]
    return painted(x, None, where, values.unsqueeze(1).expand(-1, channels, -1))


SPEC = AttackSpec(
    name="salt-and-pepper",
    implementation=salt_and_pepper,
    summary="eps random pixels set to black or white",
    norms=("l0",),
    access="none",
    role="control",
    effort="random",
    cost=no_passes,
)
