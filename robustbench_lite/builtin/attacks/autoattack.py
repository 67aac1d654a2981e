"""AutoAttack: a fixed cascade of unlike attacks, each on the survivors of those before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Cost, Params

from . import apgd, fab, square
from .goal import goal_of

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

DRAWS = 20  # passes for one look at a randomised model
NEAR_MISSES = 4  # more runs of FAB for a sample that it broke just outside the ball


class AutoAttackParams(Params):
    """Parameters of `autoattack`: next to none, which is its point."""

    version: Literal["standard", "plus", "rand"] = Field(
        default="standard",
        description="standard: APGD-CE, APGD-T, FAB-T, Square; plus: APGD-DLR, FAB and restarts "
        "too; rand: for a randomised model, APGD-CE and APGD-DLR on means of 20 passes",
    )


@dataclass(frozen=True, slots=True)
class Part:
    """One attack of the cascade: `own` are its parameters, `name` its random stream."""

    name: str
    spec: AttackSpec
    own: Mapping[str, object] = field(default_factory=dict)

    def cost(self, shape: tuple[int, ...] | None, classes: int | None) -> Cost:
        """Passes per sample that it does not break."""
        assert self.spec.cost is not None
        cost = self.spec.cost(self.spec.params(**self.own), shape, classes)
        assert cost is not None
        return cost


def parts(version: str) -> Sequence[Part]:
    """The attacks of a version, cheap ones first: the order does not change what is broken."""
    entropy = {"loss": "cross-entropy", "steps": 100}
    ratio = {"loss": "dlr", "steps": 100}
    if version == "rand":
        return (
            Part("apgd-ce", apgd.SPEC, entropy),
            Part("apgd-dlr", apgd.SPEC, ratio),
        )
    more = version == "plus"
    restarts = {"restarts": 5 if more else 1}
    targets = {"loss": "dlr-targeted", "steps": 100, "n_targets": 9}
    return (
        Part("apgd-ce", apgd.SPEC, entropy | restarts),
        *([Part("apgd-dlr", apgd.SPEC, ratio | restarts)] if more else []),
        Part("apgd-t", apgd.SPEC, targets),
        *([Part("fab", fab.SPEC, {"steps": 100} | restarts)] if more else []),
        Part("fab-t", fab.SPEC, {"steps": 100, "n_targets": 9, "near_misses": NEAR_MISSES}),
        Part("square", square.SPEC, {"queries": 5000, "p_init": 0.8, "rescale_schedule": False}),
    )


def autoattack(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
    version: str = "standard",
) -> Tensor:
    """The first point of the cascade that breaks each sample: float32 [n, *shape].

    standard: APGD on cross-entropy, APGD-T and FAB-T towards the 9 likeliest other classes, Square
    with 5,000 queries. plus: 5 restarts of APGD-CE, APGD-DLR and FAB, and the other three. rand:
    APGD-CE and APGD-DLR on means of 20 passes, for a model whose output is random. A sample that
    is misclassified from the beginning is returned as it came, one that nothing breaks as the
    point of largest margin.

    In l2 a sample that FAB-T broke just outside the ball gets four more runs of it, from random
    starts towards the likeliest other class: few samples, and most of what the fixed starts miss.

    It departs from the authors' code where that fails: the cross-entropy is rescaled, so that large
    logits do not hide the gradient (`losses.rescaled_cross_entropy`); a model of fewer than four
    classes is attacked on margins, where the ratio needs more; a broken sample leaves at once. The
    order of the attacks changes the cost alone: the same samples are broken.

    Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", ICML 2020.
    """
    if version == "rand":
        model = model.averaged(DRAWS)
    return cascade(parts(version), model, x, y, budget=budget, rng=rng)


def cascade(
    attacks: Sequence[Part],
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    budget: Budget,
    rng: SampleRng,
) -> Tensor:
    """Each of `attacks` on the samples that those before it left."""
    from robustbench_lite import losses, norms

    best, goal = x.clone(), goal_of(y, None)
    if not x.shape[0]:
        return best
    margin = x.new_full((x.shape[0],), -math.inf)
    alive = (~goal.reached(model.logits(x))).nonzero().squeeze(1)
    for attack in attacks:
        if not alive.shape[0]:
            break
        start, labels, seen = x[alive], y[alive], model.rows(alive)
        own: dict[str, object] = dict(attack.own)
        if attack.spec is fab.SPEC:
            own["enough"] = budget.eps
            if budget.norm == "linf":  # there more runs broke nothing that the others left
                own["near_misses"] = 0
        found = cast("Callable[..., Tensor]", attack.spec.implementation)(
            seen,
            start,
            labels,
            budget=budget,
            rng=rng.rows(alive).fork(attack.name),
            **own,
        )
        point = norms.clip(found, start, budget)
        logits = seen.logits(point)
        broken, value = goal.rows(alive).reached(logits), losses.margin(logits, labels)
        better = broken | (value > margin[alive])
        best[alive] = point.where(norms.per_sample(better, point), best[alive])
        margin[alive] = value.where(better, margin[alive])
        alive = alive[~broken]
    return best


def _cost(params: Params, shape: tuple[int, ...] | None, classes: int | None) -> Cost:
    assert isinstance(params, AutoAttackParams)
    attacks = parts(params.version)
    draws = DRAWS if params.version == "rand" else 1
    costs = [attack.cost(shape, classes) for attack in attacks]
    return Cost(
        queries=draws * (len(attacks) + 1 + sum(cost.queries for cost in costs)),
        gradients=draws * sum(cost.gradients for cost in costs),
    )


SPEC = AttackSpec(
    name="autoattack",
    implementation=autoattack,
    summary="APGD-CE, APGD-T, FAB-T and Square in cascade on the survivors",
    norms=("linf", "l2"),
    access="gradient",
    params=AutoAttackParams,
    paper="https://arxiv.org/abs/2003.01690",
    effort="iterative",
    carries=True,
    cost=_cost,
)
