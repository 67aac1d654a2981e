"""Exhaustive single pixel: every pixel at every corner of the box, one at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params

from .goal import Goal, goal_of
from .pixels import MAX_CHANNELS, as_pixels, corners, painted, pixel_grid

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

BLOCK = 64
"""Candidates that a sample tries before it is asked whether it is broken.

A constant, so that the passes spent on a sample depend on neither `chunk` nor the batch.
"""


class SinglePixelParams(Params):
    """Parameters of `single-pixel`."""

    chunk: int = Field(default=4096, ge=BLOCK, description="rows of one forward pass, at most")


def single_pixel(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,  # noqa: ARG001  (the contract; nothing here is random)
    target: Tensor | None = None,
    chunk: int = 4096,
) -> Tensor:
    """The first single-pixel change that breaks each sample, else the one of largest margin.

    Candidates are ordered by position, then by corner (`pixels.corners`); one that would change
    nothing is skipped. The answer is exact for changes to the ends of the box: "unbroken" is a
    proof, and the oracle for one-pixel attacks that search. A budget of more than one pixel is
    spent as one, below one pixel nothing is changed; a sample that is misclassified (or at its
    target) from the beginning is returned as it came. Returns float32 [n, *shape].

    The one-pixel case of Croce and Hein, "Sparse and imperceivable adversarial attacks" (ICCV
    2019, CornerSearch); the question is of Su, Vargas and Sakurai, "One pixel attack for fooling
    deep neural networks" (2019).
    """
    import torch

    goal = goal_of(y, target)
    if budget.eps < 1 or not x.shape[0]:
        return x.clone()
    channels, positions = pixel_grid(tuple(x.shape[1:]))
    palette = corners(channels, budget.box, x)
    score = x.new_full((x.shape[0],), -math.inf)
    choice = torch.zeros_like(y)
    attacked = active = (~goal.reached(model.logits(x))).nonzero().squeeze(1)
    candidates = torch.arange(positions * len(palette), device=x.device)
    for block in torch.split(candidates, BLOCK):
        for group in torch.split(active, chunk // BLOCK):
            scores = _scores(model, x, goal, group=group, block=block, palette=palette)
            best, place = scores.max(dim=1).values, scores.argmax(dim=1)
            better = best > score[group]
            score[group] = best.where(better, score[group])
            choice[group] = block[place].where(better, choice[group])
        active = active[score[active] < math.inf]
        if not active.shape[0]:
            break
    position, corner = _split(choice[attacked], len(palette))
    changed = painted(x, attacked, position.unsqueeze(1), palette[corner].unsqueeze(2))
    return x.index_copy(0, attacked, changed)


def _scores(
    model: Classifier, x: Tensor, goal: Goal, *, group: Tensor, block: Tensor, palette: Tensor
) -> Tensor:
    """What every candidate of `block` [b] does to every sample of `group` [g]: [g, b].

    The margin by which the goal is missed or met; inf where it is reached, -inf where the
    candidate changes nothing or the output is not finite.
    """
    from robustbench_lite import losses

    position, corner = _split(block, len(palette))
    colour = palette[corner]
    changes = (as_pixels(x[group])[:, :, position] != colour.T).any(dim=1)
    row, column = changes.nonzero(as_tuple=True)
    rows = group[row]
    points = painted(x, rows, position[column].unsqueeze(1), colour[column].unsqueeze(2))
    logits = model.rows(rows).logits(points)
    goals = goal.rows(rows)
    margin = losses.resolve(goal.objective("margin"))(logits, goals.labels)
    margin = margin.where(margin.isfinite(), -math.inf).masked_fill(goals.reached(logits), math.inf)
    scores = x.new_full(changes.shape, -math.inf)
    scores[row, column] = margin
    return scores


def _split(candidate: Tensor, corner_count: int) -> tuple[Tensor, Tensor]:
    """Position and corner of candidates numbered by position, then corner."""
    return candidate // corner_count, candidate % corner_count


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost | None:  # noqa: ARG001
    if shape is None:
        return None
    channels, positions = pixel_grid(shape)
    return None if channels > MAX_CHANNELS else Cost(1 + positions * 2**channels, 0)


SPEC = AttackSpec(
    name="single-pixel",
    implementation=single_pixel,
    summary="every pixel at every corner of the box: exact",
    norms=("l0",),
    access="score",
    params=SinglePixelParams,
    paper="https://arxiv.org/abs/1909.05040",
    effort="exhaustive",
    targeted=True,
    default_eps="1",
    control="random-pixel",
    cost=_cost,
)
