"""Brightness against a linear model, where the worst shift is known exactly."""

# ruff: noqa: ARG002  (the model answers only what access "score" allows)

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from robeval_minimal import BrightnessParams, brightness, robeval_attacks
from robustbench_lite import Box, Budget, Evaluated, Loss, SampleRng


@dataclass
class Linear:
    """A linear classifier, the smallest thing that is a `Classifier`."""

    weight: Tensor
    bias: Tensor
    box: Box = field(default_factory=Box)
    queries: int = 0

    @property
    def num_classes(self) -> int:
        return len(self.bias)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.weight.shape[1],)

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def logits(self, x: Tensor) -> Tensor:
        self.queries += len(x)
        return x @ self.weight.T + self.bias

    def decide(self, x: Tensor) -> Tensor:
        return self.logits(x).argmax(dim=1)

    def gradient(self, x: Tensor, y: Tensor, loss: Loss = "cross-entropy") -> Tensor:
        raise AssertionError("brightness declares access 'score'")

    def value_and_gradient(self, x: Tensor, y: Tensor, loss: Loss = "cross-entropy") -> Evaluated:
        raise AssertionError("brightness declares access 'score'")

    def averaged(self, draws: int) -> Linear:
        return self

    def rows(self, index: Tensor) -> Linear:
        return self

    def module(self) -> torch.nn.Module:
        raise AssertionError("brightness declares access 'score'")


def problem(seed: int, n: int = 64, dim: int = 5) -> tuple[Linear, Tensor, Tensor]:
    """A random two-class linear model with inputs that stay in the box under a shift of 0.2."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(2, dim, generator=generator)
    model = Linear(weight, torch.randn(2, generator=generator) * 0.1)
    x = 0.25 + 0.5 * torch.rand(n, dim, generator=generator)
    y = torch.randint(2, (n,), generator=generator)
    return model, x, y


def attacked(model: Linear, x: Tensor, y: Tensor, eps: float, levels: int = 1) -> Tensor:
    budget = Budget(norm="linf", eps=eps, box=model.box)
    rng = SampleRng(0, "brightness", torch.arange(len(x)))
    return brightness(model, x, y, budget=budget, rng=rng, levels=levels)


@pytest.mark.parametrize("seed", range(5))
def test_it_breaks_exactly_what_a_common_shift_can_break(seed: int) -> None:
    """A shift s moves the margin by s * sum(w_y - w_other): eps breaks iff margin < eps * |sum|."""
    model, x, y = problem(seed)
    eps = 0.2
    row = model.weight[y] - model.weight[1 - y]
    offset = model.bias[y] - model.bias[1 - y]
    margin = (row * x).sum(dim=1) + offset
    slack = margin - eps * row.sum(dim=1).abs()
    clear = slack.abs() > 1e-5
    broken = model.decide(attacked(model, x, y, eps)) != y
    assert torch.equal(broken[clear], (slack < 0)[clear])
    assert 0 < broken.sum() < len(x)


@pytest.mark.parametrize("levels", [1, 3])
def test_it_stays_in_the_ball_and_the_box_and_shifts_all_components_alike(levels: int) -> None:
    model, x, y = problem(7)
    before = x.clone()
    x_adv = attacked(model, x, y, 0.1, levels)
    assert torch.equal(x, before)
    delta = x_adv - x
    assert delta.abs().max() <= 0.1 + 1e-6
    assert delta.std(dim=1).max() < 1e-6
    assert model.queries == 2 * levels * len(x)
    wide = attacked(model, x, y, 5.0, levels)
    assert wide.min() >= 0
    assert wide.max() <= 1


def test_eps_zero_is_the_identity() -> None:
    model, x, y = problem(3)
    assert torch.equal(attacked(model, x, y, 0.0), x)


def test_one_sample_at_a_time_gives_the_same_rows() -> None:
    model, x, y = problem(11, n=8)
    rows = [attacked(model, x[i : i + 1], y[i : i + 1], 0.15, 2) for i in range(8)]
    assert torch.equal(attacked(model, x, y, 0.15, 2), torch.cat(rows))


def test_the_spec_says_what_the_function_does() -> None:
    (spec,) = robeval_attacks()
    assert (spec.name, spec.norms, spec.access) == ("brightness", ("linf",), "score")
    assert spec.implementation is brightness
    assert spec.cost is not None
    assert spec.cost(BrightnessParams(levels=3), None, None) == (6.0, 0.0)
    assert (resources.files("robeval_minimal") / "py.typed").is_file()
    with pytest.raises(ValidationError):
        BrightnessParams(levels=0)
