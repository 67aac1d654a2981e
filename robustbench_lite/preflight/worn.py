"""Whether a model that was asked a great deal still answers as a fresh copy of it does."""

from __future__ import annotations

import torch
from torch import Tensor

from ..rng import SampleRng
from ..types import Batch, LoadedModel
from .steady import FELT, STEP, apart

ROWS = 16
RADII = (0.0, 0.02, 0.1, 0.3)
"""Of the box's width: clean, and so far in every component that a memory of clean inputs shows."""


def points(batch: Batch, seed: int) -> Tensor:
    """Up to 16 inputs [m, *shape] in the box: the samples of a batch and extreme points by them."""
    x, keys = batch.x[:ROWS], batch.keys[:ROWS]
    signs = SampleRng(seed, "look back", keys).uniform(tuple(x.shape[1:]), -1.0, 1.0).sign()
    radii = torch.tensor(RADII, device=x.device).repeat(ROWS)[: len(x)] * batch.box.width
    moved = x + signs * radii.reshape(-1, *[1] * (x.ndim - 1))
    return moved.clamp(batch.box.low, batch.box.high)


def expected(fresh: LoadedModel, x: Tensor, size: int) -> Tensor | None:
    """What a copy answers that was never asked before, [m, k]; None if it draws lots."""
    first = _answers(fresh, x, size)
    same = apart(first, _answers(fresh, x, size)) <= FELT
    return first if bool(same.all()) else None


def changed(worn: LoadedModel, x: Tensor, fresh: Tensor, size: int) -> int:
    """On how many of x the model answers otherwise; asked in another order than the copy was."""
    return int((apart(fresh, _answers(worn, x.flip(0), size).flip(0)) > STEP).sum())


def _answers(model: LoadedModel, x: Tensor, size: int) -> Tensor:
    parts = [model.predict(part.clone()).detach().float().clone() for part in torch.split(x, size)]
    return torch.cat(parts)
