"""APGD: exact on linear models, blind to the scale of logits, its schedule and its cost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from robustbench_lite import Norm, losses
from robustbench_lite.builtin.attacks import pgd
from robustbench_lite.builtin.attacks.apgd import SPEC
from tests.apgd_world import Rowwise, Times, TwoFaced, broken, robust_mnist, with_net
from tests.oracles import (
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

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
LOSSES = ("cross-entropy", "dlr", "dlr-targeted", "margin")
SHAPES = [(7,), (3, 5), (2, 3, 4)]


# ---------------------------------------------------------------- exact answers


@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_on_two_linear_classes_it_is_the_exact_answer(
    norm: Norm, shape: tuple[int, ...], edge: bool, device: torch.device
) -> None:
    for seed, (n, loss) in enumerate(((1, "margin"), (3, "cross-entropy"), (8, "dlr-targeted"))):
        whole = linear_problem(seed, classes=2, shape=shape, edge=edge, device=device)
        budget = whole.budget(norm, undecided_eps(whole, norm))
        problem = whole.rows(list(range(n)))
        x_adv = run(SPEC, problem, budget, loss=loss)
        assert_legal(problem, x_adv, budget)
        best, got = highest_gains(problem, budget).max(axis=1), problem.gains(x_adv).max(axis=1)
        assert np.array_equal(got > 0, best > 0)
        rest = got <= 0  # a broken sample leaves before it has spent its budget
        spent = (got - problem.gains(problem.x).max(axis=1))[rest]
        due = (best - problem.gains(problem.x).max(axis=1))[rest]
        assert (spent >= due * (1 - 1e-5)).all()


@pytest.mark.parametrize("edge", [False, True], ids=["inside", "edge"])
@pytest.mark.parametrize("norm", NORMS)
def test_on_ten_linear_classes_a_run_per_class_is_exact(norm: Norm, edge: bool) -> None:
    for seed in range(2):
        problem = linear_problem(seed, classes=10, shape=(2, 3, 4), edge=edge)
        budget = problem.budget(norm, undecided_eps(problem, norm))
        x_adv = run(SPEC, problem, budget, loss="dlr-targeted", steps=50)
        assert_legal(problem, x_adv, budget)
        possible = highest_gains(problem, budget).max(axis=1) > 0
        assert np.array_equal(broken(problem, x_adv), possible)
        assert 0 < possible.sum() < len(possible)


@pytest.mark.parametrize("loss", ["margin", "dlr"])
@pytest.mark.parametrize("norm", NORMS)
def test_on_ten_linear_classes_it_breaks_nearly_all_that_can_be_broken_and_no_more(
    norm: Norm, loss: str
) -> None:
    found = possible = 0
    for seed in range(2):
        problem = linear_problem(seed, classes=10, shape=(2, 3, 4), edge=seed % 2 == 0)
        budget = problem.budget(norm, undecided_eps(problem, norm))
        got = problem.gains(run(SPEC, problem, budget, loss=loss, steps=50, restarts=4))
        best = highest_gains(problem, budget)
        rivals = np.isfinite(best)
        assert (got[rivals] <= best[rivals] + 1e-5).all()
        found += (got.max(axis=1) > 0).sum()
        possible += (best.max(axis=1) > 0).sum()
    assert found >= 0.95 * possible


@pytest.mark.parametrize("norm", NORMS)
def test_it_reaches_a_target_exactly_when_a_linear_model_lets_it(norm: Norm) -> None:
    reached = []
    for loss in LOSSES:
        problem = linear_problem(5, classes=2, shape=(3, 5), edge=True)
        budget = problem.budget(norm, undecided_eps(problem, norm))
        x_adv = run(SPEC, problem, budget, loss=loss, target=1 - problem.y)
        reached.append(broken(problem, x_adv))
        assert np.array_equal(reached[-1], highest_gains(problem, budget).max(axis=1) > 0)
    assert 0 < reached[0].sum() < len(reached[0])


def test_a_target_is_reached_and_no_other_class_counts() -> None:
    problem = network_problem(3, classes=5, shape=(2, 3, 4), n=20)
    target = (problem.y + 1) % 5
    model = problem.model()
    x_adv = run(SPEC, problem, problem.budget("linf", 0.015), model=model, target=target, steps=20)
    got = problem.net(x_adv).argmax(dim=1)
    hit = got == target
    assert 0 < int(hit.sum()) < 20
    assert bool((model.gradients[~hit] == 20).all())


# ---------------------------------------------------------------- the scale of the logits


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm", NORMS)
def test_multiplied_logits_change_nothing(norm: Norm, loss: str) -> None:
    problem = network_problem(1, classes=10, shape=(2, 3, 4), n=30)
    budget = problem.budget(norm, {"linf": 0.02, "l2": 0.08, "l1": 0.15}[norm])
    own = {"loss": loss, "steps": 20, "n_targets": 2}
    plain = run(SPEC, problem, budget, seed=0, model=None, **own)
    assert 0 < broken(problem, plain).sum() < 30
    for factor in (2.0**10, 2.0**13):  # a power of two moves no bit of a logit
        scaled = with_net(problem, Times(problem.net, factor))
        assert torch.equal(run(SPEC, scaled, budget, seed=0, model=None, **own), plain)
    for factor in (1e3, 1e4):
        scaled = with_net(problem, Times(problem.net, factor))
        x_adv = run(SPEC, scaled, budget, seed=0, model=None, **own)
        assert np.array_equal(broken(problem, x_adv), broken(problem, plain))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("classes", [2, 3, 4, 1000])
def test_any_number_of_classes(classes: int, loss: str) -> None:
    problem = network_problem(2, classes=classes, shape=(2, 3, 4))
    x_adv = run(SPEC, problem, problem.budget("linf", 0.3), loss=loss, steps=20)
    assert broken(problem, x_adv).all()


# ---------------------------------------------------------------- metamorphic


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("shape", "loss"),
    [((7,), "dlr"), ((3, 5), "cross-entropy"), ((2, 3, 4), "dlr-targeted")],
    ids=str,
)
def test_contract_bit_for_bit(norm: Norm, shape: tuple[int, ...], loss: str) -> None:
    x = torch.rand((5, *shape), generator=torch.Generator().manual_seed(1)) * 3.5 - 1.5
    net = Rowwise(int(np.prod(shape)), 5)
    y = net(x).argmax(dim=1)
    problem = Problem(net=net, classes=5, box=WIDE, x=x, y=y)
    budget = problem.budget(norm, {"linf": 0.1, "l2": 0.3, "l1": 0.9}[norm])
    assert_contract(SPEC, problem, budget, loss=loss, steps=10, n_targets=2)


@pytest.mark.parametrize("norm", NORMS)
def test_more_restarts_never_find_less(norm: Norm) -> None:
    problem = network_problem(1, classes=5, shape=(2, 3, 4), n=30)
    budget = problem.budget(norm, {"linf": 0.02, "l2": 0.08, "l1": 0.25}[norm])
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


@pytest.mark.parametrize("norm", NORMS)
def test_a_larger_budget_breaks_what_a_smaller_one_did_on_two_linear_classes(norm: Norm) -> None:
    problem = linear_problem(2, classes=2, shape=(16,), edge=True)
    eps = undecided_eps(problem, norm)
    found = [
        broken(problem, run(SPEC, problem, problem.budget(norm, factor * eps)))
        for factor in (0.5, 1, 2, 8)
    ]
    assert all((small <= large).all() for small, large in itertools.pairwise(found))
    assert found[-1].all()
    assert not found[0].all()


def test_another_seed_is_another_start() -> None:
    problem = network_problem(0, classes=3, shape=(7,))
    budget = problem.budget("l2", 1e-3)
    one, two = (run(SPEC, problem, budget, seed=seed, steps=1) for seed in (0, 1))
    assert bool((one != two).flatten(1).any(dim=1).all())


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_answer_is_the_first_break_or_the_worst_point_visited(
    norm: Norm, targeted: bool
) -> None:
    ends = {"broken": 0, "last": 0, "earlier": 0}
    for i in range(16):
        problem = network_problem(i, classes=3, shape=(2, 3, 4)).rows([i % 8])
        target = (problem.y + 1) % 3 if targeted else None
        points: list[Tensor] = []
        hook = problem.net.register_forward_pre_hook(
            lambda _, x, seen=points: seen.append(x[0].detach().clone())  # type: ignore[misc]
        )
        budget = problem.budget(norm, 0.015 if norm == "linf" else 0.06)
        own = {"loss": "margin", "target": target, "restarts": 2, "steps": 5}
        answer = run(SPEC, problem, budget, seed=0, model=None, **own)
        hook.remove()
        candidates = points[1:]
        logits = problem.net(torch.cat(candidates))
        wanted = problem.y if target is None else target
        hit = (logits.argmax(dim=1) == wanted) == targeted
        if bool(hit.any()):
            first = int(hit.int().argmax())
            assert first == len(candidates) - 1  # it leaves at once
            ends["broken"] += 1
        else:
            value = losses.margin(logits, wanted.expand(len(logits)))
            first = int((-value if targeted else value).argmax())
            ends["last" if first == len(candidates) - 1 else "earlier"] += 1
        assert torch.equal(answer, candidates[first])
    assert ends["broken"] > 0
    assert ends["earlier"] > 0


# ---------------------------------------------------------------- cost


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"steps": 7}, (1 + 8, 7)),
        ({"steps": 7, "restarts": 3, "loss": "dlr"}, (1 + 3 * 8, 21)),
        ({"steps": 7, "loss": "dlr-targeted"}, (1 + 2 * 8, 14)),
        ({"steps": 7, "loss": "dlr-targeted", "n_targets": 1, "restarts": 2}, (1 + 16, 14)),
        ({"steps": 7, "loss": "margin"}, (1 + 8, 7)),
        ({"steps": 1}, (3, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("norm", NORMS)
def test_it_costs_what_it_says_where_nothing_breaks(
    norm: Norm, own: dict[str, object], expected: tuple[int, int]
) -> None:
    problem = network_problem(0, classes=3, shape=(2, 3, 4))
    model = problem.model()
    run(SPEC, problem, problem.budget(norm, 1e-6), seed=0, model=model, **own)
    cost = estimated(SPEC, problem, **own)
    assert cost == expected
    assert bool((model.queries == cost.queries).all())
    assert bool((model.gradients == cost.gradients).all())


@pytest.mark.parametrize("loss", LOSSES)
def test_a_broken_sample_stops_paying(loss: str) -> None:
    problem = network_problem(1, classes=5, shape=(2, 3, 4), n=30)
    model, own = problem.model(), {"steps": 6, "restarts": 4, "loss": loss}
    x_adv = run(SPEC, problem, problem.budget("linf", 0.01), seed=0, model=model, **own)
    hit = torch.as_tensor(broken(problem, x_adv))
    full = estimated(SPEC, problem, **own)
    assert 0 < int(hit.sum()) < len(hit)
    assert bool((model.queries[~hit] == full.queries).all())
    assert bool((model.gradients[~hit] == full.gradients).all())
    assert int(model.queries[hit].min()) < 8


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


# ---------------------------------------------------------------- a randomised model


def test_the_mean_of_passes_sees_through_a_randomised_model() -> None:
    plain = linear_problem(1, classes=2, shape=(7,), n=40)
    eps = undecided_eps(plain, "linf")
    found = []
    for draws in (1, 2):
        slope = 30 * torch.randn(7, generator=torch.Generator().manual_seed(0))
        faced = with_net(plain, TwoFaced(plain.net, slope))
        model = faced.model().averaged(draws)
        x_adv = run(SPEC, faced, faced.budget("linf", eps), model=model, loss="margin")
        found.append(broken(plain, x_adv))
    best = highest_gains(plain, plain.budget("linf", eps)).max(axis=1) > 0
    assert np.array_equal(found[1], best)
    assert found[0].sum() < best.sum()


# ---------------------------------------------------------------- the embedded robust model


def test_on_the_robust_model_it_finds_what_a_long_pgd_finds() -> None:
    problem = robust_mnist(100, skip=200)
    budget = problem.budget("linf", 0.3)
    x_adv = run(SPEC, problem, budget, restarts=2)
    assert_legal(problem, x_adv, budget)
    long = run(pgd.SPEC, problem, budget, steps=100)
    assert broken(problem, x_adv).sum() >= broken(problem, long).sum() - 1  # of about 9
    assert 5 < broken(problem, x_adv).sum() < 30
