"""Control: every component moved by the same amount, in a random direction."""

# ruff: noqa: ARG001  (a control never looks at the model)

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from robustbench_lite import AttackSpec, Budget, Classifier

from .cost import no_passes

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng


def sign_noise(
    model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
) -> Tensor:
    """`x` plus or minus a constant, a fair coin per component, then clipped to the box.

    The constant is eps for linf and eps / sqrt(d) for l2, so that all of the budget is spent: the
    control that Goodfellow et al. (ICLR 2015) set beside FGSM. Returns float32 [n, *shape].
    """
    from robustbench_lite import norms

    shape = tuple(x.shape[1:])
    size = budget.eps if budget.norm == "linf" else budget.eps / math.sqrt(math.prod(shape))
    return norms.clip(x + size * rng.sign(shape), x, budget)


SPEC = AttackSpec(
    name="sign-noise",
    implementation=sign_noise,
    summary="plus or minus eps per component by a fair coin: FGSM without looking",
    norms=("linf", "l2"),
    access="none",
    paper="https://arxiv.org/abs/1412.6572",
    role="control",
    effort="random",
    cost=no_passes,
)
