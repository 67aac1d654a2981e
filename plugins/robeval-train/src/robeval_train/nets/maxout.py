"""Maxout networks on flat samples (Goodfellow et al., "Maxout networks", ICML 2013)."""

from __future__ import annotations

from torch import nn

from . import Shape, size
from .layers import Bounded, Kept, MaxPieces
from .options import Maxout, Net


def build(options: Net, shape: Shape, classes: int) -> nn.Module:
    """Dropout on the input and on every hidden layer; scores are linear in the last one."""
    assert isinstance(options, Maxout)
    layers: list[nn.Module] = [nn.Flatten(), Kept(options.keep_input, rescale=False)]
    width = size(shape)
    bounds = {"init": options.init, "max_norm": options.max_norm}
    for _ in range(options.layers):
        layers += [
            Bounded(width, options.units * options.pieces, **bounds),
            MaxPieces(options.pieces),
            Kept(options.keep_hidden, rescale=True),
        ]
        width = options.units
    return nn.Sequential(*layers, Bounded(width, classes, **bounds))
