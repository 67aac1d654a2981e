"""One image file to bytes of a given size."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robustbench_lite import DataError

Size = tuple[int, int]  # height, width

MAX_PIXELS = 2**26  # larger pictures are taken for decompression bombs
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM")  # none that runs a program
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture, not decoded yet; what goes wrong until it is closed names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(path, formats=FORMATS)
        with picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(
                    f"{path}: {picture.width} x {picture.height} pixels; expected at most "
                    f"{MAX_PIXELS} in all"
                )
            yield picture
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: {error}; expected at most {MAX_PIXELS} pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(f"{path}: is not a readable image: {error}") from error


def size_of(path: Path) -> Size:
    """Height and width in pixels. Raises `DataError`."""
    with _opened(path) as picture:
        return picture.height, picture.width


def decoded(path: Path, mode: str, size: Size, *, resize: bool) -> NDArray[np.uint8]:
    """Pixels [height, width, channels]; raises `DataError` for another size unless `resize`."""
    with _opened(path) as picture:
        if picture.mode in DEEP_MODES:
            raise DataError(
                f"{path}: has more than 8 bits for a channel (Pillow's mode {picture.mode}), which "
                "would be clipped; use the dataset `arrays`"
            )
        found = (picture.height, picture.width)
        if not resize and found != size:
            raise DataError(
                f"{path}: {found[0]} x {found[1]} pixels, the first image has {size[0]} x "
                f"{size[1]}; expected one size. Declare size:"
            )
        fitted = _covering(picture.convert(mode), size) if resize else picture.convert(mode)
        return np.asarray(fitted, dtype=np.uint8).reshape(*size, len(mode))


def _covering(picture: Image.Image, size: Size) -> Image.Image:
    """Resized until it just covers the size, then cut at its centre."""
    height, width = size
    scale = max(height / picture.height, width / picture.width)
    wide = max(width, round(picture.width * scale))
    high = max(height, round(picture.height * scale))
    if (wide, high) != picture.size:
        picture = picture.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = (wide - width) // 2, (high - height) // 2
    return picture.crop((left, top, left + width, top + height))
