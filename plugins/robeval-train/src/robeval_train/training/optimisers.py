"""Optimisers with the schedules of the recipes."""

from __future__ import annotations

from torch import nn, optim

from .adabound import Bounded
from .options import AdaBound, Adam, Optimiser, RmsProp, Sgd

SCALE = "scale"  # of a group's rate, kept with the optimiser's state


def make(options: Optimiser, net: nn.Module) -> optim.Optimizer:
    """The optimiser of a network's parameters before its first step."""
    if isinstance(options, Sgd):
        groups = _groups(net, options.conv_scale)
        return optim.SGD(groups, lr=options.lr, momentum=options.momentum)
    held = list(net.parameters())
    if isinstance(options, Adam):
        return optim.Adam(held, lr=options.lr)
    if isinstance(options, RmsProp):
        return optim.RMSprop(held, lr=options.lr)
    assert isinstance(options, AdaBound)
    return Bounded(held, lr=options.lr, final_lr=options.final_lr, gamma=options.gamma)


def schedule(options: Optimiser, optimiser: optim.Optimizer, *, steps: int, epoch: int) -> None:
    """Set the rates for the step after `steps` steps, in epoch `epoch` (from 1)."""
    if not isinstance(options, Sgd):
        return
    for group in optimiser.param_groups:
        group["lr"] = rate(options, steps, epoch) * group[SCALE]
        group["momentum"] = momentum(options, epoch)


def rate(options: Sgd, steps: int, epoch: int) -> float:
    """Linear from epoch 1 to epoch `lr_saturate`, then divided by the decay of every step."""
    now = _between(options.lr, options.final_lr, epoch, options.lr_saturate)
    return max(now / options.decay**steps, options.least)


def momentum(options: Sgd, epoch: int) -> float:
    """Linear from epoch 1 to epoch `saturate`, constant after it."""
    return _between(options.momentum, options.final_momentum, epoch, options.saturate)


def _between(first: float, last: float | None, epoch: int, saturate: int) -> float:
    if last is None:
        return first
    done = min(1.0, (epoch - 1) / max(1, saturate - 1))
    return first + (last - first) * done


def _groups(net: nn.Module, conv_scale: float) -> list[dict[str, object]]:
    """Convolutions and the rest apart where their rates differ, each with its scale."""
    whole = {id(weight): weight for weight in net.parameters()}
    slow = {
        id(weight): weight
        for layer in net.modules()
        if conv_scale != 1 and isinstance(layer, nn.Conv2d)
        for weight in layer.parameters()
    }
    rest = [weight for key, weight in whole.items() if key not in slow]
    groups: list[dict[str, object]] = [{"params": rest, SCALE: 1.0}]
    if slow:
        groups.append({"params": list(slow.values()), SCALE: conv_scale})
    return groups
