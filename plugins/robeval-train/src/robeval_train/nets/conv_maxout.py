"""Convolutional maxout, the CIFAR-10 network of Goodfellow et al. (2013)."""

from __future__ import annotations

import torch
from torch import nn

from . import Shape, size
from .layers import Bounded, Kept, MaxPieces
from .options import ConvMaxout, Net

KERNELS = ((8, 4, 4, 2, 0.9), (8, 3, 4, 2, 1.9365), (5, 3, 2, 2, 1.9365))
"""Of each layer: kernel, padding, pool, its stride, and the largest norm of a kernel."""
DENSE_NORM, TOP_NORM = 1.9, 1.9365


class BoundedConv(nn.Conv2d):
    """A convolution that starts uniformly in [-init, init]; each kernel stays in `max_norm`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        padding: int,
        init: float,
        max_norm: float,
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=padding)
        self.max_norm = max_norm
        nn.init.uniform_(self.weight, -init, init)
        assert self.bias is not None
        nn.init.zeros_(self.bias)


def build(options: Net, shape: Shape, classes: int) -> nn.Module:
    """Three convolutional maxout layers with max pooling, a dense one, and the scores.

    A pool at the edge may be cut short: on 32 x 32 pixels the convolutions then have 33, 15 and 9
    rows, as the recipe's `partial_sum: 33` and `15` say.
    """
    assert isinstance(options, ConvMaxout)
    layers: list[nn.Module] = [Kept(options.keep_input, rescale=False)]
    inputs, init = shape[0], options.init
    for channels, (kernel, padding, pool, stride, norm) in zip(
        options.channels, KERNELS, strict=True
    ):
        layers += [
            BoundedConv(
                inputs,
                channels * options.pieces,
                kernel,
                padding=padding,
                init=init,
                max_norm=norm,
            ),
            MaxPieces(options.pieces),
            nn.MaxPool2d(pool, stride, ceil_mode=True),  # as cuda-convnet pools, for the recipe
            Kept(options.keep_hidden, rescale=True),
        ]
        inputs = channels
    flat = size(tuple(nn.Sequential(*layers).eval()(torch.zeros(1, *shape)).shape[1:]))
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        Bounded(flat, options.dense * options.dense_pieces, init=init, max_norm=DENSE_NORM),
        MaxPieces(options.dense_pieces),
        Kept(options.keep_hidden, rescale=True),
        Bounded(options.dense, classes, init=init, max_norm=TOP_NORM),
    )
