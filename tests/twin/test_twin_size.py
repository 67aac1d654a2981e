"""A graph of the size of DenseNet-121 becomes a twin (how fast: benchmarks/twin.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robustbench_lite.builtin.models.twin import convert

if TYPE_CHECKING:
    from tests.twin.conftest import Zoo


class Dense(nn.Module):
    """As many layers and weights as a DenseNet-121: blocks of concatenated outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.norms, self.convs = nn.ModuleList(), nn.ModuleList()
        self.sizes = (6, 12, 24, 16)
        width = 64
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        for layers in self.sizes:
            for _ in range(layers):
                self.norms.extend([nn.BatchNorm2d(width), nn.BatchNorm2d(128)])
                wide, narrow = nn.Conv2d(width, 128, 1), nn.Conv2d(128, 32, 3, padding=1)
                self.convs.extend([wide, narrow])
                width += 32
            self.norms.append(nn.BatchNorm2d(width))
            self.convs.append(nn.Conv2d(width, width // 2, 1))
            width //= 2
        self.head = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        norms, convs = iter(self.norms), iter(self.convs)
        y = self.stem(x)
        for layers in self.sizes:
            for _ in range(layers):
                z = next(convs)(torch.relu(next(norms)(y)))
                y = torch.cat([y, next(convs)(torch.relu(next(norms)(z)))], 1)
            y = next(convs)(torch.relu(next(norms)(y)))
        made: Tensor = self.head(y.mean((2, 3)))
        return made


def test_a_graph_of_the_size_of_densenet_121_is_converted(zoo: Zoo) -> None:
    net = Dense().eval()
    x = torch.rand(1, 3, 8, 8)
    model = zoo.export(net, x, opset=17)
    assert len(model.graph.node) > 300
    assert model.ByteSize() > 25_000_000
    twin = convert(model)
    assert zoo.relative(twin(x).detach(), net(x).detach()) <= 1e-4
