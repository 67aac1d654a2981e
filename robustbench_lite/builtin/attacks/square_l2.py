"""The moves of Square under l2: bumps on a grid, then budget moved from window to window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from robustbench_lite import Budget

from .square_windows import Anew, places, window_size

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robustbench_lite import SampleRng

TILES = 5  # per side
SMALLEST_SIDE = 3
TINY = 1e-12  # keeps the direction of an all-zero window finite
INWARDS = 1 - 1e-6  # what rounding in float32 may add to the length again


def bumps(x: Tensor, budget: Budget, rng: SampleRng) -> Tensor:
    """`x` [n, c, h, w] plus a 5x5 grid of bumps of random sign, of length eps, in the box."""
    _, c, h, w = x.shape
    high, wide = max(1, h // TILES), max(1, w // TILES)
    down, across = h // high, w // wide
    top, left = (h - down * high) // 2, (w - across * wide) // 2
    tile = _two_halves(high, wide, x)
    signs = rng.sign((c, down, across))
    grid = signs.repeat_interleave(high, dim=2).repeat_interleave(wide, dim=3)
    delta = x.new_zeros(x.shape)
    delta[:, :, top : top + down * high, left : left + across * wide] = grid * tile.repeat(
        down, across
    )
    return _of_length_eps(x, delta.flatten(2), budget)


@dataclass(frozen=True, slots=True)
class Shifts:
    """Moves drawn ahead: budget taken from two windows and spent in the first of them.

    `chances`: float32 [n, moves, 5 + c] in [0, 1). `covered`: share of the image, for each move.
    """

    budget: Budget
    chances: Tensor
    covered: Sequence[float]

    def of(self, index: Tensor) -> Shifts:
        """The moves of the samples `index` (int64 [m])."""
        return Shifts(self.budget, self.chances.index_select(0, index), self.covered)

    def tried(self, number: int, x: Tensor, best: Tensor) -> Anew:
        """Move `number` on `best` [n, c, h, w]."""
        chance = self.chances[:, number]
        return Anew(_shifted(x, best, chance, self.covered[number], self.budget), best)


def shifts(
    chances: Tensor,
    covered: Sequence[float],
    x: Tensor,  # noqa: ARG001  (the windows of linf are drawn for its size)
    *,
    budget: Budget,
) -> Shifts:
    """A move for each share of the image in `covered`; chances: float32 [n, moves, 5 + c]."""
    return Shifts(budget, chances, covered)


def _shifted(x: Tensor, best: Tensor, chance: Tensor, covered: float, budget: Budget) -> Tensor:
    """`best` with the budget of two random windows, and what is left, spent in the first of them.

    The first window gets its old direction plus a bump of random sign, the second one the clean
    values; the whole is brought to length eps and into the box (the paper's algorithm 3).

    x, best: [n, c, h, w]. chance: float32 [n, 5 + c] in [0, 1). covered: share of the image.
    """
    _, c, h, w = x.shape
    size = _odd(window_size(covered, h, w), h, w)
    delta = (best - x).flatten(2)
    spent = _length(delta).square()
    first, second = (
        places(part, size, h, w)[:, None].expand(-1, c, -1)
        for part in (chance[:, :2], chance[:, 2 + c : 4 + c])
    )
    inside = delta.gather(2, first)
    delta.scatter_(2, first, 0.0)  # in place: a copy of the images for each would cost the most
    taken = inside.square().sum(2, keepdim=True) + delta.gather(2, second).square().sum(
        2, keepdim=True
    )
    unspent = (budget.eps**2 - spent).clamp_min(0.0)
    across = chance[:, 4 + c, None, None] < 1 / 2
    bump = _two_halves(size[1], size[0], x).T.where(across, _two_halves(*size, x))
    signs = (chance[:, 2 : 2 + c, None] < 1 / 2).to(x.dtype) * 2 - 1
    direction = _unit(inside) + signs * bump.flatten(1)[:, None]
    new = _unit(direction) * (taken + unspent / c).sqrt()
    delta.scatter_(2, second, 0.0).scatter_(2, first, new)
    return _of_length_eps(x, delta, budget)


def _of_length_eps(x: Tensor, delta: Tensor, budget: Budget) -> Tensor:
    """x [n, c, h, w] + delta [n, c, h * w] lengthened or shortened to eps, in the box."""
    scale = budget.eps * INWARDS / _length(delta).clamp_min(TINY)
    moved = x.flatten(2).addcmul(delta, scale)
    return moved.clamp_(budget.box.low, budget.box.high).view_as(x)


def _length(delta: Tensor) -> Tensor:
    """The l2 norm of delta [n, c, p], [n, 1, 1]."""
    import torch

    length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return length[:, None, None]


def _unit(window: Tensor) -> Tensor:
    """window [n, c, p] divided by the l2 norm of each channel; 0 stays 0."""
    return window / window.square().sum(2, keepdim=True).sqrt().clamp_min(TINY)


def _odd(size: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """The next odd sides of at least 3, as far as the image reaches."""
    high, wide = (max(SMALLEST_SIDE, side + (side + 1) % 2) for side in size)
    return min(high, height), min(wide, width)


def _two_halves(height: int, width: int, like: Tensor) -> Tensor:
    """A bump and, below it, its negative: [height, width] of l2 norm 1 (the paper's eta)."""
    return _drawn(height, width, like.dtype, like.device)


@lru_cache(maxsize=64)  # a search has a window size for hundreds of moves
def _drawn(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    import torch

    upper = height // 2
    parts = (_bump(upper, width), -_bump(height - upper, width))
    both = torch.cat(parts).to(device=device, dtype=dtype)
    return both / both.square().sum().sqrt()


def _bump(height: int, width: int) -> Tensor:
    """Frames around the middle [height, width]; frame j from the middle adds 1 / (j + 1)^2.

    It adds to all that lies in it, so that the middle is the top (the paper's equation 2).
    """
    import torch

    rows, columns = ((torch.arange(side) - side // 2).abs() for side in (height, width))
    frame = torch.maximum(rows[:, None], columns)
    outermost = max(height, width) // 2
    heights = [
        math.fsum(1 / (j + 1) ** 2 for j in range(inner, outermost + 1))
        for inner in range(outermost + 1)
    ]
    return torch.tensor(heights, dtype=torch.float64)[frame]
