"""Quantised operators. Values of quantised types are float tensors; see `quant` for gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from onnx import TensorProto
from torch import Tensor

from .precision import type_name
from .quant import RANGES, fake_quantised, is_float8, quantised, rounded_float8
from .table import OWN, Kernel, Node, op

MICROSOFT = "com.microsoft"


def target_type(node: Node, zero: int) -> int:
    """The element type that a node quantises to: that of its zero point, uint8 without one."""
    asked = node.integer("output_dtype")
    found = asked or node.elem(zero) or _by_const(node.const(zero))
    if not is_float8(found) and found not in RANGES:
        raise node.refuse(f"quantisation to {type_name(found)} is not supported")
    return found


def _by_const(zero: Tensor | None) -> int:
    if zero is not None and zero.dtype == torch.int8:
        return TensorProto.INT8
    return TensorProto.UINT8


def along(values: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """Scales or zero points so that they broadcast against x: one, one per slice, or blocks."""
    if values.numel() == 1 and not block:
        return values.reshape(())
    if block:
        return values.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.reshape(shape)


@op("QuantizeLinear", tag=lambda node: target_type(node, 2))
@op("QuantizeLinear", domain=MICROSOFT, tag=lambda node: target_type(node, 2))
def quantize_linear(node: Node) -> Kernel:
    """clamp(round(x/s) + z) with the straight-through gradient."""
    axis, block = node.integer("axis", 1), node.integer("block_size")
    target, saturate = target_type(node, 2), bool(node.integer("saturate", 1))

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        x = x / along(scale, x, axis, block).to(x.dtype)
        if is_float8(target):
            return rounded_float8(x, target, saturate=saturate)
        if zero is not None:
            zero = along(zero, x, axis, block).to(x.dtype)
        return quantised(x, target, zero)

    return run


@op("DequantizeLinear", tag=lambda _: None)
@op("DequantizeLinear", domain=MICROSOFT, tag=lambda _: None)
def dequantize_linear(node: Node) -> Kernel:
    """(x - z) s."""
    axis, block = node.integer("axis", 1), node.integer("block_size")

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        if zero is not None:
            zero = along(zero, x, axis, block)
            x = x - zero if x.is_floating_point() else x.int() - zero.int()
        return x.to(scale.dtype) * along(scale, x, axis, block)

    return run


@op("FakeQuantize", domain=OWN, tag=lambda _: None)
def fake_quantize(node: Node) -> Kernel:
    """A QuantizeLinear and its DequantizeLinear in one."""
    axis, target = node.integer("axis", 1), target_type(node, 2)
    low, high = RANGES[target]
    zero = node.const(2)
    if zero is None or zero.numel() == 1:
        shift = 0 if zero is None else int(zero)
        bounds = float(low - shift), float(high - shift)
        return lambda x, scale, _=None: fake_quantised(x, along(scale, x, axis, 0), *bounds)

    def run(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        each, shift = along(scale, x, axis, 0), along(zero, x, axis, 0).to(x.dtype)
        return (quantised(x / each, target, shift) - shift) * each

    return run


@op("DynamicQuantizeLinear", tag=lambda _: (TensorProto.UINT8, None, TensorProto.UINT8))
def dynamic_quantize_linear(node: Node) -> Kernel:
    """x in uint8 with the scale and zero point of its own range; both count as constants."""
    del node

    def run(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            low, high = (bound.to(x.dtype) for bound in x.aminmax())
            low, high = low.clamp(max=0.0), high.clamp(min=0.0)
            scale = (high - low) / 255
            scale = torch.where(scale == 0, 1.0, scale)
            zero = torch.round(torch.clamp(-low / scale, 0, 255))
        return quantised(x / scale, TensorProto.UINT8, zero), scale, zero

    return run


def centred(x: Tensor, zero: Tensor | None, axis: int | None = None) -> Tensor:
    """x - z as floats; z is one number, or one per slice along `axis`."""
    dtype = x.dtype if x.is_floating_point() else torch.float32
    x = x.to(dtype)
    if zero is None:
        return x
    return x - zero.to(dtype) if axis is None else x - along(zero.to(dtype), x, axis, 0)


def _left(a: Tensor, zero: Tensor | None) -> Tensor:
    if zero is None or zero.dim() != 1 or zero.numel() == 1:
        return centred(a, None if zero is None else zero.reshape(()) if zero.dim() < 2 else zero)
    return centred(a, zero, a.dim() - 2)


@op("MatMulInteger", tag=lambda _: TensorProto.INT32)
def matmul_integer(node: Node) -> Kernel:
    """(A - za) @ (B - zb)."""
    del node

    def run(
        a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
    ) -> Tensor:
        return torch.matmul(_left(a, a_zero), centred(b, b_zero))

    return run


@op("QLinearMatMul", tag=lambda node: target_type(node, 7))
def qlinear_matmul(node: Node) -> Kernel:
    """The product of two quantised matrices, quantised."""
    target = target_type(node, 7)

    def run(
        a: Tensor,
        a_scale: Tensor,
        a_zero: Tensor,
        b: Tensor,
        b_scale: Tensor,
        b_zero: Tensor,
        y_scale: Tensor,
        y_zero: Tensor,
    ) -> Tensor:
        if a_scale.dim() == 1 and a_scale.numel() > 1:
            a_scale = a_scale[:, None]
        product = torch.matmul(_left(a, a_zero), centred(b, b_zero))
        return requantised(product, a_scale * b_scale / y_scale, target, y_zero)

    return run


def requantised(total: Tensor, factor: Tensor, target: int, zero: Tensor | None) -> Tensor:
    """An integer accumulator (as float) brought to the scale of the output."""
    shift = None if zero is None else zero.reshape(()).to(total.dtype)
    return quantised(total * factor.to(total.dtype), target, shift)


@op("QGemm", domain=MICROSOFT, tag=lambda n: target_type(n, 8) if n.has(7) else None)
def qgemm(node: Node) -> Kernel:
    """Alpha A B + C on quantised matrices; the result is float where no output scale is given."""
    alpha = node.number("alpha", 1.0)
    turn_a, turn_b = bool(node.integer("transA")), bool(node.integer("transB"))
    target = target_type(node, 8) if node.has(7) else None

    def run(
        a: Tensor,
        a_scale: Tensor,
        a_zero: Tensor,
        b: Tensor,
        b_scale: Tensor,
        b_zero: Tensor,
        c: Tensor | None = None,
        y_scale: Tensor | None = None,
        y_zero: Tensor | None = None,
    ) -> Tensor:
        left = centred(a, a_zero)
        right = centred(b, b_zero, (0 if turn_b else 1) if b_zero.numel() > 1 else None)
        product = alpha * torch.matmul(left.mT if turn_a else left, right.mT if turn_b else right)
        if c is not None:
            product = product + c.to(product.dtype)
        factor = (a_scale * b_scale).reshape(-1)
        if target is None or y_scale is None:
            return product * factor
        return requantised(product, factor / y_scale, target, y_zero)

    return run


def real(x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """The real number that a quantised value stands for."""
    return centred(x, None if zero is None else zero.reshape(())) * scale.reshape(())


@op("QLinearAdd", "QLinearMul", domain=MICROSOFT, tag=lambda node: target_type(node, 7))
def qlinear_binary(node: Node) -> Kernel:
    """A sum or product of quantised values, quantised."""
    target = target_type(node, 7)
    combine = torch.add if node.op == "QLinearAdd" else torch.mul

    def run(
        a: Tensor,
        a_scale: Tensor,
        a_zero: Tensor | None,
        b: Tensor,
        b_scale: Tensor,
        b_zero: Tensor | None,
        c_scale: Tensor,
        c_zero: Tensor | None = None,
    ) -> Tensor:
        made = combine(real(a, a_scale, a_zero), real(b, b_scale, b_zero))
        return requantised(made, 1.0 / c_scale, target, c_zero)

    return run


def _unary(node: Node) -> Callable[[Tensor], Tensor]:
    if node.op == "QLinearSigmoid":
        return torch.sigmoid
    if node.op == "QLinearSoftmax":
        axis = node.integer("axis", -1)
        return lambda x: torch.softmax(x, axis)
    if node.op == "QLinearLeakyRelu":
        alpha = node.number("alpha", 0.01)
        return lambda x: torch.where(x >= 0, x, alpha * x)
    if node.integer("channels_last"):
        return lambda x: x.mean(dim=tuple(range(1, x.dim() - 1)), keepdim=True)
    return lambda x: x.mean(dim=tuple(range(2, x.dim())), keepdim=True)


@op(
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QLinearLeakyRelu",
    "QLinearGlobalAveragePool",
    domain=MICROSOFT,
    tag=lambda node: target_type(node, 4),
)
def qlinear_unary(node: Node) -> Kernel:
    """A function of one quantised value, quantised."""
    target, function = target_type(node, 4), _unary(node)

    def run(
        x: Tensor,
        x_scale: Tensor,
        x_zero: Tensor | None,
        y_scale: Tensor,
        y_zero: Tensor | None = None,
    ) -> Tensor:
        made = function(real(x, x_scale, x_zero))
        return requantised(made, 1.0 / y_scale, target, y_zero)

    return run


@op("QLinearConcat", domain=MICROSOFT, tag=lambda node: target_type(node, 1))
def qlinear_concat(node: Node) -> Kernel:
    """Quantised tensors of different scales behind each other, in one scale."""
    axis, target = node.integer("axis"), target_type(node, 1)

    def run(y_scale: Tensor, y_zero: Tensor, *rest: Tensor) -> Tensor:
        parts = [real(*rest[i : i + 3]) for i in range(0, len(rest), 3)]
        return requantised(torch.cat(parts, axis), 1.0 / y_scale, target, y_zero)

    return run
