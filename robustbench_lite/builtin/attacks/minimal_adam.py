"""Adam (Kingma and Ba 2015) as a value, for rows that may leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BETA_1, BETA_2 = 0.9, 0.999
SMALLEST = 1e-15
"""Of the divisor. The usual 1e-8 would hold back components whose gradient is small everywhere."""


@dataclass(frozen=True, slots=True)
class Adam:
    """Running means of gradient and squared gradient, [n, *shape], after `steps` steps."""

    mean: Tensor
    square: Tensor
    steps: int = 0

    @staticmethod
    def start(like: Tensor) -> Adam:
        """Before the first step."""
        zero = like.new_zeros(like.shape)
        return Adam(zero, zero)

    def rows(self, index: Tensor) -> Adam:
        """The state of the samples `index` (int64)."""
        return Adam(self.mean[index], self.square[index], self.steps)

    def seen(self, grad: Tensor) -> Adam:
        """After one more gradient."""
        return Adam(
            BETA_1 * self.mean + (1 - BETA_1) * grad,
            BETA_2 * self.square + (1 - BETA_2) * grad.square(),
            self.steps + 1,
        )

    def direction(self) -> Tensor:
        """What to subtract per unit of learning rate, [n, *shape]."""
        mean = self.mean / (1 - BETA_1**self.steps)
        square = self.square / (1 - BETA_2**self.steps)
        return mean / (square.sqrt() + SMALLEST)
