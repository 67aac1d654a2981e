"""Exhaustive single pixel: equal to a brute force written apart from it, whatever the chunking."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import Box, PluginError
from robustbench_lite.builtin.attacks.single_pixel import BLOCK, SPEC
from tests.oracles import (
    UNIT,
    WIDE,
    Problem,
    assert_contract,
    estimated,
    linear_problem,
    network_problem,
    run,
)

SHAPES = [(6,), (3, 5), (1, 4, 5), (2, 3, 4), (3, 2, 7)]


def brute_force(problem: Problem, target: Tensor | None = None) -> tuple[Tensor, list[int]]:
    """One input at a time in plain Python; also where each sample broke (-1: nowhere).

    The count is of candidates in order, those that change nothing included.
    """
    results, places = [], []
    for i, x in enumerate(problem.x):
        goal = int(problem.y[i] if target is None else target[i])
        best, chosen, place = -math.inf, x, -1
        if not _reached(problem, x, goal, target is not None):
            for number, candidate in enumerate(_candidates(x, problem.box)):
                if torch.equal(candidate, x):
                    continue
                if _reached(problem, candidate, goal, target is not None):
                    chosen, place = candidate, number
                    break
                margin = _margin(problem, candidate, goal) * (1 if target is None else -1)
                if margin > best:
                    best, chosen = margin, candidate
        results.append(chosen)
        places.append(place)
    return torch.stack(results), places


def _candidates(x: Tensor, box: Box) -> list[Tensor]:
    image = x.dim() == 3
    channels = x.shape[0] if image else 1
    found = []
    for position in range(x.numel() // channels):
        for corner in itertools.product((box.low, box.high), repeat=channels):
            candidate = x.clone()
            if image:
                row, column = divmod(position, x.shape[2])
                candidate[:, row, column] = torch.tensor(corner)
            else:
                candidate.view(-1)[position] = corner[0]
            found.append(candidate)
    return found


def _logits(problem: Problem, x: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = problem.net(x[None])[0]
    return logits


def _reached(problem: Problem, x: Tensor, goal: int, targeted: bool) -> bool:
    return (int(_logits(problem, x).argmax()) == goal) == targeted


def _margin(problem: Problem, x: Tensor, label: int) -> float:
    logits: list[float] = _logits(problem, x).tolist()
    return max(z for j, z in enumerate(logits) if j != label) - logits[label]


def broken_shares(problem: Problem, x_adv: Tensor) -> float:
    with torch.no_grad():
        return float((problem.net(x_adv).argmax(dim=1) != problem.y).float().mean())


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("box", [UNIT, WIDE], ids=["unit", "wide"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_brute_force(shape: tuple[int, ...], box: Box, classes: int, targeted: bool) -> None:
    for seed, make in ((0, linear_problem), (1, network_problem)):
        for edge in (False, True):
            problem = make(seed, classes=classes, shape=shape, box=box, edge=edge)
            target = (problem.y + 1) % classes if targeted else None
            expected, _ = brute_force(problem, target)
            got = run(SPEC, problem, problem.budget("l0", 1), target=target)
            assert torch.equal(got, expected)


def test_the_cases_hold_both_broken_and_unbroken_samples() -> None:
    problem = network_problem(1, classes=10, shape=(1, 4, 5), box=WIDE, edge=True)
    share = broken_shares(problem, brute_force(problem)[0])
    assert 0 < share < 1


def test_of_equal_candidates_the_first_one_is_the_answer() -> None:
    problem = linear_problem(0, classes=2, shape=(1, 8, 9), edge=True)
    _make_unbreakable(problem, label=0)
    with torch.no_grad():
        problem.net[1].weight.zero_()  # type: ignore[index]
    problem = problem.with_labels(torch.zeros_like(problem.y))
    got = run(SPEC, problem, problem.budget("l0", 1))
    assert torch.equal(got, brute_force(problem)[0])
    assert bool((got != problem.x).flatten(1)[:, :1].all())


def _large(device: torch.device) -> Problem:
    """More candidates than a few blocks hold, some samples broken, some not, many no-ops."""
    problem = linear_problem(5, classes=3, shape=(1, 12, 13), n=20, edge=True, device=device)
    with torch.no_grad():
        problem.net[1].weight.mul_(0.3)  # type: ignore[index]
        problem.net[1].weight[:, ::7] *= 6  # type: ignore[index]
        labels = problem.net(problem.x).argmax(dim=1)
    return problem.with_labels(labels)


def test_neither_chunk_nor_batch_changes_points_or_passes(device: torch.device) -> None:
    problem = _large(device)
    budget = problem.budget("l0", 1)
    model = problem.model()
    whole = run(SPEC, problem, budget, model=model)
    assert 0 < broken_shares(problem, whole) < 1
    sizes: list[int] = []
    problem.net.register_forward_pre_hook(lambda _, x: sizes.append(len(x[0])))
    for chunk in (BLOCK, 3 * BLOCK, 10**6):
        again = problem.model()
        assert torch.equal(run(SPEC, problem, budget, model=again, chunk=chunk), whole)
        assert torch.equal(again.queries, model.queries)
        assert max(sizes) <= chunk
        sizes.clear()
    for i in range(len(whole)):
        one = problem.rows([i])
        alone = one.model()
        assert torch.equal(run(SPEC, one, budget, model=alone), whole[i : i + 1])
        assert int(alone.queries) == int(model.queries[i])


def test_passes_are_the_clean_one_and_every_candidate_up_to_the_block_that_broke_it() -> None:
    problem = _large(torch.device("cpu"))
    model = problem.model()
    run(SPEC, problem, problem.budget("l0", 1), model=model)
    _, places = brute_force(problem)
    for i, place in enumerate(places):
        tried = _candidates(problem.x[i], UNIT)
        if place >= 0:
            tried = tried[: (place // BLOCK + 1) * BLOCK]
        changing = sum(not torch.equal(candidate, problem.x[i]) for candidate in tried)
        assert int(model.queries[i]) == 1 + changing
    assert max(places) > BLOCK
    assert bool((model.gradients == 0).all())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_costs_what_it_says_where_nothing_breaks_or_is_skipped(shape: tuple[int, ...]) -> None:
    problem = linear_problem(0, classes=2, shape=shape)
    _make_unbreakable(problem, label=0)
    problem = problem.with_labels(torch.zeros_like(problem.y))
    model = problem.model()
    run(SPEC, problem, problem.budget("l0", 1), model=model)
    cost = estimated(SPEC, problem)
    assert bool((model.queries == cost.queries).all())
    assert cost.gradients == 0


def test_the_estimate_for_mnist_and_for_an_unknown_shape() -> None:
    assert SPEC.cost is not None
    assert SPEC.cost(SPEC.params(), (1, 28, 28), 10) == (1 + 1568, 0)
    assert SPEC.cost(SPEC.params(), None, None) is None
    assert SPEC.cost(SPEC.params(), (4000, 2, 2), None) is None


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_contract(shape: tuple[int, ...], device: torch.device) -> None:
    problem = network_problem(1, classes=3, shape=shape, box=WIDE, edge=True, device=device)
    assert_contract(SPEC, problem, problem.budget("l0", 1))


def test_budgets_of_more_and_less_than_a_pixel() -> None:
    problem = network_problem(1, classes=3, shape=(2, 3, 4))
    one = run(SPEC, problem, problem.budget("l0", 1))
    assert torch.equal(run(SPEC, problem, problem.budget("l0", 5)), one)
    assert torch.equal(run(SPEC, problem, problem.budget("l0", 0.5)), problem.x)


def test_a_sample_already_lost_costs_one_pass_and_comes_back_as_it_came() -> None:
    problem = network_problem(1, classes=3, shape=(2, 3, 4))
    lost = problem.with_labels((problem.y + 1) % 3)
    model = lost.model()
    x_adv = run(SPEC, lost, lost.budget("l0", 1), model=model)
    assert torch.equal(x_adv, lost.x)
    assert x_adv.data_ptr() != lost.x.data_ptr()
    assert bool((model.queries == 1).all())


def test_an_output_that_is_not_finite_is_no_success() -> None:
    problem = linear_problem(0, classes=2, shape=(6,))
    _make_unbreakable(problem, label=1)  # where argmax of NaN says 0
    net = _NanAtTheTop(problem.net)
    problem = replace(problem, net=net, y=torch.ones_like(problem.y))
    x_adv = run(SPEC, problem, problem.budget("l0", 1))
    changed = x_adv != problem.x
    assert bool((changed.sum(dim=1) == 1).all())
    assert bool((x_adv[changed] == UNIT.low).all())


class _NanAtTheTop(nn.Module):
    """A model that breaks down where a component stands at the top of the box."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        top = (x == UNIT.high).flatten(1).any(dim=1, keepdim=True)
        return torch.where(top, torch.nan, self.net(x))


def _make_unbreakable(problem: Problem, label: int) -> None:
    layer = problem.net[1]  # type: ignore[index]
    with torch.no_grad():
        layer.weight.mul_(1e-3)
        layer.bias.copy_(torch.nn.functional.one_hot(torch.tensor(label), 2).float())


def test_more_channels_than_corners_can_be_listed_is_an_error_that_says_so() -> None:
    problem = linear_problem(0, classes=2, shape=(13, 2, 2))
    with pytest.raises(PluginError, match="13 channels make 2\\^13 corner values"):
        run(SPEC, problem, problem.budget("l0", 1))
