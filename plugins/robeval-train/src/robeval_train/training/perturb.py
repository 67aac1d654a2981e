"""What recipes train on beside the clean inputs: examples made against the current network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustbench_lite import Box, Budget, norms

from .options import BallNorm

STEP_SHARE = 2.5  # of eps / steps: Madry's rule, so that the ball's edge can be reached and left


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """The network in eval mode, its mode restored afterwards."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)


def signed(x: Tensor, grad: Tensor, eps: float, box: Box | None) -> Tensor:
    """x + eps sign(grad), sign(0) = 0, in the box if one is given; without a graph."""
    x_adv = x.detach() + eps * grad.detach().sign()
    return x_adv if box is None else x_adv.clamp(box.low, box.high)


def start(x: Tensor, norm: BallNorm, eps: float, box: Box, rng: torch.Generator) -> Tensor:
    """A uniform random point of the ball around x, in the box."""
    if norm == "linf":
        delta = torch.empty(x.shape).uniform_(-eps, eps, generator=rng)
    else:
        delta = torch.randn(x.shape, generator=rng)
        radius = torch.rand(len(x), generator=rng) ** (1 / x[0].numel()) * eps
        length = delta.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        delta = delta * (radius / length).view(-1, *[1] * (x.dim() - 1))
    return (x + delta.to(x.device)).clamp(box.low, box.high)


def pgd(
    net: nn.Module,
    x: Tensor,
    cost: Callable[[Tensor], Tensor],
    *,
    norm: BallNorm,
    eps: float,
    steps: int,
    step_size: float | None,
    box: Box,
    rng: torch.Generator,
) -> Tensor:
    """Points of the ball and the box with a high `cost` of their scores, in eval mode: [n, *shape].

    `cost`: scores [n, k] -> [n].
    """
    size = STEP_SHARE * eps / steps if step_size is None else step_size
    budget = Budget(norm=norm, eps=eps, box=box)
    x_adv = start(x, norm, eps, box, rng)
    with evaluating(net):
        for _ in range(steps):
            leaf = x_adv.detach().requires_grad_(True)
            (grad,) = torch.autograd.grad(cost(net(leaf)).sum(), leaf)
            moved = x_adv + size * norms.steepest(grad, norm)
            x_adv = norms.clip(moved, x, budget)
    return x_adv.detach()
