"""Noise: Gaussian, Poisson and impulses.

Every transformation of the `corrupt_*` files takes x: [n, c, h, w] float32 in [0, 1], random
numbers and the constants of one severity, and returns a tensor of that shape that the caller clips
to [0, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from robustbench_lite import SampleRng

SEEDS = 2**31


def gaussian_noise(x: Tensor, rng: SampleRng, *, deviation: float) -> Tensor:
    """Independent normal noise of that standard `deviation` on every component."""
    return x + deviation * rng.normal(tuple(x.shape[1:]))


def shot_noise(x: Tensor, rng: SampleRng, *, photons: float) -> Tensor:
    """Poisson counts of light, `photons` of them being white: mean x, variance x / photons."""
    import numpy as np
    import torch

    expected = (photons * x.double()).cpu().numpy()
    seeds = rng.integers(0, SEEDS, (2,)).tolist()
    counts = [
        np.random.default_rng(seed).poisson(light)
        for seed, light in zip(seeds, expected, strict=True)
    ]
    seen = np.stack(counts) if counts else expected
    return torch.from_numpy(seen / photons).to(x)


def impulse_noise(x: Tensor, rng: SampleRng, *, share: float) -> Tensor:
    """That `share` of all components is 0 or 1, with equal chance."""
    chance = rng.uniform(tuple(x.shape[1:]))
    return x.masked_fill(chance < share / 2, 0.0).masked_fill(chance >= 1 - share / 2, 1.0)
