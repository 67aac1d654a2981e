"""PGD: exact on linear models, best point kept, broken samples gone, passes counted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from robustbench_lite import Norm, losses, norms
from robustbench_lite.builtin.attacks.pgd import SPEC, PgdParams
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


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_on_two_linear_classes_it_is_the_exact_answer(
    norm: Norm, shape: tuple[int, ...], edge: bool, loss: str, device: torch.device
) -> None:
    for seed in range(3):
        problem = linear_problem(seed, classes=2, shape=shape, edge=edge, device=device)
        budget = problem.budget(norm, undecided_eps(problem, norm))
        x_adv = run(SPEC, problem, budget, loss=loss)
        assert_legal(problem, x_adv, budget)
        best, got = highest_gains(problem, budget).max(axis=1), problem.gains(x_adv).max(axis=1)
        assert np.array_equal(got > 0, best > 0)
        assert 0 < (got > 0).sum() < len(got)
        whole = got <= 0  # a broken sample leaves before it has spent its budget
        spent = (got - problem.gains(problem.x).max(axis=1))[whole]
        due = (best - problem.gains(problem.x).max(axis=1))[whole]
        assert (spent >= due * (1 - (1e-5 if norm == "linf" else 1e-3))).all()


@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
@pytest.mark.parametrize("norm", NORMS)
def test_on_ten_linear_classes_one_run_per_target_is_exact(norm: Norm, edge: bool) -> None:
    """Reaching a class is a concave problem, leaving one is not: only the union is exact."""
    for seed in range(3):
        problem = linear_problem(seed, classes=10, shape=(2, 3, 4), edge=edge)
        budget = problem.budget(norm, undecided_eps(problem, norm))
        broken = np.zeros(len(problem.x), dtype=bool)
        for j in range(10):
            target = torch.full_like(problem.y, j)
            x_adv = run(SPEC, problem, budget, target=target, loss="margin", steps=100)
            assert_legal(problem, x_adv, budget)
            broken |= problem.gains(x_adv).max(axis=1) > 0
        assert np.array_equal(broken, highest_gains(problem, budget).max(axis=1) > 0)
        assert 0 < broken.sum() < len(broken)


@pytest.mark.parametrize("norm", NORMS)
def test_on_ten_linear_classes_it_breaks_nearly_all_that_can_be_broken_and_no_more(
    norm: Norm,
) -> None:
    found = possible = 0
    for seed in range(4):
        problem = linear_problem(seed, classes=10, shape=(2, 3, 4), edge=seed % 2 == 0)
        budget = problem.budget(norm, undecided_eps(problem, norm))
        got = problem.gains(run(SPEC, problem, budget, loss="margin", restarts=10))
        best = highest_gains(problem, budget)
        rivals = np.isfinite(best)
        assert (got[rivals] <= best[rivals] + 1e-5).all()
        found += (got.max(axis=1) > 0).sum()
        possible += (best.max(axis=1) > 0).sum()
    assert found >= 0.95 * possible


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_from_the_input_is_fgsm(norm: Norm) -> None:
    problem = linear_problem(0, classes=2, shape=(7,))
    budget = problem.budget(norm, 0.01)
    x_adv = run(SPEC, problem, budget, steps=1, random_start=False)
    model = problem.model()
    grad = model.gradient(problem.x, problem.y)
    torch.testing.assert_close(x_adv, problem.x + 0.01 * norms.steepest(grad, norm))


def _visited(problem: Problem, budget_eps: float, norm: Norm, **own: object) -> list[Tensor]:
    """The points that the attack evaluates for a problem of one sample, and then its answer."""
    points: list[Tensor] = []
    hook = problem.net.register_forward_pre_hook(lambda _, x: points.append(x[0].detach().clone()))
    budget = problem.budget(norm, budget_eps)
    x_adv = run(SPEC, problem, budget, seed=0, model=None, **own)
    hook.remove()
    return [*points, x_adv]


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("random_start", [True, False], ids=["random", "from x"])
@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
@pytest.mark.parametrize("norm", NORMS)
def test_the_answer_is_the_first_break_or_the_worst_point_visited(
    norm: Norm, loss: str, random_start: bool, targeted: bool
) -> None:
    """With steps far too long the last point is rarely the worst one."""
    ends = {"broken": 0, "last": 0, "earlier": 0}
    for i in range(16):
        problem = network_problem(i, classes=3, shape=(2, 3, 4)).rows([i % 8])
        target = (problem.y + 1) % 3 if targeted else None
        points = _visited(
            problem,
            0.015 if norm == "linf" else 0.06,
            norm,
            loss=loss,
            target=target,
            random_start=random_start,
            restarts=2 if random_start else 1,
            steps=5,
            step_size=0.2,
        )
        candidates, answer = points[1 if random_start else 2 : -1], points[-1]
        logits = problem.net(torch.cat(candidates))
        wanted = problem.y if target is None else target
        hit = (logits.argmax(dim=1) == wanted) == targeted
        if bool(hit.any()):
            first = int(hit.int().argmax())
            assert first == len(candidates) - 1  # it leaves at once
            ends["broken"] += 1
        else:
            value = losses.resolve(loss)(logits, wanted.expand(len(logits)))
            first = int((-value if targeted else value).argmax())
            ends["last" if first == len(candidates) - 1 else "earlier"] += 1
        assert torch.equal(answer, candidates[first])
    assert ends["broken"] > 0
    assert ends["earlier"] > 0


def test_a_break_is_kept_though_its_loss_is_lower_than_an_earlier_one() -> None:
    x = torch.full((1, 1), 0.5)
    problem = Problem(net=_Cliff(), classes=3, box=UNIT, x=x, y=torch.tensor([0]))
    own = {"random_start": False, "steps": 4, "step_size": 0.1}
    *points, answer = _visited(problem, 0.5, "linf", **own)
    assert len(points) == 4  # the clean pass, the start, the ledge, the break
    torch.testing.assert_close(answer, torch.tensor([[0.7]]))
    losses_met = [float(losses.cross_entropy(problem.net(point), problem.y)) for point in points]
    assert losses_met[2] > losses_met[3]


class _Cliff(nn.Module):
    """A ledge where three classes are nearly even, and behind it one class clearly ahead."""

    def forward(self, x: Tensor) -> Tensor:
        near = torch.tensor([0.90, 0.05, 0.05]).log()
        ledge = torch.tensor([0.34, 0.33, 0.33]).log()
        behind = torch.tensor([0.40, 0.59, 0.01]).log()
        level = torch.where(x < 0.55, near, torch.where(x < 0.65, ledge, behind))
        return level - 1e-3 * x * torch.tensor([1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("step_size", "expected"),
    [(0.02, [0.2, 0.2, 0.2, 0.2]), (None, [1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4])],
)
def test_a_step_has_the_size_asked_for_or_falls_along_a_half_cosine(
    step_size: float | None, expected: list[float]
) -> None:
    """In a valley whose floor is at the input every step overshoots and is seen whole."""
    x = torch.full((1, 1), 0.5)
    valley = Problem(net=_Valley(0.5001), classes=2, box=UNIT, x=x, y=torch.tensor([0]))
    *points, answer = _visited(
        valley, 0.1, "linf", random_start=False, steps=4, step_size=step_size
    )[1:]
    assert not torch.equal(answer, x)  # though no other point has a higher loss
    moves = [float((b - a).abs()) / 0.1 for a, b in itertools.pairwise(points)]
    np.testing.assert_allclose(moves, expected, rtol=1e-5)


class _Valley(nn.Module):
    """The second of two classes never leads and comes nearest at `floor`."""

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((torch.zeros_like(x), -1 - (x - self.floor).abs()), dim=1)


@pytest.mark.parametrize("norm", NORMS)
def test_more_restarts_never_find_less(norm: Norm) -> None:
    problem = network_problem(1, classes=5, shape=(2, 3, 4), n=30)
    budget = problem.budget(norm, 0.02 if norm == "linf" else 0.08)
    few, many = (
        problem.gains(run(SPEC, problem, budget, steps=3, loss="margin", restarts=restarts)).max(
            axis=1
        )
        for restarts in (1, 8)
    )
    kept = few <= 0
    assert 0 < kept.sum() < len(kept)
    assert (many[~kept] > 0).all()
    assert (many >= few - 1e-6)[kept].all()
    assert (many > few + 1e-6)[kept].any()


@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_it_costs_what_it_says_where_nothing_breaks(norm: Norm, random_start: bool) -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4))
    own = {"steps": 7, "restarts": 3 if random_start else 1, "random_start": random_start}
    model = problem.model()
    run(SPEC, problem, problem.budget(norm, 1e-6), seed=0, model=model, **own)
    cost = estimated(SPEC, problem, **own)
    assert cost == ((25, 21) if random_start else (9, 7))
    assert bool((model.queries == cost.queries).all())
    assert bool((model.gradients == cost.gradients).all())


def test_a_broken_sample_stops_paying() -> None:
    problem = network_problem(1, classes=5, shape=(2, 3, 4), n=30)
    model = problem.model()
    x_adv = run(SPEC, problem, problem.budget("linf", 0.01), model=model, steps=6, restarts=4)
    broken = torch.as_tensor(problem.gains(x_adv).max(axis=1) > 0)
    full = estimated(SPEC, problem, steps=6, restarts=4)
    assert 0 < int(broken.sum()) < len(broken)
    assert bool((model.queries[~broken] == full.queries).all())
    assert bool((model.gradients[~broken] == full.gradients).all())
    assert bool((model.queries[broken] <= full.queries).all())
    assert int(model.queries[broken].min()) < 8


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
def test_a_sample_already_lost_costs_one_pass_and_comes_back_as_it_came(targeted: bool) -> None:
    problem = network_problem(1, classes=3, shape=(2, 3, 4))
    lost = problem if targeted else problem.with_labels((problem.y + 1) % 3)
    model = lost.model()
    target = lost.y if targeted else None
    x_adv = run(SPEC, lost, lost.budget("linf", 0.3), model=model, target=target)
    assert torch.equal(x_adv, lost.x)
    assert x_adv.data_ptr() != lost.x.data_ptr()
    assert bool((model.queries == 1).all())
    assert bool((model.gradients == 0).all())


@pytest.mark.parametrize("norm", NORMS)
def test_a_larger_budget_breaks_what_a_smaller_one_did_on_two_linear_classes(norm: Norm) -> None:
    problem = linear_problem(2, classes=2, shape=(16,), edge=True)
    eps = undecided_eps(problem, norm)
    broken = [
        problem.gains(run(SPEC, problem, problem.budget(norm, factor * eps))).max(axis=1) > 0
        for factor in (0.5, 1, 2, 8)
    ]
    assert all((small <= large).all() for small, large in itertools.pairwise(broken))
    assert broken[-1].all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract(norm: Norm, shape: tuple[int, ...], device: torch.device) -> None:
    problem = network_problem(0, classes=3, shape=shape, box=WIDE, edge=True, device=device)
    budget = problem.budget(norm, 0.1)
    assert_contract(SPEC, problem, budget, exact=False, steps=5, restarts=2)
    target = (problem.y + 1) % 3
    whole = run(SPEC, problem, budget, target=target, steps=5)
    alone = run(SPEC, problem.rows([2]), budget, target=target[2:3], steps=5)
    torch.testing.assert_close(alone[0], whole[2], rtol=0, atol=1e-5)


def test_another_seed_is_another_start() -> None:
    problem = network_problem(0, classes=3, shape=(7,))
    budget = problem.budget("l2", 1e-3)
    one, two = (run(SPEC, problem, budget, seed=seed, steps=1, step_size=1e-6) for seed in (0, 1))
    assert bool((one != two).flatten(1).any(dim=1).all())


def test_restarts_without_a_random_start_are_refused() -> None:
    with pytest.raises(ValidationError, match="restarts: 2 would repeat one computation"):
        PgdParams(restarts=2, random_start=False)


@pytest.mark.parametrize("norm", NORMS)
def test_without_stopping_every_sample_takes_every_step_to_a_higher_loss(
    norm: Norm, device: torch.device
) -> None:
    problem = linear_problem(0, classes=10, shape=(3, 5), device=device)
    budget = problem.budget(norm, undecided_eps(problem, norm))
    model = problem.model()
    going_on = run(SPEC, problem, budget, model=model, steps=10, stop_when_broken=False)
    stopping = run(SPEC, problem, budget, steps=10)
    assert_legal(problem, going_on, budget)
    with torch.no_grad():
        reached = losses.cross_entropy(problem.net(going_on), problem.y)
        stopped = losses.cross_entropy(problem.net(stopping), problem.y)
    assert (reached >= stopped - 1e-5).all()
    assert (reached > stopped + 1e-3).any()
    cost = estimated(SPEC, problem, steps=10, stop_when_broken=False)
    assert model.queries.tolist() == [cost.queries] * len(problem.x)
    assert model.gradients.tolist() == [cost.gradients] * len(problem.x)
