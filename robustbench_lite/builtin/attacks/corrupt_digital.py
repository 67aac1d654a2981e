"""Digital: contrast, elastic transform, pixelate and JPEG."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from .bilinear import centred, sampled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from robustbench_lite import SampleRng

TRUNCATE = 3.0  # deviations after which the elastic transform's Gaussian ends
LEVELS = 255


def contrast(x: Tensor, rng: SampleRng, *, factor: float) -> Tensor:  # noqa: ARG001
    """Every channel is drawn towards its mean: `factor` of the difference is left."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def elastic_transform(
    x: Tensor, rng: SampleRng, *, amplitude: float, sigma: float, affine: float
) -> Tensor:
    """Three points of the image are moved by up to `affine` pixels, then every pixel is displaced.

    The displacement is uniform noise under a Gaussian of deviation `sigma` pixels, times
    `amplitude`. Both resamplings are bilinear; the image goes on mirrored.
    """
    import torch
    from scipy import ndimage

    height, width = x.shape[2:]
    bent = sampled(x, *_bent(x, rng, affine), outside=None)
    noise = rng.uniform((2, height, width), -1.0, 1.0).double().cpu().numpy()
    smooth = ndimage.gaussian_filter(noise, (0, 0, sigma, sigma), mode="reflect", truncate=TRUNCATE)
    shift = torch.from_numpy(smooth).to(x.device) * amplitude
    down, right = centred(height, width, x)
    return sampled(bent, down + shift[:, 0], right + shift[:, 1], outside=None)


def _bent(x: Tensor, rng: SampleRng, reach: float) -> tuple[Tensor, Tensor]:
    """Where each pixel comes from under the affine map that moves three corners of a square.

    The square stands in the middle of the image, its half side is a third of the shorter side.
    """
    import torch

    height, width = x.shape[2:]
    half = min(height, width) // 3
    corners = torch.tensor(((1, 1, 1), (1, -1, 1), (-1, -1, 1))).double().to(x.device)
    fixed = corners * torch.tensor((half, half, 1.0)).to(corners)
    moved = fixed.repeat(x.shape[0], 1, 1)
    moved[:, :, :2] += rng.uniform((3, 2), -reach, reach)
    back = torch.linalg.solve(moved, fixed[:, :2].expand(x.shape[0], 3, 2))
    row, column, constant = back.view(-1, 3, 2, 1, 1).unbind(1)
    down, right = centred(height, width, x)
    source = row * down.unsqueeze(1) + column * right.unsqueeze(1) + constant
    return source[:, 0], source[:, 1]


def pixelate(x: Tensor, rng: SampleRng, *, share: float) -> Tensor:  # noqa: ARG001
    """Shrunk to `share` of both sides and enlarged again, both by Pillow's box filter."""
    from PIL import Image

    height, width = x.shape[2:]
    small = max(1, int(width * share)), max(1, int(height * share))

    def coarse(plane: NDArray[np.float32]) -> Image.Image:
        image = Image.fromarray(plane).resize(small, Image.Resampling.BOX)
        return image.resize((width, height), Image.Resampling.BOX)

    planes = x.flatten(0, 1)
    return _each(planes, coarse).view_as(x)


def jpeg(x: Tensor, rng: SampleRng, *, quality: float) -> Tensor:  # noqa: ARG001
    """Rounded to 8 bits, stored as JPEG of that `quality` and read again, by Pillow."""
    import torch
    from PIL import Image

    def reread(image: NDArray[np.uint8]) -> Image.Image:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=round(quality))
        return Image.open(stream)

    levels = (x * LEVELS).round().to(torch.uint8)
    if x.shape[1] == 1:
        return _each(levels[:, 0], reread).to(x).unsqueeze(1) / LEVELS
    return _each(levels.movedim(1, 3), reread).to(x).movedim(3, 1) / LEVELS


def _each(images: Tensor, change: Callable[..., object]) -> Tensor:
    """Every one of `images` [n, ...] through Pillow."""
    import numpy as np
    import torch

    done = [np.asarray(change(image)) for image in images.cpu().numpy()]
    stacked = np.stack(done) if done else images.cpu().numpy()
    return torch.from_numpy(cast("NDArray[np.float32]", stacked)).to(images.device)
