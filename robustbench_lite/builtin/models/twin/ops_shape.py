"""Operators that move elements without computing: reshape, slice, pad, split, tile, and makers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .table import Host, Kernel, Node, integers, op, within


@op("Shape", to_host=True, quant="read")
def shape(node: Node) -> Kernel:
    """The sizes of x between the axes start and end, as a host array."""
    start = node.integer("start")
    end = node.integer("end") if "end" in node.attributes else None
    return lambda x: np.array(list(x.shape)[start:end], dtype=np.int64)


@op("Size", to_host=True, quant="read")
def size(node: Node) -> Kernel:
    """The number of elements of x, as a host array."""
    del node
    return lambda x: np.array(x.numel(), dtype=np.int64)


@op("Reshape", host=(1,), quant="keep")
def reshape(node: Node) -> Kernel:
    """x with new sizes: -1 is worked out, 0 copies the old size unless allowzero is set."""
    keep_zero = bool(node.integer("allowzero"))
    known = node.const(1)
    fixed = None if known is None else [int(n) for n in known.tolist()]
    if fixed is not None and (keep_zero or 0 not in fixed):
        sizes = fixed
        return lambda x, _: x.reshape(sizes)

    def run(x: Tensor, wanted: Host) -> Tensor:
        new = integers(wanted)
        if not keep_zero:
            new = [x.shape[i] if n == 0 else n for i, n in enumerate(new)]
        return x.reshape(new)

    return run


@op("Flatten", quant="keep")
def flatten(node: Node) -> Kernel:
    """x as a matrix, cut at the axis."""
    axis = node.integer("axis", 1)
    if axis == 1:
        return lambda x: x.flatten(1) if x.dim() > 1 else x.reshape(len(x), -1)

    def run(x: Tensor) -> Tensor:
        place = axis + x.dim() if axis < 0 else axis
        return x.reshape(math.prod(x.shape[:place]), math.prod(x.shape[place:]))

    return run


@op("Squeeze", host=(1,), quant="keep")
def squeeze(node: Node) -> Kernel:
    """x without the axes of size 1 given (all of them if none)."""
    given = node.integers("axes")

    def run(x: Tensor, axes: Host | None = None) -> Tensor:
        wanted = given if axes is None else integers(axes)
        return x.squeeze() if wanted is None else x.squeeze(tuple(wanted))

    return run


@op("Unsqueeze", host=(1,), quant="keep")
def unsqueeze(node: Node) -> Kernel:
    """x with new axes of size 1 at the places that they have in the result."""
    given = node.integers("axes")

    def run(x: Tensor, axes: Host | None = None) -> Tensor:
        wanted = (given or []) if axes is None else integers(axes)
        rank = x.dim() + len(wanted)
        for axis in sorted(axis % rank for axis in wanted):
            x = x.unsqueeze(axis)
        return x

    return run


@op("Transpose", quant="keep")
def transpose(node: Node) -> Kernel:
    """x with its axes in another order (reversed if none is given)."""
    order = node.integers("perm")
    if order is None:
        return lambda x: x.permute(*range(x.dim() - 1, -1, -1)) if x.dim() else x
    return lambda x: x.permute(order)


@op("Concat", quant="keep")
def concat(node: Node) -> Kernel:
    """Several tensors behind each other along an axis."""
    axis = node.integer("axis")
    return lambda *values: torch.cat(values, axis)


@op("Split", host=(1,), quant="keep")
def split(node: Node) -> Kernel:
    """x in pieces along an axis: of given sizes, or as many equal ones as there are outputs."""
    axis, given = node.integer("axis"), node.integers("split")
    parts = node.integer("num_outputs", len(node.outputs))

    def run(x: Tensor, sizes: Host | None = None) -> tuple[Tensor, ...]:
        wanted = given if sizes is None else integers(sizes)
        if wanted is not None:
            return tuple(torch.split(x, wanted, axis))
        length = x.shape[axis]
        each = -(-length // parts)
        return tuple(torch.split(x, [min(each, length - i * each) for i in range(parts)], axis))

    return run


def slices(
    sizes: Sequence[int], starts: list[int], ends: list[int], axes: list[int], steps: list[int]
) -> list[tuple[int, int, int, int]]:
    """(axis, start, end, step) with every number inside the tensor of shape `sizes`.

    A negative step leaves start > end, with end -1 for "to the first element".
    """
    found = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        length = sizes[axis]
        start, end, step = slice(start, end, step).indices(length)
        found.append((axis, start, end, step))
    return found


@op("Slice", host=(1, 2, 3, 4), quant="keep")
def cut(node: Node) -> Kernel:
    """A part of x: ranges along some axes, with steps that may be negative."""
    before = node.integers("starts"), node.integers("ends"), node.integers("axes")

    def run(
        x: Tensor,
        starts: Host | None = None,
        ends: Host | None = None,
        axes: Host | None = None,
        steps: Host | None = None,
    ) -> Tensor:
        first = (before[0] or []) if starts is None else integers(starts)
        last = (before[1] or []) if ends is None else integers(ends)
        along = before[2] if axes is None else integers(axes)
        along = list(range(len(first))) if along is None else along
        stride = [1] * len(first) if steps is None else integers(steps)
        for axis, start, end, step in slices(x.shape, first, last, along, stride):
            x = _cut_axis(x, axis, start, end, step)
        return x

    return run


def _cut_axis(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    if step == 1:
        return x.narrow(axis, start, max(end - start, 0))
    if step > 0:
        places = [slice(None)] * x.dim()
        places[axis] = slice(start, max(end, start), step)
        return x[tuple(places)]
    index = torch.arange(start, end, step, device=x.device) if start > end else None
    return x.narrow(axis, 0, 0) if index is None else x.index_select(axis, index)


@op("Expand", host=(1,), quant="keep")
def expand(node: Node) -> Kernel:
    """x repeated along axes of size 1, by broadcasting with a shape."""
    del node

    def run(x: Tensor, wanted: Host) -> Tensor:
        return x.expand(within(np.broadcast_shapes(x.shape, integers(wanted))))

    return run


@op("Tile", host=(1,), quant="keep")
def tile(node: Node) -> Kernel:
    """x repeated as a whole along each axis."""
    del node

    def run(x: Tensor, repeats: Host) -> Tensor:
        counts = integers(repeats)
        within([count * length for count, length in zip(counts, x.shape, strict=True)])
        return x.repeat(counts)

    return run
