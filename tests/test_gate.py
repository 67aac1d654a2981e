"""Gates against the exact limits, by simulation, and every exit code with its precedence."""

from __future__ import annotations

import math
from bisect import bisect_left
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from robustbench_lite import gate, summary
from robustbench_lite.gate.decide import Levels, decide
from robustbench_lite.gate.evidence import Share
from robustbench_lite.types import Finding, Gate, GateResult, Row, Samples, Summary
from tests.finished_run import cell, eps, result, rule, summarised, table, world


def bits(kept: int, n: int) -> Samples:
    """n clean-correct samples of which `kept` stay robust."""
    return table(np.ones(n, dtype=bool), np.arange(n) >= kept)


def one(rules: Gate, kept: int, n: int) -> GateResult:
    (found,) = gate.check([rules], summarised((cell("pgd", "0.1"), bits(kept, n))))
    return found


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_floor_is_decided_by_the_exact_binomial_tail(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 300))
    kept = data.draw(st.integers(0, n))
    floor = data.draw(st.integers(1, 99)) / 100
    status = one(rule(minimum=floor), kept, n).status
    too_good_by_chance = float(binom.sf(kept - 1, n, floor))  # P(at least `kept` | rate = floor)
    too_bad_by_chance = float(binom.cdf(kept, n, floor))
    if abs(too_good_by_chance - 0.05) > 1e-9 and abs(too_bad_by_chance - 0.05) > 1e-9:
        expected = "INCONCLUSIVE"
        if too_good_by_chance < 0.05:
            expected = "PASS"
        elif too_bad_by_chance < 0.05:
            expected = "FAIL"
        assert status == expected


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.data())
def test_a_ceiling_mirrors_a_floor(n: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, n))
    bound = data.draw(st.integers(1, 99)) / 100
    floor = one(rule(minimum=bound), kept, n)
    ceiling = one(rule(metric="attack_success_rate", maximum=1 - bound), kept, n)
    assert floor.status == ceiling.status


# n, true rate -> rates of PASS, FAIL, INCONCLUSIVE of limits that are 95 % on both sides together
ANSWERS = [
    (200, 0.53, 0.14, 0.00, 0.85),
    (1000, 0.50, 0.03, 0.03, 0.95),
    (1000, 0.53, 0.49, 0.00, 0.51),
    (1000, 0.55, 0.90, 0.00, 0.10),
    (5000, 0.53, 0.99, 0.00, 0.01),
]


@pytest.mark.parametrize(("n", "true", "passes", "fails", "undecided"), ANSWERS)
def test_the_rates_of_the_three_answers_are_those_of_the_plan(
    n: int, true: float, passes: float, fails: float, undecided: float
) -> None:
    """The table was simulated with Wilson's limits; the exact ones decide a little less often."""
    both_sides = chances(rule(minimum=0.5, confidence=0.975), n, true)
    expected = {"PASS": passes, "FAIL": fails, "INCONCLUSIVE": undecided}
    assert both_sides == pytest.approx(expected, abs=0.035)
    assert both_sides["PASS"] <= passes + 0.005
    assert both_sides["FAIL"] <= fails + 0.005


@pytest.mark.parametrize("n", [200, 1000, 5000])
@pytest.mark.parametrize("bound", [0.5, 0.8, 0.95])
def test_a_gate_errs_as_often_as_it_says_and_no_more(n: int, bound: float) -> None:
    at_bound = chances(rule(minimum=bound), n, bound)
    assert 0.02 < at_bound["PASS"] <= 0.05
    assert 0.02 < at_bound["FAIL"] <= 0.05
    above = [chances(rule(minimum=bound), n, bound + more)["PASS"] for more in (0.0, 0.01, 0.03)]
    assert above == sorted(above), "the better a model, the more often it passes"


def chances(rules: Gate, n: int, true: float) -> dict[str, float]:
    """How often a model of the `true` rate passes, fails and neither."""

    def status(kept: int) -> str:
        return decide(rules, Share(kept, n), Levels(*[1 - rules.confidence] * 2)).status

    failing = bisect_left(range(n + 1), True, key=lambda kept: status(kept) != "FAIL")
    passing = bisect_left(range(n + 1), True, key=lambda kept: status(kept) == "PASS")
    fails = float(binom.cdf(failing - 1, n, true))
    passes = float(binom.sf(passing - 1, n, true))
    return {"PASS": passes, "FAIL": fails, "INCONCLUSIVE": 1 - passes - fails}


def test_a_result_carries_its_evidence() -> None:
    found = one(rule(minimum=0.8), 850, 1000)
    assert (found.status, found.value, found.n) == ("PASS", 0.85, 1000)
    assert found.low is not None
    assert 0.8 < found.low < 0.85
    assert (found.threshold, found.where) == (">= 0.8", "suite.yaml:12:3")
    assert found.subject == "candidate on test, pgd linf 0.1"
    assert found.needed is None


def test_inconclusive_says_how_many_samples_would_decide() -> None:
    found = one(rule(minimum=0.80), 82, 100)
    assert found.status == "INCONCLUSIVE"
    assert found.needed is not None
    assert 1000 < found.needed < 5000
    decided = one(rule(minimum=0.80), round(0.82 * found.needed * 1.2), round(found.needed * 1.2))
    assert decided.status == "PASS"
    assert one(rule(minimum=0.5), 50, 100).needed is None, "no number tells a value from itself"


def test_both_bounds_must_hold() -> None:
    both = rule(minimum=0.5, maximum=0.9)
    assert [one(both, kept, 1000).status for kept in (100, 700, 990, 900)] == [
        "FAIL",
        "PASS",
        "FAIL",
        "INCONCLUSIVE",
    ]


def selected(rules: Gate) -> list[str]:
    samples = bits(90, 100)
    whole = summarised(
        (cell("clean"), samples),
        (cell("fgsm", "8/255"), samples),
        (cell("fgsm", "0.3"), samples),
        (cell("noise", "0.3", role="control"), samples),
        (cell("fgsm", "0.3", model="other"), samples),
        (cell("l2", "0.3", norm="l2"), samples),
    )
    return [found.cell_id for found in gate.check([rules], whole)]


def test_selectors() -> None:
    everything = [
        "candidate.test.fgsm.linf.8_255",
        "candidate.test.fgsm.linf.0.3",
        "other.test.fgsm.linf.0.3",
        "candidate.test.l2.l2.0.3",
    ]
    assert selected(rule(minimum=0.5)) == everything, "no control, no clean, no worst case"
    assert selected(rule(minimum=0.5, attack="all")) == everything
    assert selected(rule(minimum=0.5, attack="noise")) == ["candidate.test.noise.linf.0.3"]
    assert selected(rule(minimum=0.5, model="other")) == ["other.test.fgsm.linf.0.3"]
    assert selected(rule(minimum=0.5, eps=eps("16/510"))) == ["candidate.test.fgsm.linf.8_255"]
    assert selected(rule(minimum=0.5, norm="l2")) == ["candidate.test.l2.l2.0.3"]
    assert selected(rule(metric="clean_accuracy", minimum=0.5)) == [
        "candidate.test.clean.linf.None"
    ]
    worst = rule(metric="worst_case_robust_accuracy", minimum=0.5, norm="linf", model="candidate")
    assert selected(worst) == [
        "worst-case/candidate/test/linf/8/255",
        "worst-case/candidate/test/linf/3/10",
    ]


@pytest.mark.parametrize(
    "rules",
    [
        rule(minimum=0.5, attack="pgd2"),
        rule(minimum=0.5, eps=eps("0.2")),
        rule(metric="clean_accuracy", minimum=0.5, eps=eps("0.1")),
        rule(metric="worst_case_robust_accuracy", minimum=0.5, attack="pgd"),
        rule(metric="speed", minimum=0.5),
        rule(),
    ],
)
def test_a_gate_that_can_decide_nothing_is_invalid(rules: Gate) -> None:
    whole = summarised((cell("clean"), bits(9, 10)), (cell("pgd", "0.1"), bits(9, 10)))
    (found,) = gate.check([rules], whole)
    assert found.status == "INVALID"
    assert found.reason
    assert gate.verdict([found], whole).exit_code == 4


def test_nan_never_passes() -> None:
    whole = summarised((cell("pgd", "0.1"), table([False] * 50, [True] * 50)))
    (found,) = gate.check([rule(metric="attack_success_rate", maximum=1.0)], whole)
    assert (found.status, found.value) == ("INVALID", None)
    assert gate.verdict([found], whole).exit_code == 8
    (floor,) = gate.check([rule(minimum=math.nan)], summarised((cell("a", "0.1"), bits(10, 10))))
    assert floor.status == "INCONCLUSIVE"


# ---------------------------------------------------------------- exit codes

PASSES, FAILS = rule("passes", minimum=0.5, attack="good"), rule("fails", minimum=0.5, attack="bad")
UNSURE = rule("unsure", minimum=0.5, attack="half")
VOID = rule("void", minimum=0.5, attack="invalid")
LOST = rule("lost", minimum=0.5, attack="failed")
SKIPPED = rule("skipped", minimum=0.5, attack="skipped")


def mixed(*attacks: str, partial: bool = False) -> Summary:
    """Cells of the named kinds, each in its own norm-free spot (one eps each)."""
    kept = {"good": 990, "bad": 10, "half": 505, "invalid": 990, "skipped": 0, "failed": 0}
    cells = [cell(name, f"0.{at + 1}") for at, name in enumerate(attacks)]
    results = {}
    for each in cells:
        status = each.entry if each.entry in ("failed", "skipped") else "ok"
        results[each.id] = result(each, status=status, reason="" if status == "ok" else "it broke")
    tables = {each.id: bits(kept[each.entry], 1000) for each in cells}
    touched = tuple(each.id for each in cells if each.entry == "invalid")
    error = Finding(id="x", severity="error", message="zero gradients", advice="", cells=touched)
    return summary.make(cells, results, tables.get, [error], partial=partial)


@pytest.mark.parametrize(
    ("attacks", "rules", "code"),
    [
        (("good",), (), 0),
        (("good",), (PASSES,), 0),
        (("good", "skipped"), (PASSES,), 0),
        (("good", "half"), (PASSES, UNSURE), 6),
        (("good", "failed"), (PASSES,), 4),
        (("good", "failed"), (), 4),
        (("half", "failed"), (UNSURE,), 4),
        (("failed",), (LOST,), 4),
        (("good", "skipped"), (SKIPPED,), 4),
        (("invalid",), (VOID,), 8),
        (("good", "invalid"), (PASSES,), 0),
        (("half", "invalid", "failed"), (UNSURE, VOID, LOST), 8),
        (("bad",), (FAILS,), 1),
        (("bad", "failed", "invalid", "half"), (FAILS, VOID, LOST, UNSURE), 1),
    ],
)
def test_exit_codes(attacks: tuple[str, ...], rules: tuple[Gate, ...], code: int) -> None:
    whole = mixed(*attacks)
    judged = gate.verdict(gate.check(rules, whole), whole)
    assert judged.exit_code == code, judged.sentence
    assert judged.sentence.endswith(".")
    assert judged.sentence.startswith("No verdict") == (code in (4, 8))


def test_environment_and_signals_come_before_a_failure() -> None:
    whole = mixed("bad", "failed")
    results = gate.check([FAILS], whole)
    assert gate.verdict(results, whole, interrupted=143).exit_code == 143
    assert gate.verdict(results, whole, interrupted=130).exit_code == 130
    judged = gate.verdict(results, whole, environment="no CUDA device", interrupted=130)
    assert judged.exit_code == 7
    assert "no CUDA device" in judged.sentence


def test_a_failure_needs_its_own_cells() -> None:
    """The worst case holds a failed member: it can neither fail nor pass."""
    whole = mixed("bad", "failed")
    worst = rule(metric="worst_case_robust_accuracy", minimum=0.5)
    statuses = {found.subject[-3:]: found.status for found in gate.check([worst], whole)}
    assert statuses == {"0.1": "FAIL", "0.2": "INVALID"}


def test_a_partial_run_never_passes_and_never_fails() -> None:
    whole = mixed("good", "bad", "half", partial=True)
    results = gate.check([PASSES, FAILS, UNSURE], whole)
    assert {found.status for found in results} == {"INVALID"}
    assert all("partial run" in found.reason and found.value is not None for found in results)
    judged = gate.verdict(results, whole)
    assert judged.exit_code == 4
    assert "--limit" in judged.sentence
    assert gate.verdict([], whole).sentence.startswith("Partial run")


def test_the_sentence_names_the_gate_and_the_reason() -> None:
    whole = mixed("bad", "good")
    sentence = gate.verdict(gate.check([PASSES, FAILS], whole), whole).sentence
    assert "'fails'" in sentence
    assert "below the floor of 50 %" in sentence
    assert "candidate on test, bad linf 0.1" in sentence


def test_a_whole_world_passes_and_fails(tmp_path: Path) -> None:
    gates = [
        rule("clean", "clean_accuracy", minimum=0.9),
        rule("worst", "worst_case_robust_accuracy", minimum=0.8, norm="linf", eps=eps("0.1")),
    ]
    robust = world(tmp_path / "a", models={"robust": 0.5}, gates=gates).verdict
    weak = world(tmp_path / "b", models={"weak": 0.02}, gates=gates).verdict
    assert robust is not None
    assert weak is not None
    assert (robust.exit_code, weak.exit_code) == (0, 1)


def test_invalid_rows_have_no_rate_to_judge() -> None:
    rows: list[Row] = [r for r in mixed("invalid").rows if r.status == "invalid"]
    assert rows
    assert all(r.robust_accuracy is None for r in rows)
