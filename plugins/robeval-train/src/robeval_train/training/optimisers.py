"""Optimisers with the schedules of the recipes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from .adabound import Bounded
from .options import AdaBound, Adam, Optimiser, RmsProp, Sgd


def make(options: Optimiser, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser before its first step."""
    held = list(parameters)
    if isinstance(options, Sgd):
        return torch.optim.SGD(held, lr=options.lr, momentum=options.momentum)
    if isinstance(options, Adam):
        return torch.optim.Adam(held, lr=options.lr)
    if isinstance(options, RmsProp):
        return torch.optim.RMSprop(held, lr=options.lr)
    assert isinstance(options, AdaBound)
    return Bounded(held, lr=options.lr, final_lr=options.final_lr, gamma=options.gamma)


def schedule(
    options: Optimiser, optimiser: torch.optim.Optimizer, *, steps: int, epoch: int
) -> None:
    """Set the rates for the step after `steps` steps, in epoch `epoch` (from 1)."""
    if not isinstance(options, Sgd):
        return
    for group in optimiser.param_groups:
        group["lr"] = max(options.lr / options.decay**steps, options.least)
        group["momentum"] = momentum(options, epoch)


def momentum(options: Sgd, epoch: int) -> float:
    """Linear from epoch 1 to epoch `saturate`, constant after it."""
    last = options.momentum if options.final_momentum is None else options.final_momentum
    done = min(1.0, (epoch - 1) / max(1, options.saturate - 1))
    return options.momentum + (last - options.momentum) * done
