"""DDN: direction and norm decoupled, minimal in l2."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params

from .ball import on_sphere
from .minimal_search import SMALLEST, Nearest, Task, cosine, on_unbroken, unit

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

SHARPNESS = 8.0  # of the softmax over rivals at the clean input: its margin is 8 units
LAST_LENGTH = 0.01  # of a step, relative to the first (section 4.1 of the paper)


class DdnParams(Params):
    """Parameters of `ddn`."""

    steps: int = Field(default=300, ge=1, description="gradient steps")
    gamma: float = Field(default=0.05, gt=0, lt=1, description="change of the norm per step")
    initial_norm: float = Field(
        default=1.0, gt=0, description="norm of the first step, in widths of the box"
    )


def ddn(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None = None,
    steps: int = 300,
    gamma: float = 0.05,
    initial_norm: float = 1.0,
) -> Tensor:
    """The nearest point found that is misclassified (or at `target`): float32 [n, *shape].

    Each step goes along the gradient's direction by a length that falls from 1 to 0.01 (in widths
    of the box), then sets the norm of the change to (1 - gamma) of the last one where the point
    was broken, to (1 + gamma) of it where not. The gradient is that of cross-entropy, in a form
    that neither a factor of the logits nor float32 saturation can change (`_odds_at`). Where
    nothing breaks, the point of largest margin is returned.

    Rony et al., "Decoupling direction and norm for efficient gradient-based l2 adversarial attacks
    and defenses", CVPR 2019, algorithm 1, without its quantisation.
    """

    def search(task: Task) -> Tensor:
        from robustbench_lite import losses, norms

        odds = _odds_at(task)
        objective = losses.targeted(odds) if task.goal.targeted else odds
        blind = on_sphere(task.rng.fork("blind"), tuple(x.shape[1:]), "l2", 1.0)
        width, nearest, point = task.box.width, Nearest.none(task), task.x
        limit = task.farthest()
        radius = limit.new_full(limit.shape, initial_norm * width)
        for step in range(steps):
            seen = task.model.value_and_gradient(point, task.goal.labels, objective)
            margin, broken = task.judged(seen.logits)
            nearest = nearest.having_seen(point, margin, broken)
            radius = (radius * (1 + gamma - 2 * gamma * broken.double())).minimum(limit)
            length = width * cosine(step / steps, 1.0, LAST_LENGTH)
            delta = point - task.x + length * unit(seen.gradient, blind)
            scale = radius / norms.distance(delta, "l2").clamp_min(SMALLEST)
            delta = delta * norms.per_sample(scale.to(delta.dtype), delta)
            point = task.clamped(task.x + delta)
        return nearest.having_seen(point, *task.judged(task.model.logits(point))).point

    return on_unbroken(model, x, y, target, budget=budget, rng=rng, search=search)


def _odds_at(task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss: log sum of exp(z_j) over j != y, minus z_y, in units of the clean margin / 8.

    Cross-entropy is log(1 + exp(this)), so both have the same gradient but for a positive factor,
    which is 0 in float32 for a confident model and is divided out in a step anyway. The unit makes
    the weights of the rivals independent of the scale of the logits. In plain units a model with
    small logits would be pushed towards all classes at once: 33 % too far on random linear models.
    """
    margin, _ = task.judged(task.logits)
    unit_of_logits = (margin.abs() / SHARPNESS).clamp_min(SMALLEST)[:, None]

    def odds(logits: Tensor, y: Tensor) -> Tensor:
        scaled = logits / unit_of_logits
        own = scaled.gather(1, y[:, None]).squeeze(1)
        return scaled.scatter(1, y[:, None], float("-inf")).logsumexp(dim=1) - own

    return odds


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, DdnParams)
    return Cost(queries=params.steps + 2, gradients=params.steps)


SPEC = AttackSpec(
    name="ddn",
    implementation=ddn,
    summary="gradient direction, and a norm that shrinks while broken and grows while not",
    norms=("l2",),
    access="gradient",
    params=DdnParams,
    paper="https://arxiv.org/abs/1811.09600",
    kind="minimal-norm",
    effort="iterative",
    targeted=True,
    cost=_cost,
)
