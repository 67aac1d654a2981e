"""DDN: near exact on linear models, deaf to the scale of logits, nearest point kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustbench_lite.builtin.attacks.ddn import SPEC
from tests.minimal_cases import (
    BATCHES,
    SHAPES,
    assert_best_of_failures,
    assert_cost,
    assert_lost_samples_rest,
    assert_minimal_contract,
    assert_moves_without_gradient,
    assert_near_exact,
    assert_nearest_of_visited,
    assert_union_near_exact,
    attacked,
    broken,
    distances,
    exact_distances,
    fortress,
    in_a_box_four_times_as_wide,
    mnist,
    with_logits_times,
)
from tests.oracles import linear_problem, network_problem


@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
def test_on_two_linear_classes_it_is_within_one_percent(edge: bool) -> None:
    for seed, (shape, n) in enumerate(zip(SHAPES, BATCHES, strict=True)):
        problem = linear_problem(seed, classes=2, shape=shape, n=n, edge=edge)
        assert_near_exact(SPEC, problem, "l2", excess=0.01)


def test_on_ten_linear_classes_one_run_per_target_is_within_one_percent() -> None:
    for seed, (shape, n) in enumerate(zip(SHAPES, BATCHES, strict=True)):
        problem = linear_problem(seed, classes=10, shape=shape, n=n)
        assert_union_near_exact(SPEC, problem, "l2", excess=0.01, steps=200)


def test_on_ten_linear_classes_one_run_is_mostly_within_one_percent() -> None:
    excess: list[float] = []
    for seed in range(3):
        problem = linear_problem(seed, classes=10, shape=(2, 3, 4), n=20)
        x_adv = attacked(SPEC, problem, "l2")
        assert broken(problem, x_adv).all()
        excess += list(distances(problem, x_adv, "l2") / exact_distances(problem, "l2") - 1)
    assert min(excess) > -1e-4
    assert np.quantile(excess, 0.8) < 0.01


def test_every_digit_breaks() -> None:
    problem = mnist()
    x_adv = attacked(SPEC, problem, "l2")
    assert broken(problem, x_adv).all()
    assert 0.4 < float(np.median(distances(problem, x_adv, "l2"))) < 1.0


def test_a_target_is_reached() -> None:
    problem = network_problem(1, classes=4, shape=(2, 3, 4), n=8)
    target = (problem.y + 1) % 4
    x_adv = attacked(SPEC, problem, "l2", target=target)
    assert torch.equal(problem.net(x_adv).argmax(dim=1), target)


def test_neither_the_scale_of_logits_nor_the_unit_of_the_box_matters() -> None:
    """Times 1000 cross-entropy has no gradient in float32; this form of it does."""
    problem = network_problem(1, classes=4, shape=(2, 3, 4), n=6)
    plain = distances(problem, attacked(SPEC, problem, "l2"), "l2")
    for factor in (1e-3, 1e3):
        scaled = with_logits_times(problem, factor)
        got = distances(scaled, attacked(SPEC, scaled, "l2"), "l2")
        np.testing.assert_allclose(got, plain, rtol=2e-3)
    wide = in_a_box_four_times_as_wide(problem)
    got = distances(wide, attacked(SPEC, wide, "l2"), "l2")
    np.testing.assert_allclose(got, 4 * plain, rtol=2e-3)


def test_the_nearest_broken_point_is_kept() -> None:
    problem = network_problem(2, classes=4, shape=(2, 3, 4), n=4)
    assert_nearest_of_visited(SPEC, problem, "l2", steps=30)


def test_of_failures_the_highest_margin_is_kept() -> None:
    assert_best_of_failures(SPEC, "l2", steps=9)


@pytest.mark.parametrize("steps", [1, 7])
def test_it_costs_what_it_says(steps: int) -> None:
    assert_cost(SPEC, "l2", fortress(), steps=steps)
    assert_cost(SPEC, "l2", linear_problem(0, classes=3, shape=(7,)), steps=steps)
    assert SPEC.cost is not None
    assert SPEC.cost(SPEC.params.model_validate({"steps": 7}), None, None) == (9, 7)


def test_lost_samples_rest_and_flat_models_are_left() -> None:
    assert_lost_samples_rest(SPEC, "l2")
    assert_moves_without_gradient(SPEC, "l2")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract(shape: tuple[int, ...]) -> None:
    assert_minimal_contract(SPEC, "l2", shape, steps=40)
    assert_minimal_contract(SPEC, "l2", shape, classes=2, steps=40)
    assert_minimal_contract(SPEC, "l2", shape, classes=1000, steps=40)
