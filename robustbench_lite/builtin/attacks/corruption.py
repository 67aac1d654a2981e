"""Corruption: one of the 15 common corruptions of ImageNet-C, at one severity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import Field

from robustbench_lite import AttackSpec, Budget, Classifier, Params

from . import corrupt_blur, corrupt_digital, corrupt_noise, corrupt_weather
from .bilinear import as_images
from .corrupt_constants import PUBLISHED, SEVERITIES, Kind
from .cost import no_passes

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

SMALLEST_SIDE = 8  # below, the scaled constants say nothing
CHANNELS = (1, 3)

TRANSFORMATIONS: Mapping[Kind, Callable[..., Tensor]] = MappingProxyType(
    {
        "gaussian-noise": corrupt_noise.gaussian_noise,
        "shot-noise": corrupt_noise.shot_noise,
        "impulse-noise": corrupt_noise.impulse_noise,
        "defocus-blur": corrupt_blur.defocus_blur,
        "glass-blur": corrupt_blur.glass_blur,
        "motion-blur": corrupt_blur.motion_blur,
        "zoom-blur": corrupt_blur.zoom_blur,
        "snow": corrupt_weather.snow,
        "frost": corrupt_weather.frost,
        "fog": corrupt_weather.fog,
        "brightness": corrupt_weather.brightness,
        "contrast": corrupt_digital.contrast,
        "elastic-transform": corrupt_digital.elastic_transform,
        "pixelate": corrupt_digital.pixelate,
        "jpeg": corrupt_digital.jpeg,
    }
)


class CorruptionParams(Params):
    """Parameters of `corruption`."""

    kind: Kind = Field(default="gaussian-noise", description="which of the 15 common corruptions")


def corruption(
    model: Classifier,  # noqa: ARG001  (a corruption never looks at the model)
    x: Tensor,
    y: Tensor,  # noqa: ARG001
    *,
    budget: Budget,
    rng: SampleRng,
    kind: Kind = "gaussian-noise",
) -> Tensor:
    """x under one corruption at severity eps, a whole number from 1 to 5: float32 [n, *shape].

    Not a worst case: nothing is searched, so the accuracy that is left is that on ordinary bad
    images. Severity 0 is x itself. Of random corruptions every severity has the same random
    numbers, so that severities differ by their constants alone. The box is scaled to [0, 1] for
    the constants (`corrupt_constants`) and back; lengths grow with the shorter side of the image.

    Raises ValueError for another severity, and for samples that are no images of 1 or 3 channels.

    Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
    perturbations", ICLR 2019, section 3 and appendix B. Departures from the published images are
    listed in docs/corruptions.md.
    """
    severity = _severity(budget.eps)
    images = _suitable(as_images(x, "corruption"))
    if severity == 0 or not x.shape[0]:
        return x.clone()
    box = budget.box
    constants = PUBLISHED[kind].at(severity, min(images.shape[2:]))
    unit = ((images - box.low) / box.width).clamp(0, 1)
    corrupted = TRANSFORMATIONS[kind](unit, rng.fork(kind), **constants).clamp(0, 1)
    return (box.low + box.width * corrupted).clamp(box.low, box.high).view_as(x)


def _severity(eps: float) -> int:
    if eps not in (0, *SEVERITIES):
        raise ValueError(
            f"corruption: eps is the severity, a whole number from 1 to 5; found {eps:g}"
        )
    return round(eps)


def _suitable(images: Tensor) -> Tensor:
    _, channels, height, width = images.shape
    if channels not in CHANNELS:
        raise ValueError(
            f"corruption: the samples have {channels} channels, expected 1 (grey) or 3 (red, "
            "green, blue), which come first in the shape"
        )
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"corruption: the images are {height} x {width}, expected at least "
            f"{SMALLEST_SIDE} x {SMALLEST_SIDE}"
        )
    return images


SPEC = AttackSpec(
    name="corruption",
    implementation=corruption,
    summary="one of the 15 common corruptions of images, eps being the severity; no worst case",
    norms=("none",),
    access="none",
    params=CorruptionParams,
    paper="https://arxiv.org/abs/1903.12261",
    effort="random",
    default_eps="1, 2, 3, 4, 5",
    cost=no_passes,
)
