"""A model must be the same for the attack, for the judge, and after all that it was asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustbench_lite.diagnose import findings
from robustbench_lite.group import ASKED_AGAIN, OTHERWISE, TAKEN_BACK
from robustbench_lite.preflight import worn
from robustbench_lite.preflight.keys import HEAD
from robustbench_lite.types import Finding
from tests.preflight_nets import batch_of
from tests.small_world import (
    Given,
    attack_spec,
    changed,
    entry,
    loaded,
    model_spec,
    points,
    random_linear,
    simple,
)
from tests.test_trial import whole

Net = Callable[[], nn.Module]


class Around(nn.Module):
    """The small world's linear model behind a rule with a memory of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = random_linear(0)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.net(x)
        return logits


class Turning(Around):
    """Another network after 30 calls."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits if self.calls < 30 else logits.roll(1, dims=1)


class Learning(Around):
    """What is asked first in a place of a batch of four is answered there for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        if torch.is_grad_enabled() or len(x) != 4:
            return logits
        if self.kept is None:
            self.kept = logits.clone()
        return self.kept.clone() if self.calls > 30 else logits


class TwoFaced(Around):
    """What it says without gradients is what it says of the nearest of the clean points."""

    def forward(self, x: Tensor) -> Tensor:
        known = points(10)
        nearest = torch.cdist(x.detach(), known).argmin(dim=1)
        return super().forward(x if torch.is_grad_enabled() else known[nearest])


class Drawing(Around):
    """Adds a little noise to every answer."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.randn(len(x), 3)


def given(net: Net, *, eps: str = "0.1") -> Given:
    spec = attack_spec(whole, access="gradient")
    made = simple((spec, entry("a", spec, eps)))
    models = [model_spec("m", lambda: loaded(net(), 3))]
    return changed(made, models=models, self_test=False)


def told(net: Net, *, eps: str = "0.1") -> dict[str, Finding]:
    world = given(net, eps=eps).world()
    return {each.id: each for each in findings(world.plan.cells, world.run())}


@pytest.mark.parametrize("net", [Turning, Learning])
def test_a_model_with_a_memory_is_found_out(net: Net) -> None:
    error = told(net)["answers-change"]
    assert error.severity == "error"
    assert error.numbers[ASKED_AGAIN] == 10
    assert error.numbers[OTHERWISE] >= 5


@pytest.mark.parametrize("net", [Around, Drawing, lambda: random_linear(0)])
def test_a_model_without_one_is_not(net: Net) -> None:
    assert not {"answers-change", "break-taken-back"} & told(net).keys()


def test_a_break_that_the_judge_does_not_find_is_found_out() -> None:
    error = told(TwoFaced, eps="0.3")["break-taken-back"]
    assert error.severity == "error"
    assert error.numbers[TAKEN_BACK] >= 1


def test_a_clean_pass_alone_asks_nothing_again() -> None:
    world = changed(given(Around), attacks=[], specs=[]).world()
    (clean,) = world.run().values()
    assert not [key for key in clean.observed if key in {ASKED_AGAIN, OTHERWISE}]
    assert any(key.startswith(HEAD) for key in clean.observed)


def test_the_points_lie_in_the_box_around_clean_ones() -> None:
    x = points(16)
    few = batch_of(x, torch.zeros(16, dtype=torch.int64))
    moved = worn.points(few, seed=0)
    far = (moved - x).abs().amax(dim=1)
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert torch.equal(far[::4], torch.zeros(4))
    assert (far[3::4] > 0.2).any()
    assert torch.equal(moved, worn.points(few, seed=0))
    assert not torch.equal(moved, worn.points(few, seed=1))


@pytest.mark.parametrize("size", [1, 5, 100])
def test_the_size_of_the_batches_changes_nothing(size: int) -> None:
    model, x = loaded(random_linear(0), 3), points(16)
    fresh = worn.expected(model, x, size)
    assert fresh is not None
    assert worn.changed(model, x, fresh, size) == 0
    assert worn.changed(loaded(random_linear(1), 3), x, fresh, size) == 16
