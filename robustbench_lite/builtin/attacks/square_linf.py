"""The moves of Square under linf: stripes, then windows of one colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_lite import Box, Budget

from .square_windows import stretches, window_size

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng


def stripes(x: Tensor, budget: Budget, rng: SampleRng) -> Tensor:
    """`x` [n, c, h, w] with every column of every channel at +eps or -eps, in the box."""
    from robustbench_lite import norms

    _, c, _, w = x.shape
    return norms.clip(x + budget.eps * rng.sign((c, 1, w)), x, budget)


@dataclass(frozen=True, slots=True)
class Colours:
    """Moves drawn ahead: a random window each, at +eps or -eps by a fair coin per channel.

    On a point whose components stand at +-eps this is the paper's step of +-2 eps, projected.
    Where the coins would change nothing all of them are turned: a query is never spent on a point
    known already.

    `rows`, `columns`: 1 inside the window, float32 [n, moves, h] and [n, moves, w]. `steps`: eps
    or -eps, [n, moves, c].
    """

    box: Box
    rows: Tensor
    columns: Tensor
    steps: Tensor

    def of(self, index: Tensor) -> Colours:
        """The moves of the samples `index` (int64 [m])."""
        return Colours(self.box, self.rows[index], self.columns[index], self.steps[index])

    def moved(self, number: int, x: Tensor, best: Tensor) -> Tensor:
        """`best` [n, c, h, w] after move `number`."""
        inside = self.rows[:, number, None, :, None] * self.columns[:, number, None, None, :]
        step = self.steps[:, number, :, None, None]
        point = self._coloured(x, best, inside, step)
        idle = (point == best).flatten(1).all(dim=1)
        if point.device.type != "cpu":  # where asking whether there is any would cost more
            return self._coloured(x, best, inside, step.where(~idle[:, None, None, None], -step))
        rows = idle.nonzero().squeeze(1)
        if not rows.shape[0]:
            return point
        turned = self._coloured(x[rows], best[rows], inside[rows], -step[rows])
        return point.index_copy_(0, rows, turned)

    def _coloured(self, x: Tensor, best: Tensor, inside: Tensor, step: Tensor) -> Tensor:
        return best.lerp((x + step).clamp_(self.box.low, self.box.high), inside)


def colours(chances: Tensor, covered: Sequence[float], x: Tensor, *, budget: Budget) -> Colours:
    """A move for each share of the image in `covered`.

    chances: float32 [n, moves, 2 + c or more] in [0, 1). x: [n, c, h, w].
    """
    _, c, h, w = x.shape
    sizes = [window_size(share, h, w) for share in covered]
    rows = stretches(chances[:, :, 0], [high for high, _ in sizes], h)
    columns = stretches(chances[:, :, 1], [wide for _, wide in sizes], w)
    up = chances[:, :, 2 : 2 + c] < 1 / 2
    return Colours(budget.box, rows, columns, budget.eps * (2 * up.to(x.dtype) - 1))
