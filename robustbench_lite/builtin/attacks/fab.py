"""FAB: fast adaptive boundary attack, minimal in linf, l2 or l1."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Norm, Params

from .ball import on_sphere
from .minimal_planes import Plane, likeliest, nearest_plane, to_plane
from .minimal_search import SMALLEST, Nearest, Task, indices, on_unbroken

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

SHORT_OF_SECANT = 0.98
"""Share of the way to the estimated boundary: the next point stays on the broken side."""

NEAR_MISS = 1.15
"""What a nearer boundary may take off a distance: past it, few random starts find an answer."""


class FabParams(Params):
    """Parameters of `fab`."""

    steps: int = Field(default=100, ge=1, description="steps of one run")
    restarts: int = Field(
        default=1, ge=1, description="runs per boundary; the first from the input, others near it"
    )
    n_targets: int = Field(
        default=0,
        ge=0,
        description="FAB-T: a run for each of so many likeliest other classes; 0: one run that "
        "goes to the nearest boundary at every step",
    )
    classes: int = Field(
        default=10,
        ge=2,
        description="likeliest classes whose boundaries a step of n_targets 0 sees",
    )
    alpha_max: float = Field(default=0.1, ge=0, le=1, description="largest pull towards the input")
    eta: float = Field(default=1.05, ge=1, description="overshoot of a step over the boundary")
    beta: float = Field(
        default=0.9, gt=0, lt=1, description="share of the distance kept after a broken point"
    )
    search_steps: int = Field(default=3, ge=0, description="points of the final line search")
    enough: float = Field(
        default=0.0,
        ge=0,
        description="a sample with a point this near is left out of the runs that follow",
    )
    near_misses: int = Field(
        default=0,
        ge=0,
        description="further runs to the likeliest other class, from random starts, for a sample "
        f"whose nearest point misses `enough` by no more than {NEAR_MISS - 1:.0%} of it",
    )


def fab(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    steps: int = 100,
    restarts: int = 1,
    n_targets: int = 0,
    classes: int = 10,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    search_steps: int = 3,
    enough: float = 0.0,
    near_misses: int = 0,
) -> Tensor:
    """The nearest point found that is misclassified: float32 [n, *shape].

    Each step linearises the boundary of the nearest class at the current point, projects both the
    point and x onto it inside the box, and goes to a mean of the two, a little beyond. A point
    that is broken is recorded and pulled back towards x. At the end a line search between x and
    the best point removes what the overshoot left.

    `n_targets` above 0 is FAB-T: each of that many likeliest other classes (at most k - 1) has its
    boundary in a run of its own, one backward pass per step; any wrong class counts as broken, so
    it is no way to reach a given class. The paper's first form looks at all k classes; here at the
    `classes` likeliest of the clean input, so that 1000 classes do not cost 1000 backward passes
    per step. It picks the nearest by dual norm; here by the distance inside the box, which finds
    points up to 20 % nearer on linear models.

    `enough`: a sample with a point this near is left out of the runs that follow (for a cascade
    that asks about one eps alone), and one that just misses it gets `near_misses` runs more (the
    cost estimate is for such a sample). Where nothing breaks, the point of largest margin is
    returned.

    Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary
    attack", ICML 2020; FAB-T: "Reliable evaluation of adversarial robustness", ICML 2020.
    """
    stride = partial(_stride, alpha_max=alpha_max, eta=eta)

    def run(task: Task, nearest: Nearest, rivals: Tensor, index: Tensor, start: int) -> Nearest:
        if not index.shape[0]:
            return nearest
        some, known, rivals = task.rows(index), nearest.rows(index), rivals[index]
        point = some.x if start == 0 else _near(some, known, start)
        for _ in range(steps):
            point = stride(some, point, rivals)
            margin, broken = some.judged(some.model.logits(point))
            known = known.having_seen(point, margin, broken)
            # also where it is not clear enough to be an answer: else it stays there
            point = _pulled_back(some.x, point, margin > 0, beta)
        return nearest.put(index, known)

    def search(task: Task) -> Tensor:
        nearest, boundaries = Nearest.none(task), _boundaries(task, n_targets, classes)
        for rivals, start in itertools.product(boundaries, range(restarts)):
            nearest = run(task, nearest, rivals, indices(nearest.distance > enough), start)
        for start in range(restarts, restarts + near_misses):
            close = (nearest.distance > enough) & (nearest.distance <= NEAR_MISS * enough)
            nearest = run(task, nearest, boundaries[0][:, :1], indices(close), start)
        return _line_search(task, nearest, search_steps)

    return on_unbroken(model, x, y, None, budget=budget, rng=rng, search=search)


def _boundaries(task: Task, n_targets: int, classes: int) -> list[Tensor]:
    """The rivals [m, c] of each run in turn."""
    rivals = likeliest(task.logits, task.goal.labels, n_targets or classes - 1)
    return [column[:, None] for column in rivals.unbind(1)] if n_targets else [rivals]


def _near(task: Task, nearest: Nearest, restart: int) -> Tensor:
    """A random point half as far from x as the best one known, and inside the largest eps."""
    from robustbench_lite import norms

    rng, shape = task.rng.fork(f"restart-{restart}"), tuple(task.x.shape[1:])
    if task.norm == "linf":
        draw = rng.uniform(shape, -1.0, 1.0)
        direction = draw / norms.per_sample(draw.flatten(1).abs().amax(dim=1), draw)
    else:
        direction = on_sphere(rng, shape, task.norm, 1.0)
    radius = nearest.distance.clamp_max(task.radius).clamp_max(task.farthest()) / 2
    return task.clamped(task.x + direction * norms.per_sample(radius.to(task.x.dtype), task.x))


def _stride(task: Task, point: Tensor, rivals: Tensor, *, alpha_max: float, eta: float) -> Tensor:
    """One step of equation 8: a mean of both projections, each overshot by eta."""
    from robustbench_lite import norms

    plane, ahead = _ahead(task, point, rivals)
    direct = to_plane(task.x, plane.seen_from(task.x, point), task.box, task.norm)
    near, far = _length(ahead, task.norm), _length(direct, task.norm)
    alpha = (near / (near + far).clamp_min(SMALLEST)).clamp_max(alpha_max)
    beyond, over = point.add(ahead, alpha=eta), task.x.add(direct, alpha=eta)
    return task.clamped(beyond.lerp(over, norms.per_sample(alpha, point)))


def _ahead(task: Task, point: Tensor, rivals: Tensor) -> tuple[Plane, Tensor]:
    """The boundary to go to, and the shortest way to it from the point inside the box."""

    def inside(plane: Plane) -> tuple[Tensor, Tensor]:
        way = to_plane(point, plane, task.box, task.norm)
        return way, _length(way, task.norm)

    return nearest_plane(task.model, point, task.goal.labels, rivals, inside)


def _length(way: Tensor, norm: Norm) -> Tensor:
    """The norm of each row in its own precision: it weighs two ways, it judges nothing."""
    import torch

    flat = way.flatten(1)
    if norm == "linf":
        return flat.abs().amax(dim=1)
    length: Tensor = torch.linalg.vector_norm(flat, ord=2 if norm == "l2" else 1, dim=1)
    return length


def _pulled_back(x: Tensor, point: Tensor, broken: Tensor, beta: float) -> Tensor:
    import torch

    from robustbench_lite import norms

    share = torch.where(broken, beta, 1.0).to(x.dtype)
    return x.lerp(point, norms.per_sample(share, point))


def _line_search(task: Task, nearest: Nearest, steps: int) -> Tensor:
    """Towards x from each point that broke, by secants of the margin: float32 [m, *shape]."""
    import torch

    from robustbench_lite import norms

    index = indices(nearest.distance.isfinite())
    if not index.shape[0]:
        return nearest.point
    task, known = task.rows(index), nearest.rows(index)
    way = known.point - task.x
    low, high = torch.zeros_like(known.margin), torch.ones_like(known.margin)
    below, above = task.judged(task.logits)[0], known.margin
    for _ in range(steps):
        secant = (above / (above - below).clamp_min(SMALLEST)).clamp(0.0, 1.0)
        share = high - SHORT_OF_SECANT * secant * (high - low)
        point = task.clamped(task.x + norms.per_sample(share, way) * way)
        margin, broken = task.judged(task.model.logits(point))
        known = known.having_seen(point, margin, broken)
        low, below = low.where(broken, share), below.where(broken, margin)
        high, above = share.where(broken, high), margin.where(broken, above)
    return nearest.put(index, known).point


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, FabParams)
    rivals = params.n_targets or params.classes - 1
    rivals = rivals if classes is None else min(rivals, classes - 1)
    again = params.steps * params.near_misses
    passes = params.restarts * params.steps * rivals + again
    looks = passes if params.n_targets else params.restarts * params.steps + again
    return Cost(queries=1 + passes + looks + params.search_steps, gradients=passes)


SPEC = AttackSpec(
    name="fab",
    implementation=fab,
    summary="projections onto linearised boundaries inside the box, nearest point kept",
    norms=("linf", "l2", "l1"),
    access="gradient",
    params=FabParams,
    paper="https://arxiv.org/abs/1907.02044",
    kind="minimal-norm",
    effort="iterative",
    cost=_cost,
)
