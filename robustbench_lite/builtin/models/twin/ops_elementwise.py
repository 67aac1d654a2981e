"""Elementwise operators: arithmetic, comparisons, logic, plain functions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .table import Kernel, Node, is_float, op, simple

simple(
    {
        "Abs": torch.abs,
        "Acos": torch.acos,
        "Acosh": torch.acosh,
        "Asin": torch.asin,
        "Asinh": torch.asinh,
        "Atan": torch.atan,
        "Atanh": torch.atanh,
        "Ceil": torch.ceil,
        "Cos": torch.cos,
        "Cosh": torch.cosh,
        "Erf": torch.erf,
        "Exp": torch.exp,
        "Floor": torch.floor,
        "HardSwish": functional.hardswish,
        "IsNaN": torch.isnan,
        "Log": torch.log,
        "Neg": torch.neg,
        "Not": torch.logical_not,
        "Reciprocal": torch.reciprocal,
        "Round": torch.round,
        "Sigmoid": torch.sigmoid,
        "Sign": torch.sign,
        "Sin": torch.sin,
        "Sinh": torch.sinh,
        "Softplus": functional.softplus,
        "Softsign": functional.softsign,
        "Sqrt": torch.sqrt,
        "Tan": torch.tan,
        "Tanh": torch.tanh,
        "Mish": functional.mish,
        "And": torch.logical_and,
        "Or": torch.logical_or,
        "Xor": torch.logical_xor,
        "BitwiseAnd": torch.bitwise_and,
        "BitwiseOr": torch.bitwise_or,
        "BitwiseXor": torch.bitwise_xor,
        "BitwiseNot": torch.bitwise_not,
    }
)
simple(
    {
        "Equal": torch.eq,
        "Greater": torch.gt,
        "GreaterOrEqual": torch.ge,
        "Less": torch.lt,
        "LessOrEqual": torch.le,
    },
    quant="read",
)
simple({"Relu": torch.relu, "Identity": lambda x: x}, quant="keep")


def _div(a: Tensor, b: Tensor) -> Tensor:
    return a / b if is_float(a) else torch.div(a, b, rounding_mode="trunc")


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x >= 0, x, x * slope)


def _where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition, a, b)


simple(
    {
        "Add": torch.add,
        "Sub": torch.sub,
        "Mul": torch.mul,
        "Div": _div,
        "PRelu": _prelu,
        "Where": _where,
    }
)


@op("Pow")
def power(node: Node) -> Kernel:
    """x ** y; the result has the type of x. A constant scalar exponent needs no logarithm."""
    exponent = node.const(1)
    if exponent is not None and exponent.numel() == 1 and exponent.dim() <= 1:
        scalar = float(exponent)
        if scalar == 2.0:
            return lambda x, _: x * x
        return lambda x, _: torch.pow(x, scalar).to(x.dtype)
    return lambda x, y: torch.pow(x, y).to(x.dtype)


@op("Mod")
def modulo(node: Node) -> Kernel:
    """The remainder with the sign of the divisor, or of the dividend (fmod)."""
    return torch.fmod if node.integer("fmod") else torch.remainder


@op("BitShift")
def bit_shift(node: Node) -> Kernel:
    """x shifted by y bits."""
    if node.text("direction") == "LEFT":
        return torch.bitwise_left_shift
    return torch.bitwise_right_shift


def _variadic(combine: Callable[[Tensor, Tensor], Tensor]) -> Kernel:
    def run(*values: Tensor) -> Tensor:
        total = values[0]
        for value in values[1:]:
            total = combine(total, value)
        return total

    return run


@op("Max", "Min", quant="keep")
def extreme(node: Node) -> Kernel:
    """The largest or smallest of several tensors."""
    return _variadic(torch.maximum if node.op == "Max" else torch.minimum)


@op("Sum", "Mean")
def total(node: Node) -> Kernel:
    """The sum or mean of several tensors."""
    if node.op == "Sum":
        return _variadic(torch.add)

    def mean(*values: Tensor) -> Tensor:
        made = values[0]
        for value in values[1:]:
            made = made + value
        return made / len(values)

    return mean


@op("IsInf")
def is_inf(node: Node) -> Kernel:
    """Infinite elements, of the signs asked for."""
    positive, negative = node.integer("detect_positive", 1), node.integer("detect_negative", 1)

    def run(x: Tensor) -> Tensor:
        found = torch.isinf(x)
        if not positive:
            found = found & (x < 0)
        return found if negative else found & (x > 0)

    return run


@op("Clip", quant="keep")
def clip(node: Node) -> Kernel:
    """x between min and max: attributes before opset 11, inputs after."""
    if node.opset < 11:
        low, high = node.number("min", -math.inf), node.number("max", math.inf)
        return lambda x: torch.clamp(x, low, high)
    bounds = [node.const(1), node.const(2)]
    if all(not node.has(1 + i) or bound is not None for i, bound in enumerate(bounds)):
        low_high = [None if bound is None else bound.item() for bound in bounds]
        if all(limit is None or math.isfinite(limit) for limit in low_high) and any(
            limit is not None for limit in low_high
        ):
            lowest, highest = low_high
            return lambda x, *_: torch.clamp(x, lowest, highest)

    def run(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        return x if low is None and high is None else torch.clamp(x, low, high)

    return run
