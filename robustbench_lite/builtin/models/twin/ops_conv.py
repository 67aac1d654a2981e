"""Convolutions: plain, transposed, deformable, quantised."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from onnx import TensorProto
from torch import Tensor
from torch.nn import functional

from .ops_quant import along, centred, requantised, target_type
from .table import Kernel, Node, op
from .windows import Window, flat, window_of

Convolve = Callable[[Tensor, Tensor, Tensor | None], Tensor]
_CONVS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def convolution(node: Node, weight: int) -> Convolve:
    """The convolution of `node`, whose weights are the input at position `weight`."""
    group = node.integer("group", 1)
    known = node.const(weight)
    kernel = node.integers("kernel_shape") or (None if known is None else list(known.shape[2:]))
    if kernel is not None:
        if len(kernel) not in _CONVS:
            raise node.refuse(f"convolution over {len(kernel)} axes is not supported")
        return _prepared(window_of(node, kernel), group)

    def run(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return _prepared(window_of(node, w.shape[2:]), group)(x, w, b)

    return run


def _prepared(window: Window, group: int) -> Convolve:
    conv = _CONVS[window.rank]
    stride, dilation, even = window.stride, window.dilation, window.even
    if even is not None:
        return lambda x, w, b: conv(x, w, b, stride, even, dilation, group)

    def run(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        padded = functional.pad(x, flat(window.borders(x.shape[2:])))
        return conv(padded, w, b, stride, 0, dilation, group)

    return run


@op("Conv")
def conv(node: Node) -> Kernel:
    """The convolution (cross-correlation) of x with w."""
    run = convolution(node, 1)
    return lambda x, w, b=None: run(x, w, b)


@op("ConvInteger", tag=lambda _: TensorProto.INT32)
def conv_integer(node: Node) -> Kernel:
    """The convolution of (x - zx) with (w - zw)."""
    run = convolution(node, 1)

    def integer(
        x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
    ) -> Tensor:
        axis = None if w_zero is None or w_zero.numel() == 1 else 0
        return run(centred(x, x_zero), centred(w, w_zero, axis), None)

    return integer


@op("QLinearConv", tag=lambda node: target_type(node, 7))
def qlinear_conv(node: Node) -> Kernel:
    """The convolution of quantised values, quantised."""
    run, target = convolution(node, 3), target_type(node, 7)

    def quantised_conv(
        x: Tensor,
        x_scale: Tensor,
        x_zero: Tensor,
        w: Tensor,
        w_scale: Tensor,
        w_zero: Tensor,
        y_scale: Tensor,
        y_zero: Tensor,
        bias: Tensor | None = None,
    ) -> Tensor:
        values = centred(x, x_zero)
        weights = centred(w, w_zero, 0 if w_zero.numel() > 1 else None)
        shift = None if bias is None else bias.to(values.dtype)
        made = run(values, weights, shift)
        factor = along(x_scale * w_scale / y_scale, made, 1, 0)
        return requantised(made, factor, target, y_zero)

    return quantised_conv


@op("ConvTranspose")
def conv_transpose(node: Node) -> Kernel:
    """The transpose of a convolution, cropped or filled up to the size asked for."""
    group = node.integer("group", 1)
    wanted, extra = node.integers("output_shape"), node.integers("output_padding")

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        window = window_of(node, w.shape[2:])
        rank = window.rank
        more = extra or [0] * rank
        full = _TRANSPOSED[rank](x, w, None, window.stride, 0, 0, group, window.dilation)
        sizes = x.shape[2:]
        borders = _crops(window, sizes, more, None if wanted is None else wanted[-rank:])
        made = functional.pad(full, flat([(-low, room - high) for (low, high), room in borders]))
        return made if b is None else made + b.reshape(1, -1, *[1] * rank)

    return run


def _crops(
    window: Window, sizes: Sequence[int], extra: Sequence[int], wanted: Sequence[int] | None
) -> list[tuple[tuple[int, int], int]]:
    """Per axis ((cut in front, cut behind), elements added behind)."""
    found = []
    for axis, size in enumerate(sizes):
        stride, span = window.stride[axis], window.span(axis)
        if wanted is None and window.pads is not None:
            found.append((window.pads[axis], extra[axis]))
            continue
        length = size * stride if wanted is None else wanted[axis]
        total = stride * (size - 1) + extra[axis] + span - length
        small, large = total // 2, total - total // 2
        upper = window.auto == "SAME_UPPER"
        found.append(((small, large) if upper else (large, small), extra[axis]))
    return found


@op("DeformConv")
def deform_conv(node: Node) -> Kernel:
    """A convolution whose taps are displaced by offsets and weighted by a mask (2-D)."""
    group, offset_group = node.integer("group", 1), node.integer("offset_group", 1)

    def run(
        x: Tensor,
        w: Tensor,
        offset: Tensor,
        b: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        if x.dim() != 4:
            raise node.refuse("only images with two spatial axes are supported")
        window = window_of(node, w.shape[2:])
        columns = _displaced(x, offset, mask, window, offset_group)
        n, c, taps, height, width = columns.shape
        parts = columns.reshape(n, group, c // group * taps, height * width)
        weights = w.reshape(group, w.shape[0] // group, -1)
        made = torch.einsum("gok,ngkp->ngop", weights, parts).reshape(n, -1, height, width)
        return made if b is None else made + b.reshape(1, -1, 1, 1)

    return run


def _displaced(
    x: Tensor, offset: Tensor, mask: Tensor | None, window: Window, groups: int
) -> Tensor:
    """x read at the displaced taps: [n, c, taps, height, width]."""
    n, c, rows, columns = x.shape
    taps = window.kernel[0] * window.kernel[1]
    height, width = offset.shape[2:]
    moved = offset.reshape(n, groups, taps, 2, height, width)
    (top, _), (left, _) = window.borders(x.shape[2:])
    place = _regular(window, (height, width), x)
    y = moved[:, :, :, 0] + place[0] - top
    across = moved[:, :, :, 1] + place[1] - left
    grid = torch.stack([across * 2 / max(columns - 1, 1) - 1, y * 2 / max(rows - 1, 1) - 1], -1)
    found = functional.grid_sample(
        x.reshape(n * groups, c // groups, rows, columns),
        grid.reshape(n * groups, taps * height, width, 2),
        align_corners=True,
    )
    found = found.reshape(n, groups, c // groups, taps, height, width)
    if mask is not None:
        found = found * mask.reshape(n, groups, 1, taps, height, width)
    return found.reshape(n, c, taps, height, width)


def _regular(window: Window, sizes: tuple[int, int], like: Tensor) -> Tensor:
    """The undisplaced places of the taps: [2, taps, height, width]."""
    per_axis = []
    for axis, size in enumerate(sizes):
        tap = torch.arange(window.kernel[axis], device=like.device) * window.dilation[axis]
        step = torch.arange(size, device=like.device) * window.stride[axis]
        per_axis.append(tap[:, None] + step)
    y = per_axis[0][:, None, :, None].expand(-1, window.kernel[1], -1, sizes[1])
    x = per_axis[1][None, :, None, :].expand(window.kernel[0], -1, sizes[0], -1)
    return torch.stack([y.flatten(0, 1), x.flatten(0, 1)]).to(like.dtype)
