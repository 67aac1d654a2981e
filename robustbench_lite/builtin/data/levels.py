"""From 256 stored levels to float32 values in the box."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustbench_lite import Box

UNIT = Box(0.0, 1.0)


def scaled(stored: NDArray[np.uint8], box: Box = UNIT) -> Tensor:
    """Fresh float32 tensor of the same shape: 0 becomes `box.low`, 255 `box.high`, linear between.

    For the box [0, 1] the values are those of dividing by 255 in float32.
    """
    levels = (box.low + np.arange(256) / 255 * box.width).astype(np.float32)
    return torch.from_numpy(levels[stored])
