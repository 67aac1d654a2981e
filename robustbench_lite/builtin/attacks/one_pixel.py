"""One pixel by differential evolution: position and colour, on scores alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Box, Budget, Classifier, Cost, Params

from .goal import Goal, goal_of
from .pixels import painted
from .square_windows import image_shape

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

LEVELS = 255
MEAN_LEVEL, SPREAD_LEVEL = 128, 127  # of the first colours
PARENTS = 3


class OnePixelParams(Params):
    """Parameters of `one-pixel`."""

    population: int = Field(default=400, ge=PARENTS + 1, description="candidates per generation")
    generations: int = Field(default=100, ge=0, description="generations after the first")
    weight: float = Field(
        default=0.5, gt=0, le=2, description="F, the share of a difference that is added"
    )
    chunk: int = Field(default=4096, ge=1, description="rows of one forward pass, at most")


@dataclass(frozen=True, slots=True)
class _Survivors:
    """The m samples not broken yet and the population of each.

    `index`: int64 [m], places in the batch. `genes`: [m, population, 2 + c], row and column in
    pixels, colour in the box. `fitness`: [m, population].
    """

    index: Tensor
    x: Tensor
    goal: Goal
    genes: Tensor
    fitness: Tensor

    def rows(self, index: Tensor) -> _Survivors:
        return _Survivors(
            self.index[index],
            self.x[index],
            self.goal.rows(index),
            self.genes[index],
            self.fitness[index],
        )


def one_pixel(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    target: Tensor | None = None,
    population: int = 400,
    generations: int = 100,
    weight: float = 0.5,
    chunk: int = 4096,
) -> Tensor:
    """The one-pixel change that breaks each sample, else the fittest: float32 [n, *shape].

    DE/rand/1 without crossover: a child is a + weight * (b - c) of three others, and takes the
    place of its own parent if it is fitter. Fitness is the probability of the true class, to
    fall, or of the target, to rise, compared as log-odds, which order alike and do not saturate.
    Every candidate is checked: a sample leaves with one that breaks it as soon as there is one,
    however confident the model still is (the paper waits for 5 % or 90 %). A row or column out of
    the image is drawn anew, a colour is clipped to the box. One pixel whatever the eps, none below
    1; a sample that is misclassified (or at its target) from the beginning is returned as it came.

    Su, Vargas, Sakurai, "One pixel attack for fooling deep neural networks", IEEE Transactions on
    Evolutionary Computation 23(5), 2019, section III.
    """
    if budget.eps < 1 or not x.shape[0]:
        return x.clone()
    x_adv = x.clone()
    goal = goal_of(y, target)
    index = (~goal.reached(model.logits(x))).nonzero().squeeze(1)
    children = _first(rng.rows(index), tuple(x.shape[1:]), population, budget.box)
    nothing = children.new_full(children.shape[:2], -math.inf)
    alive = _Survivors(index, x[index], goal.rows(index), children, nothing)
    for generation in range(generations + 1):
        if not alive.index.shape[0]:
            break
        if generation:
            children = _children(alive.genes, rng.rows(alive.index), weight, x, budget.box)
        fitness = _fitness(model, alive, children, chunk)
        better = fitness > alive.fitness
        alive = replace(
            alive,
            genes=children.where(better.unsqueeze(2), alive.genes),
            fitness=fitness.where(better, alive.fitness),
        )
        first = alive.fitness.argmax(dim=1, keepdim=True)
        broken = alive.fitness.gather(1, first).squeeze(1) == math.inf
        kept = (~broken).nonzero().squeeze(1)
        if kept.shape[0] < broken.shape[0]:
            x_adv.index_copy_(0, alive.index, _fittest(alive))
            alive = alive.rows(kept)
    return x_adv.index_copy(0, alive.index, _fittest(alive))


def _first(rng: SampleRng, shape: tuple[int, ...], population: int, box: Box) -> Tensor:
    """Uniform positions, normal colours: genes [m, population, 2 + c]."""
    import torch

    channels, height, width = image_shape(shape)
    places = rng.uniform((population, 2))
    level = (MEAN_LEVEL + SPREAD_LEVEL * rng.normal((population, channels))) / LEVELS
    colour = (box.low + box.width * level).clamp(box.low, box.high)
    return torch.cat((places * places.new_tensor((height, width)), colour), dim=2)


def _children(genes: Tensor, rng: SampleRng, weight: float, x: Tensor, box: Box) -> Tensor:
    """One child per parent from three other members, in the image and in the box."""
    import torch

    population, length = genes.shape[1:]
    others = _three_others(rng, population)
    a, b, c = (
        genes.gather(1, other.unsqueeze(2).expand(-1, -1, length)) for other in others.unbind(1)
    )
    child = a + weight * (b - c)
    size = genes.new_tensor(image_shape(tuple(x.shape[1:]))[1:])
    place = child[:, :, :2]
    anew = rng.uniform((population, 2)) * size
    place = place.where((place >= 0) & (place < size), anew)
    return torch.cat((place, child[:, :, 2:].clamp(box.low, box.high)), dim=2)


def _three_others(rng: SampleRng, population: int) -> Tensor:
    """Three members different from each other and from the parent: int64 [m, 3, population]."""
    import torch

    steps = rng.integers(1, population, (1, population))  # from the parent, cyclically
    for taken in range(1, PARENTS):
        step = rng.integers(1, population - taken, (1, population))
        for earlier in steps.sort(dim=1).values.unbind(1):
            step = step + (step >= earlier.unsqueeze(1))
        steps = torch.cat((steps, step), dim=1)
    parent = torch.arange(population, device=rng.device)
    return (steps + parent) % population


def _fitness(model: Classifier, alive: _Survivors, genes: Tensor, chunk: int) -> Tensor:
    """Log-odds in favour of the goal, [m, population]; inf where it is reached.

    -inf where the output is not finite.
    """
    import torch

    place, colour = _drawn_pixel(genes, tuple(alive.x.shape[1:]))
    found = []
    for members in torch.split(torch.arange(place.numel(), device=place.device), chunk):
        rows, member = members // genes.shape[1], members % genes.shape[1]
        points = painted(alive.x, rows, place[rows, member, None], colour[rows, member, :, None])
        goals = alive.goal.rows(rows)
        logits = model.rows(alive.index[rows]).logits(points)
        odds = _log_odds(logits, goals)
        odds = odds.where(odds.isfinite(), -math.inf)
        found.append(odds.masked_fill(goals.reached(logits), math.inf))
    return torch.cat(found).view(genes.shape[:2])


def _log_odds(logits: Tensor, goal: Goal) -> Tensor:
    """log(p / (1 - p)) of the target, or its negative for the true class, [m]."""
    own = logits.gather(1, goal.labels[:, None])
    others = logits.scatter(1, goal.labels[:, None], -math.inf).logsumexp(dim=1)
    odds = own.squeeze(1) - others
    return odds if goal.targeted else -odds


def _drawn_pixel(genes: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Flat positions [...] and colours [..., c] of genes [..., 2 + c]."""
    _, _, width = image_shape(shape)
    cell = genes[..., :2].long()
    return cell[..., 0] * width + cell[..., 1], genes[..., 2:]


def _fittest(alive: _Survivors) -> Tensor:
    """The sample of the fittest member, [m, *shape]; the clean one if none has a finite output."""
    from robustbench_lite import norms

    member = alive.fitness.argmax(dim=1)
    best = alive.genes.gather(1, member.view(-1, 1, 1).expand(-1, 1, alive.genes.shape[2]))
    place, colour = _drawn_pixel(best.squeeze(1), tuple(alive.x.shape[1:]))
    points = painted(alive.x, None, place.unsqueeze(1), colour.unsqueeze(2))
    known = alive.fitness.amax(dim=1) > -math.inf
    return points.where(norms.per_sample(known, points), alive.x)


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:  # noqa: ARG001
    assert isinstance(params, OnePixelParams)
    return Cost(queries=1 + params.population * (params.generations + 1), gradients=0)


SPEC = AttackSpec(
    name="one-pixel",
    implementation=one_pixel,
    summary="differential evolution of one pixel's position and colour",
    norms=("l0",),
    access="score",
    params=OnePixelParams,
    paper="https://arxiv.org/abs/1710.08864",
    effort="iterative",
    targeted=True,
    carries=True,
    default_eps="1",
    control="random-pixel",
    cost=_cost,
)
