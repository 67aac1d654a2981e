"""sigma-zero: as few pixels as possible on linear models, pixels of an image counted once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustbench_lite.builtin.attacks import fmn
from robustbench_lite.builtin.attacks.sigma_zero import SPEC
from tests.minimal_cases import (
    SHAPES,
    assert_best_of_failures,
    assert_cost,
    assert_lost_samples_rest,
    assert_minimal_contract,
    assert_moves_without_gradient,
    assert_nearest_of_visited,
    attacked,
    broken,
    distances,
    fewest_pixels,
    fortress,
    in_a_box_four_times_as_wide,
    mnist,
)
from tests.oracles import linear_problem, network_problem


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("shape", [(24,), (4, 6), (3, 4, 6)], ids=str)
def test_on_linear_models_it_changes_as_few_pixels_as_possible(
    shape: tuple[int, ...], classes: int
) -> None:
    excess: list[float] = []
    for seed, n in enumerate((1, 3, 8, 8)):
        problem = linear_problem(seed, classes=classes, shape=shape, n=n, edge=True)
        x_adv = attacked(SPEC, problem, "l0", steps=600)
        assert broken(problem, x_adv).all()
        excess += list(distances(problem, x_adv, "l0") - fewest_pixels(problem))
    assert min(excess) >= 0
    assert max(excess) <= 1
    assert np.mean(excess) <= 0.1


def test_every_digit_breaks_with_no_more_pixels_than_fmn() -> None:
    problem = mnist()
    x_adv = attacked(SPEC, problem, "l0", steps=300)
    assert broken(problem, x_adv).all()
    own, other = (
        float(np.mean(distances(problem, points, "l0")))
        for points in (x_adv, attacked(fmn.SPEC, problem, "l0", steps=300))
    )
    assert own <= 1.02 * other


def test_a_target_is_reached() -> None:
    problem = network_problem(1, classes=4, shape=(2, 3, 4), n=8)
    target = (problem.y + 1) % 4
    x_adv = attacked(SPEC, problem, "l0", target=target, steps=200)
    assert torch.equal(problem.net(x_adv).argmax(dim=1), target)


def test_the_unit_of_the_box_does_not_matter() -> None:
    problem = network_problem(1, classes=4, shape=(2, 3, 4), n=6)
    wide = in_a_box_four_times_as_wide(problem)
    assert np.array_equal(
        distances(problem, attacked(SPEC, problem, "l0", steps=200), "l0"),
        distances(wide, attacked(SPEC, wide, "l0", steps=200), "l0"),
    )


def test_the_nearest_broken_point_is_kept() -> None:
    problem = network_problem(2, classes=4, shape=(2, 3, 4), n=4)
    assert_nearest_of_visited(SPEC, problem, "l0", steps=60)


def test_of_failures_the_highest_margin_is_kept() -> None:
    assert_best_of_failures(SPEC, "l0", steps=9)


@pytest.mark.parametrize("steps", [1, 7])
def test_it_costs_what_it_says(steps: int) -> None:
    assert_cost(SPEC, "l0", fortress(), steps=steps)
    assert_cost(SPEC, "l0", linear_problem(0, classes=3, shape=(7,)), steps=steps)
    assert SPEC.cost is not None
    assert SPEC.cost(SPEC.params.model_validate({"steps": 7}), None, None) == (9, 7)


def test_lost_samples_rest_and_flat_models_are_left() -> None:
    assert_lost_samples_rest(SPEC, "l0", steps=50)
    assert_moves_without_gradient(SPEC, "l0", steps=50)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract(shape: tuple[int, ...]) -> None:
    assert_minimal_contract(SPEC, "l0", shape, steps=40)
    assert_minimal_contract(SPEC, "l0", shape, classes=2, steps=40)
