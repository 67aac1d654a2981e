"""Boundary attack: a random walk along the decision boundary towards x, on decisions alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params

from .decision_start import best_of_runs, joined, taken
from .decision_task import Task, bisected, on_unbroken
from .minimal_search import SMALLEST, indices

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

FIRST_ANGLE = 0.1
LARGEST_ANGLE = 1.0
CONVERGED = 1e-4  # an angle that would shorten the way by 5e-9 of it
RUN = 1000  # steps after which runs are compared
ACCEPTED = 0.2  # share of steps that the angle is adapted to
PACE = 0.05  # change of the logarithm of the angle per step
NUMBERS_AHEAD = 2**14
"""Random numbers per sample that are drawn at once; a constant, so that nothing depends on it."""


class BoundaryParams(Params):
    """Parameters of `boundary`."""

    queries: int = Field(
        default=10_000, ge=2, description="decisions asked for per sample, start included"
    )
    starts: int = Field(
        default=1000, ge=1, description="random points tried to find a first broken one, at most"
    )
    runs: int = Field(
        default=4, ge=1, description="starts that are followed for a while; the best goes on"
    )


@dataclass(frozen=True, slots=True)
class _Walk:
    """The samples that walk.

    `index`: int64 [l], places in the task. `way`: [l, *shape], unit vectors; `radius`, float64
    [l]: x + radius * way, in the box, is broken. `angle`: of the next step, float64 [l]. `best`,
    `distance`: the nearest broken point. `left`: queries that may still be spent, int64 [l].
    """

    index: Tensor
    way: Tensor
    radius: Tensor
    angle: Tensor
    best: Tensor
    distance: Tensor
    left: Tensor


def boundary(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None = None,
    queries: int = 10_000,
    starts: int = 1000,
    runs: int = 4,
) -> Tensor:
    """The nearest point found that is misclassified (or at `target`): float32 [n, *shape].

    From a random point with the wanted decision straight towards x as far as that holds, then
    steps of one query each: sideways in a random direction and nearer to x, kept if the decision
    holds. x comes back where no start is found in `starts` points (a target that random points do
    not reach) and where it has the wanted decision itself.

    Other than in the paper, one number is adapted, not two. A step by the angle a leads to
    r cos(a) (cos(a) way + sin(a) side), r being the distance so far: a point of the circle over
    the way to x. Where the boundary is flat these are the steps with the best ratio of chance and
    gain, and the nearest boundary point lies on that circle. The angle follows the share of steps
    that are kept. The way remembers what the box cuts off. Several walks (`runs`) from different
    starts take the first 1000 steps each, and the one that came nearest goes on.

    Brendel, Rauber, Bethge, "Decision-based adversarial attacks: reliable attacks against
    black-box machine learning models", ICLR 2018, algorithm 1 and figure 2.
    """

    def advance(task: Task, walk: _Walk, to_the_end: bool) -> _Walk:
        steps = range(RUN, RUN + queries) if to_the_end else range(RUN)
        return _walked(task, walk, steps)

    def search(task: Task) -> Tensor:
        return best_of_runs(
            task, queries=queries, starts=starts, runs=runs, begin=_begun, advance=advance
        )

    return on_unbroken(model, x, y, target, budget=budget, rng=rng, search=search)


def _begun(task: Task, rows: Tensor, start: Tensor, left: Tensor) -> _Walk:
    import torch

    from robustbench_lite import norms

    offset = start - task.x[rows]
    radius = bisected(task, rows, offset)
    best = task.on_way(rows, offset, radius)
    return _Walk(
        index=rows,
        way=norms.steepest(offset, "l2"),
        radius=radius,
        angle=torch.full_like(radius, FIRST_ANGLE),
        best=best,
        distance=norms.distance(best.double() - task.x[rows].double(), "l2"),
        left=left,
    )


def _walked(task: Task, walk: _Walk, steps: range) -> _Walk:
    """After the steps of these numbers, or as many as a sample can pay for."""
    shape = tuple(task.x.shape[1:])
    ahead = max(1, NUMBERS_AHEAD // max(1, task.x[:1].numel()))
    ends = set(walk.left.tolist())
    ended = taken(walk, walk.index[:0])
    noise = walk.way.unsqueeze(1)
    for done, number in enumerate(steps):
        place = done % ahead
        if done in ends or place == 0:
            going = (walk.left > done) & (walk.angle >= CONVERGED)
            ended = joined(ended, _paid(taken(walk, indices(~going)), done))
            walk, noise = taken(walk, indices(going)), noise[indices(going)]
            if not walk.index.shape[0]:
                return ended
        if place == 0:
            noise = task.rng.rows(walk.index).fork(f"steps-{number}").normal((ahead, *shape))
        walk = _stepped(task, walk, noise[:, place])
    return joined(ended, _paid(walk, len(steps)))


def _paid(walk: _Walk, steps: int) -> _Walk:
    return replace(walk, left=walk.left - steps)


def _stepped(task: Task, walk: _Walk, noise: Tensor) -> _Walk:
    """One query per sample; way, radius and best point of those that it holds for are replaced.

    Only a step that comes nearer counts as kept: one too small for float32 changes nothing.
    """
    import torch

    from robustbench_lite import norms

    along = (noise * walk.way).flatten(1).double().sum(dim=1)
    side = noise - norms.per_sample(along.to(noise.dtype), noise) * walk.way
    length = norms.distance(side, "l2").clamp_min(SMALLEST)
    cos, sin = walk.angle.cos(), walk.angle.sin() / length
    way = norms.per_sample(cos.to(noise.dtype), noise) * walk.way
    way.addcmul_(norms.per_sample(sin.to(noise.dtype), noise), side)
    radius = walk.radius * cos
    clean = task.x[walk.index]
    point = task.clamped(clean.addcmul(norms.per_sample(radius.to(noise.dtype), way), way))
    broken = task.broken(walk.index, point)
    hit = indices(broken)
    walk.way.index_copy_(0, hit, way[hit])
    distance = norms.distance(point[hit].double() - clean[hit].double(), "l2")
    nearer = distance < walk.distance[hit]
    walk.best.index_copy_(0, hit[nearer], point[hit[nearer]])
    walk.distance.index_copy_(0, hit, distance.minimum(walk.distance[hit]))
    gained = torch.zeros_like(radius).index_copy_(0, hit, nearer.to(radius.dtype))
    angle = walk.angle * (PACE * (gained - ACCEPTED)).exp()
    return replace(
        walk, radius=radius.where(broken, walk.radius), angle=angle.clamp_max(LARGEST_ANGLE)
    )


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, BoundaryParams)
    return Cost(queries=1 + params.queries, gradients=0)


SPEC = AttackSpec(
    name="boundary",
    implementation=boundary,
    summary="random walk along the decision boundary, on decisions alone",
    norms=("l2",),
    access="decision",
    params=BoundaryParams,
    paper="https://arxiv.org/abs/1712.04248",
    kind="minimal-norm",
    effort="iterative",
    targeted=True,
    cost=_cost,
)
