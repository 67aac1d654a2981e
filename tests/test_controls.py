"""Controls: the distribution each one claims, legality, no look at the model; and the room's specs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from robustbench_lite import AttackSpec, Norm
from robustbench_lite.builtin import attacks
from robustbench_lite.contract import collect
from tests.oracles import (
    UNIT,
    WIDE,
    Problem,
    assert_contract,
    assert_legal,
    estimated,
    highest_gains,
    linear_problem,
    run,
    undecided_eps,
)

SPECS = {spec.name: spec for spec in attacks.robeval_attacks()}
CONTROLS = [
    (spec.name, norm) for spec in SPECS.values() if spec.role == "control" for norm in spec.norms
]
SHAPES = [(7,), (3, 5), (3, 4, 6)]
SURE = 1e-3  # smallest p-value that chance may give a fixed seed


def noise(name: str, norm: Norm, eps: float, *, n: int, shape: tuple[int, ...]) -> Tensor:
    """The change that a control makes to inputs far from the box's faces, [n, *shape]."""
    problem = grey(n, shape)
    return run(SPECS[name], problem, problem.budget(norm, eps)) - problem.x


def grey(n: int, shape: tuple[int, ...]) -> Problem:
    x = torch.full((n, *shape), 0.5)
    return Problem(net=nn.Identity(), classes=2, box=UNIT, x=x, y=torch.zeros(n, dtype=torch.int64))


def p_uniform(values: Tensor, low: float = 0.0, high: float = 1.0) -> float:
    return float(
        stats.kstest(values.double().flatten().numpy(), "uniform", (low, high - low)).pvalue
    )


def p_even(counts: NDArray[np.int64]) -> float:
    return float(stats.chisquare(counts).pvalue)


# ---------------------------------------------------------------- every control


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "norm"), CONTROLS)
def test_contract(name: str, norm: Norm, shape: tuple[int, ...], device: torch.device) -> None:
    problem = linear_problem(0, classes=3, shape=shape, box=WIDE, edge=True, device=device)
    for eps in (1.0,) if norm == "l0" else (0.3, 5.0):
        assert_contract(SPECS[name], problem, problem.budget(norm, eps))


@pytest.mark.parametrize(("name", "norm"), CONTROLS)
def test_another_seed_is_another_draw(name: str, norm: Norm) -> None:
    problem = linear_problem(0, classes=3, shape=(3, 8, 8), n=20)
    budget = problem.budget(norm, 1.0)
    one, two = (run(SPECS[name], problem, budget, seed=seed) for seed in (0, 1))
    assert int((one != two).flatten(1).any(dim=1).sum()) >= 18


@pytest.mark.parametrize(("name", "norm"), CONTROLS)
def test_it_never_looks_at_the_model(name: str, norm: Norm) -> None:
    problem = linear_problem(0, classes=2, shape=(3, 5))
    model = problem.model()
    run(SPECS[name], problem, problem.budget(norm, 1.0), model=model)
    assert estimated(SPECS[name], problem) == (0, 0)
    assert int(model.queries.sum()) == int(model.gradients.sum()) == 0


@pytest.mark.parametrize(("name", "norm"), [pair for pair in CONTROLS if pair[1] != "l0"])
def test_noise_never_exceeds_the_exact_answer_and_is_far_from_it(name: str, norm: Norm) -> None:
    problem = linear_problem(0, classes=10, shape=(2, 8, 8), n=40, edge=True)
    budget = problem.budget(norm, undecided_eps(problem, norm))
    got, best = problem.gains(run(SPECS[name], problem, budget)), highest_gains(problem, budget)
    rivals = np.isfinite(best)
    assert (got[rivals] <= best[rivals] + 1e-5).all()
    assert (got.max(axis=1) > 0).sum() < (best.max(axis=1) > 0).sum() / 2


def test_a_whole_box_of_budget_stays_in_the_box() -> None:
    problem = linear_problem(0, classes=2, shape=(3, 4, 6), box=WIDE, edge=True)
    for name, norm in CONTROLS:
        budget = problem.budget(norm, 1000.0)
        assert_legal(problem, run(SPECS[name], problem, budget), budget)


# ---------------------------------------------------------------- uniform noise


def test_uniform_linf_noise_is_uniform_in_each_component() -> None:
    delta = noise("uniform-noise", "linf", 0.25, n=400, shape=(1, 5, 5))
    assert p_uniform(delta, -0.25, 0.25) > SURE
    assert abs(np.corrcoef(delta.flatten(1).numpy().T)[0, 1:]).max() < 0.25


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("d", [1, 2, 9])
def test_uniform_ball_noise_fills_the_ball_evenly(norm: Norm, d: int) -> None:
    """The share of the ball within r is (r / eps)^d, and so it is within any smaller ball."""
    eps = 0.4
    delta = noise("uniform-noise", norm, eps, n=3000, shape=(d,))
    order = 2 if norm == "l2" else 1
    radius = torch.linalg.vector_norm(delta.double(), ord=order, dim=1)
    assert p_uniform((radius / eps).clamp_max(1) ** d) > SURE
    assert p_even(np.bincount((delta[:, 0] > 0).numpy(), minlength=2)) > SURE


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_uniform_ball_noise_agrees_with_rejection_sampling(norm: Norm) -> None:
    delta = noise("uniform-noise", norm, 0.4, n=4000, shape=(3,)).numpy()
    cube = np.random.default_rng(0).uniform(-0.4, 0.4, (30000, 3))
    ball = cube[np.linalg.norm(cube, ord=2 if norm == "l2" else 1, axis=1) <= 0.4]
    for direction in ((1, 0, 0), (1, 1, 0), (1, -1, 2)):
        assert stats.ks_2samp(delta @ direction, ball @ direction).pvalue > SURE
    assert stats.ks_2samp(np.abs(delta).max(axis=1), np.abs(ball).max(axis=1)).pvalue > SURE


# ---------------------------------------------------------------- sign and Gaussian noise


@pytest.mark.parametrize(("norm", "size"), [("linf", 0.25), ("l2", 0.25 / 5)])
def test_sign_noise_spends_the_whole_budget_with_fair_signs(norm: Norm, size: float) -> None:
    delta = noise("sign-noise", norm, 0.25, n=400, shape=(1, 5, 5))
    torch.testing.assert_close(delta.abs(), torch.full_like(delta, size))
    assert p_even(np.bincount((delta > 0).flatten().numpy(), minlength=2)) > SURE
    assert len({tuple(row) for row in (delta > 0).flatten(1).tolist()}) == 400


def test_gaussian_linf_noise_is_normal_and_clipped_to_the_ball() -> None:
    delta = noise("gaussian-noise", "linf", 0.25, n=400, shape=(5, 5)).flatten().double().numpy()
    inside = delta[np.abs(delta) < 0.2499]
    share = 2 * stats.norm.sf(2)
    assert stats.binomtest(len(delta) - len(inside), len(delta), share).pvalue > SURE
    assert stats.kstest(inside, stats.truncnorm(-2, 2, scale=0.125).cdf).pvalue > SURE


def test_gaussian_l2_noise_is_a_uniform_direction_of_length_eps() -> None:
    delta = noise("gaussian-noise", "l2", 0.25, n=3000, shape=(3,))
    length = torch.linalg.vector_norm(delta, dim=1)
    torch.testing.assert_close(length, torch.full_like(length, 0.25))
    assert p_uniform(delta[:, 0], -0.25, 0.25) > SURE  # Archimedes: a sphere's shadow on an axis


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("eps", [1.0, 4.9, 20.0, 99.0])
def test_salt_and_pepper_turns_eps_whole_pixels_black_or_white(eps: float) -> None:
    delta = noise("salt-and-pepper", "l0", eps, n=500, shape=(3, 4, 5))
    assert bool((delta.abs() % 0.5 == 0).all())
    assert bool((delta == delta[:, :1]).all())
    changed = delta[:, 0].flatten(1) != 0
    count = min(int(eps), 20)
    assert bool((changed.sum(dim=1) == count).all())
    assert p_even(changed.sum(dim=0).numpy()) > SURE
    values = delta[:, 0].flatten()
    assert p_even(np.bincount((values[values != 0] > 0).numpy(), minlength=2)) > SURE


def test_salt_and_pepper_of_a_vector_counts_components() -> None:
    delta = noise("salt-and-pepper", "l0", 3.0, n=50, shape=(4, 5))
    assert bool(((delta != 0).flatten(1).sum(dim=1) == 3).all())


@pytest.mark.parametrize("eps", [1.0, 7.0])
def test_random_pixel_is_any_pixel_at_any_corner(eps: float) -> None:
    delta = noise("random-pixel", "l0", eps, n=2000, shape=(2, 3, 4))
    changed = (delta != 0).any(dim=1).flatten(1)
    assert bool((changed.sum(dim=1) == 1).all())
    assert p_even(changed.sum(dim=0).numpy()) > SURE
    high = (delta.flatten(2).sum(dim=2) > 0).long()
    assert p_even(np.bincount((high[:, 0] * 2 + high[:, 1]).numpy(), minlength=4)) > SURE


def test_random_pixel_of_a_vector_and_below_one_pixel() -> None:
    delta = noise("random-pixel", "l0", 1.0, n=200, shape=(4, 5))
    assert bool(((delta != 0).flatten(1).sum(dim=1) == 1).all())
    assert bool((noise("random-pixel", "l0", 0.5, n=3, shape=(4,)) == 0).all())


# ---------------------------------------------------------------- the room's specs


def test_the_plug_in_gives_its_specs() -> None:
    hooks, specs = collect(attacks)
    assert hooks == ("robeval_attacks",)
    assert {cast("AttackSpec", spec).name for spec in specs} >= {
        *("fgsm", "pgd", "single-pixel"),
        *("uniform-noise", "sign-noise", "gaussian-noise", "salt-and-pepper", "random-pixel"),
    }


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if not spec.members])
def test_a_spec_and_its_function_tell_the_same_defaults(name: str) -> None:
    spec = SPECS[name]
    assert callable(spec.implementation)
    signature = inspect.signature(spec.implementation).parameters
    own = {
        key: parameter.default
        for key, parameter in signature.items()
        if key not in {"model", "x", "y", "budget", "rng", "target"}
    }
    assert own == spec.params().model_dump()
    assert ("target" in signature) == spec.targeted
    assert all(field.description for field in spec.params.model_fields.values())


def test_every_attack_has_a_control_of_its_norms() -> None:
    single = SPECS["single-pixel"]
    assert single.control == "random-pixel"
    assert single.default_eps == SPECS["random-pixel"].default_eps == "1"
    covered = {norm for _, norm in CONTROLS} | {"none"}  # nobody can spend such a budget blindly
    assert all(set(spec.norms) <= covered for spec in SPECS.values())


def test_reading_the_specs_imports_no_torch() -> None:
    code = """
import sys
from robustbench_lite.builtin.attacks import robeval_attacks
assert len(list(robeval_attacks())) >= 8
assert not {"torch", "numpy", "onnxruntime"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
