"""HopSkipJump and the boundary attack: near exact on linear models, from decisions alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustbench_lite import AttackSpec, Norm
from robustbench_lite.builtin.attacks import boundary, hopskipjump
from tests.minimal_cases import (
    BATCHES,
    SHAPES,
    assert_minimal_contract,
    assert_near_exact,
    attacked,
    broken,
    distances,
    exact_distances,
)
from tests.oracles import estimated, linear_problem, network_problem, run

CASES: list[tuple[AttackSpec, Norm]] = [
    (hopskipjump.SPEC, "l2"),
    (hopskipjump.SPEC, "linf"),
    (boundary.SPEC, "l2"),
]
EACH = pytest.mark.parametrize(
    ("spec", "norm"), CASES, ids=lambda value: getattr(value, "name", value)
)


@EACH
def test_on_two_linear_classes_it_is_within_five_percent(spec: AttackSpec, norm: Norm) -> None:
    for seed, (shape, n) in enumerate(zip(SHAPES, BATCHES, strict=True)):
        problem = linear_problem(seed, classes=2, shape=shape, n=n)
        assert_near_exact(spec, problem, norm, excess=0.05)


@EACH
def test_on_ten_linear_classes_it_is_mostly_within_five_percent(
    spec: AttackSpec, norm: Norm
) -> None:
    problem = linear_problem(1, classes=10, shape=(2, 3, 4), n=12)
    x_adv = attacked(spec, problem, norm)
    assert broken(problem, x_adv).all()
    excess = distances(problem, x_adv, norm) / exact_distances(problem, norm) - 1
    assert excess.min() > -1e-4
    assert np.quantile(excess, 0.7) < 0.05


@EACH
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_keeps_the_contract(spec: AttackSpec, norm: Norm, shape: tuple[int, ...]) -> None:
    assert_minimal_contract(spec, norm, shape, queries=300)


@EACH
def test_a_lost_sample_rests(spec: AttackSpec, norm: Norm) -> None:
    problem = network_problem(1, classes=3, shape=(2, 3, 4), n=6)
    lost = problem.with_labels((problem.y + 1) % 3)
    model = lost.model()
    x_adv = run(spec, lost, lost.budget(norm, 10.0), model=model, queries=300)
    assert torch.equal(x_adv, lost.x)
    assert bool((model.queries == 1).all())


@EACH
@pytest.mark.parametrize("queries", [50, 700])
def test_it_stays_within_its_cost(spec: AttackSpec, norm: Norm, queries: int) -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4), n=6)
    model = problem.model()
    run(spec, problem, problem.budget(norm, 10.0), model=model, queries=queries)
    cost = estimated(spec, problem, queries=queries)
    assert float(model.queries.max()) <= cost.queries
    assert not model.gradients.any()


@EACH
def test_more_queries_never_lead_farther_away_on_the_whole(spec: AttackSpec, norm: Norm) -> None:
    problem = network_problem(2, classes=4, shape=(2, 3, 4), n=12)
    near = [
        np.median(distances(problem, attacked(spec, problem, norm, queries=queries), norm))
        for queries in (150, 1000, 6000)
    ]
    assert near[0] >= near[1] >= near[2]


@EACH
def test_towards_a_target_it_arrives_there_or_stays(spec: AttackSpec, norm: Norm) -> None:
    if not spec.targeted:
        pytest.skip("it takes no target")
    problem = network_problem(1, classes=4, shape=(2, 3, 4), n=10)
    goal = (problem.y + 1) % 4
    x_adv = run(spec, problem, problem.budget(norm, 10.0), target=goal, queries=1500)
    with torch.no_grad():
        pred = problem.net(x_adv).argmax(dim=1)
    moved = (x_adv != problem.x).flatten(1).any(dim=1)
    assert bool((pred[moved] == goal[moved]).all())
    assert int(moved.sum()) >= 5
