"""FMN: near exact on linear models in three norms, few pixels in the fourth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustbench_lite import Norm
from robustbench_lite.builtin.attacks.fmn import SPEC
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
    fewest_pixels,
    fortress,
    in_a_box_four_times_as_wide,
    mnist,
    with_logits_times,
)
from tests.oracles import linear_problem, network_problem

MEASURED: tuple[Norm, ...] = ("linf", "l2", "l1")
NORMS: tuple[Norm, ...] = (*MEASURED, "l0")
RANGES: dict[Norm, tuple[float, float]] = {
    "linf": (0.02, 0.06),
    "l2": (0.4, 1.0),
    "l1": (2, 6),
    "l0": (2, 8),
}


@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
@pytest.mark.parametrize("norm", MEASURED)
def test_on_two_linear_classes_it_is_within_one_percent(norm: Norm, edge: bool) -> None:
    for seed, (shape, n) in enumerate(zip(SHAPES, BATCHES, strict=True)):
        problem = linear_problem(seed, classes=2, shape=shape, n=n, edge=edge)
        assert_near_exact(SPEC, problem, norm, excess=0.01, steps=200)


@pytest.mark.parametrize("norm", MEASURED)
def test_on_ten_linear_classes_one_run_per_target_is_within_one_percent(norm: Norm) -> None:
    problem = linear_problem(0, classes=10, shape=(2, 3, 4), n=3)
    assert_union_near_exact(SPEC, problem, norm, excess=0.01, steps=150)


@pytest.mark.parametrize("shape", [(24,), (3, 4, 6)], ids=str)
def test_on_two_linear_classes_it_changes_as_few_pixels_as_possible(shape: tuple[int, ...]) -> None:
    excess: list[float] = []
    for seed in range(4):
        problem = linear_problem(seed, classes=2, shape=shape, n=8, edge=True)
        x_adv = attacked(SPEC, problem, "l0", steps=500)
        assert broken(problem, x_adv).all()
        excess += list(distances(problem, x_adv, "l0") - fewest_pixels(problem))
    assert min(excess) >= 0
    assert max(excess) <= 1
    assert np.mean(excess) <= 0.1


@pytest.mark.parametrize("norm", NORMS)
def test_every_digit_breaks(norm: Norm) -> None:
    problem = mnist()
    x_adv = attacked(SPEC, problem, norm, steps=100)
    assert broken(problem, x_adv).all()
    low, high = RANGES[norm]
    assert low < float(np.median(distances(problem, x_adv, norm))) < high


@pytest.mark.parametrize("norm", NORMS)
def test_a_target_is_reached(norm: Norm) -> None:
    problem = network_problem(1, classes=4, shape=(2, 3, 4), n=8)
    target = (problem.y + 1) % 4
    x_adv = attacked(SPEC, problem, norm, target=target, steps=200)
    assert torch.equal(problem.net(x_adv).argmax(dim=1), target)


@pytest.mark.parametrize("norm", NORMS)
def test_neither_the_scale_of_logits_nor_the_unit_of_the_box_matters(norm: Norm) -> None:
    problem = network_problem(1, classes=4, shape=(2, 3, 4), n=6)
    plain = distances(problem, attacked(SPEC, problem, norm, steps=200), norm)
    loud = with_logits_times(problem, 1024.0)
    got = distances(loud, attacked(SPEC, loud, norm, steps=200), norm)
    np.testing.assert_allclose(got, plain, rtol=2e-3)
    wide = in_a_box_four_times_as_wide(problem)
    got = distances(wide, attacked(SPEC, wide, norm, steps=200), norm)
    np.testing.assert_allclose(got, plain if norm == "l0" else 4 * plain, rtol=2e-3)


@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_broken_point_is_kept(norm: Norm) -> None:
    problem = network_problem(2, classes=4, shape=(2, 3, 4), n=4)
    assert_nearest_of_visited(SPEC, problem, norm, steps=30)


@pytest.mark.parametrize("norm", NORMS)
def test_of_failures_the_highest_margin_is_kept(norm: Norm) -> None:
    assert_best_of_failures(SPEC, norm, steps=9)


@pytest.mark.parametrize("norm", NORMS)
def test_it_costs_what_it_says(norm: Norm) -> None:
    assert_cost(SPEC, norm, fortress(), steps=7)
    assert_cost(SPEC, norm, linear_problem(0, classes=3, shape=(7,)), steps=7)
    assert SPEC.cost is not None
    assert SPEC.cost(SPEC.params.model_validate({"steps": 7}), None, None) == (9, 7)


@pytest.mark.parametrize("norm", NORMS)
def test_lost_samples_rest_and_flat_models_are_left(norm: Norm) -> None:
    assert_lost_samples_rest(SPEC, norm, steps=50)
    assert_moves_without_gradient(SPEC, norm, steps=50)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_contract(norm: Norm, shape: tuple[int, ...]) -> None:
    assert_minimal_contract(SPEC, norm, shape, steps=20)
