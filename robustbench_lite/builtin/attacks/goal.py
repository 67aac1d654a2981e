"""What an attack wants of each sample: away from its label, or at its target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustbench_lite import Loss

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Goal:
    """`labels`: int64 [n], the classes to reach when `targeted`, else the classes to leave."""

    labels: Tensor
    targeted: bool

    def rows(self, index: Tensor) -> Goal:
        """The goals of the samples `index` (int64 [m])."""
        return Goal(self.labels[index], self.targeted)

    def reached(self, logits: Tensor) -> Tensor:
        """Whether logits [n, k] fulfil the goal, bool [n]; never where one is not finite."""
        pred = logits.argmax(dim=1)
        met = pred == self.labels if self.targeted else pred != self.labels
        return met & (logits.abs().amax(dim=1) < math.inf)  # NaN is not below it

    def objective(self, loss: str) -> Loss:
        """The loss that an attack maximises with `labels` to get nearer to the goal."""
        if not self.targeted:
            return loss
        from robustbench_lite import losses

        return losses.targeted(loss)


def goal_of(y: Tensor, target: Tensor | None) -> Goal:
    """Leave `y` (int64 [n]), or reach `target` (int64 [n]) where one is given."""
    return Goal(y, targeted=False) if target is None else Goal(target, targeted=True)
