"""The self-test through a run: sound attacks pass it, broken ones void their cells."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from robustbench_lite import Budget, Classifier, SampleRng
from robustbench_lite.diagnose.selftests import of_self_tests
from robustbench_lite.selftest import AGAIN, BROKEN, FOUND_AGAIN, PLANTED, TESTED
from robustbench_lite.types import Finding
from tests.conftest import Robeval
from tests.small_world import attack_spec, entry, simple
from tests.test_trial import steps, whole

Attack = Callable[..., Tensor]


def told(attack: Attack, *, eps: str = "0.2", effort: str = "iterative") -> list[Finding]:
    spec = attack_spec(attack, access="gradient", effort=effort)
    world = simple((spec, entry("a", spec, eps)), n=40).world()
    return of_self_tests(world.plan.cells, world.run(), on=True, extents={})


def test_a_sound_attack_finds_what_was_planted() -> None:
    (note,) = told(whole)
    assert (note.id, note.severity) == ("self-test", "note")
    assert "'a'" in note.message


def timid(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    return steps(model, x, y, budget.eps / 100, 20, budget.eps)


def down(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    return steps(model, x, y, -budget.eps / 4, 20, budget.eps)


def nothing(model: Classifier, x: Tensor, y: Tensor, *, budget: Budget, rng: SampleRng) -> Tensor:
    return x.clone()


@pytest.mark.parametrize("attack", [timid, down, nothing], ids=lambda attack: attack.__name__)
def test_an_attack_that_misses_it_is_void(attack: Attack) -> None:
    (error,) = told(attack)
    assert (error.id, error.severity) == ("self-test-failed", "error")
    assert error.numbers[BROKEN] < 0.5 * error.numbers[PLANTED]
    assert error.numbers[TESTED] >= error.numbers[PLANTED] > 10


def test_a_single_step_is_not_asked() -> None:
    assert told(timid, effort="single-step") == []


def test_a_few_plants_forgive_one_miss() -> None:
    spec = attack_spec(whole, access="gradient")
    world = simple((spec, entry("a", spec, "0.2")), n=6).world()
    results = world.run()
    cell = world.cell("a")
    seen = {TESTED: 6.0, PLANTED: 6.0}
    for broken, severity in ((6.0, "note"), (5.0, "note"), (4.0, "error")):
        result = dataclasses.replace(
            results[cell.id], observed={**seen, BROKEN: broken, "attackable": 6.0, "unbroken": 6.0}
        )
        (found,) = of_self_tests(world.plan.cells, {cell.id: result}, on=True, extents={})
        assert found.severity == severity


@pytest.mark.parametrize(
    ("again", "found_again", "severity"),
    [(8.0, 8.0, "note"), (8.0, 7.0, "note"), (8.0, 6.0, "error"), (0.0, 0.0, "error")],
)
def test_a_search_that_lacked_queries_alone_is_no_error(
    again: float, found_again: float, severity: str
) -> None:
    spec = attack_spec(whole, access="gradient")
    world = simple((spec, entry("a", spec, "0.2")), n=6).world()
    cell = world.cell("a")
    seen = {TESTED: 60.0, PLANTED: 60.0, BROKEN: 50.0, "attackable": 60.0, "unbroken": 60.0}
    seen |= {AGAIN: again, FOUND_AGAIN: found_again}
    result = dataclasses.replace(world.run()[cell.id], observed=seen)
    (found,) = of_self_tests(world.plan.cells, {cell.id: result}, on=True, extents={})
    assert found.severity == severity
    assert "50 of 60" in found.message
    if severity == "note":
        assert f"{found_again:.0f} of 8 of the others with its default number" in found.message
    else:
        assert (found.numbers[AGAIN], found.numbers[FOUND_AGAIN]) == (again, found_again)


SUITE = """
attacks:
  pgd: {attack: pgd, norm: linf, eps: 0.15, steps: 10}
  late: {attack: pgd, norm: linf, eps: 0.15, steps: 4, step_size: 0.0001, random_start: false}
gates:
  floor: {metric: robust_accuracy, attack: late, min: 0.0}
"""


def test_it_voids_the_gate_and_can_be_switched_off_in_writing(
    robeval: Robeval, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    ended = robeval("run", str(write_suite(SUITE)), "-o", str(tmp_path / "on"))
    assert ended.code == 8
    assert "adversarial examples that were planted" in ended.out
    plain = write_suite(SUITE + "self_test: off\n")
    ended = robeval("run", str(plain), "-o", str(tmp_path / "off"))
    found = json.loads((tmp_path / "off" / "findings.json").read_text(encoding="utf-8"))
    assert "self-test-failed" not in {each["id"] for each in found}
    assert any("self-test is off" in each["message"] for each in found)
    manifest = json.loads((tmp_path / "off" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["self_test"] is False
