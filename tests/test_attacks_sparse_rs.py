"""Sparse-RS: exact on linear models, never more than k pixels, counts and schedule to the letter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_lite.builtin.attacks import salt_and_pepper
from robustbench_lite.builtin.attacks.sparse_rs import SHRUNK_AFTER, SPEC, _alpha
from robustbench_lite.types import Box
from tests.oracles import (
    UNIT,
    Array,
    Problem,
    assert_contract,
    assert_legal,
    estimated,
    linear_problem,
    network_problem,
    run,
)
from tests.row_by_row import row_by_row

SHAPES = [(12,), (3, 5), (2, 3, 4), (3, 2, 7), (1, 6, 6), (2, 2, 1, 3)]


def gains(problem: Problem, x: Tensor) -> Array:
    """The largest z_j - z_y per sample."""
    best: Array = problem.gains(x).max(axis=1)
    return best


def highest_gains(problem: Problem, k: int) -> Array:
    """The exact maximum of z_j - z_y with k pixels changed, for every class j: float64 [n, k]."""
    weight = problem.net[1].weight.detach().double().numpy()  # type: ignore[index]
    shape = problem.x.shape[1:]
    channels = shape[0] if len(shape) == 3 else 1
    flat = problem.x.flatten(1).double().numpy()[:, None]
    slope = weight[None] - weight[problem.y.numpy()][:, None]
    room = np.where(slope > 0, problem.box.high - flat, problem.box.low - flat)
    pixels = (slope * room).reshape(*slope.shape[:2], channels, -1).sum(axis=2)
    most: Array = problem.gains(problem.x) + np.sort(pixels, axis=2)[:, :, -k:].sum(axis=2)
    return most


def _leading(problem: Problem, k: int) -> Problem:
    """The problem of the samples of class 0, with a bias that k pixels undo for half of them."""
    problem = problem.rows([i for i, label in enumerate(problem.y.tolist()) if label == 0])
    best = np.sort(highest_gains(problem, k).max(axis=1))
    middle = len(best) // 2
    assert len(best) > 1
    with torch.no_grad():
        bias = problem.net[1].bias  # type: ignore[index]
        bias[0] += (best[middle - 1] + best[middle]) / 2
    return problem


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
@pytest.mark.parametrize("shape", [(12,), (2, 3, 4), (3, 2, 7), (1, 6, 6)], ids=str)
def test_on_two_linear_classes_it_is_the_exact_answer(
    shape: tuple[int, ...], edge: bool, k: int
) -> None:
    problem = _leading(linear_problem(0, classes=2, shape=shape, edge=edge), k)
    budget = problem.budget("l0", k)
    x_adv = run(SPEC, problem, budget, queries=800 + 400 * k)
    assert_legal(problem, x_adv, budget)
    best, got = highest_gains(problem, k).max(axis=1), gains(problem, x_adv)
    assert np.array_equal(got > 0, best > 0)
    assert 0 < (got > 0).sum() < len(got)
    unbroken = got <= 0  # a broken sample leaves before it has spent its budget
    np.testing.assert_allclose(got[unbroken], best[unbroken], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
def test_on_ten_linear_classes_one_run_per_target_is_exact(edge: bool) -> None:
    problem = linear_problem(3, classes=10, shape=(2, 3, 4), edge=edge)
    budget = problem.budget("l0", 2)
    broken = np.zeros(len(problem.x), dtype=bool)
    for j in range(10):
        target = torch.full_like(problem.y, j)
        x_adv = run(SPEC, problem, budget, target=target, queries=300)
        assert_legal(problem, x_adv, budget)
        reached = problem.net(x_adv).argmax(dim=1) == j
        broken |= (reached & (problem.y != j)).numpy()
    assert np.array_equal(broken, highest_gains(problem, 2).max(axis=1) > 0)
    assert broken.any()


@pytest.mark.parametrize("k", [1, 3])
def test_on_a_thousand_linear_classes_no_logit_gap_is_beyond_the_exact_one(k: int) -> None:
    problem = linear_problem(0, classes=1000, shape=(3, 5, 4))
    got = problem.gains(run(SPEC, problem, problem.budget("l0", k), queries=100))
    best = highest_gains(problem, k)
    rivals = np.isfinite(best)
    assert (got[rivals] <= best[rivals] + 1e-4).all()
    assert (got.max(axis=1) > gains(problem, problem.x)).all()


def test_it_changes_exactly_k_pixels_and_to_corners() -> None:
    problem = network_problem(1, classes=3, shape=(2, 5, 4), box=Box(-1.0, 2.0))
    for k in (1, 4, 20):
        x_adv = run(SPEC, problem, problem.budget("l0", k + 0.9), queries=30)
        changed = x_adv != problem.x
        lost = gains(problem, x_adv) > 0
        pixels = changed.any(dim=1).flatten(1).sum(dim=1)
        assert bool((pixels[~torch.as_tensor(lost)] == k).all())
        assert set(x_adv[changed].tolist()) == {-1.0, 2.0}


@pytest.mark.parametrize("eps", [0, 0.5])
def test_below_one_pixel_nothing_is_changed_or_asked(eps: float) -> None:
    problem = network_problem(1, classes=3, shape=(2, 3, 4))
    model = problem.model()
    x_adv = run(SPEC, problem, problem.budget("l0", eps), model=model)
    assert torch.equal(x_adv, problem.x)
    assert x_adv.data_ptr() != problem.x.data_ptr()
    assert bool((model.queries == 0).all())


def test_it_beats_its_control() -> None:
    problem = network_problem(2, classes=3, shape=(1, 8, 8), n=40)
    budget = problem.budget("l0", 2)
    found = (gains(problem, run(SPEC, problem, budget, queries=300)) > 0).sum()
    chance = (gains(problem, run(salt_and_pepper.SPEC, problem, budget)) > 0).sum()
    assert found > 2 * chance > 0


# ---------------------------------------------------------------- what the batch and the seed may do


@pytest.mark.parametrize("k", [1, 9])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract_to_the_last_bit(shape: tuple[int, ...], k: int) -> None:
    box = Box(-1.0, 2.0) if len(shape) == 3 else UNIT
    problem = row_by_row(network_problem(0, classes=3, shape=shape, box=box, edge=True))
    budget = problem.budget("l0", k)
    assert_contract(SPEC, problem, budget, queries=40)
    target = (problem.y + 1) % 3
    whole = run(SPEC, problem, budget, target=target, queries=40, alpha_init=1.0)
    alone = run(SPEC, problem.rows([2]), budget, target=target[2:3], queries=40, alpha_init=1.0)
    assert torch.equal(alone[0], whole[2])


def test_the_contract_sees_samples_leave_at_different_times() -> None:
    problem = row_by_row(network_problem(0, classes=3, shape=(2, 3, 4), edge=True, n=30))
    model = problem.model()
    run(SPEC, problem, problem.budget("l0", 1), model=model, queries=40)
    assert len(set(model.queries.tolist())) > 3
    assert int(model.queries.max()) == 41


def test_another_seed_is_another_search() -> None:
    problem = network_problem(0, classes=3, shape=(20,))
    one, two = (
        run(SPEC, problem, problem.budget("l0", 3), seed=seed, queries=1) for seed in (0, 1)
    )
    assert bool((one != two).any())


def test_more_queries_never_find_less() -> None:
    """With two pixels every move exchanges one: a longer search goes on where one ended."""
    problem = row_by_row(network_problem(1, classes=5, shape=(1, 5, 6), n=24))
    few, some, many = (
        gains(problem, run(SPEC, problem, problem.budget("l0", 2), queries=queries))
        for queries in (2, 8, 80)
    )
    for less, more in ((few, some), (some, many)):
        assert (more[less > 0] > 0).all()
        assert (more >= less - 1e-6)[more <= 0].all()
    assert (few > 0).sum() < (many > 0).sum()


# ---------------------------------------------------------------- cost


@pytest.mark.parametrize("queries", [1, 2, 61])
@pytest.mark.parametrize("k", [1, 7, 24])
def test_it_costs_what_it_says_where_nothing_breaks(k: int, queries: int) -> None:
    problem = _deaf(network_problem(0, classes=3, shape=(1, 6, 4)))
    model = problem.model()
    run(SPEC, problem, problem.budget("l0", k), model=model, queries=queries)
    cost = estimated(SPEC, problem, queries=queries)
    assert cost == (1 + queries, 0)
    assert bool((model.queries == cost.queries).all())
    assert bool((model.gradients == 0).all())


def _deaf(problem: Problem) -> Problem:
    """A problem whose samples no input can break: the label of all is the class that leads."""
    with torch.no_grad():
        problem.net[3].weight.mul_(1e-4)  # type: ignore[index]
        problem.net[3].bias.copy_(torch.tensor([10.0, 0.0, 0.0]))  # type: ignore[index]
    return problem.with_labels(torch.zeros_like(problem.y))


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_samples_already_lost_cost_one_pass_and_come_back_as_they_came(targeted: bool) -> None:
    problem = network_problem(1, classes=3, shape=(2, 3, 4))
    lost = problem if targeted else problem.with_labels((problem.y + 1) % 3)
    model = lost.model()
    target = lost.y if targeted else None
    x_adv = run(SPEC, lost, lost.budget("l0", 3), model=model, target=target)
    assert torch.equal(x_adv, lost.x)
    assert x_adv.data_ptr() != lost.x.data_ptr()
    assert bool((model.queries == 1).all())


def test_an_output_that_is_not_finite_is_neither_success_nor_progress() -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4))
    net = _NanAtTheTop(problem.net)
    broken = replace(problem, net=net)
    x_adv = run(SPEC, broken, broken.budget("l0", 2), queries=200)
    assert bool((x_adv != UNIT.high).all())
    assert bool((x_adv != problem.x).any(dim=1).flatten(1).sum(dim=1).le(2).all())
    assert bool((x_adv != problem.x).flatten(1).any(dim=1).all())


class _NanAtTheTop(nn.Module):
    """A model that breaks down where a component stands at the top of the box."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        top = (x == UNIT.high).flatten(1).any(dim=1, keepdim=True)
        return torch.where(top, torch.nan, self.net(x))


def test_the_schedule_is_the_papers() -> None:
    """Appendix A: after 0, 50, 200, 500, 1000, 2000, 4000, 6000, 8000 of 10,000 queries."""
    divisors = [2, 4, 5, 6, 8, 10, 12, 15, 20]
    assert [divisor for _, divisor in reversed(SHRUNK_AFTER)] == divisors
    afters = [0, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
    for after, before, divisor in zip(afters, [1, *divisors], divisors, strict=False):
        assert _alpha(after, 10_000, 0.3) == pytest.approx(0.3 / before)
        assert _alpha(after + 1, 10_000, 0.3) == pytest.approx(0.3 / divisor)
    assert _alpha(101, 1000, 0.3) == _alpha(1010, 10_000, 0.3)
