"""sigma-zero: as few changed pixels as possible, by gradients of a smooth l0 norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params

from .minimal_adam import Adam
from .minimal_search import SMALLEST, Nearest, Task, cosine, on_unbroken

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng


class SigmaZeroParams(Params):
    """Parameters of `sigma-zero`."""

    steps: int = Field(default=1000, ge=1, description="gradient steps")
    learning_rate: float = Field(
        default=1.0, gt=0, description="of Adam at the start, in widths of the box"
    )
    sigma: float = Field(default=1e-3, gt=0, description="softness of the smooth l0 norm")
    threshold: float = Field(
        default=0.3, ge=0, le=1, description="first size of a change that is kept, in widths"
    )
    threshold_rate: float = Field(
        default=0.01, ge=0, description="change of the threshold per step and learning rate"
    )


def sigma_zero(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None = None,
    steps: int = 1000,
    learning_rate: float = 1.0,
    sigma: float = 1e-3,
    threshold: float = 0.3,
    threshold_rate: float = 0.01,
) -> Tensor:
    """The point with fewest changed pixels that is misclassified (or at `target`), [n, *shape].

    Adam lowers max(-margin, 0) plus the mean over pixels of s / (s + sigma), s being the squared
    change of a pixel in widths of the box; the gradient is divided by its largest component, and
    the learning rate falls to 0 along half a cosine. After each step pixels that changed by less
    than the threshold are set back. The threshold grows while the point is broken and shrinks
    while it is not. Where nothing breaks, the point of largest margin is returned.

    As in `Budget`, a pixel of an image [c, h, w] counts once: its s sums over the channels, its
    size is that of its largest channel. For any other shape a pixel is a component, as in the
    paper.

    Cina et al., "sigma-zero: gradient-based optimization of l0-norm adversarial examples", ICLR
    2025, algorithm 1.
    """

    def search(task: Task) -> Tensor:
        import torch

        from robustbench_lite import norms

        width, nearest, point = task.box.width, Nearest.none(task), task.x
        delta = torch.zeros_like(point)
        adam = Adam.start(delta)
        least = point.new_full((point.shape[0],), threshold)
        for step in range(steps):
            seen = task.model.value_and_gradient(
                point, task.goal.labels, task.goal.objective("margin")
            )
            margin, broken = task.judged(seen.logits)
            nearest = nearest.having_seen(point, margin, broken)
            rate = cosine(step / steps, learning_rate, 0.0)
            climb = (seen.gradient * -width).nan_to_num(0.0, 0.0, 0.0)
            slope = climb.where(norms.per_sample(~broken, climb), 0.0) + _smooth_slope(delta, sigma)
            largest = slope.flatten(1).abs().amax(dim=1).clamp_min(SMALLEST)
            adam = adam.seen(slope / norms.per_sample(largest, slope))
            moved = task.clamped(task.x + width * (delta - rate * adam.direction()))
            delta = (moved - task.x) / width
            least = (least + threshold_rate * rate * (2 * broken.float() - 1)).clamp(0.0, 1.0)
            delta = delta.where(_size(delta) >= norms.per_sample(least, delta), 0.0)
            point = task.clamped(task.x + width * delta)
        return nearest.having_seen(point, *task.judged(task.model.logits(point))).point

    return on_unbroken(model, x, y, target, budget=budget, rng=rng, search=search)


def _smooth_slope(delta: Tensor, sigma: float) -> Tensor:
    """Gradient of mean over pixels of s / (s + sigma), s the squared size: [m, *shape]."""
    square = delta.square()
    if delta.ndim == 4:
        square = square.sum(dim=1, keepdim=True)
    pixels = max(1, square[0].numel())
    return delta * (2 * sigma / pixels) / (square + sigma).square()


def _size(delta: Tensor) -> Tensor:
    """The largest change of each pixel, to broadcast against delta."""
    return delta.abs().amax(dim=1, keepdim=True) if delta.ndim == 4 else delta.abs()


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, SigmaZeroParams)
    return Cost(queries=params.steps + 2, gradients=params.steps)


SPEC = AttackSpec(
    name="sigma-zero",
    implementation=sigma_zero,
    summary="smooth l0 norm plus margin by Adam, small changes cut off at a moving threshold",
    norms=("l0",),
    access="gradient",
    params=SigmaZeroParams,
    paper="https://arxiv.org/abs/2402.01879",
    kind="minimal-norm",
    effort="iterative",
    targeted=True,
    cost=_cost,
)
