"""Members whose gradient is NaN, exactly zero, or of another function than the network's.

Every one is accurate, and its robust accuracy at linf 0.3 is 0: only the gradient is broken. The
step that breaks it is a submodule of the name given, which `bpda: {name: identity}` passes.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from .nets import digits, frozen, ridge, undefended

LEVELS = 4
SIGN_PENALTY = 100.0
SIGN_SCALE = 4.0
WINNERS = 32
BLOCK = 8
PADDING = 2  # 28 -> 32, whole blocks
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantisation steps of JPEG at quality 50 (ITU-T T.81, table K.1)."""


class BoxGuard(nn.Module):
    """Fades what lies outside [0, 1]; the derivative of its root at 0 is infinite, times 0 is NaN.

    Inside the box the value is the input's, bit for bit.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, c, h, w] -> x * (1 - its distance to the box), the same shape."""
        distance = (x - x.clamp(0, 1)).square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        return x * (1 - distance)


class Quantise(nn.Module):
    """Rounds to multiples of 1 / `levels`; the derivative is zero."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return (x * self.levels).round() / self.levels


class Sign(nn.Module):
    """An activation of -1, 0 and 1; the derivative is zero."""

    def forward(self, h: Tensor) -> Tensor:
        """h of any shape -> the same shape."""
        return h.sign()


class KWinners(nn.Module):
    """Keeps the k largest activations of a row and sets the others to zero.

    Xiao, Zhong and Zheng, "Enhancing adversarial defense by k-winners-take-all", ICLR 2020.
    """

    def __init__(self, winners: int) -> None:
        super().__init__()
        self.winners = winners

    def forward(self, h: Tensor) -> Tensor:
        """h: [n, d] -> the same shape."""
        least = h.topk(self.winners, dim=1).values[:, -1:]
        return torch.where(h >= least, h, torch.zeros_like(h))


class Jpeg(nn.Module):
    """The lossy part of JPEG on 28 x 28 grey images: 8 x 8 cosine blocks, rounded to steps."""

    def __init__(self) -> None:
        super().__init__()
        place = torch.arange(BLOCK, dtype=torch.float32)
        waves = torch.cos((2 * place[None] + 1) * place[:, None] * (math.pi / (2 * BLOCK)))
        waves *= math.sqrt(2 / BLOCK)
        waves[0] /= math.sqrt(2)
        self.waves: Tensor
        self.steps: Tensor
        self.register_buffer("waves", waves)
        self.register_buffer("steps", torch.tensor(LUMINANCE, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, 1, 28, 28] in [0, 1] -> the same shape and range."""
        levels = nn.functional.pad(x, (PADDING,) * 4) * 255 - 128
        side = levels.shape[-1]
        count = side // BLOCK
        blocks = levels.reshape(-1, count, BLOCK, count, BLOCK).permute(0, 1, 3, 2, 4)
        rounded = (self.waves @ blocks @ self.waves.T / self.steps).round() * self.steps
        back = (self.waves.T @ rounded @ self.waves).permute(0, 1, 3, 2, 4)
        image = (back.reshape(-1, 1, side, side) + 128) / 255
        return image.clamp(0, 1)[:, :, PADDING:-PADDING, PADDING:-PADDING]


def nan_gradient() -> nn.Module:
    """Finite logits, and NaN in every component of the gradient; the step `guard`."""
    return _behind("guard", BoxGuard())


def quantised_input() -> nn.Module:
    """Five grey levels: the gradient is exactly zero; the step `quantise`."""
    return _behind("quantise", Quantise(LEVELS))


def jpeg_input() -> nn.Module:
    """Blocks of cosines rounded as JPEG does: the gradient is exactly zero; the step `jpeg`."""
    return _behind("jpeg", Jpeg())


def sign_activations() -> nn.Module:
    """The first layer's signs, read by a layer fitted to the digits; the step `signs`."""
    network = undefended()
    flatten, first = network[0], network[1]
    x, y = digits()
    with torch.no_grad():
        features = first(flatten(x)).sign()
    readout = ridge(features, y, SIGN_PENALTY, SIGN_SCALE)
    steps = OrderedDict(flatten=flatten, first=first, signs=Sign(), readout=readout)
    return frozen(nn.Sequential(steps))


def k_winners() -> nn.Module:
    """k-winners-take-all instead of ReLU: logits jump wherever the winners change."""
    layers = (KWinners(WINNERS) if isinstance(part, nn.ReLU) else part for part in undefended())
    return frozen(nn.Sequential(*layers))


def _behind(name: str, step: nn.Module) -> nn.Module:
    return frozen(nn.Sequential(OrderedDict([(name, step), ("net", undefended())])))
