"""The self-test of an evaluation: does the attack break a copy of the model that can be broken?

After the binarisation test of Zimmermann, Brendel, Tramer and Carlini, "Increasing Confidence in
Adversarial Robustness Evaluations", NeurIPS 2022. `planted` says what the copy is. Here a witness
is looked for in each sample's ball and box, a point whose gain exceeds the threshold t. Wherever it
comes from, its proof is a forward pass of the artefact, and nothing of the attack under test has
part in it: no code, loss, step or random number. The places looked at are

1. random extreme points of the ball (the paper's inner points);
2. the extreme point in the direction that a linear regression of the gain on those points gives.
   No gradient is asked for, so a model whose gradients are broken has a witness too, and one that
   luck does not find;
3. if the attack may use gradients, the end of five steps uphill inside a ball of 0.55 eps, towards
   each of the three likeliest other classes; the first that is clearly better than noise is taken.

t is 0.95 of the gain at 3. It is never below the best of 1 plus a share of what 2 adds to that (a
quarter; a half for attacks on scores, for which it is all), as long as this asks for no more than
0.8 of the best of 1 and 2. So an attack has to get as far as 55 % of its radius can take it, and
farther than noise. `docs/self-test.md` lists which attacks do and which do not.

A sample is left out where the logits hardly move in the ball: rounding would decide.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from . import losses, norms
from .access import BatchMemory, differentiate, score
from .craft import AttackFunction, craft, fixed_chance, targets
from .hookspecs import AttackSpec
from .judge import judge
from .planted import ANY, PlantedClassifier, Readout, ahead, planted_copy
from .rng import SampleRng
from .seen import Seen
from .types import NORMS, Access, Batch, Budget, Classifier, Cost, LoadedModel, covers

SAMPLES = 64  # an attack that breaks 95 % of these has at least 86 % (Wilson) of all
PASSED = 0.95  # share of the planted samples that a sound attack breaks

TESTED = "self-test samples"
PLANTED = "self-test planted"
BROKEN = "self-test broken"
QUERIES = "self-test queries"
GRADIENTS = "self-test gradients"

DRAWS: Mapping[Access, int] = MappingProxyType({"decision": 64, "score": 128, "gradient": 64})
BEYOND_NOISE: Mapping[Access, float] = MappingProxyType(
    {"decision": 0.0, "score": 0.5, "gradient": 0.25}
)
WITHIN_REACH = 0.8
INNER_BALL = 0.55
STEPS = 5
RIVALS = 3
CLEARLY = 1.25  # times what noise gains
CLOSE = 0.95
THIRD = 1.25  # margins below the label
RESOLUTION = 2e-3  # of the logits: the smallest gain that neither rounding nor a twin blurs
SMALLEST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """What was planted for n samples.

    `witness`: [n, *shape], breaks the copy where `usable` (bool [n]); elsewhere the readout means
    nothing. `cost`: passes per sample that it took.
    """

    readout: Readout
    witness: Tensor
    usable: Tensor
    cost: Cost


@dataclass(frozen=True, slots=True)
class _Search:
    """Where the witnesses of x [n, *shape] towards the classes `rivals` [n, m] are looked for."""

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
class _Noise:
    """What random points gave: best gains [n, m], where [n, m, *shape], regression slopes alike."""

    gains: Tensor
    points: Tensor
    slopes: Tensor


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
    """What to plant for x [n, *shape] with labels y in the ball and box of `budget`.

    `access`: what the attack may use. `goal`: int64 [n], the classes that a targeted one has to
    reach. `margin`: M, by default the median margin of these samples; where it is given, a plant
    depends on its own sample alone. A sample that is misclassified is not usable.
    """
    clean = score(model, x)
    margin = typical_margin(clean, y) if margin is None else margin
    climbing = access == "gradient" and model.differentiable is not None
    rivals = _rivals(clean, y, access, climbing) if goal is None else goal[:, None]
    search = _Search(model, x, y, rivals, ahead(clean, y, rivals), budget)
    noise = _explore(search, rng.fork("planted"), DRAWS[access])
    ends = [_climb(search, way, bpda) for way in range(rivals.shape[1])] if climbing else []
    climbed = torch.stack(
        [search.gains(end)[:, way] for way, end in enumerate(ends)]
        or [torch.zeros_like(noise.gains[:, 0])],
        dim=1,
    )
    way = (climbed / noise.gains.clamp_min(SMALLEST)).clamp_max(CLEARLY).argmax(dim=1)
    row = torch.arange(x.shape[0], device=x.device)
    guess = search.extreme(noise.slopes[row, way])
    points = torch.stack([noise.points[row, way], guess], dim=1)
    gains = torch.stack([noise.gains[row, way], search.gains(guess)[row, way]], dim=1)
    threshold = _beyond_noise(gains, BEYOND_NOISE[access])
    if climbing:
        points = torch.cat([points, torch.stack(ends, dim=1)[row, way][:, None]], dim=1)
        gains = torch.cat([gains, climbed[row, way][:, None]], dim=1)
        threshold = torch.maximum(threshold, _share_of_climb(budget) * gains[:, 2])
    if goal is None and not covers(access, "score"):
        threshold = torch.minimum(threshold, -search.start[:, 0])
    best = gains.argmax(dim=1)
    rival = rivals[row, way]
    readout = Readout(
        x=x,
        y=y,
        rival=rival,
        start=search.start[row, way],
        margin=torch.full_like(threshold, margin),
        slope=margin / threshold.clamp_min(SMALLEST),
        others=margin / 2 + ahead(clean, y, _all(clean)).clamp_max(-THIRD * margin),
    )
    witness = points[row, best]
    size = clean.abs().gather(1, torch.stack([y, rival], dim=1)).amax(dim=1)
    usable = (gains[row, best] > RESOLUTION * size) & (losses.margin(clean, y) < 0) & (rival != y)
    usable &= readout(score(model, witness)).argmax(dim=1) == rival
    ways = len(ends)
    cost = Cost(queries=DRAWS[access] + 3 + ways * (STEPS + 1), gradients=ways * STEPS)
    return Plant(readout=readout, witness=witness, usable=usable, cost=cost)


def typical_margin(logits: Tensor, y: Tensor) -> float:
    """Median over samples of the label's logit minus the best other one."""
    return float(-losses.margin(logits, y).nanmedian())


def _all(logits: Tensor) -> Tensor:
    return torch.arange(logits.shape[1], device=logits.device).expand_as(logits)


def _rivals(clean: Tensor, y: Tensor, access: Access, climbing: bool) -> Tensor:
    if not covers(access, "score"):
        return torch.full_like(y, ANY)[:, None]
    others = clean.scatter(1, y[:, None], -math.inf)
    return others.topk(min(RIVALS if climbing else 1, clean.shape[1] - 1), dim=1).indices


def _explore(search: _Search, rng: SampleRng, draws: int) -> _Noise:
    """Random extreme points, and the least-squares slope of the gain over each component alone."""
    x, ways = search.x, search.rivals.shape[1]
    shape = tuple(x.shape[1:])
    best = torch.zeros_like(search.start)
    points = x[:, None].repeat(1, ways, *[1] * len(shape))
    moved, squared, together = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(points)
    total = torch.zeros_like(best)
    for _ in range(draws):
        point = search.extreme(rng.uniform(shape, -1.0, 1.0))
        gains = search.gains(point)
        better = gains > best
        best = gains.where(better, best)
        points = point[:, None].where(_spread(better, shape), points)
        step = point - x
        total += gains
        moved += step
        squared += step.square()
        together += _spread(gains, shape) * step[:, None]
    mean = moved / draws
    variance = (squared / draws - mean.square())[:, None]
    common = together / draws - _spread(total / draws, shape) * mean[:, None]
    varies = variance > variance.flatten(1).amax(dim=1).view(-1, *[1] * (len(shape) + 1)) * 1e-6
    slopes = torch.where(varies, common / variance.clamp_min(SMALLEST), 0.0)
    return _Noise(best, points, slopes)


def _spread(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """values [n, m] to broadcast against [n, m, *shape]."""
    return values.reshape(*values.shape, *[1] * len(shape))


def _climb(search: _Search, way: int, bpda: tuple[str, ...]) -> Tensor:
    """The end of a few steps uphill in the gain towards one rival, in the inner ball."""
    rival = search.rivals[:, way : way + 1]
    inner = _inner_ball(search.budget)
    point = search.x

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


def _share_of_climb(budget: Budget) -> float:
    """Of the climb's gain, what is asked for; less where a whole pixel is more than its share."""
    return CLOSE * min(1.0, INNER_BALL * budget.eps / _inner_ball(budget).eps)


def _beyond_noise(gains: Tensor, share: float) -> Tensor:
    """The threshold from the gains [n, 2] of noise and of regression, [n]."""
    noise, regression = gains.unbind(dim=1)
    threshold = noise + share * (regression - noise).clamp_min(0.0)
    return torch.minimum(threshold, WITHIN_REACH * gains.amax(dim=1))


def self_test(
    spec: AttackSpec,
    function: AttackFunction,
    params: Mapping[str, object],
    model: LoadedModel,
    batch: Batch,
    budget: Budget,
    rng: SampleRng,
    *,
    target: str | None = None,
    eot: int = 1,
    bpda: tuple[str, ...] = (),
    seconds: float = math.inf,
) -> Mapping[str, float]:
    """Run the attack as a cell runs it, but on a planted copy of `model`, and judge it there.

    It gets the first 64 samples of `batch` that the model classifies correctly, as far as they have
    a plant, within `budget`, the largest of its grid. `rng`: the cell's stream for `batch`.
    `target`, `eot`, `bpda`, `seconds`: as in the cell. The counts of several calls can be added:
    samples looked at, planted, broken, and all passes with those of the construction. Nothing is
    planted for a set that is no norm ball. What the attack raises passes through.
    """
    clean = score(model, batch.x)
    correct = (clean.argmax(dim=1) == batch.y) & clean.isfinite().all(dim=1)
    rows = correct.nonzero().squeeze(1)[:SAMPLES]
    counts = dict.fromkeys((PLANTED, BROKEN, GRADIENTS), 0.0)
    counts |= {TESTED: float(rows.shape[0]), QUERIES: float(batch.x.shape[0])}
    if not rows.shape[0] or budget.norm not in NORMS:
        return counts
    goal = None
    if target is not None:
        goal = targets(target, BatchMemory(model, batch.x, batch.y), batch, rng)[rows]
    ball = dataclasses.replace(budget, box=batch.box)
    x, y, own = batch.x[rows], batch.y[rows], rng.rows(rows)
    with fixed_chance(own):
        found = plant(model, x, y, ball, own, access=spec.access, goal=goal, bpda=bpda)
    counts[QUERIES] += found.cost.queries * rows.shape[0]
    counts[GRADIENTS] += found.cost.gradients * rows.shape[0]
    kept = found.usable.nonzero().squeeze(1)
    if not kept.shape[0]:
        return counts
    readout = found.readout.rows(kept)
    rows = rows[kept]
    part = dataclasses.replace(
        batch, ids=(), hashes=(), keys=batch.keys[rows], x=batch.x[rows], y=batch.y[rows]
    )
    goal = None if goal is None else goal[kept]
    seen = Seen(part.x, part.y, goal, budget)

    def on_the_copy(original: Classifier, *inputs: Tensor, **given: object) -> object:
        return function(PlantedClassifier(original, readout, spec.access, seen), *inputs, **given)

    crafted = craft(
        spec if covers(spec.access, "score") else dataclasses.replace(spec, access="score"),
        on_the_copy,
        params,
        BatchMemory(model, part.x, part.y),
        part,
        rows=torch.arange(rows.shape[0], device=rows.device),
        budget=budget,
        rng=rng.rows(rows),
        goal=goal,
        eot=eot,
        bpda=bpda,
        seconds=seconds,
    )
    counts[PLANTED] = float(rows.shape[0])
    counts[BROKEN] = float(
        _broken(planted_copy(model, readout), part, crafted.candidate, seen, budget, goal)
    )
    counts[QUERIES] += float(crafted.tally.queries.sum())
    counts[GRADIENTS] += float(crafted.tally.gradients.sum())
    return counts


def _broken(
    copy: LoadedModel,
    part: Batch,
    candidate: object,
    seen: Seen,
    budget: Budget,
    goal: Tensor | None,
) -> int:
    """Samples that what was returned breaks, or what was seen on the way: a cell counts both."""
    success = judge(copy, part, candidate, budget, goal=goal).success
    best = seen.best()
    if best is not None:
        passed_over = part.x.index_copy(0, best.rows, best.x)
        success = success | judge(copy, part, passed_over, budget, goal=goal).success
    return int(success.sum())
