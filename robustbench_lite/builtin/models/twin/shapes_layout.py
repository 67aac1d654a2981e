"""Shape arithmetic on the host: numpy kernels that rearrange sizes and make small arrays."""

from __future__ import annotations

import math

import numpy as np
import onnx

from .ops_shape import slices
from .table import Host, Kernel, Node, integers, on_host, within


@on_host("Squeeze")
def squeeze(node: Node) -> Kernel:
    """Axes of size 1 removed."""
    given = node.integers("axes")

    def run(x: Host, axes: Host | None = None) -> Host:
        wanted = given if axes is None else integers(axes)
        return x.squeeze(None if wanted is None else tuple(wanted))

    return run


@on_host("Unsqueeze")
def unsqueeze(node: Node) -> Kernel:
    """Axes of size 1 added."""
    given = node.integers("axes") or []

    def run(x: Host, axes: Host | None = None) -> Host:
        return np.expand_dims(x, tuple(given if axes is None else integers(axes)))

    return run


@on_host("Transpose")
def transpose(node: Node) -> Kernel:
    """Axes in another order."""
    order = node.integers("perm")
    return lambda x: np.transpose(x, order)


@on_host("Flatten")
def flatten(node: Node) -> Kernel:
    """A matrix, cut at the axis."""
    axis = node.integer("axis", 1)
    return lambda x: x.reshape(math.prod(x.shape[:axis]), -1)


@on_host("Slice")
def cut(node: Node) -> Kernel:
    """A part of an array."""
    before = node.integers("starts") or [], node.integers("ends") or [], node.integers("axes")

    def run(
        x: Host,
        starts: Host | None = None,
        ends: Host | None = None,
        axes: Host | None = None,
        steps: Host | None = None,
    ) -> Host:
        first = before[0] if starts is None else integers(starts)
        last = before[1] if ends is None else integers(ends)
        along = before[2] if axes is None else integers(axes)
        along = list(range(len(first))) if along is None else along
        stride = [1] * len(first) if steps is None else integers(steps)
        parts: list[slice] = [slice(None)] * x.ndim
        for axis, start, end, step in slices(x.shape, first, last, along, stride):
            parts[axis] = slice(start, end if end >= 0 else None, step)
        return x[tuple(parts)]

    return run


@on_host("Split")
def split(node: Node) -> Kernel:
    """Pieces of an array."""
    axis, given = node.integer("axis"), node.integers("split")
    parts = node.integer("num_outputs", len(node.outputs))

    def run(x: Host, sizes: Host | None = None) -> tuple[Host, ...]:
        wanted = given if sizes is None else integers(sizes)
        each = -(-x.shape[axis] // parts)
        cuts = np.cumsum([each] * (parts - 1) if wanted is None else wanted[:-1])
        return tuple(np.split(x, cuts, axis))

    return run


@on_host("Expand")
def expand(node: Node) -> Kernel:
    """Broadcasting to a shape."""
    del node
    return lambda x, to: np.broadcast_to(x, within(np.broadcast_shapes(x.shape, integers(to))))


@on_host("Tile")
def tile(node: Node) -> Kernel:
    """An array repeated."""
    del node

    def run(x: Host, repeats: Host) -> Host:
        counts = integers(repeats)
        within([count * length for count, length in zip(counts, x.shape, strict=True)])
        return np.tile(x, counts)

    return run


@on_host("ConstantOfShape")
def constant_of_shape(node: Node) -> Kernel:
    """An array of one value."""
    value = node.attributes.get("value")
    fill: Host = (
        np.zeros(1, dtype=np.float32) if value is None else onnx.numpy_helper.to_array(value.t)
    )
    return lambda wanted: np.full(within(integers(wanted)), fill.reshape(-1)[0], dtype=fill.dtype)


@on_host("Range")
def arange(node: Node) -> Kernel:
    """Numbers from start to limit."""

    def run(start: Host, limit: Host, delta: Host) -> Host:
        first, last, step = (value.reshape(-1)[0].item() for value in (start, limit, delta))
        if not step:
            raise node.refuse("its step is 0")
        count = within([max(math.ceil((last - first) / step), 0)])[0]
        return np.asarray(first + np.arange(count) * step).astype(start.dtype)

    return run
