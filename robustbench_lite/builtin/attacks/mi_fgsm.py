"""MI-FGSM: steps along a running mean of gradients, with the options that help it to transfer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Loss, Params

from .goal import Goal, goal_of
from .mi_views import need_images, shrinking, smoothed

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng


class MiFgsmParams(Params):
    """Parameters of `mi-fgsm`."""

    steps: int = Field(default=10, ge=1, description="gradient steps")
    step_size: float | None = Field(
        default=None, gt=0, description="length of every step, in the norm; default: eps / steps"
    )
    decay: float = Field(
        default=1.0, ge=0, description="share of the running gradient kept by a step"
    )
    loss: Literal["cross-entropy", "margin"] = Field(
        default="cross-entropy", description="what the steps raise"
    )
    di: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="input diversity: chance that an image is shrunk and padded; paper 0.5",
    )
    ti: int = Field(
        default=1,
        ge=1,
        description="translation: odd side of the Gaussian kernel that smooths the gradient, 1 for "
        "none; the paper's is 15 at 299 pixels",
    )
    ni: bool = Field(default=False, description="Nesterov: look where the momentum leads")
    si: int = Field(
        default=1, ge=1, description="scale: copies x, x/2, x/4, ... whose gradients are averaged"
    )
    stop_when_broken: bool = Field(
        default=True,
        description="a broken sample leaves; false: all make every step, for transfer",
    )

    @field_validator("ti")
    @classmethod
    def _odd(cls, side: int) -> int:
        if side % 2 == 0:
            raise ValueError(f"ti: a kernel has an odd side, {side} is even; try {side + 1}")
        return side


@dataclass(frozen=True, slots=True)
class _View:
    """From where a step looks: `di`, `ti`, `si` of the parameters."""

    di: float
    ti: int
    si: int

    def gradient(
        self, model: Classifier, x: Tensor, goal: Goal, loss: Loss, rng: SampleRng
    ) -> tuple[Tensor, Tensor]:
        """The gradient at x [m, *shape] as the options have it, and the first look's logits."""
        looks = [self._look(model, x, goal, loss, rng, 0.5**copy) for copy in range(self.si)]
        grad = sum((grad for grad, _ in looks[1:]), looks[0][0]) / self.si
        return (grad if self.ti == 1 else smoothed(grad, self.ti)), looks[0][1]

    def _look(
        self, model: Classifier, x: Tensor, goal: Goal, loss: Loss, rng: SampleRng, scale: float
    ) -> tuple[Tensor, Tensor]:
        box = model.box
        seen = x if scale == 1 else box.low + scale * (x - box.low)
        shrunk = None
        if self.di:
            shrunk = shrinking(rng.uniform((4,)), self.di, x)
            seen = shrunk.seen(seen, box)
        looked = model.value_and_gradient(seen, goal.labels, loss)
        grad = looked.gradient if shrunk is None else shrunk.pulled_back(looked.gradient)
        return scale * grad, looked.logits


def mi_fgsm(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None = None,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    loss: str = "cross-entropy",
    di: float = 0.0,
    ti: int = 1,
    ni: bool = False,
    si: int = 1,
    stop_when_broken: bool = True,
) -> Tensor:
    """The last iterate, or the first one that is broken: float32 [n, *shape].

    running <- decay * running + grad / mean |grad|; point <- clip(point + step_size *
    steepest(running)), starting at x. The division is the paper's by the l1 norm, times a constant
    that only `ni` can see, where it makes the look-ahead as long as a step.

    di (Xie et al. 2019): the gradient is that of the image shrunk and padded at random. ti (Dong et
    al. 2019): it is smoothed with a Gaussian kernel. ni (Lin et al. 2020): it is taken at
    point + step_size * decay * running. si (same): it is the mean over the image at 1, 1/2, 1/4
    ... of its distance from the lower end of the box.

    With `stop_when_broken` a sample leaves as soon as an iterate is misclassified (or at its
    target), x included. Without, every sample makes every step, those that this model has lost at
    x too: what breaks the source first need not break another model. That is the default of a
    transfer.

    Dong et al., "Boosting adversarial attacks with momentum", CVPR 2018.
    """
    import torch

    from robustbench_lite import norms

    for option, used in (("di", di > 0), ("ti", ti > 1)):
        if used:
            need_images(option, tuple(x.shape[1:]))
    goal = goal_of(y, target)
    x_adv, view = x.clone(), _View(di, ti, si)
    elsewhere = ni or di > 0
    index, start, point, running = torch.arange(len(x), device=x.device), x, x, torch.zeros_like(x)
    length = budget.eps / steps if step_size is None else step_size
    ahead = length * decay * (1.0 if budget.norm == "linf" else math.prod(x.shape[1:]) ** -0.5)
    for step in range(steps):
        if not index.shape[0]:
            break
        seen = model.rows(index) if step else model  # the model may remember its clean gradient
        there = (point + ahead * running).clamp(budget.box.low, budget.box.high) if ni else point
        grad, logits = view.gradient(seen, there, goal, goal.objective(loss), rng.rows(index))
        if stop_when_broken:
            broken = goal.reached(seen.logits(point) if elsewhere else logits)
            kept = (~broken).nonzero().squeeze(1)
            if kept.shape[0] < broken.shape[0]:
                x_adv.index_copy_(0, index, point)
                index, goal, start = index[kept], goal.rows(kept), start[kept]
                point, running, grad = point[kept], running[kept], grad[kept]
        running = decay * running + _unit(grad)
        step_taken = length * norms.steepest(running, budget.norm)
        point = norms.clip(point + step_taken, start, budget)
    return x_adv.index_copy(0, index, point)


def _unit(grad: Tensor) -> Tensor:
    """With a mean absolute component of 1; 0 where the gradient is 0."""
    from robustbench_lite import norms

    size = grad.flatten(1).abs().mean(dim=1)
    return grad / norms.per_sample(size.masked_fill(size == 0, 1.0), grad)


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, MiFgsmParams)
    looks_twice = params.stop_when_broken and (params.ni or params.di > 0)
    gradients = params.steps * params.si
    return Cost(queries=gradients + params.steps * looks_twice, gradients=gradients)


SPEC = AttackSpec(
    name="mi-fgsm",
    implementation=mi_fgsm,
    summary="sign steps along a running mean of gradients; options for transfer",
    norms=("linf", "l2"),
    access="gradient",
    params=MiFgsmParams,
    paper="https://arxiv.org/abs/1710.06081",
    effort="iterative",
    targeted=True,
    carries=True,
    when_transferred={"stop_when_broken": False},
    cost=_cost,
)
