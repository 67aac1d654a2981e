"""Pooling of regions of interest."""

from __future__ import annotations

import torch
from torch import Tensor

from .table import Kernel, Node, op


@op("RoiAlign")
def roi_align(node: Node) -> Kernel:
    """The mean or maximum of bilinear samples in each cell of each region.

    With sampling_ratio 0 the number of samples depends on the sizes of the regions, so the
    regions are read back from the device.
    """
    mode, ratio = node.text("mode", "avg"), node.integer("sampling_ratio")
    height, width = node.integer("output_height", 1), node.integer("output_width", 1)
    scale = node.number("spatial_scale", 1.0)
    shifted = node.text("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    if node.opset < 16 and "coordinate_transformation_mode" not in node.attributes:
        shifted = False

    def run(x: Tensor, rois: Tensor, batch: Tensor) -> Tensor:
        made = []
        for region, index in zip(rois, batch.long(), strict=True):
            left, top, right, bottom = (region * scale - (0.5 if shifted else 0.0)).unbind()
            across, down = right - left, bottom - top
            if not shifted:
                across, down = across.clamp(min=1.0), down.clamp(min=1.0)
            taps_y = ratio or max(int(torch.ceil(down / height)), 1)
            taps_x = ratio or max(int(torch.ceil(across / width)), 1)
            y = top + (torch.arange(height * taps_y, device=x.device) + 0.5) * (
                down / height / taps_y
            )
            places = torch.arange(width * taps_x, device=x.device)
            across_at = left + (places + 0.5) * (across / width / taps_x)
            parts = _corners(x[index], y, across_at)
            if mode == "avg":
                made.append(_cells(parts.sum(0), height, width, taps_y, taps_x).mean((2, 4)))
            else:
                made.append(_cells(parts.amax(0), height, width, taps_y, taps_x).amax((2, 4)))
        return torch.stack(made) if made else x.new_zeros(0, x.shape[1], height, width)

    return run


def _cells(x: Tensor, height: int, width: int, taps_y: int, taps_x: int) -> Tensor:
    return x.reshape(x.shape[0], height, taps_y, width, taps_x)


def _corners(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The four weighted neighbours of each (y, x): [4, c, len(y), len(x)]; 0 outside."""
    rows, columns = image.shape[1:]
    inside = ((y >= -1) & (y <= rows))[:, None] & ((x >= -1) & (x <= columns))
    y, x = y.clamp(0, rows - 1), x.clamp(0, columns - 1)
    y0, x0 = y.floor(), x.floor()
    y1, x1 = (y0 + 1).clamp(max=rows - 1), (x0 + 1).clamp(max=columns - 1)
    dy, dx = y - y0, x - x0
    parts = []
    for row, weight_y in ((y0, 1 - dy), (y1, dy)):
        for column, weight_x in ((x0, 1 - dx), (x1, dx)):
            values = image[:, row.long()][:, :, column.long()]
            parts.append(values * (weight_y[:, None] * weight_x) * inside)
    return torch.stack(parts)


@op("MaxRoiPool")
def max_roi_pool(node: Node) -> Kernel:
    """The largest element in each cell of each region, whole elements only."""
    height, width = node.integers("pooled_shape") or [1, 1]
    scale = node.number("spatial_scale", 1.0)

    def run(x: Tensor, rois: Tensor) -> Tensor:
        made = []
        for batch, left, top, right, bottom in rois.tolist():
            x0, y0, x1, y1 = (round(edge * scale) for edge in (left, top, right, bottom))
            plane = x[int(batch)]
            ys = _bounds(y0, max(y1 - y0 + 1, 1), height, plane.shape[1])
            xs = _bounds(x0, max(x1 - x0 + 1, 1), width, plane.shape[2])
            cells = [_largest(plane[:, a:b, c:d]) for a, b in ys for c, d in xs]
            made.append(torch.stack(cells, -1).reshape(-1, height, width))
        return torch.stack(made)

    return run


def _bounds(start: int, length: int, cells: int, size: int) -> list[tuple[int, int]]:
    found = []
    for i in range(cells):
        low, high = start + i * length // cells, start - (-(i + 1) * length // cells)
        found.append((min(max(low, 0), size), min(max(high, 0), size)))
    return found


def _largest(cell: Tensor) -> Tensor:
    return cell.amax((1, 2)) if cell.numel() else cell.new_zeros(cell.shape[0])
