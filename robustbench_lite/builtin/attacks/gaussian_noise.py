"""Control: Gaussian noise of the budget's size."""

# ruff: noqa: ARG001  (a control never looks at the model)

from __future__ import annotations

from typing import TYPE_CHECKING

from robustbench_lite import AttackSpec, Budget, Classifier

from .ball import on_sphere
from .cost import no_passes

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng


def gaussian_noise(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> Tensor:
    """`x` plus Gaussian noise, then clipped to the box: float32 [n, *shape].

    linf: independent N(0, (eps/2)^2), clipped to the ball (4.6 % of the components reach its edge).
    l2: a Gaussian direction of norm eps.
    """
    from robustbench_lite import norms

    shape = tuple(x.shape[1:])
    if budget.norm == "linf":
        noise = budget.eps / 2 * rng.normal(shape)
    else:
        noise = on_sphere(rng, shape, budget.norm, budget.eps)
    return norms.clip(x + noise, x, budget)


SPEC = AttackSpec(
    name="gaussian-noise",
    implementation=gaussian_noise,
    summary="Gaussian noise, clipped to the ball (linf) or scaled to its edge (l2)",
    norms=("linf", "l2"),
    access="none",
    role="control",
    effort="random",
    cost=no_passes,
)
