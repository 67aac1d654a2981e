"""DeepFool: on a linear model the exact distance times 1 + overshoot, in one step."""

from __future__ import annotations

import numpy as np
import pytest

from robustbench_lite import Norm
from robustbench_lite.builtin.attacks.deepfool import SPEC
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
    attacked,
    broken,
    distances,
    exact_distances,
    fortress,
    mnist,
    with_logits_times,
)
from tests.oracles import linear_problem, network_problem, run

NORMS: tuple[Norm, ...] = ("l2", "linf")


@pytest.mark.parametrize("overshoot", [0.02, 0.2])
@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("norm", NORMS)
def test_on_linear_models_one_step_overshoots_the_exact_distance_once(
    norm: Norm, classes: int, overshoot: float
) -> None:
    for seed, (shape, n) in enumerate(zip(SHAPES, BATCHES, strict=True)):
        problem = linear_problem(seed, classes=classes, shape=shape, n=n)
        model = problem.model()
        budget = problem.budget(norm, UNLIMITED)
        x_adv = run(SPEC, problem, budget, model=model, overshoot=overshoot)
        assert broken(problem, x_adv).all()
        exact = exact_distances(problem, norm) * (1 + overshoot)
        np.testing.assert_allclose(distances(problem, x_adv, norm), exact, rtol=1e-3)
        assert model.gradients.tolist() == [classes - 1] * n


@pytest.mark.parametrize("norm", NORMS)
def test_a_binding_box_costs_steps_and_little_distance(norm: Norm) -> None:
    for seed, (shape, n) in enumerate(zip(SHAPES, BATCHES, strict=True)):
        problem = linear_problem(seed, classes=2, shape=shape, n=n, edge=True)
        assert_near_exact(SPEC, problem, norm, excess=0.0201)


@pytest.mark.parametrize("norm", NORMS)
def test_every_digit_breaks(norm: Norm) -> None:
    problem = mnist()
    x_adv = attacked(SPEC, problem, norm)
    assert broken(problem, x_adv).all()
    median = float(np.median(distances(problem, x_adv, norm)))
    assert {"linf": 0.02, "l2": 0.4}[norm] < median < {"linf": 0.06, "l2": 1.0}[norm]


def test_it_takes_several_steps_on_a_network_and_leaves_at_the_first_break() -> None:
    problem = network_problem(1, classes=4, shape=(2, 3, 4), n=20)
    full, one = problem.model(), problem.model()
    budget = problem.budget("l2", UNLIMITED)
    done = broken(problem, run(SPEC, problem, budget, model=full))
    first = broken(problem, run(SPEC, problem, budget, model=one, steps=1))
    assert done.all()
    assert 0 < first.sum() < len(first)
    steps = full.gradients.numpy() / 3
    assert (steps[first] == 1).all()
    assert (steps[~first] > 1).all()
    assert (full.queries.numpy() == 1 + 4 * steps).all()


@pytest.mark.parametrize("norm", NORMS)
def test_of_failures_the_highest_margin_is_kept(norm: Norm) -> None:
    assert_best_of_failures(SPEC, norm, steps=5)


@pytest.mark.parametrize(("classes", "candidates"), [(2, 10), (4, 10), (12, 5)])
def test_it_costs_what_it_says(classes: int, candidates: int) -> None:
    problem = fortress(classes=classes)
    assert_cost(SPEC, "l2", problem, steps=6, candidates=candidates)
    assert SPEC.cost is not None
    own = SPEC.params.model_validate({"steps": 6, "candidates": candidates})
    seen = min(classes, candidates)
    assert SPEC.cost(own, None, classes) == (1 + 6 * seen, 6 * (seen - 1))


def test_it_sees_the_candidates_of_many_classes_alone() -> None:
    problem = linear_problem(0, classes=1000, shape=(24,), n=2)
    model = problem.model()
    x_adv = run(SPEC, problem, problem.budget("l2", UNLIMITED), model=model)
    assert broken(problem, x_adv).all()
    assert model.gradients.tolist() == [9, 9]


def test_the_scale_of_logits_does_not_matter() -> None:
    problem = network_problem(1, classes=4, shape=(2, 3, 4), n=6)
    loud = with_logits_times(problem, 1024.0)
    np.testing.assert_allclose(
        distances(loud, attacked(SPEC, loud, "l2"), "l2"),
        distances(problem, attacked(SPEC, problem, "l2"), "l2"),
        rtol=1e-5,
    )


@pytest.mark.parametrize("norm", NORMS)
def test_lost_samples_rest_and_flat_models_are_left(norm: Norm) -> None:
    assert_lost_samples_rest(SPEC, norm)
    assert_moves_without_gradient(SPEC, norm)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_contract(norm: Norm, shape: tuple[int, ...]) -> None:
    assert_minimal_contract(SPEC, norm, shape)
    assert_minimal_contract(SPEC, norm, shape, classes=2)
