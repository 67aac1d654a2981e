"""AutoAttack: the union of its parts, for any number of classes, at the cost of its parts."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from robustbench_lite import Cost, Norm
from robustbench_lite.builtin.attacks import apgd, autoattack, fab, square
from robustbench_lite.builtin.attacks.autoattack import SPEC, Part, cascade
from tests.apgd_world import Rowwise, Times, TwoFaced, broken, robust_mnist, with_net
from tests.oracles import (
    WIDE,
    Problem,
    assert_contract,
    assert_legal,
    estimated,
    highest_gains,
    linear_problem,
    network_problem,
    run,
    undecided_eps,
)

NORMS: tuple[Norm, ...] = ("linf", "l2")

SHORT = (
    Part("apgd-ce", apgd.SPEC, {"loss": "cross-entropy", "steps": 4}),
    Part("apgd-t", apgd.SPEC, {"loss": "dlr-targeted", "steps": 4, "n_targets": 2}),
    Part("fab-t", fab.SPEC, {"steps": 4, "n_targets": 2}),
    Part("square", square.SPEC, {"queries": 30}),
)
"""The standard cascade in miniature."""
NO_NEAR_MISS = defaultdict[str, dict[str, int]](dict, {"fab-t": {"near_misses": 0}})


def short(problem: Problem, norm: Norm, eps: float, parts: Sequence[Part] = SHORT) -> Tensor:
    return cascade(
        parts,
        problem.model(),
        problem.x,
        problem.y,
        budget=problem.budget(norm, eps),
        rng=problem.rng(),
    )


@pytest.mark.parametrize("norm", NORMS)
def test_the_order_decides_the_cost_and_not_who_falls(norm: Norm) -> None:
    problem = network_problem(1, classes=5, shape=(2, 4, 4), n=60)
    eps = {"linf": 0.006, "l2": 0.03}[norm]
    alone = [broken(problem, short(problem, norm, eps, [part])) for part in SHORT]
    assert len({int(hit.sum()) for hit in alone}) > 2
    for order in (SHORT, SHORT[::-1]):
        x_adv = short(problem, norm, eps, order)
        assert_legal(problem, x_adv, problem.budget(norm, eps))
        assert np.array_equal(broken(problem, x_adv), np.logical_or.reduce(alone))
    assert 0 < alone[0].sum() < 60


def test_a_sample_leaves_with_the_first_point_that_breaks_it() -> None:
    problem = network_problem(1, classes=5, shape=(2, 4, 4), n=60)
    after: list[Tensor] = [short(problem, "linf", 0.006, SHORT[:k]) for k in (1, 2, 3, 4)]
    gone = torch.as_tensor(broken(problem, after[0]))
    for x_adv in after[1:]:
        assert torch.equal(x_adv[gone], after[0][gone])
    margins = [problem.gains(x_adv).max(axis=1) for x_adv in after]
    for earlier, later in itertools.pairwise(margins):
        assert (later >= earlier - 1e-6).all()
    assert (margins[-1] > margins[0])[~gone.numpy()].any()


@pytest.mark.parametrize(("classes", "norm"), [(2, "linf"), (3, "l2"), (10, "linf")])
def test_the_standard_is_exact_on_linear_models_and_costs_what_it_says(
    classes: int, norm: Norm
) -> None:
    problem = linear_problem(3, classes=classes, shape=(2, 4, 4), edge=True)
    budget = problem.budget(norm, undecided_eps(problem, norm))
    model = problem.model()
    x_adv = run(SPEC, problem, budget, model=model)
    assert_legal(problem, x_adv, budget)
    hit = broken(problem, x_adv)
    assert np.array_equal(hit, highest_gains(problem, budget).max(axis=1) > 0)
    cost = estimated(SPEC, problem)
    assert 0 < hit.sum() < len(hit)
    wider = replace(budget, eps=fab.NEAR_MISS * budget.eps)
    near = highest_gains(problem, wider).max(axis=1) > 0 if norm == "l2" else hit
    assert (near & ~hit).any() == (norm == "l2")
    again = 100 * autoattack.NEAR_MISSES * (~near | (norm == "linf"))[~hit]
    left = ~torch.as_tensor(hit)
    assert model.queries[left].tolist() == (cost.queries - 2 * again).tolist()
    assert model.gradients[left].tolist() == (cost.gradients - again).tolist()
    assert int(model.queries[torch.as_tensor(hit)].max()) < 120  # APGD-CE had them


def test_the_versions_are_the_authors_and_cost_what_they_cost() -> None:
    names = {
        version: [part.name for part in autoattack.parts(version)]
        for version in ("standard", "plus", "rand")
    }
    assert names["standard"] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert sorted(names["plus"]) == sorted([*names["standard"], "apgd-dlr", "fab"])
    assert names["rand"] == ["apgd-ce", "apgd-dlr"]
    problem = network_problem(0, classes=10, shape=(1, 4, 4))
    apgd_ce, apgd_t, fab_t, queries = (1 + 101, 100), (1 + 909, 900), (2604, 1300), 5001
    looks = 1 + 4
    standard = estimated(SPEC, problem)
    assert standard.gradients == apgd_ce[1] + apgd_t[1] + fab_t[1]
    assert standard.queries == looks + apgd_ce[0] + apgd_t[0] + fab_t[0] + queries
    rand = estimated(SPEC, problem, version="rand")
    assert rand == Cost(queries=20 * (3 + 2 * (1 + 101)), gradients=20 * 200)
    assert estimated(SPEC, problem, version="plus").queries > 2 * standard.gradients


def test_every_part_of_plus_runs() -> None:
    parts = [
        replace(
            part,
            own={**part.own, "queries": 20} if part.name == "square" else {**part.own, "steps": 3},
        )
        for part in autoattack.parts("plus")
    ]
    problem = network_problem(1, classes=5, shape=(2, 4, 4), n=20)
    model = problem.model()
    x_adv = cascade(
        parts,
        model,
        problem.x,
        problem.y,
        budget=problem.budget("l2", 0.02),
        rng=problem.rng(),
    )
    robust = ~torch.as_tensor(broken(problem, x_adv))
    plain = [replace(part, own={**part.own} | NO_NEAR_MISS[part.name]) for part in parts]
    costs = [part.cost((2, 4, 4), 5) for part in plain]
    assert 0 < int(robust.sum()) < 20
    assert int(model.gradients[robust].max()) == sum(cost.gradients for cost in costs)
    assert int(model.queries[robust].max()) == 7 + sum(cost.queries for cost in costs)


def test_rand_sees_through_a_randomised_model() -> None:
    plain = linear_problem(1, classes=2, shape=(7,), n=40)
    budget = plain.budget("linf", undecided_eps(plain, "linf"))
    slope = 30 * torch.randn(7, generator=torch.Generator().manual_seed(0))
    faced = with_net(plain, TwoFaced(plain.net, slope))
    found = broken(plain, run(SPEC, faced, budget, version="rand"))
    assert np.array_equal(found, highest_gains(plain, budget).max(axis=1) > 0)


@pytest.mark.parametrize("classes", [2, 3, 4, 1000])
def test_any_number_of_classes_and_any_scale_of_logits(classes: int) -> None:
    problem = network_problem(2, classes=classes, shape=(1, 4, 4), n=20)
    eps = {2: 0.02, 3: 0.02, 4: 0.02, 1000: 0.002}[classes]
    plain = broken(problem, short(problem, "linf", eps))
    assert 0 < plain.sum() < 20
    for factor in (1e3, 1e4):
        scaled = with_net(problem, Times(problem.net, factor))
        assert np.array_equal(broken(problem, short(scaled, "linf", eps)), plain)


@pytest.mark.parametrize("norm", NORMS)
def test_contract_bit_for_bit(norm: Norm) -> None:
    x = torch.rand((5, 2, 3, 4), generator=torch.Generator().manual_seed(1)) * 3.5 - 1.5
    net = Rowwise(24, 5)
    problem = Problem(net=net, classes=5, box=WIDE, x=x, y=net(x).argmax(dim=1))
    spec = replace(SPEC, implementation=partial(cascade, SHORT))
    assert_contract(spec, problem, problem.budget(norm, {"linf": 0.01, "l2": 0.05}[norm]))


def test_a_sample_already_lost_costs_one_pass() -> None:
    problem = network_problem(1, classes=3, shape=(2, 3, 4))
    lost = problem.with_labels((problem.y + 1) % 3)
    model = lost.model()
    x_adv = run(SPEC, lost, lost.budget("linf", 0.3), model=model)
    assert torch.equal(x_adv, lost.x)
    assert bool((model.queries == 1).all())


@pytest.mark.slow
def test_on_the_robust_model_the_cascade_finds_more_than_its_first_part() -> None:
    problem = robust_mnist(100, skip=200)
    budget = problem.budget("linf", 0.3)
    first = broken(problem, run(apgd.SPEC, problem, budget))
    x_adv = run(SPEC, problem, budget)
    assert_legal(problem, x_adv, budget)
    found = broken(problem, x_adv)
    assert (found >= first).all()
    assert first.sum() <= found.sum() < 30
