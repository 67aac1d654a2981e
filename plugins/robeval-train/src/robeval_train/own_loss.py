"""FGSM on the loss that a model was trained on, where that is not its cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

OwnLoss = Literal["per-class", "negative-score"]


class OwnLossParams(Params):
    """Parameters of `fgsm-own-loss`."""

    loss: OwnLoss = Field(
        default="per-class",
        description="binary cross-entropy of every class' yes or no, or minus the true score",
    )
    clip: bool = Field(default=True, description="stay in the box; false: the paper's form")


def fgsm_own_loss(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,  # noqa: ARG001  (the contract; nothing here is random)
    loss: OwnLoss,
    clip: bool,
) -> Tensor:
    """x + eps sign(grad J), J being what the network was trained on: float32 [n, *shape].

    `per-class`: networks whose classes are a yes or no of their own (RBF, sigmoids).
    `negative-score`: minus the score of the true class, the mean loss of an ensemble's members.
    """
    grad = model.gradient(x, y, _per_class if loss == "per-class" else _negative_score)
    x_adv = x + budget.eps * grad.sign()
    return x_adv.clamp(budget.box.low, budget.box.high) if clip else x_adv


def _per_class(logits: Tensor, y: Tensor) -> Tensor:
    from .training.costs import per_class

    return per_class(logits, y)


def _negative_score(logits: Tensor, y: Tensor) -> Tensor:
    return -logits.gather(1, y[:, None]).squeeze(1)


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    return Cost(queries=1, gradients=1)


SPEC = AttackSpec(
    name="fgsm-own-loss",
    implementation=fgsm_own_loss,
    summary="one gradient sign step on the loss that the model was trained on",
    norms=("linf",),
    access="gradient",
    params=OwnLossParams,
    paper="https://arxiv.org/abs/1412.6572",
    effort="single-step",
    clip_parameter="clip",
    cost=_cost,
)
