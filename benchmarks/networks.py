"""Networks of the benchmarks, with random weights, and their ONNX files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.embedded import nets

SIDE = 32


class Block(nn.Module):
    """A basic residual block."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.short = nn.Conv2d(width, out, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, width, h, w]."""
        y = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        return functional.relu(y + self.short(x))


def resnet() -> nn.Module:
    """A ResNet-20 for 32x32 images."""
    widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    blocks = [Block(width, out, 2 if width != out else 1) for width, out in pairwise(widths)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class Layer(nn.Module):
    """A transformer layer with attention by torch."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, tokens, width]."""
        n, t, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, c))
        made: Tensor = x + self.mlp(self.norm2(x))
        return made


class Vit(nn.Module):
    """A small vision transformer for 32x32 images: 64 patches, 4 layers of width 96."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 65, width) * 0.02)
        self.layers = nn.Sequential(*(Layer(width, 3) for _ in range(4)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, 3, 32, 32]."""
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(y.shape[0], -1, -1), y], 1) + self.places
        made: Tensor = self.head(self.norm(self.layers(y))[:, 0])
        return made


class DenseNet(nn.Module):
    """As many layers and weights as a DenseNet-121."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = (6, 12, 24, 16)
        width = 64
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norms, self.convs = nn.ModuleList(), nn.ModuleList()
        for layers in self.sizes:
            for _ in range(layers):
                self.norms.extend([nn.BatchNorm2d(width), nn.BatchNorm2d(128)])
                self.convs.extend([nn.Conv2d(width, 128, 1), nn.Conv2d(128, 32, 3, padding=1)])
                width += 32
            self.norms.append(nn.BatchNorm2d(width))
            self.convs.append(nn.Conv2d(width, width // 2, 1))
            width //= 2
        self.head = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """x: [n, 3, h, w]."""
        norms, convs = iter(self.norms), iter(self.convs)
        y = self.stem(x)
        for layers in self.sizes:
            for _ in range(layers):
                z = next(convs)(functional.relu(next(norms)(y)))
                y = torch.cat([y, next(convs)(functional.relu(next(norms)(z)))], 1)
            y = next(convs)(functional.relu(next(norms)(y)))
        made: Tensor = self.head(y.mean((2, 3)))
        return made


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "CNN": (nets.cnn, (1, nets.SIDE, nets.SIDE)),
    "ResNet": (resnet, (3, SIDE, SIDE)),
    "ViT": (Vit, (3, SIDE, SIDE)),
    "DenseNet": (DenseNet, (3, 8, 8)),
}


def network(name: str) -> nn.Module:
    """The network with seeded weights, in eval mode, without gradients of its own."""
    torch.manual_seed(0)
    return NETWORKS[name][0]().eval().requires_grad_(requires_grad=False)


def images(name: str, n: int) -> Tensor:
    """Uniform inputs for it, float32 [n, *shape] in [0, 1]."""
    return torch.rand(n, *NETWORKS[name][1], generator=torch.Generator().manual_seed(1))


def export(name: str, path: Path) -> Path:
    """Its ONNX file at opset 17 with a free batch axis."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network(name),
            (images(name, 2),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        )
    return path


class _Images(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, images: NDArray[np.float32]) -> None:
        self._rest: Iterator[NDArray[np.float32]] = iter([images])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch."""
        found = next(self._rest, None)
        return None if found is None else {"x": found}


def quantise(name: str, source: Path, path: Path) -> Path:
    """The file in 8 bits, QDQ, per tensor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        reader = _Images(images(name, 16).numpy())
        quantize_static(
            source, path, reader, quant_format=QuantFormat.QDQ, weight_type=QuantType.QInt8
        )
        logging.disable(logging.NOTSET)
    return path
