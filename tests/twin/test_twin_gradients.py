"""Gradients of every differentiable operator against finite differences, in float64.

The inputs are those of onnx's node tests, so each attribute that they cover is covered here.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from robustbench_lite.builtin.models.twin import program_of, supported
from robustbench_lite.builtin.models.twin.precision import Precision, tensor_of
from robustbench_lite.builtin.models.twin.reader import read
from robustbench_lite.builtin.models.twin.table import find

PIECEWISE_CONSTANT = {
    *("ArgMax", "ArgMin", "Binarizer", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot"),
    *("BitwiseOr", "BitwiseXor", "And", "Or", "Xor", "Not", "Equal", "Greater", "Less"),
    *("GreaterOrEqual", "LessOrEqual", "IsInf", "IsNaN", "Ceil", "Floor", "Round", "Sign"),
    *("Constant", "ConstantOfShape", "EyeLike", "Hardmax", "NonZero", "Range", "Shape", "Size"),
    *("HannWindow", "HammingWindow", "BlackmanWindow", "Unique", "If"),
}
"""Their derivative is 0 where it exists."""

STRAIGHT_THROUGH = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv"),
    *("QLinearMatMul", "ConvInteger", "MatMulInteger"),
}
"""Their gradient is an estimator by design: see test_twin_quantised."""

KINKS = {
    "Cast": "casts to narrow types round",
    "CastLike": "casts to narrow types round",
    "Imputer": "NaN among the inputs",
    "GlobalLpPool": "has no node test",
    "MaxRoiPool": "has no node test",
    "Mod": "the example divides integers or sits on a jump",
}
KINKED_CASES = {
    "test_basic_deform_conv": "the offsets sit on the grid, where bilinear sampling has a kink",
}
IMAGE_ONLY = {"RoiAlign"}
"""Regions move whole samples over the edge of the image: a jump of the definition itself."""

CASES_EACH, ELEMENTS = 8, 2000
DIFFERENTIABLE = [
    name
    for name in supported()[""]
    if name not in PIECEWISE_CONSTANT | STRAIGHT_THROUGH and name not in KINKS
]


def tensor(value: object) -> Tensor:
    proto = value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value))
    return tensor_of(proto, Precision(torch.float64))


def usable(case: TestCase) -> bool:
    model = case.model
    if model is None or "training" in case.name or case.name in KINKED_CASES:
        return False
    kinds = {value.type.tensor_type.elem_type for value in model.graph.input}
    narrow = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.STRING, 0}
    sizes = [np.asarray(v).size for inputs, _ in case.data_sets or () for v in inputs]
    return bool(
        not kinds & narrow and TensorProto.FLOAT in kinds and max(sizes) <= ELEMENTS and min(sizes)
    )


def smooth(case: TestCase, model: onnx.ModelProto) -> None:
    graph = read(model)
    program, _ = program_of(graph, list(graph.outputs), dtype=torch.float64)
    node = model.graph.node[0]
    entry = find("", node.op_type, graph.opsets[""])
    assert entry is not None
    hosted = {name for place, name in enumerate(node.input) if place in entry.host}
    values = [tensor(value) for value in (case.data_sets or ())[0][0]]
    names = list(graph.inputs)
    free = [
        place
        for place, x in enumerate(values)
        if x.is_floating_point() and names[place] not in hosted and torch.isfinite(x).all()
    ]
    if node.op_type in IMAGE_ONLY:
        free = free[:1]

    def function(*inputs: Tensor) -> tuple[Tensor, ...]:
        full = list(values)
        for place, x in zip(free, inputs, strict=True):
            full[place] = x
        return tuple(y for y in program(*full) if y.is_floating_point() and y.requires_grad)

    generator = torch.Generator().manual_seed(0)
    inputs = [_off_the_grid(values[place], generator).requires_grad_() for place in free]
    if inputs and function(*inputs):
        assert torch.autograd.gradcheck(function, inputs, fast_mode=True, atol=1e-4, rtol=1e-3)


def _off_the_grid(x: Tensor, generator: torch.Generator) -> Tensor:
    """x moved a little: the examples like to sit on kinks (0 for ReLU, ties for a maximum)."""
    return x + 0.003 * torch.rand(x.shape, dtype=x.dtype, generator=generator) + 0.001


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
def test_gradients_agree_with_finite_differences(
    operator: str, cases: dict[str, list[TestCase]]
) -> None:
    mine = [case for case in cases.get(operator, []) if usable(case)]
    for case in mine[:CASES_EACH]:
        assert case.model is not None
        try:
            smooth(case, case.model)
        except GradcheckError as problem:
            pytest.fail(f"{case.name}: {problem}")


def test_the_gradient_of_a_global_norm_pool() -> None:
    from onnx import helper

    graph = helper.make_graph(
        [helper.make_node("GlobalLpPool", ["x"], ["y"], p=3)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 1, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    read_graph = read(model)
    program, _ = program_of(read_graph, ["y"], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator)
    wanted = (x.abs() ** 3).sum((2, 3), keepdim=True) ** (1 / 3)
    torch.testing.assert_close(program(x)[0], wanted)
    assert torch.autograd.gradcheck(program, (x.requires_grad_(),), fast_mode=True)
