"""HopSkipJump: near exact on linear models, decisions alone, more queries never farther."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import AccessDenied, Norm, norms
from robustbench_lite.access import BatchMemory, Granted, Tally
from robustbench_lite.builtin.attacks import hopskipjump_normal
from robustbench_lite.builtin.attacks.decision_task import CLEAR, Task
from robustbench_lite.builtin.attacks.goal import goal_of
from robustbench_lite.builtin.attacks.hopskipjump import MOST_OF_A_STEP, SPEC
from robustbench_lite.types import Box, LoadedModel
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
from tests.oracles import Problem, estimated, linear_problem, network_problem, run

NORMS: tuple[Norm, ...] = ("l2", "linf")
SOME = 1500


@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
@pytest.mark.parametrize("norm", NORMS)
def test_on_two_linear_classes_it_is_within_five_percent(norm: Norm, edge: bool) -> None:
    """With half of the default queries; more only lead nearer, as is tested below."""
    for seed, (shape, n) in enumerate(zip(SHAPES, BATCHES, strict=True)):
        problem = linear_problem(seed, classes=2, shape=shape, n=n, edge=edge)
        assert_near_exact(SPEC, problem, norm, excess=0.05, queries=5000)


@pytest.mark.parametrize("box", [Box(-1.0, 2.0), Box(0.0, 255.0)], ids=str)
def test_in_any_box_it_is_within_five_percent(box: Box) -> None:
    for norm in NORMS:
        problem = linear_problem(5, classes=2, shape=(2, 3, 4), n=3, box=box)
        exact, x_adv = exact_distances(problem, norm), attacked(SPEC, problem, norm, queries=4000)
        assert broken(problem, x_adv).all()
        assert (distances(problem, x_adv, norm) <= 1.05 * exact).all()


def test_on_four_linear_classes_the_nearest_of_one_run_per_target_is_within_five_percent() -> None:
    for norm in NORMS:
        problem = linear_problem(0, classes=4, shape=(2, 3, 4), n=2)
        assert_union_near_exact(SPEC, problem, norm, excess=0.05, queries=2500)


@pytest.mark.parametrize(("norm", "excess"), [("l2", 0.05), ("linf", 0.2)])
def test_on_a_linear_model_of_784_inputs_it_comes_near(norm: Norm, excess: float) -> None:
    problem = linear_problem(0, classes=2, shape=(1, 28, 28), n=2)
    assert_near_exact(SPEC, problem, norm, excess=excess)


@pytest.mark.parametrize("norm", NORMS)
def test_digits_break(norm: Norm) -> None:
    problem = mnist(8)
    x_adv = attacked(SPEC, problem, norm, queries=SOME)
    assert broken(problem, x_adv).all()
    most = {"l2": 1.6, "linf": 0.16}[norm]
    assert float(np.median(distances(problem, x_adv, norm))) < most


@pytest.mark.parametrize("norm", NORMS)
def test_more_queries_never_lead_farther(norm: Norm) -> None:
    problem = rowwise_problem(1, classes=4, shape=(2, 3, 4), n=4)
    near = [
        distances(problem, attacked(SPEC, problem, norm, queries=queries), norm)
        for queries in (200, 330, 1400, 2600, 6000)
    ]
    for fewer, more in pairwise(near):
        assert (more <= fewer * (1 + 1.01 * CLEAR)).all()
    assert near[-1].sum() < 0.9 * near[0].sum()


@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_broken_point_is_kept_and_cleared(norm: Norm) -> None:
    for i in range(3):
        problem = network_problem(2, classes=4, shape=(2, 3, 4), n=3).rows([i])
        points, answer = visited(SPEC, problem, norm, queries=600, runs=2)
        hit = points[problem.net(points).argmax(dim=1) != problem.y]
        size = norms.distance(hit.double() - problem.x.double(), norm)
        got = float(distances(problem, answer, norm)[0])
        assert got <= float(size.min()) * (1 + 1.1 * CLEAR)
        assert bool(broken(problem, answer)[0])


def test_a_target_is_reached_or_the_input_comes_back() -> None:
    problem = network_problem(1, classes=4, shape=(2, 3, 4), n=8)
    target = (problem.y + 1) % 4
    for norm in NORMS:
        x_adv = attacked(SPEC, problem, norm, target=target, queries=SOME)
        reached = problem.net(x_adv).argmax(dim=1) == target
        unmoved = (x_adv == problem.x).flatten(1).all(dim=1)
        assert bool((reached | unmoved).all())
        assert int(reached.sum()) >= 6


# ---------------------------------------------------------------- decisions and what they cost


def test_it_asks_for_decisions_alone() -> None:
    """The run's own `Classifier` refuses everything else, and decisions do not show the logits."""
    problem = network_problem(1, classes=3, shape=(2, 3, 4), n=3)
    loaded = LoadedModel(
        predict=problem.net,
        differentiable=problem.net,
        num_classes=3,
        input_shape=(2, 3, 4),
        output="logits",
        device="cpu",
        provider="torch",
    )
    memory = BatchMemory(loaded, problem.x, problem.y)
    granted = Granted(memory, problem.box, "decision", Tally(3, problem.x.device))
    with pytest.raises(AccessDenied):
        granted.logits(problem.x)
    budget = problem.budget("l2", UNLIMITED)
    implementation = cast("Callable[..., Tensor]", SPEC.implementation)
    with torch.no_grad():
        seen = implementation(
            granted, problem.x, problem.y, budget=budget, rng=problem.rng(), queries=500
        )
    cubed = replace(problem, net=nn.Sequential(problem.net, _Cubed()))
    assert torch.equal(
        run(SPEC, problem, budget, queries=500), run(SPEC, cubed, budget, queries=500)
    )
    assert torch.equal(seen, run(SPEC, problem, budget, queries=500))


class _Cubed(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return logits.double() ** 3


@pytest.mark.parametrize("queries", [2, 17, 150, 1000])
@pytest.mark.parametrize("norm", NORMS)
def test_it_never_costs_more_than_it_says(norm: Norm, queries: int) -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4))
    model = problem.model()
    x_adv = run(SPEC, problem, problem.budget(norm, UNLIMITED), model=model, queries=queries)
    cost = estimated(SPEC, problem, queries=queries)
    assert cost == (1 + queries, 0)
    assert bool((model.queries <= cost.queries).all())
    assert bool((model.gradients == 0).all())
    if queries == 1000:
        step = 224 + MOST_OF_A_STEP  # the fifth of a run
        assert bool((model.queries > cost.queries - step).all())
        assert broken(problem, x_adv).all()


def test_where_no_start_is_found_the_input_comes_back_for_the_price_of_the_tries() -> None:
    problem = fortress()
    model = problem.model()
    x_adv = run(SPEC, problem, problem.budget("l2", UNLIMITED), model=model, starts=100)
    assert torch.equal(x_adv, problem.x)
    assert bool((model.queries == 101).all())


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_samples_already_lost_cost_one_pass_and_come_back_as_they_came(targeted: bool) -> None:
    problem = network_problem(1, classes=3, shape=(2, 3, 4))
    y = problem.y.clone()
    y[1::2] = (y[1::2] + 1) % 3
    mixed = problem.with_labels(y)
    model = mixed.model()
    target = torch.where(y == problem.y, (y + 1) % 3, problem.y) if targeted else None
    budget = mixed.budget("linf", UNLIMITED)
    x_adv = run(SPEC, mixed, budget, model=model, target=target, queries=300)
    assert torch.equal(x_adv[1::2], mixed.x[1::2])
    assert bool((model.queries[1::2] == 1).all())
    assert bool((model.queries[::2] > 1).all())


# ---------------------------------------------------------------- the estimate


def _cosines(problem: Problem, norm: Norm, slope: Tensor, point: Tensor, count: int) -> Tensor:
    """Between the estimates at points [n, *shape] and what they should be, [n]."""
    task = Task(
        model=problem.model(),
        x=problem.x,
        goal=goal_of(problem.y, None),
        box=problem.box,
        norm=norm,
        rng=problem.rng(),
    )
    way = norms.steepest(point - problem.x, "l2")
    zeros = torch.zeros(len(point), dtype=torch.float64)
    everyone = torch.arange(len(point))
    found, _, _ = hopskipjump_normal.estimated(
        task, everyone, point, way, zeros, zeros + 0.05, count, "test"
    )
    slope = slope.expand_as(found)
    if norm == "l2":
        along = (slope * way).flatten(1).sum(dim=1)
        slope = slope - norms.per_sample(along, slope) * way
        leak = (found * way).flatten(1).sum(dim=1).abs() / norms.distance(found, "l2")
        assert bool((leak < 1e-4).all())
    return torch.cosine_similarity(found.flatten(1), slope.flatten(1), dim=1)


@pytest.mark.parametrize("norm", NORMS)
def test_the_estimate_points_along_the_normal_and_gets_better_with_queries(norm: Norm) -> None:
    problem = linear_problem(0, classes=2, shape=(1, 8, 8), n=6)
    weight = problem.net.state_dict()["1.weight"]
    slope = (weight[1] - weight[0]).view(1, 1, 8, 8)
    sign = torch.where(problem.y == 0, 1.0, -1.0).view(-1, 1, 1, 1)
    gain = torch.as_tensor(problem.gains(problem.x).max(axis=1)).float().view(-1, 1, 1, 1)
    noise = torch.randn(problem.x.shape, generator=torch.Generator().manual_seed(0)) / 100
    rise = (noise * slope * sign).flatten(1).sum(dim=1).view(-1, 1, 1, 1)
    point = problem.x + noise - (gain + rise) * sign * slope / slope.square().sum()
    few, many = (_cosines(problem, norm, slope * sign, point, count) for count in (32, 2000))
    assert float(few.mean()) > 0.3
    assert bool((many > 0.9).all())


class _Corner(nn.Module):
    """Class 1 where all of the first components exceed 0.6: seen from its tip, hardly anywhere."""

    def forward(self, x: Tensor) -> Tensor:
        inside = x.flatten(1)[:, :8].amin(dim=1) - 0.6
        return torch.stack((torch.zeros_like(inside), inside), dim=1)


def test_in_a_corner_queries_are_centred_where_both_decisions_are_found() -> None:
    x = torch.full((2, 16), 0.4)
    point = x.clone()
    point[:, :8] = 0.6001
    y = torch.zeros(2, dtype=torch.int64)
    problem = Problem(net=_Corner(), classes=2, box=Box(0.0, 1.0), x=x, y=y)
    asked: list[Tensor] = []
    problem.net.register_forward_hook(lambda *call: asked.append(call[2].argmax(dim=1)))
    _cosines(problem, "l2", torch.ones(1, 16), point, 800)
    shares = [float(decisions.double().mean()) for decisions in asked]
    assert shares[0] < 0.1
    assert 0.2 < np.mean(shares[4:]) < 0.8


# ---------------------------------------------------------------- the contract


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract(norm: Norm, shape: tuple[int, ...]) -> None:
    for classes in (2, 3, 1000):
        assert_minimal_contract(SPEC, norm, shape, classes=classes, queries=250, runs=2, starts=60)
