"""`doctor.examine`: a zoo of model files, sound and sick, each with what must be said of it."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import nn

from robustbench_lite import (
    DatasetSpec,
    LoadedModel,
    ModelSpec,
    NoParams,
    Params,
    Parity,
    hookimpl,
)
from robustbench_lite.builtin import data as builtin_data
from robustbench_lite.builtin import models as builtin_models
from robustbench_lite.builtin.models import onnx_twin
from robustbench_lite.builtin.models.twin import Twin, convert
from robustbench_lite.checkup import Report
from robustbench_lite.doctor import examine
from robustbench_lite.errors import DataError, UsageError
from robustbench_lite.plugins import Registry, build
from tests.nearest_mean import sample
from tests.onnx_zoo import EMBEDDED, branching, continued

if TYPE_CHECKING:
    from tests.conftest import Robeval

KEYS = {
    *("path", "format", "sha256", "bytes", "loadable", "runs", "inputs", "outputs", "opset"),
    *("providers", "output_kind", "deterministic", "batch_dependent", "num_classes"),
    *("seconds_per_sample", "twin", "gradient", "attacks", "data", "findings", "problem"),
}
WEIGHTS = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return build([builtin_models])


def graph(
    path: Path,
    *nodes: onnx.NodeProto,
    kind: int = TensorProto.FLOAT,
    shape: tuple[int | str, ...] = ("n", 6),
) -> Path:
    """z = x @ W, then `nodes` from z to y."""
    x = helper.make_tensor_value_info("x", kind, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 3))
    first = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["flat"]),
        helper.make_node("MatMul", ["flat", "W"], ["z"]),
    ]
    last = list(nodes) or [helper.make_node("Identity", ["z"], ["y"])]
    weights = [numpy_helper.from_array(WEIGHTS, "W")]
    made = helper.make_graph([*first, *last], "g", [x], [y], weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(made, opset_imports=opset, ir_version=8), path)
    return path


def look(path: Path, registry: Registry, **more: object) -> Report:
    report = examine(path, registry, device="cpu", threads=1, **more)  # type: ignore[arg-type]
    assert set(json.loads(json.dumps(report.as_json()))) == KEYS
    assert not any("\n" in line for line in report.lines())
    return report


def ids(report: Report) -> list[str]:
    return [finding.id for finding in report.findings]


def test_a_file_of_a_package_is_found_by_its_name(registry: Registry) -> None:
    report = look(Path("pkg://robustbench_lite/embedded/mnist_cnn.onnx"), registry)
    assert (report.runs, report.path.name) == (True, "mnist_cnn.onnx")
    missing = look(Path("pkg://robustbench_light/embedded/mnist_cnn.onnx"), registry)
    assert not missing.runs
    assert "names no installed package" in str(missing.problem)


def test_a_sound_file_is_described(tmp_path: Path, registry: Registry) -> None:
    path = graph(tmp_path / "m.onnx")
    report = look(path, registry)
    assert (report.loadable, report.runs, report.problem, report.findings) == (True, True, None, ())
    assert (report.format, report.size) == ("onnx", path.stat().st_size)
    assert (report.output_kind, report.num_classes) == ("logits", 3)
    assert (report.deterministic, report.batch_dependent) == (True, False)
    assert report.opset == {"ai.onnx": 17}
    assert list(report.providers) == ["CPUExecutionProvider"]
    assert list(report.inputs) == [{"name": "x", "type": "float32", "shape": ["n", 6]}]
    assert report.sha256 is not None
    assert len(report.sha256) == 64
    assert report.seconds_per_sample is not None
    assert 0 < report.seconds_per_sample < 10
    text = "\n".join(report.lines())
    assert "x float32 [n, 6]" in text
    assert "ai.onnx 17" in text


@pytest.mark.parametrize(
    ("op", "kind"),
    [("Softmax", "probabilities"), ("LogSoftmax", "log-probabilities"), ("Neg", "logits")],
)
def test_the_kind_of_output_is_read_and_measured(
    tmp_path: Path, registry: Registry, op: str, kind: str
) -> None:
    report = look(graph(tmp_path / "m.onnx", helper.make_node(op, ["z"], ["y"])), registry)
    assert (report.output_kind, ids(report)) == (kind, [])


def test_a_softmax_in_disguise_is_found(tmp_path: Path, registry: Registry) -> None:
    nodes = [
        helper.make_node("Exp", ["z"], ["e"]),
        helper.make_node("ReduceL1", ["e"], ["s"], axes=[1], keepdims=1),
        helper.make_node("Div", ["e", "s"], ["y"]),
    ]
    report = look(graph(tmp_path / "m.onnx", *nodes), registry)
    assert report.output_kind == "probabilities"
    assert ids(report) == ["output-kind"]
    assert "declare `output: probabilities`" in report.findings[0].advice


def test_a_log_softmax_in_disguise_is_as_good_as_logits(tmp_path: Path, registry: Registry) -> None:
    nodes = [
        helper.make_node("ReduceLogSumExp", ["z"], ["s"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["z", "s"], ["y"]),
    ]
    report = look(graph(tmp_path / "m.onnx", *nodes), registry)
    assert (report.output_kind, ids(report)) == ("log-probabilities", ["output-kind"])
    assert report.findings[0].severity == "note"


def test_sigmoids_that_do_not_sum_to_one_are_found(tmp_path: Path, registry: Registry) -> None:
    report = look(graph(tmp_path / "m.onnx", helper.make_node("Sigmoid", ["z"], ["y"])), registry)
    assert ids(report) == ["not-probabilities"]


def test_a_random_file_is_found(tmp_path: Path, registry: Registry) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["z"], ["r"], scale=0.1),
        helper.make_node("Add", ["z", "r"], ["y"]),
    ]
    report = look(graph(tmp_path / "m.onnx", *nodes), registry)
    assert (report.deterministic, report.batch_dependent) == (False, None)
    assert ids(report) == ["randomised-output", "twin-refused"]


def test_noise_below_the_tolerance_is_no_randomness(tmp_path: Path, registry: Registry) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["z"], ["r"], scale=1e-7),
        helper.make_node("Add", ["z", "r"], ["y"]),
    ]
    assert look(graph(tmp_path / "m.onnx", *nodes), registry).deterministic is True


@pytest.mark.parametrize("part", ["statistics of the batch", "the next sample"])
def test_a_file_that_mixes_its_samples_is_found(
    tmp_path: Path, registry: Registry, part: str
) -> None:
    if part == "the next sample":
        nodes = [
            helper.make_node("ReduceMax", ["z"], ["m"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["z", "m"], ["y"]),
        ]
    else:
        nodes = [helper.make_node("MeanVarianceNormalization", ["z"], ["y"], axes=[0])]
    report = look(graph(tmp_path / "m.onnx", *nodes), registry)
    assert (report.deterministic, report.batch_dependent) == (True, True)
    assert ids(report) == ["batch-dependent"]


def test_outputs_that_are_not_finite_are_found(tmp_path: Path, registry: Registry) -> None:
    nodes = [helper.make_node("Neg", ["z"], ["m"]), helper.make_node("Log", ["m"], ["y"])]
    report = look(graph(tmp_path / "m.onnx", *nodes), registry)
    assert report.runs
    assert "output-not-finite" in ids(report)


def test_bytes_ask_for_a_scale(tmp_path: Path, registry: Registry) -> None:
    report = look(graph(tmp_path / "m.onnx", kind=TensorProto.UINT8), registry)
    assert ids(report) == ["byte-input"]


def test_free_dimensions_are_one_unless_given(tmp_path: Path, registry: Registry) -> None:
    path = graph(tmp_path / "m.onnx", shape=("n", 1, "h", "w"))
    report = look(path, registry)
    assert (report.loadable, report.runs) == (True, False)
    assert "does not run on inputs of shape [8, 1, 1, 1]" in str(report.problem)
    assert look(path, registry, input_shape=(1, 2, 3)).runs
    assert look(graph(tmp_path / "f.onnx", shape=(4, 6)), registry).runs


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.onnx", b"<html>Sign in</html>", "HTML page"),
        ("m.onnx", b"", "is empty"),
        ("m.onnx", b"\x08\x08\x12", "truncated"),
        ("m.h5", b"\x89HDF\r\n", "no loader opens '.h5' files; known: .onnx, .pt, .pt2, .pth"),
        ("m.safetensors", b"x", "expected factory: 'package.module:name'"),
        ("m.pt2", b"x", "expected factory"),
    ],
)
def test_a_broken_file_is_a_report_and_no_error(
    tmp_path: Path, registry: Registry, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    report = look(tmp_path / name, registry)
    assert (report.loadable, report.runs) == (False, False)
    assert reason in str(report.problem)
    assert report.size == len(content)


def test_a_missing_file_and_a_folder_are_reports(tmp_path: Path, registry: Registry) -> None:
    for path in (tmp_path / "no.onnx", tmp_path):
        report = look(path, registry)
        assert not report.loadable
        assert "cannot be read" in str(report.problem)


def test_a_device_that_is_not_there_is_a_report(tmp_path: Path, registry: Registry) -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    report = examine(graph(tmp_path / "m.onnx"), registry, device="cuda:0", threads=1)
    assert not report.loadable
    assert "CUDA was asked for" in str(report.problem)


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path with the module `doctor_nets`."""
    code = "from torch import nn\ndef linear(): return nn.Linear(6, 3)\n"
    code += "def conv(): return nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(64, 2))\n"
    (tmp_path / "doctor_nets.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "doctor_nets", raising=False)
    return tmp_path


def test_weights_are_examined_with_their_factory(networks: Path, registry: Registry) -> None:
    path = networks / "w.safetensors"
    save_file(nn.Linear(6, 3).state_dict(), path)
    report = look(path, registry, factory="doctor_nets:linear")
    assert (report.format, report.runs, report.num_classes) == ("safetensors", True, 3)
    assert list(report.providers) == ["torch"]
    assert report.inputs[0]["shape"] == ["n", 6]
    assert "has no 'liner'" in str(look(path, registry, factory="doctor_nets:liner").problem)


def test_a_network_that_hides_its_input_shape_is_loaded_and_not_run(
    networks: Path, registry: Registry
) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(64, 2))
    path = networks / "w.pt"
    torch.save(net.state_dict(), path)
    report = look(path, registry, factory="doctor_nets:conv")
    assert (report.loadable, report.runs) == (True, False)
    assert "--input-shape" in str(report.problem)
    assert look(path, registry, factory="doctor_nets:conv", input_shape=(3, 8, 8)).runs


class _Strangers:
    """A third-party loader of .toy files, and one that breaks."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    @hookimpl
    def robeval_models(self) -> list[ModelSpec]:
        return [
            ModelSpec(
                name="toy",
                implementation=self._load,
                summary="toy",
                suffixes=(".toy",),
                from_path=lambda path: NoParams(),
            )
        ]

    def _load(self, params: Params, **_: object) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_loader_of_someone_else_is_used_and_its_failure_reported(tmp_path: Path) -> None:
    (tmp_path / "m.toy").write_text("toy")
    toy = LoadedModel(
        predict=lambda x: x.flatten(1)[:, :2],
        differentiable=None,
        num_classes=2,
        input_shape=(1, 2, 2),
        output="logits",
        device="cpu",
        provider="toy",
    )
    report = look(tmp_path / "m.toy", build([_Strangers(toy)]))
    assert (report.runs, list(report.providers)) == (True, ["toy"])
    broken = look(tmp_path / "m.toy", build([_Strangers(KeyError("size"))]))
    assert "its loader raised KeyError: 'size'" in str(broken.problem)
    wrong = look(tmp_path / "m.toy", build([_Strangers(3)]))
    assert "returned int; expected a LoadedModel" in str(wrong.problem)
    extra = look(tmp_path / "m.toy", build([_Strangers(toy)]), factory="a:b")
    assert "takes no factory" in str(extra.problem)


@pytest.mark.parametrize("name", ["mnist_cnn.onnx", "mnist_cnn_robust.onnx"])
def test_the_embedded_networks_are_in_good_health(name: str, registry: Registry) -> None:
    from robustbench_lite.params import package_file

    path = package_file(f"pkg://robustbench_lite/embedded/{name}")
    if not path.exists():
        pytest.skip(f"{name} is not trained yet")
    report = look(path, registry)
    assert (report.runs, report.findings, report.num_classes) == (True, (), 10)


# ---------------------------------------------------------------- the twin


def test_the_twin_of_a_sound_file_is_reported(registry: Registry) -> None:
    report = look(EMBEDDED, registry)
    assert report.twin is not None
    assert (report.twin.status, report.twin.reason, report.twin.head) == ("ok", "", "logits")
    assert report.twin.operators == {"Relu": 3, "Conv": 2, "Gemm": 2, "Flatten": 1}
    assert report.twin.difference is not None
    assert report.twin.tolerance is not None
    assert 0 <= report.twin.difference <= report.twin.tolerance
    assert (report.twin.agreement, report.twin.samples) == (1.0, 8)
    assert report.attacks == ("gradient", "score", "decision")
    text = "\n".join(report.lines())
    assert "8: 3 Relu, 2 Conv, 2 Gemm, 1 Flatten" in text
    assert "100.0 % equal decisions on 8 uniform inputs" in text
    assert "gradient, score, decision" in text


def test_the_norm_of_a_linear_files_gradient_is_that_of_its_weights(
    tmp_path: Path, registry: Registry
) -> None:
    report = look(graph(tmp_path / "m.onnx"), registry)
    assert report.gradient is not None
    pairs = [WEIGHTS[:, a] - WEIGHTS[:, b] for a in range(3) for b in range(a)]
    norms = [float(np.linalg.norm(pair)) for pair in pairs]
    assert min(abs(report.gradient.norm - norm) for norm in norms) < 1e-5
    assert (report.gradient.broken, report.gradient.zero, report.gradient.samples) == (0, 0, 8)
    assert 0 < report.gradient.seconds_per_sample < 10


def test_a_softmax_that_was_taken_out_is_named(tmp_path: Path, registry: Registry) -> None:
    report = look(graph(tmp_path / "m.onnx", helper.make_node("Softmax", ["z"], ["y"])), registry)
    assert report.twin is not None
    assert (report.twin.status, report.twin.head) == ("ok", "softmax")
    assert "the final softmax" in "\n".join(report.lines())


def test_a_twin_that_is_refused_leaves_the_other_families(
    tmp_path: Path, registry: Registry
) -> None:
    report = look(branching(tmp_path / "m.onnx"), registry)
    assert (report.runs, report.problem) == (True, None)
    assert report.twin is not None
    assert report.twin.status == "refused"
    assert "operator If (node 'choose')" in report.twin.reason
    assert report.attacks == ("score", "decision")
    assert report.gradient is None
    assert ids(report) == ["twin-refused"]
    assert "fallback" in report.findings[0].advice
    told = json.loads(json.dumps(report.as_json()))
    assert told["twin"]["status"] == "refused"
    assert told["twin"]["operators"] == {}
    assert told["twin"]["difference"] is None
    assert "score, decision (not gradient)" in "\n".join(report.lines())


@pytest.mark.parametrize("far", [3.0, math.nan])
def test_a_twin_that_is_not_the_file_is_reported_with_its_figures(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, far: float
) -> None:
    def wrong(*given: object, **named: object) -> Twin:
        twin = convert(*given, **named)  # type: ignore[arg-type]  # what the loader passes
        next(buffer for buffer in twin.buffers() if buffer.shape == (10,))[0] += far
        return twin

    monkeypatch.setattr(onnx_twin, "convert", wrong)
    report = look(EMBEDDED, registry)
    assert report.twin is not None
    assert report.twin.status == "parity-failed"
    assert "differs from the file by" in report.twin.reason
    assert report.attacks == ("score", "decision")
    assert ids(report) == ["twin-parity-failed"]
    told = json.loads(json.dumps(report.as_json(), allow_nan=False))["twin"]
    assert told["difference"] == (None if math.isnan(far) else pytest.approx(far, abs=1e-4))
    assert told["tolerance"] < 0.01


def test_gradients_that_show_nothing_are_found(tmp_path: Path, registry: Registry) -> None:
    flat = look(graph(tmp_path / "m.onnx", helper.make_node("Round", ["z"], ["y"])), registry)
    assert flat.gradient is not None
    assert flat.gradient.zero == 8
    assert ids(flat) == ["zero-gradient"]
    nodes = [
        helper.make_node("Sub", ["z", "z"], ["zero"]),
        helper.make_node("Sqrt", ["zero"], ["root"]),
        helper.make_node("Add", ["z", "root"], ["y"]),
    ]
    broken = look(graph(tmp_path / "m.onnx", *nodes), registry)
    assert broken.gradient is not None
    assert broken.gradient.broken == 8
    assert "broken-gradient" in ids(broken)
    assert broken.as_json()["gradient"] == {
        "norm": None,
        "seconds_per_sample": broken.gradient.seconds_per_sample,
        "broken": 8,
        "zero": 0,
        "samples": 8,
    }


def test_a_torch_file_needs_no_twin(networks: Path, registry: Registry) -> None:
    path = networks / "w.safetensors"
    save_file(nn.Linear(6, 3).state_dict(), path)
    report = look(path, registry, factory="doctor_nets:linear")
    assert report.twin is None
    assert report.gradient is not None
    assert report.attacks == ("gradient", "score", "decision")


def test_a_stand_in_of_someone_else_whose_check_breaks_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "m.toy").write_text("toy")

    def verify(x: torch.Tensor) -> Parity:
        raise KeyError("session")

    toy = LoadedModel(
        predict=lambda x: x.flatten(1)[:, :2],
        differentiable=nn.Flatten(),
        num_classes=2,
        input_shape=(1, 2, 1),
        output="logits",
        device="cpu",
        provider="toy",
        verify=verify,
    )
    report = look(tmp_path / "m.toy", build([_Strangers(toy)]))
    assert report.twin is not None
    assert report.twin.status == "parity-failed"
    assert "KeyError: 'session'" in report.twin.reason
    assert report.attacks == ("score", "decision")


def test_a_gradient_that_cannot_be_computed_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "m.toy").write_text("toy")
    toy = LoadedModel(
        predict=lambda x: x.flatten(1)[:, :2],
        differentiable=nn.Linear(7, 2),
        num_classes=2,
        input_shape=(1, 2, 1),
        output="logits",
        device="cpu",
        provider="toy",
    )
    report = look(tmp_path / "m.toy", build([_Strangers(toy)]))
    assert (report.runs, report.gradient, ids(report)) == (True, None, ["no-gradient"])
    assert report.attacks == ("score", "decision")


def test_the_command_tells_of_the_twin(robeval: Robeval, tmp_path: Path) -> None:
    ended = robeval("doctor", str(branching(tmp_path / "m.onnx")), "--json")
    told = json.loads(ended.out)
    assert ended.code == 0
    assert {"loadable", "runs", "twin", "providers", "inputs", "outputs", "findings"} <= set(told)
    assert (told["twin"]["status"], told["attacks"]) == ("refused", ["score", "decision"])
    ended = robeval("doctor", str(EMBEDDED))
    assert ended.code == 0
    assert "twin:              ok" in ended.out


# ---------------------------------------------------------------- real samples


@pytest.fixture(scope="module")
def everything() -> Registry:
    return build([builtin_models, builtin_data])


def test_a_sound_file_is_checked_on_digits(everything: Registry) -> None:
    report = look(EMBEDDED, everything, data="mnist-sample")
    assert (report.runs, report.findings) == (True, ())
    assert report.data is not None
    assert (report.data.name, report.data.samples) == ("mnist-sample", 64)
    assert report.data.correct >= 60
    told = report.as_json()["data"]
    assert isinstance(told, dict)
    assert (told["forward_passes"], told["backward_passes"]) == (280, 64)
    text = "\n".join(report.lines())
    assert f"({report.data.correct} of 64 right) on 'mnist-sample'" in text
    assert "pre-flight:        280 forward, 64 backward passes" in text
    assert look(EMBEDDED, everything).as_json()["data"] is None


def dimmed(path: Path) -> Path:
    """The embedded network behind a division by 255: it wants bytes."""
    model = onnx.load(EMBEDDED)
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name == "image":
                node.input[position] = "dim"
    model.graph.initializer.append(numpy_helper.from_array(np.array(255, np.float32), "bytes"))
    model.graph.node.insert(0, helper.make_node("Div", ["image", "bytes"], ["dim"]))
    onnx.save(model, path)
    return path


def test_what_only_digits_can_show_is_found_on_them(tmp_path: Path, everything: Registry) -> None:
    path = dimmed(tmp_path / "m.onnx")
    assert ids(look(path, everything)) == []
    report = look(path, everything, data="mnist-sample")
    assert ids(report) == ["input-scaling", "chance-accuracy"]
    assert "fed '0 to 255'" in report.findings[0].message
    assert any(line.startswith("error: input-scaling: it is right on") for line in report.lines())


def test_a_finding_of_noise_and_data_is_told_once(tmp_path: Path, everything: Registry) -> None:
    path = continued(tmp_path / "m.onnx", helper.make_node("Round", ["logits"], ["y"]))
    assert ids(look(path, everything)) == ["zero-gradient"]
    report = look(path, everything, data="mnist-sample")
    assert ids(report) == ["zero-gradient"]
    assert "32 of 32 samples" in report.findings[0].message


def test_samples_may_come_from_an_array_file(tmp_path: Path, everything: Registry) -> None:
    x, y = sample()
    np.savez(tmp_path / "some.npz", x=x[:30].numpy(), y=y[:30].numpy())
    report = look(EMBEDDED, everything, data=str(tmp_path / "some.npz"))
    assert report.data is not None
    assert (report.data.samples, report.findings) == (30, ())


def test_data_of_another_shape_are_named(tmp_path: Path, everything: Registry) -> None:
    np.savez(tmp_path / "some.npz", x=np.zeros((9, 5), dtype=np.float32), y=np.arange(9))
    report = look(EMBEDDED, everything, data=str(tmp_path / "some.npz"))
    assert (report.runs, report.data) == (False, None)
    assert "does not run on samples of shape [5]" in str(report.problem)


def test_a_model_that_hides_its_shape_is_tried_on_that_of_the_data(
    networks: Path, everything: Registry
) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(64, 2))
    torch.save(net.state_dict(), networks / "w.pt")
    draw = np.random.default_rng(0)
    images, labels = draw.random((40, 3, 8, 8), dtype=np.float32), np.arange(40) % 2
    np.savez(networks / "d.npz", x=images, y=labels)
    report = look(
        networks / "w.pt", everything, factory="doctor_nets:conv", data=str(networks / "d.npz")
    )
    assert (report.runs, report.problem) == (True, None)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("mnist-sampel", "did you mean 'mnist-sample'?"),
        ("no/such.npz", "neither a dataset (arrays, cifar10"),
        ("images", "needs more than its name (Value error, give root"),
        ("arrays", "needs more than its name"),
    ],
)
def test_data_that_are_not_known_are_a_usage_error(
    everything: Registry, data: str, reason: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(reason)):
        look(EMBEDDED, everything, data=data)


def test_data_that_cannot_be_read_are_an_error_of_the_data(
    tmp_path: Path, everything: Registry
) -> None:
    np.savez(tmp_path / "some.npz", x=np.full((4, 1, 28, 28), 3.0), y=np.arange(4))
    with pytest.raises(DataError, match="outside the declared box"):
        look(EMBEDDED, everything, data=str(tmp_path / "some.npz"))
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(DataError):
        look(EMBEDDED, everything, data=str(tmp_path / "bad.npz"))


class _BrokenData:
    """A dataset whose loader raises."""

    @hookimpl
    def robeval_datasets(self) -> list[DatasetSpec]:
        return [DatasetSpec(name="broken", implementation=self._load, summary="broken")]

    def _load(self, params: Params, **_: object) -> object:
        raise KeyError("rows")


def test_a_dataset_whose_loader_breaks_is_named() -> None:
    broken = build([builtin_models, _BrokenData()])
    with pytest.raises(DataError, match=r"--data 'broken': its loader raised KeyError: 'rows'"):
        look(EMBEDDED, broken, data="broken")
