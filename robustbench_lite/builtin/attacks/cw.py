"""C&W: the minimal-norm attack of Carlini and Wagner in l2."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params

from .minimal_adam import Adam
from .minimal_search import Nearest, Task, indices, on_unbroken

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

INSIDE = 1 - 1e-4
"""Where a component on the end of the box starts in tanh space: atanh(1) would never move."""
WORTHWHILE = 0.9999  # a loss above this share of the one a tenth of the steps ago: give up
CHECKS = 10
LARGER = 10.0  # factor of the constant while nothing has broken


class CwParams(Params):
    """Parameters of `cw`."""

    steps: int = Field(default=1000, ge=1, description="gradient steps of one search, at most")
    learning_rate: float = Field(default=0.01, gt=0, description="of Adam, in tanh space")
    searches: int = Field(default=9, ge=1, description="values of the constant that are tried")
    initial_constant: float = Field(default=1e-3, gt=0, description="first weight of the margin")
    confidence: float = Field(default=0.0, ge=0, description="margin that is asked for (kappa)")
    abort_early: bool = Field(
        default=True, description="a sample leaves a search in which its loss has settled"
    )


@dataclass(frozen=True, slots=True)
class _Descent:
    """The samples still in a search: positions in the task, tanh-space points, last loss."""

    index: Tensor
    task: Task
    known: Nearest
    constant: Tensor
    w: Tensor
    adam: Adam
    broke: Tensor
    last: Tensor

    def rows(self, kept: Tensor) -> _Descent:
        return _Descent(
            self.index[kept],
            self.task.rows(kept),
            self.known.rows(kept),
            self.constant[kept],
            self.w[kept],
            self.adam.rows(kept),
            self.broke[kept],
            self.last[kept],
        )


def cw(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None = None,
    steps: int = 1000,
    learning_rate: float = 0.01,
    searches: int = 9,
    initial_constant: float = 1e-3,
    confidence: float = 0.0,
    abort_early: bool = True,
) -> Tensor:
    """The nearest point found that is misclassified (or at `target`): float32 [n, *shape].

    Adam minimises ||x' - x||^2 + c * max(-margin, -confidence) over w, where x' is tanh(w) fitted
    to the box and lengths are in widths of the box. Each search starts again at x. c is times 10
    while nothing has broken, then bisected; each sample has its own. Every tenth of the steps a
    sample leaves the search if its loss has not fallen by 0.01 %. Whether c was large enough is
    asked of the last tenth of its steps, where the search has settled, because Adam's first steps
    overshoot. A component on the end of the box starts just inside of it, so it can move. Where
    nothing breaks, the point of largest margin is returned.

    The authors' code allows 10,000 steps per search.

    Carlini and Wagner, "Towards evaluating the robustness of neural networks", S&P 2017, section
    VI-A; constants from the authors' code.
    """

    def search(task: Task) -> Tensor:
        import torch

        nearest = Nearest.none(task)
        low = torch.zeros_like(nearest.margin)
        high = torch.full_like(low, math.inf)
        constant = torch.full_like(low, initial_constant)
        for _ in range(searches):
            nearest, broke = _descend(
                task, nearest, constant, steps, learning_rate, confidence, abort_early=abort_early
            )
            low, high = low.where(broke, constant), constant.where(broke, high)
            constant = torch.where(high.isinf(), LARGER * constant, (low + high) / 2)
        return nearest.point

    return on_unbroken(model, x, y, target, budget=budget, rng=rng, search=search)


def _descend(
    task: Task,
    nearest: Nearest,
    constant: Tensor,
    steps: int,
    learning_rate: float,
    confidence: float,
    *,
    abort_early: bool,
) -> tuple[Nearest, Tensor]:
    """One search at the given constants [m]: what is nearest now, and whether each one broke."""
    import torch

    broke = torch.zeros_like(constant, dtype=torch.bool)
    everyone = torch.arange(constant.shape[0], device=constant.device)
    w = _to_tanh(task)
    last = torch.full_like(constant, math.inf)
    now = _Descent(everyone, task, nearest, constant, w, Adam.start(w), broke, last)
    interval = max(1, steps // CHECKS)
    for step in range(steps):
        now, loss = _step(now, learning_rate, confidence)
        if step + 1 == steps or step % interval == interval - 1:
            nearest = nearest.put(now.index, now.known)
            broke = broke.index_copy(0, now.index, now.broke)
            kept = indices(loss <= WORTHWHILE * now.last) if abort_early else everyone
            now = replace(now, last=loss, broke=torch.zeros_like(now.broke))
            if kept.shape[0] < loss.shape[0]:
                now = now.rows(kept)
            if not kept.shape[0]:
                break
    return nearest, broke


def _step(now: _Descent, learning_rate: float, confidence: float) -> tuple[_Descent, Tensor]:
    """One gradient step of Adam, and the loss [l] before it."""
    from robustbench_lite import norms

    task = now.task
    unit = (
        now.w.double().tanh().to(now.w.dtype)
    )  # float32 tanh varies with the batch in its last bit
    point = _from_tanh(unit, task)
    seen = task.model.value_and_gradient(point, task.goal.labels, task.goal.objective("margin"))
    margin, clear = task.judged(seen.logits)
    met = clear & (margin >= confidence)
    known = now.known.having_seen(point, margin, met)
    width = task.box.width
    delta = (point - task.x) / width
    missing = (confidence - seen.value).clamp_min(0.0)
    loss = delta.square().flatten(1).sum(dim=1) + now.constant * missing
    weight = now.constant.where(missing > 0, 0.0)
    push = norms.per_sample(weight, point) * seen.gradient.nan_to_num(0.0, 0.0, 0.0)
    slope = (2 * delta / width - push) * (width / 2) * (1 - unit.square())
    adam = now.adam.seen(slope)
    w = now.w - learning_rate * adam.direction()
    return replace(now, known=known, w=w, adam=adam, broke=now.broke | met), loss


def _to_tanh(task: Task) -> Tensor:
    unit = (task.x - task.box.low) * (2 / task.box.width) - 1
    return unit.clamp(-INSIDE, INSIDE).double().atanh().to(unit.dtype)


def _from_tanh(unit: Tensor, task: Task) -> Tensor:
    return task.clamped(task.box.low + (unit + 1) * (task.box.width / 2))


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, CwParams)
    passes = params.searches * params.steps
    return Cost(queries=1 + passes, gradients=passes)


SPEC = AttackSpec(
    name="cw",
    implementation=cw,
    summary="squared distance plus weighted margin, by Adam in tanh space, weight bisected",
    norms=("l2",),
    access="gradient",
    params=CwParams,
    paper="https://arxiv.org/abs/1608.04644",
    kind="minimal-norm",
    effort="iterative",
    targeted=True,
    cost=_cost,
)
