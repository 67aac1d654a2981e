"""Decision boundaries as hyperplanes, and the nearest point of a hyperplane inside the box."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from robustbench_lite import Box, Classifier, Norm

from .ball import room

if TYPE_CHECKING:
    from torch import Tensor

ROUNDED = 8.0  # machine precisions by which a sum may miss its value
DUAL: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}


class Plane(NamedTuple):
    """The boundary {x + d : value + <slope, d> = 0} as seen from x.

    `value`: [n], negative on the side of the own class. `slope`: [n, *shape].
    """

    value: Tensor
    slope: Tensor

    def seen_from(self, x: Tensor, point: Tensor) -> Plane:
        """The same planes, found at `point`, as seen from `x`."""
        further = (self.slope * (x - point)).flatten(1).sum(dim=1)
        return Plane(self.value + further, self.slope)


def likeliest(logits: Tensor, own: Tensor, count: int) -> Tensor:
    """The `count` classes (at most k - 1) of largest logit but for `own`: int64 [n, count]."""
    others = logits.scatter(1, own[:, None], float("-inf"))
    ranks = others.argsort(dim=1, descending=True, stable=True)
    return ranks[:, : min(count, logits.shape[1] - 1)]


def nearest_plane(
    model: Classifier,
    point: Tensor,
    own: Tensor,
    rivals: Tensor,
    step: Callable[[Plane], tuple[Tensor, Tensor]],
) -> tuple[Plane, Tensor]:
    """Of the boundaries between `own` [n] and each of `rivals` [n, c] the nearest, and the way.

    Each is linearised at the point; `step` gives the way to it [n, *shape] and its length [n].
    Costs c forward and c backward passes per sample, one class at a time: memory does not grow
    with c.
    """
    import torch

    from robustbench_lite import norms

    loss = _lead_over(own)
    first = model.value_and_gradient(point, rivals[:, 0], loss)
    plane = Plane(first.value, first.gradient)
    way, length = step(plane)
    for rival in rivals.unbind(1)[1:]:
        seen = model.value_and_gradient(point, rival, loss)
        other, distance = step(Plane(seen.value, seen.gradient))
        nearer = (distance < length) | length.isnan()
        wide = norms.per_sample(nearer, point)
        plane = Plane(
            seen.value.where(nearer, plane.value),
            torch.where(wide, seen.gradient, plane.slope),
        )
        way, length = torch.where(wide, other, way), distance.where(nearer, length)
    return plane, way


def _lead_over(own: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def lead(logits: Tensor, rival: Tensor) -> Tensor:
        return (logits.gather(1, rival[:, None]) - logits.gather(1, own[:, None])).squeeze(1)

    return lead


def to_plane(x: Tensor, plane: Plane, box: Box, norm: Norm) -> Tensor:
    """argmin over d of ||d||_norm subject to value + <slope, d> = 0 and x + d in the box.

    Where no point of the box lies on the plane: the d that comes nearest to it, at the end of the
    box. Exact up to rounding in the precision of x (Croce and Hein 2020, section 2.2 and
    appendix). 0 where the slope is 0 or not finite. x: [n, *shape] in the box; returns its like.
    """
    import torch

    start, value = x.flatten(1), plane.value.to(x.dtype).nan_to_num(0.0, 0.0, 0.0)
    slope = plane.slope.to(x.dtype).flatten(1).nan_to_num(0.0, 0.0, 0.0)
    largest = slope.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    slope, due = slope / largest, -value[:, None] / largest  # no square of it is out of range
    uphill, gain, due = slope * due.sign(), slope.abs(), due.abs()
    free = room(start, uphill, box).clamp_min_(0.0)
    if norm == "l1":
        amount = _steepest_first(gain, free, due)
    elif norm == "linf":
        amount = _meeting(gain, free, gain * free, due).minimum(free)
    else:
        time = _meeting(gain.square(), free / gain, gain * free, due)
        amount = gain.mul_(time).minimum(free)
    return uphill.sign_().mul_(amount).view_as(x)


def _meeting(rate: Tensor, full_at: Tensor, whole: Tensor, due: Tensor) -> Tensor:
    """The time t >= 0 at which components that add up to `due` have moved so far: [n, 1].

    Component i adds rate_i * t until t = full_at_i, and whole_i from then on. The sum is concave in
    t and its pieces are straight, so that Newton's method climbs from 0 to the answer, never past
    it, in a few rounds; a sort of the ends costs several times as much. The largest number where
    the sum never reaches `due`. A row's rounds do not depend on other rows.

    rate, full_at, whole: [n, d] >= 0, full_at infinite where the others are 0. due: [n, 1] >= 0.
    """
    import torch

    precision = torch.finfo(due.dtype)
    reachable = due < whole.sum(dim=1, keepdim=True)
    time = torch.zeros_like(due).masked_fill_(~reachable, precision.max)
    mask = torch.empty_like(whole)  # 0 and 1: a product is far cheaper than a `where`
    while True:
        speed = torch.gt(full_at, time, out=mask).mul_(rate).sum(dim=1, keepdim=True)
        ended = torch.le(full_at, time, out=mask).mul_(whole).sum(dim=1, keepdim=True)
        rest = due - ended
        short = (rest - time * speed > ROUNDED * precision.eps * due) & reachable
        if not bool(short.any()):
            return time
        time = torch.where(short, (rest / speed).clamp_max(precision.max), time)


def _steepest_first(gain: Tensor, room: Tensor, due: Tensor) -> Tensor:
    """a with 0 <= a <= room, <gain, a> = due (or a = room) and least sum: [n, d].

    In float64, because a running sum in float32 loses a digit for every ten components.
    """
    import torch

    order = gain.argsort(dim=1, descending=True, stable=True)
    gains, rooms = gain.gather(1, order).double(), room.gather(1, order).double()
    whole = gains * rooms
    before = whole.cumsum(dim=1) - whole
    share = torch.where(gains > 0, (due.double() - before).clamp_min(0.0) / gains, 0.0)
    amount = torch.minimum(share, rooms).to(room.dtype)
    return torch.zeros_like(room).scatter(1, order, amount)
