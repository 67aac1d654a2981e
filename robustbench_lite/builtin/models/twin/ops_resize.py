"""Resize and sampling on a grid: every mode of the standard, exact and differentiable.

Resampling along one axis is a matrix product with a matrix that depends on sizes alone; the
common cases take torch's own kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .table import Host, Kernel, Node, integers, op, widened, within

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    """The attributes of one Resize node."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool
    extrapolation: float


def _source(
    how: Resampling, size: int, out: int, scale: float, roi: tuple[float, float]
) -> Doubles:
    """The place in the input that each element of the output is read from."""
    x = np.arange(out, dtype=np.float64)
    kind, single = how.coordinates, out == 1
    offset, step = 0.0, 1.0 / scale  # asymmetric
    if kind == "half_pixel" or (kind == "pytorch_half_pixel" and not single):
        offset = 0.5 / scale - 0.5
    elif kind == "half_pixel_symmetric":
        offset = size / 2 * (1 - out / (scale * size)) + 0.5 / scale - 0.5
    elif kind == "tf_half_pixel_for_nn":
        offset = 0.5 / scale
    elif kind == "align_corners" and not single:
        step = (size - 1) / (out - 1)
    elif kind == "tf_crop_and_resize":
        start, end = roi
        offset = (0.5 * (start + end) if single else start) * (size - 1)
        step = 0.0 if single else (end - start) * (size - 1) / (out - 1)
    return np.asarray(offset + x * step)


def _nearest(how: Resampling, place: Doubles) -> NDArray[np.int64]:
    if how.nearest == "floor":
        found = np.floor(place)
    elif how.nearest == "ceil":
        found = np.ceil(place)
    elif how.nearest == "round_prefer_ceil":
        found = np.floor(place + 0.5)
    else:
        found = np.ceil(place - 0.5)
    return found.astype(np.int64)


def _kernel(how: Resampling, distance: Doubles) -> Doubles:
    """The weight of an input element at a distance, in input elements."""
    d = np.abs(distance)
    if how.mode == "linear":
        return np.asarray(np.maximum(1 - d, 0))
    a = how.cubic
    near: Doubles = ((a + 2) * d - (a + 3)) * d * d + 1
    far: Doubles = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def resampling_matrix(
    how: Resampling, size: int, out: int, scale: float, roi: tuple[float, float]
) -> Doubles:
    """[out, size] weights along one axis; rows outside a crop are NaN (extrapolated)."""
    within([out, size])
    place = _source(how, size, out, scale, roi)
    matrix = np.zeros((out, size))
    rows = np.arange(out)
    if how.mode == "nearest":
        matrix[rows, np.clip(_nearest(how, place), 0, size - 1)] = 1.0
    else:
        stretch = min(scale, 1.0) if how.antialias else 1.0
        reach = math.ceil((1 if how.mode == "linear" else 2) / stretch)
        first = np.floor(place).astype(np.int64) - reach + 1
        for tap in range(2 * reach):
            index = first + tap
            weight = _kernel(how, (index - place) * stretch)
            if how.exclude_outside:
                weight = np.where((index < 0) | (index >= size), 0.0, weight)
            np.add.at(matrix, (rows, np.clip(index, 0, size - 1)), weight)
        if how.antialias or how.exclude_outside:
            matrix /= matrix.sum(1, keepdims=True)
    if how.coordinates == "tf_crop_and_resize":
        matrix[(place < 0) | (place > size - 1)] = np.nan
    return matrix


def _along(x: Tensor, axis: int, matrix: Doubles, how: Resampling) -> Tensor:
    """x resampled along one axis."""
    outside = np.isnan(matrix).any(1)
    if how.mode == "nearest" and not outside.any():
        index = torch.from_numpy(matrix.argmax(1)).to(x.device)
        return x.index_select(axis, index)
    weights = torch.from_numpy(np.nan_to_num(matrix)).to(x.device, x.dtype)
    made: Tensor = torch.tensordot(x, weights, dims=([axis], [1])).movedim(-1, axis)
    if not outside.any():
        return made
    shape = [-1 if i == axis else 1 for i in range(x.dim())]
    closed = torch.from_numpy(outside).to(x.device).reshape(shape)
    return torch.where(closed, made.new_full((), how.extrapolation), made)


def _quick(x: Tensor, out: list[int], scales: list[float], how: Resampling) -> Tensor | None:
    """torch's own kernel where it computes the same (images, linear, nothing special)."""
    exact = all(math.isclose(o, s * n) for o, s, n in zip(out, scales, x.shape, strict=True))
    plain = x.dim() == 4 and out[:2] == list(x.shape[:2]) and x.dtype.is_floating_point
    if not (plain and exact and how.mode == "linear" and not how.antialias):
        return None
    if how.exclude_outside or how.coordinates not in ("half_pixel", "align_corners"):
        return None
    corners = how.coordinates == "align_corners"
    return functional.interpolate(x, out[2:], mode="bilinear", align_corners=corners)


def resized(
    x: Tensor, out: list[int], scales: list[float], roi: list[tuple[float, float]], how: Resampling
) -> Tensor:
    """x with the sizes `out`; `scales` and `roi` (start, end) hold one entry per axis."""
    within(out)
    quick = _quick(x, out, scales, how)
    if quick is not None:
        return quick
    made = widened(x) if how.mode != "nearest" else x
    for axis, (size, scale) in enumerate(zip(out, scales, strict=True)):
        crop = how.coordinates == "tf_crop_and_resize"
        if size != made.shape[axis] or scale != 1.0 or (crop and roi[axis] != (0.0, 1.0)):
            matrix = resampling_matrix(how, made.shape[axis], size, scale, roi[axis])
            made = _along(made, axis, matrix, how)
    return made if made.dtype == x.dtype else made.round().to(x.dtype)


def _how(node: Node) -> Resampling:
    old = node.opset < 11
    return Resampling(
        mode=node.text("mode", "nearest").replace("bilinear", "linear"),
        coordinates="asymmetric"
        if old
        else node.text("coordinate_transformation_mode", "half_pixel"),
        nearest="floor" if old else node.text("nearest_mode", "round_prefer_floor"),
        cubic=node.number("cubic_coeff_a", -0.75),
        exclude_outside=bool(node.integer("exclude_outside")),
        antialias=bool(node.integer("antialias")),
        extrapolation=node.number("extrapolation_value"),
    )


@op("Upsample", host=(1,), quant="keep")
@op("Resize", since=10, host=(1,), quant="keep")
def upsample(node: Node) -> Kernel:
    """Resize before opset 11: scales alone."""
    how, given = _how(node), node.numbers("scales")

    def run(x: Tensor, scales: Host | None = None) -> Tensor:
        wanted = (given or []) if scales is None else [float(s) for s in scales.tolist()]
        out = [math.floor(size * scale) for size, scale in zip(x.shape, wanted, strict=True)]
        return resized(x, out, wanted, [(0.0, 1.0)] * x.dim(), how)

    return run


@op("Resize", since=11, host=(1, 2, 3), quant="keep")
def resize(node: Node) -> Kernel:
    """x resampled to given sizes or by given scales."""
    how, axes = _how(node), node.integers("axes")
    policy = node.text("keep_aspect_ratio_policy", "stretch")

    def run(
        x: Tensor, roi: Host | None = None, scales: Host | None = None, sizes: Host | None = None
    ) -> Tensor:
        along = [axis % x.dim() for axis in (range(x.dim()) if axes is None else axes)]
        factor, out = [1.0] * x.dim(), list(x.shape)
        crop = [(0.0, 1.0)] * x.dim()
        if sizes is not None and sizes.size:
            for axis, size, scale in _to_sizes(x, along, integers(sizes), policy):
                out[axis], factor[axis] = size, scale
        elif scales is not None:
            for axis, scale in zip(along, scales.tolist(), strict=True):
                out[axis], factor[axis] = math.floor(x.shape[axis] * scale), scale
        if roi is not None and roi.size:
            ends = roi.tolist()
            for i, axis in enumerate(along):
                crop[axis] = (ends[i], ends[i + len(along)])
        return resized(x, out, factor, crop, how)

    return run


def _to_sizes(
    x: Tensor, along: list[int], sizes: list[int], policy: str
) -> list[tuple[int, int, float]]:
    """(axis, size, scale) that reach `sizes`, keeping the aspect ratio where asked to."""
    scales = [size / x.shape[axis] for axis, size in zip(along, sizes, strict=True)]
    if policy == "stretch":
        return list(zip(along, sizes, scales, strict=True))
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [(axis, math.floor(x.shape[axis] * scale + 0.5), scale) for axis in along]


@op("GridSample")
def grid_sample(node: Node) -> Kernel:
    """x read at the places of a grid."""
    names = {"linear": "bilinear", "cubic": "bicubic"}
    mode = node.text("mode", "bilinear")
    mode = names.get(mode, mode)
    outside = node.text("padding_mode", "zeros")
    corners = bool(node.integer("align_corners"))
    return lambda x, grid: functional.grid_sample(x, grid, mode, outside, corners)


@op("AffineGrid", host=(1,))
def affine_grid(node: Node) -> Kernel:
    """The grid that an affine map of the plane (or of space) reads at."""
    corners = bool(node.integer("align_corners"))
    return lambda theta, size: functional.affine_grid(theta, within(integers(size)), corners)
