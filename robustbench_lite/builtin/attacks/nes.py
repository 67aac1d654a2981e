"""NES: signed steps along a gradient estimated from scores, with Gaussian directions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params

from .goal import goal_of
from .nes_climb import Memory, Probe, climb

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng


class NesParams(Params):
    """Parameters of `nes`."""

    steps: int = Field(default=100, ge=1, description="steps along an estimated gradient")
    samples: int = Field(
        default=50, ge=2, multiple_of=2, description="queries of one estimate, in mirrored pairs"
    )
    sigma: float = Field(
        default=0.001, gt=0, description="how far a query is from the point, of the box's width"
    )
    step_size: float | None = Field(
        default=None,
        gt=0,
        description="length of every step, in the norm; default: falling from eps to 0. The "
        "paper's is 0.01 at eps 0.05 (linf)",
    )


def nes(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None = None,
    steps: int = 100,
    samples: int = 50,
    sigma: float = 0.001,
    step_size: float | None = None,
) -> Tensor:
    """The point of highest margin met by projected steps from x: float32 [n, *shape].

    linf: point + step_size * sign(estimate), l2: point + step_size * estimate / ||estimate||. The
    estimate is of the margin's gradient; the paper takes the cross-entropy, which saturates.

    Ilyas, Engstrom, Athalye, Lin, "Black-box adversarial attacks with limited queries and
    information", ICML 2018, section 3.1.
    """
    from robustbench_lite import norms

    def move(grad: Tensor, memory: Memory, step: int) -> tuple[Tensor, Memory]:
        falling = budget.eps * (1 + math.cos(math.pi * step / steps)) / 2
        return (step_size or falling) * norms.steepest(grad, budget.norm), memory

    probe = Probe(
        samples=samples,
        width=sigma * budget.box.width,
        draw=lambda drawn, shape: drawn.normal(shape),
    )
    return climb(
        model,
        x,
        goal_of(y, target),
        budget,
        rng,
        steps=steps,
        probe=probe,
        move=move,
        remember=lambda _: (),
    )


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, NesParams)
    return Cost(queries=1 + params.steps * (params.samples + 1), gradients=0)


SPEC = AttackSpec(
    name="nes",
    implementation=nes,
    summary="projected steps along a gradient estimated with Gaussian directions",
    norms=("linf", "l2"),
    access="score",
    params=NesParams,
    paper="https://arxiv.org/abs/1804.08598",
    effort="iterative",
    targeted=True,
    carries=True,
    cost=_cost,
)
