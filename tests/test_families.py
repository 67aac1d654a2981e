"""One entry that stands for several attacks: what is picked, why, and what its gate judges."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from robustbench_lite import Access, Norm, plugins
from robustbench_lite.builtin.attacks.standard import SPEC
from tests.conftest import Robeval

ATTACKS = plugins.load(no_plugins=True).attacks


@pytest.mark.parametrize(
    ("norm", "access", "picked"),
    [
        ("linf", "gradient", ["autoattack", "square"]),
        ("l2", "gradient", ["autoattack", "square"]),
        ("l1", "gradient", ["apgd", "apgd", "fab"]),
        ("l0", "gradient", ["sigma-zero", "sparse-rs"]),
        ("linf", "score", ["square"]),
        ("l2", "score", ["square"]),
        ("l0", "score", ["sparse-rs"]),
        ("linf", "decision", ["hopskipjump"]),
        ("l2", "decision", ["hopskipjump"]),
        ("l1", "score", []),
        ("l0", "decision", []),
        ("linf", "none", []),
    ],
)
def test_the_standard_set_follows_access_and_norm(
    norm: Norm, access: Access, picked: list[str]
) -> None:
    assert SPEC.members is not None
    members = SPEC.members(SPEC.params(), norm, access)
    assert [member.attack for member in members] == picked
    assert len({member.label for member in members}) == len(members)
    for member in members:
        spec = ATTACKS[member.attack].spec
        assert norm in spec.norms
        spec.params(**member.params)
        assert member.why


def test_every_gradient_set_holds_one_that_needs_none_where_there_is_one() -> None:
    assert SPEC.members is not None
    norms: tuple[Norm, ...] = ("linf", "l2", "l0")
    for norm in norms:
        members = SPEC.members(SPEC.params(), norm, "gradient")
        needs = {ATTACKS[member.attack].spec.access for member in members}
        assert needs == {"gradient", "score"}


GATES = """
attacks:
  std: {attack: standard, norm: linf, eps: [0.05, 0.4], queries: 60}
gates:
  low: {metric: robust_accuracy, attack: std, eps: 0.4, max: 0.9}
controls: "off"
"""


def rows(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (out / "tables" / "cells.csv").open(encoding="utf-8") as file:
        return {(row["attack"], row["eps_text"]): row for row in csv.DictReader(file)}


def test_the_plan_says_which_and_why_and_adds_the_control(
    robeval: Robeval, write_suite: Callable[..., Path]
) -> None:
    ended = robeval("plan", str(write_suite(GATES)))
    assert ended.code == 0
    assert "std: autoattack linf 0.05" in ended.out
    assert "the model gives gradients: four attacks in cascade" in ended.out
    assert "std: square linf 0.4" in ended.out
    assert "uniform-noise (control) linf 0.4" in ended.out


def test_a_gate_on_the_entry_judges_the_union_of_its_members(
    robeval: Robeval, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    ended = robeval("run", str(write_suite(GATES, take=25)), "-o", str(tmp_path / "r"))
    table = rows(tmp_path / "r")
    members = [table[f"std: {name}", "0.4"] for name in ("autoattack", "square")]
    union = table["std", "0.4"]
    assert union["status"] == "ok"
    assert float(union["robust_accuracy"]) <= min(float(m["robust_accuracy"]) for m in members)
    paid = [row for (name, _), row in table.items() if name.startswith("std: ")]
    spent = sum(float(row["queries_mean"]) for row in paid)
    assert float(union["queries_mean"]) == pytest.approx(spent, rel=1e-6)
    gates = json.loads((tmp_path / "r" / "gates.json").read_text(encoding="utf-8"))["gates"]
    assert [gate["subject"] for gate in gates] == ["linear on mnist, std linf 0.4"]
    assert ended.code in (0, 1)
    assert table["std", "0.05"]["robust_accuracy"] >= union["robust_accuracy"]


def test_a_model_that_offers_less_is_attacked_with_less(robeval: Robeval, tmp_path: Path) -> None:
    text = """
schema: 1
name: less
models: {robust: {load: onnx, path: "pkg://robustbench_lite/embedded/mnist_cnn.onnx"%s}}
datasets: {mnist: {load: mnist-sample, take: 4}}
attacks: {std: {attack: standard, norm: %s, eps: 1}}
"""
    (tmp_path / "s.yaml").write_text(text % ("", "l0"))
    ended = robeval("plan", "s.yaml", "--json")
    cells = json.loads(ended.out)["cells"]
    assert {cell["attack"] for cell in cells} >= {"sigma-zero", "sparse-rs", "salt-and-pepper"}
    assert {cell["family"] for cell in cells if cell["attack"] == "sparse-rs"} == {"std"}
