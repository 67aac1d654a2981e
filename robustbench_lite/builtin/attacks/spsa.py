"""SPSA: Adam on a gradient estimated from scores, with directions of random signs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params

from .goal import goal_of
from .nes_climb import Memory, Probe, climb

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

DECAY_MEAN, DECAY_SQUARE = 0.9, 0.999  # Adam's own defaults
TINY = 1e-12  # keeps a step finite where every estimate so far was 0


class SpsaParams(Params):
    """Parameters of `spsa`."""

    steps: int = Field(default=100, ge=1, description="Adam steps")
    samples: int = Field(
        default=128,
        ge=2,
        multiple_of=2,
        description="queries of one estimate, in mirrored pairs; the paper's least, its most is "
        "8192",
    )
    width: float = Field(
        default=0.01, gt=0, description="how far a query is from the point, of the box's width"
    )
    learning_rate: float = Field(
        default=0.01, gt=0, description="Adam's step per component, of the box's width"
    )


def spsa(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None = None,
    steps: int = 100,
    samples: int = 128,
    width: float = 0.01,
    learning_rate: float = 0.01,
) -> Tensor:
    """The point of highest margin met by projected Adam steps from x: float32 [n, *shape].

    Under l2, which the paper does not have, Adam's second moment is the mean over the components:
    one of its own for each would turn every step towards a corner of the linf ball.

    Uesato, O'Donoghue, Oord, Kohli, "Adversarial risk and the dangers of evaluating against weak
    attacks", ICML 2018, section 4.
    """
    together = budget.norm == "l2"
    rate = learning_rate * budget.box.width

    def start(clean: Tensor) -> Memory:
        return clean.new_zeros(clean.shape), clean.new_zeros(clean.shape)

    def move(grad: Tensor, memory: Memory, step: int) -> tuple[Tensor, Memory]:
        power = grad.square()
        if together:
            power = power.flatten(1).mean(dim=1).view(-1, *[1] * (grad.ndim - 1)).expand_as(grad)
        mean = DECAY_MEAN * memory[0] + (1 - DECAY_MEAN) * grad
        square = DECAY_SQUARE * memory[1] + (1 - DECAY_SQUARE) * power
        unbiased = mean / (1 - DECAY_MEAN ** (step + 1))
        scale = (square / (1 - DECAY_SQUARE ** (step + 1))).sqrt()
        return rate * unbiased / (scale + TINY), (mean, square)

    probe = Probe(
        samples=samples,
        width=width * budget.box.width,
        draw=lambda drawn, shape: drawn.sign(shape),
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
        remember=start,
    )


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, SpsaParams)
    return Cost(queries=1 + params.steps * (params.samples + 1), gradients=0)


SPEC = AttackSpec(
    name="spsa",
    implementation=spsa,
    summary="projected Adam on a gradient estimated with random signs",
    norms=("linf", "l2"),
    access="score",
    params=SpsaParams,
    paper="https://arxiv.org/abs/1802.05666",
    effort="iterative",
    targeted=True,
    carries=True,
    cost=_cost,
)
