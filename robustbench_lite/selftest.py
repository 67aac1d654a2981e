"""The self-test of an evaluation: does the attack break a copy of the model that can be broken?

After the binarisation test of Zimmermann, Brendel, Tramer and Carlini, "Increasing Confidence in
Adversarial Robustness Evaluations", NeurIPS 2022. `planted` says what the copy is and how it is
known that it can be broken; nothing of the attack under test has part in that: no code, loss, step
or random number. `docs/self-test.md` lists which attacks pass.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .access import BatchMemory, score
from .craft import AttackFunction, craft, fixed_chance, targets
from .hookspecs import AttackSpec
from .judge import judge
from .planted import PlantedClassifier, Readout, plant, planted_copy
from .rng import SampleRng
from .seen import Seen
from .types import NORMS, Batch, Budget, Classifier, LoadedModel, covers

SAMPLES = 64  # an attack that breaks 95 % of these has at least 86 % (Wilson) of all
PASSED = 0.95  # share of the planted samples that a sound attack breaks
ONE_MISS = 1  # of a handful of plants says nothing
STARVED = 0.75  # share from which a search without gradients is asked whether it lacked queries
LONGER_SAMPLES = 8  # missed ones that it gets again, with its own default number of queries
LENGTHS = ("queries", "steps")  # parameters that say how long an attack searches

TESTED = "self-test samples"
PLANTED = "self-test planted"
BROKEN = "self-test broken"
AGAIN = "self-test missed and given its default queries"
FOUND_AGAIN = "self-test broken by its default queries"
QUERIES = "self-test queries"
GRADIENTS = "self-test gradients"


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
    samples looked at, planted, broken, and all passes with those of the construction; of an attack
    that needs no gradient and finds nearly enough in fewer queries than its default, also how many
    of the first missed ones it finds with the default. Nothing is planted for a set that is no norm
    ball. What the attack raises passes through.
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
    part = _rows(batch, rows)
    goal = None if goal is None else goal[kept]
    copy = _Copy(spec, function, model, readout, part, budget, rng.rows(rows), goal)
    adaptive = _Adaptive(eot, bpda, seconds)
    broken, passes = copy.tried(params, adaptive)
    counts[PLANTED], counts[BROKEN] = float(rows.shape[0]), float(broken.sum())
    longer = _longer(spec, params)
    if longer is not None and _nearly(broken):
        missed = (~broken).nonzero().squeeze(1)[:LONGER_SAMPLES]
        again, more = copy.rows(missed).tried(longer, adaptive)
        counts |= {AGAIN: float(missed.shape[0]), FOUND_AGAIN: float(again.sum())}
        passes = (passes[0] + more[0], passes[1] + more[1])
    counts[QUERIES] += passes[0]
    counts[GRADIENTS] += passes[1]
    return counts


def allowed(planted: float) -> float:
    """How many of the planted samples a sound attack may miss."""
    return max(ONE_MISS, (1 - PASSED) * planted)


def starved(counts: Mapping[str, float]) -> bool:
    """Whether an attack missed too many for want of queries alone: with more it finds them."""
    given = counts.get(AGAIN, 0)
    return given > 0 and given - counts.get(FOUND_AGAIN, 0) <= ONE_MISS


def _nearly(broken: Tensor) -> bool:
    n, hits = broken.shape[0], int(broken.sum())
    return n - hits > allowed(n) and hits >= STARVED * n


def _longer(spec: AttackSpec, params: Mapping[str, object]) -> Mapping[str, object] | None:
    """`params` with a search as long as the plug-in's default, where the suite's is shorter.

    Of attacks without gradients alone: how many queries an attacker has is part of a threat model,
    how many steps of a gradient attack is not.
    """
    if covers(spec.access, "gradient"):
        return None
    fields = spec.params.model_fields
    usual = {name: fields[name].default for name in LENGTHS if name in fields}
    more = {
        name: most
        for name, most in usual.items()
        if isinstance(most, int) and isinstance(own := params.get(name), int) and own < most
    }
    return {**params, **more} if more else None


class _Adaptive(NamedTuple):
    """What a suite adds to an attack, and the time it has."""

    eot: int
    bpda: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Copy:
    """The planted copy of `model` for the samples of `part`, and the attack that is tried on it.

    `rng`: of these samples. `goal`: int64 [n] or None.
    """

    spec: AttackSpec
    function: AttackFunction
    model: LoadedModel
    readout: Readout
    part: Batch
    budget: Budget
    rng: SampleRng
    goal: Tensor | None

    def rows(self, index: Tensor) -> _Copy:
        """The samples `index` (int64 [m])."""
        return dataclasses.replace(
            self,
            readout=self.readout.rows(index),
            part=_rows(self.part, index),
            rng=self.rng.rows(index),
            goal=None if self.goal is None else self.goal[index],
        )

    def tried(
        self, params: Mapping[str, object], adaptive: _Adaptive
    ) -> tuple[Tensor, tuple[float, float]]:
        """Which samples the attack breaks (bool [n]), and its queries and gradients in all."""
        part, seen = self.part, Seen(self.part.x, self.part.y, self.goal, self.budget)
        access = self.spec.access

        def on_the_copy(original: Classifier, *inputs: Tensor, **given: object) -> object:
            copy = PlantedClassifier(original, self.readout, access, seen)
            return self.function(copy, *inputs, **given)

        scores = access if covers(access, "score") else "score"
        crafted = craft(
            dataclasses.replace(self.spec, access=scores),
            on_the_copy,
            params,
            BatchMemory(self.model, part.x, part.y),
            part,
            rows=torch.arange(part.x.shape[0], device=part.x.device),
            budget=self.budget,
            rng=self.rng,
            goal=self.goal,
            eot=adaptive.eot,
            bpda=adaptive.bpda,
            seconds=adaptive.seconds,
        )
        copy = planted_copy(self.model, self.readout, adaptive.eot)
        broken = _broken(copy, part, crafted.candidate, seen, self.budget, self.goal)
        tally = crafted.tally
        return broken, (float(tally.queries.sum()), float(tally.gradients.sum()))


def _rows(batch: Batch, index: Tensor) -> Batch:
    """Some samples of a batch, without their names."""
    keys, x, y = batch.keys[index], batch.x[index], batch.y[index]
    return dataclasses.replace(batch, ids=(), hashes=(), keys=keys, x=x, y=y)


def _broken(
    copy: LoadedModel,
    part: Batch,
    candidate: object,
    seen: Seen,
    budget: Budget,
    goal: Tensor | None,
) -> Tensor:
    """Samples (bool [n]) that a returned point breaks or a seen one: a cell counts both."""
    success = judge(copy, part, candidate, budget, goal=goal).success
    best = seen.best()
    if best is not None:
        passed_over = part.x.index_copy(0, best.rows, best.x)
        success = success | judge(copy, part, passed_over, budget, goal=goal).success
    return torch.from_numpy(success).to(part.x.device)
