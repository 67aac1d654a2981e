"""DeepFool: steps to the nearest linearised boundary, in l2 or linf."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params

from .minimal_planes import DUAL, Plane, likeliest, nearest_plane
from .minimal_search import Nearest, Task, indices, on_unbroken

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

BEYOND = 1e-4
"""Of the box's width, that later steps go beyond the plane: without it they shorten for ever."""


class DeepFoolParams(Params):
    """Parameters of `deepfool`."""

    steps: int = Field(default=50, ge=1, description="steps, at most")
    overshoot: float = Field(
        default=0.02, ge=0, description="share by which the whole change is lengthened, once"
    )
    candidates: int = Field(
        default=10, ge=2, description="likeliest classes that are looked at, the own one included"
    )


def deepfool(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
) -> Tensor:
    """The first misclassified point on the way: float32 [n, *shape].

    The point is x + (1 + overshoot) * (the steps so far), in the box. Each step goes to the nearest
    boundary as linearised at that point, and every one but the first `BEYOND` it; a sample leaves
    when its point breaks. On a linear model the answer is the exact distance times 1 + overshoot,
    in one step. Where nothing breaks, the point of largest margin is returned. The boundaries are
    those of the `candidates` likeliest classes of the clean input.

    Moosavi-Dezfooli, Fawzi and Frossard, "DeepFool: a simple and accurate method to fool deep
    neural networks", CVPR 2016, algorithm 2.
    """

    def search(task: Task) -> Tensor:
        nearest = Nearest.none(task)
        rivals = likeliest(task.logits, task.goal.labels, candidates - 1)
        index = indices(nearest.distance.isinf())
        nudge = BEYOND * task.box.width if math.isfinite(task.box.width) else 0.0
        some, known, base, point = task, nearest, task.x, task.x
        for step in range(steps):
            beyond = nudge if step else 0.0
            base = some.clamped(base + _move(some, point, rivals[index], beyond))
            point = some.clamped(some.x + (1 + overshoot) * (base - some.x))
            margin, broken = some.judged(some.model.logits(point))
            known = known.having_seen(point, margin, broken)
            nearest = nearest.put(index, known)
            kept = indices(~broken)  # the only time a step waits for the device
            if kept.shape[0] < index.shape[0]:
                index, some, known = index[kept], some.rows(kept), known.rows(kept)
                base, point = base[kept], point[kept]
            if not index.shape[0]:
                break
        return nearest.point

    return on_unbroken(model, x, y, None, budget=budget, rng=rng, search=search)


def _move(task: Task, point: Tensor, rivals: Tensor, beyond: float) -> Tensor:
    """From the point to the nearest plane and `beyond` it, the box apart: [m, *shape]."""
    from robustbench_lite import norms

    def straight(plane: Plane) -> tuple[Tensor, Tensor]:
        length = plane.value.abs() / norms.distance(plane.slope, DUAL[task.norm]) + beyond
        way = norms.per_sample(length, point) * norms.steepest(plane.slope, task.norm)
        return way, length

    _, move = nearest_plane(task.model, point, task.goal.labels, rivals, straight)
    return move.to(point.dtype).nan_to_num(0.0, 0.0, 0.0)


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, DeepFoolParams)
    seen = params.candidates if classes is None else min(params.candidates, classes)
    return Cost(queries=1 + params.steps * seen, gradients=params.steps * (seen - 1))


SPEC = AttackSpec(
    name="deepfool",
    implementation=deepfool,
    summary="steps to the nearest linearised boundary until the class changes",
    norms=("l2", "linf"),
    access="gradient",
    params=DeepFoolParams,
    paper="https://arxiv.org/abs/1511.04599",
    kind="minimal-norm",
    effort="iterative",
    cost=_cost,
)
