"""FGSM: exact on linear models, the paper's form, and the contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_lite import Norm
from robustbench_lite.builtin.attacks.fgsm import SPEC
from tests.oracles import (
    UNIT,
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

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
SHAPES = [(7,), (3, 5), (2, 3, 4)]


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_on_two_linear_classes_it_is_the_exact_answer(
    norm: Norm, shape: tuple[int, ...], edge: bool, loss: str, device: torch.device
) -> None:
    for seed in range(4):
        problem = linear_problem(seed, classes=2, shape=shape, edge=edge, device=device)
        budget = problem.budget(norm, undecided_eps(problem, norm))
        x_adv = run(SPEC, problem, budget, loss=loss)
        assert_legal(problem, x_adv, budget)
        best, got = highest_gains(problem, budget).max(axis=1), problem.gains(x_adv).max(axis=1)
        np.testing.assert_allclose(got, best, rtol=1e-5, atol=1e-5)
        assert np.array_equal(got > 0, best > 0)
        assert 0 < (got > 0).sum() < len(got)


@pytest.mark.parametrize("norm", NORMS)
def test_on_ten_linear_classes_it_never_exceeds_the_exact_answer(norm: Norm) -> None:
    for seed in range(4):
        problem = linear_problem(seed, classes=10, shape=(3, 5), edge=True)
        budget = problem.budget(norm, undecided_eps(problem, norm))
        got = problem.gains(run(SPEC, problem, budget))
        best = highest_gains(problem, budget)
        rivals = np.isfinite(best)
        assert (got[rivals] <= best[rivals] + 1e-5).all()


@pytest.mark.parametrize("norm", NORMS)
def test_on_ten_linear_classes_the_margin_step_is_exact_for_the_leading_rival(norm: Norm) -> None:
    problem = linear_problem(3, classes=10, shape=(16,), edge=True, box=WIDE)
    budget = problem.budget(norm, undecided_eps(problem, norm))
    rival = problem.gains(problem.x).argmax(axis=1)
    rows = np.arange(len(rival))
    got = problem.gains(run(SPEC, problem, budget, loss="margin"))[rows, rival]
    np.testing.assert_allclose(
        got, highest_gains(problem, budget)[rows, rival], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("norm", NORMS)
def test_towards_the_only_other_class_is_away_from_this_one(norm: Norm) -> None:
    problem = linear_problem(0, classes=2, shape=(2, 3, 4), edge=True)
    budget = problem.budget(norm, undecided_eps(problem, norm))
    away = run(SPEC, problem, budget)
    towards = run(SPEC, problem, budget, target=1 - problem.y)
    torch.testing.assert_close(towards, away, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_a_target_gains_on_its_rival_all_that_the_budget_allows(norm: Norm) -> None:
    problem = linear_problem(1, classes=10, shape=(16,), edge=True)
    target = (problem.y + 3) % 10
    leader = problem.with_labels(problem.y)  # clean-correct: y leads before the step
    budget = problem.budget(norm, 0.05)
    rows = np.arange(len(target))
    x_adv = run(SPEC, problem, budget, target=target, loss="margin")
    got = leader.gains(x_adv)[rows, target.numpy()]
    best = highest_gains(problem, budget)[rows, target.numpy()]
    np.testing.assert_allclose(got, best, rtol=1e-5, atol=1e-5)


def test_linf_without_clipping_is_the_formula_of_the_paper() -> None:
    problem = linear_problem(0, classes=2, shape=(3, 5), edge=True)
    layer = problem.net[1]  # type: ignore[index]
    with torch.no_grad():
        layer.weight[:, 4] = 0
    x_adv = run(SPEC, problem, problem.budget("linf", 0.25), clip=False)
    rival = layer.weight[1 - problem.y] - layer.weight[problem.y]
    expected = problem.x + 0.25 * rival.sign().view_as(problem.x)
    assert torch.equal(x_adv, expected)
    moved = (x_adv - problem.x).flatten(1)
    assert bool((moved[:, 4] == 0).all())
    torch.testing.assert_close(moved[:, :4].abs(), torch.full_like(moved[:, :4], 0.25))
    assert bool((x_adv > UNIT.high).any())
    assert bool((x_adv < UNIT.low).any())


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_without_clipping_a_step_has_length_eps_along_the_steepest_direction(norm: Norm) -> None:
    problem = linear_problem(0, classes=2, shape=(3, 5), edge=True)
    delta = (run(SPEC, problem, problem.budget(norm, 0.5), clip=False) - problem.x).flatten(1)
    weight = problem.net[1].weight.detach()  # type: ignore[index]
    slope = weight[1 - problem.y] - weight[problem.y]
    dual = torch.linalg.vector_norm(slope, ord=2 if norm == "l2" else torch.inf, dim=1)
    torch.testing.assert_close((delta * slope).sum(dim=1), 0.5 * dual)
    order = 2 if norm == "l2" else 1
    torch.testing.assert_close(
        torch.linalg.vector_norm(delta, ord=order, dim=1), torch.full((len(delta),), 0.5)
    )


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_a_zero_gradient_moves_nothing(norm: Norm, clip: bool) -> None:
    problem = linear_problem(0, classes=2, shape=(3, 5))
    with torch.no_grad():
        problem.net[1].weight.zero_()  # type: ignore[index]
    x_adv = run(SPEC, problem, problem.budget(norm, 0.5), clip=clip)
    assert torch.equal(x_adv, problem.x)


def test_misclassified_samples_are_moved_too() -> None:
    problem = linear_problem(0, classes=2, shape=(7,))
    wrong = problem.with_labels(1 - problem.y)
    x_adv = run(SPEC, wrong, wrong.budget("linf", 0.1))
    assert bool((x_adv != wrong.x).flatten(1).any(dim=1).all())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract(norm: Norm, shape: tuple[int, ...], device: torch.device) -> None:
    problem = network_problem(0, classes=3, shape=shape, box=WIDE, edge=True, device=device)
    assert_contract(SPEC, problem, problem.budget(norm, 0.3), exact=False)
    target = (problem.y + 1) % 3
    one = problem.rows([2])
    whole = run(SPEC, problem, problem.budget(norm, 0.3), target=target)
    alone = run(SPEC, one, problem.budget(norm, 0.3), target=target[2:3])
    torch.testing.assert_close(alone[0], whole[2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("targeted", [False, True])
def test_it_costs_what_it_says(targeted: bool) -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4))
    model = problem.model()
    target = (problem.y + 1) % 3 if targeted else None
    run(SPEC, problem, problem.budget("l2", 0.3), model=model, target=target)
    assert estimated(SPEC, problem) == (1, 1)
    assert bool((model.queries == 1).all())
    assert bool((model.gradients == 1).all())


def test_the_model_is_left_as_found() -> None:
    problem: Problem = network_problem(0, classes=3, shape=(7,))
    before = [p.clone() for p in problem.net.parameters()]
    run(SPEC, problem, problem.budget("linf", 0.1))
    assert all(torch.equal(a, b) for a, b in zip(before, problem.net.parameters(), strict=True))
    assert all(p.grad is None for p in problem.net.parameters())
    assert isinstance(problem.net, nn.Module)
