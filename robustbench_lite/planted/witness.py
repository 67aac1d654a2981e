"""The point of each sample's ball that shall be adversarial, and the threshold that makes it so.

A witness is a point inside ball and box whose gain exceeds the threshold t. Wherever it comes from,
its proof is a forward pass of the artefact, and nothing of the attack under test has part in it: no
code, loss, step or random number. Three places are looked at.

1. Random extreme points of the ball (the inner points of the paper).
2. The extreme point in the direction that a linear regression of the gain on those points gives. No
   gradient is asked for, so a model whose gradients are broken has a witness too, and in more than
   a few dimensions it is one that luck does not find.
3. If the attack may use gradients: the end of five steps uphill inside a ball of 0.55 eps, towards
   each of the three likeliest other classes; the first that is clearly better than noise is taken.

t is 0.95 of the gain at 3. If this is more, it is the gain at 1 and a share of what 2 adds to it,
though at most a part of the best of the two: a quarter and 0.8 for attacks on gradients, a half and
0.8 on scores, none and a half on decisions. So an attack is asked for what lies within 55 % of its
radius, and for more than noise finds.

A sample has no plant where the logits hardly move in the ball: rounding would decide.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from .. import losses, norms
from ..access import differentiate, score
from ..rng import SampleRng
from ..types import Access, Budget, Cost, LoadedModel, covers
from .model import ANY, Readout, ahead, rivals_of

DRAWS: Mapping[Access, int] = MappingProxyType(
    {"none": 64, "decision": 64, "score": 128, "gradient": 64}
)
BEYOND_NOISE: Mapping[Access, float] = MappingProxyType(
    {"none": 0.0, "decision": 0.0, "score": 0.5, "gradient": 0.25}
)
WITHIN_REACH: Mapping[Access, float] = MappingProxyType(
    {"none": 0.5, "decision": 0.5, "score": 0.8, "gradient": 0.8}
)
INNER_BALL = 0.55
STEPS = 5
CLOSE = 0.95
RIVALS = 3
CLEARLY = 1.25  # times what noise gains
THIRD = 1.25  # margins below the label
RESOLUTION = 2e-3  # of the logits: the smallest gain that neither rounding nor a twin blurs
CONSTANT = 1e-6  # of the largest variance: a component that the draws hardly moved
SMALLEST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """What is planted for n samples.

    `witness`: [n, *shape], breaks the copy where `usable` (bool [n]); elsewhere the readout means
    nothing. `cost`: passes per sample that it took.
    """

    readout: Readout
    witness: Tensor
    usable: Tensor
    cost: Cost


@dataclass(frozen=True, slots=True)
class _Search:
    """Where points are looked for that bring x [n, *shape] nearer to `rivals` (int64 [n, m]).

    `start`: how far the rivals are ahead at x, [n, m].
    """

    model: LoadedModel
    x: Tensor
    y: Tensor
    rivals: Tensor
    start: Tensor
    budget: Budget

    def gains(self, point: Tensor) -> Tensor:
        """Gain towards each rival, [n, m], on the artefact; 0 where it is not finite."""
        found = ahead(score(self.model, point), self.y, self.rivals) - self.start
        return found.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)

    def extreme(self, direction: Tensor) -> Tensor:
        """The legal point farthest in `direction` [n, *shape]."""
        step = norms.linear_maximum(direction, self.x, self.budget)
        return norms.clip(self.x + step, self.x, self.budget)


@dataclass(frozen=True, slots=True)
class _Found:
    """The best point [n, m, *shape] of one place towards each rival, and its gain [n, m]."""

    points: Tensor
    gains: Tensor

    def towards(self, way: Tensor) -> _Found:
        """Towards one rival alone: `way` int64 [n], result [n, *shape] and [n]."""
        row = torch.arange(way.shape[0], device=way.device)
        return _Found(self.points[row, way], self.gains[row, way])


def plant(
    model: LoadedModel,
    x: Tensor,
    y: Tensor,
    budget: Budget,
    rng: SampleRng,
    *,
    access: Access,
    goal: Tensor | None = None,
    margin: float | None = None,
    bpda: tuple[str, ...] = (),
) -> Plant:
    """What to plant for x [n, *shape] with labels y in the ball and the (finite) box of `budget`.

    `access`: what the attack may use. `goal`: int64 [n], the classes that a targeted one has to
    reach. `margin`: M, by default the typical margin of these samples; where it is given, a plant
    depends on its own sample alone. A sample that is misclassified is not usable.
    """
    clean = score(model, x)
    margin = typical_margin(clean, y) if margin is None else margin
    climbing = access == "gradient" and model.differentiable is not None
    rivals = _rivals(clean, y, access, climbing) if goal is None else goal[:, None]
    search = _Search(model, x, y, rivals, ahead(clean, y, rivals), budget)
    noise, slopes = _explored(search, rng.fork("planted"), DRAWS[access])
    climb = _climbed(search, bpda) if climbing else None
    way = _way(noise, climb)
    row = torch.arange(x.shape[0], device=x.device)
    guess = search.extreme(slopes[row, way])
    places = [noise.towards(way), _Found(guess, search.gains(guess)[row, way])]
    threshold = _beyond_noise(places[0].gains, places[1].gains, access)
    if climb is not None:
        places.append(climb.towards(way))
        threshold = torch.maximum(threshold, _share_of_climb(budget) * places[2].gains)
    start = search.start[row, way]
    if not covers(access, "score") and goal is None:
        threshold = torch.minimum(threshold, -start)  # what the model misclassifies stays so
    gains = torch.stack([place.gains for place in places], dim=1)
    best = gains.argmax(dim=1)
    witness = torch.stack([place.points for place in places], dim=1)[row, best]
    rival = rivals[row, way]
    readout = Readout(
        x=x,
        y=y,
        rival=rival,
        start=start,
        margin=torch.full_like(start, margin),
        slope=margin / threshold.clamp_min(SMALLEST),
        others=margin / 2 + ahead(clean, y, _every_class(clean)).clamp_max(-THIRD * margin),
    )
    usable = (losses.margin(clean, y) < 0) & (start < 0) & readout.margin.isfinite()
    usable &= gains[row, best] > RESOLUTION * _size(clean, y, rival)
    usable &= _breaks(readout(score(model, witness)), y, goal)
    ways = 0 if climb is None else rivals.shape[1]
    cost = Cost(queries=DRAWS[access] + 3 + ways * (STEPS + 1), gradients=ways * STEPS)
    return Plant(readout=readout, witness=witness, usable=usable, cost=cost)


def typical_margin(logits: Tensor, y: Tensor) -> float:
    """Median over samples of the label's logit minus the best other one; 0 if none is finite."""
    return float((-losses.margin(logits, y)).nanmedian().nan_to_num(nan=0.0))


def _rivals(clean: Tensor, y: Tensor, access: Access, climbing: bool) -> Tensor:
    """The likeliest other classes; whichever is ahead, where none is likelier than the next."""
    if not covers(access, "score"):
        return torch.full_like(y, ANY)[:, None]
    others = clean.scatter(1, y[:, None], -math.inf)
    top = others.topk(min(RIVALS, clean.shape[1] - 1), dim=1)
    tied = torch.zeros_like(y, dtype=torch.bool)
    if top.values.shape[1] > 1:
        tied = top.values[:, 0] == top.values[:, 1]
    rivals = torch.where(tied[:, None], ANY, top.indices)
    return rivals if climbing else rivals[:, :1]


def _every_class(logits: Tensor) -> Tensor:
    return torch.arange(logits.shape[1], device=logits.device).expand_as(logits)


def _size(logits: Tensor, y: Tensor, rival: Tensor) -> Tensor:
    """The larger of the two logits that the readout compares, [n]."""
    two = torch.cat([y[:, None], rivals_of(logits, y, rival[:, None])], dim=1)
    return logits.gather(1, two).abs().amax(dim=1)


def _breaks(logits: Tensor, y: Tensor, goal: Tensor | None) -> Tensor:
    pred = logits.argmax(dim=1)
    return pred != y if goal is None else (pred != y) & (pred == goal)


def _explored(search: _Search, rng: SampleRng, draws: int) -> tuple[_Found, Tensor]:
    """The best of some random extreme points; least-squares slopes of the gain, [n, m, *shape].

    Of the gain over each component alone: the draws are independent, so the others are noise.
    """
    x, shape = search.x, tuple(search.x.shape[1:])
    best = torch.zeros_like(search.start)
    points = x[:, None].repeat(1, best.shape[1], *[1] * len(shape))
    moved, squared, together = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(points)
    total = torch.zeros_like(best)
    for _ in range(draws):
        point = search.extreme(rng.uniform(shape, -1.0, 1.0))
        gains = search.gains(point)
        points = point[:, None].where(_spread(gains > best, points), points)
        best = torch.maximum(best, gains)
        step = point - x
        total += gains
        moved += step
        squared += step.square()
        together += _spread(gains, points) * step[:, None]
    mean = moved / draws
    variance = squared / draws - mean.square()
    common = together / draws - _spread(total / draws, points) * mean[:, None]
    largest = norms.per_sample(variance.flatten(1).amax(dim=1), variance)
    varies = (variance > CONSTANT * largest)[:, None]
    slopes = torch.where(varies, common / variance.clamp_min(SMALLEST)[:, None], 0.0)
    return _Found(points, best), slopes


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """values [n, m] to broadcast against [n, m, *shape]."""
    return values.reshape(*values.shape, *[1] * (like.ndim - 2))


def _climbed(search: _Search, bpda: tuple[str, ...]) -> _Found:
    """Where a few steps uphill end, towards each rival, in the inner ball."""
    points, gains = [], []
    for way in range(search.rivals.shape[1]):
        end = _climb(search, search.rivals[:, way : way + 1], bpda)
        points.append(end)
        gains.append(search.gains(end)[:, way])
    return _Found(torch.stack(points, dim=1), torch.stack(gains, dim=1))


def _climb(search: _Search, rival: Tensor, bpda: tuple[str, ...]) -> Tensor:
    inner, point = _inner_ball(search.budget), search.x

    def gain(logits: Tensor, y: Tensor) -> Tensor:
        return ahead(logits, y, rival)[:, 0]

    for step in range(STEPS):
        slope = differentiate(search.model, point, search.y, gain, bpda).gradient
        slope = slope.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        length = inner.eps
        if inner.norm != "l0":
            length *= (1 + math.cos(math.pi * step / STEPS)) / 2
        move = norms.linear_maximum(slope, point, dataclasses.replace(inner, eps=length))
        point = norms.clip(point + move, search.x, inner)
    return point


def _inner_ball(budget: Budget) -> Budget:
    eps = INNER_BALL * budget.eps
    if budget.norm == "l0":
        eps = min(budget.eps, max(1.0, math.floor(eps)))
    return dataclasses.replace(budget, eps=eps)


def _way(noise: _Found, climb: _Found | None) -> Tensor:
    """Towards which rival to plant, int64 [n]: the first that is clearly better than noise."""
    if climb is None:
        return torch.zeros_like(noise.gains[:, 0], dtype=torch.int64)
    ratio = climb.gains / noise.gains.clamp_min(SMALLEST)
    return ratio.clamp_max(CLEARLY).argmax(dim=1)


def _beyond_noise(noise: Tensor, regressed: Tensor, access: Access) -> Tensor:
    asked = noise + BEYOND_NOISE[access] * (regressed - noise).clamp_min(0.0)
    return torch.minimum(asked, WITHIN_REACH[access] * torch.maximum(noise, regressed))


def _share_of_climb(budget: Budget) -> float:
    """Of the climb's gain, what is asked for: less where one pixel is more than its share."""
    inner = _inner_ball(budget).eps
    return CLOSE * min(1.0, INNER_BALL * budget.eps / inner) if inner > 0 else CLOSE
