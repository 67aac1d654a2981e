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

import torch
from torch import Tensor

from .access import BatchMemory, score
from .craft import AttackFunction, craft, fixed_chance, targets
from .hookspecs import AttackSpec
from .judge import judge
from .planted import PlantedClassifier, plant, planted_copy
from .rng import SampleRng
from .seen import Seen
from .types import NORMS, Batch, Budget, Classifier, LoadedModel, covers

SAMPLES = 64  # an attack that breaks 95 % of these has at least 86 % (Wilson) of all
PASSED = 0.95  # share of the planted samples that a sound attack breaks

TESTED = "self-test samples"
PLANTED = "self-test planted"
BROKEN = "self-test broken"
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
        _broken(planted_copy(model, readout, eot), part, crafted.candidate, seen, budget, goal)
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
