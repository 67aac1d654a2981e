"""Models made of models, and the attack on what a network was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stored import Table, linear
from torch import Tensor
from torch.nn import functional

from robeval_train import ensemble, own_loss
from robeval_train.training import costs
from robustbench_lite import Box, Budget, LoadedModel, ModelError, Places, SampleRng
from robustbench_lite.access import BatchMemory, Granted, Tally

PLACES = Places(suite=Path(), data=None, cache=Path())


def members(n: int, *, own: bool = False, classes: int = 3) -> dict[str, LoadedModel]:
    rng = torch.Generator().manual_seed(n)
    return {f"m{at}": linear(torch.randn(classes, 6, generator=rng), own=own) for at in range(n)}


def together(models: dict[str, LoadedModel]) -> LoadedModel:
    params = ensemble.EnsembleParams(of=tuple(models))
    return ensemble.load(params, places=PLACES, device="cpu", threads=1, bench=Table(models=models))


def attacked(model: LoadedModel, x: Tensor, y: Tensor, loss: own_loss.OwnLoss) -> Tensor:
    granted = Granted(BatchMemory(model, x, y), Box(), "gradient", Tally(len(x), x.device), clean=x)
    return own_loss.fgsm_own_loss(
        granted,
        x,
        y,
        budget=Budget(norm="linf", eps=0.25, box=Box()),
        rng=SampleRng(0, "fgsm-own-loss", torch.arange(len(x))),
        loss=loss,
        clip=False,
    )


def test_an_ensemble_decides_by_its_mean_probability() -> None:
    models = members(4)
    x = torch.rand(50, 6)
    each = torch.stack([model.predict(x).softmax(dim=1) for model in models.values()])
    assert torch.allclose(together(models).predict(x), each.mean(dim=0))
    alone = together({"m0": models["m0"]})
    assert torch.equal(alone.predict(x).argmax(dim=1), models["m0"].predict(x).argmax(dim=1))


def test_the_step_on_an_ensemble_follows_the_mean_loss_of_its_members() -> None:
    models = members(4)
    x, y = torch.rand(30, 6), torch.arange(30) % 3
    found = attacked(together(models), x, y, "negative-score")
    leaf = x.clone().requires_grad_(True)
    nets = [model.differentiable for model in models.values()]
    mean = sum(functional.cross_entropy(net(leaf), y, reduction="sum") for net in nets if net)
    assert isinstance(mean, Tensor)
    (grad,) = torch.autograd.grad(mean, leaf)
    assert torch.equal(found, x + 0.25 * grad.sign())


def test_the_step_on_independent_classes_follows_their_binary_cross_entropy() -> None:
    model = members(1, own=True)["m0"]
    x, y = torch.rand(30, 6), torch.arange(30) % 3
    found = attacked(model, x, y, "per-class")
    leaf = x.clone().requires_grad_(True)
    assert model.differentiable is not None
    grad = costs.gradient(costs.per_class(model.differentiable(leaf), y), leaf)
    assert torch.equal(found, x + 0.25 * grad.sign())
    softmax = costs.gradient(costs.cross_entropy(model.differentiable(leaf), y), leaf)
    assert not torch.equal(grad.sign(), softmax.sign())


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ({**members(1), "x": members(1, own=True)["m0"]}, "'x' gives no gradients of a softmax"),
        ({**members(1), "x": members(1, classes=4)["m0"]}, "'x' knows 4 classes, 'm0' 3"),
    ],
)
def test_members_must_fit_together(models: dict[str, LoadedModel], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        together(models)
