"""A shallow RBF network: one Gaussian bump per class, each a yes or no of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import Shape, size
from .options import Net, Rbf

SMALLEST = 1e-6  # a probability of exactly 1 has no finite score


class Bumps(nn.Module):
    """Scores z_k = log p_k - log(1 - p_k) of p_k = exp(-sum_f a_kf (x_f - mu_kf)^2), [n, k].

    a = softplus(raw). The square is expanded, so that no [n, k, f] is held.
    """

    def __init__(self, inputs: int, classes: int, *, diagonal: bool, start: float) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(classes, inputs))
        self.raw = nn.Parameter(torch.full((classes, inputs if diagonal else 1), start))

    def start(self, x: Tensor, y: Tensor) -> None:
        """Put the centres on the means of the classes: x [n, *shape], y [n]."""
        flat = x.flatten(1)
        with torch.no_grad():
            for label in range(self.mu.shape[0]):
                if bool((y == label).any()):
                    self.mu[label] = flat[y == label].mean(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """[n, *shape] -> [n, k]."""
        x = x.flatten(1)
        a = nn.functional.softplus(self.raw).expand_as(self.mu)
        square = (x * x) @ a.T - 2 * (x @ (a * self.mu).T) + (a * self.mu * self.mu).sum(dim=1)
        q = square.clamp_min(SMALLEST)
        half = torch.tanh(q / 2)  # 1 - exp(-q) = 2 t / (1 + t), exact for small q too
        return -q - torch.log(2 * half / (1 + half))


def build(options: Net, shape: Shape, classes: int) -> nn.Module:
    """One bump for each class."""
    assert isinstance(options, Rbf)
    return Bumps(size(shape), classes, diagonal=options.width == "diagonal", start=options.start)
