"""Quantised files: parity, the straight-through gradient, fused pairs, dynamic quantisation."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from robustbench_lite.builtin.models.twin import ModelError, convert
from robustbench_lite.builtin.models.twin.quant import fake_quantised, quantised

if TYPE_CHECKING:
    from tests.twin.conftest import Zoo


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Calibration images."""

    def __init__(self, images: list[NDArray[np.float32]]) -> None:
        self._rest: Iterator[NDArray[np.float32]] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        found = next(self._rest, None)
        return None if found is None else {"x": found}


def static(
    zoo: Zoo, name: str, *, per_channel: bool, layout: QuantFormat = QuantFormat.QDQ
) -> onnx.ModelProto:
    """The zoo's network, quantised with calibration."""
    images = [zoo.images(name, 8).numpy() for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(onnxruntime|onnx|numpy)(\.|$)")
        logging.disable(logging.WARNING)
        source, target = Path(folder) / "m.onnx", Path(folder) / "q.onnx"
        onnx.save(zoo.model(name, "legacy", 17), source)
        quantize_static(
            source,
            target,
            Reader(images),
            quant_format=layout,
            per_channel=per_channel,
            activation_type=QuantType.QInt8 if per_channel else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        logging.disable(logging.NOTSET)
        return onnx.load(target)


def dynamic(zoo: Zoo, name: str) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(onnxruntime|onnx|numpy)(\.|$)")
        logging.disable(logging.WARNING)
        source, target = Path(folder) / "m.onnx", Path(folder) / "q.onnx"
        onnx.save(zoo.model(name, "legacy", 17), source)
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8)
        logging.disable(logging.NOTSET)
        return onnx.load(target)


def check(zoo: Zoo, name: str, model: onnx.ModelProto, *, cosine: float) -> None:
    """The gap to onnxruntime stays below a part of the quantisation error itself."""
    twin, native, x = convert(model), zoo.build(name), zoo.images(name, 16)
    made = twin(x).detach().numpy()
    judged, plain = zoo.judge(model)(x), zoo.judge(model, optimised=False)(x)
    size = np.abs(judged).max()
    own = np.abs(judged - plain).max()
    # sums in another order flip single roundings, which the last layer shows as a step of 1/128
    assert np.abs(made - judged).max() <= max(2e-2 * size, 2 * own)
    assert np.mean(np.abs(made - plain)) <= 5e-3 * size
    ours, theirs = zoo.gradient(twin, x).flatten(), zoo.gradient(native, x).flatten()
    assert torch.cosine_similarity(ours, theirs, 0) >= cosine


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("name", "cosine"), [("cnn", 0.9), ("resnet", 0.97), ("vit", 0.97)])
def test_qdq_files(zoo: Zoo, name: str, cosine: float, per_channel: bool) -> None:
    model = static(zoo, name, per_channel=per_channel)
    check(zoo, name, model, cosine=cosine)
    kinds = {step.label.split()[-1] for step in convert(model).program.steps}
    assert "(QuantizeLinear)" not in kinds
    assert "(DequantizeLinear)" not in kinds


def test_files_of_quantised_operators(zoo: Zoo) -> None:
    model = static(zoo, "cnn", per_channel=False, layout=QuantFormat.QOperator)
    assert {"QLinearConv", "com.microsoft.QGemm"} <= set(convert(model).operators)
    check(zoo, "cnn", model, cosine=0.9)


@pytest.mark.parametrize(("name", "cosine"), [("cnn", 0.9), ("vit", 0.95)])
def test_dynamically_quantised_files(zoo: Zoo, name: str, cosine: float) -> None:
    model = dynamic(zoo, name)
    assert "DynamicQuantizeLinear" in convert(model).operators
    check(zoo, name, model, cosine=cosine)


def test_rounding_passes_the_gradient_and_clipping_cuts_it() -> None:
    x = torch.tensor([-3.0, -1.0, -0.26, 0.0, 0.24, 1.26, 2.0], requires_grad=True)
    scale = torch.tensor(0.01)
    made = fake_quantised(x, scale, -128.0, 127.0)
    (grad,) = torch.autograd.grad(made.sum(), x)
    torch.testing.assert_close(made, torch.clamp(torch.round(x / 0.01), -128, 127) * 0.01)
    assert grad.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    integers = quantised(x / scale, TensorProto.UINT8, torch.tensor(100.0))
    (grad,) = torch.autograd.grad(integers.sum(), x)
    assert integers.tolist() == [0.0, 0.0, 74.0, 100.0, 124.0, 226.0, 255.0]
    assert grad.tolist() == pytest.approx([0.0, 100.0, 100.0, 100.0, 100.0, 100.0, 0.0])


def graph(nodes: list[onnx.NodeProto], elem: int = TensorProto.FLOAT) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", elem, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [
            numpy_helper.from_array(np.array(0.1, dtype=np.float32), "s"),
            numpy_helper.from_array(np.array(3, dtype=np.int8), "z"),
        ],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)])


def test_operators_between_quantisation_and_dequantisation_keep_the_gradient() -> None:
    model = graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("Transpose", ["q"], ["t"], perm=[1, 0]),
            helper.make_node("Transpose", ["t"], ["u"], perm=[1, 0]),
            helper.make_node("DequantizeLinear", ["u", "s", "z"], ["y"]),
        ]
    )
    x = torch.tensor([[0.04, 0.26, 50.0]], requires_grad=True)
    made = convert(model)(x)
    torch.testing.assert_close(made, torch.tensor([[0.0, 0.3, 12.4]]))
    assert convert(model).output_step == pytest.approx(0.1)
    (grad,) = torch.autograd.grad(made.sum(), x)
    assert grad[0].tolist() == pytest.approx([1.0, 1.0, 0.0])


def test_a_second_rounding_to_the_same_grid_falls_away() -> None:
    pair = [("QuantizeLinear", "q"), ("DequantizeLinear", "d")]
    nodes, name = [], "x"
    for turn in range(3):
        for op, letter in pair:
            made = f"{letter}{turn}" if (turn, letter) != (2, "d") else "y"
            nodes.append(helper.make_node(op, [name, "s", "z"], [made]))
            name = made
    labels = [step.label for step in convert(graph(nodes)).program.steps]
    assert sum("FakeQuantize" in label for label in labels) == 1


def test_images_of_bytes_are_fed_as_floats_with_a_gradient() -> None:
    model = graph(
        [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["f", "s"], ["y"]),
        ],
        TensorProto.UINT8,
    )
    x = torch.tensor([[1.0, 2.0, 250.0]], requires_grad=True)
    made = convert(model)(x)
    torch.testing.assert_close(made, torch.tensor([[0.1, 0.2, 25.0]]))
    (grad,) = torch.autograd.grad(made.sum(), x)
    assert grad[0].tolist() == pytest.approx([0.1, 0.1, 0.1])


def test_integer_arithmetic_on_quantised_values_is_refused() -> None:
    model = graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("Mul", ["q", "q"], ["m"], name="square"),
            helper.make_node("DequantizeLinear", ["m", "s", "z"], ["y"]),
        ]
    )
    with pytest.raises(ModelError, match=r"Mul \(node 'square'\).*gradient"):
        convert(model)
