"""The moves of Square under linf: stripes, then windows of one colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_lite import Box, Budget

from .square_windows import corners, offsets, window_size

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng


def stripes(x: Tensor, budget: Budget, rng: SampleRng) -> Tensor:
    """`x` [n, c, h, w] with every column of every channel at +eps or -eps, in the box."""
    from robustbench_lite import norms

    _, c, _, w = x.shape
    return norms.clip(x + budget.eps * rng.sign((c, 1, w)), x, budget)


@dataclass(frozen=True, slots=True)
class Patch:
    """A move that stands in the memory of the best points until it is settled.

    `point`: [n, c, h, w]. `places`: flat positions in a sample, int64 [n, p], with the values
    `old` and `new` [n, p]. Nothing outside the window is read or written: windows soon cover a few
    pixels, and a pass over whole images would cost as much as a small network.
    """

    point: Tensor
    places: Tensor
    old: Tensor
    new: Tensor

    def settled(self, better: Tensor) -> Tensor:
        """The best points: the window's old values come back where it is not `better`."""
        values = self.new.where(better[:, None], self.old)
        self.point.view(better.shape[0], -1).scatter_(1, self.places, values)
        return self.point


@dataclass(frozen=True, slots=True)
class Colours:
    """Moves drawn ahead: a random window each, at +eps or -eps by a fair coin per channel.

    On a point whose components stand at +-eps this is the paper's step of +-2 eps, projected.
    Where the coins would change nothing all of them are turned: a query is never spent on a point
    known already.

    `corners`: flat position of each window's upper left pixel, int64 [n, moves]. `steps`: eps or
    -eps, [n, moves, c]. `sizes`: height and width of each move's window.
    """

    box: Box
    corners: Tensor
    steps: Tensor
    sizes: Sequence[tuple[int, int]]

    def of(self, index: Tensor) -> Colours:
        """The moves of the samples `index` (int64 [m])."""
        return Colours(
            self.box,
            self.corners.index_select(0, index),
            self.steps.index_select(0, index),
            self.sizes,
        )

    def tried(self, number: int, x: Tensor, best: Tensor) -> Patch:
        """Move `number` on `best` [n, c, h, w], in its memory."""
        n, c, h, w = best.shape
        places = self.corners[:, number, None] + offsets(self.sizes[number], (c, h, w), best.device)
        flat, step = best.view(n, -1), self.steps[:, number]
        clean, old = x.view(n, -1).gather(1, places), flat.gather(1, places)
        idle = (self._coloured(clean, step) == old).all(dim=1, keepdim=True)
        new = self._coloured(clean, (-step).where(idle, step))
        flat.scatter_(1, places, new)
        return Patch(best, places, old, new)

    def _coloured(self, clean: Tensor, step: Tensor) -> Tensor:
        """clean [n, c * p] plus step [n, c] in the box."""
        n, c = step.shape
        moved = clean.view(n, c, -1) + step[:, :, None]
        return moved.clamp_(self.box.low, self.box.high).view(n, -1)


def colours(
    chances: Tensor,
    covered: Sequence[float],
    x: Tensor,
    best: Tensor,  # noqa: ARG001  (under l2 it says what is spent)
    *,
    budget: Budget,
) -> Colours:
    """A move for each share of the image in `covered`.

    chances: float32 [n, moves, 2 + c or more] in [0, 1). x, best: [n, c, h, w].
    """
    _, c, h, w = x.shape
    sizes = [window_size(share, h, w) for share in covered]
    up = chances[:, :, 2 : 2 + c] < 1 / 2
    steps = budget.eps * (2 * up.to(x.dtype) - 1)
    return Colours(budget.box, corners(chances[:, :, :2], sizes, h, w), steps, sizes)
