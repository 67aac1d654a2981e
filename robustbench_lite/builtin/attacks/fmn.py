"""FMN: fast minimum-norm attack in linf, l2, l1 or l0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Norm, Params

from .ball import on_sphere
from .minimal_planes import DUAL
from .minimal_search import SMALLEST, Nearest, Task, cosine, on_unbroken, unit

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

LAST_SHARE = 0.01  # of the last step length in the first
LAST_GAMMA = 0.001
FIRST_LENGTH: dict[Norm, float] = {"linf": 10.0, "l2": 1.0, "l1": 1.0, "l0": 1.0}


class FmnParams(Params):
    """Parameters of `fmn`."""

    steps: int = Field(default=1000, ge=1, description="gradient steps")
    step_size: float | None = Field(
        default=None,
        gt=0,
        description="l2 length of the first step in box widths; default: 10 for linf, else 1",
    )
    gamma: float = Field(
        default=0.05, ge=LAST_GAMMA, lt=1, description="first change of the radius per step"
    )


def fmn(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None = None,
    steps: int = 1000,
    step_size: float | None = None,
    gamma: float = 0.05,
) -> Tensor:
    """The nearest point found that is misclassified (or at `target`): float32 [n, *shape].

    Each step first adapts a radius: down by gamma where the point is broken, up by gamma where it
    is not, and while nothing has broken yet to where the margin would vanish if the model were
    linear (distance plus |margin| over the gradient's dual norm). Then it goes along the margin's
    gradient and projects onto the ball of that radius and the box. Step length and gamma fall
    along half a cosine, to a hundredth and to 0.001. In l0 the radius counts pixels and changes by
    one at least. Where nothing breaks, the point of largest margin is returned.

    The steps are the 1000 of the paper's experiments; 100 are common and find larger distances.

    Pintor, Roli, Brendel and Biggio, "Fast minimum-norm adversarial attacks through adaptive norm
    constraints", NeurIPS 2021, algorithm 1.
    """

    def search(task: Task) -> Tensor:
        from robustbench_lite import norms

        first = task.box.width * (step_size or FIRST_LENGTH[task.norm])
        blind = on_sphere(task.rng.fork("blind"), tuple(x.shape[1:]), "l2", 1.0)
        nearest, point = Nearest.none(task), task.x
        limit = task.farthest()
        radius = limit.new_zeros(limit.shape)
        for step in range(steps):
            seen = task.model.value_and_gradient(
                point, task.goal.labels, task.goal.objective("margin")
            )
            margin, broken = task.judged(seen.logits)
            nearest = nearest.having_seen(point, margin, broken)
            change = cosine(step / steps, gamma, LAST_GAMMA)
            adapted = _counted if task.norm == "l0" else _measured
            radius = adapted(radius, nearest, broken, change, point, seen.value, seen.gradient)
            radius = radius.minimum(limit)
            length = cosine(step / steps, first, LAST_SHARE * first)
            delta = point - task.x + length * unit(seen.gradient, blind)
            point = task.clamped(task.x + norms.project(delta, task.norm, radius))
        return nearest.having_seen(point, *task.judged(task.model.logits(point))).point

    return on_unbroken(model, x, y, target, budget=budget, rng=rng, search=search)


def _measured(
    radius: Tensor,
    nearest: Nearest,
    broken: Tensor,
    gamma: float,
    point: Tensor,
    value: Tensor,
    gradient: Tensor,
) -> Tensor:
    """The next radius for linf, l2, l1: float64 [m].

    Until something breaks it is the estimate, and gamma more than the last radius at least: on a
    linear model rounding, in a box clipping, would otherwise hold it at the boundary for ever.
    """
    import torch

    from robustbench_lite import norms

    here = norms.distance(point.double() - nearest.x.double(), nearest.norm)
    slope = norms.distance(gradient, DUAL[nearest.norm]).clamp_min(SMALLEST)
    estimate = torch.where(nearest.distance.isinf(), here + value.abs() / slope, 0.0)
    wider = estimate.nan_to_num(0.0).maximum((1 + gamma) * radius)
    return torch.where(broken, ((1 - gamma) * radius).minimum(nearest.distance), wider)


def _counted(
    radius: Tensor,
    nearest: Nearest,
    broken: Tensor,
    gamma: float,
    point: Tensor,  # noqa: ARG001  (as in `_measured`)
    value: Tensor,  # noqa: ARG001
    gradient: Tensor,  # noqa: ARG001
) -> Tensor:
    """The next radius for l0, a whole number of pixels: float64 [m]."""
    import torch

    narrower = (radius - 1).minimum(((1 - gamma) * radius).floor()).minimum(nearest.distance)
    wider = (radius + 1).maximum(((1 + gamma) * radius).floor())
    return torch.where(broken, narrower, wider).clamp_min(1.0)


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, FmnParams)
    return Cost(queries=params.steps + 2, gradients=params.steps)


SPEC = AttackSpec(
    name="fmn",
    implementation=fmn,
    summary="margin gradient, projected onto a ball whose radius follows the boundary",
    norms=("linf", "l2", "l1", "l0"),
    access="gradient",
    params=FmnParams,
    paper="https://arxiv.org/abs/2102.12827",
    kind="minimal-norm",
    effort="iterative",
    targeted=True,
    cost=_cost,
)
