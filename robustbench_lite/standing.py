"""What is known of each row of a batch on one target: the judge's word, its cost, its faults."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .craft import Crafted
from .group import ILLEGAL
from .hookspecs import AttackSpec
from .judge import judge
from .params import Params
from .seen import Seen
from .types import Batch, Box, Budget, Cell, LoadedModel, Norm, Outcome

NEARER = 0.99  # a break passed over counts if it is nearer than that part of the one returned
UNBOUNDED = Box(float("-inf"), float("inf"))
OUTCOME = tuple(f.name for f in dataclasses.fields(Outcome) if f.name != "problems")


@dataclass(slots=True)
class State:
    """The best that is known of each row of a batch on one target, while eps and draws go on.

    `faults`: by loss, rows whose gradient was not finite or exactly zero, bool [2, n].
    """

    x_adv: Tensor
    outcome: Outcome | None
    queries: NDArray[np.float64]
    gradients: NDArray[np.float64]
    silent: NDArray[np.bool_]
    rising: NDArray[np.bool_]
    taken_back: NDArray[np.bool_]
    faults: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    observed: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @staticmethod
    def fresh(x_adv: Tensor) -> State:
        """Nothing is known yet."""
        n = x_adv.shape[0]
        a, b, c = np.zeros((3, n), dtype=bool)
        return State(x_adv, None, np.zeros(n), np.zeros(n), a, b, c)

    def at_next_eps(self) -> State:
        """The same rows at a larger eps: what is broken stays, its cost is not counted again."""
        fresh = State.fresh(self.x_adv)
        return dataclasses.replace(fresh, outcome=self.outcome)

    def open_rows(self) -> NDArray[np.int64]:
        """Rows that are not broken yet."""
        if self.outcome is None:
            return np.arange(len(self.queries))
        return np.flatnonzero(~self.outcome.success)

    def update(
        self,
        rows: NDArray[np.int64],
        crafted: Crafted,
        judged: Judged,
        box: Box,
        nearest: Norm | None,
    ) -> None:
        """Take over the new outcome of `rows` where the row was not broken before.

        `nearest`: of two breaks the one that is nearer in this norm stands (minimal-norm attacks).
        """
        outcome = judged.outcome
        self.silent[rows] |= judged.silent
        self.taken_back[rows] |= judged.taken_back
        self.seconds += crafted.seconds
        self.queries[rows] += crafted.tally.queries.cpu().numpy()
        self.gradients[rows] += crafted.tally.gradients.cpu().numpy()
        for loss, times in crafted.tally.faults.items():
            faults = self.faults.setdefault(loss, np.zeros((2, len(self.queries)), dtype=bool))
            faults[:, rows] |= (times > 0).cpu().numpy()
        self.rising[rows] = crafted.seen.rising().numpy()
        for key, value in crafted.observed.items():
            self.observed[key] = self.observed.get(key, 0) + value
        for problem, count in outcome.problems.items():
            key = ILLEGAL + problem
            self.observed[key] = self.observed.get(key, 0) + count
        if self.outcome is None:
            assert len(rows) == len(self.queries)
            self.outcome = outcome
            fresh = np.ones(len(rows), dtype=bool)
        else:
            fresh = ~self.outcome.success[rows]
            if nearest is not None:
                nearer = getattr(outcome, nearest) < getattr(self.outcome, nearest)[rows]
                fresh = outcome.success & (fresh | nearer) | fresh & ~outcome.success
            self.outcome = _overwritten(self.outcome, rows[fresh], outcome, fresh)
        candidate = judged.candidate
        if isinstance(candidate, Tensor) and candidate.shape == (len(rows), *self.x_adv.shape[1:]):
            legal = torch.from_numpy(fresh & outcome.legal).to(self.x_adv.device)
            where = torch.from_numpy(rows[fresh & outcome.legal]).to(self.x_adv.device)
            taken = candidate.detach().to(self.x_adv)[legal].clamp(box.low, box.high)
            self.x_adv = self.x_adv.index_copy(0, where, taken)


@dataclass(frozen=True, slots=True)
class Judged:
    """The judge's word on the better of what an attack returned and what it had passed over.

    `silent`: bool [n], where it had passed over something better. `taken_back`: bool [n], where it
    had seen a break that the judge does not find there; only if no lots were drawn.
    """

    candidate: object
    outcome: Outcome
    silent: NDArray[np.bool_]
    taken_back: NDArray[np.bool_]


def judged(
    model: LoadedModel,
    batch: Batch,
    crafted: Crafted,
    budget: Budget,
    goal: Tensor | None,
    nearest: Norm | None,
    settled: NDArray[np.bool_] | None = None,
) -> Judged:
    """Judge what was returned and, where that is no break or a far one, what was seen.

    `settled`: rows whose returned point breaks the model that it was crafted on. In transfer that
    is what the attack was to find: choosing the point that suits the target is not its to do.
    """
    candidate = crafted.candidate
    outcome = judge(model, batch, candidate, budget, goal=goal)
    silent = np.zeros(batch.x.shape[0], dtype=bool)
    best = crafted.seen.best()
    taken_back = np.zeros_like(silent)
    if best is None:
        return Judged(candidate, outcome, silent, taken_back)
    rows = best.rows.cpu().numpy()
    better = ~outcome.success[rows]
    if nearest is not None:
        returned = getattr(outcome, nearest)[rows]
        better |= best.distance.cpu().numpy() < NEARER * returned
    if settled is not None:
        better &= ~settled[rows]
    rows = rows[better]
    if len(rows) == 0:
        return Judged(candidate, outcome, silent, taken_back)
    index = torch.from_numpy(rows).to(batch.x.device)
    seen = best.x[torch.from_numpy(better).to(batch.x.device)]
    own_goal = None if goal is None else goal[index]
    again = judge(model, rows_of(batch, index), seen, budget, goal=own_goal)
    taken = again.success
    silent[rows] = taken
    outcome = _overwritten(outcome, rows[taken], again, taken)
    if isinstance(candidate, Tensor) and candidate.shape == batch.x.shape:
        hit = torch.from_numpy(taken).to(batch.x.device)
        candidate = candidate.detach().to(batch.x).index_copy(0, index[hit], seen[hit])
    taken_back[rows] = again.adv_correct & (not crafted.drawn)
    return Judged(candidate, outcome, silent, taken_back)


def settles(own: Outcome, seen: Seen, nearest: Norm | None) -> NDArray[np.bool_]:
    """Rows whose returned point does on its source what it can: bool [n].

    `own`: the judge's word on the source. It breaks it, and of a search for the nearest point
    (`nearest`: its norm) no much nearer break was passed over.
    """
    done = own.success.copy()
    best = seen.best()
    if nearest is not None and best is not None:
        rows = best.rows.cpu().numpy()
        done[rows] &= best.distance.cpu().numpy() >= NEARER * getattr(own, nearest)[rows]
    return done


def budget_of(spec: AttackSpec, params: Params, cell: Cell, eps: float, box: Box) -> Budget:
    """What the attack may spend at `eps`; no box where it follows a paper that leaves it."""
    assert cell.norm is not None
    clip = spec.clip_parameter
    free = clip is not None and getattr(params, clip) is False
    return Budget(norm=cell.norm, eps=eps, box=UNBOUNDED if free else box)


def rows_of(batch: Batch, index: Tensor) -> Batch:
    """The rows `index` of a batch, without their names."""
    return dataclasses.replace(
        batch, ids=(), hashes=(), keys=batch.keys[index], x=batch.x[index], y=batch.y[index]
    )


def _overwritten(
    old: Outcome, rows: NDArray[np.int64], new: Outcome, fresh: NDArray[np.bool_]
) -> Outcome:
    def merged(name: str) -> NDArray[np.generic]:
        column: NDArray[np.generic] = getattr(old, name).copy()
        column[rows] = getattr(new, name)[fresh]
        return column

    columns: dict[str, Any] = {name: merged(name) for name in OUTCOME}
    return Outcome(**columns, problems=old.problems)
