"""Projections against their optimisation problem, linear maxima against linear programming."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor

from robustbench_lite import norms
from robustbench_lite.types import NORMS, Box, Budget, Norm

CONVEX: tuple[Norm, ...] = ("linf", "l2", "l1")
EPS: dict[Norm, float] = {"linf": 0.1, "l2": 0.7, "l1": 2.0, "l0": 3.0}
BOX = Box(0.0, 1.0)
ROUNDING = 2.0**-23

SHAPES = st.sampled_from([(1,), (7,), (3, 4), (1, 3, 3), (3, 2, 4)])
COMPONENTS = st.floats(-1000.0, 1000.0, width=32)
RADII = st.floats(2.0**-10, 50.0, width=32)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussians(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed)) * scale


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed))


@st.composite
def perturbations(draw: Any) -> Tensor:
    shape = draw(SHAPES)
    values: NDArray[np.float32] = draw(arrays.arrays(np.float32, (2, *shape), elements=COMPONENTS))
    return torch.from_numpy(values)


def budget(norm: Norm, eps: float | None = None, box: Box = BOX) -> Budget:
    return Budget(norm=norm, eps=EPS[norm] if eps is None else eps, box=box)


# ---------------------------------------------------------------- distances


@pytest.mark.parametrize("shape", [(5,), (4, 3), (3, 5, 5), (2, 3, 4, 5)])
def test_distances_are_numpys(shape: tuple[int, ...], device: torch.device) -> None:
    x, x_adv = images(6, *shape, seed=1).square(), images(6, *shape, seed=2).square()
    x_adv = torch.where(images(6, *shape, seed=3) < 0.5, x, x_adv)
    found = norms.distances(x.to(device), x_adv.to(device))
    delta = (x_adv.numpy().astype(np.float64) - x.numpy()).reshape(6, -1)
    for norm, order in (("linf", np.inf), ("l2", 2), ("l1", 1)):
        expected = np.linalg.norm(delta, ord=order, axis=1)
        np.testing.assert_allclose(getattr(found, norm).cpu(), expected, rtol=1e-12)
    changed = (x != x_adv).any(dim=1) if len(shape) == 3 else x != x_adv
    assert found.l0.tolist() == changed.flatten(1).sum(dim=1).tolist()
    assert all(getattr(found, norm).dtype == torch.float64 for norm in NORMS)


def test_a_pixel_of_an_image_counts_once_and_a_component_of_anything_else_does() -> None:
    x_adv = torch.zeros(2, 3, 4, 4)
    x_adv[0, :, 1, 2] = 0.5
    x_adv[1, 0, 0, 0] = x_adv[1, 2, 3, 3] = 1e-30
    assert norms.distance(x_adv, "l0").tolist() == [1.0, 2.0]
    assert norms.distance(x_adv.reshape(2, 48), "l0").tolist() == [3.0, 2.0]
    assert norms.distance(torch.tensor([[[-0.0, 0.0]]]), "l0").tolist() == [0.0]


def test_a_float32_sum_would_be_wrong_and_ours_is_not() -> None:
    delta = torch.full((1, 3, 224, 224), 0.1)
    component = float(delta[0, 0, 0, 0])
    assert float(norms.distance(delta, "l1")) == pytest.approx(component * 150528, rel=1e-11)
    assert float(norms.distance(delta, "l2")) == pytest.approx(component * 150528**0.5, rel=1e-11)


def test_nan_is_never_a_small_distance() -> None:
    delta = torch.tensor([[math.nan, 0.0], [0.0, 0.0]])
    for norm in CONVEX:
        assert not float(norms.distance(delta, norm)[0]) <= 1e9
    assert norms.distance(delta, "l0").tolist() == [1.0, 0.0]


@pytest.mark.parametrize("norm", NORMS)
def test_no_rows_give_no_rows(norm: Norm) -> None:
    x = torch.empty(0, 1, 2, 2)
    assert norms.distance(x, norm).shape == (0,)
    assert norms.project(x, norm, 1.0).shape == x.shape
    assert norms.clip(x, x, budget(norm)).shape == x.shape
    assert norms.linear_maximum(x, x, budget(norm)).shape == x.shape
    assert norms.per_sample(torch.empty(0), x).shape == (0, 1, 1, 1)


# ---------------------------------------------------------------- projection


@settings(deadline=None, max_examples=150)
@given(delta=perturbations(), eps=RADII, norm=st.sampled_from(NORMS))
def test_projection_ends_in_the_ball_and_moves_nothing_twice(
    delta: Tensor, eps: float, norm: Norm
) -> None:
    once = norms.project(delta, norm, eps)
    size = norms.distance(once, norm)
    assert bool((size <= eps * (1 + ROUNDING)).all()), (size, eps)
    assert torch.equal(norms.project(once, norm, eps), once)
    assert once.shape == delta.shape
    assert once.dtype == delta.dtype


@settings(deadline=None, max_examples=100)
@given(delta=perturbations(), norm=st.sampled_from(NORMS), extra=st.floats(0.0, 10.0))
def test_a_point_of_the_ball_comes_back_bit_for_bit(
    delta: Tensor, norm: Norm, extra: float
) -> None:
    eps = norms.distance(delta, norm) + extra
    back = norms.project(delta, norm, eps)
    assert torch.equal(back.view(torch.int32), delta.view(torch.int32))


@settings(deadline=None, max_examples=150)
@given(
    delta=perturbations(),
    other=st.integers(0, 2**31),
    eps=RADII,
    norm=st.sampled_from(CONVEX),
)
def test_projection_solves_its_problem(delta: Tensor, other: int, eps: float, norm: Norm) -> None:
    """p is nearest in a convex set iff <delta - p, q - p> <= 0 for every q of the set."""
    found = norms.project(delta, norm, eps).double().flatten(1)
    q = norms.project(gaussians(*delta.shape, seed=other, scale=eps), norm, eps).double().flatten(1)
    corner = norms.steepest(delta, norm).double().flatten(1) * eps  # the worst q of all
    for point in (q, corner, -corner):
        slack = ((delta.double().flatten(1) - found) * (point - found)).sum(dim=1)
        reach = eps * (delta.double().flatten(1).norm(dim=1) + eps)
        assert bool((slack <= 4e-7 * reach * math.sqrt(found.shape[1])).all()), slack


@pytest.mark.parametrize("norm", CONVEX)
def test_projection_equals_a_general_solver(norm: Norm) -> None:
    delta, eps = gaussians(5, 6, seed=4).double().numpy(), 1.2
    found = norms.project(torch.from_numpy(delta).float(), norm, eps).double().numpy()
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=6)))
    constraints: dict[Norm, Any] = {
        "linf": optimize.LinearConstraint(np.eye(6), -eps, eps),
        "l2": optimize.NonlinearConstraint(lambda d: d @ d, -np.inf, eps**2),
        "l1": optimize.LinearConstraint(signs, -np.inf, eps),
    }
    for row, answer in zip(delta, found, strict=True):

        def distance(d: NDArray[np.float64], row: NDArray[np.float64] = row) -> float:
            return float(((d - row) ** 2).sum())

        solved = optimize.minimize(
            distance, np.zeros(6), method="SLSQP", constraints=[constraints[norm]], tol=1e-14
        )
        np.testing.assert_allclose(answer, solved.x, atol=2e-5)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_projected_point_is_on_the_sphere_and_never_beyond_it(
    norm: Norm, device: torch.device
) -> None:
    eps = 0.1 + images(3000, seed=30).double()
    once = norms.project(gaussians(3000, 40, seed=31, scale=5.0).to(device), norm, eps)
    size = norms.distance(once, norm).cpu()
    assert bool((size <= eps).all())
    assert bool((size >= eps * (1 - 3e-7)).all())
    assert torch.equal(norms.project(once, norm, eps), once)


def test_l1_projection_of_known_points() -> None:
    delta = torch.tensor([[3.0, 1.0, 0.0], [-1.0, 1.0, 1.0], [0.2, -0.3, 0.0]])
    expected = torch.tensor([[1.0, 0.0, 0.0], [-1 / 3, 1 / 3, 1 / 3], [0.2, -0.3, 0.0]])
    assert torch.allclose(norms.project(delta, "l1", 1.0), expected, atol=2e-7)


@pytest.mark.parametrize("channels", [1, 3])
def test_l0_projection_is_the_nearest_of_all_choices(channels: int) -> None:
    delta = gaussians(4, channels, 2, 3, seed=5)
    found = norms.project(delta, "l0", 2)
    for row, answer in zip(delta, found, strict=True):
        distances = []
        for kept in itertools.combinations(range(6), 2):
            mask = torch.zeros(6).index_fill(0, torch.tensor(kept), 1.0).reshape(1, 2, 3)
            distances.append(float((row * mask - row).norm()))
        assert float((answer - row).norm()) == pytest.approx(min(distances), rel=1e-6)
        assert torch.equal(answer[answer != 0], row[answer != 0])


def test_l0_keeps_the_first_of_equal_pixels_and_rounds_eps_down() -> None:
    found = norms.project(torch.ones(2, 5000), "l0", 2.9)
    assert found.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize("norm", NORMS)
def test_radius_zero_leaves_nothing_and_an_unbounded_one_everything(norm: Norm) -> None:
    delta = gaussians(3, 2, 4, 4, seed=6)
    assert not norms.project(delta, norm, 0.0).any()
    assert torch.equal(norms.project(delta, norm, math.inf), delta)


@pytest.mark.parametrize("norm", NORMS)
def test_each_row_has_its_own_radius(norm: Norm, device: torch.device) -> None:
    delta = gaussians(4, 1, 3, 3, seed=7).to(device)
    eps = torch.tensor([0.0, 0.5, 2.0, 1e6])
    together = norms.project(delta, norm, eps)
    for row in range(4):
        alone = norms.project(delta[row : row + 1], norm, float(eps[row]))
        assert torch.allclose(together[row : row + 1], alone, rtol=1e-6, atol=0)


# ---------------------------------------------------------------- clip


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("box", [BOX, Box(-1.0, 3.0)])
def test_clip_ends_in_ball_and_box(norm: Norm, box: Box, device: torch.device) -> None:
    x = (box.low + images(50, 3, 4, 4, seed=8) * box.width).clamp(box.low, box.high).to(device)
    wild = x + gaussians(50, 3, 4, 4, seed=9, scale=2.0).to(device)
    allowed = budget(norm, box=box)
    found = norms.clip(wild, x, allowed)
    limit = allowed.eps + norms.tolerance(norm, allowed.eps, box, (3, 4, 4))
    assert bool((getattr(norms.distances(x, found), norm) <= limit).all())
    assert bool(((found >= box.low) & (found <= box.high)).all())
    assert torch.allclose(norms.clip(found, x, allowed), found, atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_clip_leaves_a_legal_point_alone(norm: Norm) -> None:
    x = images(20, 1, 3, 3, seed=10)
    near = images(20, 1, 3, 3, seed=11) ** 8  # x + (near - x) would not be near again
    assert torch.equal(norms.clip(near, x, budget(norm, eps=10.0)), near)
    assert torch.equal(norms.clip(x, x, budget(norm, eps=0.0)), x)


@pytest.mark.parametrize("norm", NORMS)
def test_far_from_the_box_clip_is_the_projection(norm: Norm) -> None:
    x, delta = torch.full((20, 1, 3, 3), 0.5), gaussians(20, 1, 3, 3, seed=32)
    found = norms.clip(x + delta, x, budget(norm, box=Box(-9.0, 9.0)))
    assert torch.allclose(found, x + norms.project(delta, norm, EPS[norm]), rtol=0, atol=3e-7)


def test_clip_under_l0_leaves_the_other_pixels_as_they_were() -> None:
    x = images(10, 3, 4, 4, seed=12)
    found = norms.clip(x + gaussians(10, 3, 4, 4, seed=13), x, budget("l0", eps=2))
    assert norms.distances(x, found).l0.tolist() == [2.0] * 10


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), eps=st.floats(1e-4, 20.0), norm=st.sampled_from(NORMS))
def test_the_judge_forgives_rounding_and_no_more(seed: int, eps: float, norm: Norm) -> None:
    """clip ends within the tolerance of tolerance(), which is itself a tiny part of the budget."""
    x = images(4, 3, 5, 5, seed=seed)
    found = norms.clip(x + gaussians(4, 3, 5, 5, seed=seed + 1), x, budget(norm, eps=eps))
    slack = norms.tolerance(norm, eps, BOX, (3, 5, 5))
    assert bool((getattr(norms.distances(x, found), norm) <= eps + slack).all())
    assert slack <= 1e-6 * eps + 75 * 2.0**-23


def test_tolerance_values() -> None:
    step = 2.0**-23
    assert norms.tolerance("linf", 0.3, BOX, (3, 4)) == pytest.approx(3e-7 + step)
    assert norms.tolerance("l2", 0.3, BOX, (3, 12)) == pytest.approx(3e-7 + 6 * step)
    assert norms.tolerance("l1", 2.0, BOX, (3, 4)) == pytest.approx(2e-6 + 12 * step)
    assert norms.tolerance("l0", 2.0, BOX, (3, 4)) == 0.0
    assert norms.tolerance("linf", 0.0, Box(0, 255), (9,)) == pytest.approx(255 * step)
    assert norms.tolerance("linf", 0.0, Box(99, 100), (9,)) == pytest.approx(100 * step)


# ---------------------------------------------------------------- directions and linear maxima


@pytest.mark.parametrize("norm", CONVEX)
@pytest.mark.parametrize("scale", [1e-42, 1e-20, 1.0, 1e30])
def test_steepest_reaches_the_dual_norm(norm: Norm, scale: float) -> None:
    grad = gaussians(30, 2, 3, 3, seed=14, scale=scale)
    direction = norms.steepest(grad, norm)
    dual: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}
    gain = (grad.double() * direction.double()).flatten(1).sum(dim=1)
    assert torch.allclose(gain, norms.distance(grad, dual[norm]), rtol=1e-6, atol=0)
    ones = torch.ones(30, dtype=torch.float64)
    assert torch.allclose(norms.distance(direction, norm), ones, rtol=1e-6)


@pytest.mark.parametrize("norm", CONVEX)
def test_no_gradient_no_direction(norm: Norm) -> None:
    grad = torch.zeros(2, 4)
    grad[1, 2] = -3.0
    assert norms.steepest(grad, norm).tolist() == [[0.0] * 4, [0.0, 0.0, -1.0, 0.0]]


def test_l1_takes_the_first_of_equals() -> None:
    assert norms.steepest(torch.tensor([[1.0, -2.0, 2.0]]), "l1").tolist() == [[0.0, -1.0, 0.0]]


def test_l0_has_no_steepest_direction() -> None:
    with pytest.raises(ValueError, match="linear_maximum"):
        norms.steepest(torch.ones(1, 2), "l0")


def gain(grad: Tensor, delta: Tensor) -> Tensor:
    return (grad.double() * delta.double()).flatten(1).sum(dim=1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("box", [BOX, Box(-2.0, 1.0)])
def test_the_linear_maximum_is_legal(norm: Norm, box: Box, device: torch.device) -> None:
    x = (box.low + images(40, 3, 4, 4, seed=15) * box.width).clamp(box.low, box.high).to(device)
    grad = gaussians(40, 3, 4, 4, seed=16).to(device)
    found = norms.linear_maximum(grad, x, budget(norm, box=box))
    limit = EPS[norm] * (1 + 1e-6)
    assert bool((norms.distance(found, norm) <= limit).all())
    assert bool((x + found >= box.low - 1e-6).all())
    assert bool((x + found <= box.high + 1e-6).all())
    assert not norms.linear_maximum(torch.zeros_like(grad), x, budget(norm)).any()


def linprog_maximum(grad: NDArray[Any], x: NDArray[Any], norm: Norm, eps: float) -> float:
    """max <grad, p - m> over p, m >= 0 with p <= 1 - x, m <= x, and the ball as a linear bound."""
    d = len(grad)
    bounds = [(0.0, 1 - v) for v in x] + [(0.0, v) for v in x]
    rows = np.ones((1, 2 * d)) if norm == "l1" else np.hstack([np.eye(d), np.eye(d)])
    solved = optimize.linprog(
        np.concatenate([-grad, grad]), A_ub=rows, b_ub=np.full(len(rows), eps), bounds=bounds
    )
    assert solved.fun is not None
    return -float(solved.fun)


@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize("eps", [0.05, 0.6, 3.0, 100.0])
def test_the_linear_maximum_equals_linear_programming(norm: Norm, eps: float) -> None:
    x, grad = images(8, 9, seed=17), gaussians(8, 9, seed=18)
    found = gain(grad, norms.linear_maximum(grad, x, budget(norm, eps=eps)))
    for row in range(8):
        expected = linprog_maximum(grad[row].double().numpy(), x[row].double().numpy(), norm, eps)
        assert float(found[row]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("eps", [0.05, 0.5, 1.0, 1.5, 100.0])
def test_the_l2_linear_maximum_satisfies_its_optimality_conditions(eps: float) -> None:
    """delta = t * grad where the box is not reached, the box's end elsewhere, the budget spent.

    For a concave problem these conditions are sufficient: no better point exists.
    """
    x, grad = images(40, 12, seed=19), gaussians(40, 12, seed=20)
    x[:, 0], grad[:, 1] = x[:, 0].round(), 0.0
    found = norms.linear_maximum(grad, x, budget("l2", eps=eps)).double()
    slope = grad.double()
    end = torch.where(slope > 0, 1 - x.double(), -x.double()) * (slope != 0)
    full = (found - end).abs() <= 1e-7
    size = norms.distance(found, "l2")
    for row in range(40):
        opened = ~full[row]
        if not opened.any():
            assert float(size[row]) <= eps * (1 + 1e-6)
            continue
        levels = found[row][opened] / slope[row][opened]
        assert float(levels.max() - levels.min()) <= 1e-5 * float(levels.max())
        reached = full[row] & (slope[row] != 0)
        assert bool(((end / slope)[row][reached] <= levels.min() * (1 + 1e-4) + 1e-7).all())
        assert float(size[row]) == pytest.approx(eps, rel=1e-6)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_no_random_legal_point_beats_the_linear_maximum(norm: Norm) -> None:
    x, grad = images(20, 10, seed=21), gaussians(20, 10, seed=22)
    best = gain(grad, norms.linear_maximum(grad, x, budget(norm)))
    for seed in range(30):
        lean = grad * 3 if seed % 2 else torch.zeros_like(grad)
        wild = x + lean + gaussians(20, 10, seed=100 + seed, scale=2.0)
        other = norms.clip(wild, x, budget(norm))
        assert bool((gain(grad, other - x) <= best * (1 + 1e-5) + 1e-6).all())


@pytest.mark.parametrize("channels", [1, 3])
def test_the_l0_linear_maximum_is_the_best_of_all_choices(channels: int) -> None:
    x, grad = images(6, channels, 2, 3, seed=23), gaussians(6, channels, 2, 3, seed=24)
    found = norms.linear_maximum(grad, x, budget("l0", eps=2))
    corner = torch.where(grad > 0, 1 - x, -x)
    gains = (grad * corner).sum(dim=1).flatten(1)
    expected = torch.tensor(
        [
            max(float(row[list(two)].sum()) for two in itertools.combinations(range(6), 2))
            for row in gains
        ]
    )
    assert torch.allclose(gain(grad, found).float(), expected, rtol=1e-5)
    assert bool((norms.distance(found, "l0") <= 2).all())


@pytest.mark.parametrize("norm", CONVEX)
def test_far_from_the_box_it_is_the_steepest_direction(norm: Norm) -> None:
    x, grad = torch.full((10, 8), 0.5), gaussians(10, 8, seed=25)
    found = norms.linear_maximum(grad, x, budget(norm, eps=0.1))
    assert torch.allclose(found, 0.1 * norms.steepest(grad, norm), atol=1e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_an_unbounded_budget_reaches_the_corner_of_the_box(norm: Norm) -> None:
    x, grad = images(5, 8, seed=26), gaussians(5, 8, seed=27)
    found = norms.linear_maximum(grad, x, budget(norm, eps=math.inf))
    assert torch.allclose(x + found, (grad > 0).float(), atol=1e-6)


def test_arguments_are_left_as_found() -> None:
    x, grad = images(3, 1, 2, 2, seed=28), gaussians(3, 1, 2, 2, seed=29)
    before = x.clone(), grad.clone()
    for norm in NORMS:
        norms.project(grad, norm, 0.1)
        norms.clip(grad, x, budget(norm))
        norms.linear_maximum(grad, x, budget(norm))
    assert torch.equal(x, before[0])
    assert torch.equal(grad, before[1])
