"""Signs that an attack did less than it could, or something else each time; families; waivers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustbench_lite import Budget, Classifier, SampleRng
from robustbench_lite.diagnose import findings
from robustbench_lite.judge import judge
from robustbench_lite.seen import Seen
from robustbench_lite.standing import settles
from robustbench_lite.types import Box, Finding
from tests.small_world import (
    Linear,
    attack_spec,
    batch,
    changed,
    entry,
    loaded,
    net_spec,
    random_linear,
    simple,
)

UNIT = Box(0.0, 1.0)
Attack = Callable[..., Tensor]


def found(attack: Attack, *, eps: str = "0.4", n: int = 30) -> dict[str, Finding]:
    """Findings about an attack on a random linear model: id -> finding."""
    spec = attack_spec(attack, access="gradient")
    world = simple((spec, entry("a", spec, eps)), n=n).world()
    results = world.run()
    return {each.id: each for each in findings(world.plan.cells, results)}


def steps(model: Classifier, x: Tensor, y: Tensor, size: float, count: int, eps: float) -> Tensor:
    point = x.clone()
    for _ in range(count):
        point = point + size * model.gradient(point, y, "margin").sign()
        point = torch.minimum(torch.maximum(point, x - eps), x + eps).clamp(0, 1)
    return point


def whole(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    return steps(model, x, y, budget.eps / 4, 20, budget.eps)


def test_a_sound_attack_raises_none_of_them() -> None:
    assert found(whole, eps="0.1").keys() <= {"saturated-cross-entropy"}


def test_points_passed_over_count_and_are_found_out() -> None:
    def forgetful(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        model.logits(steps(model, x, y, budget.eps / 4, 20, budget.eps))
        return (x + budget.eps / 100).clamp(0, 1)

    spec = attack_spec(forgetful, access="gradient")
    world = simple((spec, entry("a", spec, "0.4")), n=30).world()
    results = world.run()
    table = results[world.cell("a").id].samples
    sound = attack_spec(whole, access="gradient")
    other = simple((sound, entry("a", sound, "0.4")), n=30).world()
    expected = other.run()[other.cell("a").id].samples
    assert table is not None
    assert expected is not None
    assert (table.success | ~expected.success).all()
    assert "silent-success" in {each.id for each in findings(world.plan.cells, results)}


@pytest.mark.parametrize("returned", ["a break of the source", "the clean input"])
def test_in_transfer_points_passed_over_count_only_where_the_source_was_not_broken(
    returned: str,
) -> None:
    """Which of two breaks of the source suits the target is not the attack's to choose."""
    eps = 0.1

    def transferred(looks: int, *, at_once: bool) -> NDArray[np.bool_]:
        def wandering(
            model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
        ) -> Tensor:
            answer = x.clone()
            if at_once:  # without a look: nothing that breaks is seen on the way
                weight = random_linear(1).weight
                answer = (x - eps * weight[y].sign()).clamp(0, 1)
            for look in range(looks):
                ends = x + eps * rng.fork(f"look {look}").sign(tuple(x.shape[1:]))
                model.logits(ends.clamp(0, 1))
            return answer

        spec = attack_spec(wandering, access="gradient")
        given = simple((spec, entry("a", spec, str(eps), source="other")), n=30)
        models = [net_spec("m", 0), net_spec("other", 1)]
        world = changed(given, models=models).world()
        return world.samples("a").success

    at_once = returned == "a break of the source"
    plain, seen_more = transferred(0, at_once=at_once), transferred(30, at_once=at_once)
    if at_once:
        assert 0 < plain.sum() < 28
        assert plain.tolist() == seen_more.tolist()
    else:
        assert seen_more.sum() > plain.sum() + 3


def test_a_search_that_passed_over_a_much_nearer_break_has_not_settled_it() -> None:
    """Else in transfer a far point that breaks the source would hide the near one."""
    n = 4
    x, y = torch.zeros(n, 1), torch.zeros(n, dtype=torch.int64)
    budget = Budget(norm="linf", eps=math.inf, box=UNIT)
    passed = Seen(x, y, None, budget)
    passed.point(None, x + 0.1, torch.tensor([[0.0, 1.0]] * n))
    net = Linear(torch.tensor([[0.0], [1.0]]), torch.tensor([0.05, 0.0]))
    own = judge(loaded(net, 2), batch(x, y), x + 0.4, budget)
    assert own.success.all()
    assert settles(own, passed, None).all()
    assert not settles(own, passed, "linf").any()


def test_steps_too_small_leave_budget_and_loss() -> None:
    def timid(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
        return steps(model, x, y, budget.eps / 100, 20, budget.eps)

    names = found(timid, eps="0.1")
    assert {"incomplete-optimisation", "budget-not-used"} <= names.keys()
    assert names["budget-not-used"].numbers["half the budget unspent"] > 10


def test_a_stateful_attack_does_not_repeat_itself() -> None:
    calls: list[int] = []

    def stateful(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        calls.append(1)
        return (x + budget.eps * (1 if len(calls) % 2 else -1)).clamp(0, 1)

    assert "not-reproducible" in found(stateful)


def test_global_random_numbers_are_found_out_and_repeat_themselves() -> None:
    def careless(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        return (x + budget.eps * torch.randn_like(x).sign()).clamp(0, 1)

    names = found(careless)
    assert "touched-global-rng" in names
    assert "not-reproducible" not in names


# ---------------------------------------------------------------- what an attack saw


def seen(norm: str = "linf", eps: float = 0.3, goal: Tensor | None = None) -> Seen:
    budget = Budget(norm=norm, eps=eps, box=UNIT)  # type: ignore[arg-type]
    return Seen(torch.full((3, 4), 0.5), torch.zeros(3, dtype=torch.int64), goal, budget)


RIGHT, WRONG = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])


def test_the_nearest_break_of_each_row_is_kept() -> None:
    watch = seen()
    for size in (0.2, 0.1, 0.25):
        watch.point(None, torch.full((3, 4), 0.5 + size), torch.stack([WRONG, RIGHT, WRONG]))
    best = watch.best()
    assert best is not None
    assert best.rows.tolist() == [0, 2]
    assert torch.allclose(best.distance, torch.tensor([0.1, 0.1], dtype=torch.float64))
    assert torch.equal(best.x, torch.full((2, 4), 0.6))


def test_points_outside_the_budget_or_of_nobody_are_not_kept() -> None:
    watch = seen()
    all_wrong = WRONG.expand(3, 3)
    watch.point(None, torch.full((3, 4), 0.9), all_wrong)  # too far
    watch.point(None, torch.full((3, 4), 1.2), all_wrong)  # out of the box
    watch.point(None, torch.full((5, 4), 0.6), WRONG.expand(5, 3))  # whose?
    watch.point(torch.tensor([1]), torch.full((3, 4), 0.6), all_wrong)
    assert watch.best() is None


def test_rows_that_stand_twice_keep_the_nearer_of_the_two() -> None:
    watch = seen()
    index = torch.tensor([2, 0, 2])
    x = torch.tensor([0.7, 0.6, 0.55])[:, None].expand(3, 4)
    watch.point(index, x, WRONG.expand(3, 3))
    best = watch.best()
    assert best is not None
    assert best.rows.tolist() == [0, 2]
    assert torch.equal(best.x[1], torch.full((4,), 0.55))


def test_with_a_goal_only_the_goal_counts() -> None:
    watch = seen(goal=torch.full((3,), 2))
    watch.point(None, torch.full((3, 4), 0.6), WRONG.expand(3, 3))
    assert watch.best() is None
    watch.point(None, torch.full((3, 4), 0.6), torch.tensor([0.0, 0.0, 1.0]).expand(3, 3))
    assert watch.best() is not None


@pytest.mark.parametrize(
    ("losses", "rising"),
    [
        ([float(k) for k in range(20)], True),
        ([min(k, 10.0) for k in range(20)], False),
        ([1 - 0.5**k for k in range(20)], False),
        ([0.0] * 20, False),
        ([float(k) for k in range(9)], False),
        ([float("-inf"), *range(19)], True),
        ([float("nan")] * 20, False),
    ],
    ids=["still", "flat", "converging", "nothing", "few", "late", "nan"],
)
def test_a_loss_that_rises_in_its_last_tenth_has_not_ended(
    losses: list[float], rising: bool
) -> None:
    watch = seen()
    for value in losses:
        watch.loss(torch.tensor([1]), "margin", torch.tensor([value]))
    assert watch.rising().tolist() == [False, rising, False]
