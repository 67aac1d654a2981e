"""Spatial: exact turns and shifts, the grid against brute force, random moves inside the set."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage
from torch import Tensor, nn

from robustbench_lite import Box
from robustbench_lite.builtin.attacks.spatial import SPEC, SpatialParams, moved
from tests.no_norm import assert_contract
from tests.oracles import (
    UNIT,
    WIDE,
    Problem,
    estimated,
    linear_problem,
    network_problem,
    run,
)
from tests.row_by_row import row_by_row

SHAPES = [(9, 8), (1, 8, 9), (3, 7, 12)]
COARSE = {"rotations": 5, "translations": 3}


def turned(x: Tensor, degrees: float, down: float = 0, right: float = 0, box: Box = UNIT) -> Tensor:
    move = torch.tensor([[degrees, down, right]], dtype=torch.float64)
    return moved(
        x, move, Problem(net=nn.Identity(), classes=2, box=box, x=x, y=x).budget("none", 1)
    )


def by_scipy(x: Tensor, degrees: float, down: float, right: float, fill: float) -> Tensor:
    """The same move through scipy's affine transform, in float64."""
    angle = math.radians(degrees)
    back = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    middle = (np.array(x.shape[2:]) - 1) / 2
    offset = middle - back @ (middle + np.array([down, right]))
    planes = x.flatten(0, 1).double().numpy()
    done = [
        ndimage.affine_transform(
            plane, back, offset=offset, order=1, mode="grid-constant", cval=fill
        )
        for plane in planes
    ]
    return torch.from_numpy(np.stack(done)).view(x.shape)


def attack(problem: Problem, eps: float, **own: object) -> Tensor:
    return spent(problem, eps, **own)[0]


def spent(problem: Problem, eps: float, **own: object) -> tuple[Tensor, Tensor]:
    """What it returns, and the passes that each sample cost."""
    model = problem.model()
    x_adv = run(SPEC, problem, problem.budget("none", eps), seed=0, model=model, **own)
    assert bool((model.gradients == 0).all())
    return x_adv, model.queries


# ---------------------------------------------------------------- one move


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("quarters", [-1, 1, 2, 3])
def test_a_quarter_turn_is_rot90_to_the_last_bit(side: int, quarters: int) -> None:
    x = torch.rand(4, 2, side, side)
    assert torch.equal(turned(x, 90.0 * quarters), x.rot90(quarters, (2, 3)))


@pytest.mark.parametrize("shape", [(1, 8, 9), (3, 7, 12)], ids=str)
@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, 0), (0, -3), (-1, 4)])
def test_a_shift_by_whole_pixels_is_a_copy_and_zeros(
    shape: tuple[int, ...], down: int, right: int
) -> None:
    x = torch.rand(2, *shape)
    expected = torch.zeros_like(x)
    height, width = shape[1:]
    for row, column in itertools.product(range(height), range(width)):
        if 0 <= row - down < height and 0 <= column - right < width:
            expected[:, :, row, column] = x[:, :, row - down, column - right]
    assert torch.equal(turned(x, 0, down, right), expected)


@pytest.mark.parametrize("box", [UNIT, WIDE, Box(0.2, 1.0), Box(-2.0, -0.5)], ids=str)
def test_any_move_is_that_of_scipy_with_the_padding_of_the_box(box: Box) -> None:
    x = box.low + box.width * torch.rand(2, 3, 11, 8)
    fill = min(max(0.0, box.low), box.high)
    for degrees, down, right in ((17.0, 1.3, -2.2), (-30.0, 0, 0.5), (140.0, -1, 3)):
        got = turned(x, degrees, down, right, box)
        expected = by_scipy(x, degrees, down, right, fill)
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-5)


def test_every_sample_has_its_own_move() -> None:
    x = torch.rand(3, 1, 8, 8)
    moves = torch.tensor([[90.0, 0, 0], [0, 2, 0], [33.0, 1, -1]])
    budget = network_problem(0, classes=2, shape=(1, 8, 8)).budget("none", 1)
    whole = moved(x, moves, budget)
    for i in range(3):
        assert torch.equal(moved(x[i : i + 1], moves[i : i + 1], budget), whole[i : i + 1])


# ---------------------------------------------------------------- the grid


def some_unbreakable(seed: int, shape: tuple[int, ...], device: torch.device, n: int) -> Problem:
    """A linear problem in which one class is ahead by about what a move changes."""
    problem = linear_problem(seed, classes=3, shape=shape, n=n, edge=True, device=device)
    with torch.no_grad():
        problem.net[1].bias[0] += 1.2 * math.sqrt(math.prod(shape))  # type: ignore[index]
        return problem.with_labels(problem.net(problem.x).argmax(dim=1))


def _all_moves(shape: tuple[int, ...], eps: float) -> list[tuple[float, float, float]]:
    height, width = shape[-2:]
    angles = [eps * 30 * share for share in (-1, -0.5, 0, 0.5, 1)]
    downs = [eps * math.floor(0.3 * height + 0.5) * share for share in (-1, 0, 1)]
    rights = [eps * math.floor(0.3 * width + 0.5) * share for share in (-1, 0, 1)]
    return list(itertools.product(angles, downs, rights))


@pytest.mark.parametrize("eps", [0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 8, 9), (2, 7, 7)], ids=str)
def test_the_grid_is_brute_force(shape: tuple[int, ...], eps: float, device: torch.device) -> None:
    seen = set()
    for seed in range(6):
        problem = some_unbreakable(seed, shape, device, 12)
        x_adv = attack(problem, eps, translation=0.3, **COARSE)
        margins = np.stack(
            [problem.gains(turned(problem.x, *move)).max(axis=1) for move in _all_moves(shape, eps)]
        )
        got = problem.gains(x_adv).max(axis=1)
        assert np.array_equal(got > 0, margins.max(axis=0) > 0)
        whole = got <= 0
        moving = np.delete(margins, len(margins) // 2, axis=0)  # the clean input is no answer
        np.testing.assert_allclose(got[whole], moving.max(axis=0)[whole], atol=1e-4)
        seen |= set((got > 0).tolist())
    assert seen == {True, False}


class _Never(nn.Module):
    """Says class 0 whatever it sees, a little less surely the brighter the corner is."""

    def forward(self, x: Tensor) -> Tensor:
        corner = x.flatten(1)[:, :1]
        return torch.cat((2 - corner, torch.zeros_like(corner)), dim=1)


def unbreakable(shape: tuple[int, ...], n: int = 3) -> Problem:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, *shape, generator=generator)
    return Problem(net=_Never(), classes=2, box=UNIT, x=x, y=torch.zeros(n, dtype=torch.int64))


def visited(problem: Problem, eps: float, **own: object) -> Tensor:
    """Every point that the attack shows to the model, the clean one first: [points, n, *shape]."""
    points: list[Tensor] = []
    hook = problem.net.register_forward_pre_hook(lambda _, x: points.append(x[0].clone()))
    attack(problem, eps, **own)
    hook.remove()
    return torch.stack(points)


def test_the_papers_grid_has_775_points_and_the_input_is_one_of_them() -> None:
    problem = unbreakable((1, 28, 28), n=1)
    points = visited(problem, 1.0)
    assert len(points) == 775
    assert torch.equal(points[0], problem.x)
    same = (points == problem.x).flatten(1).all(dim=1)
    assert int(same.sum()) == 1
    assert len({tuple(point) for point in points[:, 0, 0].flatten(1).tolist()}) == 775
    shifted = torch.zeros_like(problem.x)
    shifted[:, :, 3:, :-3] = problem.x[:, :, :-3, 3:]
    assert bool((points == shifted).flatten(1).all(dim=1).any())  # 3 pixels of 28
    widest = turned(problem.x, 30.0)
    assert bool((points == widest).flatten(1).all(dim=1).any())


@pytest.mark.parametrize("own", [{}, COARSE, {"mode": "random", "k": 4}], ids=str)
def test_it_costs_what_it_says_where_nothing_breaks(own: dict[str, object]) -> None:
    problem = unbreakable((1, 12, 12))
    _, queries = spent(problem, 1, **own)
    cost = estimated(SPEC, problem, **own)
    assert queries.tolist() == [cost.queries] * 3
    assert cost.gradients == 0
    assert estimated(SPEC, problem).queries == 775


def test_a_broken_sample_stops_paying_and_a_lost_one_never_starts() -> None:
    problem = some_unbreakable(1, (1, 9, 9), torch.device("cpu"), 20)
    x_adv, queries = spent(problem, 1, **COARSE)
    broken = torch.from_numpy(problem.gains(x_adv).max(axis=1) > 0)
    assert 0 < int(broken.sum()) < 20
    assert bool((queries[~broken] == 45).all())
    assert int(queries[broken].min()) < 45
    lost = problem.with_labels((problem.y + 1) % 3)
    x_adv, queries = spent(lost, 1.0)
    assert torch.equal(x_adv, lost.x)
    assert bool((queries == 1).all())


def test_an_output_that_is_not_finite_is_no_success() -> None:
    class NanWhenMoved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = torch.zeros(len(x), 2)
            logits[:, 1] = 1
            moved = (x != whole.x[: len(x)]).flatten(1).any(dim=1)
            return torch.where(moved[:, None], torch.nan, logits)

    whole = unbreakable((1, 8, 8), n=1)
    problem = Problem(net=NanWhenMoved(), classes=2, box=UNIT, x=whole.x, y=whole.y + 1)
    x_adv, queries = spent(problem, 1, **COARSE)
    assert torch.equal(x_adv, problem.x)
    assert int(queries) == 45


# ---------------------------------------------------------------- random moves


def spot(shape: tuple[int, int], row: int, column: int) -> Problem:
    x = torch.zeros(1, 1, *shape)
    x[:, :, row - 1 : row + 2, column - 1 : column + 2] = 1.0
    return Problem(net=_Never(), classes=2, box=UNIT, x=x, y=torch.zeros(1, dtype=torch.int64))


def centroids(points: Tensor) -> Tensor:
    """Mean row and column of the light, from the middle: [points, 2]."""
    light = points[:, 0, 0].double()
    light = light / light.sum((1, 2), keepdim=True)
    rows = torch.arange(light.shape[1]) - (light.shape[1] - 1) / 2
    columns = torch.arange(light.shape[2]) - (light.shape[2] - 1) / 2
    down = (light.sum(2) * rows).sum(1)
    return torch.stack((down, (light.sum(1) * columns).sum(1)), dim=1)


@pytest.mark.parametrize("eps", [0.4, 1.0])
def test_random_shifts_fill_the_range_and_stay_in_it(eps: float) -> None:
    problem = spot((41, 31), 20, 15)
    points = visited(problem, eps, mode="random", k=200, rotation=0, translation=0.2)
    shifts = centroids(points[1:])
    for axis, limit in ((0, 8 * eps), (1, 6 * eps)):
        assert float(shifts[:, axis].abs().max()) <= limit + 1e-4
        assert float(shifts[:, axis].max()) > 0.9 * limit
        assert float(shifts[:, axis].min()) < -0.9 * limit


@pytest.mark.parametrize("eps", [0.4, 1.0])
def test_random_turns_fill_the_range_and_stay_in_it(eps: float) -> None:
    problem = spot((41, 41), 20, 34)
    places = centroids(visited(problem, eps, mode="random", k=200, rotation=40, translation=0)[1:])
    angles = torch.atan2(-places[:, 0], places[:, 1]).rad2deg()
    assert float(angles.abs().max()) <= 40 * eps + 0.1
    assert float(angles.max()) > 36 * eps
    assert float(angles.min()) < -36 * eps


def test_the_grid_is_at_least_as_strong_as_the_worst_of_ten_and_that_as_one() -> None:
    broken: dict[str, int] = {"grid": 0, "ten": 0, "one": 0}
    for seed in range(3):
        problem = linear_problem(seed, classes=4, shape=(1, 12, 12), n=30, edge=True)
        ways: dict[str, dict[str, object]] = {
            "grid": {"rotations": 11},
            "ten": {"mode": "random"},
            "one": {"mode": "random", "k": 1},
        }
        for name, own in ways.items():
            gains = problem.gains(attack(problem, 0.25, **own)).max(axis=1)
            broken[name] += int((gains > 0).sum())
    assert broken["grid"] >= broken["ten"] > broken["one"] > 0


# ---------------------------------------------------------------- the contract


@pytest.mark.parametrize("own", [COARSE, {"mode": "random", "k": 3}], ids=["grid", "random"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract(shape: tuple[int, ...], own: dict[str, object], device: torch.device) -> None:
    problem = network_problem(0, classes=3, shape=shape, box=WIDE, edge=True, device=device)
    assert_contract(SPEC, row_by_row(problem), 0.1, **own)


def test_an_image_without_a_channel_axis_is_an_image_of_one_channel() -> None:
    problem = linear_problem(0, classes=3, shape=(1, 9, 8), edge=True)
    flat = Problem(net=problem.net, classes=3, box=UNIT, x=problem.x[:, 0], y=problem.y)
    got = attack(flat, 1, **COARSE)
    assert torch.equal(got, attack(problem, 1, **COARSE)[:, 0])


def test_what_is_no_image_and_an_eps_above_1_are_errors_that_say_so() -> None:
    problem = linear_problem(0, classes=2, shape=(784,))
    with pytest.raises(ValueError, match=r"spatial needs images .* have shape \[784\]"):
        attack(problem, 1)
    problem = linear_problem(0, classes=2, shape=(1, 8, 8))
    with pytest.raises(ValueError, match=r"eps 1\.5 is a share of the whole range"):
        attack(problem, 1.5)


@pytest.mark.parametrize("name", ["rotations", "translations"])
def test_a_grid_without_the_input_itself_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name}: 4 leaves the input itself out"):
        SpatialParams.model_validate({name: 4})
