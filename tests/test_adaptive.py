"""EOT, BPDA and sources that average: what a suite can say about a model that hides its gradient."""

from __future__ import annotations

import csv
import secrets
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from robustbench_lite import Box, LoadedModel, ModelError
from robustbench_lite.access import BatchMemory, Granted, Tally, differentiate
from robustbench_lite.adaptive import straight_through
from robustbench_lite.builtin.models.twin import convert
from robustbench_lite.ensemble import ensemble
from tests.conftest import TESTS, Robeval
from tests.small_world import Linear, loaded, random_linear

UNIT = Box(0.0, 1.0)


class Quantise(nn.Module):
    """Rounds to tenths: its gradient is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 10).round() / 10


class Flatten(nn.Module):
    """Changes the shape."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :2]


class Behind(nn.Module):
    """A step before a network."""

    def __init__(self, step: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.step, self.net = step, net

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.net(self.step(x))
        return made


class Noisy(nn.Module):
    """Adds a different constant gradient in every pass: the mean over many is the plain one."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn(x.shape[1:].numel()) * x.flatten(1)
        logits: Tensor = self.net(x)
        return logits + noise.sum(dim=1, keepdim=True) * torch.eye(logits.shape[1])[0]


def first_logit(logits: Tensor, _: Tensor) -> Tensor:
    return logits[:, 0]


def granted(model: LoadedModel, x: Tensor, y: Tensor, **adaptive: object) -> tuple[Granted, Tally]:
    tally = Tally(len(x), x.device)
    memory = BatchMemory(model, x, y)
    return Granted(memory, UNIT, "gradient", tally, **adaptive), tally  # type: ignore[arg-type]


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    return torch.rand((5, 6), generator=torch.Generator().manual_seed(3)), torch.arange(5) % 3


@pytest.mark.parametrize("name", ["step", "Quantise"])
def test_the_named_step_passes_gradients_and_keeps_its_values(
    name: str, inputs: tuple[Tensor, Tensor]
) -> None:
    x, y = inputs
    net = random_linear(0)
    model = loaded(Behind(Quantise(), net), 3)
    blind = differentiate(model, x, y, "margin")
    seeing = differentiate(model, x, y, "margin", (name,))
    assert bool((blind.gradient == 0).all())
    assert torch.allclose(seeing.logits, blind.logits, atol=1e-6)
    plain = differentiate(loaded(net, 3), Quantise()(x), y, "margin")
    assert torch.equal(seeing.gradient, plain.gradient)
    assert bool((differentiate(model, x, y, "margin").gradient == 0).all()), "the hook is gone"


def test_a_step_that_is_not_there_or_changes_the_shape_is_named(
    inputs: tuple[Tensor, Tensor],
) -> None:
    x, y = inputs
    model = loaded(Behind(Quantise(), random_linear(0)), 3)
    with pytest.raises(ModelError, match="no step 'quant'; it has: step, net"):
        differentiate(model, x, y, "margin", ("quant",))
    short = loaded(Behind(Flatten(), Linear(torch.eye(2))), 2)
    with pytest.raises(ModelError, match=r"turns shape \[5, 6\] into \[5, 2\]"):
        differentiate(short, x, y % 2, "margin", ("step",))


@pytest.mark.parametrize("name", ["Round", "rounding"])
def test_a_node_of_an_onnx_file_is_a_step_too(name: str) -> None:
    ten = numpy_helper.from_array(np.array([10.0], dtype=np.float32), "ten")
    weight = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "ten"], ["scaled"], name="scaling"),
        helper.make_node("Round", ["scaled"], ["rounded"], name="rounding"),
        helper.make_node("MatMul", ["rounded", "w"], ["y"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [ten, numpy_helper.from_array(weight, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    twin = convert(made)
    x = torch.rand((4, 6), requires_grad=True)
    for _ in range(2):  # the second time the shapes are known
        with straight_through(twin, (name,)):
            (seeing,) = torch.autograd.grad(twin(x)[:, 0].sum(), x)
        expected = 10 * torch.from_numpy(weight[:, 0]).expand(4, 6)
        assert torch.allclose(seeing, expected, rtol=1e-6)
        (blind,) = torch.autograd.grad(twin(x)[:, 0].sum(), x)
        assert bool((blind == 0).all())
    with pytest.raises(ModelError, match="no step 'Floor'"), straight_through(twin, ("Floor",)):
        pass
    with (
        pytest.raises(ModelError, match="changes the shape"),
        straight_through(twin, ("head",)),
    ):
        twin(x)


def test_averaged_answers_are_means_and_every_draw_is_counted(
    inputs: tuple[Tensor, Tensor],
) -> None:
    x, y = inputs
    net = random_linear(1)
    model = loaded(Noisy(net), 3)
    view, tally = granted(model, x, y)
    torch.manual_seed(0)
    many = view.averaged(50).averaged(4).value_and_gradient(x, y, first_logit)
    assert tally.queries.tolist() == tally.gradients.tolist() == [200.0] * 5
    plain = differentiate(loaded(net, 3), x, y, first_logit).gradient
    one = view.gradient(x, y, first_logit)
    assert (many.gradient - plain).norm() < 0.3 * (one - plain).norm()
    view.averaged(3).logits(x)
    view.rows(torch.tensor([1, 1])).averaged(2).decide(x[[1, 1]])
    assert tally.queries.tolist() == [204.0, 208.0, 204.0, 204.0, 204.0]


def test_a_module_for_adapters_averages_and_passes_through_too(
    inputs: tuple[Tensor, Tensor],
) -> None:
    x, y = inputs
    net = random_linear(2)
    view, tally = granted(loaded(Behind(Quantise(), net), 3), x, y, draws=3, bpda=("step",))
    leaf = x.clone().requires_grad_()
    module = view.module()
    (gradient,) = torch.autograd.grad(module(leaf)[:, 0].sum(), leaf)
    assert torch.allclose(gradient, net.weight[0].expand(5, 6))
    assert tally.queries.tolist() == [3.0] * 5


def test_several_sources_are_the_mean_of_their_logits(inputs: tuple[Tensor, Tensor]) -> None:
    x, y = inputs
    nets = [random_linear(seed) for seed in (4, 5)]
    whole = ensemble({"a": loaded(nets[0], 3), "b": loaded(nets[1], 3)})
    expected = (nets[0](x) + nets[1](x)) / 2
    assert torch.allclose(whole.predict(x), expected)
    found = differentiate(whole, x, y, "margin")
    joint = Linear((nets[0].weight + nets[1].weight) / 2, (nets[0].bias + nets[1].bias) / 2)
    assert torch.allclose(
        found.gradient, differentiate(loaded(joint, 3), x, y, "margin").gradient, atol=1e-6
    )


def test_sources_that_do_not_fit_or_give_no_gradient_say_so() -> None:
    with pytest.raises(ModelError, match="equal classes, found 'a' 3, 'b' 4"):
        ensemble({"a": loaded(random_linear(0), 3), "b": loaded(random_linear(0, 4), 4)})
    blind = loaded(random_linear(0), 3, differentiable=False)
    assert ensemble({"a": loaded(random_linear(1), 3), "b": blind}).differentiable is None


# ---------------------------------------------------------------- through a suite

STEPS = """
from torch import nn
from nearest_mean import linear


class Quantise(nn.Module):
    def forward(self, x):
        return (x * 8).round() / 8


def masked():
    return nn.Sequential(Quantise(), linear())
"""
SUITE = """
schema: 1
name: adaptive
python_path: ["{tests}", .]
models:
  masked: {{load: torch, factory: "steps:masked"}}
  plain: {{load: torch, factory: "nearest_mean:linear"}}
  robust: {{load: onnx, path: "pkg://robustbench_lite/embedded/mnist_cnn_robust.onnx"}}
datasets:
  test: {{load: mnist-sample, take: 30}}
attacks:
{attacks}
evaluate: [{{model: masked, dataset: test}}]
"""


@pytest.fixture
def outcome(
    robeval: Robeval, tmp_path: Path
) -> Callable[[str], tuple[int, dict[tuple[str, str], dict[str, str]]]]:
    """Run a suite of these attacks: its exit code, and (entry, eps) -> row of cells.csv."""

    def run(attacks: str) -> tuple[int, dict[tuple[str, str], dict[str, str]]]:
        (tmp_path / "steps.py").write_text(STEPS)
        text = SUITE.format(tests=TESTS, attacks=textwrap.indent(textwrap.dedent(attacks), "  "))
        (tmp_path / "s.yaml").write_text(text)
        out = tmp_path / secrets.token_hex(4)
        ended = robeval("run", "s.yaml", "-o", str(out))
        with (out / "tables" / "cells.csv").open(encoding="utf-8") as file:
            rows = {(row["attack"], row["eps_text"]): row for row in csv.DictReader(file)}
        return ended.code, rows

    return run


Outcome = Callable[[str], tuple[int, dict[tuple[str, str], dict[str, str]]]]


def test_bpda_finds_what_a_zero_gradient_hid(outcome: Outcome) -> None:
    _, rows = outcome(
        """
        hidden: {attack: pgd, norm: linf, eps: 0.25, steps: 20}
        found: {attack: pgd, norm: linf, eps: 0.25, steps: 20, bpda: {Quantise: identity}}
        """
    )
    assert rows["hidden", "0.25"]["status"] == "invalid"
    assert "exactly zero" in rows["hidden", "0.25"]["reason"]
    assert rows["found", "0.25"]["status"] == "ok"
    assert float(rows["found", "0.25"]["robust_accuracy"]) < 0.3


def test_a_step_that_the_model_lacks_fails_the_cell_and_names_those_it_has(
    outcome: Outcome,
) -> None:
    code, rows = outcome(
        "found: {attack: pgd, norm: linf, eps: 0.15, steps: 2, bpda: {jpeg: identity}}"
    )
    assert code == 4
    assert rows["found", "0.15"]["status"] == "failed"
    assert (
        "no step 'jpeg'; it has: preprocess, network, network.0" in rows["found", "0.15"]["reason"]
    )


def test_eot_multiplies_the_passes_and_changes_nothing_on_a_fixed_model(outcome: Outcome) -> None:
    _, rows = outcome(
        """
        once: {attack: pgd, norm: linf, eps: 0.15, steps: 5, source: plain}
        thrice: {attack: pgd, norm: linf, eps: 0.15, steps: 5, source: plain, eot: 3}
        """
    )
    once, thrice = rows["once", "0.15"], rows["thrice", "0.15"]
    assert float(thrice["gradients_mean"]) == 3 * float(once["gradients_mean"])
    assert float(thrice["queries_mean"]) == 3 * float(once["queries_mean"])
    assert thrice["robust_accuracy"] == once["robust_accuracy"]


def test_a_transfer_attack_averages_its_sources(outcome: Outcome) -> None:
    _, rows = outcome("transfer: {attack: mi-fgsm, norm: linf, eps: 0.15, source: [plain, robust]}")
    row = rows["transfer", "0.15"]
    assert (row["status"], row["source"]) == ("ok", "plain + robust")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("bpda: identity", "expected a mapping from a step"),
        ("bpda: {quantise: smooth}", "'smooth' is not one of identity"),
        ("source: [plain, plian]", "did you mean 'plain'?"),
        ("source: [plain, plain]", "'plain' stands twice"),
        ("source: []", "the list is empty"),
        ("eot: 0", "expected at least 1"),
    ],
)
def test_bad_keys_are_named(robeval: Robeval, tmp_path: Path, keys: str, message: str) -> None:
    (tmp_path / "steps.py").write_text(STEPS)
    attacks = f"  a: {{attack: pgd, norm: linf, eps: 0.1, {keys}}}"
    (tmp_path / "s.yaml").write_text(SUITE.format(tests=TESTS, attacks=attacks))
    ended = robeval("validate", "s.yaml")
    assert ended.code == 2
    assert message in ended.err
    assert "s.yaml:12" in ended.err


def test_bpda_on_an_attack_without_gradients_is_refused(robeval: Robeval, tmp_path: Path) -> None:
    attacks = "  a: {attack: square, norm: linf, eps: 0.1, bpda: {quantise: identity}}"
    (tmp_path / "s.yaml").write_text(SUITE.format(tests=TESTS, attacks=attacks))
    ended = robeval("validate", "s.yaml")
    assert (ended.code, "'square' takes no gradients" in ended.err) == (2, True)
