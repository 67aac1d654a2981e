"""One call of an attack under guard: what it touches is noticed, and nothing it touches stays."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_lite import Box, Budget, Classifier, SampleRng
from robustbench_lite.access import BatchMemory
from robustbench_lite.craft import (
    CHANGED_INPUT,
    TOUCHED_RNG,
    Crafted,
    craft,
    fingerprint,
    targets,
)
from robustbench_lite.hookspecs import AttackSpec
from robustbench_lite.rng import sample_keys
from robustbench_lite.types import Batch
from tests.small_world import Linear, attack_spec, batch, loaded, points, random_linear

N = 6
Seen = dict[str, object]


def world() -> tuple[BatchMemory, Batch]:
    x = points(N)
    whole = batch(x, torch.arange(N) % 3)
    return BatchMemory(loaded(random_linear(0), 3), x, whole.y), whole


def call(
    function: Callable[..., object],
    *,
    rows: Tensor | None = None,
    goal: Tensor | None = None,
    spec: AttackSpec | None = None,
    params: dict[str, object] | None = None,
    whole: Batch | None = None,
    memory: BatchMemory | None = None,
) -> Crafted:
    if memory is None or whole is None:
        memory, whole = world()
    rows = torch.arange(N) if rows is None else rows
    return craft(
        attack_spec(function) if spec is None else spec,
        function,
        params or {},
        memory,
        whole,
        rows=rows,
        budget=Budget(norm="linf", eps=0.1, box=Box()),
        rng=SampleRng(0, "mine", whole.keys).rows(rows),
        goal=goal,
    )


def honest(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    return (x + budget.eps * model.gradient(x, y).sign()).clamp(0, 1)


def test_the_attack_gets_its_rows_and_nothing_it_did_is_observed() -> None:
    seen: Seen = {}

    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng, steps: int
    ) -> Tensor:
        seen.update(x=x.clone(), y=y.clone(), eps=budget.eps, steps=steps, draw=rng.uniform((2,)))
        return honest(model, x, y, budget=budget, rng=rng)

    memory, whole = world()
    rows = torch.tensor([4, 0, 1])
    crafted = call(attack, rows=rows, params={"steps": 7}, memory=memory, whole=whole)
    assert torch.equal(seen["x"], whole.x[rows])  # type: ignore[arg-type]
    assert torch.equal(seen["y"], whole.y[rows])  # type: ignore[arg-type]
    assert (seen["eps"], seen["steps"]) == (0.1, 7)
    assert torch.equal(seen["draw"], SampleRng(0, "mine", whole.keys).uniform((2,))[rows])  # type: ignore[arg-type]
    assert crafted.observed == {}
    assert crafted.seconds > 0
    assert crafted.tally.queries.tolist() == crafted.tally.gradients.tolist() == [1, 1, 1]


@pytest.mark.parametrize("targeted", [False, True])
def test_a_target_is_passed_to_an_attack_that_can_be_targeted_and_to_no_other(
    targeted: bool,
) -> None:
    seen: Seen = {}

    def attack(model: Classifier, x: Tensor, y: Tensor, **own: object) -> Tensor:
        seen.update(own)
        return x

    spec = attack_spec(attack, targeted=targeted)
    rows, goal = torch.tensor([2, 3]), torch.arange(N)
    call(attack, rows=rows, goal=goal, spec=spec)
    assert ("target" in seen) == targeted
    if targeted:
        assert torch.equal(seen["target"], goal[rows])  # type: ignore[arg-type]
        call(attack, spec=spec)
        assert seen["target"] is None


# ---------------------------------------------------------------- the global random state


def state() -> tuple[object, ...]:
    return (
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # type: ignore[index,union-attr]  # noqa: NPY002
    )


TOUCHES: dict[str, Callable[[], object]] = {
    "torch": lambda: torch.rand(3),
    "torch seed": lambda: torch.manual_seed(11),
    "numpy": lambda: np.random.rand(3),  # noqa: NPY002
    "random": random.random,
}


@pytest.mark.parametrize("name", TOUCHES)
@pytest.mark.parametrize("raises", [False, True])
def test_a_touched_global_state_is_put_back_and_observed(name: str, raises: bool) -> None:
    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        TOUCHES[name]()
        if raises:
            raise ZeroDivisionError
        return x

    before = state()
    if raises:
        with pytest.raises(ZeroDivisionError):
            call(attack)
    else:
        assert call(attack).observed == {TOUCHED_RNG: 1}
    assert state() == before


def test_the_samples_own_random_numbers_touch_nothing_global() -> None:
    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        return x + 0.1 * rng.sign((6,)) * rng.uniform((6,)) * rng.normal((6,)).sign()

    before = state()
    assert call(attack).observed == {}
    assert state() == before


SWITCHES: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "gradients": (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "default type": (lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype),
    "deterministic": (
        lambda: torch.use_deterministic_algorithms(True),
        torch.are_deterministic_algorithms_enabled,
    ),
    "denormals": (lambda: torch.set_flush_denormal(True), lambda: float(torch.tensor([1e-39]) * 1)),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_a_global_switch_that_an_attack_leaves_changed_is_put_back(name: str) -> None:
    change, read = SWITCHES[name]

    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        change()
        return x

    before = read()
    try:
        call(attack)
        assert read() == before
    finally:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)
        torch.set_flush_denormal(False)


# ---------------------------------------------------------------- its input


def test_an_input_changed_in_place_is_observed_and_the_batch_is_not_reached() -> None:
    def attack(
        model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng
    ) -> Tensor:
        y.zero_()
        return x.add_(0.05)

    memory, whole = world()
    x, y = whole.x.clone(), whole.y.clone()
    crafted = call(attack, memory=memory, whole=whole)
    assert crafted.observed == {CHANGED_INPUT: 1}
    assert torch.equal(whole.x, x)
    assert torch.equal(whole.y, y)
    assert torch.equal(memory.x, x)
    assert isinstance(crafted.candidate, Tensor)
    assert torch.equal(crafted.candidate, x + 0.05)


def test_returning_the_clean_input_is_no_change() -> None:
    memory, whole = world()
    crafted = call(lambda model, x, y, *, budget, rng: x, memory=memory, whole=whole)
    assert crafted.observed == {}
    assert isinstance(crafted.candidate, Tensor)
    assert crafted.candidate.data_ptr() != whole.x.data_ptr()


# ---------------------------------------------------------------- the model's fingerprint


def net() -> nn.Module:
    made = nn.Sequential(Linear(torch.eye(3)), nn.BatchNorm1d(3), nn.Dropout())
    return made.eval()


def negate_zero(module: nn.Module) -> None:
    weight = next(module.parameters())
    weight.data[0, 1] = -0.0


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "one weight": lambda m: next(m.parameters()).data[1, 1].add_(1e-7),
    "two weights swapped": lambda m: next(m.parameters()).data.copy_(torch.eye(3)[[1, 0, 2]]),
    "a weight to NaN": lambda m: next(m.parameters()).data[0, 0].fill_(float("nan")),
    "the sign of a zero": negate_zero,
    "a running mean": lambda m: m.get_buffer("1.running_mean").add_(1e-3),
    "a count of batches": lambda m: m.get_buffer("1.num_batches_tracked").add_(1),
    "train mode": lambda m: m.train(),
    "train mode of one layer": lambda m: m.get_submodule("2").train(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_weights_buffers_or_mode_changes_the_fingerprint(name: str) -> None:
    module = net()
    before = fingerprint(module)
    assert fingerprint(module) == before
    CHANGES[name](module)
    assert fingerprint(module) != before


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.bool]
)
def test_every_type_of_buffer_is_seen(dtype: torch.dtype) -> None:
    module = nn.Module()
    module.register_buffer("part", torch.tensor([1, 0, 1, 1]).to(dtype))
    before = fingerprint(module)
    module.get_buffer("part").copy_(torch.tensor([1, 1, 0, 1]))
    assert fingerprint(module) != before


def test_no_module_has_an_empty_fingerprint() -> None:
    assert fingerprint(None) == ()
    assert fingerprint(nn.Module().eval()) == (0,)


# ---------------------------------------------------------------- targets


def aimed(
    kind: str, n: int = 600, *, classes: int = 3, y: Tensor | None = None, ids: str = "s"
) -> Tensor:
    x = points(n)
    y = torch.arange(n) % classes if y is None else y
    net_of = random_linear(0, classes)
    keys = sample_keys([f"{ids}{i}" for i in range(n)])
    return targets(
        kind, BatchMemory(loaded(net_of, classes), x, y), batch(x, y), SampleRng(0, "mine", keys)
    )


def test_next_is_the_following_class() -> None:
    assert aimed("next", 5).tolist() == [1, 2, 0, 1, 2]


def test_random_is_never_the_own_class_and_every_other_one_equally_often() -> None:
    own = torch.arange(3000) % 3
    found = aimed("random", 3000)
    assert not bool((found == own).any())
    steps = ((found - own) % 3).bincount(minlength=3).tolist()
    assert steps[0] == 0
    assert abs(steps[1] - 1500) < 4 * 27.4  # four standard deviations of a fair coin
    assert aimed("random", 7, classes=2).tolist() == [1, 0, 1, 0, 1, 0, 1]


def test_a_random_target_belongs_to_the_sample_not_to_its_batch() -> None:
    whole = aimed("random", 40)
    assert torch.equal(aimed("random", 15), whole[:15])
    assert not torch.equal(aimed("random", 40, ids="t"), whole)


def test_least_likely_is_the_lowest_score_and_a_number_is_that_class() -> None:
    assert torch.equal(aimed("least-likely", 20), random_linear(0)(points(20)).argmin(dim=1))
    assert aimed("2", 4).tolist() == [2, 2, 2, 2]
