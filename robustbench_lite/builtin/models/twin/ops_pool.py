"""Pooling: maximum, average, p-norm, global, and its inverse."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from .ops_quant import MICROSOFT, real, requantised, target_type
from .table import Host, Kernel, Node, integers, op, widened
from .windows import Window, flat, window_of

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_CONVS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def _window(node: Node) -> Window:
    kernel = node.integers("kernel_shape")
    if kernel is None or len(kernel) not in _MAX:
        raise node.refuse("only one to three spatial axes are supported")
    return window_of(node, kernel)


@op("MaxPool", quant="keep")
def max_pool(node: Node) -> Kernel:
    """The largest element under each window, and where it is if asked for."""
    window, by_columns = _window(node), bool(node.integer("storage_order"))
    pool = _MAX[window.rank]
    kernel, stride, dilation, even = window.kernel, window.stride, window.dilation, window.even

    if even is not None and not window.ceil and not node.wants(1) and _fits(window, even):
        return lambda x: _as(x, pool(widened(x), kernel, stride, even, dilation))

    def run(x: Tensor) -> Tensor | tuple[Tensor, ...]:
        borders = window.overhang(x.shape[2:])
        padded = functional.pad(widened(x), flat(borders), value=-math.inf)
        if not node.wants(1):
            return _as(x, pool(padded, kernel, stride, 0, dilation))
        made, place = pool(padded, kernel, stride, 0, dilation, return_indices=True)
        starts = [low for low, _ in borders]
        return _as(x, made), _places(place, padded, x, starts, by_columns=by_columns)

    return run


def _fits(window: Window, even: tuple[int, ...]) -> bool:
    return all(pad <= size // 2 for pad, size in zip(even, window.kernel, strict=True))


def _as(x: Tensor, made: Tensor) -> Tensor:
    return made if made.dtype == x.dtype else made.to(x.dtype)


def _places(
    place: Tensor, padded: Tensor, x: Tensor, starts: list[int], *, by_columns: bool
) -> Tensor:
    """Indices into the flat, unpadded tensor from indices into each padded plane."""
    parts = []
    for axis in range(len(starts) - 1, -1, -1):
        length = padded.shape[2 + axis]
        parts.append(place % length - starts[axis])
        place = place // length
    if not by_columns:
        parts.reverse()
    sizes = list(x.shape[2:])[:: -1 if by_columns else 1]
    index = torch.zeros_like(place)
    for part, length in zip(parts, sizes, strict=True):
        index = index * length + part
    plane = torch.arange(x.shape[0] * x.shape[1], device=x.device) * math.prod(sizes)
    return index + plane.reshape(*x.shape[:2], *[1] * len(sizes))


def window_sums(x: Tensor, window: Window, borders: list[tuple[int, int]]) -> Tensor:
    """The sum under each window, zeros counted outside x."""
    channels = x.shape[1]
    ones = x.new_ones((1, 1, *window.kernel))
    padded = functional.pad(x, flat(borders)).flatten(0, 1).unsqueeze(1)
    made = _CONVS[window.rank](padded, ones, None, window.stride, 0, window.dilation)
    return made.reshape(-1, channels, *made.shape[2:])


def _average(node: Node) -> Kernel:
    window, with_pads = _window(node), bool(node.integer("count_include_pad"))
    even = window.even
    plain = max(window.dilation) == 1 and not window.ceil
    if window.rank == 2 and even is not None and plain and _fits(window, even):
        kernel, stride, pad = list(window.kernel), list(window.stride), list(even)
        return lambda x: functional.avg_pool2d(x, kernel, stride, pad, count_include_pad=with_pads)

    def run(x: Tensor) -> Tensor:
        sizes = x.shape[2:]
        borders = window.overhang(sizes)
        counted = torch.ones((1, 1, *sizes), dtype=x.dtype, device=x.device)
        rest = borders
        if with_pads:
            # the padding asked for counts as elements, the overhang of ceil_mode does not
            inside = window.borders(sizes)
            inside = [
                (low, min(high, most))
                for (low, high), (_, most) in zip(inside, borders, strict=True)
            ]
            counted = functional.pad(counted, flat(inside), value=1.0)
            rest = [(0, high - used) for (_, high), (_, used) in zip(borders, inside, strict=True)]
        return window_sums(x, window, borders) / window_sums(counted, window, rest)

    return run


@op("AveragePool")
def average_pool(node: Node) -> Kernel:
    """The mean under each window; padding counts where count_include_pad says so."""
    return _average(node)


@op("QLinearAveragePool", domain=MICROSOFT, tag=lambda node: target_type(node, 4))
def qlinear_average_pool(node: Node) -> Kernel:
    """The mean under each window of quantised values, quantised."""
    if node.integer("channels_last"):
        raise node.refuse("channels_last is not supported")
    average, target = _average(node), target_type(node, 4)

    def run(
        x: Tensor,
        x_scale: Tensor,
        x_zero: Tensor | None,
        y_scale: Tensor,
        y_zero: Tensor | None = None,
    ) -> Tensor:
        made = average(real(x, x_scale, x_zero))
        assert isinstance(made, Tensor)
        return requantised(made, 1.0 / y_scale, target, y_zero)

    return run


@op("LpPool")
def lp_pool(node: Node) -> Kernel:
    """The p-norm under each window."""
    window, p = _window(node), node.integer("p", 2)

    def run(x: Tensor) -> Tensor:
        total = window_sums(x.abs() ** p, window, window.overhang(x.shape[2:]))
        return total ** (1.0 / p)

    return run


@op("GlobalAveragePool")
def global_average_pool(node: Node) -> Kernel:
    """The mean of each channel."""
    del node
    return lambda x: x.mean(dim=tuple(range(2, x.dim())), keepdim=True)


@op("GlobalMaxPool", quant="keep")
def global_max_pool(node: Node) -> Kernel:
    """The largest element of each channel."""
    del node
    return lambda x: x.amax(dim=tuple(range(2, x.dim())), keepdim=True)


@op("GlobalLpPool")
def global_lp_pool(node: Node) -> Kernel:
    """The p-norm of each channel."""
    p = node.integer("p", 2)
    return lambda x: torch.linalg.vector_norm(x, p, tuple(range(2, x.dim())), keepdim=True)


@op("MaxUnpool", host=(2,))
def max_unpool(node: Node) -> Kernel:
    """Elements put back to where a MaxPool took them from, zeros elsewhere."""
    window = _window(node)

    def run(x: Tensor, index: Tensor, wanted: Host | None = None) -> Tensor:
        natural = [
            (size - 1) * window.stride[axis] + window.kernel[axis] - sum(pads)
            for axis, (size, pads) in enumerate(
                zip(x.shape[2:], window.borders(x.shape[2:]), strict=True)
            )
        ]
        # indices count in the natural size; a larger output keeps the places, not the indices
        flat_index = index.reshape(-1)
        made = x.new_zeros(math.prod(x.shape[:2]) * math.prod(natural))
        made = made.scatter(0, flat_index, x.reshape(-1)).reshape(*x.shape[:2], *natural)
        if wanted is None:
            return made
        more = [size - now for size, now in zip(integers(wanted)[2:], natural, strict=True)]
        return functional.pad(made, flat([(0, width) for width in more]))

    return run
