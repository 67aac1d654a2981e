"""Operators that pad, rearrange in blocks, or make tensors from sizes alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .table import Host, Kernel, Made, Node, integers, op, within


@op("Pad", host=(1, 2, 3), quant="keep")
def pad(node: Node) -> Kernel:
    """x with a border: constant, reflected, the edge repeated, or wrapped around."""
    mode, before = node.text("mode", "constant"), node.integers("pads")
    fill = node.number("value")

    def run(
        x: Tensor, pads: Host | None = None, value: Host | None = None, axes: Host | None = None
    ) -> Tensor:
        widths = (before or []) if pads is None else integers(pads)
        along = list(range(x.dim())) if axes is None else integers(axes)
        number = fill if value is None else value.reshape(-1)[0].item()
        half = len(widths) // 2
        borders = [(0, 0)] * x.dim()
        for axis, low, high in zip(along, widths[:half], widths[half:], strict=True):
            borders[axis] = (low, high)
        return padded(x, borders, mode, number)

    return run


def padded(x: Tensor, borders: Sequence[tuple[int, int]], mode: str, number: float) -> Tensor:
    """x with (low, high) elements more along each axis; negative numbers cut off."""
    within([length + low + high for length, (low, high) in zip(x.shape, borders, strict=True)])
    if mode == "constant":
        flat = [width for pair in reversed(borders) for width in pair]
        return functional.pad(x, flat, value=number)
    for axis, (low, high) in enumerate(borders):
        if low or high:
            length = x.shape[axis]
            place = torch.arange(-low, length + high, device=x.device)
            x = x.index_select(axis, _folded(place, length, mode))
    return x


def _folded(place: Tensor, length: int, mode: str) -> Tensor:
    if mode == "edge":
        return place.clamp(0, length - 1)
    if mode == "wrap":
        return place % length
    if length == 1:
        return torch.zeros_like(place)
    period = 2 * (length - 1)
    place = place % period
    return torch.minimum(place, period - place)


@op("ConstantOfShape", host=(0,))
def constant_of_shape(node: Node) -> Kernel:
    """A tensor of one value (float 0 if none is given)."""
    value = node.tensor("value")
    fill = torch.zeros(1) if value is None else value.reshape(-1)
    dtype = node.precision.float_type(fill.dtype)
    number = fill[0].item()
    precision = node.precision

    def run(wanted: Host) -> Tensor:
        return torch.full(within(integers(wanted)), number, dtype=dtype, device=precision.device)

    return run


@op("Range", host=(0, 1, 2))
def arange(node: Node) -> Kernel:
    """Numbers from start up to limit, by steps of delta."""
    precision = node.precision

    def run(start: Host, limit: Host, delta: Host) -> Tensor:
        first, last, step = (value.reshape(-1)[0].item() for value in (start, limit, delta))
        if not step:
            raise node.refuse("its step is 0")
        count = within([max(math.ceil((last - first) / step), 0)])[0]
        dtype = torch.from_numpy(np.array(start)).dtype
        made: Tensor = first + torch.arange(count, device=precision.device) * step
        return made.to(precision.float_type(dtype))

    return run


@op("EyeLike", quant="read")
def eye_like(node: Node) -> Kernel:
    """Ones on a diagonal of a matrix of the size of x."""
    k, target = node.integer("k"), node.integer("dtype")

    def run(x: Tensor) -> Tensor:
        dtype = node.precision.of(target) if target else x.dtype
        rows, columns = x.shape
        across = (
            torch.arange(columns, device=x.device) - torch.arange(rows, device=x.device)[:, None]
        )
        return (across == k).to(dtype)

    return run


@op("Trilu", host=(1,), quant="keep")
def trilu(node: Node) -> Kernel:
    """The upper or lower triangle of the last two axes."""
    kernel = torch.triu if node.integer("upper", 1) else torch.tril

    def run(x: Tensor, k: Host | None = None) -> Tensor:
        return kernel(x, 0 if k is None else integers(k)[0])

    return run


@op("DepthToSpace", quant="keep")
def depth_to_space(node: Node) -> Kernel:
    """Blocks of channels laid out in the plane: depth first (DCR) or column first (CRD)."""
    block, mode = node.integer("blocksize"), node.text("mode", "DCR")

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if mode == "DCR":
            parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        else:
            parts = x.reshape(n, c // block**2, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
        return parts.reshape(n, c // block**2, h * block, w * block)

    return run


@op("SpaceToDepth", quant="keep")
def space_to_depth(node: Node) -> Kernel:
    """Blocks of the plane laid out as channels, depth first (DCR) or column first (CRD)."""
    block, mode = node.integer("blocksize"), node.text("mode", "DCR")
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, c, h // block, block, w // block, block).permute(order)
        return parts.reshape(n, c * block * block, h // block, w // block)

    return run


@op("CenterCropPad", host=(1,), quant="keep")
def center_crop_pad(node: Node) -> Kernel:
    """x cropped or padded with zeros around its centre to the sizes wanted."""
    axes = node.integers("axes")

    def run(x: Tensor, wanted: Host) -> Made:
        borders = [(0, 0)] * x.dim()
        for axis, length in zip(axes or range(x.dim()), integers(wanted), strict=True):
            more = length - x.shape[axis]
            low = more // 2 if more > 0 else -(-more // 2)
            borders[axis] = (low, more - low)
        return padded(x, borders, "constant", 0.0)

    return run
