"""AdaBound: Adam whose rates are squeezed from both sides towards those of SGD."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

BETAS = (0.9, 0.999)
EPS = 1e-8


class Bounded(torch.optim.Optimizer):
    """AdaBound of Luo, Xiong, Liu, Sun (ICLR 2019), algorithm 2.

    In step t the rate of a weight is kept within final_lr (1 - 1 / (gamma t + 1)) and
    final_lr (1 + 1 / (gamma t)).
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, lr: float, final_lr: float, gamma: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "final_lr": final_lr, "gamma": gamma})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step along the gradients that are there."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group["lr"], group["final_lr"], group["gamma"])

    def _move(self, weight: nn.Parameter, lr: float, final_lr: float, gamma: float) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(weight)
            state["square"] = torch.zeros_like(weight)
        state["step"] += 1
        t = state["step"]
        grad = weight.grad
        assert grad is not None
        state["mean"].mul_(BETAS[0]).add_(grad, alpha=1 - BETAS[0])
        state["square"].mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
        scale = lr * (1 - BETAS[1] ** t) ** 0.5 / (1 - BETAS[0] ** t)
        rate = scale / (state["square"].sqrt() + EPS)
        low = final_lr * (1 - 1 / (gamma * t + 1))
        high = final_lr * (1 + 1 / (gamma * t))
        weight.sub_(rate.clamp(low, high) * state["mean"])
