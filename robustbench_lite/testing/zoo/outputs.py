"""Members whose output is not what it is taken for: saturated, probability, vote, constant."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from .nets import CLASSES, convolutional, frozen, undefended

TEMPERATURE = 100.0
DECIMALS = 2
CONSTANT_CLASS = 1


class Scale(nn.Module):
    """Multiplies by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return x * self.factor


class Decimals(nn.Module):
    """Rounds to a number of decimals; the derivative is zero."""

    def __init__(self, decimals: int) -> None:
        super().__init__()
        self.unit = 10.0**decimals

    def forward(self, p: Tensor) -> Tensor:
        """p of any shape -> the same shape."""
        return (p * self.unit).round() / self.unit


class Votes(nn.Module):
    """Duels of every two classes, won minus lost: the argmax stays, the derivative is zero."""

    def forward(self, z: Tensor) -> Tensor:
        """z: [n, k] -> whole numbers from -(k - 1) to k - 1, [n, k]."""
        return (z[:, :, None] - z[:, None, :]).sign().sum(dim=2)


class HardLabel(nn.Module):
    """One for the chosen class, zero for the others: nothing to differentiate."""

    def forward(self, z: Tensor) -> Tensor:
        """z: [n, k] -> [n, k]."""
        return nn.functional.one_hot(z.argmax(dim=1), z.shape[1]).to(z.dtype)


class Constant(nn.Module):
    """One answer to every input."""

    def __init__(self, answer: int) -> None:
        super().__init__()
        self.logits: Tensor
        self.register_buffer("logits", torch.eye(CLASSES)[answer])

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, *shape] -> [n, 10]."""
        return x.flatten(1)[:, :1] * 0 + self.logits


def scaled_30() -> nn.Module:
    """Logits times 30: float32 cross-entropy is exactly 0 for most digits, and so its gradient."""
    return _before("scale", Scale(30))


def scaled_100() -> nn.Module:
    """Logits times 100."""
    return _before("scale", Scale(100))


def scaled_1000() -> nn.Module:
    """Logits times 1,000."""
    return _before("scale", Scale(1000))


def softmax_output() -> nn.Module:
    """Probabilities where logits are expected."""
    return _before("softmax", nn.Softmax(dim=1))


def softmax_rounded() -> nn.Module:
    """Probabilities with two decimals, as a service prints them: no gradient at all."""
    softmax = OrderedDict(net=undefended(), softmax=nn.Softmax(dim=1), round=Decimals(DECIMALS))
    return frozen(nn.Sequential(softmax))


def log_softmax_output() -> nn.Module:
    """Logarithms of probabilities where logits are expected; attacks work on them as on logits."""
    return _before("log_softmax", nn.LogSoftmax(dim=1))


def votes_head() -> nn.Module:
    """Classes voted on by duels, an argmax in disguise: zero gradient; the step `votes`."""
    return _before("votes", Votes())


def hard_label() -> nn.Module:
    """One-hot decisions: a constant to differentiation; the step `label`."""
    return _before("label", HardLabel())


def distilled() -> nn.Module:
    """Defensive distillation at temperature 100, by its fixed point.

    A student trained on softmax(z / 100) of the teacher's logits z, itself through a softmax at
    temperature 100, ends at 100 times the logits that training at temperature 1 gives, and is then
    used at temperature 1 (Papernot et al., "Distillation as a defense to adversarial perturbations
    against deep neural networks", S&P 2016, section IV). So the convolutional network's last layer
    is multiplied by 100: cross-entropy saturates as in Carlini and Wagner (2017), section VI.
    """
    network = convolutional()
    last = network[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.mul_(TEMPERATURE)
        last.bias.mul_(TEMPERATURE)
    return network


def constant_logits() -> nn.Module:
    """Always the digit 1: unbreakable where right, and right for one digit in ten."""
    return frozen(Constant(CONSTANT_CLASS))


def _before(name: str, head: nn.Module) -> nn.Module:
    return frozen(nn.Sequential(OrderedDict([("net", undefended()), (name, head)])))
