"""Square: exact on linear models under linf, climbs under l2, counts and schedules to the letter."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robustbench_lite import Budget, Norm, norms
from robustbench_lite.builtin.attacks import gaussian_noise
from robustbench_lite.builtin.attacks.square import DRAWN_AHEAD, SPEC
from robustbench_lite.builtin.attacks.square_l2 import _two_halves, shifts
from robustbench_lite.builtin.attacks.square_windows import (
    HALVED_AFTER,
    corners,
    image_shape,
    offsets,
    share,
    window_size,
)
from robustbench_lite.types import Box
from tests.oracles import (
    UNIT,
    Array,
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
from tests.row_by_row import row_by_row

NORMS: tuple[Norm, ...] = ("linf", "l2")
SHAPES = [(7,), (3, 5), (2, 3, 4), (3, 2, 7), (1, 6, 6), (2, 2, 1, 3)]


def gains(problem: Problem, x: Tensor) -> Array:
    """The largest z_j - z_y per sample."""
    best: Array = problem.gains(x).max(axis=1)
    return best


# ---------------------------------------------------------------- oracles


@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (3, 2, 7)], ids=str)
def test_on_two_linear_classes_linf_is_the_exact_answer(
    shape: tuple[int, ...], edge: bool, device: torch.device
) -> None:
    problem = linear_problem(0, classes=2, shape=shape, edge=edge, device=device)
    budget = problem.budget("linf", undecided_eps(problem, "linf"))
    x_adv = run(SPEC, problem, budget, queries=1200)
    assert_legal(problem, x_adv, budget)
    best, got = highest_gains(problem, budget).max(axis=1), gains(problem, x_adv)
    assert np.array_equal(got > 0, best > 0)
    assert 0 < (got > 0).sum() < len(got)
    unbroken = got <= 0  # a broken sample leaves before it has spent its budget
    np.testing.assert_allclose(got[unbroken], best[unbroken], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
def test_on_ten_linear_classes_one_run_per_target_is_exact(edge: bool) -> None:
    problem = linear_problem(3, classes=10, shape=(2, 3, 4), edge=edge)
    budget = problem.budget("linf", undecided_eps(problem, "linf"))
    broken = np.zeros(len(problem.x), dtype=bool)
    for j in range(10):
        target = torch.full_like(problem.y, j)
        x_adv = run(SPEC, problem, budget, target=target, queries=400)
        reached = problem.net(x_adv).argmax(dim=1) == j
        broken |= (reached & (problem.y != j)).numpy()
    assert np.array_equal(broken, highest_gains(problem, budget).max(axis=1) > 0)
    assert 0 < broken.sum() < len(broken)


@pytest.mark.parametrize("norm", NORMS)
def test_on_ten_linear_classes_no_logit_gap_is_beyond_the_exact_one(norm: Norm) -> None:
    found = possible = 0
    for seed in range(2):
        problem = linear_problem(seed, classes=10, shape=(2, 3, 4), edge=seed % 2 == 0)
        budget = problem.budget(norm, undecided_eps(problem, norm))
        got = problem.gains(run(SPEC, problem, budget, queries=400))
        best = highest_gains(problem, budget)
        rivals = np.isfinite(best)
        assert (got[rivals] <= best[rivals] + 1e-5).all()
        found += (got.max(axis=1) > 0).sum()
        possible += (best.max(axis=1) > 0).sum()
    assert found >= (0.9 if norm == "linf" else 0.3) * possible


@pytest.mark.parametrize(("shape", "due"), [((7,), 0.85), ((2, 3, 4), 0.45), ((1, 12, 9), 0.4)])
def test_l2_spends_much_of_what_a_linear_model_grants(shape: tuple[int, ...], due: float) -> None:
    """Bumps of fixed form on white noise: the exact answer is out of reach, noise is far below."""
    spent: list[float] = []
    noise: list[float] = []
    for seed in range(2):
        problem = linear_problem(seed, classes=2, shape=shape)
        eps = 0.5 * undecided_eps(problem, "l2")
        budget = problem.budget("l2", eps)
        clean, best = gains(problem, problem.x), highest_gains(problem, budget).max(axis=1)
        for sizes, x_adv in (
            (spent, run(SPEC, problem, budget, queries=500)),
            (noise, run(gaussian_noise.SPEC, problem, budget)),
        ):
            got = gains(problem, x_adv)
            kept = (got <= 0) & (best > clean)
            sizes += list(((got - clean) / (best - clean))[kept])
    assert len(spent) > 10
    assert max(spent) <= 1 + 1e-5
    assert np.mean(spent) > due
    assert np.mean(noise) < due / 2


@pytest.mark.parametrize("norm", NORMS)
def test_it_finds_the_window_that_a_model_looks_at(norm: Norm) -> None:
    """The paper's model of why squares work: a filter on one patch of a large image."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    weight, bias = torch.zeros(2, 1, 28, 28), torch.zeros(2)
    weight[1, 0, 9:13, 17:22], weight[1, 0, 13:17, 17:22] = 1.0, -1.0
    eps = 0.2 if norm == "linf" else 1.0
    bias[1] = -eps * (0.75 * 40 if norm == "linf" else 0.5 * 40**0.5)
    net.load_state_dict({"1.weight": weight.flatten(1), "1.bias": bias})
    x = torch.full((6, 1, 28, 28), 0.5)
    problem = Problem(net=net, classes=2, box=UNIT, x=x, y=torch.zeros(6, dtype=torch.int64))
    budget = problem.budget(norm, eps)
    assert (gains(problem, run(SPEC, problem, budget, queries=500)) > 0).sum() >= 5
    assert (gains(problem, run(gaussian_noise.SPEC, problem, budget)) < 0).all()


# ---------------------------------------------------------------- what the batch and the seed may do


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_contract_to_the_last_bit(norm: Norm, shape: tuple[int, ...]) -> None:
    box = Box(-1.0, 2.0) if len(shape) == 3 else UNIT
    problem = row_by_row(network_problem(0, classes=3, shape=shape, box=box, edge=True))
    budget = problem.budget(norm, 0.02)
    queries = DRAWN_AHEAD + 10
    assert_contract(SPEC, problem, budget, queries=queries)
    target = (problem.y + 1) % 3
    whole = run(SPEC, problem, budget, target=target, queries=queries)
    alone = run(SPEC, problem.rows([2]), budget, target=target[2:3], queries=queries)
    assert torch.equal(alone[0], whole[2])


def test_the_contract_saw_samples_leave_at_different_times() -> None:
    problem = row_by_row(network_problem(0, classes=3, shape=(2, 3, 4), edge=True, n=30))
    model = problem.model()
    run(SPEC, problem, problem.budget("linf", 0.02), model=model, queries=DRAWN_AHEAD + 10)
    assert len(set(model.queries.tolist())) > 3
    assert int(model.queries.max()) == 1 + DRAWN_AHEAD + 10


@pytest.mark.parametrize("classes", [2, 3, 1000])
@pytest.mark.parametrize("norm", NORMS)
def test_any_number_of_classes(norm: Norm, classes: int, device: torch.device) -> None:
    problem = linear_problem(0, classes=classes, shape=(3, 5, 4), device=device)
    budget = problem.budget(norm, 0.1 if norm == "linf" else 0.5)
    x_adv = run(SPEC, problem, budget, queries=100)
    assert_legal(problem, x_adv, budget)
    assert (gains(problem, x_adv) > gains(problem, problem.x)).all()


def test_another_seed_is_another_search() -> None:
    problem = network_problem(0, classes=3, shape=(7,))
    budget = problem.budget("linf", 1e-3)
    one, two = (run(SPEC, problem, budget, seed=seed, queries=1) for seed in (0, 1))
    assert bool((one != two).any())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("rescale_schedule", [False, True])
def test_more_queries_never_find_less(norm: Norm, rescale_schedule: bool) -> None:
    """With the fixed schedule a longer search goes on where the shorter one ended."""
    problem = row_by_row(network_problem(1, classes=5, shape=(1, 5, 6), n=24))
    budget = problem.budget(norm, 0.015 if norm == "linf" else 0.08)
    few, some, many = (
        gains(
            problem,
            run(SPEC, problem, budget, queries=queries, rescale_schedule=rescale_schedule),
        )
        for queries in (5, 40, 300)
    )
    assert (few > 0).sum() < (many > 0).sum()
    assert ((some > 0) >= (few > 0)).mean() > 0.9
    if not rescale_schedule:
        for less, more in ((few, some), (some, many)):
            assert (more[less > 0] > 0).all()
            assert (more >= less - 1e-6)[more <= 0].all()


def test_a_margin_a_thousand_times_larger_changes_nothing() -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4))
    louder = replace(problem, net=nn.Sequential(problem.net, _Times(1024.0)))
    budget = problem.budget("linf", 0.02)
    one, two = (run(SPEC, each, budget, queries=100) for each in (problem, louder))
    assert torch.equal(one, two)


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.factor


# ---------------------------------------------------------------- cost


@pytest.mark.parametrize("queries", [1, 2, DRAWN_AHEAD + 1, 137])
@pytest.mark.parametrize("norm", NORMS)
def test_it_costs_what_it_says_where_nothing_breaks(norm: Norm, queries: int) -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4))
    model = problem.model()
    run(SPEC, problem, problem.budget(norm, 1e-6), model=model, queries=queries)
    cost = estimated(SPEC, problem, queries=queries)
    assert cost == (1 + queries, 0)
    assert bool((model.queries == cost.queries).all())
    assert bool((model.gradients == 0).all())


@pytest.mark.parametrize("norm", NORMS)
def test_a_broken_sample_stops_paying(norm: Norm) -> None:
    problem = network_problem(1, classes=5, shape=(2, 3, 4), n=30)
    model = problem.model()
    budget = problem.budget(norm, 0.01 if norm == "linf" else 0.1)
    x_adv = run(SPEC, problem, budget, model=model, queries=200)
    broken = torch.as_tensor(gains(problem, x_adv) > 0)
    assert 0 < int(broken.sum()) < len(broken)
    assert bool((model.queries[~broken] == 201).all())
    assert bool((model.queries[broken] <= 201).all())
    assert int(model.queries[broken].min()) < 20


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_samples_already_lost_cost_one_pass_and_come_back_as_they_came(targeted: bool) -> None:
    problem = network_problem(1, classes=3, shape=(2, 3, 4))
    lost = problem if targeted else problem.with_labels((problem.y + 1) % 3)
    model = lost.model()
    target = lost.y if targeted else None
    x_adv = run(SPEC, lost, lost.budget("linf", 0.3), model=model, target=target)
    assert torch.equal(x_adv, lost.x)
    assert x_adv.data_ptr() != lost.x.data_ptr()
    assert bool((model.queries == 1).all())


@pytest.mark.parametrize("norm", NORMS)
def test_the_answer_is_the_first_break_or_the_worst_point_tried(norm: Norm) -> None:
    ends = {"broken": 0, "kept": 0}
    for i in range(12):
        problem = network_problem(i, classes=3, shape=(2, 3, 4)).rows([i % 8])
        tried: list[Tensor] = []
        hook = problem.net.register_forward_pre_hook(lambda _, x, to=tried: to.append(x[0].clone()))
        budget = problem.budget(norm, 0.02 if norm == "linf" else 0.1)
        answer = run(SPEC, problem, budget, queries=60)
        hook.remove()
        points = torch.cat(tried[1:])
        margins = np.concatenate([gains(problem, point[None]) for point in points])
        if (margins > 0).any():
            assert (margins[:-1] <= 0).all()
            assert torch.equal(answer[0], points[-1])
            ends["broken"] += 1
        else:
            np.testing.assert_allclose(gains(problem, answer)[0], margins.max(), atol=1e-5)
            ends["kept"] += 1
    assert min(ends.values()) > 0


def test_no_query_under_linf_repeats_the_best_point() -> None:
    problem = network_problem(4, classes=3, shape=(1, 4, 4)).rows([0])
    tried: list[Tensor] = []
    problem.net.register_forward_pre_hook(lambda _, x: tried.append(x[0].clone()))
    run(SPEC, problem, problem.budget("linf", 1e-4), queries=200)
    best = tried[1]
    for point in tried[2:]:
        assert not torch.equal(point, best)
        if float(gains(problem, point)[0]) > float(gains(problem, best)[0]):
            best = point


@pytest.mark.parametrize("norm", NORMS)
def test_an_output_that_is_not_finite_is_neither_success_nor_progress(norm: Norm) -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4))
    broken = replace(problem, net=_NanAway(problem.net, problem.x))
    x_adv = run(SPEC, broken, broken.budget(norm, 0.1), queries=60)
    assert torch.equal(x_adv, problem.x)


@pytest.mark.parametrize("norm", NORMS)
def test_a_break_counts_where_the_margin_of_finite_logits_overflows(norm: Norm) -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4))
    y = problem.y
    away = torch.full((len(y), 3), 3e38).scatter(1, y[:, None], -3e38)
    huge = replace(problem, net=_Away(problem.net, problem.x, away))
    assert torch.equal(problem.net(problem.x).argmax(dim=1), y)
    passes: list[int] = []
    huge.net.register_forward_pre_hook(lambda _, x: passes.append(len(x[0])))
    run(SPEC, huge, huge.budget(norm, 0.1), queries=60)
    assert len(passes) == 2, "the clean pass and the first point, which breaks all"


class _Away(nn.Module):
    """A model that gives fixed answers everywhere but at the clean inputs."""

    def __init__(self, net: nn.Module, x: Tensor, away: Tensor) -> None:
        super().__init__()
        self.net, self.x, self.away = net, x, away

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits if torch.equal(x, self.x) else self.away[: len(x)]


class _NanAway(nn.Module):
    """A model that only answers at the clean inputs."""

    def __init__(self, net: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.net, self.x = net, x

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits if torch.equal(x, self.x) else torch.full_like(logits, torch.nan)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 9, 7), (2, 1, 12)], ids=str)
def test_a_move_under_l2_is_undone_to_the_last_bit_and_spends_what_it_took(
    shape: tuple[int, int, int],
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(6, *shape, generator=generator)
    budget = Budget(norm="l2", eps=0.8, box=UNIT)
    best = norms.clip(x + 0.3 * torch.randn(x.shape, generator=generator), x, budget)
    chances = torch.rand(6, DRAWN_AHEAD, 5 + shape[0], generator=generator)
    moves = shifts(chances, [0.4] * DRAWN_AHEAD, x, best, budget=budget)
    for number in range(DRAWN_AHEAD):
        before = best.clone()
        move = moves.tried(number, x, best)
        tried, kept = move.point.clone(), torch.rand(6, generator=generator) < 0.5
        assert float((tried - x).flatten(1).norm(dim=1).max()) <= budget.eps
        assert float(tried.min()) >= 0.0
        assert float(tried.max()) <= 1.0
        assert not torch.equal(tried, before)
        best = move.settled(kept)
        assert torch.equal(best, tried.where(kept[:, None, None, None], before))
        spent = (best.double() - x.double()).square().flatten(1).sum(1)
        torch.testing.assert_close(moves.spent.double(), spent, rtol=1e-5, atol=1e-6)


def test_a_move_under_l2_spends_what_two_windows_held_and_what_was_left() -> None:
    """In a box that is far away the first move of a search has length eps in the end."""
    wide = Box(-100.0, 100.0)
    budget = Budget(norm="l2", eps=2.0, box=wide)
    x = torch.zeros(4, 3, 8, 8)
    best = torch.zeros_like(x)
    best[:, :, 0, 0] = 0.5
    chances = torch.rand(4, 1, 8, generator=torch.Generator().manual_seed(0))
    moves = shifts(chances, [0.1], x, best, budget=budget)
    point = moves.tried(0, x, best).point
    torch.testing.assert_close(point.flatten(1).norm(dim=1), torch.full((4,), 2.0))


# ---------------------------------------------------------------- windows


def test_the_schedule_halves_after_the_papers_numbers_of_queries() -> None:
    for done, after in enumerate(HALVED_AFTER):
        assert share(after, 10_000, 0.8, rescaled=True) == pytest.approx(0.8 / 2**done)
        assert share(after + 1, 10_000, 0.8, rescaled=True) == pytest.approx(0.8 / 2 ** (done + 1))
        assert share(after + 1, 70, 0.8, rescaled=False) == pytest.approx(0.8 / 2 ** (done + 1))
    assert share(101, 1000, 0.8, rescaled=True) == share(1010, 10_000, 0.8, rescaled=True)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(1e-4, 1.0))
def test_a_window_lies_in_the_image_and_has_about_the_area_asked_for(
    height: int, width: int, covered: float
) -> None:
    high, wide = window_size(covered, height, width)
    assert 1 <= high <= height
    assert 1 <= wide <= width
    area = covered * height * width
    assert abs(math.sqrt(high * wide) - math.sqrt(max(1.0, area))) <= 0.75
    if min(height, width) >= math.sqrt(area):
        assert high == wide


def test_places_are_windows_of_that_size_and_reach_every_corner() -> None:
    ends = torch.tensor([[0.0, 0.0], [0.0, 1 - 2**-24], [1 - 2**-24, 0.0], [1 - 2**-24] * 2])
    first = corners(ends[:, None], [(2, 3)], 4, 5)
    got = first + offsets((2, 3), (1, 4, 5), torch.device("cpu"))
    grid = torch.arange(20).view(4, 5)
    expected = [grid[:2, :3], grid[:2, 2:], grid[2:, :3], grid[2:, 2:]]
    assert torch.equal(got, torch.stack([block.flatten() for block in expected]))


def test_the_image_in_an_input() -> None:
    assert image_shape((3, 4, 5)) == (3, 4, 5)
    assert image_shape((4, 5)) == (1, 4, 5)
    assert image_shape((7,)) == (1, 1, 7)
    assert image_shape((2, 2, 1, 3)) == (1, 1, 12)


@pytest.mark.parametrize("size", [(3, 3), (5, 5), (1, 3), (3, 1), (1, 1), (4, 7)])
def test_a_bump_has_length_one_and_falls_from_its_two_middles(size: tuple[int, int]) -> None:
    bump = _two_halves(*size)
    assert bump.shape == size
    assert float(bump.norm()) == pytest.approx(1.0)
    if size[0] > 1:
        upper = size[0] // 2
        assert bool((bump[:upper] > 0).all())
        assert bool((bump[upper:] < 0).all())


def test_the_bump_of_five_is_the_papers() -> None:
    """Equation 2 by hand: k = 2 rows above, 3 below; n = 2, frames of 1, 1/4 and 1/9."""
    inner, middle, outer = 1 + 1 / 4 + 1 / 9, 1 / 4 + 1 / 9, 1 / 9
    upper = torch.tensor(
        [[outer, middle, middle, middle, outer], [outer, middle, inner, middle, outer]]
    )
    lower = torch.cat((upper, upper[:1]))
    expected = torch.cat((upper, -lower))
    got = _two_halves(5, 5).float()
    torch.testing.assert_close(got, expected / expected.norm())
