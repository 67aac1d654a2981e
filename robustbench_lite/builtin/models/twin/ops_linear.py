"""Linear algebra: matrix products, Einsum, determinants."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .ops_quant import MICROSOFT
from .table import Host, Kernel, Node, integers, is_float, op, simple

simple({"MatMul": torch.matmul})


def _gelu(node: Node) -> Kernel:
    del node
    return functional.gelu


op("Gelu", domain=MICROSOFT)(_gelu)


@op("FusedMatMul", domain=MICROSOFT)
def fused_matmul(node: Node) -> Kernel:
    """Alpha times a product of matrices, each turned if asked for."""
    alpha = node.number("alpha", 1.0)
    turn_a, turn_b = bool(node.integer("transA")), bool(node.integer("transB"))
    if node.integer("transBatchA") or node.integer("transBatchB"):
        raise node.refuse("transposed batches are not supported")

    def run(a: Tensor, b: Tensor) -> Tensor:
        made = torch.matmul(a.mT if turn_a else a, b.mT if turn_b else b)
        return made if alpha == 1.0 else alpha * made

    return run


@op("Gemm")
def gemm(node: Node) -> Kernel:
    """Alpha A B + beta C, with A and B turned if asked for."""
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    turn_a, turn_b = bool(node.integer("transA")), bool(node.integer("transB"))

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        left = a.T if turn_a else a
        if alpha == beta == 1.0 and c is not None and c.dim() == 1 and is_float(a):
            return functional.linear(left, b if turn_b else b.T, c)
        made = torch.matmul(left, b.T if turn_b else b)
        made = made if alpha == 1.0 else (alpha * made).to(a.dtype)
        if c is None:
            return made
        return made + (c if beta == 1.0 else (beta * c).to(a.dtype))

    return run


@op("Einsum")
def einsum(node: Node) -> Kernel:
    """A sum of products, in Einstein's notation."""
    equation = node.text("equation").replace(" ", "")

    def run(*values: Tensor) -> Tensor:
        made: Tensor = torch.einsum(equation, *values)
        return made

    return run


@op("Det")
def determinant(node: Node) -> Kernel:
    """The determinants of a stack of matrices."""
    del node
    return lambda x: torch.linalg.det(x)  # noqa: PLW0108  (torch leaves the function untyped)


@op("Col2Im", host=(1, 2))
def col2im(node: Node) -> Kernel:
    """Columns of blocks added up to an image (the inverse of taking patches)."""
    dilations, pads, strides = (node.integers(name) for name in ("dilations", "pads", "strides"))

    def run(x: Tensor, image: Host, block: Host) -> Tensor:
        sizes, kernel = integers(image), integers(block)
        rank = len(sizes)
        steps, gaps = strides or [1] * rank, dilations or [1] * rank
        borders = pads or [0] * 2 * rank
        n, columns, _ = x.shape
        full = [size + borders[i] + borders[i + rank] for i, size in enumerate(sizes)]
        taps = [
            torch.arange(0, size - gap * (k - 1), step, device=x.device)
            + gap * torch.arange(k, device=x.device)[:, None]
            for size, k, step, gap in zip(full, kernel, steps, gaps, strict=True)
        ]
        place = _flat_places(taps, full)
        channels = columns // place.shape[0]
        made = x.new_zeros(n, channels, torch.Size(full).numel())
        source = x.reshape(n, channels, -1)
        made = made.index_add(2, place.reshape(-1), source).reshape(n, channels, *full)
        for axis, size in enumerate(sizes):
            made = made.narrow(2 + axis, borders[axis], size)
        return made

    return run


def _flat_places(taps: list[Tensor], sizes: list[int]) -> Tensor:
    """[product of kernel sizes, product of steps] indices into the flat image."""
    place = torch.zeros((1, 1), dtype=torch.long, device=taps[0].device)
    for tap, size in zip(taps, sizes, strict=True):
        grown = place[:, None, :, None] * size + tap[None, :, None, :]
        place = grown.reshape(place.shape[0] * tap.shape[0], -1)
    return place
