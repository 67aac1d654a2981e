"""Casts, and the types that they give: a quantised value cast to float becomes a float value."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import torch
from onnx import TensorProto
from torch import Tensor

from .precision import type_name
from .quant import RANGES, is_float8, rounded_float8
from .table import Kernel, Node, is_float, op

FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_MASKS: dict[int, int] = {TensorProto.UINT16: 0xFFFF, TensorProto.UINT32: 0xFFFFFFFF}


def _target(node: Node) -> int | None:
    return node.integer("to") if node.op == "Cast" else None


def cast_tag(node: Node) -> int | None:
    """The tag behind a cast: integers made of a quantised value keep standing as floats."""
    source, target = node.tags[0], _target(node)
    if source is None:
        return None
    if target is None:
        raise node.refuse("the type that a quantised value is cast to is not known")
    return None if target in FLOATS else target


@op("Cast", tag=cast_tag)
def cast(node: Node) -> Kernel:
    """x as another element type; float to integer drops the fraction."""
    target = _target(node)
    assert target is not None
    if node.tags and node.tags[0] is not None:
        if target in FLOATS:
            return lambda x: x.to(node.precision.of(target))
        return lambda x: x
    return _to(node, target)


def _to(node: Node, target: int) -> Callable[[Tensor], Tensor]:
    if is_float8(target):
        saturate = bool(node.integer("saturate", 1))
        return lambda x: rounded_float8(x.to(torch.float32), target, saturate=saturate)
    node.precision.of(target)
    return lambda x: _as_type(x, node.precision.of(target), target)


def _as_type(x: Tensor, dtype: torch.dtype, target: int) -> Tensor:
    if target in _NARROW:
        low, high = RANGES[target]
        span = high - low + 1
        wrapped: Tensor = (x.to(torch.int64) - low) % span + low
        return wrapped.to(dtype)
    if target in _MASKS and (is_float(x) or x.dtype != torch.bool):
        return (x.to(torch.int64) & _MASKS[target]).to(dtype)
    return x.to(dtype)


_NARROW = {TensorProto.INT4, TensorProto.UINT4, TensorProto.INT2, TensorProto.UINT2}


@op("CastLike")
def cast_like(node: Node) -> Kernel:
    """x in the element type of another tensor."""
    target = node.elem(1)
    if target is None:
        return lambda x, like: x.to(like.dtype)
    run = _to(node, target)
    return lambda x, _: run(x)


@op("BitCast")
def bit_cast(node: Node) -> Kernel:
    """The same bits read as another type of the same width."""
    target = node.integer("to")
    source = node.elem(0)
    if (
        target not in _SAME_BITS
        or (source or target) not in _SAME_BITS
        or node.precision.override is not None
    ):
        raise node.refuse(f"bits cannot be read as {type_name(target)} here")
    return lambda x: x.view(node.precision.of(target))


_SAME_BITS = {
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.INT8,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.UINT8,
    TensorProto.BOOL,
}


@op("Constant")
def constant(node: Node) -> Kernel:
    """A number or a list of numbers written into the graph (tensors are read by the compiler)."""
    for attribute in node.attributes.values():
        if attribute.type in _PLAIN:
            dtype = _PLAIN[attribute.type]
            value = onnx.helper.get_attribute_value(attribute)
            made = torch.tensor(value, dtype=dtype).to(node.precision.float_type(dtype))
            return lambda: made
    raise node.refuse("it holds sparse values or text")


_PLAIN = {
    onnx.AttributeProto.FLOAT: torch.float32,
    onnx.AttributeProto.FLOATS: torch.float32,
    onnx.AttributeProto.INT: torch.int64,
    onnx.AttributeProto.INTS: torch.int64,
}
