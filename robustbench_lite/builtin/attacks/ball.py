"""The lp ball and the box: random points, and how far a point can go."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from robustbench_lite import Box, Budget, Norm

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

TINY = 1e-30  # keeps the direction of an all-zero draw finite


def uniform_in_ball(rng: SampleRng, shape: tuple[int, ...], norm: Norm, eps: float) -> Tensor:
    """Points drawn uniformly from the ball of radius `eps`, float32 [n, *shape].

    linf: independent components. l2 and l1: a uniform direction (normal, Laplace) scaled to the
    radius eps * u^(1/d), u uniform in [0, 1) and d the number of components.
    """
    if norm == "linf":
        return rng.uniform(shape, -eps, eps)
    radius = eps * rng.uniform((1,), 0.0, 1.0).flatten() ** (1 / max(1, math.prod(shape)))
    return on_sphere(rng, shape, norm, 1.0) * radius.view(-1, *(1 for _ in shape))


def on_sphere(rng: SampleRng, shape: tuple[int, ...], norm: Norm, eps: float) -> Tensor:
    """Points of l2 or l1 norm `eps`, float32 [n, *shape].

    l2: uniform on the sphere. l1: the cone measure, which a random radius turns into the ball.
    """
    from robustbench_lite import norms

    if norm == "l2":
        direction = rng.normal(shape)
    else:
        direction = -rng.sign(shape) * (-rng.uniform(shape, 0.0, 1.0)).log1p()
    length = norms.distance(direction, norm).clamp_min(TINY).to(direction.dtype)
    return direction * (eps / norms.per_sample(length, direction))


def room(x: Tensor, way: Tensor, box: Box) -> Tensor:
    """How far each component of x can go towards the sign of `way` inside the box, half of it at 0.

    x in the box, way, result: [n, *shape]. Rounding can leave it just below 0. Written without
    `where`, which on a CPU costs twenty times as much as arithmetic.
    """
    middle, half = (box.low + box.high) / 2, box.width / 2
    return half - (x - middle).mul_(way.sign())


def walls(x: Tensor, budget: Budget) -> tuple[Tensor, Tensor]:
    """The lowest and the highest legal point of the linf ball around x in the box, [n, *shape]."""
    low, high = x - budget.eps, x + budget.eps
    return low.clamp_min_(budget.box.low), high.clamp_max_(budget.box.high)


def chosen(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Rows of `new` where `mask` [n] holds, else of `old`: [n, *shape], perhaps one of them itself.

    On a CPU by copying those rows: a `where` costs several times as much there. On a GPU it would
    make the host wait.
    """
    from robustbench_lite import norms

    if new.device.type != "cpu":
        return new.where(norms.per_sample(mask, new), old)
    rows = mask.nonzero().squeeze(1)
    if rows.shape[0] in {0, mask.shape[0]}:
        return new if rows.shape[0] else old
    return old.index_copy(0, rows, new.index_select(0, rows))


def put(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`chosen` into the memory of `old` on a CPU, for a caller to whom it belongs."""
    if new.device.type != "cpu":
        return chosen(mask, new, old)
    rows = mask.nonzero().squeeze(1)
    return old.index_copy_(0, rows, new.index_select(0, rows))
