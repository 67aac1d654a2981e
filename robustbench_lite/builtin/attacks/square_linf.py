"""The moves of Square under linf: stripes, then windows of one colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustbench_lite import Budget

from .square_windows import places, window_size

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng


def stripes(x: Tensor, budget: Budget, rng: SampleRng) -> Tensor:
    """`x` [n, c, h, w] with every column of every channel at +eps or -eps, in the box."""
    from robustbench_lite import norms

    _, c, _, w = x.shape
    return norms.clip(x + budget.eps * rng.sign((c, 1, w)), x, budget)


def recoloured(x: Tensor, best: Tensor, chance: Tensor, covered: float, budget: Budget) -> Tensor:
    """`best` with a random window at +eps or -eps, a fair coin per channel: [n, c, h, w].

    On a point whose components stand at +-eps this is the paper's step of +-2 eps, projected.
    Where the coins would change nothing all of them are turned: a query is never spent on a point
    known already.

    x, best: [n, c, h, w]. chance: float32 [n, 2 + c or more] in [0, 1). covered: share of the
    image.
    """
    from robustbench_lite import norms

    n, c, h, w = x.shape
    window = places(chance[:, :2], window_size(covered, h, w), h, w)[:, None].expand(-1, c, -1)
    old = best.flatten(2).gather(2, window)
    middle = x.flatten(2).gather(2, window)
    low = norms.clip(middle - budget.eps, middle, budget)
    high = norms.clip(middle + budget.eps, middle, budget)
    up = chance[:, 2 : 2 + c, None] < 1 / 2
    idle = (high.where(up, low) == old).flatten(1).all(dim=1)
    new = high.where(up ^ idle.view(n, 1, 1), low)
    return best.flatten(2).scatter(2, window, new).view_as(best)
