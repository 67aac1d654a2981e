"""Losses that training exporters leave in a graph."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .table import Kernel, Node, op

NO_LABEL = -(1 << 40)


def _negative_log_likelihood(
    node: Node, scores: Tensor, target: Tensor, weight: Tensor | None
) -> Tensor:
    ignored = node.integer("ignore_index", NO_LABEL)
    target = target.long()
    kept = target != ignored
    place = torch.where(kept, target, 0)
    loss = -torch.gather(scores, 1, place.unsqueeze(1)).squeeze(1)
    each = torch.ones_like(loss) if weight is None else weight[place]
    each = torch.where(kept, each, torch.zeros_like(each))
    loss = loss * each
    reduction = node.text("reduction", "mean")
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / each.sum()


@op("NegativeLogLikelihoodLoss")
def negative_log_likelihood(node: Node) -> Kernel:
    """The loss of log-probabilities against labels."""
    return lambda x, target, weight=None: _negative_log_likelihood(node, x, target, weight)


@op("SoftmaxCrossEntropyLoss")
def cross_entropy(node: Node) -> Kernel:
    """The loss of logits against labels, and the log-probabilities if asked for."""

    def run(
        x: Tensor, target: Tensor, weight: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        scores = functional.log_softmax(x, 1)
        loss = _negative_log_likelihood(node, scores, target, weight)
        return (loss, scores) if node.wants(1) else loss

    return run
