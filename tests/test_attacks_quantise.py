"""Quantise: answers are 8-bit images in the ball, as strong as brute force finds, and they last."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from robustbench_lite import Box, Norm, norms
from robustbench_lite.builtin.attacks import pgd
from robustbench_lite.builtin.attacks.quantise import LEVELS, SPEC, stored
from robustbench_lite.judge import judge, to_uint8_and_back
from robustbench_lite.types import Batch, LoadedModel
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

NORMS: tuple[Norm, ...] = ("linf", "l2")
SHAPES = [(7,), (3, 5), (2, 3, 4)]


def as_8_bit(problem: Problem) -> Problem:
    """The same model on inputs that are 8-bit images, with its own decisions as labels."""
    x = to_uint8_and_back(problem.x, problem.box)
    with torch.no_grad():
        return replace(problem, x=x, y=problem.net(x).argmax(dim=1))


def on_grid(x: Tensor, box: Box) -> bool:
    return torch.equal(to_uint8_and_back(x, box), x)


def gap(problem: Problem) -> float:
    """One level, in the unit of the box."""
    return problem.box.width / LEVELS


def broken(problem: Problem, x_adv: Tensor) -> NDArray[np.bool_]:
    return cast("NDArray[np.bool_]", problem.gains(x_adv).max(axis=1) > 0)


def loaded(problem: Problem) -> LoadedModel:
    def predict(x: Tensor) -> Tensor:
        with torch.no_grad():
            return cast("Tensor", problem.net(x))

    return LoadedModel(
        predict=predict,
        differentiable=problem.net,
        num_classes=problem.classes,
        input_shape=tuple(problem.x.shape[1:]),
        output="logits",
        device="cpu",
        provider="torch",
    )


def batch(problem: Problem) -> Batch:
    n = len(problem.x)
    keys = torch.arange(n)
    return Batch(
        start=0,
        ids=problem.names[:n],
        hashes=problem.names[:n],
        keys=keys,
        x=problem.x,
        y=problem.y,
        box=problem.box,
    )


# ---------------------------------------------------------------- rounding


@given(
    seed=st.integers(0, 10**6),
    norm=st.sampled_from(NORMS),
    levels=st.floats(0.1, 30),
    box=st.sampled_from([UNIT, WIDE, Box(-3.0, -1.0)]),
    eight_bit=st.booleans(),
)
def test_rounding_stays_in_ball_and_box_and_goes_to_a_level(
    seed: int, norm: Norm, levels: float, box: Box, eight_bit: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = box.low + box.width * torch.rand(5, 2, 4, 3, generator=generator)
    x[torch.rand(x.shape, generator=generator) < 0.2] = box.high
    x = to_uint8_and_back(x, box) if eight_bit else x
    problem = Problem(net=nn.Identity(), classes=2, box=box, x=x, y=torch.zeros(5).long())
    size = 1 if norm == "linf" else x[0].numel() ** 0.5
    budget = problem.budget(norm, levels * gap(problem) * size)
    noise = 2 * torch.rand(x.shape, generator=generator) - 1
    point = norms.clip(x + 3 * budget.eps / size * noise, x, budget)
    kept = point.clone()
    out = stored(point, x, budget)
    assert torch.equal(point, kept)
    assert_legal(problem, out, budget)
    allowed = budget.eps + norms.tolerance(norm, budget.eps, box, tuple(x.shape[1:]))
    assert bool((norms.distance(out.double() - x.double(), norm) <= allowed).all())
    moved = out != x
    level = (out - to_uint8_and_back(out, box)).abs() <= 1e-5 * gap(problem)
    assert bool((level | ~moved).all())
    if eight_bit:
        assert on_grid(out, box)
    assert bool(((out - point).abs() <= 1.001 * gap(problem)).all())
    away = (out - x) * (point - x)
    assert bool((away >= 0).all())  # never to the other side of x
    assert torch.equal(stored(x, x, budget), x)


@pytest.mark.parametrize("norm", NORMS)
def test_a_point_well_inside_the_ball_goes_to_the_nearest_level(norm: Norm) -> None:
    problem = as_8_bit(linear_problem(0, classes=2, shape=(2, 5, 6)))
    budget = problem.budget(norm, 1.0)
    generator = torch.Generator().manual_seed(0)
    point = problem.x + 0.1 * (torch.rand(problem.x.shape, generator=generator) - 0.5)
    assert torch.equal(stored(point, problem.x, budget), to_uint8_and_back(point, UNIT))


def test_at_the_edge_of_the_ball_a_component_goes_towards_the_input() -> None:
    x = torch.full((1, 3), 100 / 255)
    problem = Problem(net=nn.Identity(), classes=2, box=UNIT, x=x, y=torch.zeros(1).long())
    budget = problem.budget("linf", 2.8 / 255)
    point = x + torch.tensor([[2.8, -2.8, 1.6]]) / 255
    assert (stored(point, x, budget) * 255).round().tolist() == [[102, 98, 102]]
    exact = problem.budget("linf", 3 / 255)
    point = norms.clip(x + torch.tensor([[9.0, -9.0, 0.4]]) / 255, x, exact)
    assert (stored(point, x, exact) * 255).round().tolist() == [[103, 97, 100]]


def test_in_l2_the_room_that_is_left_goes_to_the_levels_that_are_nearest() -> None:
    x = torch.full((1, 3), 100 / 255)
    problem = Problem(net=nn.Identity(), classes=2, box=UNIT, x=x, y=torch.zeros(1).long())
    point = x + torch.tensor([[1.7, 1.9, 1.4]]) / 255  # 2.91 levels long
    for radius, expected in ((2.91, [101, 102, 101]), (3.0, [102, 102, 101])):
        got = stored(point, x, problem.budget("l2", radius / 255))
        assert (got * 255).round().tolist() == [expected], radius


def test_an_input_between_levels_keeps_components_that_have_no_level_in_the_ball() -> None:
    x = torch.tensor([[100.4, 100.4, 100.4]]) / 255
    problem = Problem(net=nn.Identity(), classes=2, box=UNIT, x=x, y=torch.zeros(1).long())
    budget = problem.budget("linf", 0.5 / 255)
    point = x + torch.tensor([[0.5, -0.5, 0.1]]) / 255
    got = stored(point, x, budget)
    assert float(got[0, 0]) == float(x[0, 0])  # 101 is 0.6 away
    assert float(got[0, 1] * 255) == pytest.approx(100)
    assert float(got[0, 2]) == float(x[0, 2])


# ---------------------------------------------------------------- strength


@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("box", [UNIT, WIDE], ids=["unit", "wide"])
def test_linf_on_two_linear_classes_is_the_exact_answer_among_8_bit_images(
    box: Box, shape: tuple[int, ...], edge: bool, device: torch.device
) -> None:
    for seed in range(3):
        problem = as_8_bit(
            linear_problem(seed, classes=2, shape=shape, box=box, edge=edge, device=device)
        )
        continuous = undecided_eps(problem, "linf")
        for levels in (continuous / gap(problem), round(continuous / gap(problem))):
            whole = int(levels * (1 + 1e-9))  # what the ball has room for
            best = highest_gains(problem, problem.budget("linf", whole * gap(problem))).max(axis=1)
            x_adv = run(SPEC, problem, problem.budget("linf", levels * gap(problem)))
            decided = np.abs(best) > 1e-5
            assert np.array_equal(broken(problem, x_adv)[decided], (best > 0)[decided])
            unbroken = ~broken(problem, x_adv)
            got = problem.gains(x_adv).max(axis=1)
            np.testing.assert_allclose(got[unbroken], best[unbroken], atol=1e-4)


def brute_force(problem: Problem, norm: Norm, radius: float) -> NDArray[np.float64]:
    """The highest gain over all 8-bit images in the ball, one by one: float64 [n]."""
    reach = range(-int(radius + 1e-9), int(radius + 1e-9) + 1)
    steps = np.array(list(itertools.product(reach, repeat=problem.x[0].numel())))
    steps = steps[
        np.linalg.norm(steps, ord=np.inf if norm == "linf" else 2, axis=1) <= radius + 1e-9
    ]
    gains = []
    for i in range(len(problem.x)):
        points = problem.x[i] + torch.from_numpy(steps).view(-1, *problem.x.shape[1:]) * gap(
            problem
        )
        inside = ((points >= problem.box.low) & (points <= problem.box.high)).flatten(1).all(dim=1)
        one = replace(
            problem, x=points[inside], y=problem.y[i].expand(int(inside.sum())), names=("one",)
        )
        gains.append(one.gains(one.x).max())
    return np.array(gains)


def test_linf_on_three_classes_is_brute_force_in_few_dimensions() -> None:
    """Towards each class in turn, which makes the problem one of two classes."""
    seen = set()
    for seed in range(4):
        problem = as_8_bit(linear_problem(seed, classes=3, shape=(4,), n=30))
        best = brute_force(problem, "linf", 3.4)
        found = np.zeros(30, dtype=bool)
        for target in range(3):
            goal = torch.full_like(problem.y, target)
            budget = problem.budget("linf", 3.4 * gap(problem))
            found |= broken(problem, run(SPEC, problem, budget, target=goal, loss="margin"))
        assert np.array_equal(found, best > 0)
        seen |= set(found.tolist())
    assert seen == {True, False}


@pytest.mark.parametrize("radius", [2.2, 3.5, 5.3])
def test_l2_finds_nearly_all_that_brute_force_finds_and_no_more(radius: float) -> None:
    """Which levels to take in an l2 ball is a knapsack problem: PGD does not always solve it."""
    found = possible = 0
    for seed in range(4):
        problem = as_8_bit(linear_problem(seed, classes=3, shape=(4,), n=40))
        budget = problem.budget("l2", radius * gap(problem))
        best = brute_force(problem, "l2", radius)
        x_adv = run(SPEC, problem, budget, loss="margin", restarts=5)
        assert_legal(problem, x_adv, budget)
        assert (problem.gains(x_adv).max(axis=1) <= best + 1e-5).all()
        found += int(broken(problem, x_adv).sum())
        possible += int((best > 0).sum())
    assert 0.95 * possible <= found < 4 * 40


@pytest.mark.parametrize("norm", NORMS)
def test_it_is_never_stronger_than_the_best_of_the_whole_ball(norm: Norm) -> None:
    for seed in range(3):
        problem = as_8_bit(linear_problem(seed, classes=10, shape=(2, 3, 4), edge=True))
        budget = problem.budget(norm, undecided_eps(problem, norm))
        got, best = problem.gains(run(SPEC, problem, budget)), highest_gains(problem, budget)
        rivals = np.isfinite(best)
        assert (got[rivals] <= best[rivals] + 1e-4).all()


@pytest.mark.parametrize("norm", NORMS)
def test_every_success_survives_storage_where_those_of_pgd_do_not(norm: Norm) -> None:
    counts = {"pgd": [0, 0], "quantise": [0, 0]}
    for seed in range(6):
        problem = as_8_bit(linear_problem(seed, classes=3, shape=(6,), n=40))
        budget = problem.budget(norm, (2.4 if norm == "linf" else 4.0) * gap(problem))
        for spec in (pgd.SPEC, SPEC):
            x_adv = run(spec, problem, budget, loss="margin")
            outcome = judge(loaded(problem), batch(problem), x_adv, budget)
            assert outcome.legal.all()
            counts[spec.name][0] += int(outcome.success.sum())
            counts[spec.name][1] += int(outcome.survives_uint8.sum())
    assert counts["quantise"][0] == counts["quantise"][1] > 0
    assert counts["pgd"][0] > counts["pgd"][1]  # rounded as it comes, some are lost


@pytest.mark.parametrize("norm", NORMS)
def test_a_larger_budget_breaks_what_a_smaller_one_did_on_two_linear_classes(norm: Norm) -> None:
    problem = as_8_bit(linear_problem(2, classes=2, shape=(16,), edge=True))
    eps = undecided_eps(problem, norm)
    found = [
        broken(problem, run(SPEC, problem, problem.budget(norm, factor * eps)))
        for factor in (0.5, 1, 2, 8)
    ]
    assert all((small <= large).all() for small, large in itertools.pairwise(found))
    assert 0 < found[1].sum() < 12
    assert found[-1].all()


# ---------------------------------------------------------------- the contract


@pytest.mark.parametrize("eight_bit", [True, False], ids=["8-bit", "float"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract(
    norm: Norm, shape: tuple[int, ...], eight_bit: bool, device: torch.device
) -> None:
    problem = network_problem(0, classes=3, shape=shape, box=WIDE, edge=True, device=device)
    problem = as_8_bit(problem) if eight_bit else problem
    budget = problem.budget(norm, 0.2)
    assert_contract(SPEC, problem, budget, exact=False, steps=5, restarts=2)
    for target in (None, (problem.y + 1) % 3):
        x_adv = run(SPEC, problem, budget, target=target, steps=5)
        assert_legal(problem, x_adv, budget)
        assert on_grid(x_adv, WIDE) or not eight_bit


def test_passes_are_those_of_pgd_and_of_the_estimate() -> None:
    problem = as_8_bit(linear_problem(0, classes=2, shape=(3, 4)))
    with torch.no_grad():
        problem.net[1].weight.mul_(1e-3)  # type: ignore[index]
        problem.net[1].bias.copy_(torch.tensor([1.0, 0.0]))  # type: ignore[index]
    problem = problem.with_labels(torch.zeros_like(problem.y))
    for own in ({"steps": 7, "restarts": 3}, {"steps": 4, "stop_when_broken": False}):
        model = problem.model()
        run(SPEC, problem, problem.budget("linf", 0.05), model=model, seed=0, **own)
        cost = estimated(SPEC, problem, **own)
        assert model.queries.tolist() == [cost.queries] * 12
        assert model.gradients.tolist() == [cost.gradients] * 12


def test_a_sample_already_lost_comes_back_as_it_came() -> None:
    problem = network_problem(1, classes=3, shape=(2, 3, 4))
    lost = problem.with_labels((problem.y + 1) % 3)
    x_adv = run(SPEC, lost, lost.budget("linf", 0.3))
    assert torch.equal(x_adv, lost.x)
    assert x_adv.data_ptr() != lost.x.data_ptr()


def test_the_model_is_shown_8_bit_images_only() -> None:
    problem = as_8_bit(network_problem(1, classes=5, shape=(1, 5, 5)))
    seen: list[Tensor] = []
    problem.net.register_forward_pre_hook(lambda _, x: seen.append(x[0].detach().clone()))
    run(SPEC, problem, problem.budget("l2", 0.05), steps=5)
    assert len(seen) > 3
    assert all(on_grid(x, UNIT) for x in seen)
