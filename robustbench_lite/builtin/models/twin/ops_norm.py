"""Normalisation with fixed or measured statistics."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .table import Kernel, Node, op


@op("BatchNormalization")
def batch_normalization(node: Node) -> Kernel:
    """Normalisation of each channel by running statistics."""
    eps = node.number("epsilon", 1e-5)
    if node.integer("training_mode"):
        raise node.refuse("it runs in training mode; export the model in eval mode")
    if not node.integer("spatial", 1):
        raise node.refuse("statistics per element (spatial=0) are not supported")

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        if x.dim() == 1 or mean.requires_grad or variance.requires_grad:
            shape = (1, -1, *[1] * (x.dim() - 2)) if x.dim() > 1 else (-1,)
            scale, bias, mean = (v.reshape(shape) for v in (scale, bias, mean))
            return (x - mean) / torch.sqrt(variance.reshape(shape) + eps) * scale + bias
        return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, eps)

    return run


@op("InstanceNormalization")
def instance_normalization(node: Node) -> Kernel:
    """Normalisation of each channel of each sample by its own statistics."""
    eps = node.number("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        axes = tuple(range(2, x.dim()))
        mean = x.mean(axes, keepdim=True)
        variance = x.var(axes, keepdim=True, correction=0)
        shape = (1, -1, *[1] * (x.dim() - 2))
        made = (x - mean) * torch.rsqrt(variance + eps)
        return made * scale.reshape(shape) + bias.reshape(shape)

    return run


@op("LayerNormalization")
def layer_normalization(node: Node) -> Kernel:
    """Normalisation over the axes from `axis` on, with a scale and a bias."""
    axis, eps = node.integer("axis", -1), node.number("epsilon", 1e-5)
    statistics = node.wants(1) or node.wants(2)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        first = axis % x.dim()
        sizes = list(x.shape[first:])
        if list(scale.shape) == sizes and (bias is None or list(bias.shape) == sizes):
            made = functional.layer_norm(x, sizes, scale, bias, eps)
        else:
            made = functional.layer_norm(x, sizes, None, None, eps) * scale
            made = made if bias is None else made + bias
        if not statistics:
            return made
        axes = tuple(range(first, x.dim()))
        mean = x.mean(axes, keepdim=True)
        return made, mean, torch.rsqrt(x.var(axes, keepdim=True, correction=0) + eps)

    return run


@op("GroupNormalization", since=18)
def group_normalization_18(node: Node) -> Kernel:
    """Normalisation of groups of channels; scale and bias per group."""
    return _group_norm(node, per_group=True)


@op("GroupNormalization", since=21)
def group_normalization(node: Node) -> Kernel:
    """Normalisation of groups of channels; scale and bias per channel."""
    return _group_norm(node, per_group=False)


def _group_norm(node: Node, *, per_group: bool) -> Kernel:
    eps, groups = node.number("epsilon", 1e-5), node.integer("num_groups")

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if per_group:
            each = x.shape[1] // groups
            scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
        return functional.group_norm(x, groups, scale, bias, eps)

    return run


@op("RMSNormalization")
def rms_normalization(node: Node) -> Kernel:
    """x divided by its root mean square over the axes from `axis` on, times a scale."""
    axis, eps = node.integer("axis", -1), node.number("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor) -> Tensor:
        axes = tuple(range(axis % x.dim(), x.dim()))
        return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + eps) * scale

    return run


@op("LRN")
def local_response_normalization(node: Node) -> Kernel:
    """Normalisation by the energy of neighbouring channels."""
    alpha, beta = node.number("alpha", 1e-4), node.number("beta", 0.75)
    bias, size = node.number("bias", 1.0), node.integer("size")
    before = (size - 1) // 2

    def run(x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        energy = functional.pad(x.square().reshape(n, 1, c, -1), (0, 0, before, size - 1 - before))
        mean = functional.avg_pool2d(energy, (size, 1), stride=1).reshape(x.shape)
        return x / (bias + alpha * mean) ** beta

    return run
