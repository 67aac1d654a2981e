"""C&W: within 5 % on linear models, moves pixels on the ends of the box, each sample for itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_lite.builtin.attacks.cw import SPEC
from tests.minimal_cases import (
    BATCHES,
    SHAPES,
    UNLIMITED,
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
    fortress,
    in_a_box_four_times_as_wide,
    mnist,
)
from tests.oracles import UNIT, Problem, linear_problem, network_problem, run


@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
def test_on_two_linear_classes_it_is_within_five_percent(edge: bool) -> None:
    for seed, (shape, n) in enumerate(zip(SHAPES, BATCHES, strict=True)):
        problem = linear_problem(seed, classes=2, shape=shape, n=n, edge=edge)
        assert_near_exact(SPEC, problem, "l2", excess=0.05, steps=300)


def test_on_ten_linear_classes_one_run_per_target_is_within_five_percent() -> None:
    problem = linear_problem(0, classes=10, shape=(2, 3, 4), n=4)
    assert_union_near_exact(SPEC, problem, "l2", excess=0.05, steps=100)


def test_every_digit_breaks() -> None:
    problem = mnist()
    x_adv = attacked(SPEC, problem, "l2", steps=100, learning_rate=0.05)
    assert broken(problem, x_adv).all()
    assert 0.4 < float(np.median(distances(problem, x_adv, "l2"))) < 1.0


def test_pixels_on_the_ends_of_the_box_move() -> None:
    generator = torch.Generator().manual_seed(0)
    problem = linear_problem(0, classes=2, shape=(16,), n=6)
    x = torch.randint(0, 2, (6, 16), generator=generator).float()
    binary = Problem(
        net=problem.net, classes=2, box=UNIT, x=x, y=problem.net(x).argmax(dim=1).detach()
    )
    assert_near_exact(SPEC, binary, "l2", excess=0.05, steps=300)


class _Below(nn.Module):
    """All logits far below zero."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x) - 64.0
        return logits


def test_negative_logits_are_no_success() -> None:
    problem = linear_problem(1, classes=3, shape=(7,), n=4)
    below = Problem(net=_Below(problem.net), classes=3, box=UNIT, x=problem.x, y=problem.y)
    assert bool((below.net(below.x) < 0).all())
    got = distances(below, attacked(SPEC, below, "l2", steps=200), "l2")
    assert broken(below, attacked(SPEC, below, "l2", steps=200)).all()
    np.testing.assert_allclose(
        got, distances(problem, attacked(SPEC, problem, "l2", steps=200), "l2"), rtol=0.1
    )


def test_confidence_asks_for_a_margin() -> None:
    problem = linear_problem(1, classes=3, shape=(7,), n=4)
    sure = attacked(SPEC, problem, "l2", steps=200, confidence=0.3)
    assert (problem.gains(sure).max(axis=1) >= 0.3 - 1e-5).all()
    assert (problem.gains(attacked(SPEC, problem, "l2", steps=200)).max(axis=1) < 0.1).all()


def test_a_target_is_reached() -> None:
    problem = network_problem(1, classes=4, shape=(2, 3, 4), n=8)
    target = (problem.y + 1) % 4
    x_adv = attacked(SPEC, problem, "l2", target=target, steps=100)
    assert torch.equal(problem.net(x_adv).argmax(dim=1), target)


def test_each_sample_ends_its_searches_for_itself_and_it_costs_little() -> None:
    problem = network_problem(1, classes=4, shape=(2, 3, 4), n=8)
    model = problem.model()
    budget = problem.budget("l2", UNLIMITED)
    early = distances(problem, run(SPEC, problem, budget, model=model, steps=300), "l2")
    late = distances(problem, attacked(SPEC, problem, "l2", steps=300, abort_early=False), "l2")
    assert len(set(model.gradients.tolist())) > 1
    assert int(model.gradients.max()) < 9 * 300
    assert np.median(early / late) < 1.02


def test_the_unit_of_the_box_does_not_matter() -> None:
    problem = network_problem(1, classes=4, shape=(2, 3, 4), n=6)
    wide = in_a_box_four_times_as_wide(problem)
    np.testing.assert_allclose(
        distances(wide, attacked(SPEC, wide, "l2", steps=100), "l2"),
        4 * distances(problem, attacked(SPEC, problem, "l2", steps=100), "l2"),
        rtol=0.02,
    )


def test_the_nearest_broken_point_is_kept() -> None:
    problem = network_problem(2, classes=4, shape=(2, 3, 4), n=4)
    assert_nearest_of_visited(SPEC, problem, "l2", steps=30, searches=4)


def test_of_failures_the_highest_margin_is_kept() -> None:
    assert_best_of_failures(SPEC, "l2", steps=9, searches=2)


@pytest.mark.parametrize("steps", [1, 14])
def test_it_costs_what_it_says_where_nobody_leaves(steps: int) -> None:
    own = {"steps": steps, "searches": 3, "abort_early": False}
    assert_cost(SPEC, "l2", fortress(), **own)
    assert_cost(SPEC, "l2", linear_problem(0, classes=3, shape=(7,)), **own)
    assert SPEC.cost is not None
    cost = SPEC.cost(SPEC.params.model_validate(own), None, None)
    assert cost == (1 + 3 * steps, 3 * steps)


def test_lost_samples_rest_and_flat_models_are_left() -> None:
    assert_lost_samples_rest(SPEC, "l2", steps=30)
    assert_moves_without_gradient(SPEC, "l2", steps=30)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract(shape: tuple[int, ...]) -> None:
    assert_minimal_contract(SPEC, "l2", shape, steps=20, searches=3, initial_constant=0.1)
