"""Pre-flight checks: each fires on a broken network, and nothing above a note on sound ones."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from robustbench_lite import preflight
from robustbench_lite.craft import fingerprint
from robustbench_lite.diagnose.preflight import judged, of_models
from robustbench_lite.group import DIMENSION, ILLEGAL, clean_chunk
from robustbench_lite.params import package_file
from robustbench_lite.preflight import keys
from robustbench_lite.preflight.outputs import kind
from robustbench_lite.preflight.scalings import Scaling, candidates
from robustbench_lite.preflight.steady import apart
from robustbench_lite.samples import select
from robustbench_lite.types import (
    Batch,
    Box,
    Cell,
    CellResult,
    DataSource,
    Finding,
    LoadedModel,
    Output,
    Selection,
)
from tests import broken_nets, nearest_mean
from tests import preflight_nets as nets
from tests.broken_nets import Around
from tests.finished_run import cell
from tests.onnx_zoo import EMBEDDED, half, opened, quantised

DIGITS = nets.DIGITS
HEALTHY_COST = (280, 64)


def observed(model: LoadedModel, batch: Batch | None = None, seed: int = 0) -> dict[str, float]:
    return preflight.observe(model, batch or nets.digits(), classes=DIGITS, seed=seed)


def found(model: LoadedModel, batch: Batch | None = None) -> dict[str, Finding]:
    return {finding.id: finding for finding in judged(observed(model, batch))}


def severe(model: LoadedModel, batch: Batch | None = None) -> list[str]:
    return [name for name, each in found(model, batch).items() if each.severity != "note"]


# ---------------------------------------------------------------- sound models


def identity(net: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = net(x)
    return logits


def of_body(name: str) -> Callable[[], nn.Module]:
    return lambda: nets.fitted(name)


SOUND: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: Around(identity),
    "linear": nearest_mean.linear,
    "log-softmax": nets.log_softmax,
    **{name: of_body(name) for name in nets.BODIES},
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_network_raises_nothing(name: str, device: torch.device) -> None:
    for start in (0, 100, 500):
        model = nets.loaded(SOUND[name](), device=device)
        assert severe(model, nets.digits(64, start, device)) == []


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("training", [False, True])
def test_a_script_tells_of_its_mode(*, training: bool) -> None:
    linear = nearest_mean.linear()
    module = nn.Sequential(linear[0], nn.Dropout(0.5), linear[1])  # type: ignore[index]
    model = nets.loaded(torch.jit.script(module))
    assert model.differentiable is not None
    model.differentiable.train(training)
    expected = ["train-mode", "randomised-output"] if training else []
    assert severe(model) == expected


@pytest.mark.parametrize("output", ["probabilities", "log-probabilities"])
@pytest.mark.parametrize("precision", ["single", "half"])
def test_an_output_that_is_as_declared_raises_nothing(output: Output, precision: str) -> None:
    maker = nets.softmax if precision == "single" else nets.half_softmax
    if output == "log-probabilities":
        maker = nets.log_softmax
    assert found(nets.loaded(maker(), output=output)) == {}


@pytest.mark.parametrize("name", ["mnist_cnn.onnx", "mnist_cnn_robust.onnx"])
def test_the_embedded_files_raise_nothing(name: str, device: torch.device) -> None:
    path = package_file(f"pkg://robustbench_lite/embedded/{name}")
    model = opened(path, device=full_name(device))
    for start in range(0, 1000, 200):
        assert found(model, nets.digits(64, start, device)) == {}


def full_name(device: torch.device) -> str:
    return f"{device.type}:{device.index or 0}" if device.type == "cuda" else "cpu"


@pytest.mark.parametrize("kind_of_file", ["int8", "int8 per channel", "half", "half inside"])
def test_reduced_precision_raises_nothing(
    tmp_path: Path, kind_of_file: str, device: torch.device
) -> None:
    path = tmp_path / "m.onnx"
    if kind_of_file.startswith("int8"):
        quantised(path, per_channel="channel" in kind_of_file)
    else:
        half(path, keep_io="inside" in kind_of_file)
    assert found(opened(path, device=full_name(device)), nets.digits(device=device)) == {}


def test_ranges_taken_from_the_batch_are_a_warning_because_the_effect_is_small(
    tmp_path: Path,
) -> None:
    quantize_dynamic(EMBEDDED, tmp_path / "m.onnx", weight_type=QuantType.QUInt8)
    finding = found(opened(tmp_path / "m.onnx"))["batch-dependent"]
    assert finding.severity == "warning"
    assert finding.numbers["largest change by neighbours"] < 0.05


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 64),
    start=st.integers(0, 900),
    name=st.sampled_from(["mlp", "linear", "transformer", "batch norm"]),
)
def test_no_subset_of_any_size_makes_a_sound_network_look_broken(
    n: int, start: int, name: str
) -> None:
    assert severe(nets.loaded(SOUND[name]()), nets.digits(n, start)) == []


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    features=st.integers(1, 40),
    classes=st.integers(2, 12),
    n=st.integers(2, 64),
    size=st.sampled_from([0.1, 1.0, 3.0]),
)
@example(seed=2**32 - 1, features=34, classes=5, n=32, size=3.0)
def test_a_random_linear_network_on_its_own_labels_raises_nothing(
    seed: int, features: int, classes: int, n: int, size: float
) -> None:
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(n, features, generator=draw)
    layer = nn.Linear(features, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, features, generator=draw) * size)
        layer.bias.copy_(torch.randn(classes, generator=draw) * size)
        y = layer(x).argmax(dim=1)
    batch = nets.batch_of(x, y)
    record = preflight.observe(
        nets.loaded(layer, classes=classes), batch, classes=("c",) * classes, seed=0
    )
    large = size == 3.0  # logits so far apart can saturate the cross-entropy, which is then told
    allowed = {("saturated-cross-entropy", "note")} if large else set()
    if len(y.unique()) == 1:  # type: ignore[no-untyped-call]
        allowed.add(("single-label", "warning"))
    assert {(each.id, each.severity) for each in judged(record)} <= allowed


# ---------------------------------------------------------------- broken models


BROKEN: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    "dropout": (nets.Dropping, {"train-mode": "error", "randomised-output": "error"}),
    "noise": (lambda: nets.noisy(0.1), {"randomised-output": "error"}),
    "resizing": (nets.resizing, {"randomised-output": "error"}),
    "batch norm in train mode": (
        lambda: nets.BatchNormed("train"),
        {"train-mode": "error", "batch-dependent": "error"},
    ),
    "batch norm without statistics": (
        lambda: nets.BatchNormed("statistics"),
        {"batch-dependent": "error"},
    ),
    "less the batch's mean": (nets.centred, {"batch-dependent": "error"}),
    "other for one": (nets.size_dependent, {"batch-dependent": "error"}),
    "nothing for one": (nets.squeezing, {"batch-dependent": "error"}),
    "softmax": (nets.softmax, {"output-kind": "error"}),
    "half softmax": (nets.half_softmax, {"output-kind": "error"}),
    "one-hot": (nets.one_hot, {"output-kind": "error", "hard-labels": "warning"}),
    "hard labels": (nets.hard, {"hard-labels": "warning", "zero-gradient": "warning"}),
    "x30": (lambda: nets.scaled(30), {"saturated-cross-entropy": "warning"}),
    "x100": (lambda: nets.scaled(100), {"saturated-cross-entropy": "warning"}),
    "x1000": (lambda: nets.scaled(1000), {"saturated-cross-entropy": "warning"}),
    "constant": (nets.constant, {"constant-output": "error", "chance-accuracy": "error"}),
    "NaN gradient": (broken_nets.nan_gradient, {"broken-gradient": "warning"}),
    "steps in front": (broken_nets.quantised_input, {"zero-gradient": "warning"}),
    "signs": (broken_nets.sign_activations, {"zero-gradient": "warning"}),
    "no backward": (nets.cut_graph, {"no-gradient": "warning"}),
    "NaN": (nearest_mean.nan, {"output-not-finite": "error"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_network_is_found_whatever_the_samples(name: str, device: torch.device) -> None:
    make, expected = BROKEN[name]
    for start in (0, 300):
        raised = found(nets.loaded(make(), device=device), nets.digits(64, start, device))
        severities = {key: raised[key].severity for key in expected if key in raised}
        assert severities == expected
        assert all(finding.advice and finding.message for finding in raised.values())


@pytest.mark.parametrize(
    "name", ["dropout", "noise", "batch norm in train mode", "softmax", "less the batch's mean"]
)
@pytest.mark.parametrize("n", [2, 5])
def test_what_a_few_samples_can_show_is_found_on_them(name: str, n: int) -> None:
    make, expected = BROKEN[name]
    assert set(expected) <= set(found(nets.loaded(make()), nets.digits(n)))


@pytest.mark.parametrize("name", ["constant", "x1000", "hard labels"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_rehearsal_never_raises_what_needs_many_samples(name: str, n: int) -> None:
    make, _ = BROKEN[name]
    many = {"constant-output", "chance-accuracy", "input-scaling", "hard-labels"}
    many |= {"saturated-cross-entropy"}
    assert not many & set(found(nets.loaded(make()), nets.digits(n)))


def test_how_much_a_random_model_varies_is_told_and_eot_proposed() -> None:
    finding = found(nets.loaded(nets.noisy(1.0)))["randomised-output"]
    assert "eot: 20" in finding.advice
    assert finding.numbers["repeated samples"] == 16
    assert 0 < finding.numbers["decisions that vary"] <= 16
    assert 0.01 < finding.numbers["largest variation"] < 100
    assert f"{finding.numbers['decisions that vary']:.0f} of 16 decisions" in finding.message


def test_a_random_model_is_not_also_said_to_mix_its_batch() -> None:
    assert "batch-dependent" not in found(nets.loaded(nets.noisy(0.1)))


@pytest.mark.parametrize("decimals", [1, 2, 3])
def test_rounded_probabilities_are_recognised_with_their_decimals(decimals: int) -> None:
    steps = 10.0**decimals

    def rounded(net: nn.Module, x: Tensor) -> Tensor:
        probabilities: Tensor = net(x).div(5).softmax(dim=1)
        return (probabilities * steps).round() / steps

    finding = found(nets.loaded(Around(rounded)))["output-kind"]
    assert f"probabilities rounded to {decimals} decimals" in finding.message


def test_logits_declared_as_probabilities_are_an_error_and_sigmoids_a_warning() -> None:
    wrong = found(nets.loaded(Around(identity), output="probabilities"))
    assert wrong["output-kind"].severity == "error"
    assert "64 of 64 outputs leave [0, 1]" in wrong["output-kind"].message
    sigmoids = nets.loaded(Around(lambda net, x: net(x).div(9).sigmoid()), output="probabilities")
    assert found(sigmoids)["not-probabilities"].severity == "warning"


def test_a_log_softmax_is_a_note() -> None:
    assert [(f.id, f.severity) for f in judged(observed(nets.loaded(nets.log_softmax())))] == [
        ("output-kind", "note")
    ]


def test_the_parts_in_train_mode_are_counted_by_kind() -> None:
    finding = found(nets.loaded(nets.Dropping()))["train-mode"]
    assert "1 Dropout" in finding.message
    body = nn.Sequential(
        nn.Dropout(0.0), nn.BatchNorm2d(1), nn.InstanceNorm2d(1), nn.Flatten(), nn.Linear(784, 10)
    )
    model = nets.loaded(body)
    body.train()
    record = observed(model)
    assert {k: v for k, v in record.items() if k.startswith(keys.TRAINING)} == {
        f"{keys.TRAINING}BatchNorm2d": 1
    }


def test_the_share_of_saturated_losses_is_told() -> None:
    numbers = found(nets.loaded(nets.scaled(1000)))["saturated-cross-entropy"].numbers
    assert numbers["cross-entropy exactly zero"] == numbers["correct samples of the cross-entropy"]
    assert 0 < numbers["cross-entropy without a gradient"] <= 32
    assert "saturated-cross-entropy" not in found(nets.loaded(nets.scaled(1)))


def test_losses_that_are_zero_and_still_have_a_direction_are_a_note() -> None:
    finding = found(nets.loaded(nets.scaled(3)))["saturated-cross-entropy"]
    assert finding.severity == "note"
    assert finding.numbers["cross-entropy without a gradient"] <= 1
    assert "without any gradient for" in finding.message


def test_without_gradients_the_artefacts_own_scores_tell_of_saturation() -> None:
    raised = found(nets.loaded(nets.scaled(1000), score_only=True))
    assert set(raised) == {"saturated-cross-entropy"}


# ---------------------------------------------------------------- data against model


def test_a_network_that_wants_bytes_is_told_how_to_get_them() -> None:
    finding = found(nets.loaded(nets.bytes_wanted()))["input-scaling"]
    assert finding.severity == "error"
    assert "'0 to 255'" in finding.message
    assert "`scale: 255`" in finding.advice
    assert finding.numbers["input scaling: 0 to 255: gained"] > 30


class Prototypes(nn.Module):
    """Nearest of ten colours in distance: nothing about the scale of its input may be wrong."""

    def __init__(self, colours: Tensor, undo: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.colours = nn.Parameter(colours)
        self.undo = undo

    def forward(self, x: Tensor) -> Tensor:
        flat = self.undo(x).flatten(1)
        logits: Tensor = -((flat[:, None] - self.colours.flatten(1)) ** 2).sum(dim=2)
        return logits


def undoing(scaling: Scaling, box: Box) -> Callable[[Tensor], Tensor]:
    """The way back to [0, 1] from an affine map of every channel, found by feeding it the ends."""

    def undo(x: Tensor) -> Tensor:
        low, high = (scaling.of(torch.full_like(x[:1], end), box) for end in (box.low, box.high))
        unit = (x - low) / (high - low)
        return unit.flip(1) if scaling.bgr else unit

    return undo


ALIKE = {"ImageNet mean and std", "CIFAR-10 mean and std"}  # on these data nobody can tell


@pytest.mark.parametrize("box", [Box(0.0, 1.0), Box(-20.0, 30.0)])
@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 4, 4), (16,)])
def test_the_scaling_that_a_network_was_built_for_is_named(
    box: Box, shape: tuple[int, ...]
) -> None:
    draw = torch.Generator().manual_seed(3)
    steps = torch.tensor([1, 3, 7])[: shape[0] if len(shape) == 3 else 1]
    levels = (torch.arange(10)[:, None] * steps % 10 + 0.5) / 10  # a level of each channel
    colours = levels.reshape(10, -1, *(1,) * (len(shape) - 1)).expand(10, *shape).clone()
    y = torch.arange(64) % 10
    unit = (colours[y] + 0.02 * torch.randn(64, *shape, generator=draw)).clamp(0, 1)
    batch = nets.batch_of(box.low + box.width * unit, y, box)
    for scaling in candidates(shape, box):
        raised = found(nets.loaded(Prototypes(colours, undoing(scaling, box))), batch)
        message = raised["input-scaling"].message
        names = ALIKE if scaling.name in ALIKE else {scaling.name}
        assert any(f"64 of them if it is fed '{name}'" in message for name in names)


@pytest.mark.parametrize("faded", [lambda x: 0.5 + (x - 0.5) * 0.4, lambda x: x * 0.6 + 0.4])
def test_on_a_faded_dataset_a_scaling_that_helps_is_no_error(
    faded: Callable[[Tensor], Tensor],
) -> None:
    clean = nets.digits()
    raised = found(nets.loaded(Around(identity)), dataclasses.replace(clean, x=faded(clean.x)))
    assert [finding.severity for finding in raised.values()] == ["warning"]


def test_a_scaling_is_not_blamed_where_every_sample_has_one_label() -> None:
    x, y = nearest_mean.sample()
    batch = nets.batch_of(x[y == 1][:64], y[y == 1][:64])
    assert "input-scaling" not in found(nets.loaded(nets.bytes_wanted()), batch)


def test_a_network_that_is_right_is_spared_the_trials() -> None:
    assert not any(key.startswith(keys.SCALING) for key in observed(nets.loaded(Around(identity))))


@pytest.mark.parametrize("shift", [1, 5])
def test_labels_in_another_order_are_no_better_than_guessing(shift: int) -> None:
    clean = nets.digits()
    batch = dataclasses.replace(clean, y=(clean.y + shift) % 10)
    finding = found(nets.loaded(Around(identity)), batch)["chance-accuracy"]
    assert finding.severity == "error"
    assert "one of 10 classes (10.0 %)" in finding.message


@pytest.mark.parametrize(
    ("right", "n", "classes", "fires"),
    [
        (100, 1000, 10, True),
        (130, 1000, 10, False),  # poor, and better than chance
        (500, 1000, 2, True),
        (560, 1000, 2, False),
        (0, 1000, 1000, True),
        (8, 1000, 1000, False),
        (2, 29, 10, False),  # too few
        (0, 2, 10, False),
        (32, 64, 2, False),  # could be 0.6
    ],
)
def test_chance_is_judged_on_the_whole_clean_pass(
    right: int, n: int, classes: int, *, fires: bool
) -> None:
    record = {keys.SAMPLES: 64.0, keys.CORRECT: 60.0, keys.LABELS: 5.0, keys.OUTPUTS: classes}
    record |= {keys.CLASSES: classes, keys.CLEAN_SAMPLES: n, keys.CLEAN_CORRECT: right}
    assert ("chance-accuracy" in {each.id for each in judged(record)}) == fires


def always(label: int) -> nn.Module:
    """Gives one class to all, with scores that move a little."""
    return Around(lambda net, x: net(x) * 1e-3 + torch.eye(10, device=x.device)[label] * 9)


def of_classes(counts: dict[int, int]) -> Batch:
    """The first digits of some classes, so many of each."""
    x, y = nearest_mean.sample()
    rows = torch.cat([torch.nonzero(y == k)[:count, 0] for k, count in counts.items()])
    return nets.batch_of(x[rows], y[rows])


@pytest.mark.parametrize(
    ("counts", "error"),
    [({1: 50, 2: 3, 7: 2}, True), ({1: 50, 2: 2, 7: 2}, False), ({1: 60}, False)],
)
def test_a_network_that_gives_the_frequent_class_to_all_is_no_better_than_guessing(
    counts: dict[int, int], *, error: bool
) -> None:
    batch = of_classes(counts)
    seen = found(nets.loaded(always(1)), batch)
    assert ("chance-accuracy" in seen) is error
    assert ("single-label" in seen) is (len(counts) == 1)
    assert severe(nets.loaded(Around(lambda net, x: net(x))), batch) == (
        ["single-label"] if len(counts) == 1 else []
    )


@pytest.mark.parametrize(("different", "error"), [(1, True), (16, True), (17, False)])
def test_inputs_that_are_repeated_are_an_error(different: int, *, error: bool) -> None:
    batch = nets.digits(32)
    hashes = tuple(str(row % different) for row in range(32))
    seen = found(
        nets.loaded(Around(lambda net, x: net(x))), dataclasses.replace(batch, hashes=hashes)
    )
    assert ("repeated-samples" in seen) is error
    if error:
        assert f"only {different} are different" in seen["repeated-samples"].message


@pytest.mark.parametrize(("shape", "severity"), [((784,), "warning"), ((1, 28, 28), "error")])
def test_rows_of_a_table_may_well_be_alike(shape: tuple[int, ...], severity: str) -> None:
    batch = dataclasses.replace(nets.digits(32), hashes=("one",) * 32)
    dimensions = {f"{DIMENSION}{at}": float(size) for at, size in enumerate(shape)}
    told = judged(observed(nets.loaded(Around(identity)), batch) | dimensions)
    assert [each.severity for each in told if each.id == "repeated-samples"] == [severity]


def weak(x: Tensor) -> Tensor:
    """Rows that look attacked: hardly any black pixel is left, bool [n, 1]."""
    return x.flatten(1).sort(dim=1).values[:, 392:393] > 0.02


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: torch.where(weak(x) & (len(x) > 1), net(1 - x), net(x)),
        lambda net, x: net(1 - x) if weak(x).float().mean() > 0.6 else net(x),
    ],
    ids=["alone", "by the others"],
)
def test_a_network_that_tells_batches_apart_where_they_look_attacked_is_found(
    forward: Callable[[nn.Module, Tensor], Tensor],
) -> None:
    assert "batch-dependent" in severe(nets.loaded(Around(forward)))
    always_so = Around(lambda net, x: torch.where(weak(x), net(1 - x), net(x)))
    assert severe(nets.loaded(always_so)) == []


def test_outputs_that_are_not_finite_are_not_blamed_on_the_data() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        z: Tensor = net(x)
        return z.masked_fill(z < z.amax(dim=1, keepdim=True), -torch.inf)

    seen = severe(nets.loaded(Around(forward)))
    assert "output-not-finite" in seen
    assert not {"input-scaling", "chance-accuracy"} & set(seen)


def test_the_counts_of_a_clean_pass_add_up() -> None:
    model = nets.loaded(Around(identity))
    whole = preflight.counts(clean_chunk(model, nets.digits(90)).samples)
    parts = [
        preflight.counts(clean_chunk(model, nets.digits(n, start)).samples)
        for start, n in ((0, 60), (60, 30))
    ]
    assert whole == {key: sum(part[key] for part in parts) for key in whole}
    assert whole[keys.CLEAN_SAMPLES] == 90


def test_class_counts_are_compared_and_unknown_labels_an_error() -> None:
    two = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    raised = found(nets.loaded(two, classes=2))
    assert raised["class-count"].severity == "note"
    assert raised["unknown-labels"].severity == "error"
    x, y = nearest_mean.sample()
    binary = nets.batch_of(x[y < 2][:40], y[y < 2][:40])
    raised = found(nets.loaded(two, classes=2), binary)
    assert "unknown-labels" not in raised
    assert "class-count" in raised  # selected from ten


def test_samples_outside_the_box_are_an_error() -> None:
    clean = nets.digits()
    batch = dataclasses.replace(clean, box=Box(0.0, 0.5))
    finding = found(nets.loaded(Around(identity)), batch)["out-of-box"]
    assert finding.severity == "error"
    assert "64 of 64 samples lie outside" in finding.message


def test_a_cpu_in_the_place_of_a_gpu_is_a_warning() -> None:
    record = observed(nets.loaded(Around(identity)))
    assert keys.ON_CPU not in record
    (finding,) = judged(record | {keys.ON_CPU: 1.0})
    assert (finding.id, finding.severity) == ("provider-fallback", "warning")


def test_a_provider_on_the_cpu_is_noticed_where_the_samples_are_elsewhere(
    device: torch.device,
) -> None:
    model = nets.loaded(Around(identity), device=device)
    batch = nets.digits(device=device)
    assert "provider-fallback" not in found(model, batch)
    fallen = dataclasses.replace(model, provider="CPUExecutionProvider")
    assert ("provider-fallback" in found(fallen, batch)) == (device.type == "cuda")


# ---------------------------------------------------------------- the record


@pytest.mark.parametrize("name", BROKEN)
def test_the_record_is_plain_finite_numbers_and_can_be_judged_again(name: str) -> None:
    record = observed(nets.loaded(BROKEN[name][0]()))
    assert all(key.startswith(keys.HEAD) for key in record)
    assert all(math.isfinite(value) and value != 0 for value in record.values())
    assert judged(json.loads(json.dumps(record))) == judged(record)


class Counting(nn.Module):
    """Counts the samples that pass through it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += len(x)
        logits: Tensor = self.module(x)
        return logits


@pytest.mark.parametrize(
    ("make", "trials"), [(lambda: Around(identity), 0), (nets.bytes_wanted, 5 * 64)]
)
def test_the_passes_are_as_documented(make: Callable[[], nn.Module], trials: int) -> None:
    counting = Counting(make())
    record = observed(nets.loaded(counting), nets.digits(200))
    forward, backward = HEALTHY_COST
    assert counting.passes == record[keys.PASSES] == forward + trials
    assert record[keys.GRADIENT_PASSES] == backward
    assert record[keys.SAMPLES] == 64


@pytest.mark.parametrize("name", ["dropout", "batch norm in train mode", "noise"])
def test_the_model_and_the_generators_are_left_as_found(name: str) -> None:
    model = nets.loaded(BROKEN[name][0]())
    before = fingerprint(model.differentiable)
    state = torch.get_rng_state()
    batch = nets.digits()
    kept = batch.x.clone()
    first = observed(model, batch)
    assert fingerprint(model.differentiable) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(batch.x, kept)
    assert observed(model, batch) == first  # also of a random model


def test_a_network_that_works_in_place_is_not_said_to_vary() -> None:
    halving = Around(lambda net, x: net(x.mul_(0.5).mul_(1.9)))
    assert severe(nets.loaded(halving, score_only=True)) == []
    assert severe(nets.loaded(halving)) == ["no-gradient"]  # torch refuses it on a leaf


def test_where_memory_is_short_fewer_samples_are_looked_at() -> None:
    def small(net: nn.Module, x: Tensor) -> Tensor:
        if len(x) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        logits: Tensor = net(x)
        return logits

    record = observed(nets.loaded(Around(small)))
    assert record[keys.SAMPLES] == 16
    assert judged(record) == []


def test_a_network_that_fails_is_not_hidden() -> None:
    def failing(net: nn.Module, x: Tensor) -> Tensor:
        raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="no such layer"):
        observed(nets.loaded(Around(failing)))


def source(labels: Tensor) -> DataSource:
    n = len(labels)

    def read(positions: object) -> Tensor:
        return torch.tensor(positions, dtype=torch.float32)[:, None] / n  # type: ignore[arg-type]

    return DataSource(
        ids=[f"s{row}" for row in range(n)],
        labels=labels,
        read=read,
        shape=(1,),
        box=nets.UNIT,
        classes=DIGITS,
    )


@pytest.mark.parametrize("order", ["sorted", "dealt"])
def test_samples_are_chosen_from_everywhere(order: str) -> None:
    labels = torch.arange(640) // 64 if order == "sorted" else torch.arange(640) % 10
    selected = select("d", source(labels), Selection())
    cpu = torch.device("cpu")
    batch = preflight.chosen(selected, cpu)
    assert len(set(batch.ids)) == 64
    assert len(set(batch.y.tolist())) >= 8
    rows = torch.tensor([int(name[1:]) for name in batch.ids])
    assert torch.equal(batch.y, labels[rows])
    assert torch.equal(batch.x[:, 0], rows / 640)
    assert preflight.chosen(selected, cpu).ids == batch.ids


def test_a_small_selection_is_taken_whole() -> None:
    selected = select("d", source(torch.arange(7)), Selection(skip=2))
    batch = preflight.chosen(selected, torch.device("cpu"))
    assert batch.ids == ("s2", "s3", "s4", "s5", "s6")


# ---------------------------------------------------------------- the arithmetic


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 8),
    k=st.integers(2, 6),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    offset=st.sampled_from([-100.0, 0.0, 5.0]),
)
def test_differences_are_in_the_unit_of_the_scores(
    seed: int, n: int, k: int, scale: float, offset: float
) -> None:
    draw = np.random.default_rng(seed)
    a = torch.from_numpy(draw.normal(size=(n, k)))
    b = torch.from_numpy(draw.normal(size=(n, k)))
    measured = apart(a, b)
    assert torch.equal(apart(a, a), torch.zeros(n, dtype=torch.float64))
    assert torch.allclose(apart(a * scale + offset * scale, b * scale + offset * scale), measured)
    assert bool((measured >= 0).all())


def test_differences_from_what_is_not_finite_are_finite() -> None:
    a = torch.tensor([[0.0, 1.0], [math.nan, 1.0]])
    b = torch.tensor([[math.inf, 1.0], [math.nan, 1.0]])
    measured = apart(a, b)
    assert measured.isfinite().all()
    assert measured[1] == 0


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 30),
    k=st.integers(2, 200),
    sharp=st.floats(0.1, 30),
)
def test_kinds_of_output_are_told_apart(seed: int, n: int, k: int, sharp: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, k, generator=draw) * sharp + 3
    assert kind(logits.softmax(dim=1), "logits") == "probabilities"
    assert kind(logits.log_softmax(dim=1), "logits") == "log-probabilities"
    assert kind(logits, "logits") == "logits"


# ---------------------------------------------------------------- findings and cells


def ended(of: Cell, record: dict[str, float]) -> CellResult:
    return CellResult(
        cell=of, status="ok", reason="", samples=None, examples=None, observed=record,
        seconds=0.0, device="cpu", provider="torch", batch_size=1,
    )  # fmt: skip


def test_a_finding_touches_every_cell_of_the_model_on_that_dataset() -> None:
    clean = cell("clean", None, norm=None)
    white = cell("fgsm", "0.1")
    from_it = cell("transfer", "0.1", model="other", source="candidate")
    from_several = cell("many", "0.1", model="other", source="third + candidate")
    strangers = [
        cell("fgsm", "0.1", model="other"),
        cell("fgsm", "0.1", dataset="more"),
        cell("transfer", "0.1", model="other", source="third"),
    ]
    cells = [clean, white, from_it, from_several, *strangers]
    record = observed(nets.loaded(nets.softmax()))
    results = {each.id: ended(each, record if each is clean else {}) for each in cells}
    (finding,) = of_models(cells, results)
    assert finding.id == "output-kind"
    assert finding.message.startswith("'candidate' on 'test': the outputs look like")
    assert finding.cells == (clean.id, white.id, from_it.id, from_several.id)


def test_a_clean_pass_without_a_record_or_without_an_end_says_nothing() -> None:
    clean = cell("clean", None, norm=None)
    record = observed(nets.loaded(nets.softmax()))
    failed = dataclasses.replace(ended(clean, record), status="failed")
    for results in ({}, {clean.id: ended(clean, {})}, {clean.id: failed}):
        assert of_models([clean], results) == []


def test_outputs_that_are_not_finite_are_told_once() -> None:
    clean = cell("clean", None, norm=None)
    record = observed(nets.loaded(nearest_mean.nan()))
    alone = of_models([clean], {clean.id: ended(clean, record)})
    assert "output-not-finite" in {finding.id for finding in alone}
    record |= {f"{ILLEGAL}model output not finite": 64}
    counted = of_models([clean], {clean.id: ended(clean, record)})
    assert "output-not-finite" not in {finding.id for finding in counted}
