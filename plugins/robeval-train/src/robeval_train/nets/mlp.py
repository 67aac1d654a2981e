"""Fully connected ReLU networks."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from . import Shape, size
from .layers import Kept
from .options import Mlp, Net


def build(options: Net, shape: Shape, classes: int) -> nn.Module:
    """Hidden layers of the given widths; torch's own initialisation."""
    assert isinstance(options, Mlp)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, width in pairwise((size(shape), *options.widths)):
        layers += [nn.Linear(before, width), nn.ReLU()]
        if options.drop:
            layers.append(Kept(1 - options.drop, rescale=True))
    last = options.widths[-1] if options.widths else size(shape)
    return nn.Sequential(*layers, nn.Linear(last, classes))
