"""Operators that read or write elements by index, and those whose result shape is data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .table import Host, Kernel, Node, integers, op, within


def _wrapped(index: Tensor, length: int) -> Tensor:
    """Indices with negative ones counted from the end."""
    index = index.long()
    return torch.where(index < 0, index + length, index)


@op("Gather", quant="keep")
def gather(node: Node) -> Kernel:
    """Slices of x along an axis, at the indices given."""
    axis = node.integer("axis")
    known = node.const(1)
    if known is not None and known.numel() == 1 and known.dim() <= 1:
        place, keeps = int(known), known.dim() == 1

        def pick(x: Tensor, _: Tensor) -> Tensor:
            found = x.select(axis, place)
            return found.unsqueeze(axis) if keeps else found

        return pick

    def run(x: Tensor, index: Tensor) -> Tensor:
        along = axis % x.dim()
        flat = _wrapped(index.reshape(-1), x.shape[along])
        shape = [*x.shape[:along], *index.shape, *x.shape[along + 1 :]]
        return x.index_select(along, flat).reshape(shape)

    return run


@op("GatherElements", quant="keep")
def gather_elements(node: Node) -> Kernel:
    """One element of x for each index, along an axis."""
    axis = node.integer("axis")
    return lambda x, index: torch.gather(x, axis, _wrapped(index, x.shape[axis]))


@op("GatherND", quant="keep")
def gather_nd(node: Node) -> Kernel:
    """Slices of x at index tuples, behind batch_dims shared axes."""
    batch = node.integer("batch_dims")

    def run(x: Tensor, index: Tensor) -> Tensor:
        return x[_tuples(x, index, batch)]

    return run


def _tuples(x: Tensor, index: Tensor, batch: int) -> tuple[Tensor, ...]:
    parts = [_wrapped(index[..., i], x.shape[batch + i]) for i in range(index.shape[-1])]
    rank = index.dim() - 1
    shared = [
        torch.arange(x.shape[i], device=x.device).reshape(
            [-1 if j == i else 1 for j in range(rank)]
        )
        for i in range(batch)
    ]
    return (*shared, *parts)


_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@op("Scatter", "ScatterElements", quant="keep")
def scatter_elements(node: Node) -> Kernel:
    """x with elements along an axis replaced by, or combined with, the updates."""
    axis, reduction = node.integer("axis"), node.text("reduction", "none")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        place = _wrapped(index, x.shape[axis])
        if reduction == "none":
            return torch.scatter(x, axis, place, updates)
        return torch.scatter_reduce(x, axis, place, updates, _REDUCE[reduction])

    return run


@op("ScatterND", quant="keep")
def scatter_nd(node: Node) -> Kernel:
    """x with slices at index tuples replaced by, or combined with, the updates."""
    reduction = node.text("reduction", "none")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        if reduction == "none":
            return x.index_put(_tuples(x, index, 0), updates)
        depth = index.shape[-1]
        head, tail = x.shape[:depth], x.shape[depth:]
        flat = torch.zeros(index.shape[:-1], dtype=torch.long, device=x.device)
        for i, length in enumerate(head):
            flat = flat * length + _wrapped(index[..., i], length)
        rows = x.reshape(-1, *tail)
        source = updates.reshape(-1, *tail)
        place = flat.reshape(-1, *[1] * len(tail)).expand_as(source)
        return torch.scatter_reduce(rows, 0, place, source, _REDUCE[reduction]).reshape(x.shape)

    return run


@op("TensorScatter", quant="keep")
def tensor_scatter(node: Node) -> Kernel:
    """A cache with an update written at an offset per sample."""
    axis, circular = node.integer("axis", -2), node.text("mode", "linear") == "circular"

    def run(cache: Tensor, update: Tensor, offsets: Tensor | None = None) -> Tensor:
        along = axis % cache.dim()
        length = update.shape[along]
        place = torch.arange(length, device=cache.device).expand(cache.shape[0], length)
        if offsets is not None:
            place = place + offsets.long()[:, None]
        if circular:
            place = place % cache.shape[along]
        shape = [1] * cache.dim()
        shape[0], shape[along] = place.shape
        return torch.scatter(cache, along, place.reshape(shape).expand(update.shape), update)

    return run


@op("OneHot", host=(1,), quant="refuse")
def one_hot(node: Node) -> Kernel:
    """One value at the index, another elsewhere, along a new axis."""
    axis = node.integer("axis", -1)

    def run(index: Tensor, depth: Host, values: Tensor) -> Tensor:
        length = integers(depth)[0]
        within([*index.shape, length])
        place = index.long() % length
        valid = (index >= -length) & (index < length)
        hits = (place.unsqueeze(axis) == _along(length, axis, index)) & valid.unsqueeze(axis)
        return torch.where(hits, values[1], values[0])

    return run


def _along(length: int, axis: int, like: Tensor) -> Tensor:
    rank = like.dim() + 1
    shape = [1] * rank
    shape[axis % rank] = length
    return torch.arange(length, device=like.device).reshape(shape)


@op("NonZero", dynamic=True)
def non_zero(node: Node) -> Kernel:
    """The indices of the elements that are not zero, one row per axis."""
    del node
    return lambda x: torch.nonzero(x).T if x.dim() else torch.nonzero(x[None]).T


@op("Compress", dynamic=True)
def compress(node: Node) -> Kernel:
    """The slices of x along an axis (of x flattened if none) where the condition holds."""
    axis = node.integer("axis") if "axis" in node.attributes else None

    def run(x: Tensor, condition: Tensor) -> Tensor:
        if axis is None:
            x = x.reshape(-1)
        return x.index_select(axis or 0, torch.nonzero(condition).reshape(-1))

    return run


@op("Unique", dynamic=True)
def unique(node: Node) -> Kernel:
    """The different elements, or slices along an axis, and where they are."""
    axis = node.integer("axis") if "axis" in node.attributes else None
    in_order = bool(node.integer("sorted", 1))

    def run(x: Tensor) -> tuple[Tensor, ...]:
        array = x.detach().cpu().numpy()
        values, first, inverse, counts = np.unique(
            array, return_index=True, return_inverse=True, return_counts=True, axis=axis
        )
        inverse = inverse.reshape(-1)
        order = np.arange(len(first)) if in_order else np.argsort(first)
        back = np.argsort(order)
        taken = np.take(values, order, axis=axis or 0)
        made = (taken, first[order], back[inverse], counts[order])
        return tuple(torch.from_numpy(np.ascontiguousarray(part)).to(x.device) for part in made)

    return run


@op("ReverseSequence", quant="keep")
def reverse_sequence(node: Node) -> Kernel:
    """The first elements along the time axis of each sample, turned around."""
    batch, time = node.integer("batch_axis", 1), node.integer("time_axis")

    def run(x: Tensor, lengths: Tensor) -> Tensor:
        moved = x.movedim((batch, time), (0, 1))
        step = torch.arange(moved.shape[1], device=x.device)[None]
        limit = lengths.long()[:, None]
        place = torch.where(step < limit, limit - 1 - step, step)
        place = place.reshape(*place.shape, *[1] * (moved.dim() - 2)).expand_as(moved)
        return torch.gather(moved, 1, place).movedim((0, 1), (batch, time))

    return run
