"""What every member is built around: the embedded digits and the networks trained on them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from importlib import resources
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_lite.embedded import nets

EMBEDDED = "robustbench_lite.embedded"
SIDE = nets.SIDE
CLASSES = nets.CLASSES

Network = TypeVar("Network", bound=nn.Module)


def digits() -> tuple[Tensor, Tensor]:
    """The embedded MNIST sample: x float32 [1000, 1, 28, 28] in [0, 1], y int64 [1000].

    The same samples, in the same order, as the data set `mnist-sample`.
    """
    with np.load(io.BytesIO(_embedded("mnist_sample.npz")), allow_pickle=False) as stored:
        x = torch.from_numpy(stored["x"]).float().div(255)
        return x.reshape(-1, 1, SIDE, SIDE), torch.from_numpy(stored["y"]).long()


def undefended() -> nn.Sequential:
    """The embedded MLP, which most members wrap: 98 % right, robust accuracy 0 at linf 0.3.

    Images [n, 1, 28, 28] in [0, 1] -> logits [n, 10]; eval mode, parameters without gradients.
    """
    from safetensors.torch import load

    return _with_weights(nets.mlp, load(_embedded("mnist_mlp.safetensors")))


def convolutional(name: str = "mnist_cnn") -> nn.Sequential:
    """The network of an embedded ONNX file in torch: "mnist_cnn" or "mnist_cnn_robust".

    Images [n, 1, 28, 28] in [0, 1] -> logits [n, 10]. Undefended (robust accuracy 0 at linf 0.3)
    or adversarially trained (about 91 %).
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(_embedded(f"{name}.onnx")).graph
    weights = {w.name: torch.tensor(numpy_helper.to_array(w)) for w in graph.initializer}
    return _with_weights(nets.cnn, weights)


def frozen(network: Network) -> Network:
    """The network in eval mode, as far as it obeys, its parameters without gradients."""
    network.eval()
    network.requires_grad_(requires_grad=False)
    return network


def ridge(features: Tensor, labels: Tensor, penalty: float, scale: float) -> nn.Linear:
    """The linear layer nearest to +-`scale` targets: features [n, d], labels int64 [n] -> [d, k].

    argmin over W, b of sum (W f + b - t)^2 + penalty * (|W|^2 + |b|^2), solved in float64, with t
    `scale` for the label and -`scale` for every other of the 10 digits.
    """
    rows = torch.cat([features, torch.ones(len(features), 1)], dim=1).double()
    targets = nn.functional.one_hot(labels, CLASSES).double().mul(2).sub(1).mul(scale)
    normal = rows.T @ rows + penalty * torch.eye(rows.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(normal, rows.T @ targets).float()
    return linear_layer(solution[:-1].T.contiguous(), solution[-1])


def linear_layer(weight: Tensor, bias: Tensor) -> nn.Linear:
    """The layer with these weights [k, d] and [k]; no random number is drawn."""
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return layer


def _with_weights(build: Callable[[], nn.Module], weights: Mapping[str, Tensor]) -> nn.Sequential:
    with torch.device("meta"):  # no initialisation is drawn
        network = build()
    network.load_state_dict(weights, assign=True)
    assert isinstance(network, nn.Sequential)
    return frozen(network)


def _embedded(name: str) -> bytes:
    return resources.files(EMBEDDED).joinpath(name).read_bytes()
