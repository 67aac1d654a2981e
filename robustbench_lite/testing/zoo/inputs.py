"""Members with something about their input: its scale, its shape, its place among known ones."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from .nets import digits, frozen, linear_layer, undefended
from .outputs import Scale

SNAP_RADIUS = 4.0  # in l2; uniform noise of 0.3 stays inside, an adversarial example does not
BRIGHTEST = 0.25  # mean of a digit: 199 of 200 are darker


class Snap(nn.Module):
    """Replaces an image by the nearest known one, if that is within a radius in l2."""

    def __init__(self, known: Tensor, radius: float) -> None:
        super().__init__()
        self.radius = radius
        self.known: Tensor
        self.register_buffer("known", known)

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, *shape] -> the same shape."""
        rows = x.flatten(1)
        squares = rows.square().sum(dim=1, keepdim=True) + self.known.square().sum(dim=1)
        distance = squares - 2 * rows @ self.known.T
        nearest = distance.argmin(dim=1)
        near = distance.gather(1, nearest[:, None]) <= self.radius**2
        return torch.where(near, self.known[nearest], rows).reshape(x.shape)


class RefuseBright(nn.Module):
    """A network that gives the same score to every class where an image's mean is too high."""

    def __init__(self, network: nn.Module, brightest: float) -> None:
        super().__init__()
        self.net = network
        self.brightest = brightest

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, *shape] -> logits [n, k], all 0 for what it refuses."""
        logits: Tensor = self.net(x)
        refused = x.flatten(1).mean(dim=1, keepdim=True) > self.brightest
        return torch.where(refused, torch.zeros_like(logits), logits)


def memoriser() -> nn.Module:
    """Snaps to the embedded digits within l2 4: no gradient near them; the step `snap`."""
    known = digits()[0].flatten(1)
    return frozen(nn.Sequential(OrderedDict(snap=Snap(known, SNAP_RADIUS), net=undefended())))


def mean_detector() -> nn.Module:
    """Refuses images whose mean is over 0.25: flat logits there, without a gradient."""
    return frozen(RefuseBright(undefended(), BRIGHTEST))


def bytes_input() -> nn.Module:
    """Expects values from 0 to 255; on data in [0, 1] it sees black. `scale: 255` mends it."""
    steps = OrderedDict(unit=Scale(1 / 255), net=undefended())
    return frozen(nn.Sequential(steps))


def two_classes() -> nn.Module:
    """The digits 0 and 1 alone: logits [n, 2]."""
    return _first_classes(2)


def three_classes() -> nn.Module:
    """The digits 0, 1 and 2 alone: logits [n, 3]."""
    return _first_classes(3)


def tabular() -> nn.Module:
    """Rows of 784 numbers in [0, 1] instead of images: [n, 784] -> logits [n, 10]."""
    return undefended()[1:]


def _first_classes(count: int) -> nn.Module:
    """The network with the first `count` rows of its last layer."""
    *layers, last = undefended()
    assert isinstance(last, nn.Linear)
    cut = linear_layer(last.weight[:count].clone(), last.bias[:count].clone())
    return frozen(nn.Sequential(*layers, cut))
