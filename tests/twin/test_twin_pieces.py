"""Pieces that larger networks are made of, exported and held against onnxruntime and torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.builtin.models.twin import convert

if TYPE_CHECKING:
    from tests.twin.conftest import Zoo


class Piece(nn.Module):
    """A function of an image with a seeded layer, then one number per channel."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor], layer: nn.Module) -> None:
        super().__init__()
        self.function, self.layer = function, layer

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(self.layer, x)
        return y.flatten(2).mean(2) if y.dim() > 2 else y


class Windows(nn.Module):
    """Shifted windows with a mask and a relative position bias, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(3, 12)
        self.bias = nn.Parameter(torch.randn(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.roll(x.permute(0, 2, 3, 1), (-2, -2), (1, 2))
        n, h, w, c = y.shape
        y = y.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        q, k, v = self.qkv(y).chunk(3, -1)
        y = torch.softmax(q @ k.transpose(-2, -1) * 0.5 + self.bias, -1) @ v
        y = y.view(n, h // 4, w // 4, 4, 4, -1).permute(0, 5, 1, 3, 2, 4)
        made: Tensor = y.reshape(n, -1, h, w)
        return made


def _recurrent(layer: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = layer(x.flatten(2).transpose(1, 2))[0]
    return y.transpose(1, 2)


def _mixer(layer: nn.Module, x: Tensor) -> Tensor:
    tokens = x.flatten(2)
    made: Tensor = tokens + torch.einsum("nct,ct->nct", functional.gelu(layer(tokens)), tokens[0])
    return made


PIECES: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], Callable[[], nn.Module]]] = {
    "bilinear": (
        lambda layer, x: functional.interpolate(layer(x), scale_factor=2, mode="bilinear"),
        lambda: nn.Conv2d(3, 4, 3),
    ),
    "bilinear corners": (
        lambda _, x: functional.interpolate(x, (23, 9), mode="bilinear", align_corners=True) ** 2,
        nn.Identity,
    ),
    "bicubic": (lambda _, x: functional.interpolate(x, (24, 20), mode="bicubic") ** 2, nn.Identity),
    "nearest": (lambda _, x: functional.interpolate(x, scale_factor=2) ** 2, nn.Identity),
    "group norm": (lambda layer, x: layer(x).tanh(), lambda: nn.GroupNorm(3, 3)),
    "instance norm": (
        lambda layer, x: layer(x).tanh(),
        lambda: nn.InstanceNorm2d(3, affine=True),
    ),
    "layer norm over channels": (
        lambda layer, x: layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).tanh(),
        lambda: nn.LayerNorm(3),
    ),
    "transposed convolution": (
        lambda layer, x: layer(x).relu(),
        lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
    ),
    "adaptive pool": (lambda _, x: functional.adaptive_avg_pool2d(x, 4) ** 2, nn.Identity),
    "pool with ceil": (
        lambda _, x: (
            functional.max_pool2d(x, 3, 2, ceil_mode=True)
            + functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True).amax((2, 3), keepdim=True)
        ),
        nn.Identity,
    ),
    "pixel shuffle": (
        lambda layer, x: functional.pixel_shuffle(layer(x), 2) ** 2,
        lambda: nn.Conv2d(3, 8, 1),
    ),
    "attention module": (
        lambda layer, x: layer(x.flatten(2), x.flatten(2), x.flatten(2), need_weights=False)[0],
        lambda: nn.MultiheadAttention(256, 4, batch_first=True),
    ),
    "windows": (lambda layer, x: layer(x), Windows),
    "gru": (_recurrent, lambda: nn.GRU(3, 5, batch_first=True)),
    "lstm": (_recurrent, lambda: nn.LSTM(3, 5, batch_first=True, bidirectional=True)),
    "mixer": (_mixer, lambda: nn.Linear(256, 256)),
    "activations": (
        lambda _, x: (
            functional.mish(x)
            + functional.elu(x - 0.5)
            + functional.softplus(x)
            + functional.hardsigmoid(x * 4 - 2)
            + functional.prelu(x - 0.5, torch.tensor([0.2]))
            + functional.gelu(x, approximate="tanh")
        ),
        nn.Identity,
    ),
    "normalised": (
        lambda _, x: functional.normalize((x - 0.45) / torch.tensor(0.2), dim=1),
        nn.Identity,
    ),
    "indexing": (
        lambda _, x: (
            x[:, [2, 0, 1], 1:-1:2, ::3].cumsum(2) * x.topk(2, 3).values.mean((2, 3), True)
        ),
        nn.Identity,
    ),
    "padding": (
        lambda layer, x: layer(functional.pad(x, (1, 2, 3, 0), mode="reflect")),
        lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"),
    ),
}


@pytest.mark.parametrize("opset", [14, 17, 20])
@pytest.mark.parametrize("name", PIECES)
def test_pieces_agree_in_value_and_gradient(zoo: Zoo, name: str, opset: int) -> None:
    function, layer = PIECES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Piece(function, layer()).eval().requires_grad_(requires_grad=False)
    x = zoo.images("cnn", 2)
    model = zoo.export(net, x, opset=opset)
    twin = convert(model)
    wanted = zoo.judge(model)(x)
    assert np.abs(twin(x).detach().numpy() - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert zoo.relative(zoo.gradient(twin, x), zoo.gradient(net, x)) <= 1e-4
