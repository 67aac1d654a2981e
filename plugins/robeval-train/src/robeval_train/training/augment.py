"""Flips and shifts: training images that are new in every epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite import Box, ModelError

from .options import Augment


def augmented(options: Augment, x: Tensor, box: Box, rng: torch.Generator) -> Tensor:
    """Each image of x [n, c, h, w] flipped left to right with chance 1/2, then shifted.

    The shift is a whole number of pixels, uniform in [-shift, shift] and drawn for each direction.
    What comes in from outside is 0, or what the box has nearest to it. `rng` is on the CPU, so that
    the draws are the same on every device.
    """
    n, _, height, width = x.shape
    flipped = torch.rand(n, generator=rng) < 0.5
    down, right = torch.randint(-options.shift, options.shift + 1, (2, n, 1), generator=rng)
    rows = torch.arange(height) - down
    columns = torch.arange(width) - right
    seen = _inside(rows, height)[:, :, None] & _inside(columns, width)[:, None, :]
    if options.flip:
        columns = torch.where(flipped[:, None], width - 1 - columns, columns)
    rows, columns, seen = (each.to(x.device) for each in (rows, columns, seen))
    image = torch.arange(n, device=x.device)[:, None, None]
    found = x.permute(0, 2, 3, 1)[
        image, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    ].permute(0, 3, 1, 2)
    return torch.where(seen[:, None], found, min(max(0.0, box.low), box.high))


def check(options: Augment, shape: tuple[int, ...]) -> None:
    """Raise ModelError where samples of `shape` cannot be flipped or shifted like that."""
    if not options.flip and not options.shift:
        return
    if len(shape) != 3:
        raise ModelError(
            f"augment: flips and shifts need images [channels, height, width], the samples are"
            f" {list(shape)}"
        )
    if options.shift >= min(shape[1:]):
        raise ModelError(
            f"augment: a shift of {options.shift} moves images of {shape[1]} x {shape[2]} pixels"
            " out of sight"
        )


def _inside(places: Tensor, size: int) -> Tensor:
    return (places >= 0) & (places < size)
