"""Optimisers: schedules by hand, AdaBound against its definition and its two limits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from blobs import blobs, job
from torch import nn

from robeval_train import nets
from robeval_train.nets.options import ConvMaxout
from robeval_train.training import loop, optimisers
from robeval_train.training.adabound import Bounded
from robeval_train.training.draws import Draws
from robeval_train.training.options import Sgd

DENSE = 13  # where the dense layers of conv-maxout begin: behind a mask and three blocks of four


def walked(optimiser: str, steps: int, **settings: float) -> torch.Tensor:
    """Where a fixed quadratic is after some steps."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    scale = torch.tensor([1.0, 10.0, 0.1])
    kinds = {"adabound": Bounded, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    made = kinds[optimiser]([weight], **settings)  # type: ignore[arg-type]
    for _ in range(steps):
        made.zero_grad()
        torch.autograd.backward((scale * weight * weight).sum())
        made.step()
    return weight.detach()


def test_adabound_with_bounds_that_never_bind_is_adam() -> None:
    adam = walked("adam", 30, lr=1e-3)
    bounded = walked("adabound", 30, lr=1e-3, final_lr=1e-6, gamma=1e-9)
    assert torch.allclose(adam, bounded, atol=1e-6)


def test_adabound_with_bounds_that_have_closed_is_sgd_with_averaged_gradients() -> None:
    """gamma t >> 1: every rate is final_lr, times the mean gradient of Adam."""
    weight = torch.tensor([1.0, -2.0, 0.5])
    scale = torch.tensor([1.0, 10.0, 0.1])
    mean = torch.zeros(3)
    for _ in range(20):
        mean = 0.9 * mean + 0.1 * (2 * scale * weight)
        weight = weight - 0.01 * mean
    found = walked("adabound", 20, lr=1e-3, final_lr=0.01, gamma=1e6)
    assert torch.allclose(found, weight, atol=1e-5)


@pytest.mark.parametrize(
    ("epoch", "expected"), [(1, 0.5), (125, 0.5 + 0.2 * 124 / 249), (250, 0.7), (400, 0.7)]
)
def test_the_momentum_goes_linearly_to_its_end(epoch: int, expected: float) -> None:
    options = Sgd(momentum=0.5, final_momentum=0.7, saturate=250)
    assert optimisers.momentum(options, epoch) == pytest.approx(expected)


def test_the_rate_is_divided_after_every_step_down_to_its_least() -> None:
    options = Sgd(lr=0.1, decay=1.000004, least=1e-6)
    made = optimisers.make(options, nn.Linear(1, 1))
    for steps, expected in ((0, 0.1), (122_000, 0.0614), (10**8, 1e-6)):
        optimisers.schedule(options, made, steps=steps, epoch=1)
        assert made.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("epoch", "expected"), [(1, 0.17), (251, 0.085), (501, 0.0017), (900, 0.0017)]
)
def test_the_rate_goes_linearly_to_its_end(epoch: int, expected: float) -> None:
    options = Sgd(lr=0.17, final_lr=0.0017, lr_saturate=500)
    assert optimisers.rate(options, 10_000, epoch) == pytest.approx(expected, rel=0.02)


def test_without_a_scale_there_is_one_group_and_with_it_convolutions_stand_apart() -> None:
    net = nets.build(ConvMaxout(channels=(4, 4, 4), dense=8), (1, 28, 28), 3)
    (one,) = optimisers.make(Sgd(), net).param_groups
    assert [id(each) for each in one["params"]] == [id(each) for each in net.parameters()]
    rest, slow = optimisers.make(Sgd(conv_scale=0.05), net).param_groups
    assert {each.ndim for each in slow["params"]} == {4, 1}
    assert [len(rest["params"]), len(slow["params"])] == [4, 6]


def test_the_first_step_of_a_convolution_is_its_scale_times_the_step_without(
    tmp_path: Path,
) -> None:
    """One batch, one step; the kernels are so short that no norm binds."""
    sgd = {"name": "sgd", "lr": 0.1, "momentum": 0.5}
    given: dict[str, object] = {
        "arch": {"name": "conv-maxout", "channels": [4, 4, 4], "dense": 8},
        "epochs": 1,
    }
    moved = []
    for name, scale in (("whole", 1.0), ("slow", 0.25)):
        optimiser = {"optimiser": {**sgd, "conv_scale": scale}}
        one = job(tmp_path / name, given | optimiser, data=blobs(20, shape=(1, 16, 16)))
        start = Draws(0, 0).built(one.build).state_dict()
        weights, _ = loop.train(one)
        moved.append({key: weights[key] - start[key] for key in weights})
    whole, slow = moved
    for key, step in whole.items():
        conv = int(key.split(".")[0]) < DENSE
        assert float(step.abs().max()) > 0
        expected = step * 0.25 if conv else step
        assert torch.allclose(slow[key], expected, atol=1e-9, rtol=1e-3), key
