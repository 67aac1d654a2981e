"""Healthy controls: nothing is wrong with the measurement of these models, robust or not.

The last three are fitted to the embedded digits when they are first asked for, within seconds and
from fixed random numbers; each call gives a copy of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from .nets import CLASSES, SIDE, convolutional, digits, frozen, ridge, undefended

SEED = 5
LINEAR_PENALTY = 10.0
LINEAR_SCALE = 6.0  # a median margin of 6, that of an ordinary network

WIDTH = 64
LIPSCHITZ_STEPS = 60
LIPSCHITZ_RATE = 0.01
LIPSCHITZ_SHARPNESS = 8.0  # of the softmax in training: what margin, in l2, is enough
BJORCK_STEPS, BJORCK_FINAL_STEPS = 6, 40

PATCH = 7
TOKENS = (SIDE // PATCH) ** 2
DIMENSIONS = 32
HEADS = 4
BLOCKS = 2
EPOCHS = 10
BATCH = 50
VIT_RATE = 4e-3


class MaxMin(nn.Module):
    """Sorts the two halves of a row against each other: keeps the gradient's norm.

    Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", ICML 2019.
    """

    def forward(self, h: Tensor) -> Tensor:
        """h: [n, 2d] -> the same shape."""
        first, second = h.chunk(2, dim=1)
        return torch.cat([torch.maximum(first, second), torch.minimum(first, second)], dim=1)


class Block(nn.Module):
    """One layer of a transformer, normalised before attention and before its two linear maps."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(DIMENSIONS)
        self.queries_keys_values = nn.Linear(DIMENSIONS, 3 * DIMENSIONS)
        self.mixed = nn.Linear(DIMENSIONS, DIMENSIONS)
        self.maps = nn.Sequential(
            nn.LayerNorm(DIMENSIONS),
            nn.Linear(DIMENSIONS, 2 * DIMENSIONS),
            nn.GELU(),
            nn.Linear(2 * DIMENSIONS, DIMENSIONS),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: [n, 16, 32] -> the same shape."""
        heads = self.queries_keys_values(self.before_attention(tokens))
        heads = heads.reshape(-1, TOKENS, 3, HEADS, DIMENSIONS // HEADS).permute(2, 0, 3, 1, 4)
        scores = heads[0] @ heads[1].transpose(2, 3) / (DIMENSIONS // HEADS) ** 0.5
        attended = (scores.softmax(dim=3) @ heads[2]).transpose(1, 2)
        tokens = tokens + self.mixed(attended.reshape(-1, TOKENS, DIMENSIONS))
        return tokens + self.maps(tokens)  # type: ignore[no-any-return]  # modules are untyped


class SmallViT(nn.Module):
    """A vision transformer on 16 patches of 7 x 7 pixels (Dosovitskiy et al., ICLR 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, DIMENSIONS, PATCH, stride=PATCH)
        self.places = nn.Parameter(torch.randn(1, TOKENS, DIMENSIONS) * 0.1)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.head = nn.Sequential(nn.LayerNorm(DIMENSIONS), nn.Linear(DIMENSIONS, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, 1, 28, 28] -> logits [n, 10]."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        logits: Tensor = self.head(self.blocks(tokens)).mean(dim=1)
        return logits


def standard() -> nn.Module:
    """The quickstart's undefended network, `mnist_cnn.onnx`."""
    return convolutional("mnist_cnn")


def robust() -> nn.Module:
    """The quickstart's robust network, `mnist_cnn_robust.onnx`: adversarially trained, linf 0.3."""
    return convolutional("mnist_cnn_robust")


def surrogate() -> nn.Module:
    """The quickstart's source of transfer attacks, `mnist_mlp.safetensors`."""
    return undefended()


def linear() -> nn.Module:
    """Ridge regression on pixels, one layer: every attack has an exact answer here."""
    x, y = digits()
    layer = ridge(x.flatten(1), y, LINEAR_PENALTY, LINEAR_SCALE)
    return frozen(nn.Sequential(nn.Flatten(), layer))


def lipschitz() -> nn.Module:
    """A 1-Lipschitz network in l2: no attack of l2 norm below margin / sqrt(2) changes a decision.

    Its margins are small: half a unit to two.
    """
    return copy.deepcopy(_lipschitz())


def vit() -> nn.Module:
    """A transformer of 20,000 weights, trained on the embedded digits."""
    return copy.deepcopy(_vit())


@cache
def _lipschitz() -> nn.Module:
    x, y = digits()
    with _own_random_numbers():
        layers = [nn.Linear(SIDE**2, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)]

        def logits() -> Tensor:
            h = x.flatten(1)
            for layer in layers:
                h = MaxMin()(h) if layer is not layers[0] else h
                h = nn.functional.linear(h, orthonormal(layer.weight, BJORCK_STEPS), layer.bias)
            return LIPSCHITZ_SHARPNESS * h

        weights = [weight for layer in layers for weight in layer.parameters()]
        optimiser = torch.optim.Adam(weights, lr=LIPSCHITZ_RATE)
        for _ in range(LIPSCHITZ_STEPS):
            _descend(optimiser, nn.functional.cross_entropy(logits(), y))
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(orthonormal(layer.weight, BJORCK_FINAL_STEPS))
            layer.weight.div_(torch.linalg.matrix_norm(layer.weight, ord=2).clamp_min(1))
    first, second, last = layers
    return frozen(nn.Sequential(nn.Flatten(), first, MaxMin(), second, MaxMin(), last))


@cache
def _vit() -> nn.Module:
    x, y = digits()
    with _own_random_numbers():
        network = SmallViT()
        optimiser = torch.optim.AdamW(network.parameters(), lr=VIT_RATE)
        steps = EPOCHS * len(x) // BATCH
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, VIT_RATE, total_steps=steps)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(x)).reshape(-1, BATCH):
                _descend(optimiser, nn.functional.cross_entropy(network(x[rows]), y[rows]))
                schedule.step()
    return frozen(network)


def orthonormal(weight: Tensor, steps: int) -> Tensor:
    """Towards the nearest matrix with orthonormal rows; no singular value is above 1.

    Björck and Bowie (1971): W <- 1.5 W - 0.5 W W' W, from a W scaled so that it converges.
    """
    w = weight / (weight @ weight.T).abs().sum(dim=1).max().sqrt()
    for _ in range(steps):
        w = 1.5 * w - 0.5 * w @ w.T @ w
    return w


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Gradients on, and torch's global numbers from a fixed seed; put back at the end."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(SEED)
        yield
