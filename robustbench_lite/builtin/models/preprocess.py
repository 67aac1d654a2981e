"""What stands around a network: preprocessing before it, two columns and logits after it."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor, nn

from robustbench_lite import ModelError

from .parameters import GraphLayout, Output, Preprocessing

IMAGE_RANK = 4
RGB = 3
SMALLEST_PROBABILITY = 1e-38  # its logarithm is finite in float32


class Preprocess(nn.Module):
    """x: [n, *shape] float32 in the data's box -> what the network wants, differentiable.

    Scale, channel order, resize and normalisation as declared, then the layout of the graph.
    """

    def __init__(self, declared: Preprocessing, layout: GraphLayout = "NCHW") -> None:
        super().__init__()
        self.scale = declared.scale
        self.reverse_channels = declared.channels == "bgr"
        side = declared.resize
        self.resize = (side, side) if isinstance(side, int) else side
        self.normalises = declared.mean != 0.0 or declared.std != 1.0
        self.layout: GraphLayout = layout
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", _vector(declared.mean), persistent=False)
        self.register_buffer("std", _vector(declared.std), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The network's input for x; ModelError if the declared steps do not fit its shape."""
        if self.scale != 1.0:
            x = x * self.scale
        if self.reverse_channels:
            if x.ndim != IMAGE_RANK or x.shape[1] != RGB:
                raise _misfit("channels: bgr", "[n, 3, h, w]", x)
            x = x.flip(1)
        if self.resize is not None and x.shape[2:] != self.resize:
            if x.ndim != IMAGE_RANK:
                raise _misfit("resize", "[n, c, h, w]", x)
            x = nn.functional.interpolate(
                x, size=self.resize, mode="bilinear", align_corners=False, antialias=True
            )
        if self.normalises:
            x = (x - _as_channels(self.mean, "mean", x)) / _as_channels(self.std, "std", x)
        return arrange(x, self.layout)


def arrange(x: Tensor, layout: GraphLayout) -> Tensor:
    """x: [n, c, h, w] in the layout of the graph; "NCHW" and "NHW" pass other shapes on."""
    match layout:
        case "NCHW":
            return x
        case "NHW":
            return x.squeeze(1) if x.ndim == IMAGE_RANK else x
        case "flat":
            return x.flatten(1)
        case "NHWC":
            if x.ndim != IMAGE_RANK:
                raise _misfit("layout: NHWC", "[n, c, h, w]", x)
            return x.permute(0, 2, 3, 1)
        case _:
            assert_never(layout)


class Classification(nn.Module):
    """A network with its preprocessing: x [n, *shape] in the data's box -> logits [n, k].

    `own_output(x)` is what the network itself says ([n, k] logits or probabilities).
    """

    def __init__(
        self, preprocess: Preprocess, network: nn.Module, output: Output, num_classes: int
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.network = network
        self.output: Output = output
        self.num_classes = num_classes

    def own_output(self, x: Tensor) -> Tensor:
        """The network's columns, float32 [n, k], one per class."""
        return class_columns(self.network(self.preprocess(x)), self.output, self.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, k]: probabilities come out as their logarithm."""
        return as_logits(self.own_output(x), self.output)


def as_logits(own: Tensor, output: Output) -> Tensor:
    """Scores whose softmax is the network's distribution, from its own output [n, k]."""
    if output == "probabilities":
        return own.clamp_min(SMALLEST_PROBABILITY).log()
    return own


def class_columns(own: object, output: Output, num_classes: int) -> Tensor:
    """A network's raw output as float32 [n, k].

    [n, k, 1, 1] loses its trailing ones; [n] or [n, 1] is the score of the second of two classes
    and becomes (0, z) for logits and (1 - p, p) for probabilities. ModelError for all else.
    """
    if not isinstance(own, Tensor):
        raise ModelError(
            f"the network returns {_kind(own)}; expected one tensor [n, {num_classes}] of class "
            "scores: wrap it so that it returns only these"
        )
    columns = own.float()
    while columns.ndim > 2 and columns.shape[-1] == 1:
        columns = columns.squeeze(-1)
    if columns.ndim == 1:
        columns = columns[:, None]
    if columns.ndim == 2 and columns.shape[1] == 1:
        columns = _two_columns(columns, output)
    if columns.ndim != 2 or columns.shape[1] != num_classes:
        raise ModelError(
            f"the network returns shape {list(own.shape)}; expected [n, {num_classes}] "
            "(num_classes in the suite says how many classes there are)"
        )
    return columns


def _two_columns(second: Tensor, output: Output) -> Tensor:
    match output:
        case "logits":
            first = torch.zeros_like(second)
        case "probabilities":
            first = 1 - second
        case "log-probabilities":
            first = torch.log1p(-second.exp().clamp_max(1.0))
        case _:
            assert_never(output)
    return torch.cat([first, second], dim=1)


def _vector(values: float | tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(-1)


def _as_channels(values: Tensor, name: str, x: Tensor) -> Tensor:
    if len(values) == 1:
        return values
    if x.ndim < 2 or len(values) != x.shape[1]:
        raise _misfit(f"{name} with {len(values)} numbers", f"[n, {len(values)}, ...]", x)
    return values.reshape(-1, *(1,) * (x.ndim - 2))


def _misfit(step: str, expected: str, x: Tensor) -> ModelError:
    return ModelError(f"{step} needs inputs {expected}; the data are {list(x.shape)}")


def _kind(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, dict):
        return f"a dict with the keys {', '.join(map(str, value))}"
    return f"a {type(value).__name__}"
