"""Files that are damaged, hostile or not supported: a clear message, in bounded time and memory."""

from __future__ import annotations

import resource
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper

from robustbench_lite.builtin.models.twin import ModelError, convert


def model_of(
    nodes: Sequence[NodeProto],
    initializers: Sequence[TensorProto] = (),
    *,
    domains: Sequence[str] = (),
    inputs: Sequence[str] = ("x",),
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(graph, opset_imports=opsets)


def ints(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def node(op: str, inputs: str, outputs: str, **attributes: int | str) -> NodeProto:
    made = helper.make_node(op, inputs.split(), outputs.split(), name=f"the_{op}")
    made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return made


def lying(location: str | None = None) -> TensorProto:
    """A tensor that declares 4 GiB and holds nothing, or keeps its data elsewhere."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 15, 1 << 15])
    if location is None:
        tensor.raw_data = b"abcd"
    else:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    return tensor


BAD = {
    "cyclic": (
        model_of([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")]),
        "cyclic",
    ),
    "cyclic on itself": (model_of([node("Add", "x y", "y")]), "cyclic"),
    "missing input": (model_of([node("Add", "x nowhere", "y")]), "'nowhere'"),
    "value written twice": (model_of([node("Relu", "x", "y"), node("Neg", "x", "y")]), "same"),
    "gigabytes declared": (model_of([node("MatMul", "x w", "y")], [lying()]), "declares"),
    "external, absolute": (
        model_of([node("MatMul", "x w", "y")], [lying("/etc/hostname")]),
        "outside",
    ),
    "external, upwards": (
        model_of([node("MatMul", "x w", "y")], [lying("a/../../secret")]),
        "outside",
    ),
    "external, not loaded": (
        model_of([node("MatMul", "x w", "y")], [lying("weights.bin")]),
        "not loaded",
    ),
    "unknown domain": (
        model_of(
            [helper.make_node("Fancy", ["x"], ["y"], domain="acme", name="f")], domains=["acme"]
        ),
        r"acme\.Fancy \(node 'f'\).*unknown",
    ),
    "undeclared domain": (
        model_of([helper.make_node("Fancy", ["x"], ["y"], domain="acme")]),
        "not declared",
    ),
    "unsupported operator": (model_of([node("NonMaxSuppression", "x x", "y")]), "export the model"),
    "two inputs": (model_of([node("Add", "x z", "y")], inputs=["x", "z"]), "one image input"),
    "opset too old": (model_of([node("Relu", "x", "y")], opset=6), "opset 6"),
    "opset too new": (model_of([node("Relu", "x", "y")], opset=999), "opset 999"),
    "no graph": (onnx.ModelProto(), "no graph"),
    "training mode": (
        model_of(
            [node("Dropout", "x r t", "y")],
            [
                numpy_helper.from_array(np.array(0.5, dtype=np.float32), "r"),
                numpy_helper.from_array(np.array(True), "t"),
            ],
        ),
        "training",
    ),
    "constants that ask for too much": (
        model_of(
            [node("ConstantOfShape", "s", "c"), node("Add", "x c", "y")], [ints("s", 1 << 40)]
        ),
        "allowed",
    ),
    "constants that multiply to too much": (
        model_of(
            [
                node("ConstantOfShape", "s", "a"),
                node("ConstantOfShape", "t", "b"),
                node("Add", "a b", "c"),
                node("Add", "x c", "y"),
            ],
            [ints("s", 1 << 14, 1), ints("t", 1, 1 << 14)],
        ),
        "allowed",
    ),
    "constants that repeat too much": (
        model_of(
            [node("Tile", "s r", "t"), node("Reshape", "x t", "y")],
            [ints("s", 1), ints("r", 1 << 40)],
        ),
        "allowed",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_refused_with_a_reason(kind: str) -> None:
    model, text = BAD[kind]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match=text):
        convert(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_file_of_200_bytes_that_declares_gigabytes_is_that_small() -> None:
    model, _ = BAD["gigabytes declared"]
    assert model.ByteSize() < 200


def test_an_unknown_output_is_named() -> None:
    with pytest.raises(ModelError, match=r"no output 'q'; it has \['y'\]"):
        convert(model_of([node("Relu", "x", "y")]), output="q")


def test_shapes_that_overflow_int64_are_refused() -> None:
    for op, text in (("Mul", "overflows int64"), ("Add", "overflows int64")):
        big = (1 << 63) - 1
        model = model_of(
            [
                node("Shape", "x", "s"),
                node(op, "s big", "t"),
                node("Expand", "x t", "y"),
            ],
            [ints("big", big)],
        )
        with pytest.raises(ModelError, match=text):
            convert(model)(torch.ones(2, 3))


def test_a_product_of_sizes_that_overflows_is_refused() -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("Mul", "s big", "t"),
        node("ReduceProd", "t", "p", keepdims=1),
        node("ConstantOfShape", "p", "c"),
        node("Add", "x c", "y"),
    ]
    with pytest.raises(ModelError, match="overflows"):
        convert(model_of(nodes, [ints("big", 1 << 40)]))(torch.ones(2, 3))


def test_an_input_of_another_size_names_the_node() -> None:
    weights = numpy_helper.from_array(np.ones((3, 4), dtype=np.float32), "w")
    twin = convert(model_of([node("MatMul", "x w", "y")], [weights]))
    with pytest.raises(ModelError, match="the_MatMul"):
        twin(torch.ones(2, 5))


def test_functions_that_call_each_other_many_times_are_counted_before_they_are_inlined() -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    functions = []
    for level in range(40):
        inner = f"f{level - 1}"
        body = [
            helper.make_node(inner, ["a"], ["b"], domain="mine"),
            helper.make_node(inner, ["b"], ["c"], domain="mine"),
        ]
        if level == 0:
            body = [helper.make_node("Relu", ["a"], ["c"])]
        functions.append(helper.make_function("mine", f"f{level}", ["a"], ["c"], body, opsets))
    model = model_of([helper.make_node("f39", ["x"], ["y"], domain="mine")], domains=["mine"])
    model.functions.extend(functions)
    with pytest.raises(ModelError, match="nodes, more than"):
        convert(model)


def test_a_function_that_calls_itself_is_refused() -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    body = [helper.make_node("f", ["a"], ["c"], domain="mine")]
    model = model_of([helper.make_node("f", ["x"], ["y"], domain="mine")], domains=["mine"])
    model.functions.append(helper.make_function("mine", "f", ["a"], ["c"], body, opsets))
    with pytest.raises(ModelError, match="calls itself"):
        convert(model)


def test_a_branch_that_depends_on_the_input_is_refused() -> None:
    def branch(name: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Relu", ["x"], [name])], name, [], [out])

    nodes = [
        node("ReduceMax", "x", "m", keepdims=0),
        node("Greater", "m zero", "c"),
        helper.make_node("If", ["c"], ["y"], then_branch=branch("a"), else_branch=branch("b")),
    ]
    zero = numpy_helper.from_array(np.array(0, dtype=np.float32), "zero")
    with pytest.raises(ModelError, match="condition is not a constant"):
        convert(model_of(nodes, [zero]))
