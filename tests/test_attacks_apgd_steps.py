"""The steps of APGD: checkpoints, momentum, and projections to ball and box together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_lite import Box, Budget, Norm, norms
from robustbench_lite.builtin.attacks.apgd_climb import Climb, climb, legal
from robustbench_lite.builtin.attacks.apgd_l1 import projected, sparse_climb
from tests.oracles import WIDE, inputs, network_problem


def begun(norm: Norm = "linf", n: int = 4, eps: float = 0.1) -> Climb:
    problem = network_problem(0, classes=3, shape=(3, 5), n=n)
    return climb(problem.x, problem.budget(norm, eps), problem.rng())


def test_checkpoints_are_the_papers() -> None:
    intervals = begun().checkpoints(100)
    assert list(intervals) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(intervals.values()) == [22, 19, 16, 13, 10, 7, 6, 6]
    assert not begun().checkpoints(1)
    problem = network_problem(0, classes=3, shape=(7,))
    sparse = sparse_climb(problem.x, None, problem.budget("l1", 1.0), problem.rng())
    assert list(sparse.checkpoints(100)) == list(range(4, 100, 4))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_run_starts_on_the_sphere(norm: Norm) -> None:
    problem = network_problem(0, classes=3, shape=(3, 5), n=4)  # far from the faces of the box
    start = climb(problem.x, problem.budget(norm, 0.1), problem.rng())
    distance = norms.distance(start.point - problem.x, norm)
    torch.testing.assert_close(distance, torch.full((4,), 0.1).double(), rtol=1e-5, atol=0)
    assert bool((start.length == 0.2).all())


def told(ascent: Climb, values: list[list[float]]) -> Climb:
    """The run after these losses, a row of them for every step; the gradient is always 1."""
    for row in values:
        ascent = ascent.having_seen(torch.tensor(row), torch.ones_like(ascent.point))
        if row is not values[-1]:
            ascent = ascent.moved()
    return ascent


def test_a_step_halves_where_too_few_steps_pay_and_the_run_returns_to_its_best_point() -> None:
    rising, falling = [0.0, 1, 2, 3, 4], [4.0, 3, 2, 1, 0]
    three_of_four, gap = [0.0, 1, 2, 3, 2], [0.0, 1, 2, 0, 4]
    values = [list(row) for row in zip(rising, falling, three_of_four, gap, strict=True)]
    before = told(begun(), values)
    after = before.checked(4)
    assert after.halved.tolist() == [False, True, True, True]
    torch.testing.assert_close(after.length, torch.tensor([0.2, 0.1, 0.1, 0.1]))
    assert torch.equal(after.point[0], before.point[0])
    assert torch.equal(after.point[1:], before.best[1:])
    assert torch.equal(after.best_value, torch.tensor([4.0, 4, 3, 4]))
    assert not after.rises.any()


def test_a_step_halves_where_rises_do_not_reach_the_best_point() -> None:
    first = told(begun(n=2), [[float(i), float(i)] for i in range(9)]).checked(8)
    assert not first.halved.any()
    below = [[0.5 * i, 2.0 * i] for i in range(9)]  # 8 rises of 9 steps
    second = told(first.moved(), below).checked(9)
    assert second.halved.tolist() == [True, False]
    again = replace(second, point=second.best, value=second.best_value)
    third = told(again.moved(), below).checked(9)
    assert third.halved.tolist() == [False, True]  # the shorter step has its turn first


def test_a_step_is_averaged_with_the_last_move() -> None:
    start = replace(begun(), length=torch.full((4,), 0.01))
    start = replace(start, point=start.x)
    one = told(start, [[0.0] * 4]).moved()
    torch.testing.assert_close(one.point - start.point, torch.full_like(start.point, 0.01))
    two = told(one, [[0.0] * 4]).moved()
    torch.testing.assert_close(two.point - one.point, torch.full_like(start.point, 0.01))
    turned = one.having_seen(torch.zeros(4), -torch.ones_like(one.point)).moved()
    torch.testing.assert_close(
        turned.point - one.point, torch.full_like(start.point, -0.75 * 0.01 + 0.25 * 0.01)
    )


# ---------------------------------------------------------------- l1


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([1e-3, 0.1, 1.0, 30.0]),
    eps=st.sampled_from([0.0, 1e-3, 0.5, 4.0, 1e3]),
    edge=st.booleans(),
)
def test_the_l1_projection_is_the_nearest_point_of_ball_and_box(
    seed: int, scale: float, eps: float, edge: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = inputs(generator, 4, (2, 3), WIDE, edge=edge)
    delta = scale * torch.randn((4, 2, 3), generator=generator)
    u = projected(delta, x, eps, WIDE).double()
    assert bool((u.abs().flatten(1).sum(dim=1) <= eps * (1 + 1e-6)).all())
    assert bool((x + u >= WIDE.low - 1e-6).all())
    assert bool((x + u <= WIDE.high + 1e-6).all())
    d = delta.double().flatten(1).numpy()
    at = x.double().flatten(1).numpy()
    room = np.where(d > 0, WIDE.high - at, at - WIDE.low)
    low, high = np.zeros((4, 1)), np.abs(d).max(axis=1, keepdims=True)
    for _ in range(100):  # bisection on the threshold, where the code sorts
        middle = (low + high) / 2
        size = np.clip(np.abs(d) - middle, 0, room).sum(axis=1, keepdims=True)
        low, high = np.where(size > eps, middle, low), np.where(size > eps, high, middle)
    inside = np.clip(np.abs(d), 0, room).sum(axis=1, keepdims=True) <= eps
    exact = np.sign(d) * np.clip(np.abs(d) - np.where(inside, 0.0, high), 0, room)
    np.testing.assert_allclose(u.flatten(1).numpy(), exact, rtol=1e-5, atol=1e-6)


def test_the_l1_projection_without_walls_is_the_ordinary_one() -> None:
    delta = torch.randn((6, 40), generator=torch.Generator().manual_seed(0))
    u = projected(delta, torch.zeros(6, 40), 3.0, Box(-100.0, 100.0))
    torch.testing.assert_close(u, norms.project(delta, "l1", 3.0))


def test_an_l1_step_goes_along_the_steepest_components_that_can_move() -> None:
    problem = network_problem(0, classes=3, shape=(10,), n=3)
    x = problem.x.clone()
    x[2, 8] = 1.0
    ascent = sparse_climb(x, x, problem.budget("l1", 0.1), problem.rng())
    ascent = replace(ascent, width=torch.tensor([2, 5, 2]))
    grad = torch.arange(1.0, 11).expand(3, 10).clone()
    grad[:, 9] *= -1
    moves = ascent.having_seen(torch.zeros(3), grad).moved().point - x
    expected = torch.zeros(3, 10)
    expected[0, 8], expected[1, 5:9], expected[2, 7] = 0.05, 0.02, 0.05
    expected[:, 9] = torch.tensor([-0.05, -0.02, -0.05])
    torch.testing.assert_close(moves, expected)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([1e-3, 0.1, 1.0, 30.0]),
    eps=st.sampled_from([1e-3, 0.5, 4.0]),
)
def test_an_l2_point_is_brought_to_the_nearest_point_of_ball_and_box(
    seed: int, scale: float, eps: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = inputs(generator, 4, (2, 3), WIDE, edge=True)
    delta = scale * torch.randn((4, 2, 3), generator=generator)
    budget = Budget(norm="l2", eps=eps, box=WIDE)
    u = (legal(x + delta, x, budget) - x).double().flatten(1).numpy()
    d = delta.double().flatten(1).numpy()
    at = x.double().flatten(1).numpy()
    room = np.where(d > 0, WIDE.high - at, at - WIDE.low)
    low, high = np.zeros((4, 1)), np.ones((4, 1))
    for _ in range(60):
        middle = (low + high) / 2
        size = np.linalg.norm(np.minimum(np.abs(d) * middle, room), axis=1, keepdims=True)
        low, high = np.where(size > eps, low, middle), np.where(size > eps, middle, high)
    exact = np.minimum(np.abs(d) * low, room)
    assert (np.linalg.norm(u, axis=1) <= eps * (1 + 1e-6) + 1e-6).all()
    far = np.linalg.norm(u - d, axis=1)
    nearest = np.linalg.norm(np.sign(d) * exact - d, axis=1)
    assert (far <= nearest * 1.02 + 1e-5).all()
