"""The generated zoo: parity with onnxruntime, gradients against the native module, heads, batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph

from robustbench_lite.builtin.models.twin import convert

if TYPE_CHECKING:
    from tests.twin.conftest import Zoo

Exporter = Literal["legacy", "dynamo"]
TOLERANCE = 1e-4
OLDEST = {"cnn": 7, "resnet": 9, "vit": 14, "nhwc": 11}
"""The oldest opset that the legacy exporter offers for each network."""

LEGACY = [(name, opset) for name, first in OLDEST.items() for opset in range(first, 21)]
DYNAMO = [(name, opset) for name in OLDEST for opset in range(18, 27)]
QUICK = {("cnn", 18), ("resnet", 18), ("vit", 18), ("vit", 25), ("nhwc", 20)}


def check(zoo: Zoo, name: str, model: onnx.ModelProto, *, judged: bool = True) -> None:
    twin, native, x = convert(model), zoo.build(name), zoo.images(name, 5)
    wanted = zoo.judge(model)(x) if judged else native(x).numpy()
    made = twin(x).detach().numpy()
    assert np.abs(made - wanted).max() <= TOLERANCE * np.abs(wanted).max()
    assert zoo.relative(zoo.gradient(twin, x), zoo.gradient(native, x)) <= TOLERANCE


@pytest.mark.parametrize(("name", "opset"), LEGACY)
def test_parity_and_gradient_of_files_from_the_legacy_exporter(
    zoo: Zoo, name: str, opset: int
) -> None:
    check(zoo, name, zoo.model(name, "legacy", opset))


@pytest.mark.parametrize(
    ("name", "opset"),
    [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in DYNAMO],
)
def test_parity_and_gradient_of_files_from_the_dynamo_exporter(
    zoo: Zoo, name: str, opset: int
) -> None:
    model = zoo.model(name, "dynamo", opset)
    try:
        zoo.judge(model)
    except InvalidGraph:
        # the exporter writes operators that the opset of the file does not have
        assert opset >= 26
        check(zoo, name, model, judged=False)
        return
    check(zoo, name, model)


def test_finite_differences_through_onnxruntime(zoo: Zoo) -> None:
    model = zoo.model("vit", "legacy", 17)
    twin, judge, x = convert(model), zoo.judge(model), zoo.images("vit", 1)
    grad = zoo.gradient(twin, x).numpy()
    weights, rng, eps = np.linspace(-1, 1, 10), np.random.default_rng(0), 1e-2
    for _ in range(4):
        step = rng.choice([-1.0, 1.0], size=grad.shape).astype(np.float32)
        ahead = judge(x + eps * torch.from_numpy(step)) @ weights
        behind = judge(x - eps * torch.from_numpy(step)) @ weights
        slope = float(((ahead - behind) / (2 * eps)).item())
        assert abs(slope - float((grad * step).sum())) <= 1e-2 * np.abs(grad).sum() ** 0.5


def test_the_model_is_not_changed(zoo: Zoo) -> None:
    model = zoo.model("resnet", "legacy", 17)
    before = model.SerializeToString(deterministic=True)
    twin = convert(model)
    twin(zoo.images("resnet"))
    assert model.SerializeToString(deterministic=True) == before


def test_an_unsorted_graph_runs(zoo: Zoo) -> None:
    model = zoo.model("resnet", "legacy", 17)
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    check(zoo, "resnet", model, judged=False)


def test_allowzero_keeps_a_zero(zoo: Zoo) -> None:
    model = zoo.model("vit", "dynamo", 18)
    reshapes = [node for node in model.graph.node if node.op_type == "Reshape"]
    assert any(attr.name == "allowzero" for node in reshapes for attr in node.attribute)
    check(zoo, "vit", model)


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
def test_a_fixed_batch_is_run_in_pieces(zoo: Zoo, exporter: Exporter) -> None:
    model = zoo.model("vit", exporter, 20, batch=False)
    twin, native, x = convert(model), zoo.build("vit"), zoo.images("vit", 10)
    assert twin.batch == 4
    torch.testing.assert_close(twin(x), native(x), rtol=1e-4, atol=1e-5)
    assert zoo.relative(zoo.gradient(twin, x), zoo.gradient(native, x)) <= TOLERANCE


def test_fixed_values_are_remembered_for_each_batch_size(zoo: Zoo) -> None:
    twin, native = convert(zoo.model("vit", "legacy", 17)), zoo.build("vit")
    with torch.inference_mode():
        twin(zoo.images("vit", 3))
    for n in (3, 1, 3, 7, *range(1, 12)):
        x = zoo.images("vit", n)
        torch.testing.assert_close(twin(x), native(x), rtol=1e-4, atol=1e-5)
        assert zoo.gradient(twin, x).shape == x.shape


def test_float64_agrees_with_the_native_module_in_float64(zoo: Zoo) -> None:
    twin = convert(zoo.model("resnet", "legacy", 17), dtype=torch.float64)
    native, x = zoo.build("resnet").double(), zoo.images("resnet").double()
    assert twin(x).dtype == torch.float64
    # the exporter folds BatchNorm into the weights in float32
    torch.testing.assert_close(twin(x), native(x), rtol=1e-5, atol=1e-5)
    small = zoo.images("resnet", 1).double()[:, :, :4, :4].requires_grad_()
    assert torch.autograd.gradcheck(twin, (small,), fast_mode=True)


@pytest.mark.parametrize("name", ["cnn", "resnet", "vit"])
def test_half_precision_files_run_in_float32_on_the_cpu(zoo: Zoo, name: str) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    for keep in (False, True):
        model = convert_float_to_float16(zoo.model(name, "legacy", 17), keep_io_types=keep)
        twin, native, x = convert(model), zoo.build(name), zoo.images(name, 5)
        made, wanted = twin(x).detach().numpy(), zoo.judge(model)(x)
        assert made.dtype == np.float32
        assert twin.is_half
        assert np.abs(made - wanted).max() <= 5e-3 * np.abs(wanted).max()
        # rounded weights move a few elements over the kinks of ReLU and max-pool
        ours, theirs = zoo.gradient(twin, x).flatten(), zoo.gradient(native, x).flatten()
        assert torch.cosine_similarity(ours, theirs, 0) >= 0.999


@pytest.mark.cuda
def test_half_precision_files_run_in_half_on_the_gpu(zoo: Zoo, device: torch.device) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    if device.type != "cuda":
        pytest.skip("needs --device cuda")
    model = convert_float_to_float16(zoo.model("resnet", "legacy", 17))
    twin, x = convert(model), zoo.images("resnet", 5)
    on_cpu = twin(x)
    moved = twin.to(device)
    halves = {b.dtype for b in moved.buffers() if b.dtype.is_floating_point}
    assert halves == {torch.float16}
    made = moved(x.to(device)).cpu()
    assert zoo.relative(made, on_cpu) <= 5e-3
    assert zoo.relative(twin.to("cpu")(x), on_cpu) <= 1e-6


def headed(zoo: Zoo, *nodes: onnx.NodeProto, width: int = 10) -> onnx.ModelProto:
    """The small CNN with more nodes behind it; the last one writes `p`."""
    model = zoo.model("cnn", "legacy", 17)
    model.graph.node.extend(nodes)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", width]))
    return model


@pytest.mark.parametrize(
    ("nodes", "head"),
    [
        ([("Softmax", ["y"], ["p"], {"axis": -1})], "softmax"),
        ([("Softmax", ["y"], ["p"], {"axis": 1})], "softmax"),
        ([("LogSoftmax", ["y"], ["p"], {})], "log-softmax"),
        ([("Softmax", ["y"], ["s"], {}), ("Identity", ["s"], ["p"], {})], "softmax"),
        ([("Softmax", ["y"], ["s"], {}), ("Log", ["s"], ["p"], {})], "log-softmax"),
        ([("Sigmoid", ["y"], ["p"], {})], "logits"),
        ([("Softmax", ["y"], ["p"], {"axis": 0})], "logits"),
    ],
)
def test_the_head_is_found_and_left_out(
    zoo: Zoo, nodes: list[tuple[str, list[str], list[str], dict[str, int]]], head: str
) -> None:
    made = [helper.make_node(op, i, o) for op, i, o, _ in nodes]
    for node, (_, _, _, attributes) in zip(made, nodes, strict=True):
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    model = headed(zoo, *made)
    twin, x = convert(model), zoo.images("cnn")
    assert twin.head == head
    if head != "logits":
        torch.testing.assert_close(twin(x), zoo.build("cnn")(x), rtol=1e-4, atol=1e-5)
    full = convert(model, logits=False)
    assert full.head == "logits"
    np.testing.assert_allclose(full(x).numpy(), zoo.judge(model)(x), rtol=1e-4, atol=1e-5)


def test_the_sigmoid_of_two_classes_is_left_out(zoo: Zoo) -> None:
    model = headed(
        zoo,
        helper.make_node("Slice", ["y", "s0", "s1", "s2"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["p"]),
        width=1,
    )
    for name, value in (("s0", 0), ("s1", 1), ("s2", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    twin, x = convert(model), zoo.images("cnn")
    assert twin.head == "sigmoid"
    torch.testing.assert_close(twin(x), zoo.build("cnn")(x)[:, :1], rtol=1e-4, atol=1e-5)


def test_a_linear_classifier_of_scikit_learn_gives_its_scores() -> None:
    rng = np.random.default_rng(0)
    weights, offsets = rng.normal(size=(3, 4)), rng.normal(size=3)
    nodes = [
        helper.make_node(
            "Scaler", ["x"], ["u"], domain="ai.onnx.ml", offset=[0.1] * 4, scale=[2.0] * 4
        ),
        helper.make_node(
            "LinearClassifier",
            ["u"],
            ["label", "s"],
            domain="ai.onnx.ml",
            coefficients=weights.ravel().tolist(),
            intercepts=offsets.tolist(),
            classlabels_ints=[0, 1, 2],
            post_transform="SOFTMAX",
            multi_class=1,
        ),
        helper.make_node("Normalizer", ["s"], ["p"], domain="ai.onnx.ml", norm="L1"),
        helper.make_node(
            "ZipMap",
            ["p"],
            ["output_probability"],
            domain="ai.onnx.ml",
            classlabels_int64s=[0, 1, 2],
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 3]),
            helper.make_value_info(
                "output_probability",
                helper.make_sequence_type_proto(
                    helper.make_map_type_proto(
                        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
                    )
                ),
            ),
        ],
    )
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    x = torch.from_numpy(rng.normal(size=(6, 4)).astype(np.float32))
    wanted = (x.double().numpy() - 0.1) * 2.0 @ weights.T + offsets
    for output in (None, "output_probability"):
        twin = convert(model, output=output)
        assert twin.head == "softmax"
        np.testing.assert_allclose(twin(x).numpy(), wanted, rtol=1e-4, atol=1e-5)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    judged = session.run(["p"], {"x": x.numpy()})[0]
    full = convert(model, output="p", logits=False)
    np.testing.assert_allclose(full(x).numpy(), judged, rtol=1e-4, atol=1e-6)


def test_a_constant_if_is_folded() -> None:
    def branch(name: str, op: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["x"], [name])], name, [], [out])

    for condition, op in ((True, torch.relu), (False, torch.neg)):
        node = helper.make_node(
            "If", ["c"], ["y"], then_branch=branch("a", "Relu"), else_branch=branch("b", "Neg")
        )
        graph = helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])],
            [numpy_helper.from_array(np.array(condition), "c")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
        assert torch.equal(convert(model)(x), op(x))


def test_model_functions_are_inlined() -> None:
    body = [helper.make_node("Mul", ["a", "a"], ["b"]), helper.make_node("Add", ["b", "a"], ["c"])]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    function = helper.make_function("mine", "Square", ["a"], ["c"], body, opsets[:1])
    graph = helper.make_graph(
        [helper.make_node("Square", ["x"], ["y"], domain="mine")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])],
    )
    model = helper.make_model(graph, opset_imports=opsets, functions=[function])
    x = torch.tensor([[1.0, 2.0, 3.0]])
    twin = convert(model)
    assert torch.equal(twin(x), x * x + x)
    assert twin.operators == {"Mul": 1, "Add": 1}
