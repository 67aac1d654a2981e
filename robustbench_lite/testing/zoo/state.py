"""Members whose answer to a sample depends on the samples beside it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Self

import torch
from torch import Tensor, nn

from .nets import convolutional, digits, frozen, undefended

MEAN_BRIGHTNESS = 0.13  # of the digits
DARKEST = 1e-6


class TrainingBatchNorm(nn.BatchNorm2d):
    """Batch normalisation that stays in training mode whatever it is told."""

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002  (torch's own)
        """Set training mode, always."""
        return super().train(mode=True)


class BatchBrightness(nn.Module):
    """Scales a batch so that the mean of all its pixels is that of the digits."""

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, *shape] -> the same shape."""
        return x * (MEAN_BRIGHTNESS / x.mean().clamp_min(DARKEST))


def batch_norm_training() -> nn.Module:
    """Batch normalisation after both convolutions, in training mode for ever.

    Its scale and shift undo the normalisation by the statistics of all embedded digits, so that in
    evaluation mode the network would be the embedded one.
    """
    layers: list[nn.Module] = []
    h, _ = digits()
    with torch.no_grad():
        for layer in convolutional():
            h = layer(h)
            layers.append(layer)
            if isinstance(layer, nn.Conv2d):
                layers.append(_neutral(h))
    return frozen(nn.Sequential(*layers))


def batch_brightness() -> nn.Module:
    """Brightness normalised by the batch, not by the image."""
    steps = OrderedDict(normalise=BatchBrightness(), net=undefended())
    return frozen(nn.Sequential(steps))


def _neutral(h: Tensor) -> TrainingBatchNorm:
    """The normalisation that changes nothing where the statistics are those of h [n, c, h, w]."""
    norm = TrainingBatchNorm(h.shape[1])
    mean, variance = h.mean(dim=(0, 2, 3)), h.var(dim=(0, 2, 3), unbiased=False)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean)
    return norm
