"""The embedded network as other ONNX files: quantised, half, with a head, with what no twin takes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor

from robustbench_lite import LoadedModel, Places
from robustbench_lite.builtin.models.onnx_file import load
from robustbench_lite.builtin.models.parameters import OnnxParams
from robustbench_lite.params import package_file
from tests.nearest_mean import sample

Array = NDArray[np.generic]
EMBEDDED = package_file("pkg://robustbench_lite/embedded/mnist_cnn.onnx")


def opened(path: Path, device: str = "cpu", **fields: object) -> LoadedModel:
    """The file as a run loads it."""
    params = OnnxParams.model_validate({"path": path, **fields})
    places = Places(suite=path.parent, data=None, cache=path.parent)
    return load(params, places=places, device=device, threads=1)


def digits(n: int) -> Tensor:
    """The first n test images, float32 [n, 1, 28, 28] in [0, 1]."""
    return sample()[0][:n]


def saved(
    path: Path,
    nodes: Sequence[NodeProto],
    weights: Mapping[str, Array],
    *,
    shape: Sequence[int | str] = ("n", 6),
    kind: int = TensorProto.FLOAT,
    columns: Sequence[int | str] = ("n", 3),
    domains: Sequence[str] = (),
) -> Path:
    """A graph from `x` to `y`."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, columns)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(name, 1) for name in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def continued(path: Path, *nodes: NodeProto) -> Path:
    """The embedded network with more nodes, from its `logits` to `y`."""
    model = onnx.load(EMBEDDED)
    model.graph.node.extend(nodes)
    model.graph.output[0].name = "y"
    onnx.save(model, path)
    return path


def branching(path: Path) -> Path:
    """The same function behind a branch on its input: onnxruntime runs it, a twin is refused."""

    def branch(name: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph(
            [helper.make_node("Identity", ["logits"], [name])], name, [], [value]
        )

    zero = numpy_helper.from_array(np.array(0, dtype=np.float32))
    return continued(
        path,
        helper.make_node("Constant", [], ["zero"], value=zero),
        helper.make_node("ReduceMax", ["logits"], ["highest"], keepdims=0),
        helper.make_node("Greater", ["highest", "zero"], ["positive"]),
        helper.make_node(
            "If",
            ["positive"],
            ["y"],
            name="choose",
            then_branch=branch("a"),
            else_branch=branch("b"),
        ),
    )


class _Images(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Images that set the ranges of a quantised file."""

    def __init__(self, images: list[NDArray[np.float32]]) -> None:
        self._rest: Iterator[NDArray[np.float32]] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        found = next(self._rest, None)
        return None if found is None else {"image": found}


def quantised(path: Path, *, per_channel: bool = False) -> Path:
    """The embedded network in 8 bits, QDQ, calibrated on digits."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(onnxruntime|onnx|numpy)(\.|$)")
        logging.disable(logging.WARNING)
        try:
            quantize_static(
                EMBEDDED,
                path,
                _Images([digits(64).numpy()]),
                quant_format=QuantFormat.QDQ,
                per_channel=per_channel,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            logging.disable(logging.NOTSET)
    return path


def half(path: Path, *, keep_io: bool) -> Path:
    """The embedded network in float16; `keep_io`: with float32 input and output."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(onnxruntime|onnx|numpy)(\.|$)")
        model = convert_float_to_float16(onnx.load(EMBEDDED), keep_io_types=keep_io)
    onnx.save(model, path)
    return path


def uniform(*shape: int, seed: int = 0) -> Tensor:
    """Uniform noise in [0, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
