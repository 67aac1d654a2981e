"""Architectures: one file each, untrained networks from images [n, *shape] to scores [n, k].

A file has `build(options, shape, classes)`; it draws its initialisation from torch's generator,
which the trainer seeds. A layer with a number `max_norm` is kept within it after every step, and a
network with a method `start(x, y)` is shown the training data first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .options import Net

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]
_FILES = {
    "softmax": "linear",
    "logistic": "linear",
    "mlp": "mlp",
    "maxout": "maxout",
    "conv-maxout": "conv_maxout",
    "rbf": "rbf",
    "cnn": "cnn",
    "lenet": "lenet",
    "resnet18": "resnet",
}
_SHARED = ("__init__", "layers", "options")


def build(options: Net, shape: Shape, classes: int) -> nn.Module:
    """The untrained network for samples of `shape` and `classes` classes."""
    module = import_module(f".{_FILES[options.name]}", __name__)
    make = cast("Callable[[Net, Shape, int], nn.Module]", module.build)
    return make(options, shape, classes)


def files(options: Net) -> dict[str, Path]:
    """The source files that decide what `build` gives, for content ids."""
    folder = Path(__file__).parent
    return {f"{name}.py": folder / f"{name}.py" for name in (_FILES[options.name], *_SHARED)}


def size(shape: Shape) -> int:
    """Numbers in one sample."""
    return math.prod(shape)
