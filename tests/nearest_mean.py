"""A classifier without training: logits are minus half the squared distances to the class means."""

from __future__ import annotations

import sys
from importlib import resources

import numpy as np
import torch
from torch import Tensor, nn


def sample() -> tuple[Tensor, Tensor]:
    """The embedded MNIST sample: x float32 [1000, 1, 28, 28] in [0, 1], y int64 [1000]."""
    path = resources.files("robustbench_lite").joinpath("embedded/mnist_sample.npz")
    with path.open("rb") as stream, np.load(stream) as archive:
        x = torch.from_numpy(archive["x"]).float().div(255)[:, None]
        return x, torch.from_numpy(archive["y"]).long()


def linear() -> nn.Module:
    """The nearest-mean classifier as one linear layer; about 4 of 5 right on the sample."""
    x, y = sample()
    flat = x.flatten(1)
    means = torch.stack([flat[y == k].mean(dim=0) for k in range(10)])
    layer = nn.Linear(784, 10)
    with torch.no_grad():
        layer.weight.copy_(means)
        layer.bias.copy_(-0.5 * means.square().sum(dim=1))
    return nn.Sequential(nn.Flatten(), layer)


def raising() -> nn.Module:
    """A factory that fails."""
    raise RuntimeError("no weights today")


def leaving() -> nn.Module:
    """A factory whose module was written as a script."""
    sys.exit(0)


class Echo(nn.Module):
    """Returns NaN for every input: the model that must never look robust."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] * float("nan")


def nan() -> nn.Module:
    """The model whose every output is NaN."""
    return Echo()


def pruned() -> nn.Module:
    """The same classifier blind to the left quarter of the image: a few points worse."""
    model = linear()
    assert isinstance(model, nn.Sequential)
    layer = model[1]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        kept = torch.ones(28, 28)
        kept[:, :10] = 0
        layer.weight.mul_(kept.flatten())
        layer.bias.copy_(-0.5 * layer.weight.square().sum(dim=1))
    return model
