"""Weather: snow, frost, fog and brightness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .corrupt_blur import along, enlarged

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

LUMA = (0.299, 0.587, 0.114)  # grey of red, green and blue (ITU-R BT.601)
SMALLEST = 1e-12  # of a range that is divided by
NEEDLES = 3  # directions of ice needles, 60 degrees apart
SEEDS_OF_ICE = 0.08  # share of the pixels from which a needle grows
NEEDLE = 0.12  # deviation of a needle's length, as a share of the shorter side
HAZE = 0.7  # of white, at its thickest
HAZE_DECAY = 1.6


def snow(
    x: Tensor,
    rng: SampleRng,
    *,
    mean: float,
    deviation: float,
    flake: float,
    threshold: float,
    radius: float,
    sigma: float,
    kept: float,
) -> Tensor:
    """Flakes falling at a random angle, over an image that is bleached by 1 - `kept`.

    Flakes are normal noise (`mean`, `deviation`) enlarged by `flake`, what is below `threshold`
    being none, smeared by motion blur; the same flakes turned by 180 degrees are added.
    """
    height, width = x.shape[2:]
    layer = enlarged(mean + deviation * rng.normal((1, height, width)), max(1.0, flake))
    layer = layer.masked_fill(layer < threshold, 0.0).clamp(0, 1)
    layer = along(layer, rng.uniform((), -135.0, -45.0), radius=radius, sigma=sigma)
    bleached = x.maximum(1.5 * grey(x) + 0.5)
    return kept * x + (1 - kept) * bleached + layer + layer.rot90(2, (2, 3))


def grey(x: Tensor) -> Tensor:
    """Brightness as seen of x [n, 1 or 3, h, w]: [n, 1, h, w]."""
    if x.shape[1] == 1:
        return x
    red, green, blue = (x[:, i : i + 1] * share for i, share in enumerate(LUMA))
    return red + green + blue


def frost(x: Tensor, rng: SampleRng, *, kept: float, ice: float) -> Tensor:
    """`kept` of the image plus that much `ice`: a texture of `frozen`, the same in all channels."""
    return kept * x + ice * frozen(x, rng)


def frozen(x: Tensor, rng: SampleRng) -> Tensor:
    """Ice on a window, [n, 1, h, w] in [0, 1]: a haze with needles in three directions.

    Our own, made of random numbers: the published frost is cut out of photographs.
    """
    import torch
    from torch.nn import functional

    height, width = x.shape[2:]
    seeds = rng.uniform((1, height, width)).sub(1 - SEEDS_OF_ICE).clamp_min(0) / SEEDS_OF_ICE
    seeds = functional.pad(seeds[:, :, 1:-1, 1:-1], (1, 1, 1, 1))  # nothing to go on at the edge
    first = rng.uniform((), 0.0, 360.0)
    length = NEEDLE * min(height, width)
    needles = torch.zeros_like(seeds)
    for i in range(NEEDLES):
        for turn in (60.0 * i, 60.0 * i + 180.0):
            grown = along(seeds, first + turn, radius=2 * length, sigma=length)
            needles = needles.maximum(grown)
    needles = needles / needles.amax((2, 3), keepdim=True).clamp_min(SMALLEST)
    return needles + (1 - needles) * HAZE * plasma(x, rng, HAZE_DECAY)


def fog(x: Tensor, rng: SampleRng, *, thickness: float, decay: float) -> Tensor:
    """A `plasma` fractal times `thickness` is added; the brightest value stays what it was."""
    brightest = x.amax((1, 2, 3), keepdim=True)
    foggy = x + thickness * plasma(x, rng, decay)
    return foggy * brightest / (brightest + thickness)


def plasma(x: Tensor, rng: SampleRng, decay: float) -> Tensor:
    """A random height map from 0 to 1 that repeats at its edges, cut to x's size: [n, 1, h, w].

    Diamond-square: in a grid that is refined again and again, new points are the mean of their
    four neighbours plus uniform noise, whose range falls by decay^2 at every halving.
    """
    height, width = x.shape[2:]
    heights = x.new_zeros((x.shape[0], 1, 1))
    amplitude = 1.0
    while heights.shape[1] < max(height, width):
        heights = _refined(heights, rng, amplitude)
        amplitude /= decay**2
    heights = heights - heights.amin((1, 2), keepdim=True)
    heights = heights / heights.amax((1, 2), keepdim=True).clamp_min(SMALLEST)
    return heights[:, None, :height, :width]


def _refined(heights: Tensor, rng: SampleRng, amplitude: float) -> Tensor:
    """heights [n, k, k] with a new point between every two: [n, 2k, 2k]."""
    n, size, _ = heights.shape
    noise = rng.uniform((3, size, size), -amplitude, amplitude)
    next_row, next_column = heights.roll(-1, 1), heights.roll(-1, 2)
    middle = (heights + next_row + next_column + next_row.roll(-1, 2)) / 4 + noise[:, 0]
    fine = heights.new_empty((n, size, 2, size, 2))
    fine[:, :, 0, :, 0] = heights
    fine[:, :, 1, :, 1] = middle
    fine[:, :, 0, :, 1] = (heights + next_column + middle + middle.roll(1, 1)) / 4 + noise[:, 1]
    fine[:, :, 1, :, 0] = (heights + next_row + middle + middle.roll(1, 2)) / 4 + noise[:, 2]
    return fine.view(n, 2 * size, 2 * size)


def brightness(x: Tensor, rng: SampleRng, *, shift: float) -> Tensor:  # noqa: ARG001
    """The value of HSV (the largest channel) rises by `shift`, up to 1; hue and saturation stay."""
    value = x.amax(1, keepdim=True)
    lighter = (value + shift).clamp_max(1.0)
    return (x * (lighter / value.clamp_min(SMALLEST))).where(value > 0, lighter)
