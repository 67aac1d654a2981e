"""The twin joined to an opened file: what `verify` passes and refuses, and gradients of `predict`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper
from torch import Tensor, nn

from robustbench_lite import LoadedModel, ModelError, Parity
from robustbench_lite.builtin.models import onnx_twin
from robustbench_lite.builtin.models.onnx_file import open_file
from robustbench_lite.builtin.models.parameters import OnnxParams
from robustbench_lite.builtin.models.preprocess import Preprocess
from robustbench_lite.builtin.models.twin import convert, supported
from tests.onnx_zoo import (
    EMBEDDED,
    branching,
    continued,
    digits,
    half,
    opened,
    quantised,
    saved,
    uniform,
)

RNG = np.random.default_rng(3)
WEIGHTS = RNG.normal(size=(6, 3)).astype(np.float32)
NETWORK = {
    "W1": RNG.normal(size=(6, 16)).astype(np.float32),
    "W2": RNG.normal(size=(16, 3)).astype(np.float32),
}


def node(op: str, inputs: str, outputs: str, **attributes: int | str | list[int]) -> NodeProto:
    return helper.make_node(
        op, inputs.split(), outputs.split(), None, None, None, None, **attributes
    )


def smooth(*last: NodeProto) -> list[NodeProto]:
    """z = tanh(flat(x) W1) W2 in float32, then `last` from z to y."""
    return [
        node("Cast", "x", "f", to=TensorProto.FLOAT),
        node("Flatten", "f", "flat"),
        node("MatMul", "flat W1", "h"),
        node("Tanh", "h", "t"),
        node("MatMul", "t W2", "z"),
        *(last or [node("Identity", "z", "y")]),
    ]


def checked(model: LoadedModel, x: Tensor) -> Parity:
    assert model.verify is not None, model.no_gradient
    return model.verify(x)


def scores(model: LoadedModel, x: Tensor) -> Tensor:
    """The file's own output as log-probabilities or logits, whose differences have gradients."""
    own = model.predict(x).double()
    return own.log() if model.output == "probabilities" else own


def agrees_with_differences(
    model: LoadedModel, x: Tensor, *, step: float = 1e-2, close: float = 2e-3
) -> None:
    """d(z_a - z_b)/dx of the twin against central differences of what the file says."""
    assert model.differentiable is not None
    x = x.clone().requires_grad_()
    logits = model.differentiable(x)
    (gradient,) = torch.autograd.grad((logits[:, 0] - logits[:, 1]).sum(), x)
    for seed in range(3):
        direction = torch.nn.functional.normalize(
            uniform(*x.shape, seed=seed).sub(0.5).flatten(1), dim=1
        ).view_as(x)
        with torch.no_grad():
            ahead, behind = scores(model, x + step * direction), scores(model, x - step * direction)
        rise = (ahead - behind)[:, :2] / (2 * step)
        expected = rise[:, 0] - rise[:, 1]
        found = (gradient * direction).flatten(1).sum(1).double()
        assert (found - expected).abs().max() <= close * (1 + expected.abs().max())


# ---------------------------------------------------------------- files that pass


def test_the_embedded_file_has_a_twin_that_is_the_file() -> None:
    model = opened(EMBEDDED)
    parity = checked(model, digits(16))
    assert (parity.reason, parity.agreement) == ("", 1.0)
    assert parity.difference <= 1e-5 < parity.tolerance
    assert model.differentiable is not None
    assert torch.allclose(model.differentiable(digits(4)), model.predict(digits(4)), atol=1e-4)
    assert model.facts["twin"] == {
        "operators": {"Relu": 3, "Conv": 2, "Gemm": 2, "Flatten": 1},
        "head": "logits",
    }
    assert not any(parameter.requires_grad for parameter in model.differentiable.parameters())
    assert not model.differentiable.training


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_quantised_file_passes(tmp_path: Path, per_channel: bool) -> None:
    model = opened(quantised(tmp_path / "m.onnx", per_channel=per_channel))
    assert checked(model, digits(32)).reason == ""
    assert model.differentiable is not None
    x = digits(16).requires_grad_()
    (gradient,) = torch.autograd.grad(model.differentiable(x).square().sum(), x)
    (wanted,) = torch.autograd.grad(convert_of(EMBEDDED)(x).square().sum(), x)
    assert torch.cosine_similarity(gradient.flatten(), wanted.flatten(), 0) >= 0.9


def convert_of(path: Path) -> nn.Module:
    return convert(onnx.load(path))


@pytest.mark.parametrize("keep_io", [False, True])
def test_a_file_in_half_precision_passes(tmp_path: Path, keep_io: bool) -> None:
    model = opened(half(tmp_path / "m.onnx", keep_io=keep_io))
    parity = checked(model, digits(32))
    assert parity.reason == ""
    assert parity.difference <= parity.tolerance


HEADS: Mapping[str, tuple[list[NodeProto], int, str, str]] = {
    "softmax": ([node("Softmax", "z", "y", axis=1)], 3, "softmax", "probabilities"),
    "log-softmax": ([node("LogSoftmax", "z", "y")], 3, "log-softmax", "log-probabilities"),
    "log of softmax": (
        [node("Softmax", "z", "p"), node("Log", "p", "y")],
        3,
        "log-softmax",
        "log-probabilities",
    ),
    "softmax by hand": (
        [
            node("Exp", "z", "e"),
            node("ReduceSum", "e one", "s", keepdims=1),
            node("Div", "e s", "y"),
        ],
        3,
        "logits",
        "logits",
    ),
    "sigmoid of one column": ([node("Sigmoid", "z", "y")], 1, "sigmoid", "probabilities"),
    "sigmoid of two columns": ([node("Sigmoid", "z", "y")], 2, "sigmoid", "probabilities"),
    "sigmoid of three columns": ([node("Sigmoid", "z", "y")], 3, "logits", "probabilities"),
}


@pytest.mark.parametrize("kind", HEADS)
def test_heads_are_taken_out_and_put_back_for_the_comparison(tmp_path: Path, kind: str) -> None:
    last, columns, head, output = HEADS[kind]
    weights = {**NETWORK, "W2": NETWORK["W2"][:, :columns], "one": np.array([1])}
    model = opened(saved(tmp_path / "m.onnx", smooth(*last), weights, columns=("n", columns)))
    twin = model.facts["twin"]
    assert isinstance(twin, Mapping)
    assert (twin["head"], model.output) == (head, output)
    x = uniform(12, 6)
    parity = checked(model, x)
    assert (parity.reason, parity.agreement) == ("", 1.0)
    assert parity.difference <= 1e-5
    if columns != 2 or head != "sigmoid":  # two sigmoids are no distribution: their logits attack
        agrees_with_differences(model, x[:4])
    assert model.differentiable is not None
    assert torch.equal(model.differentiable(x).argmax(1), model.predict(x).argmax(1))


def test_a_saturated_softmax_keeps_its_gradient(tmp_path: Path) -> None:
    last = [node("Mul", "z big", "b"), node("Softmax", "b", "y")]
    weights = {**NETWORK, "big": np.array(1e4, dtype=np.float32)}
    model = opened(saved(tmp_path / "m.onnx", smooth(*last), weights))
    x = uniform(4, 6).requires_grad_()
    assert model.predict(x).amax(1).tolist() == [1.0] * 4
    assert model.differentiable is not None
    loss = torch.nn.functional.cross_entropy(model.differentiable(x), torch.tensor([0, 1, 2, 0]))
    (gradient,) = torch.autograd.grad(loss, x)
    assert (gradient.norm(dim=1) > 1).sum() >= 2


@pytest.mark.parametrize(("rows", "transform"), [(1, "LOGISTIC"), (2, "LOGISTIC"), (3, "SOFTMAX")])
@pytest.mark.parametrize("normalised", [False, True])
def test_linear_classifiers_of_scikit_learn(
    tmp_path: Path, rows: int, transform: str, normalised: bool
) -> None:
    classes = max(rows, 2)
    weights = RNG.normal(size=(rows, 6)).astype(np.float32)
    if rows == 2:
        weights[0] = -weights[1]
    classifier = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "p" if normalised else "y"],
        domain="ai.onnx.ml",
        coefficients=weights.ravel().tolist(),
        intercepts=[0.1 * row for row in range(rows)],
        classlabels_ints=list(range(classes)),
        multi_class=int(rows > 2),
        post_transform=transform,
    )
    nodes = [classifier]
    if normalised:
        nodes.append(helper.make_node("Normalizer", ["p"], ["y"], domain="ai.onnx.ml", norm="L1"))
    path = saved(tmp_path / "m.onnx", nodes, {}, columns=("n", classes), domains=["ai.onnx.ml"])
    model = opened(path)
    assert model.num_classes == classes
    parity = checked(model, uniform(16, 6) - 0.5)
    assert (parity.reason, parity.agreement) == ("", 1.0)


CONV = RNG.normal(size=(3, 1, 4, 4)).astype(np.float32)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"mean": 0.1307, "std": 0.3081},
        {"scale": 255.0, "mean": 33.0, "std": 78.0},
    ],
    ids=["bare", "mean and std", "scale"],
)
def test_preprocessing_and_layout_are_part_of_the_twin(
    tmp_path: Path, layout: str, fields: dict[str, float]
) -> None:
    image = "x"
    nodes = []
    if layout == "NHWC":
        nodes, image = [node("Transpose", "x", "c", perm=[0, 3, 1, 2])], "c"
    nodes += [
        node("Conv", f"{image} K", "k"),
        node("Tanh", "k", "t"),
        node("ReduceMean", "t", "y", axes=[2, 3], keepdims=0),
    ]
    shape = ("n", 8, 8, 1) if layout == "NHWC" else ("n", 1, 8, 8)
    path = saved(tmp_path / "m.onnx", nodes, {"K": CONV}, shape=shape)
    model = opened(path, "cpu", **fields)
    assert (model.facts["layout"], model.input_shape) == (layout, (1, 8, 8))
    x = uniform(6, 1, 8, 8)
    assert checked(model, x).reason == ""
    agrees_with_differences(model, x, step=1e-2 if "scale" not in fields else 5e-3)


def test_a_file_of_bytes_is_rounded_like_the_file_and_keeps_its_gradient(tmp_path: Path) -> None:
    weights = NETWORK | {"W1": NETWORK["W1"] / np.float32(255)}
    path = saved(tmp_path / "m.onnx", smooth(), weights, kind=TensorProto.UINT8)
    model = opened(path, scale=255)
    x = uniform(32, 6)  # not on the grid of bytes
    parity = checked(model, x)
    assert parity.reason == ""
    assert parity.difference <= 1e-5
    assert model.differentiable is not None
    flat = torch.linspace(-0.2, 1.2, 29)[:, None].expand(29, 6).clone().requires_grad_()
    logits = model.differentiable(flat)
    assert torch.allclose(logits, model.predict(flat.detach()), atol=1e-5)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), flat)
    inside = (flat.detach()[:, 0] > 0) & (flat.detach()[:, 0] < 1)
    assert (gradient[inside].abs().sum(1) > 0).all()
    assert gradient[~inside & (flat.detach()[:, 0] != 0) & (flat.detach()[:, 0] != 1)].eq(0).all()
    # rounding moves a byte by at most one half: the slope over many bytes is that of the twin
    agrees_with_differences(model, 0.3 + 0.4 * uniform(4, 6), step=0.1, close=5e-2)


@pytest.mark.parametrize("n", [1, 4, 5, 11])
def test_a_fixed_batch_is_filled_up_in_the_twin_too(tmp_path: Path, n: int) -> None:
    path = saved(tmp_path / "m.onnx", smooth(), NETWORK, shape=(4, 6), columns=(4, 3))
    model = opened(path)
    x = uniform(n, 6)
    parity = checked(model, x)
    assert (parity.reason, parity.agreement) == ("", 1.0)
    agrees_with_differences(model, x)


# ---------------------------------------------------------------- twins that are refused


def joined(path: Path, classes: int = 10) -> tuple[onnx_twin.Joined, Callable[[Tensor], Parity]]:
    """The pieces that the loader joins, so that a test can spoil one."""
    opened_file = open_file(OnnxParams(path=path), device="cpu", threads=1)
    preprocess = Preprocess(OnnxParams(path=path), opened_file.layout)
    made = onnx_twin.join(opened_file, preprocess, classes, "cpu")
    model = opened(path)
    return made, onnx_twin.verifier(made, opened_file, preprocess, model.predict, 1)


def weights_of(module: nn.Module) -> Tensor:
    """The largest constant of the twin."""
    largest = max(module.buffers(), key=lambda buffer: buffer.numel())
    assert largest.numel() > 1000
    return largest


@pytest.mark.parametrize("kind", ["float", "quantised"])
def test_a_twin_with_wrong_weights_is_refused_with_its_figures(tmp_path: Path, kind: str) -> None:
    path = EMBEDDED if kind == "float" else quantised(tmp_path / "m.onnx")
    made, verify = joined(path)
    x = digits(32)
    assert verify(x).reason == ""
    weights_of(made.module).neg_()
    parity = verify(x)
    with torch.no_grad():
        away = (made.module(x) - opened(path).predict(x)).abs().max()
    assert parity.difference == pytest.approx(float(away))
    assert parity.difference > parity.tolerance > 0
    assert parity.agreement < 1
    assert f"differs from the file by {parity.difference:.3g}" in parity.reason
    assert f"allowed is {parity.tolerance:.3g}" in parity.reason


def test_one_wrong_weight_of_a_float_twin_is_refused_too() -> None:
    made, verify = joined(EMBEDDED)
    weights = weights_of(made.module)
    weights.view(-1)[weights.abs().argmax()] += 0.05
    parity = verify(digits(32))
    assert parity.reason
    assert parity.difference < 1


def test_decisions_that_differ_within_the_tolerance_are_counted(tmp_path: Path) -> None:
    """A tolerance that is wide compared with the logits must not let any twin through."""
    path = quantised(tmp_path / "m.onnx")
    made, verify = joined(path)
    x = digits(1) * torch.linspace(0, 1, 64)[:, None, None, None]
    assert verify(x).reason == ""
    file = opened(path).predict(x)
    near = file.topk(2, dim=1).values
    close = x[(near[:, 0] - near[:, 1]) < 0.3]
    assert len(close) >= 2
    favourite = int(file.argmax(1).bincount().argmax())
    original = made.module.forward

    def biased(x: Tensor) -> Tensor:
        logits = original(x)
        logits[:, favourite] += 0.5
        return logits

    made.module.forward = biased  # type: ignore[method-assign]
    parity = verify(close)
    assert parity.difference <= parity.tolerance
    assert parity.agreement < 0.9
    assert "decides otherwise than the file" in parity.reason


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_never_pass(tmp_path: Path, value: float) -> None:
    made, verify = joined(EMBEDDED)
    biases = [buffer for buffer in made.module.buffers() if buffer.shape == (10,)]
    biases[0][3] = value
    assert "differs from the file" in verify(digits(4)).reason
    # a file that gives the same value cannot be compared either
    infinite = {"W1": WEIGHTS, "bad": np.array([0, value, 0], dtype=np.float32)}
    nodes = [node("MatMul", "x W1", "z"), node("Add", "z bad", "y")]
    path = saved(tmp_path / "m.onnx", nodes, infinite)
    assert not opened(path).predict(uniform(4, 6)).isfinite().all()
    assert "differs from the file" in checked(opened(path), uniform(4, 6)).reason
    # nor does it allow an infinite difference
    made, verify = joined(path, classes=3)
    for buffer in made.module.buffers():
        buffer.nan_to_num_(nan=0.0, posinf=0.0)
    assert "differs from the file" in verify(uniform(4, 6)).reason


def test_a_twin_that_does_not_run_on_the_data_is_a_reason_and_no_error() -> None:
    made, verify = joined(EMBEDDED)

    def refuse(x: Tensor) -> Tensor:
        raise ModelError(f"node 'Conv_0' cannot run on inputs of shape {list(x.shape)}")

    made.module.forward = refuse  # type: ignore[method-assign]
    parity = verify(digits(2))
    assert "its twin does not run: node 'Conv_0'" in parity.reason
    assert parity.agreement == 0


def test_a_file_without_a_twin_says_which_operator_is_in_the_way(tmp_path: Path) -> None:
    model = opened(branching(tmp_path / "m.onnx"))
    assert (model.differentiable, model.verify) == (None, None)
    assert "operator If (node 'choose')" in model.no_gradient
    assert "twin" not in model.facts
    assert torch.equal(model.predict(digits(8)), opened(EMBEDDED).predict(digits(8)))


def test_a_head_that_is_declared_otherwise_is_still_compared_rightly(tmp_path: Path) -> None:
    """`output_kind: logits` on a softmax: the file's numbers are probabilities all the same."""
    path = continued(tmp_path / "m.onnx", node("Softmax", "logits", "y", axis=1))
    model = opened(path, output_kind="logits")
    assert checked(model, digits(16)).reason == ""


# ---------------------------------------------------------------- the documentation

DOCUMENT = Path(__file__).parents[1] / "docs" / "onnx.md"
DOCUMENTED = 28
"""The newest opset when the list of what is refused was written."""
START, END = "<!-- operators: start -->", "<!-- operators: end -->"


def operator_list() -> str:
    """What docs/onnx.md says between its two marks: supported, and refused, of each domain."""
    lines = []
    for domain, names in supported().items():
        title = domain or "ai.onnx"
        lines += ["", f"### `{title}`: {len(names)}", "", *wrapped(names)]
        current = {
            schema.name
            for schema in onnx.defs.get_all_schemas()
            if schema.domain == domain and not schema.deprecated
        }
        if current:
            lines += [
                "",
                f"Refused, of opset {DOCUMENTED}:" if not domain else "Refused:",
                *wrapped(sorted(current - set(names))),
            ]
    return "\n".join([*lines, ""])


def wrapped(names: Sequence[str]) -> list[str]:
    return textwrap.wrap(", ".join(f"`{name}`" for name in names) + ".", 100)


def test_the_documentation_lists_the_operators_of_the_table() -> None:
    between = DOCUMENT.read_text(encoding="utf-8").split(START)[1].split(END)[0]
    assert len(supported()[""]) >= 130
    if onnx.defs.onnx_opset_version() == DOCUMENTED:
        assert between == f"\n{operator_list()}\n", f"between the marks belongs:\n{operator_list()}"
    for names in supported().values():
        assert "\n".join(wrapped(names)) in between
