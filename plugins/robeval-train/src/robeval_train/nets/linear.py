"""Softmax and logistic regression, started at zero: training them is a convex problem."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import Shape, size
from .options import Logistic, Net


class TwoScores(nn.Module):
    """One score z as the scores (0, z) of two classes: their softmax is the logistic function."""

    def forward(self, z: Tensor) -> Tensor:
        """[n, 1] -> [n, 2]."""
        return torch.cat([torch.zeros_like(z), z], dim=1)


def build(options: Net, shape: Shape, classes: int) -> nn.Module:
    """A linear layer on the flat sample; `logistic` takes exactly two classes."""
    two = isinstance(options, Logistic)
    if two and classes != 2:
        raise ValueError(f"logistic regression needs two classes, the data have {classes}")
    linear = nn.Linear(size(shape), 1 if two else classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Flatten(), linear, *([TwoScores()] if two else []))
