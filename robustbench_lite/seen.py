"""What an attack saw on its way: the nearest break of each row, and how its loss was rising.

An attack may pass over an adversarial example and return something else (a *silent success*), or
stop while it is still gaining. Neither shows in what it returns, so both are noted here.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from . import norms
from .types import NO_NORM, Box, Budget

LAST = 0.1  # of the looks at the loss: the end of the climb
STILL_RISING = 0.05  # of the whole climb, gained in its last part (Pintor et al. 2022)
FEWEST_LOOKS = 10  # fewer say nothing about how a climb ends
BOX_SLACK = 1e-6  # of the box width, as the judge forgives


@dataclass(frozen=True, slots=True)
class Best:
    """The nearest break seen of `rows` (int64 [m]): `x` [m, *shape], `distance` float64 [m]."""

    rows: Tensor
    x: Tensor
    distance: Tensor


class Seen:
    """The passes of one call of an attack on n rows.

    `x`: clean rows [n, *shape]. `y`: int64 [n]. `goal`: int64 [n], the target classes, or None.
    """

    def __init__(self, x: Tensor, y: Tensor, goal: Tensor | None, budget: Budget) -> None:
        self._x = x
        self._y = y
        self._goal = goal
        self._budget = budget
        self._reach = _reach(budget, x)
        self._best: Tensor | None = None
        n = x.shape[0]
        self._distance = torch.full((n,), float("inf"), dtype=torch.float64, device=x.device)
        self._looks: dict[str, list[tuple[Tensor | None, Tensor]]] = defaultdict(list)

    def point(self, index: Tensor | None, x: Tensor, logits: Tensor) -> None:
        """Remember the rows of x [m, *shape] that break their sample within the budget."""
        named = self._x.shape[0] if index is None else index.shape[0]
        if self._budget.norm == NO_NORM or x.shape != (named, *self._x.shape[1:]):
            return
        pred = logits.argmax(dim=1)
        wrong = pred != _chosen(self._y, index)
        if self._goal is not None:
            wrong &= pred == _chosen(self._goal, index)
        hits = wrong.nonzero()[:, 0]
        if hits.shape[0]:
            rows = hits if index is None else index[hits]
            self._keep(rows, x.detach().index_select(0, hits))

    def _keep(self, rows: Tensor, x: Tensor) -> None:
        box, slack = self._budget.box, BOX_SLACK * self._budget.box.width
        delta = x.double().sub_(self._x.index_select(0, rows))
        distance = norms.distance(delta, self._budget.norm)
        flat = x.flatten(1)  # `aminmax` and a comparison of every component take several times this
        inside = (flat.amin(dim=1) >= box.low - slack) & (flat.amax(dim=1) <= box.high + slack)
        better = inside & (distance <= self._reach) & (distance < self._distance[rows])
        chosen = better.nonzero()[:, 0]
        if chosen.shape[0] == 0:
            return
        if rows.unique().shape[0] < rows.shape[0]:  # type: ignore[no-untyped-call]
            chosen = _nearest_of_each(rows, distance, chosen)
        if self._best is None:
            self._best = self._x.clone()
        rows = rows[chosen]
        self._best.index_copy_(0, rows, x.index_select(0, chosen).to(self._best.dtype))
        self._distance[rows] = distance[chosen]

    def loss(self, index: Tensor | None, name: str, value: Tensor) -> None:
        """Remember the loss [m] of one look; an attack raises it."""
        self._looks[name].append((index, value.detach()))

    def best(self) -> Best | None:
        """The rows with a break, if there is any."""
        if self._best is None:
            return None
        rows = self._distance.isfinite().nonzero()[:, 0]
        return Best(rows, self._best[rows], self._distance[rows])

    def rising(self) -> Tensor:
        """Rows whose loss was still rising when the looks ended: bool [n].

        Of the rise of the best loss over all looks, more than 5 % came in the last tenth of them.
        """
        n = self._x.shape[0]
        rising = torch.zeros(n, dtype=torch.bool)
        if not self._looks:
            return rising
        looks = max(self._looks.values(), key=len)
        if len(looks) < FEWEST_LOOKS:
            return rising
        climb = torch.full((len(looks), n), float("-inf"), dtype=torch.float64)
        everyone = torch.arange(n)
        for at, (index, value) in enumerate(looks):
            rows = everyone if index is None else index.cpu()
            if rows.shape == value.shape:
                climb[at].scatter_reduce_(0, rows, value.double().cpu(), "amax")
        best = climb.nan_to_num(nan=float("-inf"), posinf=float("inf")).cummax(dim=0).values
        start = int(len(looks) * (1 - LAST)) - 1
        first = climb.isfinite().double().argmax(dim=0)
        lowest = climb.gather(0, first[None])[0]
        whole, end = best[-1] - lowest, best[-1] - best[start]
        return (whole > 0) & whole.isfinite() & (end > STILL_RISING * whole)


def _chosen(values: Tensor, index: Tensor | None) -> Tensor:
    return values if index is None else values.index_select(0, index)


def _nearest_of_each(rows: Tensor, distance: Tensor, some: Tensor) -> Tensor:
    """Of the places `some` the one of smallest `distance` for each of `rows`, int64."""
    order = some[distance[some].argsort(descending=True, stable=True)]  # the nearest is last
    last: dict[int, int] = {row: at for at, row in enumerate(rows[order].tolist())}
    return order[torch.tensor(sorted(last.values()), device=order.device)]


def _reach(budget: Budget, x: Tensor) -> float:
    """The radius that the judge allows: float32 leaves a point of the sphere a little outside."""
    if budget.norm == NO_NORM or not x.numel():
        return budget.eps
    box = budget.box
    if not math.isfinite(box.width):  # an attack that is free of the box still starts in it
        box = Box(float(x.min()), float(x.max()))
    return budget.eps + norms.tolerance(budget.norm, budget.eps, box, tuple(x.shape[1:]))
