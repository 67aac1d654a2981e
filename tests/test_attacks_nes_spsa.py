"""NES and SPSA: honest gradient estimates, near the exact answer on linear models, counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import Norm, SampleRng, losses
from robustbench_lite.builtin.attacks import gaussian_noise, nes, spsa
from robustbench_lite.builtin.attacks.goal import Goal
from robustbench_lite.builtin.attacks.nes_climb import Draw, Probe, estimated_gradient
from robustbench_lite.hookspecs import AttackSpec
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

SPECS = [nes.SPEC, spsa.SPEC]
NORMS: tuple[Norm, ...] = ("linf", "l2")
SHAPES = [(7,), (3, 5), (2, 3, 4), (3, 2, 7)]
both = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
norms_ = pytest.mark.parametrize("norm", NORMS)


def gains(problem: Problem, x: Tensor) -> Array:
    """The largest z_j - z_y per sample."""
    best: Array = problem.gains(x).max(axis=1)
    return best


# ---------------------------------------------------------------- the estimate


def gaussian(rng: SampleRng, shape: tuple[int, ...]) -> Tensor:
    return rng.normal(shape)


def signs(rng: SampleRng, shape: tuple[int, ...]) -> Tensor:
    return rng.sign(shape)


DRAWS = pytest.mark.parametrize(
    ("draw", "width"), [(gaussian, 1e-3), (signs, 1e-2)], ids=["nes", "spsa"]
)


def estimate(problem: Problem, goal: Goal, draw: Draw, width: float, samples: int) -> Tensor:
    probe = Probe(samples=samples, width=width, draw=draw)
    return estimated_gradient(
        problem.model(), problem.x, goal, problem.rng(), probe=probe, box=problem.box
    )


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@DRAWS
def test_the_direction_nears_the_gradient_as_the_square_root_of_the_pairs(
    draw: Draw, width: float, targeted: bool
) -> None:
    """E cos is near sqrt(n / (n + d)) for n pairs in d dimensions."""
    problem = network_problem(0, classes=3, shape=(3, 8, 8), n=32)
    goal = Goal((problem.y + 1) % 3 if targeted else problem.y, targeted)
    objective = goal.objective("margin")
    true = problem.model().gradient(problem.x, goal.labels, objective).flatten(1)
    for pairs in (4, 16, 64, 256):
        got = estimate(problem, goal, draw, width, 2 * pairs).flatten(1)
        cosine = torch.cosine_similarity(got.double(), true.double())
        expected = (pairs / (pairs + true.shape[1])) ** 0.5
        assert float(cosine.mean()) == pytest.approx(expected, rel=0.2)
        if pairs >= 16:
            assert bool((cosine > 0).all())


@DRAWS
def test_many_pairs_give_the_gradient_itself(draw: Draw, width: float) -> None:
    """Of a linear model, whose differences are exact; its length too."""
    problem = linear_problem(0, classes=2, shape=(4,), n=6)
    goal = Goal(problem.y, targeted=False)
    true = problem.model().gradient(problem.x, problem.y, losses.margin)
    got = estimate(problem, goal, draw, width, 4000)
    error = (got - true).norm(dim=1) / true.norm(dim=1)
    assert float(error.max()) < 0.15


def test_at_the_faces_of_the_box_the_sign_is_still_right() -> None:
    """One of a pair would leave the box: it is cut short, and no query is ever outside."""
    problem = linear_problem(0, classes=2, shape=(4,), n=6)
    problem = replace(problem, x=problem.x.round())
    asked: list[Tensor] = []
    problem.net.register_forward_pre_hook(lambda _, x: asked.append(x[0].clone()))
    goal = Goal(problem.y, targeted=False)
    got = estimate(problem, goal, gaussian, 1e-3, 4000)
    points = torch.cat(asked)
    assert float(points.min()) == UNIT.low
    assert float(points.max()) == UNIT.high
    true = problem.model().gradient(problem.x, problem.y, losses.margin)
    torch.testing.assert_close(got, true / 2, rtol=0, atol=0.15 * float(true.abs().max()))


@both
def test_the_queries_lie_where_the_parameters_say(spec: AttackSpec) -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4), box=Box(-1.0, 2.0)).rows([0])
    asked: list[Tensor] = []
    problem.net.register_forward_pre_hook(lambda _, x: asked.append(x[0].clone()))
    run(spec, problem, problem.budget("linf", 1e-5), steps=1, samples=6)
    clean, probes, new = asked
    assert probes.shape == (6, 2, 3, 4)
    assert new.shape == clean.shape
    up, down = (probes - clean).view(2, 3, -1)
    torch.testing.assert_close(up, -down, rtol=0, atol=1e-6)
    size = up.square().mean(dim=1).sqrt()
    if spec is spsa.SPEC:
        torch.testing.assert_close(up.abs(), torch.full_like(up, 0.03), rtol=1e-4, atol=1e-6)
    else:
        torch.testing.assert_close(size, torch.full_like(size, 0.003), rtol=0.4, atol=0)


# ---------------------------------------------------------------- oracles


@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
@pytest.mark.parametrize("shape", [(7,), (2, 3, 4)], ids=str)
@norms_
@both
def test_on_two_linear_classes_it_is_near_the_exact_answer_and_not_beyond(
    spec: AttackSpec, norm: Norm, shape: tuple[int, ...], edge: bool, device: torch.device
) -> None:
    problem = linear_problem(1, classes=2, shape=shape, edge=edge, device=device)
    budget = problem.budget(norm, undecided_eps(problem, norm))
    x_adv = run(spec, problem, budget, samples=200, steps=60)
    assert_legal(problem, x_adv, budget)
    clean, got = gains(problem, problem.x), gains(problem, x_adv)
    best = highest_gains(problem, budget).max(axis=1)
    assert (got <= best + 1e-5).all()
    unbroken = got <= 0
    assert 0 < unbroken.sum() < len(got)
    spent = (got - clean)[unbroken] / (best - clean)[unbroken]
    assert (spent >= 0.97).all()


@norms_
@both
def test_on_ten_linear_classes_one_run_per_target_breaks_what_can_be_broken(
    spec: AttackSpec, norm: Norm
) -> None:
    problem = linear_problem(3, classes=10, shape=(2, 3, 4))
    eps = undecided_eps(problem, norm)
    budget, enough = problem.budget(norm, 1.2 * eps), problem.budget(norm, eps)
    broken = np.zeros(len(problem.x), dtype=bool)
    for j in range(10):
        target = torch.full_like(problem.y, j)
        x_adv = run(spec, problem, budget, target=target, samples=64, steps=20)
        assert_legal(problem, x_adv, budget)
        reached = problem.net(x_adv).argmax(dim=1) == j
        broken |= (reached & (problem.y != j)).numpy()
    assert not (broken & (highest_gains(problem, budget).max(axis=1) <= 0)).any()
    due = highest_gains(problem, enough).max(axis=1) > 0
    assert 0 < due.sum() < len(due)
    assert broken[due].all()


@norms_
@both
def test_it_beats_noise_of_the_same_size(spec: AttackSpec, norm: Norm) -> None:
    problem = network_problem(0, classes=5, shape=(3, 9, 7), n=40)
    budget = problem.budget(norm, 0.01 if norm == "linf" else 0.1)
    found = (gains(problem, run(spec, problem, budget, samples=40, steps=10)) > 0).sum()
    noise = (gains(problem, run(gaussian_noise.SPEC, problem, budget)) > 0).sum()
    assert found > 2 * noise
    assert found > 10


# ---------------------------------------------------------------- what the batch and the seed may do


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@norms_
@both
def test_contract_to_the_last_bit(spec: AttackSpec, norm: Norm, shape: tuple[int, ...]) -> None:
    box = Box(-1.0, 2.0) if len(shape) == 3 else UNIT
    problem = row_by_row(network_problem(0, classes=3, shape=shape, box=box, edge=True))
    budget = problem.budget(norm, 0.1)
    assert_contract(spec, problem, budget, steps=4, samples=20)
    target = (problem.y + 1) % 3
    whole = run(spec, problem, budget, target=target, steps=4, samples=20)
    alone = run(spec, problem.rows([2]), budget, target=target[2:3], steps=4, samples=20)
    assert torch.equal(alone[0], whole[2])


@both
def test_a_batch_too_large_for_one_pass_is_its_parts(spec: AttackSpec) -> None:
    problem = row_by_row(network_problem(0, classes=3, shape=(7,), n=70))
    budget = problem.budget("linf", 0.02)
    whole = run(spec, problem, budget, steps=2, samples=20)
    for part in (list(range(5)), list(range(60, 70))):
        alone = run(spec, problem.rows(part), budget, steps=2, samples=20)
        assert torch.equal(alone, whole[part])


@pytest.mark.parametrize("classes", [2, 3, 1000])
@both
def test_any_number_of_classes(spec: AttackSpec, classes: int, device: torch.device) -> None:
    problem = linear_problem(0, classes=classes, shape=(3, 5, 4), device=device)
    budget = problem.budget("linf", 0.02)
    x_adv = run(spec, problem, budget, steps=8)
    assert_legal(problem, x_adv, budget)
    assert (gains(problem, x_adv) > gains(problem, problem.x)).all()


@both
def test_another_seed_is_another_search(spec: AttackSpec) -> None:
    problem = network_problem(0, classes=3, shape=(20,))
    budget = problem.budget("l2", 1e-3)
    one, two = (run(spec, problem, budget, seed=seed, steps=1, samples=4) for seed in (0, 1))
    assert bool((one != two).any())


@norms_
@both
def test_more_steps_never_find_less(spec: AttackSpec, norm: Norm) -> None:
    """Steps of one size: a longer climb goes on where the shorter one ended."""
    problem = row_by_row(network_problem(1, classes=5, shape=(2, 3, 4), n=24))
    budget = problem.budget(norm, 0.02 if norm == "linf" else 0.08)
    own: dict[str, Any] = {"samples": 8}
    own |= {"step_size": budget.eps / 5} if spec is nes.SPEC else {"learning_rate": 0.002}
    few, many = (
        gains(problem, run(spec, problem, budget, steps=steps, **own)) for steps in (1, 25)
    )
    assert (many[few > 0] > 0).all()
    assert (many >= few - 1e-6)[many <= 0].all()
    assert (few > 0).sum() < (many > 0).sum()


@norms_
@both
def test_a_margin_a_thousand_times_larger_changes_nothing(spec: AttackSpec, norm: Norm) -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4))
    louder = replace(problem, net=nn.Sequential(problem.net, _Times(1024.0)))
    budget = problem.budget(norm, 0.02)
    one, two = (run(spec, each, budget, steps=5, samples=20) for each in (problem, louder))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.factor


# ---------------------------------------------------------------- cost


@pytest.mark.parametrize(("steps", "samples"), [(1, 2), (3, 18), (7, 16)])
@norms_
@both
def test_it_costs_what_it_says_where_nothing_breaks(
    spec: AttackSpec, norm: Norm, steps: int, samples: int
) -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4))
    model = problem.model()
    run(spec, problem, problem.budget(norm, 1e-6), model=model, steps=steps, samples=samples)
    cost = estimated(spec, problem, steps=steps, samples=samples)
    assert cost == (1 + steps * (samples + 1), 0)
    assert bool((model.queries == cost.queries).all())
    assert bool((model.gradients == 0).all())


@both
def test_a_broken_sample_stops_paying_and_returns_the_point_that_broke_it(
    spec: AttackSpec,
) -> None:
    problem = network_problem(1, classes=5, shape=(2, 3, 4), n=30)
    model = problem.model()
    budget = problem.budget("linf", 0.01)
    x_adv = run(spec, problem, budget, model=model, steps=20, samples=10)
    broken = torch.as_tensor(gains(problem, x_adv) > 0)
    assert 0 < int(broken.sum()) < len(broken)
    assert bool((model.queries[~broken] == 1 + 20 * 11).all())
    assert set((model.queries[broken] % 11).tolist()) == {1}
    assert int(model.queries[broken].min()) == 12


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@both
def test_samples_already_lost_cost_one_pass_and_come_back_as_they_came(
    spec: AttackSpec, targeted: bool
) -> None:
    problem = network_problem(1, classes=3, shape=(2, 3, 4))
    lost = problem if targeted else problem.with_labels((problem.y + 1) % 3)
    model = lost.model()
    target = lost.y if targeted else None
    x_adv = run(spec, lost, lost.budget("linf", 0.3), model=model, target=target)
    assert torch.equal(x_adv, lost.x)
    assert x_adv.data_ptr() != lost.x.data_ptr()
    assert bool((model.queries == 1).all())


@both
def test_an_output_that_is_not_finite_is_neither_success_nor_progress(spec: AttackSpec) -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4))
    nowhere = replace(problem, net=_NanAway(problem.net, problem.x))
    x_adv = run(spec, nowhere, nowhere.budget("l2", 0.1), steps=3, samples=4)
    assert torch.equal(x_adv, problem.x)


class _NanAway(nn.Module):
    """A model that only answers at the clean inputs."""

    def __init__(self, net: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.net, self.x = net, x

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits if torch.equal(x, self.x) else torch.full_like(logits, torch.nan)


@both
def test_an_odd_number_of_samples_is_refused(spec: AttackSpec) -> None:
    with pytest.raises(ValueError, match="multiple of 2"):
        spec.params.model_validate({"samples": 5})
