"""HopSkipJump: the boundary's normal estimated from decisions, then a step along it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params

from .decision_start import best_of_runs, joined, taken
from .decision_task import Task, bisected, on_unbroken
from .hopskipjump_normal import FIRST_GAIN, estimated
from .minimal_search import SMALLEST, indices

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

RUN = 5  # iterations after which runs are compared
WEIGHTS = (0.4, 1.0, 2.5)  # of the new estimate in the direction, times that of the last step
SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-3, 4.0
WORTHWHILE = 1e-3  # share of the radius that a step must save
NARROWINGS = 12  # queries or few more that find the radius of a step
MOST_OF_A_STEP = len(WEIGHTS) * (1 + NARROWINGS)


class HopSkipJumpParams(Params):
    """Parameters of `hopskipjump`."""

    queries: int = Field(
        default=10_000, ge=2, description="decisions asked for per sample, start included"
    )
    samples: int = Field(
        default=100,
        ge=8,
        description="decisions behind the first estimate; number t takes sqrt(t) times as many",
    )
    starts: int = Field(
        default=1000, ge=1, description="random points tried to find a first broken one, at most"
    )
    runs: int = Field(
        default=4, ge=1, description="starts that are followed for a while; the best goes on"
    )


@dataclass(frozen=True, slots=True)
class _Points:
    """The samples that can still pay for an iteration, each with a point on the boundary.

    `index`: int64 [l], places in the task. `pattern`: [l, *shape] of norm 1; `radius`, float64
    [l]: x + radius * pattern, in the box, is broken. `normal`: [l, *shape] of l2 norm 1, all that
    is known of the boundary's normal. `fresh`: [l, *shape], estimates since the last step.
    `weight`: of the estimate in the last step, float64 [l]. `shift`, `gain`: see `estimated`.
    `best`, `distance`: the nearest broken point. `left`: queries that may be spent, int64 [l].
    """

    index: Tensor
    pattern: Tensor
    radius: Tensor
    normal: Tensor
    fresh: Tensor
    weight: Tensor
    shift: Tensor
    gain: Tensor
    best: Tensor
    distance: Tensor
    left: Tensor


def hopskipjump(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None = None,
    queries: int = 10_000,
    samples: int = 100,
    starts: int = 1000,
    runs: int = 4,
) -> Tensor:
    """The nearest point found that is misclassified (or at `target`): float32 [n, *shape].

    From a random point with the wanted decision straight towards x, down to the boundary. Then, as
    long as the queries last, the boundary's normal is estimated from decisions in random
    directions (`hopskipjump_normal`), and a step along it is followed by the way back to the
    boundary. x comes back where no start is found in `starts` points (a target that random points
    do not reach) and where it has the wanted decision itself.

    Other than in the paper, a step does not start from the last point: it goes from x along the
    normal as known so far, the new estimate added to the older ones with the weight that leads to
    the smallest radius (l2 along the normal, linf along its signs). An estimate that allows no
    step is kept and averaged with the next one. Several searches (`runs`) from different starts
    take the first five steps each, and the one that came nearest goes on.

    Chen, Jordan, Wainwright, "HopSkipJumpAttack: a query-efficient decision-based attack", S&P
    2020, algorithm 2; 100 sqrt(t) decisions are the authors' choice.
    """

    def advance(task: Task, points: _Points, to_the_end: bool) -> _Points:
        steps = range(RUN, queries) if to_the_end else range(RUN)
        return _advanced(task, points, steps, samples)

    def search(task: Task) -> Tensor:
        return best_of_runs(
            task, queries=queries, starts=starts, runs=runs, begin=_begun, advance=advance
        )

    return on_unbroken(model, x, y, target, budget=budget, rng=rng, search=search)


def _advanced(task: Task, points: _Points, steps: range, samples: int) -> _Points:
    """After the iterations `steps`, or as many as a sample can pay for."""
    import torch

    ended = taken(points, points.index[:0])
    for step in steps:
        count = math.floor(samples * math.sqrt(step + 1))
        going = points.left >= count + MOST_OF_A_STEP
        stopped = taken(points, indices(~going))
        ended = joined(ended, replace(stopped, left=torch.zeros_like(stopped.left)))
        points = taken(points, indices(going))
        if not points.index.shape[0]:
            return ended
        points = _stepped(task, _informed(task, points, step, count))
    return joined(ended, points)


def _begun(task: Task, rows: Tensor, start: Tensor, left: Tensor) -> _Points:
    import torch

    from robustbench_lite import norms

    offset = start - task.x[rows]
    radius = bisected(task, rows, offset)
    best = task.on_way(rows, offset, radius)
    delta = norms.project(offset, task.norm, radius)
    unit = norms.per_sample(radius.clamp_min(SMALLEST).to(delta.dtype), delta)
    return _Points(
        index=rows,
        pattern=delta / unit,
        radius=radius,
        normal=norms.steepest(delta, "l2"),
        fresh=torch.zeros_like(delta),
        weight=torch.ones_like(radius),
        shift=torch.zeros_like(radius),
        gain=torch.full_like(radius, FIRST_GAIN),
        best=best,
        distance=norms.distance(best.double() - task.x[rows].double(), task.norm),
        left=left,
    )


def _informed(task: Task, points: _Points, step: int, count: int) -> _Points:
    """With what `count` decisions around the boundary points say of the normal there."""
    from robustbench_lite import norms

    way = norms.steepest(points.pattern, "l2")
    point = _along(task, points, points.pattern, points.radius)
    estimate, shift, gain = estimated(
        task, points.index, point, way, points.shift, points.gain, count, f"step-{step}"
    )
    fresh, left = points.fresh + estimate, points.left - count
    return replace(points, fresh=fresh, shift=shift, gain=gain, left=left)


def _along(task: Task, points: _Points, pattern: Tensor, radius: Tensor) -> Tensor:
    from robustbench_lite import norms

    length = norms.per_sample(radius.to(pattern.dtype), pattern)
    return task.clamped(task.x[points.index].addcmul(length, pattern))


def _stepped(task: Task, points: _Points) -> _Points:
    """With the weight of the new estimate that leads to the smallest radius, if one saves any."""
    import torch

    from robustbench_lite import norms

    fresh = points.fresh
    if task.norm == "l2":
        along = (fresh * points.pattern).flatten(1).double().sum(dim=1).to(fresh.dtype)
        fresh = fresh - norms.per_sample(along, fresh) * points.pattern
    fresh = norms.steepest(fresh, "l2")
    weights = points.weight[:, None] * points.weight.new_tensor(WEIGHTS)
    radius, holds, spent = _narrowed(task, points, fresh, weights)
    moved, chosen = holds.any(dim=1), holds.long().argmax(dim=1, keepdim=True)
    weight = weights.gather(1, chosen).squeeze(1)
    mixed = norms.steepest(_mixed(points.normal, weight, fresh), "l2")
    wide = norms.per_sample(moved, fresh)
    pattern = torch.where(wide, norms.steepest(mixed, task.norm), points.pattern)
    here = _along(task, points, pattern, radius)
    distance = norms.distance(here.double() - task.x[points.index].double(), task.norm)
    nearer = distance < points.distance
    return replace(
        points,
        pattern=pattern,
        radius=radius,
        normal=torch.where(wide, mixed, points.normal),
        fresh=torch.where(wide, 0.0, points.fresh),
        weight=weight.where(moved, points.weight / 2).clamp(SMALLEST_WEIGHT, LARGEST_WEIGHT),
        best=torch.where(norms.per_sample(nearer, here), here, points.best),
        distance=distance.minimum(points.distance),
        left=points.left - spent,
    )


def _mixed(normal: Tensor, weight: Tensor, fresh: Tensor) -> Tensor:
    from robustbench_lite import norms

    return normal.addcmul(norms.per_sample(weight.to(fresh.dtype), fresh), fresh)


def _narrowed(
    task: Task, points: _Points, fresh: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The smallest radius at which any of the weights [l, w] is broken, which ones are, queries.

    Bisection for all of them together: a weight that fails where another holds is out. None is
    left where none saves `WORTHWHILE`; the radius is then the old one.
    """
    import torch

    from robustbench_lite import norms

    holds = torch.ones_like(weights, dtype=torch.bool)
    spent = torch.zeros_like(points.left)
    low, high = torch.zeros_like(points.radius), points.radius
    middle = (1 - WORTHWHILE) * points.radius
    for narrowing in range(1 + NARROWINGS):
        rows, which = holds.nonzero().unbind(1)
        if not rows.shape[0]:
            break
        mixed = _mixed(points.normal[rows], weights[rows, which], fresh[rows])
        pattern = norms.steepest(mixed, task.norm)
        length = norms.per_sample(middle[rows].to(pattern.dtype), pattern)
        index = points.index[rows]
        hit = torch.zeros_like(holds)
        hit[rows, which] = task.broken(index, task.clamped(task.x[index].addcmul(length, pattern)))
        spent = spent + holds.sum(dim=1)
        any_hit = hit.any(dim=1)
        low, high = low.where(any_hit, middle), middle.where(any_hit, high)
        holds = hit | holds & ~any_hit[:, None] if narrowing else hit
        middle = (low + high) / 2
    return high, holds, spent


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, HopSkipJumpParams)
    return Cost(queries=1 + params.queries, gradients=0)


SPEC = AttackSpec(
    name="hopskipjump",
    implementation=hopskipjump,
    summary="normal of the decision boundary estimated from decisions, then a step along it",
    norms=("l2", "linf"),
    access="decision",
    params=HopSkipJumpParams,
    paper="https://arxiv.org/abs/1904.02144",
    kind="minimal-norm",
    effort="iterative",
    targeted=True,
    cost=_cost,
)
