"""Images, and their values between the pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SNAP = 2.0**20  # places are kept to a millionth of a pixel: the cosine of 90 degrees is not quite 0


def as_images(x: Tensor, attack: str) -> Tensor:
    """x: [n, c, h, w] as it is, [n, h, w] with one channel; shared memory where x is contiguous.

    Raises ValueError for samples that are no images, in the name of `attack`.
    """
    if x.ndim == 4:
        return x
    if x.ndim == 3:
        return x.unsqueeze(1)
    raise ValueError(
        f"{attack} needs images [channels, height, width] or [height, width]; the samples have "
        f"shape {list(x.shape[1:])}: give the data set as images, or leave {attack} out"
    )


def centred(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel from the middle of the image: float64 [1, h, w] each.

    On `like`'s device.
    """
    import torch

    rows = torch.arange(height, dtype=torch.float64, device=like.device) - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float64, device=like.device) - (width - 1) / 2
    down, right = torch.meshgrid(rows, columns, indexing="ij")
    return down.unsqueeze(0), right.unsqueeze(0)


def sampled(x: Tensor, down: Tensor, right: Tensor, *, outside: float | None) -> Tensor:
    """x [n, c, h, w] at places between its pixels, by bilinear interpolation: [n, c, h', w'].

    `down`, `right`: rows and columns from the middle of the image, float64 [n, h', w'] or
    [1, h', w']. `outside`: the value beyond the edges; None: the image goes on mirrored, the row
    or column at the edge itself standing once.
    """
    n, channels, height, width = x.shape
    flat = x.flatten(2) - (outside or 0.0)
    result = flat.new_zeros(())
    for row, from_row in _neighbours(down, height):
        for column, from_column in _neighbours(right, width):
            weight = (from_row * from_column).to(x.dtype)
            if outside is not None:
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                weight = weight * inside
                place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            else:
                place = _mirrored(row, height) * width + _mirrored(column, width)
            index = place.flatten(1).unsqueeze(1).expand(n, channels, -1)
            result = result + weight.flatten(1).unsqueeze(1) * flat.gather(2, index)
    return (result + (outside or 0.0)).view(n, channels, *down.shape[1:])


def _neighbours(offset: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """The two pixels of one axis around each place, int64, with their weights, float64."""
    place = ((offset + (size - 1) / 2) * SNAP).round() / SNAP
    before = place.floor()
    share = place - before
    first = before.long()
    return [(first, 1 - share), (first + 1, share)]


def _mirrored(index: Tensor, size: int) -> Tensor:
    """Pixel of an axis that stands at `index` if 0 .. size - 1 goes on mirrored at both ends."""
    if size == 1:
        return index * 0
    period = 2 * (size - 1)
    folded = index % period
    return folded.minimum(period - folded)
