"""The boundary attack, and the starts that decision-based attacks share."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import norms
from robustbench_lite.builtin.attacks.boundary import RUN, SPEC
from robustbench_lite.builtin.attacks.decision_start import SIDES, best_of_runs, first_broken
from robustbench_lite.builtin.attacks.decision_task import BISECTIONS, CLEAR, Task, bisected
from robustbench_lite.builtin.attacks.goal import goal_of
from robustbench_lite.types import Box
from tests.minimal_cases import (
    BATCHES,
    SHAPES,
    UNLIMITED,
    assert_minimal_contract,
    assert_near_exact,
    assert_union_near_exact,
    attacked,
    broken,
    distances,
    exact_distances,
    fortress,
    mnist,
    rowwise_problem,
    visited,
)
from tests.oracles import (
    UNIT,
    CountingClassifier,
    Problem,
    estimated,
    linear_problem,
    network_problem,
    run,
)


@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
def test_on_two_linear_classes_it_is_within_five_percent(edge: bool) -> None:
    """With a fifth of the default queries; more only lead nearer, as is tested below."""
    for seed, (shape, n) in enumerate(zip(SHAPES, BATCHES, strict=True)):
        problem = linear_problem(seed, classes=2, shape=shape, n=n, edge=edge)
        assert_near_exact(SPEC, problem, "l2", excess=0.05, queries=2000)


@pytest.mark.parametrize("box", [Box(-1.0, 2.0), Box(0.0, 255.0)], ids=str)
def test_in_any_box_it_is_within_five_percent(box: Box) -> None:
    problem = linear_problem(5, classes=2, shape=(2, 3, 4), n=3, box=box)
    x_adv = attacked(SPEC, problem, "l2", queries=2000)
    assert broken(problem, x_adv).all()
    assert (distances(problem, x_adv, "l2") <= 1.05 * exact_distances(problem, "l2")).all()


def test_on_four_linear_classes_the_nearest_of_one_run_per_target_is_within_five_percent() -> None:
    problem = linear_problem(0, classes=4, shape=(2, 3, 4), n=2)
    assert_union_near_exact(SPEC, problem, "l2", excess=0.05, queries=1500)


def test_digits_break() -> None:
    problem = mnist(8)
    x_adv = attacked(SPEC, problem, "l2", queries=1500)
    assert broken(problem, x_adv).all()
    assert float(np.median(distances(problem, x_adv, "l2"))) < 1.6


def test_a_target_is_reached_or_the_input_comes_back() -> None:
    problem = network_problem(1, classes=4, shape=(2, 3, 4), n=8)
    target = (problem.y + 1) % 4
    x_adv = attacked(SPEC, problem, "l2", target=target, queries=500)
    reached = problem.net(x_adv).argmax(dim=1) == target
    unmoved = (x_adv == problem.x).flatten(1).all(dim=1)
    assert bool((reached | unmoved).all())
    assert int(reached.sum()) >= 6


def test_more_queries_never_lead_farther() -> None:
    problem = rowwise_problem(1, classes=4, shape=(2, 3, 4), n=4)
    near = [
        distances(problem, attacked(SPEC, problem, "l2", queries=queries), "l2")
        for queries in (20, 100, RUN - 5, RUN + 70, 2300)
    ]
    for fewer, more in pairwise(near):
        assert (more <= fewer * (1 + 1.01 * CLEAR)).all()
    assert near[-1].sum() < 0.9 * near[0].sum()


def test_the_nearest_broken_point_is_kept_and_cleared() -> None:
    for i in range(3):
        problem = network_problem(2, classes=4, shape=(2, 3, 4), n=3).rows([i])
        points, answer = visited(SPEC, problem, "l2", queries=400, runs=2)
        hit = points[problem.net(points).argmax(dim=1) != problem.y]
        size = norms.distance(hit.double() - problem.x.double(), "l2")
        got = float(distances(problem, answer, "l2")[0])
        assert got <= float(size.min()) * (1 + 1.1 * CLEAR)
        assert bool(broken(problem, answer)[0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract(shape: tuple[int, ...]) -> None:
    for classes in (2, 3, 1000):
        assert_minimal_contract(SPEC, "l2", shape, classes=classes, queries=100, runs=2, starts=60)


# ---------------------------------------------------------------- cost


@pytest.mark.parametrize("queries", [2, 17, 150])
def test_it_costs_what_it_says_until_it_has_converged(queries: int) -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4))
    model = problem.model()
    run(SPEC, problem, problem.budget("l2", UNLIMITED), model=model, queries=queries)
    cost = estimated(SPEC, problem, queries=queries)
    assert cost == (1 + queries, 0)
    assert bool((model.queries <= cost.queries).all())
    assert bool((model.gradients == 0).all())
    if queries == 150:
        assert bool((model.queries == cost.queries).all())


def test_a_walk_that_has_converged_ends() -> None:
    problem = linear_problem(0, classes=2, shape=(1,), n=4)
    model = problem.model()
    x_adv = run(SPEC, problem, problem.budget("l2", UNLIMITED), model=model)
    assert broken(problem, x_adv).all()
    assert bool((model.queries < 5000).all())


def test_where_no_start_is_found_the_input_comes_back_for_the_price_of_the_tries() -> None:
    problem = fortress()
    model = problem.model()
    x_adv = run(SPEC, problem, problem.budget("l2", UNLIMITED), model=model)
    assert torch.equal(x_adv, problem.x)
    assert bool((model.queries == 1001).all())


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_samples_already_lost_cost_one_pass_and_come_back_as_they_came(targeted: bool) -> None:
    problem = network_problem(1, classes=3, shape=(2, 3, 4))
    y = problem.y.clone()
    y[1::2] = (y[1::2] + 1) % 3
    mixed = problem.with_labels(y)
    model = mixed.model()
    target = torch.where(y == problem.y, (y + 1) % 3, problem.y) if targeted else None
    x_adv = run(SPEC, mixed, mixed.budget("l2", UNLIMITED), model=model, target=target, queries=100)
    assert torch.equal(x_adv[1::2], mixed.x[1::2])
    assert bool((model.queries[1::2] == 1).all())
    assert bool((model.queries[::2] > 1).all())


# ---------------------------------------------------------------- starts


def _task(problem: Problem, model: CountingClassifier | None = None) -> Task:
    return Task(
        model=model or problem.model(),
        x=problem.x,
        goal=goal_of(problem.y, None),
        box=problem.box,
        norm="l2",
        rng=problem.rng(),
    )


class _Sees(nn.Module):
    """Class 1 where a property of the image holds."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        holds = {
            "black": flat.amax(dim=1) < 0.01,
            "white": flat.amin(dim=1) > 0.99,
            "noise": (flat.std(dim=1) > 0.25) & (flat.std(dim=1) < 0.33),
            "corners": ((flat - 0.5).abs() == 0.5).all(dim=1) & (flat.std(dim=1) > 0.1),
            "halves": (x[..., :4] - x[..., 4:]).abs().flatten(1).amin(dim=1) > 0.9,
            "near": (flat - 0.5).abs().mean(dim=1).sub(0.05).abs() < 0.02,
        }[self.what]
        return torch.stack((~holds, holds), dim=1).float()


@pytest.mark.parametrize("what", ["black", "white", "noise", "corners", "halves", "near"])
def test_noise_corners_constant_colours_and_blends_are_tried(what: str) -> None:
    x, y = torch.full((3, 1, 8, 8), 0.5), torch.zeros(3, dtype=torch.int64)
    problem = Problem(net=_Sees(what), classes=2, box=UNIT, x=x, y=y)
    model = problem.model()
    purse = torch.tensor([1000, 1000, 0])
    start = first_broken(_task(problem, model), purse, 1000)
    assert start.found.tolist() == [True, True, False]
    assert bool((problem.net(start.point[:2]).argmax(dim=1) == 1).all())
    assert torch.equal(start.point[2], x[2])
    assert torch.equal(start.spent, model.queries)
    assert bool(((start.point >= 0) & (start.point <= 1)).all())


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 9, 4), (2, 2, 1, 3)], ids=str)
def test_starts_have_the_shape_and_box_of_the_data(shape: tuple[int, ...]) -> None:
    problem = fortress(shape=shape)
    seen: list[Tensor] = []
    problem.net.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    start = first_broken(_task(problem), torch.full((4,), 200), 4 * len(SIDES))
    points = torch.cat(seen)
    assert not bool(start.found.any())
    assert bool((start.spent == 4 * len(SIDES)).all())
    assert points.shape == (4 * 4 * len(SIDES), *shape)
    assert bool(((points >= 0) & (points <= 1)).all())
    assert len({tuple(row) for row in points.flatten(1).tolist()}) > 0.7 * len(points)


def test_bisection_ends_on_the_boundary() -> None:
    problem = linear_problem(0, classes=2, shape=(2, 3, 4), n=5)
    task = _task(problem)
    purse = torch.full((5,), 500)
    start = first_broken(task, purse, 100)
    rows = torch.arange(5)
    offset = start.point - problem.x
    radius = bisected(task, rows, offset)
    size = norms.distance(offset, "l2")
    assert broken(problem, task.on_way(rows, offset, radius)).all()
    nearer = task.on_way(rows, offset, radius - 1.01 * 2.0**-BISECTIONS * size)
    assert not broken(problem, nearer).any()


@dataclass(frozen=True)
class _Known:
    index: Tensor
    best: Tensor
    distance: Tensor
    left: Tensor


def test_the_best_run_of_each_sample_goes_on_with_what_is_left() -> None:
    problem = linear_problem(0, classes=2, shape=(3,), n=3)
    task = _task(problem)
    lengths = iter(([3.0, 1.0, 2.0], [2.0, 2.0, 1.5], [4.0, 5.0, 6.0]))
    ends: list[_Known] = []

    def begin(_: Task, rows: Tensor, points: Tensor, left: Tensor) -> _Known:
        length = torch.tensor(next(lengths)).double()[rows]
        return _Known(
            rows, norms.per_sample(length.float(), points).expand_as(points), length, left
        )

    def advance(_: Task, known: _Known, to_the_end: bool) -> _Known:
        if to_the_end:
            ends.append(known)
            return known
        return _Known(
            known.index.flip(0), known.best.flip(0), known.distance.flip(0), known.left - 7
        )

    answer = best_of_runs(task, queries=300, starts=100, runs=3, begin=begin, advance=advance)
    assert ends[0].index.tolist() == [0, 1, 2]
    assert ends[0].distance.tolist() == [2.0, 1.0, 1.5]
    assert answer[:, 0].tolist() == [2.0, 1.0, 1.5]
    assert bool((ends[0].left < 300 - 3 * (BISECTIONS + 7)).all())
