"""Windows of an image that are drawn per sample, and the schedule of their size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from .ball import put

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SCHEDULE_LENGTH = 10_000
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of a sample: [c, h, w]; [h, w] has one channel.

    Any other shape is a strip of one row and one channel.
    """
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    return 1, 1, math.prod(shape)


def as_images(x: Tensor) -> Tensor:
    """x: [n, *shape] -> [n, c, h, w], shared memory where x is contiguous."""
    return x.reshape(x.shape[0], *image_shape(tuple(x.shape[1:])))


def share(move: int, moves: int, initial: float, *, rescaled: bool) -> float:
    """Share of the image that window number `move` (from 0) of `moves` covers.

    It starts at `initial` and halves after the paper's numbers of queries, which are meant for
    10,000 queries; `rescaled` stretches them to `moves`.
    """
    place = move * SCHEDULE_LENGTH // moves if rescaled else move
    halvings = sum(place > after for after in HALVED_AFTER)
    return initial * 0.5**halvings


def window_size(covered: float, height: int, width: int) -> tuple[int, int]:
    """Height and width of a window over the share `covered` of the image, a square if that fits.

    At least one pixel. Where the square is higher or wider than the image it gets longer instead.
    """
    area = covered * height * width
    side = math.sqrt(area)
    if min(height, width) < side:
        short = min(height, width)
        long = _at_least_one(area / short)
        return (short, long) if height < width else (long, short)
    return _at_least_one(side), _at_least_one(side)


def corners(chances: Tensor, sizes: Sequence[tuple[int, int]], height: int, width: int) -> Tensor:
    """Flat positions of windows' upper left pixels, drawn uniformly: int64 [n, moves].

    chances: float32 [n, moves, 2] in [0, 1), for windows of `sizes` (one per move).
    """
    room = chances.new_tensor([(height - high + 1, width - wide + 1) for high, wide in sizes])
    top, left = (chances * room).long().unbind(dim=2)
    return top * width + left


@lru_cache(maxsize=64)  # a search has one window size for hundreds of moves
def offsets(size: tuple[int, int], shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Flat positions of a window of `size` from its upper left pixel, int64 [c * size].

    `shape`: of the image, channels, height and width; channel by channel, row by row.
    """
    import torch

    channels, rows, columns = (torch.arange(length) for length in (shape[0], *size))
    plane = rows[:, None] * shape[2] + columns
    return (channels[:, None, None] * (shape[1] * shape[2]) + plane).flatten().to(device)


@dataclass(frozen=True, slots=True)
class Anew:
    """A move whose `point` [m, c, h, w] has memory of its own; that of `best` is written to."""

    point: Tensor
    best: Tensor

    def settled(self, better: Tensor) -> Tensor:
        """The best points, those rows replaced by the point's that are `better` (bool [m])."""
        return put(better, self.point, self.best)


def _at_least_one(length: float) -> int:
    return max(1, round(length))
