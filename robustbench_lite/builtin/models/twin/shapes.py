"""Shape arithmetic on the host: numpy kernels for the operators that exporters use on sizes.

Integers that leave int64 are refused: no real size does, and a wrapped one would ask for an
absurd or negative amount of memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from robustbench_lite import ModelError

from .table import Host, Kernel, Node, integers, on_host

_LIMIT = float(2**63)


def _checked(name: str, compute: Callable[[Host, Host], Host]) -> Kernel:
    """`compute`, with a look at the result in floating point before integers can wrap."""

    def run(a: Host, b: Host) -> Host:
        made = compute(a, b)
        if made.dtype.kind == "i":
            rough = np.asarray(compute(a.astype(np.float64), b.astype(np.float64)))
            if rough.size and float(np.abs(rough).max()) >= _LIMIT:
                raise ModelError(
                    f"the shape arithmetic of the graph overflows int64 in {name} of "
                    f"{a.tolist()} and {b.tolist()}; the file is damaged: export it again"
                )
        return made

    return run


def _divide(a: Host, b: Host) -> Host:
    if a.dtype.kind == "f":
        return np.asarray(np.divide(a, b))
    if not np.all(b):
        raise ModelError("the shape arithmetic of the graph divides by zero")
    return np.asarray(np.trunc(np.divide(a, b))).astype(a.dtype)


_BINARY: dict[str, Callable[[Host, Host], Host]] = {
    "Add": lambda a, b: np.asarray(np.add(a, b)),
    "Sub": lambda a, b: np.asarray(np.subtract(a, b)),
    "Mul": lambda a, b: np.asarray(np.multiply(a, b)),
    "Pow": lambda a, b: np.asarray(np.power(a, b)).astype(a.dtype),
}
_PLAIN: dict[str, Kernel] = {
    "Div": _divide,
    "Min": lambda *values: _fold(np.minimum, values),
    "Max": lambda *values: _fold(np.maximum, values),
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Not": np.logical_not,
    "Where": np.where,
    "Identity": lambda x: x,
    "Abs": np.abs,
    "Neg": np.negative,
    "Sign": np.sign,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.round,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Relu": lambda x: np.maximum(x, 0),
}


def _fold(combine: Callable[[Host, Host], Host], values: tuple[Host, ...]) -> Host:
    made = values[0]
    for value in values[1:]:
        made = combine(made, value)
    return np.asarray(made)


@on_host(*_BINARY)
def binary(node: Node) -> Kernel:
    """Arithmetic that can overflow."""
    return _checked(node.op, _BINARY[node.op])


@on_host(*_PLAIN)
def plain(node: Node) -> Kernel:
    """Operators without attributes."""
    kernel = _PLAIN[node.op]
    return lambda *values: np.asarray(kernel(*values))


@on_host("Mod")
def modulo(node: Node) -> Kernel:
    """The remainder."""
    return np.fmod if node.integer("fmod") else np.mod


@on_host("Clip")
def clip(node: Node) -> Kernel:
    """x between two bounds."""
    low = node.number("min", -math.inf) if node.opset < 11 else None
    high = node.number("max", math.inf) if node.opset < 11 else None

    def run(x: Host, least: Host | None = None, most: Host | None = None) -> Host:
        bounds = low if least is None else least, high if most is None else most
        return x if bounds == (None, None) else np.clip(x, *bounds).astype(x.dtype)  # type: ignore[arg-type]  # bounds of one kind

    return run


@on_host("Cast")
def cast(node: Node) -> Kernel:
    """x as another type."""
    dtype = node.precision.of(node.integer("to"))
    like = torch.zeros(0, dtype=torch.float32 if dtype == torch.bfloat16 else dtype).numpy()
    return lambda x: x.astype(like.dtype)


@on_host("Shape")
def shape(node: Node) -> Kernel:
    """The sizes of a host array."""
    start = node.integer("start")
    end = node.integer("end") if "end" in node.attributes else None
    return lambda x: np.array(x.shape[start:end], dtype=np.int64)


@on_host("Size")
def size(node: Node) -> Kernel:
    """The number of elements of a host array."""
    del node
    return lambda x: np.array(x.size, dtype=np.int64)


@on_host("Concat")
def concat(node: Node) -> Kernel:
    """Arrays behind each other."""
    axis = node.integer("axis")
    return lambda *values: np.concatenate(values, axis)


@on_host("Gather")
def gather(node: Node) -> Kernel:
    """Elements at indices."""
    axis = node.integer("axis")
    return lambda x, index: np.asarray(np.take(x, index.astype(np.int64), axis=axis))


@on_host("Reshape")
def reshape(node: Node) -> Kernel:
    """Another shape."""
    keep_zero = bool(node.integer("allowzero"))

    def run(x: Host, wanted: Host) -> Host:
        new = integers(wanted)
        if not keep_zero:
            new = [x.shape[i] if n == 0 else n for i, n in enumerate(new)]
        return x.reshape(new)

    return run


@on_host("ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin")
def reduce(node: Node) -> Kernel:
    """One number along axes."""
    keep, given = bool(node.integer("keepdims", 1)), node.integers("axes")
    nothing = bool(node.integer("noop_with_empty_axes"))
    kernels: dict[str, Callable[..., Host]] = {
        "ReduceProd": np.prod,
        "ReduceSum": np.sum,
        "ReduceMax": np.max,
        "ReduceMin": np.min,
    }
    kernel = kernels[node.op]

    def run(x: Host, axes: Host | None = None) -> Host:
        wanted = given if axes is None else integers(axes)
        if not wanted and nothing:
            return x
        along = tuple(wanted) if wanted else None
        rough = np.asarray(kernel(np.abs(x.astype(np.float64)), axis=along, keepdims=keep))
        if x.dtype.kind == "i" and rough.size and float(rough.max()) >= _LIMIT:
            raise ModelError(
                f"the shape arithmetic of the graph overflows int64 in {node.op} of "
                f"{x.tolist()}; the file is damaged: export it again"
            )
        return np.asarray(kernel(x, axis=along, keepdims=keep)).astype(x.dtype)

    return run


@on_host("NonZero")
def non_zero(node: Node) -> Kernel:
    """Indices of elements that are not zero."""
    del node
    return lambda x: np.stack(np.nonzero(np.atleast_1d(x)))


@on_host("ScatterND")
def scatter_nd(node: Node) -> Kernel:
    """An array with some elements replaced."""
    if node.text("reduction", "none") != "none":
        raise node.refuse("a reduction on sizes is not supported")

    def run(x: Host, index: Host, updates: Host) -> Host:
        made = np.array(x)
        made[tuple(np.moveaxis(index.astype(np.int64), -1, 0))] = updates
        return made

    return run
