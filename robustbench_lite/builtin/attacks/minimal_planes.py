"""Decision boundaries as hyperplanes, and the nearest point of a hyperplane inside the box."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from robustbench_lite import Box, Classifier, Norm

if TYPE_CHECKING:
    from torch import Tensor

DUAL: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}


class Plane(NamedTuple):
    """The boundary {x + d : value + <slope, d> = 0} as seen from x.

    `value`: [n], negative on the side of the own class. `slope`: [n, *shape].
    """

    value: Tensor
    slope: Tensor

    def seen_from(self, x: Tensor, point: Tensor) -> Plane:
        """The same planes, found at `point`, as seen from `x`; float64 values."""
        step = (x.double() - point.double()).flatten(1)
        return Plane(self.value + (self.slope.double().flatten(1) * step).sum(dim=1), self.slope)


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
    box. Exact, by one sort per row (Croce and Hein 2020, section 2.2 and appendix). 0 where the
    slope is 0 or not finite. Returns float64 [n, *shape].
    """
    import torch

    slope = plane.slope.double().flatten(1).nan_to_num(0.0, 0.0, 0.0)
    start = x.double().flatten(1)
    due = -plane.value.double().nan_to_num(0.0, 0.0, 0.0)[:, None]
    uphill = slope * torch.where(due < 0, -1.0, 1.0)
    gain = slope.abs()
    room = torch.where(uphill > 0, box.high - start, start - box.low).clamp_min(0.0)
    room = room.where(gain > 0, 0.0)
    if norm == "l1":
        amount = _steepest_first(gain, room, due.abs())
    else:
        pace = (gain > 0).double() if norm == "linf" else gain
        amount = _all_at_once(gain, room, pace, due.abs())
    return (uphill.sign() * amount).reshape(x.shape)


def _all_at_once(gain: Tensor, room: Tensor, pace: Tensor, due: Tensor) -> Tensor:
    """a = min(t * pace, room) for the t >= 0 at which <gain, a> = due, else a = room: [n, d].

    Component i is at its end from t = room_i / pace_i on. Between two such times <gain, a> grows
    at the summed rate of the components that still move.
    """
    import torch

    full_at = torch.where(pace > 0, room / pace, 0.0)
    full_at, order = full_at.sort(dim=1, stable=True)
    rate = (gain * pace).gather(1, order)
    ended = (gain * room).gather(1, order)
    before = ended.cumsum(dim=1) - ended
    moving = rate.flip(1).cumsum(dim=1).flip(1)
    number_full = (before + full_at * moving < due).sum(dim=1, keepdim=True)
    place = number_full.clamp_max(gain.shape[1] - 1)
    time = (due - before.gather(1, place)).clamp_min(0.0) / moving.gather(1, place)
    time = time.where(number_full < gain.shape[1], torch.inf)
    return torch.where(pace > 0, torch.minimum(pace * time, room), 0.0)


def _steepest_first(gain: Tensor, room: Tensor, due: Tensor) -> Tensor:
    """a with 0 <= a <= room, <gain, a> = due (or a = room) and least sum: [n, d]."""
    import torch

    order = gain.argsort(dim=1, descending=True, stable=True)
    gains, rooms = gain.gather(1, order), room.gather(1, order)
    whole = gains * rooms
    before = whole.cumsum(dim=1) - whole
    share = torch.where(gains > 0, (due - before).clamp_min(0.0) / gains, 0.0)
    return torch.zeros_like(room).scatter(1, order, torch.minimum(share, rooms))
