"""Layers that several networks share: maxout, bounded weights, dropout without rescaling."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Kept(nn.Module):
    """Dropout: each number is kept with probability `keep` in training, and 0 otherwise.

    With `rescale` what is kept is divided by `keep`; without, evaluation sees 1 / keep of the
    training's mean, as the input layer of the maxout recipe does.
    """

    def __init__(self, keep: float, *, rescale: bool) -> None:
        super().__init__()
        self.keep = keep
        self.rescale = rescale

    def forward(self, x: Tensor) -> Tensor:
        """The input itself in evaluation."""
        if not self.training or self.keep == 1:
            return x
        mask = torch.empty_like(x).bernoulli_(self.keep)
        return x * (mask / self.keep if self.rescale else mask)


class Bounded(nn.Linear):
    """A linear layer that starts uniformly in [-init, init] with zero bias.

    The incoming weights of every output are kept within `max_norm` (l2).
    """

    def __init__(self, inputs: int, outputs: int, *, init: float, max_norm: float) -> None:
        super().__init__(inputs, outputs)
        self.max_norm = max_norm
        nn.init.uniform_(self.weight, -init, init)
        nn.init.zeros_(self.bias)


class MaxPieces(nn.Module):
    """The largest of `pieces` linear pieces: [n, pieces * units, ...] -> [n, units, ...].

    Piece p of unit u stands at p * units + u.
    """

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """The maximum over the pieces."""
        return x.reshape(-1, self.pieces, x.shape[1] // self.pieces, *x.shape[2:]).amax(dim=1)


@torch.no_grad()
def constrain(net: nn.Module) -> None:
    """Shrink in place the incoming weights of an output that are longer than its layer allows."""
    for layer in net.modules():
        limit = getattr(layer, "max_norm", None)
        if isinstance(limit, float) and isinstance(layer, nn.Linear | nn.Conv2d):
            rows = layer.weight.flatten(1)
            norms = rows.norm(dim=1, keepdim=True)
            rows.mul_(limit / norms.clamp_min(limit))
