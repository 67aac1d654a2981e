"""The quickstart networks and digits, as robeval loads them and as the peers take them."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from robustbench_lite import AttackSpec, Box, Budget, LoadedModel, Norm, Places, SampleRng, norms
from robustbench_lite import machine as machines
from robustbench_lite.access import BatchMemory
from robustbench_lite.builtin.models.onnx_file import load
from robustbench_lite.builtin.models.parameters import OnnxParams
from robustbench_lite.craft import Crafted, craft
from robustbench_lite.embedded import nets
from robustbench_lite.rng import sample_keys
from robustbench_lite.types import Batch

FOLDER = Path(nets.__file__).parent
FILES = {"robust": "mnist_cnn_robust.onnx", "undefended": "mnist_cnn.onnx"}
EPS: dict[Norm, float] = {"linf": 0.3, "l2": 1.0}
BOX = Box(0.0, 1.0)

Mask = NDArray[np.bool_]
Runtime = Literal["file", "torch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network and n digits.

    `net`: the torch module, in eval mode, its weights frozen: what a peer attacks. `loaded`: what
    robeval attacks, the file as it ships (gradients from its twin, scores from onnxruntime) or
    the same torch module. `x`: [n, 1, 28, 28] in [0, 1]. `y`: int64 [n].
    """

    net: nn.Module
    loaded: LoadedModel
    x: Tensor
    y: Tensor

    def rows(self, index: Tensor) -> Subject:
        """The same network with the digits `index` (int64)."""
        return dataclasses.replace(self, x=self.x[index], y=self.y[index])

    def correct(self) -> Subject:
        """The same network with those digits alone that it knows."""
        return self.rows((self.predicted(self.x) == self.y).nonzero().squeeze(1))

    @torch.no_grad()
    def predicted(self, x: Tensor) -> Tensor:
        """The module's classes, int64 [n]."""
        classes: Tensor = self.net(x).argmax(dim=1)
        return classes

    def broken(self, x_adv: Tensor, norm: Norm, eps: float) -> Mask:
        """Which digits are misclassified at `x_adv`, inside box and ball (rounding apart)."""
        within = norms.tolerance(norm, eps, BOX, tuple(self.x.shape[1:]))
        legal = self.distance(x_adv, norm) <= eps + within
        legal &= ((x_adv >= BOX.low) & (x_adv <= BOX.high)).flatten(1).all(dim=1).numpy()
        wrong: Mask = (self.predicted(x_adv) != self.y).numpy()
        return legal & wrong

    def distance(self, x_adv: Tensor, norm: Norm) -> NDArray[np.float64]:
        """How far `x_adv` is from the digits, [n]."""
        found: NDArray[np.float64] = norms.distance(x_adv.double() - self.x.double(), norm).numpy()
        return found

    def least(self, x_adv: Tensor, norm: Norm) -> NDArray[np.float64]:
        """`distance` where a digit is broken, else inf."""
        return np.where(
            (self.predicted(x_adv) != self.y).numpy(), self.distance(x_adv, norm), np.inf
        )

    def attacked(
        self, spec: AttackSpec, norm: Norm, eps: float, *, seed: int = 0, **own: object
    ) -> Tensor:
        """What robeval's attack returns, called as a run calls it: float32 [n, 1, 28, 28]."""
        x_adv = self.crafted(spec, norm, eps, seed=seed, **own).candidate
        assert isinstance(x_adv, Tensor)
        return x_adv

    def crafted(
        self, spec: AttackSpec, norm: Norm, eps: float, *, seed: int = 0, **own: object
    ) -> Crafted:
        """`attacked`, with its passes and what was noticed."""
        assert callable(spec.implementation)
        params = spec.params.model_validate(own)
        ids = tuple(str(i) for i in range(len(self.x)))
        keys = sample_keys(ids)
        batch = Batch(start=0, ids=ids, hashes=ids, keys=keys, x=self.x, y=self.y, box=BOX)
        return craft(
            spec,
            spec.implementation,
            {name: getattr(params, name) for name in type(params).model_fields},
            BatchMemory(self.loaded, self.x, self.y),
            batch,
            rows=torch.arange(len(self.x)),
            budget=Budget(norm=norm, eps=eps, box=BOX),
            rng=SampleRng(seed, spec.name, keys),
            goal=None,
        )


def subject(name: str, n: int, *, runtime: Runtime = "torch") -> Subject:
    """The first n digits of the sample with the "robust" or the "undefended" network."""
    path = FOLDER / FILES[name]
    net = nets.cnn().eval()
    weights = {part.name: numpy_helper.to_array(part) for part in onnx.load(path).graph.initializer}
    net.load_state_dict({name: torch.tensor(weights[name]) for name in net.state_dict()})
    net.requires_grad_(requires_grad=False)
    with np.load(FOLDER / "mnist_sample.npz", allow_pickle=False) as npz:
        x = torch.tensor(npz["x"][:n].astype(np.float32) / np.float32(255))[:, None]
        y = torch.tensor(npz["y"][:n].astype(np.int64))
    loaded = _file(path) if runtime == "file" else _module(net)
    return Subject(net=net, loaded=loaded, x=x, y=y)


def _file(path: Path) -> LoadedModel:
    places = Places(suite=path.parent, data=None, cache=path.parent)
    return load(OnnxParams(path=path), places=places, device="cpu", threads=1)


def _module(net: nn.Module) -> LoadedModel:
    @torch.no_grad()
    def predict(x: Tensor) -> Tensor:
        logits: Tensor = net(x)
        return logits

    return LoadedModel(
        predict=predict,
        differentiable=net,
        num_classes=nets.CLASSES,
        input_shape=(1, nets.SIDE, nets.SIDE),
        output="logits",
        device="cpu",
        provider="torch",
    )


def keep_freed_memory() -> str:
    """Have the C library keep what is freed, as a run does, and say so in words.

    Otherwise it hands memory back after a pass or keeps it, by the accident of what lies above it,
    and the page faults of the next pass (up to half of the time) fall to one side or the other.
    """
    return "freed memory kept" if machines.keep_freed_memory() else "allocator as it is"


def machine(*packages: str) -> str:
    """One line: processor, Python and the versions of `packages`."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    cores = f"{len(models)} cores of " if models else ""
    parts = [f"{cores}{name}", torch.backends.cpu.get_cpu_capability()]
    parts += [f"Python {platform.python_version()}"]
    parts += [f"{package} {version(package)}" for package in packages]
    return ", ".join(parts)
