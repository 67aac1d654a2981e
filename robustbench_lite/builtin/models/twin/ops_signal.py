"""Signal windows, and Fourier transforms that stay real in the graph (last axis re, im)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .table import Host, Kernel, Node, integers, op, within

_TERMS: dict[str, tuple[float, ...]] = {
    "HannWindow": (0.5, 0.5),
    "HammingWindow": (25 / 46, 21 / 46),
    "BlackmanWindow": (0.42, 0.5, 0.08),
}


@op(*_TERMS, host=(0,))
def window(node: Node) -> Kernel:
    """A window of the given length, periodic or symmetric."""
    terms, periodic = _TERMS[node.op], bool(node.integer("periodic", 1))
    target = node.integer("output_datatype", 1)

    def run(size: Host) -> Tensor:
        length = within(integers(size))[0]
        span = length if periodic else length - 1
        place = torch.arange(length, dtype=torch.float64, device=node.precision.device)
        made = torch.zeros_like(place)
        for i, factor in enumerate(terms):
            made = made + (-1) ** i * factor * torch.cos(2 * math.pi * i * place / span)
        return made.to(node.precision.of(target))

    return run


def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x.select(-1, 0)


def _transform(node: Node, forward_axis: Callable[[Host | None], int]) -> Kernel:
    onesided, inverse = bool(node.integer("onesided")), bool(node.integer("inverse"))

    def run(x: Tensor, size: Host | None = None, along: Host | None = None) -> Tensor:
        axis = forward_axis(along)
        values = _complex(x)
        axis = axis % x.dim()
        length = None if size is None else integers(size)[0]
        if inverse and onesided:
            signal: Tensor = torch.fft.irfft(values, length, axis)
            return signal[..., None]
        if inverse:
            return torch.view_as_real(torch.fft.ifft(values, length, axis))
        if onesided:
            made = torch.fft.fft(values, length, axis)
            return torch.view_as_real(made.narrow(axis, 0, made.shape[axis] // 2 + 1))
        return torch.view_as_real(torch.fft.fft(values, length, axis))

    return run


@op("DFT", since=17, host=(1,))
def dft_17(node: Node) -> Kernel:
    """The discrete Fourier transform along the axis of an attribute."""
    axis = node.integer("axis", 1)
    return _transform(node, lambda _: axis)


@op("DFT", since=20, host=(1, 2))
def dft(node: Node) -> Kernel:
    """The discrete Fourier transform along the axis of an input."""
    return _transform(node, lambda along: -2 if along is None else integers(along)[0])


@op("STFT", host=(1, 3))
def stft(node: Node) -> Kernel:
    """The Fourier transform of overlapping frames of a signal."""
    onesided = bool(node.integer("onesided", 1))

    def run(
        x: Tensor, step: Host, shape: Tensor | None = None, length: Host | None = None
    ) -> Tensor:
        size = integers(length)[0] if length is not None else len(shape) if shape is not None else 0
        frames = _complex(x if x.dim() == 3 else x[..., None]).unfold(1, size, integers(step)[0])
        made = torch.fft.fft(frames if shape is None else frames * shape)
        if onesided:
            made = made[..., : size // 2 + 1]
        return torch.view_as_real(made)

    return run
