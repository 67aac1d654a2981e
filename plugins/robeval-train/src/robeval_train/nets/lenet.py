"""LeNet-5 with ReLU and max pooling (LeCun, Bottou, Bengio, Haffner 1998)."""

from __future__ import annotations

import torch
from torch import nn

from . import Shape, size
from .options import Net


def build(options: Net, shape: Shape, classes: int) -> nn.Module:  # noqa: ARG001  (it has none)
    """Two 5 x 5 convolutions with pooling, then 120 and 84 hidden units."""
    front = nn.Sequential(
        nn.Conv2d(shape[0], 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    flat = size(tuple(front(torch.zeros(1, *shape)).shape[1:]))
    return nn.Sequential(
        *front,
        nn.Flatten(),
        nn.Linear(flat, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )
