"""Random numbers of a training: each depends on seed, epoch, step and purpose alone.

So nothing has to be remembered to go on from an epoch, and a second pass can see the same masks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Draws:
    """The random numbers of one step; `step` -1 is the epoch's own, `epoch` 0 the start."""

    seed: int
    epoch: int
    step: int = -1

    def generator(self, purpose: str) -> torch.Generator:
        """A generator on the CPU for one purpose."""
        return torch.Generator().manual_seed(self._number(purpose))

    def passed(self, net: nn.Module, x: Tensor) -> Tensor:
        """net(x) under the masks of this step: the same ones however often it is asked."""
        devices = [x.device] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            _seed(self._number("masks"), x.device)
            scores: Tensor = net(x)
        return scores

    def built(self, build: object) -> nn.Module:
        """What `build()` gives, its initialisation drawn from the seed."""
        assert callable(build)
        with torch.random.fork_rng(devices=[]):
            _seed(self._number("initialisation"), torch.device("cpu"))
            net = build()
        assert isinstance(net, nn.Module)
        return net

    def _number(self, purpose: str) -> int:
        text = f"{self.seed}\0{self.epoch}\0{self.step}\0{purpose}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def _seed(number: int, device: torch.device) -> None:
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)
