"""FAB: exact projections inside the box, near exact on linear models, nearest point kept."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, linprog

from robustbench_lite import Norm
from robustbench_lite.builtin.attacks import ddn, fmn
from robustbench_lite.builtin.attacks.fab import NEAR_MISS, SPEC, fab
from robustbench_lite.builtin.attacks.minimal_planes import Plane, to_plane
from robustbench_lite.types import Box
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
    attacked,
    broken,
    distances,
    fortress,
    in_a_box_four_times_as_wide,
    mnist,
    with_logits_times,
)
from tests.oracles import UNIT, Array, linear_problem, network_problem, run

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")


def _solved(slope: Array, x: Array, due: float, norm: Norm) -> float:
    """The least norm of d with <slope, d> = due and x + d in the unit box, by scipy (l2: the root of its optimality condition)."""
    n = len(x)
    if norm == "l2":

        def beyond(t: float) -> float:  # d = clip(t * slope) for the multiplier t of the plane
            return float(slope @ np.clip(t * slope, -x, 1 - x)) - due

        t = brentq(beyond, -1e4, 1e4, xtol=1e-14)
        return float(np.linalg.norm(np.clip(t * slope, -x, 1 - x)))
    ends = list(zip(-x, 1 - x, strict=True))
    eye = np.eye(n)
    if norm == "l1":  # d = d, |d| <= s, least sum of s
        cost, size = np.r_[np.zeros(n), np.ones(n)], -eye
        bounds = [*ends, *[(0, None)] * n]
    else:  # |d_i| <= s, least s
        cost, size = np.r_[np.zeros(n), 1.0], -np.ones((n, 1))
        bounds = [*ends, (0, None)]
    found = linprog(
        cost,
        A_ub=np.block([[eye, size], [-eye, size]]),
        b_ub=np.zeros(2 * n),
        A_eq=np.r_[slope, np.zeros(len(cost) - n)][None],
        b_eq=[due],
        bounds=bounds,
    )
    assert found.fun is not None
    return found.fun


@pytest.mark.parametrize("norm", NORMS)
def test_the_projection_is_what_a_solver_finds(norm: Norm) -> None:
    rng = np.random.default_rng(0)
    bound = 0
    for _ in range(40):
        x = rng.choice([0.0, 1.0, 0.3, 0.8], size=9) if rng.random() < 0.7 else rng.random(9)
        slope = rng.normal(size=9) * (rng.random(9) < 0.9)
        sign = rng.choice([-1.0, 1.0])
        reach = (np.abs(slope) * np.where(sign * slope > 0, 1 - x, x)).sum()
        due = sign * reach * rng.uniform(0.05, 0.95)
        plane = Plane(torch.tensor([-due]), torch.tensor(slope[None]))
        d = to_plane(torch.tensor(x[None]), plane, UNIT, norm).numpy()[0]
        assert slope @ d == pytest.approx(due, abs=1e-9)
        assert ((x + d >= -1e-12) & (x + d <= 1 + 1e-12)).all()
        order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
        assert np.linalg.norm(d, order) == pytest.approx(_solved(slope, x, due, norm), rel=1e-5)
        bound += int((np.isin(x + d, (0.0, 1.0)) & (d != 0)).any())
    assert bound > 10


@pytest.mark.parametrize("norm", NORMS)
def test_a_plane_out_of_reach_ends_in_the_nearest_corner(norm: Norm) -> None:
    x = torch.tensor([[0.2, 0.5, 0.9], [0.2, 0.5, 0.9], [0.2, 0.5, 0.9]])
    slope = torch.tensor([[1.0, -2.0, 0.0], [1.0, -2.0, 0.0], [0.0, 0.0, 0.0]])
    value = torch.tensor([-100.0, 100.0, -1.0])
    corners = x + to_plane(x, Plane(value, slope), Box(0.0, 1.0), norm)
    expected = torch.tensor([[1.0, 0.0, 0.9], [0.0, 1.0, 0.9], [0.2, 0.5, 0.9]])
    torch.testing.assert_close(corners.float(), expected)


@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("norm", NORMS)
def test_on_linear_models_it_is_within_one_percent(norm: Norm, classes: int, edge: bool) -> None:
    for seed, (shape, n) in enumerate(zip(SHAPES, BATCHES, strict=True)):
        problem = linear_problem(seed, classes=classes, shape=shape, n=n, edge=edge)
        assert_near_exact(SPEC, problem, norm, excess=0.01, steps=30)
        assert_near_exact(SPEC, problem, norm, excess=0.01, steps=20, n_targets=9)


@pytest.mark.parametrize("n_targets", [0, 9])
@pytest.mark.parametrize("norm", NORMS)
def test_every_digit_breaks(norm: Norm, n_targets: int) -> None:
    problem = mnist()
    x_adv = attacked(SPEC, problem, norm, steps=20, n_targets=n_targets)
    assert broken(problem, x_adv).all()
    median = float(np.median(distances(problem, x_adv, norm)))
    assert {"linf": 0.02, "l2": 0.4, "l1": 2}[norm] < median
    assert median < {"linf": 0.06, "l2": 1.0, "l1": 6}[norm]


def test_it_agrees_with_ddn_and_fmn_on_digits() -> None:
    problem = mnist()
    medians = [
        np.median(distances(problem, attacked(spec, problem, "l2", **own), "l2"))
        for spec, own in ((SPEC, {"steps": 50}), (ddn.SPEC, {}), (fmn.SPEC, {"steps": 300}))
    ]
    assert max(medians) <= 1.1 * min(medians)


@pytest.mark.parametrize("norm", NORMS)
def test_a_larger_norm_order_gives_smaller_distances(norm: Norm) -> None:
    """The minimal linf, l2 and l1 distances of a sample are in this order."""
    problem = linear_problem(3, classes=3, shape=(2, 3, 4), n=8, edge=True)
    own = distances(problem, attacked(SPEC, problem, norm), norm)
    for other in NORMS:
        assert (own <= distances(problem, attacked(SPEC, problem, other), norm) * 1.01).all()


@pytest.mark.parametrize("norm", NORMS)
def test_more_restarts_and_more_search_never_find_farther_points(norm: Norm) -> None:
    problem = network_problem(2, classes=4, shape=(2, 3, 4), n=20)
    results = [
        distances(problem, attacked(SPEC, problem, norm, steps=10, search_steps=0, **own), norm)
        for own in ({}, {"restarts": 3}, {"restarts": 6})
    ]
    for few, many in itertools.pairwise(results):
        assert (many <= few).all()
    assert (results[2] < results[0] * 0.999).any()
    searched = attacked(SPEC, problem, norm, steps=10, search_steps=3)
    assert (distances(problem, searched, norm) <= results[0]).all()
    assert (distances(problem, searched, norm) < results[0]).any()


@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_broken_point_is_kept(norm: Norm) -> None:
    problem = network_problem(2, classes=4, shape=(2, 3, 4), n=4)
    assert_nearest_of_visited(SPEC, problem, norm, steps=10, restarts=2)


@pytest.mark.parametrize("norm", NORMS)
def test_of_failures_the_highest_margin_is_kept(norm: Norm) -> None:
    assert_best_of_failures(SPEC, norm, steps=5, restarts=2)


@pytest.mark.parametrize(
    ("own", "cost"),
    [
        ({"steps": 7, "restarts": 2}, (1 + 14 * 3 + 3, 14 * 2)),
        ({"steps": 7, "restarts": 2, "n_targets": 9}, (1 + 28 * 2 + 3, 28)),
        ({"steps": 4, "classes": 2, "search_steps": 0}, (1 + 4 * 2, 4)),
    ],
)
def test_it_costs_what_it_says(own: dict[str, int], cost: tuple[int, int]) -> None:
    problem = linear_problem(0, classes=3, shape=(2, 3, 4), n=6)
    assert SPEC.cost is not None
    assert SPEC.cost(SPEC.params(**own), (2, 3, 4), 3) == cost
    assert_cost(SPEC, "l2", problem, **own)


def test_a_sample_that_is_near_enough_leaves_the_runs_that_follow() -> None:
    problem = linear_problem(0, classes=10, shape=(2, 3, 4), n=8)
    free = distances(problem, attacked(SPEC, problem, "l2", n_targets=1), "l2")
    enough = float(np.median(free))
    model = problem.model()
    budget, rng = problem.budget("l2", enough), problem.rng()
    x_adv = fab(
        model, problem.x, problem.y, budget=budget, rng=rng, n_targets=9, enough=enough, steps=20
    )
    at_once = free <= enough
    assert (model.gradients.numpy()[at_once] == 20).all()
    assert (model.gradients.numpy()[~at_once] > 20).all()
    assert broken(problem, x_adv).all()


def test_it_sees_the_candidates_of_many_classes_alone() -> None:
    problem = linear_problem(0, classes=1000, shape=(24,), n=2)
    model = problem.model()
    budget = problem.budget("l2", UNLIMITED)
    x_adv = run(SPEC, problem, budget, model=model, steps=5)
    assert broken(problem, x_adv).all()
    assert model.gradients.tolist() == [45, 45]


def test_neither_the_scale_of_logits_nor_the_unit_of_the_box_matters() -> None:
    problem = network_problem(1, classes=4, shape=(2, 3, 4), n=6)
    plain = distances(problem, attacked(SPEC, problem, "l2", steps=30), "l2")
    loud = with_logits_times(problem, 1024.0)
    np.testing.assert_allclose(
        distances(loud, attacked(SPEC, loud, "l2", steps=30), "l2"), plain, rtol=1e-4
    )
    wide = in_a_box_four_times_as_wide(problem)
    np.testing.assert_allclose(
        distances(wide, attacked(SPEC, wide, "l2", steps=30), "l2"), 4 * plain, rtol=1e-3
    )


@pytest.mark.parametrize("norm", NORMS)
def test_lost_samples_rest_and_flat_models_are_left(norm: Norm) -> None:
    assert_lost_samples_rest(SPEC, norm, steps=10)
    assert_moves_without_gradient(SPEC, norm, steps=10)
    problem = fortress(classes=2, shape=(7,))
    assert not broken(problem, attacked(SPEC, problem, norm, steps=5)).any()


@pytest.mark.parametrize(
    ("shape", "own"),
    [((7,), {}), ((3, 5), {"n_targets": 2}), ((2, 3, 4), {}), ((2, 3, 4), {"classes": 2})],
    ids=str,
)
@pytest.mark.parametrize("norm", NORMS)
def test_contract(norm: Norm, shape: tuple[int, ...], own: dict[str, int]) -> None:
    assert_minimal_contract(SPEC, norm, shape, steps=5, restarts=2, **own)


def test_a_near_miss_gets_more_runs_and_no_other_sample() -> None:
    problem = linear_problem(0, classes=4, shape=(2, 3, 4), n=30)
    free = distances(problem, attacked(SPEC, problem, "l2", n_targets=3), "l2")
    enough = float(np.median(free))
    costs = {}
    for near_misses in (0, 2):
        model = problem.model()
        fab(
            model,
            problem.x,
            problem.y,
            budget=problem.budget("l2", enough),
            rng=problem.rng(),
            n_targets=3,
            enough=enough,
            steps=20,
            near_misses=near_misses,
        )
        costs[near_misses] = model.gradients.numpy().copy()
    more = costs[2] - costs[0]
    assert set(more) == {0, 40}
    assert ((more == 40) == ((free > enough) & (free <= NEAR_MISS * enough))).mean() > 0.9
    assert (more[free <= 0.95 * enough] == 0).all()
