"""Sliding windows: padding, output sizes and the attributes that convolutions and pools share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .table import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The window of one node over `rank` spatial axes.

    `pads` are (low, high) per axis, or None where `auto` ("SAME_UPPER" or "SAME_LOWER") works
    them out from the size of the input.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[tuple[int, int], ...] | None
    auto: str
    ceil: bool

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.kernel)

    @property
    def even(self) -> tuple[int, ...] | None:
        """The padding where it is the same at both ends of each axis, else None."""
        if self.pads is None or any(low != high for low, high in self.pads):
            return None
        return tuple(low for low, _ in self.pads)

    def span(self, axis: int) -> int:
        """The elements between the first and last one that the window touches."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1

    def borders(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """(low, high) padding per axis for an input of `sizes`."""
        if self.pads is not None:
            return list(self.pads)
        found = []
        for axis, size in enumerate(sizes):
            out = -(-size // self.stride[axis])
            total = max((out - 1) * self.stride[axis] + self.span(axis) - size, 0)
            small, large = total // 2, total - total // 2
            found.append((small, large) if self.auto == "SAME_UPPER" else (large, small))
        return found

    def overhang(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """`borders`, with what a last, partial window needs beyond them (ceil_mode)."""
        found = []
        for axis, (low, high) in enumerate(self.borders(sizes)):
            room = sizes[axis] + low + high - self.span(axis)
            steps = math.ceil(room / self.stride[axis]) if self.ceil else room // self.stride[axis]
            if self.ceil and steps * self.stride[axis] >= sizes[axis] + low:
                steps -= 1  # a window that starts in the padding behind the input is left out
            found.append((low, steps * self.stride[axis] + self.span(axis) - sizes[axis] - low))
        return found


def window_of(node: Node, kernel: Sequence[int]) -> Window:
    """The window that the attributes of `node` describe, for a kernel of the sizes given."""
    rank = len(kernel)
    auto = node.text("auto_pad", "NOTSET")
    given = node.integers("pads") or [0] * (2 * rank)
    pads: tuple[tuple[int, int], ...] | None = tuple(zip(given[:rank], given[rank:], strict=True))
    if auto == "VALID":
        pads = ((0, 0),) * rank
    elif auto != "NOTSET":
        pads = None
    return Window(
        kernel=tuple(kernel),
        stride=tuple(node.integers("strides") or [1] * rank),
        dilation=tuple(node.integers("dilations") or [1] * rank),
        pads=pads,
        auto=auto,
        ceil=bool(node.integer("ceil_mode")),
    )


def flat(borders: Sequence[tuple[int, int]]) -> list[int]:
    """`borders` in the order of `torch.nn.functional.pad`: last axis first."""
    return [width for pair in reversed(borders) for width in pair]
