"""Quantise: PGD among 8-bit images, for adversarial examples that survive being stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Evaluated, Loss, Params

from .pgd import pgd

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustbench_lite import Box, SampleRng

LEVELS = 255  # steps of 8-bit storage over the box
SAME_LEVEL = 1e-3  # of a step: float32 does not hit a level exactly


class QuantiseParams(Params):
    """Parameters of `quantise`."""

    steps: int = Field(default=40, ge=1, description="gradient steps of one restart")
    restarts: int = Field(default=1, ge=1, description="runs on the samples not broken yet")
    loss: Literal["cross-entropy", "margin"] = Field(
        default="cross-entropy", description="what the steps raise"
    )
    stop_when_broken: bool = Field(
        default=True,
        description="let a broken sample leave; false: every sample takes every step, to the "
        "highest loss (the default in transfer)",
    )


def quantise(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None = None,
    steps: int = 40,
    restarts: int = 1,
    loss: str = "cross-entropy",
    stop_when_broken: bool = True,
) -> Tensor:
    """The worst 8-bit image that PGD meets in the ball: float32 [n, *shape].

    Answers whether there is an adversarial example that survives storage in 256 levels of the box,
    not whether the one that another attack found does. PGD moves freely as ever, and whatever it
    looks at is stored first (`stored`): loss and gradient are those of the 8-bit image, as in
    training with a straight-through estimator (Bengio, Leonard and Courville 2013), and the worst
    8-bit image is kept. Where x itself is one, every answer is one, and in the ball.

    The optimiser is `pgd` (Madry et al. 2018); that rounding destroys small perturbations is in
    Carlini and Wagner, "Towards evaluating the robustness of neural networks" (2017), section V.
    """
    found = pgd(
        _Stored(model, x, budget),
        x,
        y,
        budget=budget,
        rng=rng,
        target=target,
        steps=steps,
        restarts=restarts,
        loss=loss,
        stop_when_broken=stop_when_broken,
    )
    return stored(found, x, budget)


def stored(point: Tensor, x: Tensor, budget: Budget) -> Tensor:
    """`point` [n, *shape], in the ball around x, rounded to levels of the box in that ball.

    A component goes to the nearest level. Where that is farther from x and leaves the ball, it goes
    to the next level towards x, and where there is none, it is x's own: under linf component by
    component; under l2 the levels nearest to their component go outwards while the ball has room.
    """
    import torch

    from robustbench_lite import norms

    place, start = (_position(each, budget.box) for each in (point, x))
    direction = (point - x).sign().double()
    below = (place * direction).floor() * direction  # the level on x's side
    beyond = (below - start) * direction > SAME_LEVEL
    inner = _value(below, budget.box, x).where(beyond, x)
    outer = _value(below + direction, budget.box, x)
    nearest = (below + direction - place).abs() < (place - below.where(beyond, start)).abs()
    wanted = nearest & (direction != 0)
    if budget.norm == "linf":
        slack = norms.tolerance("linf", budget.eps, budget.box, tuple(x.shape[1:]))
        return outer.where(wanted & ((outer - x).abs() <= budget.eps + slack), inner)
    near, far = ((each.double() - x.double()).square().flatten(1) for each in (inner, outer))
    room = budget.eps**2 - near.sum(dim=1, keepdim=True)
    gap = (below + direction - place).abs().masked_fill(~wanted, float("inf")).flatten(1)
    order = gap.argsort(dim=1, stable=True)
    price = (far - near).where(wanted.flatten(1), float("inf")).gather(1, order).cumsum(dim=1)
    outwards = torch.zeros_like(order, dtype=torch.bool).scatter(1, order, price <= room)
    return outer.where(outwards.view_as(x), inner)


def _position(x: Tensor, box: Box) -> Tensor:
    """x in steps from the low end of the box, float64."""
    return (x.double() - box.low) / box.width * LEVELS


def _value(level: Tensor, box: Box, like: Tensor) -> Tensor:
    """The number that stands for a level, by the same float32 steps as reading 8-bit images."""
    return (box.low + level.to(like.dtype) / LEVELS * box.width).clamp(box.low, box.high)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A `Classifier` that is shown 8-bit images in the ball around x [n, *shape] only."""

    model: Classifier
    x: Tensor
    budget: Budget

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    @property
    def box(self) -> Box:
        return self.model.box

    @property
    def shape(self) -> tuple[int, ...]:
        return self.model.shape

    @property
    def device(self) -> torch.device:
        return self.model.device

    def logits(self, x: Tensor) -> Tensor:
        return self.model.logits(stored(x, self.x, self.budget))

    def decide(self, x: Tensor) -> Tensor:
        return self.model.decide(stored(x, self.x, self.budget))

    def gradient(self, x: Tensor, y: Tensor, loss: Loss = "cross-entropy") -> Tensor:
        return self.value_and_gradient(x, y, loss).gradient

    def value_and_gradient(self, x: Tensor, y: Tensor, loss: Loss = "cross-entropy") -> Evaluated:
        return self.model.value_and_gradient(stored(x, self.x, self.budget), y, loss)

    def averaged(self, draws: int) -> Classifier:
        return _Stored(self.model.averaged(draws), self.x, self.budget)

    def rows(self, index: Tensor) -> Classifier:
        return _Stored(self.model.rows(index), self.x[index], self.budget)

    def module(self) -> torch.nn.Module:
        return self.model.module()


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, QuantiseParams)
    return Cost(
        queries=params.stop_when_broken + params.restarts * (params.steps + 1),
        gradients=params.restarts * params.steps,
    )


SPEC = AttackSpec(
    name="quantise",
    implementation=quantise,
    summary="PGD among 8-bit images: is there an adversarial example that survives storage",
    norms=("linf", "l2"),
    access="gradient",
    params=QuantiseParams,
    paper="https://arxiv.org/abs/1608.04644",
    effort="iterative",
    targeted=True,
    carries=True,
    when_transferred={"stop_when_broken": False},
    cost=_cost,
)
