"""Quantised values that stand as floats, and the straight-through gradient through rounding.

Rounding has derivative 0 almost everywhere. The straight-through estimator (Bengio et al. 2013,
arXiv:1308.3432) gives it derivative 1 and keeps the derivative 0 of the clipping:
Q = clamp(x/s + (round(x/s) - x/s).detach() + z).
"""

from __future__ import annotations

import torch
from onnx import TensorProto
from torch import Tensor
from torch.autograd.function import FunctionCtx

RANGES: dict[int, tuple[int, int]] = {
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT2: (-2, 1),
    TensorProto.UINT2: (0, 3),
}
"""The smallest and largest integer of each quantised element type."""

_FLOAT8: dict[int, torch.dtype] = {
    TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    TensorProto.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    TensorProto.FLOAT8E5M2: torch.float8_e5m2,
    TensorProto.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
}


class _Round(torch.autograd.Function):
    """Round half to even, move by zero, clip; the gradient passes where nothing was clipped."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, low: float, high: float, zero: Tensor | None
    ) -> Tensor:
        q = torch.round(x)
        if zero is not None:
            q += zero
        ctx.save_for_backward(q)
        ctx.bounds = (low - 0.5, high + 0.5)  # type: ignore[attr-defined]  # a place for values
        return torch.clamp(q, low, high)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _inside(ctx, grad), None, None, None


class _FakeQuantize(torch.autograd.Function):
    """Quantise and dequantise in one: clamp(round(x/s), low, high) s, in few passes over memory."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
        q = torch.div(x, scale).round_()
        if not ctx.needs_input_grad[0]:  # type: ignore[attr-defined]  # torch does not declare it
            return q.clamp_(low, high).mul_(scale)
        ctx.save_for_backward(q)
        ctx.bounds = (low - 0.5, high + 0.5)  # type: ignore[attr-defined]  # a place for values
        return torch.clamp(q, low, high).mul_(scale)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _inside(ctx, grad), None, None, None


def _inside(ctx: FunctionCtx, grad: Tensor) -> Tensor:
    """The gradient where the rounded value was inside the range; integers are never on the edge."""
    (q,) = ctx.saved_tensors  # type: ignore[attr-defined]  # torch does not declare it
    low, high = ctx.bounds  # type: ignore[attr-defined]  # set in forward
    made: Tensor = torch.ops.aten.hardtanh_backward(grad, q, low, high)
    return made


def quantised(x: Tensor, elem_type: int, zero: Tensor | None) -> Tensor:
    """clamp(round(x) + zero), integers as floats; x is divided by the scale already."""
    low, high = RANGES[elem_type]
    made: Tensor = _Round.apply(x, low, high, zero)  # type: ignore[no-untyped-call]  # torch
    return made


def fake_quantised(x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
    """(clamp(round(x/scale) + z) - z) scale, where low and high are the range minus z."""
    made: Tensor = _FakeQuantize.apply(x, scale, low, high)  # type: ignore[no-untyped-call]  # torch
    return made


def rounded_float8(x: Tensor, elem_type: int, *, saturate: bool) -> Tensor:
    """x with the nearest values of an eight-bit float type; straight-through inside its range."""
    dtype = _FLOAT8[elem_type]
    limit = torch.finfo(dtype).max
    inside = torch.clamp(x, -limit, limit) if saturate else x
    near = inside.detach().to(dtype).to(x.dtype)
    if not saturate and elem_type == TensorProto.FLOAT8E4M3FN:
        # torch saturates where the type has no infinity; halfway to the next step is 464
        near = torch.where(x.detach().abs() > 464.0, torch.nan, near)
    if saturate:
        near = torch.where(torch.isfinite(x.detach()) | x.detach().isnan(), near, _far(x, limit))
    return inside + (near - inside.detach()) if x.requires_grad else near


def _far(x: Tensor, limit: float) -> Tensor:
    return torch.sign(x.detach()) * limit


def is_float8(elem_type: int) -> bool:
    """Whether an ONNX element type is one of the eight-bit floats."""
    return elem_type in _FLOAT8
