"""The generated zoo: small networks, and what turns them into ONNX files of every kind."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx.backend.test.case.test_case import TestCase
from torch import Tensor, nn

Exporter = Literal["legacy", "dynamo"]
Export = Callable[..., onnx.ModelProto]


class Cnn(nn.Module):
    """Convolutions, pools, a linear head: opset 7 is enough."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 2 * 2, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.body(x)
        return made


class Block(nn.Module):
    """Depthwise convolution, squeeze and excitation, a residual; GELU, SiLU, hard swish."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.down, self.up = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.norm(self.depthwise(x)))
        gate = torch.sigmoid(self.up(F.silu(self.down(y.mean((2, 3), keepdim=True)))))
        return x + F.hardswish(self.mix(y * gate))


class Resnet(nn.Module):
    """Blocks behind a stem with BatchNorm and a padded pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=1, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(self.pool(torch.relu(self.norm(self.stem(x)))))
        made: Tensor = self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))
        return made


class Layer(nn.Module):
    """A transformer layer, written with reshapes as model zoos write it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, c))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]  # nn.Module returns Any


class Vit(nn.Module):
    """Patches, a class token, positions, two layers."""

    def __init__(self, width: int = 32, patch: int = 4, size: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.1)
        self.places = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.1)
        self.layers = nn.Sequential(*(Layer(width, 4) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(y.shape[0], -1, -1), y], 1) + self.places
        made: Tensor = self.head(self.norm(self.layers(y))[:, 0])
        return made


class Nhwc(nn.Module):
    """An image with its channels last, as Keras models take it, and asymmetric padding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(x.permute(0, 3, 1, 2), (0, 1, 0, 1))
        y = F.relu6(self.conv(y)).permute(0, 2, 3, 1)
        made: Tensor = self.head(y.mean((1, 2)))
        return made


NETS: dict[str, Callable[[], nn.Module]] = {
    "cnn": Cnn,
    "resnet": Resnet,
    "vit": Vit,
    "nhwc": Nhwc,
}


def build(name: str, seed: int = 0) -> nn.Module:
    """A network of the zoo with seeded weights and BatchNorm statistics that are not 0 and 1."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = NETS[name]()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.3, 0.3)  # type: ignore[arg-type]  # a tensor
                nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]  # a tensor
    return net.eval().requires_grad_(requires_grad=False)


def images(name: str, n: int = 4, seed: int = 1) -> Tensor:
    """x: [n, 3, 16, 16] (channels last for nhwc) in [0, 1]."""
    x = torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return x.permute(0, 2, 3, 1).contiguous() if name == "nhwc" else x


def export(
    net: nn.Module, x: Tensor, *, exporter: Exporter, opset: int, batch: bool = True
) -> onnx.ModelProto:
    """`net` as an ONNX model, with an open batch axis if `batch`."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # torch.onnx warns in the name of its caller; the others warn in their own
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript")
        warnings.filterwarnings("ignore", category=torch.jit._trace.TracerWarning)
        warnings.filterwarnings("ignore", module=r"(torch|onnxscript|onnx_ir|copyreg)(\.|$)")
        if exporter == "legacy":
            file = folder / "model.onnx"
            torch.onnx.export(
                net,
                (x,),
                str(file),
                dynamo=False,
                opset_version=opset,
                input_names=["x"],
                output_names=["y"],
                dynamic_axes={"x": {0: "n"}, "y": {0: "n"}} if batch else None,
            )
            return onnx.load(file)
        program = torch.onnx.export(
            net,
            (x,),
            dynamo=True,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=({0: torch.export.Dim("n", min=1, max=512)},) if batch else None,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


@dataclass(frozen=True, slots=True)
class Judge:
    """onnxruntime with one thread; `optimised` False switches its graph rewriting off."""

    session: ort.InferenceSession

    def __call__(self, x: Tensor) -> NDArray[np.float32]:
        name = self.session.get_inputs()[0].name
        kinds = {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
        array = x.detach().numpy().astype(kinds.get(self.session.get_inputs()[0].type, np.float32))
        made = self.session.run(None, {name: array})[0]
        return np.asarray(made, dtype=np.float32)


def judge_of(model: onnx.ModelProto, *, optimised: bool = True) -> Judge:
    """The judge for a model."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model.SerializeToString()
    return Judge(ort.InferenceSession(content, options, providers=["CPUExecutionProvider"]))


class Zoo:
    """What the tests of the twin share; exports are kept, they take seconds."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, int, bool], bytes] = {}

    def build(self, name: str) -> nn.Module:
        return build(name)

    def images(self, name: str, n: int = 4) -> Tensor:
        return images(name, n)

    def model(
        self, name: str, exporter: Exporter = "legacy", opset: int = 17, *, batch: bool = True
    ) -> onnx.ModelProto:
        key = (name, exporter, opset, batch)
        if key not in self._kept:
            made = export(build(name), images(name), exporter=exporter, opset=opset, batch=batch)
            self._kept[key] = made.SerializeToString()
        return onnx.load_from_string(self._kept[key])

    def export(self, net: nn.Module, x: Tensor, *, opset: int) -> onnx.ModelProto:
        return export(net, x, exporter="legacy", opset=opset)

    def judge(self, model: onnx.ModelProto, *, optimised: bool = True) -> Judge:
        return judge_of(model, optimised=optimised)

    def gradient(self, net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The gradient of a fixed random projection of the logits."""
        x = x.clone().requires_grad_()
        made = net(x)
        weights = torch.linspace(-1, 1, made.shape[-1], dtype=made.dtype)
        (grad,) = torch.autograd.grad((made * weights).sum(), x)
        return grad

    def relative(self, a: Tensor, b: Tensor) -> float:
        """The largest difference over the largest entry of b."""
        return float((a - b).abs().max() / b.abs().max())

    def initializers(self, model: onnx.ModelProto) -> Sequence[str]:
        return [tensor.name for tensor in model.graph.initializer]


@pytest.fixture(scope="session")
def zoo() -> Zoo:
    return Zoo()


@pytest.fixture(scope="session")
def cases() -> dict[str, list[TestCase]]:
    """The node tests by the operator tested; "expanded": functions written out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"onnx\.")
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    by_operator: dict[str, list[TestCase]] = {}
    for case in found:
        assert case.model is not None
        nodes = case.model.graph.node
        key = nodes[0].op_type if len(nodes) == 1 else "expanded"
        by_operator.setdefault(key, []).append(case)
    return by_operator
