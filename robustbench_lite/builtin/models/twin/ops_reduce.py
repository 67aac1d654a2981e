"""Reductions along axes: Reduce*, ArgMax, TopK, cumulative sums, normalisation by a norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .table import Host, Kernel, Node, integers, op

Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % max(x.dim(), 1) for axis in axes), reverse=True):
        x = torch.prod(x, dim=axis, keepdim=keep)
    return x


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.dtype.is_floating_point:
        return torch.mean(x, dim=axes, keepdim=keep)
    return torch.mean(x.double(), dim=axes, keepdim=keep).to(x.dtype)


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.dtype.is_floating_point:
        return torch.logsumexp(x, dim=axes, keepdim=keep)
    return torch.logsumexp(x.double(), dim=axes, keepdim=keep).to(x.dtype)


def _log_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.log(torch.sum(x, dim=axes, keepdim=keep, dtype=x.dtype))


def _norm_2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    values = x if x.dtype.is_floating_point else x.double()
    norm: Tensor = torch.linalg.vector_norm(values, dim=axes, keepdim=keep)
    return norm.to(x.dtype)


def _largest(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.numel() == 0:
        return _of_nothing(x, axes, keep, largest=True)
    if x.dtype == torch.bool:
        return torch.amax(x.to(torch.uint8), dim=axes, keepdim=keep).to(torch.bool)
    return torch.amax(x, dim=axes, keepdim=keep)


def _smallest(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.numel() == 0:
        return _of_nothing(x, axes, keep, largest=False)
    if x.dtype == torch.bool:
        return torch.amin(x.to(torch.uint8), dim=axes, keepdim=keep).to(torch.bool)
    return torch.amin(x, dim=axes, keepdim=keep)


def _of_nothing(x: Tensor, axes: list[int], keep: bool, *, largest: bool) -> Tensor:
    """The extreme of an empty set: minus or plus infinity, or the ends of the integer type."""
    places = {axis % x.dim() for axis in axes}
    shape = [1 if i in places else size for i, size in enumerate(x.shape)]
    if not keep:
        shape = [size for i, size in enumerate(x.shape) if i not in places]
    if x.dtype.is_floating_point:
        return x.new_full(shape, -torch.inf if largest else torch.inf)
    if x.dtype == torch.bool:
        return x.new_full(shape, not largest)
    ends = torch.iinfo(x.dtype)
    return x.new_full(shape, ends.min if largest else ends.max)


_KERNELS: dict[str, Reduce] = {
    "ReduceSum": lambda x, axes, keep: torch.sum(x, dim=axes, keepdim=keep, dtype=x.dtype),
    "ReduceMean": _mean,
    "ReduceMax": _largest,
    "ReduceMin": _smallest,
    "ReduceProd": _product,
    "ReduceL1": lambda x, axes, keep: torch.sum(x.abs(), dim=axes, keepdim=keep, dtype=x.dtype),
    "ReduceL2": _norm_2,
    "ReduceSumSquare": lambda x, axes, keep: torch.sum(
        x * x, dim=axes, keepdim=keep, dtype=x.dtype
    ),
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
}


@op(*_KERNELS, host=(1,))
def reduce(node: Node) -> Kernel:
    """One number for all elements along the axes: an attribute in old opsets, an input in new."""
    kernel = _KERNELS[node.op]
    keep = bool(node.integer("keepdims", 1))
    given = node.integers("axes")
    nothing = bool(node.integer("noop_with_empty_axes"))
    # ReduceSum and others with empty axes still transform each element
    each: Callable[[Tensor], Tensor] = (
        (lambda x: x)
        if node.op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")
        else lambda x: kernel(x[..., None], [-1], False)
    )

    def run(x: Tensor, axes: Host | None = None) -> Tensor:
        wanted = given if axes is None else integers(axes)
        if not wanted:
            if nothing:
                return each(x)
            wanted = list(range(x.dim()))
        return kernel(x, wanted, keep) if x.dim() else kernel(x[None], [0], False)

    return run


@op("ArgMax", "ArgMin", quant="read")
def arg_extreme(node: Node) -> Kernel:
    """The place of the largest or smallest element; the first or the last of equals."""
    axis, keep = node.integer("axis"), bool(node.integer("keepdims", 1))
    last = bool(node.integer("select_last_index"))
    kernel = torch.argmax if node.op == "ArgMax" else torch.argmin

    def run(x: Tensor) -> Tensor:
        if not last:
            return kernel(x, dim=axis, keepdim=keep)
        return x.shape[axis] - 1 - kernel(x.flip(axis), dim=axis, keepdim=keep)

    return run


@op("TopK", host=(1,))
def top_k(node: Node) -> Kernel:
    """The k largest or smallest elements along an axis, and where they are."""
    axis, largest = node.integer("axis", -1), bool(node.integer("largest", 1))
    attribute = node.integer("k")

    def run(x: Tensor, k: Host | None = None) -> tuple[Tensor, Tensor]:
        count = attribute if k is None else integers(k)[0]
        # a stable sort keeps the lower index first among equals, as the standard asks
        order = torch.sort(x, dim=axis, descending=largest, stable=True)
        places = order.indices.narrow(axis, 0, count)
        return order.values.narrow(axis, 0, count), places

    return run


@op("CumSum", "CumProd", host=(1,))
def cumulative(node: Node) -> Kernel:
    """Running sums or products along an axis, from either end, with or without the element."""
    exclusive, backward = bool(node.integer("exclusive")), bool(node.integer("reverse"))
    kernel = torch.cumsum if node.op == "CumSum" else torch.cumprod
    neutral = 0 if node.op == "CumSum" else 1

    def run(x: Tensor, along: Host) -> Tensor:
        axis = integers(along)[0]
        if backward:
            x = x.flip(axis)
        made = kernel(x, axis, dtype=x.dtype)
        if exclusive:
            first = torch.full_like(x.narrow(axis, 0, 1), neutral)
            made = torch.cat([first, made.narrow(axis, 0, x.shape[axis] - 1)], axis)
        return made.flip(axis) if backward else made

    return run


@op("LpNormalization")
def lp_normalization(node: Node) -> Kernel:
    """x divided by its norm along an axis; zero stays zero."""
    axis, p = node.integer("axis", -1), node.integer("p", 2)

    def run(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, ord=p, dim=axis, keepdim=True)
        empty = norm == 0
        return torch.where(empty, torch.zeros_like(x), x / torch.where(empty, 1.0, norm))

    return run


@op("MeanVarianceNormalization")
def mean_variance_normalization(node: Node) -> Kernel:
    """x with mean 0 and variance 1 along the axes; the guard is the standard's 1e-9."""
    axes = node.integers("axes") or [0, 2, 3]

    def run(x: Tensor) -> Tensor:
        centred = x - x.mean(dim=axes, keepdim=True)
        variance = (x * x).mean(dim=axes, keepdim=True) - x.mean(dim=axes, keepdim=True).square()
        return centred / (variance.sqrt() + 1e-9)

    return run
