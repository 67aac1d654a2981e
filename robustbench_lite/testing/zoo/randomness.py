"""Members that answer the same input differently each time, in evaluation mode too.

They draw from torch's global random state, as the deployed mistakes do.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from .nets import SIDE, convolutional, frozen, undefended

DROPPED = 0.2
NOISE_SD = 0.1
SMALLEST_SIDE = 26


class AlwaysDropout(nn.Module):
    """`functional.dropout` without `training=self.training`: its default is to drop."""

    def __init__(self, dropped: float) -> None:
        super().__init__()
        self.dropped = dropped

    def forward(self, h: Tensor) -> Tensor:
        """h of any shape -> the same shape."""
        return nn.functional.dropout(h, self.dropped)


class GaussianNoise(nn.Module):
    """Adds normal noise to the input."""

    def __init__(self, sd: float) -> None:
        super().__init__()
        self.sd = sd

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return x + self.sd * torch.randn_like(x)


class RandomResize(nn.Module):
    """Shrinks every image by its own random factor and puts it at its own random place.

    Xie et al., "Mitigating adversarial effects through randomization", ICLR 2018, with bilinear
    sampling at any real factor from `smallest` / side to 1.
    """

    def __init__(self, side: int, smallest: int) -> None:
        super().__init__()
        self.excess = side / smallest - 1
        centres = (2 * torch.arange(side) + 1) / side - 1
        down, right = torch.meshgrid(centres, centres, indexing="ij")
        self.places: Tensor
        self.register_buffer("places", torch.stack([right, down], dim=2))

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, c, side, side] -> the same shape."""
        draws = torch.rand_like(x[:, 0, 0, :3])
        excess = self.excess * draws[:, :1]
        shift = excess * (2 * draws[:, 1:] - 1)
        grid = self.places * (1 + excess)[:, :, None, None] + shift[:, None, None, :]
        return nn.functional.grid_sample(x, grid, mode="bilinear", align_corners=False)


def dropout_on() -> nn.Module:
    """A fifth of the hidden units dropped, in evaluation mode too."""
    layers: list[nn.Module] = []
    for layer in undefended():
        layers.append(layer)
        if isinstance(layer, nn.ReLU):
            layers.append(AlwaysDropout(DROPPED))
    return frozen(nn.Sequential(*layers))


def gaussian_noise() -> nn.Module:
    """Normal noise of standard deviation 0.1 on every input."""
    return frozen(nn.Sequential(OrderedDict(noise=GaussianNoise(NOISE_SD), net=undefended())))


def random_resizing() -> nn.Module:
    """Images shrunk to a side of 26 to 28 pixels and moved, each at random."""
    steps = OrderedDict(resize=RandomResize(SIDE, SMALLEST_SIDE), net=convolutional())
    return frozen(nn.Sequential(steps))
