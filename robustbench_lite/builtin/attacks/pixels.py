"""Pixels as the l0 budget counts them: a position of an image with all its channels."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

from robustbench_lite import Box, PluginError

if TYPE_CHECKING:
    from torch import Tensor

MAX_CHANNELS = 12  # 4,096 corners for every pixel


def pixel_grid(shape: tuple[int, ...]) -> tuple[int, int]:
    """Channels c and positions p of one sample: an image [c, h, w] has h * w pixels.

    Any other shape has as many pixels of one channel as components.
    """
    if len(shape) == 3:
        return shape[0], shape[1] * shape[2]
    return 1, math.prod(shape)


def as_pixels(x: Tensor) -> Tensor:
    """x: [n, *shape] -> [n, c, p], shared memory where x is contiguous."""
    return x.reshape(x.shape[0], *pixel_grid(tuple(x.shape[1:])))


def painted(x: Tensor, rows: Tensor | None, position: Tensor, colour: Tensor) -> Tensor:
    """Copies of the samples `rows` of x (None: of all) with some pixels set, [m, *shape].

    position: int64 [m, k], places in 0..p-1. colour: [m, c, k].
    """
    copies = x.clone() if rows is None else x.index_select(0, rows)
    pixels = as_pixels(copies)
    pixels.scatter_(2, position.unsqueeze(1).expand(-1, pixels.shape[1], -1), colour)
    return pixels.view_as(copies)


def corners(channels: int, box: Box, like: Tensor) -> Tensor:
    """The 2^c corner values of a pixel, [2^c, c] with `like`'s dtype and device.

    They count upwards in binary, `low` being 0 and the first channel the most significant digit.
    """
    if channels > MAX_CHANNELS:
        raise PluginError(
            f"single-pixel: {channels} channels make 2^{channels} corner values for each pixel; it "
            f"takes at most {MAX_CHANNELS} channels: use a search that samples them"
        )
    return like.new_tensor(list(product((box.low, box.high), repeat=channels)))
