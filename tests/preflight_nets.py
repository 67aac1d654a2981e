"""Networks for the pre-flight checks: accurate on digits, sound or with one thing wrong."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.rng import sample_keys
from robustbench_lite.types import Batch, Box, LoadedModel, Output
from tests.broken_nets import Around
from tests.nearest_mean import sample

UNIT = Box(0.0, 1.0)
DIGITS = tuple("0123456789")


def loaded(
    module: nn.Module,
    *,
    output: Output = "logits",
    classes: int = 10,
    score_only: bool = False,
    device: torch.device | str = "cpu",
) -> LoadedModel:
    """A module as the torch loader gives it."""
    if torch.device(device).type != "cpu":
        module = copy.deepcopy(module).to(device)
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return LoadedModel(
        predict=torch.no_grad()(module),
        differentiable=None if score_only else module,
        num_classes=classes,
        input_shape=None,
        output=output,
        device=str(device),
        provider="torch",
    )


def batch_of(x: Tensor, y: Tensor, box: Box = UNIT) -> Batch:
    """Samples as a run reads them."""
    ids = tuple(str(row) for row in range(len(x)))
    return Batch(start=0, ids=ids, hashes=ids, keys=sample_keys(ids), x=x, y=y, box=box)


def digits(n: int = 64, start: int = 0, device: torch.device | str = "cpu") -> Batch:
    """Some of the embedded images."""
    x, y = sample()
    batch = batch_of(x[start : start + n].to(device), y[start : start + n].to(device))
    return dataclasses.replace(batch, keys=batch.keys.to(device))


# ---------------------------------------------------------------- sound


def _readout(body: nn.Module, x: Tensor, y: Tensor, classes: int) -> nn.Linear:
    """The linear layer that fits one-hot labels best, by ridge regression."""
    with torch.no_grad():
        features = body(x).double()
        ones = torch.ones(len(x), 1, dtype=torch.float64)
        design = torch.cat([features, ones], dim=1)
        gram = design.T @ design + 1e-2 * torch.eye(design.shape[1], dtype=torch.float64)
        target = functional.one_hot(y, classes).double() * 10
        solved = torch.linalg.solve(gram, design.T @ target).float()
    layer = nn.Linear(features.shape[1], classes)
    with torch.no_grad():
        layer.weight.copy_(solved[:-1].T)
        layer.bias.copy_(solved[-1])
    return layer


@cache
def fitted(name: str) -> nn.Module:
    """A body with random weights under a fitted readout, by the name of its maker."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        body = BODIES[name]()
    x, y = sample()
    body.train()
    with torch.no_grad():
        for start in range(0, len(x), 100):  # statistics of batch normalisation
            body(x[start : start + 100])
    body.eval()
    return nn.Sequential(body, _readout(body, x, y, 10)).eval()


class Patches(nn.Module):
    """A vision transformer of two layers on 16 patches of 7 x 7, with dropout to switch off."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 64, 7, stride=7)
        self.places = nn.Parameter(torch.randn(16, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.3, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.places
        encoded: Tensor = self.layers(tokens)
        return encoded.flatten(1)


def _convolutions(*after: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2), *after, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    )


class Rows(nn.Module):
    """A recurrent network over the 28 rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.LSTM(28, 64, num_layers=2, dropout=0.4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        states: Tensor = self.rows(x[:, 0])[0]
        return states.flatten(1)


BODIES: dict[str, Callable[[], nn.Module]] = {
    "transformer": Patches,
    "batch norm": lambda: _convolutions(nn.BatchNorm2d(16), nn.Dropout(0.5)),
    "instance norm": lambda: _convolutions(nn.InstanceNorm2d(16)),
    "group norm": lambda: _convolutions(nn.GroupNorm(4, 16), nn.Dropout2d(0.2)),
    "recurrent": Rows,
}


# ---------------------------------------------------------------- with one thing wrong


def scaled(factor: float) -> nn.Module:
    """Logits that float32 cross-entropy cannot hold, from some factor on."""
    return Around(lambda net, x: net(x) * factor)


class Dropping(nn.Module):
    """Dropout that switches itself on."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Around(lambda net, x: net(x))
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        self.drop.train()
        logits: Tensor = self.net(self.drop(x))
        return logits


class BatchNormed(nn.Module):
    """Batch normalisation of the input that uses the statistics of the batch.

    `by`: "train" turns train mode on in forward, "statistics" has no others to use.
    """

    def __init__(self, by: str) -> None:
        super().__init__()
        self.net = Around(lambda net, x: net(x))
        self.norm = nn.BatchNorm2d(1, track_running_stats=by == "train")
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        if self.by == "train":
            self.norm.train()
        logits: Tensor = self.net(self.norm(x) * 0.3 + 0.13)
        return logits


def noisy(size: float) -> nn.Module:
    """Gaussian noise on the input, at inference."""
    return Around(lambda net, x: net(x + size * torch.randn_like(x)))


def _resized(net: nn.Module, x: Tensor) -> Tensor:
    side = int(torch.randint(20, 28, ()))
    small = functional.interpolate(x, size=(side, side))
    logits: Tensor = net(functional.pad(small, (0, 28 - side, 0, 28 - side)))
    return logits


def resizing() -> nn.Module:
    """Random resizing (Xie et al. 2018), one size for the whole batch."""
    return Around(_resized)


def centred() -> nn.Module:
    """The mean image of the batch is taken off."""
    return Around(lambda net, x: net(x - x.mean(dim=0, keepdim=True) + 0.13))


def size_dependent() -> nn.Module:
    """A batch of one is treated otherwise."""
    return Around(lambda net, x: net(1 - x) if len(x) == 1 else net(x))


def squeezing() -> nn.Module:
    """A batch of one loses its batch dimension, and is refused."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        logits: Tensor = net(x).squeeze()
        if logits.ndim == 1:
            raise ValueError("expected a batch")
        return logits

    return Around(forward)


def softmax() -> nn.Module:
    """Probabilities."""
    return Around(lambda net, x: net(x).softmax(dim=1))


def half_softmax() -> nn.Module:
    """Probabilities in half precision."""
    return Around(lambda net, x: net(x).softmax(dim=1).half().float())


def log_softmax() -> nn.Module:
    """As good as logits."""
    return Around(lambda net, x: net(x).log_softmax(dim=1))


def one_hot() -> nn.Module:
    """Only the class."""
    return Around(lambda net, x: functional.one_hot(net(x).argmax(dim=1), 10).float())


def hard() -> nn.Module:
    """Only the class, at the scale of logits."""
    return Around(lambda net, x: functional.one_hot(net(x).argmax(dim=1), 10).float() * 12 - 3)


def constant() -> nn.Module:
    """The same logits for everything."""
    return Around(
        lambda net, x: torch.arange(10.0, device=x.device).expand(len(x), 10) + 0 * net(x)
    )


def cut_graph() -> nn.Module:
    """A network whose backward pass fails."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        logits: Tensor = net(x)
        if logits.requires_grad:
            logits.register_hook(_refuse)  # type: ignore[no-untyped-call]
        return logits

    return Around(forward)


def _refuse(gradient: Tensor) -> Tensor:
    raise RuntimeError("no derivative")


def bytes_wanted() -> nn.Module:
    """Trained on 0 to 255."""
    return Around(lambda net, x: net(x / 255))
