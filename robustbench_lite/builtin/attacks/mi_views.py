"""How the transfer options see an image: shrunk within its frame, and with a smooth gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_lite import Box, PluginError

from .square_windows import as_images

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_SIDE = 0.9  # of the image, after shrinking
KERNEL_REACH = 3.0  # standard deviations from the kernel's centre to its edge


@dataclass(frozen=True, slots=True)
class Shrinking:
    """Every image resized and padded to its old size: `rows` [n, h, h], `columns` [n, w, w].

    Both are matrices of linear interpolation, the identity for an image that stays as it is.
    """

    rows: Tensor
    columns: Tensor

    def seen(self, x: Tensor, box: Box) -> Tensor:
        """The images x [n, *shape] after it, padded with the lower end of the box."""
        images = as_images(x) - box.low
        moved = self.rows[:, None] @ images @ self.columns[:, None].mT
        return (moved + box.low).clamp(box.low, box.high).view_as(x)

    def pulled_back(self, grad: Tensor) -> Tensor:
        """The gradient at x of a loss whose gradient at `seen(x)` is `grad` [n, *shape]."""
        images = as_images(grad)
        return (self.rows[:, None].mT @ images @ self.columns[:, None]).view_as(grad)


def shrinking(chance: Tensor, probability: float, x: Tensor) -> Shrinking:
    """A random one for each row of x [n, *shape]; chance: float32 [n, 4], uniform in [0, 1).

    With the given probability an image is shrunk, to between 9 tenths of its sides and all of
    them, and lands anywhere in its old frame.
    """
    height, width = as_images(x).shape[2:]
    stays = chance[:, 0] >= probability
    rows = _interpolation(height, chance[:, 1], chance[:, 2], stays)
    return Shrinking(rows, _interpolation(width, chance[:, 1], chance[:, 3], stays))


def smoothed(grad: Tensor, side: int) -> Tensor:
    """`grad` [n, *shape] convolved with a Gaussian of `side` pixels, 3 deviations to its edge."""
    import torch
    from torch.nn import functional

    images = as_images(grad)
    place = torch.linspace(-KERNEL_REACH, KERNEL_REACH, side, device=grad.device)
    bell = (-place.square() / 2).exp()
    bell /= bell.sum()
    planes = images.flatten(0, 1)[:, None]
    planes = functional.conv2d(planes, bell.view(1, 1, -1, 1), padding=(side // 2, 0))
    planes = functional.conv2d(planes, bell.view(1, 1, 1, -1), padding=(0, side // 2))
    return planes.view_as(grad)


def need_images(option: str, shape: tuple[int, ...]) -> None:
    """Raise PluginError where a sample is no image [c, h, w] or [h, w]."""
    if len(shape) not in {2, 3}:
        raise PluginError(
            f"mi-fgsm: {option} sees samples as images; expected shape [c, h, w] or [h, w], found "
            f"{list(shape)}: leave {option} out"
        )


def _interpolation(side: int, size: Tensor, place: Tensor, stays: Tensor) -> Tensor:
    """Matrices [n, side, side] from old to new positions; size, place: float32 [n] in [0, 1)."""
    import torch

    smallest = math.ceil(SMALLEST_SIDE * side)
    length = (smallest + (size * (side - smallest + 1)).floor()).masked_fill(stays, side)
    offset = (place * (side - length + 1)).floor()
    positions = torch.arange(side, device=size.device, dtype=size.dtype)
    inside = positions - offset[:, None]
    source = ((inside + 0.5) * (side / length[:, None]) - 0.5).clamp(0, side - 1)
    weight = (1 - (source[:, :, None] - positions).abs()).clamp_min(0.0)
    covered = (inside >= 0) & (inside < length[:, None])
    return weight * covered[:, :, None]
