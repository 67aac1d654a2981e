"""Blur: defocus, frosted glass, motion and zoom."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from .bilinear import centred, sampled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from robustbench_lite import SampleRng

TRUNCATE = 4.0  # deviations after which a Gaussian ends
NEGLIGIBLE = 1e-8  # weight of a kernel that float32 does not notice


def defocus_blur(x: Tensor, rng: SampleRng, *, radius: float, sigma: float) -> Tensor:  # noqa: ARG001
    """Out of focus: the mean over a disc, its edge softened by a Gaussian of deviation `sigma`.

    The image goes on mirrored.
    """
    import torch
    from scipy import ndimage

    soft = ndimage.convolve(x.cpu().numpy(), disc(radius, sigma)[None, None], mode="mirror")
    return torch.from_numpy(soft).to(x)


def disc(radius: float, sigma: float) -> NDArray[np.float64]:
    """Kernel of sum 1, [2r + 1, 2r + 1]: a disc with an edge one pixel wide, softened.

    The published disc is made of whole pixels, which would leave nothing of a radius below 1.
    """
    import numpy as np
    from scipy import ndimage

    reach = math.ceil(radius) + math.ceil(TRUNCATE * sigma)
    places = np.arange(-reach, reach + 1)
    distance = np.hypot(places[:, None], places[None])
    sharp = np.clip(radius + 0.5 - distance, 0, 1)
    soft = ndimage.gaussian_filter(sharp, sigma, mode="constant", truncate=TRUNCATE)
    return cast("NDArray[np.float64]", soft / soft.sum())


def glass_blur(x: Tensor, rng: SampleRng, *, sigma: float, reach: float, rounds: float) -> Tensor:
    """Frosted glass: blurred, pixels exchanged with one less than `reach` away, blurred again.

    Every pixel that has room around it, from the last to the first and in each of the `rounds`,
    changes places with a random one from -reach to reach - 1 rows and columns away.
    """
    import torch

    blurred = blur(x, sigma)
    order = _shuffled(x, rng, max(1, round(reach)), round(rounds))
    index = torch.from_numpy(order).to(x.device).unsqueeze(1).expand(-1, x.shape[1], -1)
    return blur(blurred.flatten(2).gather(2, index).view_as(x), sigma)


def blur(x: Tensor, sigma: float) -> Tensor:
    """x [n, c, h, w] under a Gaussian of deviation `sigma` pixels; the edge goes on as it is."""
    import torch
    from scipy import ndimage

    deviations = (0, 0, sigma, sigma)
    soft = ndimage.gaussian_filter(x.cpu().numpy(), deviations, mode="nearest", truncate=TRUNCATE)
    return torch.from_numpy(soft).to(x)


def _shuffled(x: Tensor, rng: SampleRng, reach: int, rounds: int) -> NDArray[np.int64]:
    """Which pixel stands where in the end, int64 [n, h * w]."""
    import numpy as np

    n, _, height, width = x.shape
    rows, columns = height - 2 * reach, width - 2 * reach
    shifts = rng.integers(-reach, reach, (rounds, max(0, rows), max(0, columns), 2)).cpu().numpy()
    jumps = (shifts * np.array((width, 1))).sum(axis=-1)
    order = np.repeat(np.arange(height * width)[:, None], n, axis=1)
    lanes = np.arange(n)
    for turn in range(rounds):
        for row in range(rows - 1, -1, -1):
            for column in range(columns - 1, -1, -1):
                here = (row + reach + 1) * width + column + reach + 1
                there = here + jumps[:, turn, row, column]
                held = order[here].copy()
                order[here] = order[there, lanes]
                order[there, lanes] = held
    return np.ascontiguousarray(order.T)


def motion_blur(x: Tensor, rng: SampleRng, *, radius: float, sigma: float) -> Tensor:
    """The camera moves along a line, at a random angle of up to 45 degrees either way."""
    return along(x, rng.uniform((), -45.0, 45.0), radius=radius, sigma=sigma)


def along(x: Tensor, angle: Tensor, *, radius: float, sigma: float) -> Tensor:
    """x [n, c, h, w] smeared in the direction `angle` [n], degrees: half a Gaussian, of sum 1.

    One tap for every pixel of the line up to 2 * radius, on the nearest pixel, as ImageMagick's
    motion blur has it; the edge goes on as it is.
    """
    import torch

    n, channels, height, width = x.shape
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(2 * math.ceil(radius) + 1)]
    turn = angle.double().deg2rad().view(-1, 1, 1)
    rows = torch.arange(height, device=x.device).view(1, -1, 1)
    columns = torch.arange(width, device=x.device).view(1, 1, -1)
    flat = x.flatten(2)
    total = torch.zeros_like(flat)
    for i, weight in enumerate(weights):
        share = weight / sum(weights)
        if share < NEGLIGIBLE:
            break
        row = (rows + (i * turn.sin()).round().long()).clamp(0, height - 1)
        column = (columns + (i * turn.cos()).round().long()).clamp(0, width - 1)
        index = (row * width + column).flatten(1).unsqueeze(1).expand(n, channels, -1)
        total += share * flat.gather(2, index)
    return total.view_as(x)


def zoom_blur(x: Tensor, rng: SampleRng, *, count: float, step: float) -> Tensor:  # noqa: ARG001
    """Moving towards the scene: the mean of x and of x enlarged by 1, 1 + step, ... (`count`)."""
    factors = [1 + i * step for i in range(round(count))]
    total = x.clone()
    for factor in factors:
        total += enlarged(x, factor)
    return total / (len(factors) + 1)


def enlarged(x: Tensor, factor: float) -> Tensor:
    """The middle of x [n, c, h, w], `factor` times as large, cut to the same size."""
    down, right = centred(x.shape[2], x.shape[3], x)
    return sampled(x, down / factor, right / factor, outside=None)
