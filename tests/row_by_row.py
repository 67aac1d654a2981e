"""A module whose output for a row depends on that row alone, to the last bit."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from tests.oracles import Problem


class RowByRow(nn.Module):
    """`net`, one row at a time: a matrix product rounds differently in different batches."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.net(x[i : i + 1]) for i in range(len(x))] or [self.net(x)])


def row_by_row(problem: Problem) -> Problem:
    """The same problem on a module that no batch can disturb."""
    return replace(problem, net=RowByRow(problem.net))
