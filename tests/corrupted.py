"""Pictures, and what a corruption makes of them."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from robustbench_lite import Box
from robustbench_lite.builtin.attacks.corrupt_constants import Kind
from robustbench_lite.builtin.attacks.corruption import SPEC
from robustbench_lite.rng import SampleRng, sample_keys
from tests.oracles import UNIT, Problem, run

SURE = 1e-3  # smallest p-value that chance may give a fixed seed


def images(n: int, shape: tuple[int, ...]) -> Tensor:
    """Smooth random pictures that use the whole range, [n, *shape] in [0, 1]."""
    noise = np.random.default_rng(0).random((n, *shape))
    soft = ndimage.gaussian_filter(noise, (0,) * (noise.ndim - 2) + (2.0, 2.0))
    low, high = soft.min((-1, -2), keepdims=True), soft.max((-1, -2), keepdims=True)
    return torch.from_numpy((soft - low) / (high - low)).float()


def problem_of(x: Tensor, box: Box = UNIT) -> Problem:
    return Problem(net=nn.Identity(), classes=2, box=box, x=x, y=torch.zeros(len(x)).long())


def corrupted(x: Tensor, kind: Kind, severity: float, *, box: Box = UNIT, seed: int = 0) -> Tensor:
    problem = problem_of(x, box)
    return run(SPEC, problem, problem.budget("none", severity), seed=seed, kind=kind)


def stream(n: int, seed: int = 0) -> SampleRng:
    return SampleRng(seed, "test", sample_keys([f"image-{i}" for i in range(n)]))
