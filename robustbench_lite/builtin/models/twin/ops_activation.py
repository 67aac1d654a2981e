"""Activations: functions of one element with parameters, and the softmax family."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .table import Kernel, Node, op


@op("LeakyRelu")
def leaky_relu(node: Node) -> Kernel:
    """x where positive, else alpha x."""
    alpha = node.number("alpha", 0.01)
    return lambda x: functional.leaky_relu(x, alpha)


@op("Elu")
def elu(node: Node) -> Kernel:
    """x where positive, else alpha (exp(x) - 1)."""
    alpha = node.number("alpha", 1.0)
    return lambda x: functional.elu(x, alpha)


@op("Celu")
def celu(node: Node) -> Kernel:
    """The continuously differentiable Elu."""
    alpha = node.number("alpha", 1.0)
    return lambda x: functional.celu(x, alpha)


@op("Selu")
def selu(node: Node) -> Kernel:
    """The scaled Elu."""
    alpha = node.number("alpha", 1.6732631921768188)
    gamma = node.number("gamma", 1.0507010221481323)
    return lambda x: gamma * functional.elu(x, alpha)


@op("ThresholdedRelu")
def thresholded_relu(node: Node) -> Kernel:
    """x where larger than alpha, else 0."""
    alpha = node.number("alpha", 1.0)
    return lambda x: functional.threshold(x, alpha, 0.0)


@op("HardSigmoid")
def hard_sigmoid(node: Node) -> Kernel:
    """Alpha x + beta, clipped to [0, 1]."""
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0)


@op("Gelu")
def gelu(node: Node) -> Kernel:
    """The Gaussian error linear unit."""
    approximate = node.text("approximate", "none")
    return lambda x: functional.gelu(x, approximate=approximate)


@op("Swish")
def swish(node: Node) -> Kernel:
    """X * sigmoid(alpha x)."""
    alpha = node.number("alpha", 1.0)
    return functional.silu if alpha == 1.0 else lambda x: x * torch.sigmoid(alpha * x)


@op("Shrink")
def shrink(node: Node) -> Kernel:
    """Values nearer to 0 than lambd become 0, the others move by bias towards 0."""
    bias, lambd = node.number("bias"), node.number("lambd", 0.5)

    def run(x: Tensor) -> Tensor:
        zero = torch.zeros_like(x)
        return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero))

    return run


@op("Softmax", "LogSoftmax", since=13)
def softmax(node: Node) -> Kernel:
    """Softmax along one axis."""
    axis = node.integer("axis", -1)
    if node.op == "Softmax":
        return lambda x: torch.softmax(x, axis)
    return lambda x: torch.log_softmax(x, axis)


@op("Softmax", "LogSoftmax", "Hardmax", since=1)
def softmax_flat(node: Node) -> Kernel:
    """Before opset 13: the tensor is flattened to a matrix at `axis`."""
    axis = node.integer("axis", 1)
    soft: Callable[[Tensor, int], Tensor] = torch.softmax
    log_soft: Callable[[Tensor, int], Tensor] = torch.log_softmax
    kernel = {"Softmax": soft, "LogSoftmax": log_soft, "Hardmax": _hardmax}[node.op]

    def run(x: Tensor) -> Tensor:
        rows = math.prod(x.shape[: axis % x.dim() if axis < 0 else axis])
        return kernel(x.reshape(rows, -1), -1).reshape(x.shape)

    return run


def _hardmax(x: Tensor, axis: int) -> Tensor:
    place = torch.argmax(x, dim=axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, place, 1.0)


@op("Hardmax", since=13)
def hardmax(node: Node) -> Kernel:
    """1 at the first largest element along the axis, else 0."""
    axis = node.integer("axis", -1)
    return lambda x: _hardmax(x, axis)


@op("Dropout")
def dropout(node: Node) -> Kernel:
    """The identity: models are judged in inference mode."""
    training = node.const(2)
    if node.has(2) and (training is None or bool(training)):
        raise node.refuse("it runs in training mode, so the output is random")
    if not node.wants(1):
        return lambda x, *_: x
    dtype = torch.bool if node.opset >= 10 else None
    return lambda x, *_: (x, torch.ones_like(x, dtype=dtype))


@op("SwiGLU")
def swiglu(node: Node) -> Kernel:
    """The swish of the gate times the value."""
    alpha = node.number("alpha", 1.0)
    return lambda gate, value: gate * torch.sigmoid(alpha * gate) * value
