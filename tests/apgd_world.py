"""Models for APGD and AutoAttack: scaled, randomised, free of their batch, and the robust one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from robustbench_lite.embedded import nets
from tests.oracles import UNIT, Problem

FOLDER = Path(nets.__file__).parent


def robust_mnist(n: int, skip: int = 0) -> Problem:
    """The robust network and n images of the sample."""
    return mnist("mnist_cnn_robust.onnx", n, skip)


def mnist(name: str, n: int, skip: int = 0) -> Problem:
    """A network with the weights of its ONNX file, and n images of the sample."""
    net = nets.cnn().eval()
    graph = onnx.load(FOLDER / name).graph
    weights = {part.name: numpy_helper.to_array(part) for part in graph.initializer}
    net.load_state_dict({name: torch.tensor(weights[name]) for name in net.state_dict()})
    net.requires_grad_(False)
    with np.load(FOLDER / "mnist_sample.npz", allow_pickle=False) as npz:
        x = torch.tensor(npz["x"][skip : skip + n].astype(np.float32) / np.float32(255))[:, None]
        y = torch.tensor(npz["y"][skip : skip + n].astype(np.int64))
    ids = tuple(f"mnist-{skip + i}" for i in range(n))
    return Problem(net=net, classes=10, box=UNIT, x=x, y=y, names=ids)


def broken(problem: Problem, x_adv: Tensor) -> NDArray[np.bool_]:
    """Which samples are misclassified at x_adv, decided in float64."""
    found: NDArray[np.bool_] = problem.gains(x_adv).max(axis=1) > 0
    return found


class Rowwise(nn.Module):
    """A network whose rows are added up one by one: no batch can move a bit."""

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(9)
        self.first = nn.Parameter(torch.randn((size, 16), generator=generator), False)
        self.second = nn.Parameter(torch.randn((16, classes), generator=generator), False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = sum(x.flatten(1)[:, i, None] * row for i, row in enumerate(self.first))
        hidden = torch.as_tensor(hidden).relu()
        return torch.as_tensor(sum(hidden[:, i, None] * row for i, row in enumerate(self.second)))


class Times(nn.Module):
    """A model with its logits multiplied."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.factor * self.net(x))


def with_net(problem: Problem, net: nn.Module) -> Problem:
    return Problem(net=net, classes=problem.classes, box=problem.box, x=problem.x, y=problem.y)


class TwoFaced(nn.Module):
    """Adds a steep slope to every other pass and takes it off in the next."""

    def __init__(self, net: nn.Module, slope: Tensor) -> None:
        super().__init__()
        self.net, self.slope, self.side = net, slope, 1.0

    def forward(self, x: Tensor) -> Tensor:
        self.side = -self.side
        steep = (x.flatten(1) - 0.5) @ self.slope
        return torch.as_tensor(self.net(x) + self.side * torch.stack((steep, -steep), dim=1))
