"""The moves of Square under l2: bumps on a grid, then budget moved from window to window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from robustbench_lite import Budget

from .square_windows import corners, offsets, window_size

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
    tile = _drawn(high, wide, x.dtype, x.device)[0].view(high, wide)
    signs = rng.sign((c, down, across))
    grid = signs.repeat_interleave(high, dim=2).repeat_interleave(wide, dim=3)
    delta = x.new_zeros(x.shape)
    delta[:, :, top : top + down * high, left : left + across * wide] = grid * tile.repeat(
        down, across
    )
    scale = budget.eps * INWARDS / _squared_length(delta).sqrt().clamp_min(TINY)
    moved = x.addcmul(delta, scale[:, None, None, None])
    return moved.clamp_(budget.box.low, budget.box.high)


@dataclass(frozen=True, slots=True)
class Window:
    """Where a window lies in each sample, int64 [n, c * p], and the values there."""

    places: Tensor
    clean: Tensor
    old: Tensor

    @classmethod
    def of(cls, places: Tensor, x: Tensor, best: Tensor) -> Window:
        """x, best: [n, c * h * w]."""
        return cls(places, x.gather(1, places), best.gather(1, places))

    @property
    def delta(self) -> Tensor:
        """The old perturbation, [n, c * p]."""
        return self.old - self.clean


@dataclass(frozen=True, slots=True)
class Shift:
    """A move that stands in the memory of the best points until it is settled.

    `point`: [n, c, h, w]. `first`, `second`: its windows; they may overlap, and `second` was read
    when the first had its clean values. `new`: values of the first, [n, c * p]. `spent`: squared
    length of the best points, written to when the move is settled. `change`: what is added to it.
    """

    point: Tensor
    first: Window
    second: Window
    new: Tensor
    spent: Tensor
    change: Tensor

    def settled(self, better: Tensor) -> Tensor:
        """The best points: both windows get their old values where it is not `better`."""
        flat, mask = self.point.view(better.shape[0], -1), better[:, None]
        second, first = self.second, self.first
        flat.scatter_(1, second.places, second.clean.where(mask, second.old))
        flat.scatter_(1, first.places, self.new.where(mask, first.old))
        self.spent.addcmul_(self.change, better.to(self.change.dtype))
        return self.point


@dataclass(frozen=True, slots=True)
class Shifts:
    """Moves drawn ahead: budget taken from two windows and spent in the first of them.

    `first`, `second`: flat position of the windows' upper left pixels, int64 [n, moves]. `kinds`:
    rows of the table of bumps, int64 [n, moves, c]. `sizes`: height and width of each move's
    windows. `spent`: squared length of the best points' perturbation, [n]; a move changes it by
    what its windows held, so that nothing outside them is read.
    """

    budget: Budget
    first: Tensor
    second: Tensor
    kinds: Tensor
    sizes: Sequence[tuple[int, int]]
    spent: Tensor

    def of(self, index: Tensor) -> Shifts:
        """The moves of the samples `index` (int64 [m])."""
        first, second, kinds, spent = (
            values.index_select(0, index)
            for values in (self.first, self.second, self.kinds, self.spent)
        )
        return Shifts(self.budget, first, second, kinds, self.sizes, spent)

    def tried(self, number: int, x: Tensor, best: Tensor) -> Shift:
        """Move `number` on `best` [n, c, h, w], in its memory (the paper's algorithm 3).

        The first window gets its old direction plus a bump of random sign and the length of both
        windows and of what was left, the second one gets the clean values.
        """
        n, c, h, w = best.shape
        size = self.sizes[number]
        window = offsets(size, (c, h, w), best.device)
        clean, flat = x.view(n, -1), best.view(n, -1)
        first = Window.of(self.first[:, number, None] + window, clean, flat)
        flat.scatter_(1, first.places, first.clean)
        second = Window.of(self.second[:, number, None] + window, clean, flat)
        flat.scatter_(1, second.places, second.clean)

        inside = first.delta.view(n, c, -1)
        held = inside.square().sum(2, keepdim=True)
        taken = held + second.delta.view(n, c, -1).square().sum(2, keepdim=True)
        unspent = ((self.budget.eps * INWARDS) ** 2 - self.spent).clamp_min_(0.0)
        length = (taken + unspent[:, None, None] / c).sqrt_()
        bump = _drawn(*size, best.dtype, best.device)[self.kinds[:, number]]
        direction = bump.addcmul_(inside, held.sqrt_().clamp_min_(TINY).reciprocal_())
        unit = direction.square().sum(2, keepdim=True).sqrt_().clamp_min_(TINY)
        new = first.clean.view(n, c, -1).addcmul(direction, length.div_(unit))
        new = new.clamp_(self.budget.box.low, self.budget.box.high).view(n, -1)
        flat.scatter_(1, first.places, new)
        change = _squared_length(new - first.clean) - taken.sum((1, 2))
        return Shift(best, first, second, new, self.spent, change)


def shifts(
    chances: Tensor, covered: Sequence[float], x: Tensor, best: Tensor, *, budget: Budget
) -> Shifts:
    """A move for each share of the image in `covered`.

    chances: float32 [n, moves, 5 + c] in [0, 1). x, best: [n, c, h, w].
    """
    _, c, h, w = x.shape
    sizes = [_odd(window_size(share, h, w), h, w) for share in covered]
    up, across = chances[:, :, 2 : 2 + c] < 1 / 2, chances[:, :, 4 + c, None] < 1 / 2
    return Shifts(
        budget,
        corners(chances[:, :, :2], sizes, h, w),
        corners(chances[:, :, 2 + c : 4 + c], sizes, h, w),
        2 * across.long() + (~up).long(),
        sizes,
        _squared_length(best - x),
    )


def _squared_length(delta: Tensor) -> Tensor:
    """The squared l2 norm of delta [n, ...], [n]."""
    return delta.flatten(1).square().sum(1)


def _odd(size: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """The next odd sides of at least 3, as far as the image reaches."""
    high, wide = (max(SMALLEST_SIDE, side + (side + 1) % 2) for side in size)
    return min(high, height), min(wide, width)


@lru_cache(maxsize=64)  # a search has a window size for hundreds of moves
def _drawn(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Bumps of a window [4, height * width]: upright, its negative, lying, its negative."""
    import torch

    upright, lying = _two_halves(height, width), _two_halves(width, height).T
    table = torch.stack((upright, -upright, lying, -lying)).flatten(1)
    return table.to(device=device, dtype=dtype)


def _two_halves(height: int, width: int) -> Tensor:
    """A bump and, below it, its negative: [height, width] of l2 norm 1 (the paper's eta)."""
    import torch

    upper = height // 2
    both = torch.cat((_bump(upper, width), -_bump(height - upper, width)))
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
