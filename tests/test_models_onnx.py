"""The `onnx` loader: what onnxruntime gives through it, and every file and graph it refuses."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from safetensors.torch import save_file
from torch import Tensor

from robustbench_lite import EnvironmentProblem, LoadedModel, ModelError, Places
from robustbench_lite.builtin.models import ONNX
from robustbench_lite.builtin.models.onnx_file import load
from robustbench_lite.builtin.models.onnx_session import CPU, CUDA, require_cuda, require_provider
from robustbench_lite.builtin.models.parameters import OnnxParams
from robustbench_lite.params import package_file

Array = NDArray[np.generic]
CLASSES, SIDE = 3, 5
WEIGHTS = np.random.default_rng(0).normal(size=(SIDE * SIDE, CLASSES)).astype(np.float32)


def opened(path: Path, device: str = "cpu", **fields: object) -> LoadedModel:
    params = OnnxParams.model_validate({"path": path, **fields})
    places = Places(suite=path.parent, data=None, cache=path.parent)
    return load(params, places=places, device=device, threads=1)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, Array] | None = None,
    opsets: Sequence[tuple[str, int]] = (("", 17),),
) -> Path:
    named = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), named)
    imports = [helper.make_opsetid(domain, number) for domain, number in opsets]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def value(name: str, kind: int, *shape: int | str | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def linear(
    path: Path,
    *,
    shape: Sequence[int | str | None] = ("n", 1, SIDE, SIDE),
    kind: int = TensorProto.FLOAT,
    last: str | None = None,
    weights: NDArray[np.float32] = WEIGHTS,
    columns: int | str | None = CLASSES,
    batch: int | str | None = "n",
) -> Path:
    """logits = flat(x) @ weights in float32, `last` an operator on them, inputs cast from `kind`."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "W"], ["z" if last else "y"]),
    ]
    if last:
        nodes.append(helper.make_node(last, ["z"], ["y"]))
    y = value("y", TensorProto.FLOAT, batch, columns)
    return save(path, nodes, [value("x", kind, *shape)], [y], {"W": weights})


def images(n: int) -> Tensor:
    return torch.rand(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(n))


def logits(x: Tensor, weights: NDArray[np.float32] = WEIGHTS) -> Tensor:
    return x.flatten(1) @ torch.from_numpy(weights)


# ---------------------------------------------------------------- what it computes


def test_a_graph_gives_what_the_formula_says(tmp_path: Path) -> None:
    model = opened(linear(tmp_path / "m.onnx"))
    x = images(5)
    assert torch.allclose(model.predict(x), logits(x), atol=1e-5)
    assert (model.num_classes, model.output, model.provider) == (CLASSES, "logits", CPU)
    assert model.input_shape == (1, SIDE, SIDE)
    assert model.differentiable is not None
    assert torch.allclose(model.differentiable(x), logits(x), atol=1e-5)
    assert model.facts["batch"] == "dynamic"
    assert model.facts["opset"] == {"ai.onnx": 17}
    assert model.facts["inputs"] == [
        {"name": "x", "type": "float32", "shape": ["n", 1, SIDE, SIDE]}
    ]


def test_the_embedded_network_agrees_with_the_reference_evaluator() -> None:
    path = package_file("pkg://robustbench_lite/embedded/mnist_cnn.onnx")
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    (reference,) = ReferenceEvaluator(str(path)).run(None, {"image": x.numpy()})
    assert torch.allclose(opened(path).predict(x), torch.from_numpy(reference), atol=1e-4)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(0, 11), fixed=st.integers(1, 5))
def test_a_fixed_batch_is_padded_and_sliced(tmp_path: Path, n: int, fixed: int) -> None:
    path = tmp_path / f"fixed{fixed}.onnx"
    if not path.exists():
        linear(path, shape=(fixed, 1, SIDE, SIDE), batch=fixed)
    model = opened(path)
    assert model.facts["batch"] == fixed
    assert model.predict(images(n)).shape == (n, CLASSES)
    assert torch.allclose(model.predict(images(n)), logits(images(n)), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        (("n", 1, SIDE, SIDE), "NCHW"),
        (("n", SIDE, SIDE, 1), "NHWC"),
        (("n", SIDE * SIDE), "flat"),
        (("n", SIDE, SIDE), "NHW"),
        (("n", None, None, None), "NCHW"),
    ],
)
def test_the_layout_is_read_from_the_graph(
    tmp_path: Path, shape: tuple[int | str | None, ...], layout: str
) -> None:
    model = opened(linear(tmp_path / "m.onnx", shape=shape))
    assert model.facts["layout"] == layout
    assert model.input_shape == ((1, SIDE, SIDE) if None not in shape and len(shape) == 4 else None)
    assert torch.allclose(model.predict(images(2)), logits(images(2)), atol=1e-5)


def test_channels_last_sees_the_channels_last(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)],
        [value("x", TensorProto.FLOAT, "n", 5, 7, 3)],
        [value("y", TensorProto.FLOAT, "n", 3)],
    )
    x = torch.rand(2, 3, 5, 7)
    model = opened(path)
    assert model.input_shape == (3, 5, 7)
    assert torch.allclose(model.predict(x), x.mean(dim=(2, 3)), atol=1e-6)
    with pytest.raises(ModelError, match=r"layout: NHWC needs inputs"):
        model.predict(torch.rand(2, 105))
    declared = opened(path, layout="NCHW", input_shape=[5, 7, 3])
    assert torch.allclose(declared.predict(x.permute(0, 2, 3, 1)), x.mean(dim=(2, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [(TensorProto.FLOAT16, 2e-2), (TensorProto.DOUBLE, 1e-5), (TensorProto.FLOAT, 1e-5)],
)
def test_other_float_types_are_fed_as_they_want(
    tmp_path: Path, kind: int, tolerance: float
) -> None:
    out = opened(linear(tmp_path / "m.onnx", kind=kind)).predict(images(4))
    assert out.dtype == torch.float32
    assert torch.allclose(out, logits(images(4)), atol=tolerance)


def test_bytes_are_rounded_after_the_declared_scale(tmp_path: Path) -> None:
    model = opened(linear(tmp_path / "m.onnx", kind=TensorProto.UINT8), scale=255)
    x = images(4)
    assert torch.allclose(model.predict(x), logits((x * 255).round()), atol=1e-2)
    assert torch.allclose(model.predict(x + 9), logits(torch.full_like(x, 255)), atol=1e-2)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_scores_of_other_float_types_come_out_as_float32(tmp_path: Path, kind: int) -> None:
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("Cast", ["x"], ["y"], to=kind)],
        [value("x", TensorProto.FLOAT, "n", 3)],
        [value("y", kind, "n", 3)],
    )
    x = torch.rand(2, 3)
    out = opened(path).predict(x)
    assert out.dtype == torch.float32
    assert torch.allclose(out, x, atol=1e-3)


def test_preprocessing_comes_before_the_graph(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx")
    model = opened(path, mean=0.5, std=0.25, scale=2.0, resize=SIDE)
    x = images(3)
    assert torch.allclose(model.predict(x), logits((2 * x - 0.5) / 0.25), atol=1e-4)
    large = torch.full((2, 1, 9, 9), 0.5)
    assert torch.allclose(
        model.predict(large), logits(torch.full((2, 1, SIDE, SIDE), 2.0)), atol=1e-4
    )
    assert model.input_shape is None


def test_inputs_that_are_not_contiguous_are_read_right(tmp_path: Path) -> None:
    x = images(6).transpose(2, 3)[::2]
    assert torch.allclose(
        opened(linear(tmp_path / "m.onnx")).predict(x), logits(x.contiguous()), atol=1e-5
    )


@pytest.mark.parametrize(
    "declared", [{}, {"mean": 0.3, "std": 0.5}, {"scale": 255.0}, {"resize": SIDE}], ids=str
)
def test_the_input_is_left_as_it_was(tmp_path: Path, declared: dict[str, object]) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),  # an operator that a runtime likes to do in place
        helper.make_node("Flatten", ["r"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "W"], ["y"]),
    ]
    ports = value("x", TensorProto.FLOAT, "n", 1, SIDE, SIDE), value("y", 1, "n", CLASSES)
    path = save(tmp_path / "m.onnx", nodes, ports[:1], ports[1:], {"W": WEIGHTS})
    model = opened(path, "cpu", **declared)
    assert model.leaves_input
    side = SIDE + 2 if "resize" in declared else SIDE
    x = torch.rand(4, 1, side, side, generator=torch.Generator().manual_seed(0)) - 0.5
    kept = x.clone()
    model.predict(x)
    assert torch.equal(x, kept)


def test_the_output_is_the_callers_own(tmp_path: Path) -> None:
    model = opened(linear(tmp_path / "m.onnx"))
    first = model.predict(images(2))
    kept = first.clone()
    model.predict(images(7))
    assert torch.equal(first, kept)


# ---------------------------------------------------------------- outputs


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (None, "logits"),
        ("Softmax", "probabilities"),
        ("Sigmoid", "probabilities"),
        ("LogSoftmax", "log-probabilities"),
        ("Relu", "logits"),
    ],
)
def test_the_operator_at_the_end_says_what_the_output_is(
    tmp_path: Path, last: str | None, kind: str
) -> None:
    path = linear(tmp_path / "m.onnx", last=last)
    assert opened(path).output == kind
    assert opened(path, output_kind="logits").output == "logits"


def test_a_softmax_is_seen_behind_reshapes_casts_and_a_logarithm(tmp_path: Path) -> None:
    def kind(*ends: str) -> str:
        names = ["x", *(f"t{i}" for i in range(len(ends) - 1)), "y"]
        nodes = [
            helper.make_node("Cast", [a], [b], to=TensorProto.FLOAT)
            if op == "Cast"
            else helper.make_node(op, [a], [b])
            for op, a, b in zip(ends, names, names[1:], strict=False)
        ]
        x, y = value("x", TensorProto.FLOAT, "n", 3), value("y", TensorProto.FLOAT, "n", 3)
        return opened(save(tmp_path / "m.onnx", nodes, [x], [y])).output

    assert kind("Softmax", "Identity", "Cast", "Flatten") == "probabilities"
    assert kind("Softmax", "Log") == "log-probabilities"
    assert kind("Exp", "Log") == "logits"
    assert kind("Softmax", "Neg") == "logits"


def test_one_column_becomes_two_classes(tmp_path: Path) -> None:
    weights = WEIGHTS[:, :1].copy()
    x = images(5)
    z = logits(x, weights)
    score = opened(linear(tmp_path / "m.onnx", weights=weights, columns=1))
    assert score.num_classes == 2
    assert torch.allclose(score.predict(x), torch.cat([0 * z, z], 1), atol=1e-5)
    sigmoid = opened(linear(tmp_path / "m.onnx", last="Sigmoid", weights=weights, columns=None))
    p = z.sigmoid()
    assert sigmoid.num_classes == 2
    assert torch.allclose(sigmoid.predict(x), torch.cat([1 - p, p], 1), atol=1e-5)


def test_the_number_of_classes_is_declared_or_tried(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx", columns=None)
    assert opened(path).num_classes == CLASSES
    free = linear(tmp_path / "f.onnx", columns=None, shape=("n", None, None, None))
    with pytest.raises(ModelError, match=r"add num_classes, or input_shape"):
        opened(free)
    assert opened(free, input_shape=[1, SIDE, SIDE]).num_classes == CLASSES
    assert opened(free, num_classes=CLASSES).predict(images(2)).shape == (2, CLASSES)
    with pytest.raises(ModelError, match=r"returns shape \[2, 3\]; expected \[n, 9\]"):
        opened(free, num_classes=9).predict(images(2))


def several(path: Path, *, floats: bool) -> Path:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        helper.make_node("Softmax", ["x"], ["probabilities"]),
        helper.make_node("Identity", ["x"], ["features"]),
    ]
    outputs = [
        value("label", TensorProto.INT64, "n"),
        value("probabilities", TensorProto.FLOAT, "n", 3),
        value("features", TensorProto.FLOAT, "n", 3),
    ]
    x = value("x", TensorProto.FLOAT, "n", 3)
    return save(path, nodes, [x], outputs if floats else outputs[:2])


def test_the_only_float_output_is_taken_and_a_choice_is_asked_for(tmp_path: Path) -> None:
    model = opened(several(tmp_path / "two.onnx", floats=False))
    assert (model.output, model.facts["output"]) == ("probabilities", "probabilities")
    three = several(tmp_path / "three.onnx", floats=True)
    with pytest.raises(ModelError, match=r"2 outputs of float scores.*output: probabilities"):
        opened(three)
    assert opened(three, output="features").output == "logits"
    with pytest.raises(ModelError, match=r"no output 'feature'; did you mean 'features'"):
        opened(three, output="feature")
    with pytest.raises(
        ModelError, match=r"'label' int64 .n. holds no scores.*Choose one of floats"
    ):
        opened(three, output="label")


def zipmap(path: Path) -> Path:
    kinds = helper.make_sequence_type_proto(
        helper.make_map_type_proto(
            TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
        )
    )
    nodes = [
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
    ]
    outputs = [value("label", TensorProto.INT64, "n"), helper.make_value_info("y", kinds)]
    x = value("x", TensorProto.FLOAT, "n", 2)
    return save(path, nodes, [x], outputs, opsets=(("", 17), ("ai.onnx.ml", 3)))


def test_a_zipmap_is_refused_with_the_way_to_export(tmp_path: Path) -> None:
    path = zipmap(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"sequence\(map\(int64.*'zipmap': False"):
        opened(path)
    with pytest.raises(ModelError, match=r"holds no scores"):
        opened(path, output="y")


def test_only_a_label_is_refused(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)],
        [value("x", TensorProto.FLOAT, "n", 3)],
        [value("label", TensorProto.INT64, "n")],
    )
    with pytest.raises(ModelError, match=r"not only the label"):
        opened(path)


@pytest.mark.parametrize(("transform", "kind"), [("SOFTMAX", "probabilities"), ("NONE", "logits")])
def test_a_classical_classifier_says_what_its_scores_are(
    tmp_path: Path, transform: str, kind: str
) -> None:
    node = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "scores"],
        domain="ai.onnx.ml",
        coefficients=[1.0, 0.0, 0.0, 1.0, 1.0, 1.0],
        intercepts=[0.0, 0.0, 0.0],
        classlabels_ints=[0, 1, 2],
        multi_class=1,
        post_transform=transform,
    )
    outputs = [value("label", TensorProto.INT64, "n"), value("scores", TensorProto.FLOAT, "n", 3)]
    x = torch.rand(4, 2)
    path = save(
        tmp_path / "m.onnx",
        [node],
        [value("x", TensorProto.FLOAT, "n", 2)],
        outputs,
        opsets=(("", 17), ("ai.onnx.ml", 3)),
    )
    model = opened(path)
    z = torch.cat([x, x.sum(1, keepdim=True)], 1)
    assert model.output == kind
    exact = z.softmax(1) if transform == "SOFTMAX" else z
    assert torch.allclose(model.predict(x), exact, atol=1e-6)


# ---------------------------------------------------------------- inputs


def test_a_second_input_is_refused_but_an_initializer_is_none(tmp_path: Path) -> None:
    x, w = value("x", TensorProto.FLOAT, "n", 2), value("W", TensorProto.FLOAT, 2, 3)
    y = value("y", TensorProto.FLOAT, "n", 3)
    node = helper.make_node("MatMul", ["x", "W"], ["y"])
    two = save(tmp_path / "two.onnx", [node], [x, w], [y])
    with pytest.raises(
        ModelError, match=r"2 inputs .'x' float32.*'W' float32.*; robeval feeds one"
    ):
        opened(two)
    weights = np.ones((2, 3), dtype=np.float32)
    one = opened(save(tmp_path / "one.onnx", [node], [x, w], [y], {"W": weights}), input="x")
    assert torch.equal(one.predict(torch.ones(1, 2)), torch.full((1, 3), 2.0))
    with pytest.raises(ModelError, match=r"no input 'X'; did you mean|no input 'X'"):
        opened(tmp_path / "one.onnx", input="X")


def test_an_input_of_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'x' int64 .*cannot be fed with images"):
        opened(linear(tmp_path / "m.onnx", kind=TensorProto.INT64))


def test_data_of_another_shape_are_refused_with_the_declared_one(tmp_path: Path) -> None:
    model = opened(linear(tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match=r"refuses inputs of shape \[2, 1, 9, 9\].*\[n, 1, 5, 5\]"):
        model.predict(torch.rand(2, 1, 9, 9))


def test_an_output_without_the_batch_first_is_refused(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)],
        [value("x", TensorProto.FLOAT, "n", 3)],
        [value("y", TensorProto.FLOAT, 1, 1)],
    )
    with pytest.raises(ModelError, match=r"one row per input, the batch first"):
        opened(path).predict(torch.rand(4, 3))


def test_memory_that_cannot_be_had_is_out_of_memory(tmp_path: Path) -> None:
    shape = np.array([1 << 45], dtype=np.int64)
    nodes = [
        helper.make_node("ConstantOfShape", ["S"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["s"], keepdims=0),
        helper.make_node("Mul", ["x", "s"], ["y"]),
    ]
    x, y = value("x", TensorProto.FLOAT, "n", 3), value("y", TensorProto.FLOAT, "n", 3)
    path = save(tmp_path / "m.onnx", nodes, [x], [y], {"S": shape})
    with pytest.raises(torch.OutOfMemoryError, match=r"Failed to allocate"):
        opened(path).predict(torch.rand(2, 3))


# ---------------------------------------------------------------- files


def zip_bytes(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"x")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty .0 bytes."),
        (b"<!DOCTYPE html>\n<html>Sign in</html>", "an HTML page: the download was"),
        (b"  <HTML><body>404", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "git lfs pull"),
        (pickle.dumps({"weights": 1}), "a Python pickle"),
        (b"\x1c\x00\x00\x00TFL3\x00", "TensorFlow Lite.*tf2onnx"),
        (b"\x1c\x00\x00\x00ORTM\x00", "onnxruntime .ort file"),
        (b"\x89HDF\r\n\x1a\n", "Keras"),
        (b"PK\x03\x04 cut", "truncated"),
        (b"not a model at all, only words", "no ONNX"),
        (b"\x08\x08", "no ONNX model, or a truncated one: it has no opset"),
        (bytes(64), "no ONNX"),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        opened(path)


def test_weights_and_archives_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match=r"a safetensors file .weights only.; expected an ONNX"):
        opened(path)
    torch.save({"w": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match=r"a file of torch\.save"):
        opened(path)
    zip_bytes(path)
    with pytest.raises(ModelError, match=r"a NumPy .npz archive"):
        opened(path)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    linear(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"does not exist; did you mean 'model.onnx'"):
        opened(tmp_path / "modell.onnx")
    with pytest.raises(ModelError, match=r"is a folder"):
        opened(tmp_path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.0, 1.0, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, share: float) -> None:
    whole = package_file("pkg://robustbench_lite/embedded/mnist_cnn.onnx").read_bytes()
    path = tmp_path / "m.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match=r"truncated|empty"):
        opened(path)


def test_a_file_cut_at_every_byte_is_refused_or_as_good(tmp_path: Path) -> None:
    whole = linear(tmp_path / "m.onnx").read_bytes()
    for end in range(1, len(whole)):
        path = tmp_path / "cut.onnx"
        path.write_bytes(whole[:end])
        with pytest.raises(ModelError):
            opened(path)


def test_a_custom_operator_is_refused_with_its_domain(tmp_path: Path) -> None:
    x, y = value("x", TensorProto.FLOAT, "n", 3), value("y", TensorProto.FLOAT, "n", 3)
    node = helper.make_node("Magic", ["x"], ["y"], domain="org.example")
    path = save(tmp_path / "m.onnx", [node], [x], [y], opsets=(("", 17), ("org.example", 1)))
    with pytest.raises(ModelError, match=r"operator Magic is of the domain 'org.example'"):
        opened(path)


def test_a_graph_that_is_not_sound_is_refused(tmp_path: Path) -> None:
    x, y = value("x", TensorProto.FLOAT, "n", 3), value("y", TensorProto.FLOAT, "n", 3)
    unknown = save(tmp_path / "a.onnx", [helper.make_node("Nonsense", ["x"], ["y"])], [x], [y])
    with pytest.raises(ModelError, match=r"no sound ONNX model.*Nonsense"):
        opened(unknown)
    loose = save(tmp_path / "b.onnx", [helper.make_node("Relu", ["missing"], ["y"])], [x], [y])
    with pytest.raises(ModelError, match=r"no sound ONNX model"):
        opened(loose)
    future = save(
        tmp_path / "c.onnx", [helper.make_node("Relu", ["x"], ["y"])], [x], [y], opsets=(("", 99),)
    )
    with pytest.raises(ModelError, match=r"99|opset"):
        opened(future)
    shapes = save(
        tmp_path / "d.onnx",
        [helper.make_node("MatMul", ["x", "W"], ["y"])],
        [x],
        [y],
        {"W": np.ones((5, 3), dtype=np.float32)},
    )
    with pytest.raises(ModelError, match=r"onnxruntime [\d.]+ refuses it"):
        opened(shapes)


def test_operators_out_of_order_are_no_fault(tmp_path: Path) -> None:
    x, y = value("x", TensorProto.FLOAT, "n", 3), value("y", TensorProto.FLOAT, "n", 3)
    late, early = helper.make_node("Neg", ["a"], ["y"]), helper.make_node("Relu", ["x"], ["a"])
    path = save(tmp_path / "m.onnx", [late, early], [x], [y])
    data = torch.randn(4, 3)
    assert torch.equal(opened(path).predict(data), -data.relu())
    circle = save(tmp_path / "c.onnx", [late, helper.make_node("Relu", ["y"], ["a"])], [x], [y])
    with pytest.raises(ModelError, match=r"no sound ONNX model"):
        opened(circle)


# ---------------------------------------------------------------- external data


def external(folder: Path, location: str = "weights.bin") -> Path:
    folder.mkdir(exist_ok=True)
    proto = onnx.load(linear(folder / "m.onnx"))
    onnx.save(
        proto,
        folder / "m.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    if location != "weights.bin":
        moved = onnx.load(folder / "m.onnx", load_external_data=False)
        for entry in moved.graph.initializer[0].external_data:
            if entry.key == "location":
                entry.value = location
        (folder / "m.onnx").write_bytes(moved.SerializeToString())
    return folder / "m.onnx"


def test_external_data_beside_the_file_are_used_and_belong_to_the_content(tmp_path: Path) -> None:
    path = external(tmp_path / "a")
    assert torch.allclose(opened(path).predict(images(3)), logits(images(3)), atol=1e-5)
    places = Places(suite=tmp_path, data=None, cache=tmp_path)
    assert ONNX.content(OnnxParams(path=path), places) == {
        "path": path,
        "external:weights.bin": path.parent / "weights.bin",
    }
    inside = linear(tmp_path / "inside.onnx")
    assert ONNX.content(OnnxParams(path=inside), places) == {"path": inside}
    assert ONNX.content(OnnxParams(path=tmp_path / "no.onnx"), places) == {
        "path": tmp_path / "no.onnx"
    }
    assert ONNX.access(OnnxParams(path=path)) == "gradient"
    assert ONNX.stand_in


@pytest.mark.parametrize("location", ["../a/weights.bin", "/etc/hostname", "nothing.bin"])
def test_external_data_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    external(tmp_path / "a")
    with pytest.raises(ModelError, match=r"external data .* cannot be used"):
        opened(external(tmp_path / "b", location))


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_external_data_that_are_a_link_are_refused(tmp_path: Path, link: object) -> None:
    path = external(tmp_path / "a")
    secret = tmp_path / "secret.bin"
    (path.parent / "weights.bin").rename(secret)
    assert callable(link)
    link(secret, path.parent / "weights.bin")
    with pytest.raises(ModelError, match=r"external data weights.bin cannot be used"):
        opened(path)


def test_external_data_that_are_cut_are_refused(tmp_path: Path) -> None:
    path = external(tmp_path / "a")
    data = path.parent / "weights.bin"
    data.write_bytes(data.read_bytes()[:-8])
    with pytest.raises(ModelError):
        opened(path)


# ---------------------------------------------------------------- providers


def test_cuda_is_never_replaced_by_the_cpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    with pytest.raises(EnvironmentProblem, match=r"CUDA was asked for"):
        opened(linear(tmp_path / "m.onnx"), device="cuda:0")


def test_a_provider_that_is_not_there_says_what_to_do() -> None:
    with pytest.raises(EnvironmentProblem, match=r"has only CPUExecutionProvider"):
        require_cuda([CPU])
    with pytest.raises(EnvironmentProblem, match=r"runs on CPUExecutionProvider.*--device cpu"):
        require_provider(CPU, CUDA)
    require_provider(CUDA, CUDA)


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu(tmp_path: Path, device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("runs with --device cuda")
    for shape, batch in ((("n", 1, SIDE, SIDE), "n"), ((4, 1, SIDE, SIDE), 4)):
        path = linear(tmp_path / "m.onnx", shape=shape, batch=batch)
        model = opened(path, device=str(torch.device("cuda", device.index or 0)))
        assert model.provider == CUDA
        x = images(7)
        out = model.predict(x.to(device))
        assert out.device.type == "cuda"
        assert torch.allclose(out.cpu(), logits(x), atol=1e-4)
