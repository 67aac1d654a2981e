"""DeepFool: steps to the nearest linearised boundary, in l2 or linf."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params

from .minimal_planes import DUAL, Plane, likeliest, nearest_plane
from .minimal_search import Nearest, Task, indices, on_unbroken

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng


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

    Each step goes to the nearest boundary as linearised where the last one ended. The point is
    x + (1 + overshoot) * (the steps so far), in the box; a sample leaves when its point breaks. On
    a linear model the answer is the exact distance times 1 + overshoot, in one step. Where nothing
    breaks, the point of largest margin is returned. The boundaries are those of the `candidates`
    likeliest classes of the clean input.

    Moosavi-Dezfooli, Fawzi and Frossard, "DeepFool: a simple and accurate method to fool deep
    neural networks", CVPR 2016, algorithm 2.
    """

    def search(task: Task) -> Tensor:
        nearest = Nearest.none(task)
        rivals = likeliest(task.logits, task.goal.labels, candidates - 1)
        index = indices(nearest.distance.isinf())
        some, known, base = task, nearest, task.x
        for _ in range(steps):
            base = some.clamped(base + _move(some, base, rivals[index]))
            point = some.clamped(some.x + (1 + overshoot) * (base - some.x))
            margin, broken = some.judged(some.model.logits(point))
            known = known.having_seen(point, margin, broken)
            nearest = nearest.put(index, known)
            kept = indices(~broken)  # the only time a step waits for the device
            if kept.shape[0] < index.shape[0]:
                index, some, known, base = (
                    index[kept],
                    some.rows(kept),
                    known.rows(kept),
                    base[kept],
                )
            if not index.shape[0]:
                break
        return nearest.point

    return on_unbroken(model, x, y, None, budget=budget, rng=rng, search=search)


def _move(task: Task, point: Tensor, rivals: Tensor) -> Tensor:
    """From the point to the nearest plane, the box apart: [m, *shape]."""
    from robustbench_lite import norms

    def straight(plane: Plane) -> tuple[Tensor, Tensor]:
        length = plane.value.abs() / norms.distance(plane.slope, DUAL[task.norm])
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
