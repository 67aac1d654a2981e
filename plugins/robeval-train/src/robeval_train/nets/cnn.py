"""A small CNN whose strides stand in place of pooling: cheap enough to train adversarially."""

from __future__ import annotations

import torch
from torch import nn

from . import Shape, size
from .options import Cnn, Net


def build(options: Net, shape: Shape, classes: int) -> nn.Module:
    """Two 4 x 4 convolutions of stride 2 and one hidden layer (Wong, Rice, Kolter 2020)."""
    assert isinstance(options, Cnn)
    first, second = options.channels
    front = nn.Sequential(
        nn.Conv2d(shape[0], first, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, second, 4, stride=2, padding=1),
        nn.ReLU(),
    )
    flat = size(tuple(front(torch.zeros(1, *shape)).shape[1:]))
    return nn.Sequential(
        *front,
        nn.Flatten(),
        nn.Linear(flat, options.hidden),
        nn.ReLU(),
        nn.Linear(options.hidden, classes),
    )
