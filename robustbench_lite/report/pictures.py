"""A sample, its adversarial example and their difference as three small lossless pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from .svg import bars
from .words import number

SHOWN_SIDE = 100  # pixels on the page; smaller images are enlarged by whole factors
MOST_BARS = 32
Image = NDArray[np.float32]


class Trio(NamedTuple):
    """Three pictures; the difference is amplified by `factor`, around mid-grey (or zero)."""

    clean: Markup
    adversarial: Markup
    difference: Markup
    factor: str
    note: str

    @property
    def size(self) -> int:
        """Characters on the page."""
        return len(self.clean) + len(self.adversarial) + len(self.difference)


def trio(x: Image, x_adv: Image, names: tuple[str, str]) -> Trio:
    """x, x_adv: one sample [*shape] in the data's box; `names` say what the two pictures show."""
    low, high = _range(x, x_adv)
    delta = x_adv - x
    factor = amplification(float(np.abs(delta).max(initial=0.0)), high - low)
    middle = (low + high) / 2
    pixels = as_pixels(x) is not None
    draw, swing = (_picture, 0.0) if pixels else (_bars, middle)
    shown = middle - swing + factor * delta
    return Trio(
        clean=draw(x, low, high, names[0]),
        adversarial=draw(x_adv, low, high, names[1]),
        difference=draw(shown, low - swing, high - swing, f"difference times {factor:,.6g}"),
        factor=f"{factor:,.6g}",
        note=_note(x, low, high),
    )


def _note(x: Image, low: float, high: float) -> str:
    parts = []
    if as_pixels(x) is None and x.size > MOST_BARS:
        parts.append(f"first {MOST_BARS} of {x.size:,} components")
    if (low, high) != (0.0, 1.0):
        parts.append(f"shown from {number(low)} to {number(high)}")
    return "; ".join(parts)


def _range(x: Image, x_adv: Image) -> tuple[float, float]:
    """The displayed range: a usual one that holds both pictures, else their own."""
    low = float(min(x.min(initial=0.0), x_adv.min(initial=0.0)))
    high = float(max(x.max(initial=0.0), x_adv.max(initial=0.0)))
    for usual in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        if usual[0] <= low and high <= usual[1]:
            return usual
    return low, high


def amplification(largest: float, width: float) -> float:
    """Largest of 1, 2, 5, 10, ... that keeps a difference of at most `largest` inside `width`."""
    if largest <= 0:
        return 1.0
    wanted = 0.5 * width / largest
    return max((step for step in _steps() if step <= wanted), default=1.0)


def _steps() -> Iterator[float]:
    return (digit * 10.0**power for power in range(5) for digit in (1, 2, 5))


def as_pixels(x: Image) -> Image | None:
    """An image as [h, w] (grey) or [h, w, 3] (RGB), or None for any other shape."""
    if x.ndim == 2 and min(x.shape) > 1:
        return x
    if x.ndim != 3 or min(x.shape[1:]) <= 1:
        return None
    if x.shape[0] == 1:
        return x.reshape(x.shape[1:])
    return x.transpose(1, 2, 0) if x.shape[0] == 3 else None


def _picture(x: Image, low: float, high: float, alt: str) -> Markup:
    """A PNG as a data URI; 8-bit, so that the exact floats stay in examples.npz."""
    from PIL import Image as Pillow

    pixels = as_pixels(x)
    assert pixels is not None
    levels = np.rint((np.clip(pixels, low, high) - low) / (high - low) * 255).astype(np.uint8)
    stream = io.BytesIO()
    Pillow.fromarray(levels).save(stream, format="PNG", optimize=True)
    height, width = levels.shape[:2]
    scale = max(1, SHOWN_SIDE // max(height, width))
    shrink = min(1.0, SHOWN_SIDE / max(height, width))
    return Markup('<img src="{}" alt="{}" width="{}" height="{}" class="{}">').format(
        "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode(),
        alt,
        round(width * scale * shrink),
        round(height * scale * shrink),
        "pixels" if scale > 1 else "photo",
    )


def _bars(x: Image, low: float, high: float, alt: str) -> Markup:
    return bars([float(value) for value in x.reshape(-1)[:MOST_BARS]], low, high, alt)
