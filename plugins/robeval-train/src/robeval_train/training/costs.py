"""What a network is trained on: cross-entropy under a softmax, or one yes or no for each class."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Cost = Callable[[Tensor, Tensor], Tensor]
"""(scores [n, k], labels [n]) -> the cost of each sample, [n]."""


def cross_entropy(scores: Tensor, y: Tensor) -> Tensor:
    """-log of the true class' softmax probability."""
    return functional.cross_entropy(scores, y, reduction="none")


def per_class(scores: Tensor, y: Tensor) -> Tensor:
    """Binary cross-entropy of every class' own yes or no, summed over the classes."""
    wanted = functional.one_hot(y, scores.shape[1]).to(scores.dtype)
    cost = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    return cost.sum(dim=1)


def no_class(scores: Tensor, *, independent: bool) -> Tensor:
    """The cost of a sample of no class: 0 for equal probabilities, or for a no of every class."""
    if independent:
        return functional.softplus(scores).sum(dim=1)
    return -functional.log_softmax(scores, dim=1).mean(dim=1) - math.log(scores.shape[1])


def gradient(cost: Tensor, x: Tensor, *, keep: bool = False) -> Tensor:
    """Gradient of the summed cost with respect to x alone."""
    (found,) = torch.autograd.grad(cost.sum(), x, retain_graph=keep)
    return found


def penalty(net: nn.Module, *, l1: float, decay: float) -> Tensor | float:
    """l1 |first-layer weights|_1 + decay / 2 |all weights|^2, 0 where neither is asked for."""
    weights = [weight for weight in net.parameters() if weight.ndim > 1]
    found: Tensor | float = 0.0
    if l1:
        found = found + l1 * weights[0].abs().sum()
    if decay:
        squares = torch.stack([(weight * weight).sum() for weight in weights])
        found = found + decay / 2 * squares.sum()
    return found
