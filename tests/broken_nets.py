"""Accurate networks with broken gradients: their true robust accuracy at linf 0.3 is about 0."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

import torch
from safetensors.torch import load
from torch import Tensor, nn

from robustbench_lite.embedded.nets import mlp


class Around(nn.Module):
    """The embedded MLP behind a function of (network, x)."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net = mlp()
        path = resources.files("robustbench_lite").joinpath("embedded/mnist_mlp.safetensors")
        self.net.load_state_dict(load(path.read_bytes()))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.net, x)


def nan_gradient() -> nn.Module:
    """Finite logits; the derivative of sqrt at 0 is infinite, times 0 is NaN."""
    return Around(lambda net, x: net(x) + (x.flatten(1)[:, :1] * 0).sqrt() * 0)


def scaled() -> nn.Module:
    """Cross-entropy saturates in float32: its gradient is exactly zero."""
    return Around(lambda net, x: net(x) * 1000)


def quantised_input() -> nn.Module:
    """Rounding has the derivative zero."""
    return Around(lambda net, x: net((x * 4).round() / 4))


def rounded_output() -> nn.Module:
    """Probabilities with two decimals."""
    return Around(lambda net, x: (net(x).softmax(dim=1) * 100).round() / 100)


def sign_activations() -> nn.Module:
    """A layer of signs in front."""
    return Around(lambda net, x: net(torch.where(x > 0.25, 1.0, 0.0)))
