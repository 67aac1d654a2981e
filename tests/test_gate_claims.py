"""Gates on drops, classes, means, medians and families of claims."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from robustbench_lite import gate, paired, records, stats, summary
from robustbench_lite.gate.evidence import Mean, Median
from robustbench_lite.types import Change, Comparison, Gate, GateResult, Samples, Summary
from tests.finished_run import cell, eps, result, rule, summarised, table


def samples(kept: int, n: int, **columns: np.ndarray) -> Samples:
    """n clean-correct samples of which the first `kept` stay robust."""
    return table(np.ones(n, dtype=bool), np.arange(n) >= kept, **columns)


# ---------------------------------------------------------------- against a baseline


def change(cell_id: str, b: int, c: int, n: int, reason: str = "") -> Change:
    low, high = paired.interval(b, c, n)
    return Change(
        subject="s", metric="robust_accuracy", model="candidate", dataset="test", attack="pgd",
        norm="linf", eps=eps("0.1"), base_cell="old", head_cell=cell_id, n=n,
        base=stats.rate(n // 2, n), head=stats.rate(n // 2 + c - b, n),
        newly_broken=tuple(f"b{i}" for i in range(b)), newly_fixed=tuple(f"c{i}" for i in range(c)),
        difference=(c - b) / n, low=low, high=high, p_value=stats.mcnemar(b, c), reason=reason,
    )  # fmt: skip


PGD = cell("pgd", "0.1")


def dropped(b: int, c: int, n: int, reason: str = "", **own: object) -> GateResult:
    """What a gate with max_drop says of b newly broken and c newly fixed samples."""
    whole = summarised((PGD, samples(n // 2, n)))
    comparison = Comparison(base="main", head="run", changes=(change(PGD.id, b, c, n, reason),))
    rules = rule(**{"max_drop": 0.01, **own})  # type: ignore[arg-type]
    (found,) = gate.check([rules], whole, compared=lambda _: comparison)
    return found


@pytest.mark.parametrize(
    ("b", "c", "n", "status"),
    [
        (0, 0, 1000, "PASS"),
        (3, 4, 1000, "PASS"),
        (0, 0, 200, "INCONCLUSIVE"),
        (8, 4, 1000, "INCONCLUSIVE"),
        (60, 20, 1000, "FAIL"),
        (100, 100, 10_000, "PASS"),
    ],
)
def test_a_drop_is_a_test_of_non_inferiority(b: int, c: int, n: int, status: str) -> None:
    found = dropped(b, c, n)
    assert found.status == status
    assert found.value == pytest.approx((c - b) / n)
    assert found.low == pytest.approx(paired.lower_limit(b, c, n))
    assert found.high == pytest.approx(paired.upper_limit(b, c, n))
    assert (status == "PASS") == (paired.lower_limit(b, c, n) >= -0.01)
    assert (status == "FAIL") == (paired.upper_limit(b, c, n) < -0.01)
    assert found.newly_broken == tuple(f"b{i}" for i in range(b))
    assert f"{b} newly broken" in found.reason
    assert (found.needed is None) == (status != "INCONCLUSIVE")
    assert found.threshold == "run - baseline >= -0.01"


def test_the_reason_names_a_few_of_the_newly_broken() -> None:
    assert "3 newly broken (b0, b1, b2), 0 newly fixed" in dropped(3, 0, 1000).reason
    assert "60 newly broken (b0, b1, b2, b3, b4, ...)" in dropped(60, 0, 1000).reason


def test_without_anything_to_compare_with_nothing_passes() -> None:
    whole = summarised((PGD, samples(50, 100)))
    rules = rule(max_drop=0.5)
    other = Comparison(base="main", head="run", changes=(), unmatched=("only in main: x",))
    for found in (
        gate.check([rules], whole),
        gate.check([rules], whole, compared=lambda _: "there is no baseline 'main'"),
        gate.check([rules], whole, compared=lambda _: other),
        (dropped(0, 0, 100, "the threat model differs", max_drop=0.5),),
    ):
        assert [each.status for each in found] == ["INVALID"]
        assert all(each.reason and each.missing for each in found)
        assert gate.verdict(found, whole).exit_code == 4
    assert "only in main: x" in gate.check([rules], whole, compared=lambda _: other)[0].reason


def test_max_drop_works_on_paired_metrics_alone() -> None:
    whole = summarised((PGD, samples(50, 100)))
    (found,) = gate.check([rule(metric="attack_success_rate", max_drop=0.5)], whole)
    assert (found.status, found.threshold) == ("INVALID", "")


def test_min_samples_counts_the_samples_of_both() -> None:
    assert dropped(0, 0, 1000, min_samples=1001).status == "INVALID"
    assert dropped(0, 0, 1000, min_samples=1000).status == "PASS"


# ---------------------------------------------------------------- few samples, partial runs


def test_too_few_samples_are_no_evidence() -> None:
    whole = summarised((PGD, samples(100, 100)))
    (found,) = gate.check([rule(minimum=0.5, min_samples=101)], whole)
    assert (found.status, found.n, found.missing) == ("INVALID", 100, True)
    assert "100 samples, fewer than the min_samples of 101" in found.reason
    assert gate.verdict([found], whole).exit_code == 4
    success = rule(metric="attack_success_rate", maximum=0.9, min_samples=101)
    half = summarised((PGD, table([True] * 60 + [False] * 90, [False] * 150)))
    (found,) = gate.check([success], half)
    assert (found.status, found.n) == ("INVALID", 60), "its own denominator counts"


def test_a_partial_run_is_judged_where_the_gate_allows_it() -> None:
    whole = summarised((PGD, samples(990, 1000)), partial=True)
    strict, lenient = rule("a", minimum=0.5), rule("b", minimum=0.5, allow_partial=True)
    found = gate.check([strict, lenient], whole)
    assert [each.status for each in found] == ["INVALID", "PASS"]
    assert gate.verdict(found, whole).exit_code == 4
    alone = gate.verdict(found[1:], whole)
    assert (alone.exit_code, alone.sentence) == (
        0,
        "The gate passes, on a partial run as allowed.",
    )
    failed = gate.check([rule(minimum=0.999, allow_partial=True)], whole)
    assert gate.verdict(failed, whole).exit_code == 1


# ---------------------------------------------------------------- means and medians


def judged(rules: Gate, *cells: tuple[object, Samples]) -> list[GateResult]:
    """Gates that read tables."""
    whole = summarised(*cells)  # type: ignore[arg-type]
    tables = {each.id: samples for each, samples in cells}  # type: ignore[attr-defined]
    return list(gate.check([rules], whole, samples=tables.get))


def test_confidence_on_mistakes_has_the_limits_of_a_mean() -> None:
    confidence = np.random.default_rng(0).beta(2, 5, 1000).astype(np.float32)
    broken = samples(400, 1000, adv_confidence=confidence)
    (found,) = judged(rule(metric="confidence_on_mistakes", maximum=0.5), (PGD, broken))
    wrong = confidence[400:].astype(np.float64)
    assert (found.status, found.n) == ("PASS", 600)
    assert found.value == pytest.approx(wrong.mean())
    assert found.high == pytest.approx(stats.mean_upper_limit(wrong))
    (open_,) = judged(rule(metric="confidence_on_mistakes", maximum=0.3), (PGD, broken))
    assert open_.status == "INCONCLUSIVE"
    assert open_.needed is not None
    assert open_.needed > 600
    (failed,) = judged(rule(metric="confidence_on_mistakes", maximum=0.1), (PGD, broken))
    assert (failed.status, "above the ceiling of 10 %" in failed.reason) == ("FAIL", True)


def test_median_distance_is_over_what_broke_and_in_its_norm() -> None:
    distance = np.linspace(0, 1, 1000)
    broken = samples(400, 1000, linf=distance)
    (found,) = judged(rule(metric="median_distance", norm="linf", minimum=0.6), (PGD, broken))
    assert (found.status, found.n) == ("PASS", 600)
    assert found.value == pytest.approx(np.median(distance[400:]))
    assert found.low == pytest.approx(stats.median_lower_limit(distance[400:]))
    assert "in linf" in found.reason
    (failed,) = judged(rule(metric="median_distance", norm="linf", minimum=0.8), (PGD, broken))
    assert failed.status == "FAIL"
    (open_,) = judged(rule(metric="median_distance", norm="linf", minimum=0.69), (PGD, broken))
    assert open_.status == "INCONCLUSIVE"
    assert (open_.needed or 0) > 600
    few = samples(3, 5, linf=np.arange(5.0))
    (unknown,) = judged(rule(metric="median_distance", norm="linf", maximum=99), (PGD, few))
    assert (unknown.status, unknown.high) == ("INCONCLUSIVE", np.inf)


@pytest.mark.parametrize("bound", [0.31, 0.27, 0.24])
@pytest.mark.parametrize("kind", ["mean", "median"])
def test_that_many_values_decide_a_mean_or_a_median(kind: str, bound: float) -> None:
    rng = np.random.default_rng(7)

    def evidence(values: stats.Values) -> Mean | Median:
        return Mean(values) if kind == "mean" else Median(values, "l2")

    n = evidence(rng.beta(2, 5, 100_000)).needed(bound, 0.95)
    assert n is not None

    def decided(size: int) -> float:
        drawn = [evidence(rng.beta(2, 5, size)) for _ in range(200)]
        return sum(each.high(0.95) < bound or each.low(0.95) > bound for each in drawn) / 200

    assert decided(n) >= 0.7
    assert decided(n // 2) <= 0.7


def test_what_has_no_mean_or_median_is_invalid() -> None:
    none = samples(100, 100)
    for metric in ("confidence_on_mistakes", "median_distance", "survives_uint8"):
        (found,) = judged(rule(metric=metric, maximum=0.5), (PGD, none))
        assert (found.status, "is not defined here" in found.reason) == ("INVALID", True)
    whole = summarised((PGD, samples(50, 100)))
    (lost,) = gate.check([rule(metric="median_distance", maximum=0.5)], whole)
    assert (lost.status, "table is missing" in lost.reason) == ("INVALID", True)


def test_survival_of_eight_bits_is_a_rate_of_the_broken() -> None:
    survives = np.arange(1000) % 4 == 0
    broken = samples(600, 1000, survives_uint8=survives)
    (found,) = judged(rule(metric="survives_uint8", maximum=0.4), (PGD, broken))
    assert (found.status, found.value, found.n) == ("PASS", 0.25, 400)


# ---------------------------------------------------------------- classes


def test_every_class_is_a_claim_of_its_own() -> None:
    """Class 3 alone is broken: the average hides it, its own row does not."""
    label = np.arange(1000) % 10
    broken = table(np.ones(1000, dtype=bool), label == 3)
    (average,) = judged(rule(minimum=0.8), (PGD, broken))
    assert average.status == "PASS"
    found = judged(rule(minimum=0.8, per_class=True), (PGD, broken))
    assert [each.subject.split(", ")[-1] for each in found] == [f"class {k}" for k in range(10)]
    assert [each.status for each in found] == ["PASS"] * 3 + ["FAIL"] + ["PASS"] * 6
    assert all(each.n == 100 for each in found)


def test_classes_of_a_worst_case_are_those_of_the_union() -> None:
    rng = np.random.default_rng(1)
    label = np.arange(400) % 10
    first, second = rng.random(400) < 0.3, rng.random(400) < 0.3
    correct = rng.random(400) < 0.9
    one, two = cell("pgd", "0.1"), cell("square", "0.1")
    cells = ((one, table(correct, first)), (two, table(correct, second)))
    expected = {
        "robust_accuracy": lambda here: ((correct & ~first & ~second & here).sum(), here.sum()),
    }
    rules = rule(metric="worst_case_robust_accuracy", minimum=0.0, per_class=True)
    whole = summarised(*cells)
    found = gate.check([rules], whole, samples={a.id: b for a, b in cells}.get)
    for k, each in enumerate(found):
        count, n = expected["robust_accuracy"](label == k)
        assert (each.value, each.n) == (count / n, n)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("clean_accuracy", 0.8),
        ("robust_accuracy", 0.6),
        ("attack_success_rate", 0.25),
        ("adversarial_error", 0.4),
        ("survives_uint8", 0.5),
    ],
)
def test_rates_of_a_class_have_the_denominators_of_the_whole(metric: str, expected: float) -> None:
    """Of 10 alike per class: 8 right, 2 of them broken, 1 of those in 8 bits too."""
    rank = np.arange(100) // 10
    broken = (rank == 1) | (rank == 2)
    rows = table((rank >= 1) & (rank < 9), broken, survives_uint8=rank == 1)
    name = cell("clean") if metric == "clean_accuracy" else PGD
    found = judged(rule(metric=metric, maximum=1.0, per_class=True), (name, rows))
    assert [each.value for each in found] == pytest.approx([expected] * 10)


# ---------------------------------------------------------------- families


def family(
    kept: Sequence[int], n: int, for_each: tuple[str, ...] = (), maximum: float | None = None
) -> list[GateResult]:
    """One gate over as many models, each with its count."""
    cells = [cell("pgd", "0.1", model=f"m{at}") for at in range(len(kept))]
    tables = [samples(count, n) for count in kept]
    whole = summarised(*zip(cells, tables, strict=True))
    return list(gate.check([rule(minimum=0.8, maximum=maximum, for_each=for_each)], whole))


def test_without_for_each_nothing_is_corrected() -> None:
    plain = family([822] * 3, 1000)
    assert plain[0].low == pytest.approx(stats.lower_limit(822, 1000))
    corrected = family([822] * 3, 1000, for_each=("model",))
    assert {each.status for each in plain} == {"PASS"}
    assert {each.status for each in corrected} == {"INCONCLUSIVE"}
    assert corrected[0].low == pytest.approx(stats.lower_limit(822, 1000, 1 - 0.05 / 3))
    assert family([822], 1000, for_each=("model",))[0].status == "PASS", "alone it is no family"


def test_holm_steps_down() -> None:
    """The clearest claim pays for three, the next for two, the last for itself."""
    found = family([900, 822, 830], 1000, for_each=("model",))
    assert [each.status for each in found] == ["PASS", "PASS", "PASS"]
    assert found[0].low == pytest.approx(stats.lower_limit(900, 1000, 1 - 0.05 / 3))
    assert found[2].low == pytest.approx(stats.lower_limit(830, 1000, 1 - 0.05 / 2))
    assert found[1].low == pytest.approx(stats.lower_limit(822, 1000, 0.95))


@pytest.mark.parametrize("seed", range(30))
def test_what_passes_and_fails_is_what_holm_rejects(seed: int) -> None:
    """An independent oracle: p-values from the binomial, corrected, against the error."""
    from scipy.stats import binom

    rng = np.random.default_rng(seed)
    kept = rng.integers(740, 860, 6).tolist()
    statuses = [each.status for each in family(kept, 1000, for_each=("model",))]
    good = stats.holm([float(binom.sf(k - 1, 1000, 0.8)) for k in kept])
    bad = stats.holm([float(binom.cdf(k, 1000, 0.8)) for k in kept])
    expected = [
        "PASS" if g <= 0.05 else "FAIL" if b < 0.05 else "INCONCLUSIVE"
        for g, b in zip(good, bad, strict=True)
    ]
    assert statuses == expected


def test_a_family_of_good_models_is_blamed_in_one_of_twenty() -> None:
    """20 cells at the floor: uncorrected 64 % of the runs fail one of them, corrected 5 %."""
    rng = np.random.default_rng(3)
    wrong = {(): 0, ("model",): 0}
    for _ in range(40):
        kept = rng.binomial(300, 0.8, 20).tolist()
        for axes in wrong:
            found = family(kept, 300, for_each=axes)
            wrong[axes] += any(each.status == "FAIL" for each in found)
    assert wrong[()] >= 14
    assert wrong["model",] <= 6  # of 2 expected; more has a chance of 0.3 %


def test_rows_that_one_claim_covers_are_judged_together() -> None:
    """for_each model: a model passes if each of its eps does, and two models are two claims."""
    cells = [
        (cell("pgd", radius, model=model), samples(kept, 1000))
        for model, radius, kept in (
            ("a", "0.1", 822), ("a", "0.2", 824), ("b", "0.1", 990), ("b", "0.2", 990),
        )
    ]  # fmt: skip
    whole = summarised(*cells)
    found = gate.check([rule(minimum=0.8, for_each=("model",))], whole)
    assert [each.status for each in found] == ["PASS"] * 4
    assert found[2].low == pytest.approx(stats.lower_limit(990, 1000, 1 - 0.05 / 2))
    assert found[0].low == pytest.approx(stats.lower_limit(822, 1000, 0.95)), "the last step"
    apart = gate.check([rule(minimum=0.8, for_each=("model", "eps"))], whole)
    assert [each.status for each in apart] == ["INCONCLUSIVE"] * 2 + ["PASS"] * 2
    assert apart[2].low == pytest.approx(stats.lower_limit(990, 1000, 1 - 0.05 / 4))


def test_a_claim_without_evidence_still_counts_in_its_family() -> None:
    cells = [cell("pgd", "0.1", model=f"m{at}") for at in range(3)]
    tables = {each.id: samples(822, 1000) for each in cells}
    results = {each.id: result(each) for each in cells}
    results[cells[0].id] = result(cells[0], status="failed", reason="it broke")
    whole: Summary = summary.make(cells, results, tables.get, ())
    found = gate.check([rule(minimum=0.8, for_each=("model",))], whole)
    assert [each.status for each in found] == ["INVALID", "INCONCLUSIVE", "INCONCLUSIVE"]


def test_both_bounds_in_a_family_show_the_limits_they_rest_on() -> None:
    found = family([900, 905], 1000, for_each=("model",), maximum=0.95)
    assert [each.status for each in found] == ["PASS", "PASS"]
    strict = dataclasses.replace(rule(minimum=0.8, maximum=0.85), for_each=("model",))
    cells = [(cell("pgd", "0.1", model=f"m{at}"), samples(900, 1000)) for at in range(2)]
    failed = gate.check([strict], summarised(*cells))
    assert [each.status for each in failed] == ["FAIL", "FAIL"]
    assert all((each.low or 0) > 0.85 for each in failed)


def test_a_stored_gate_is_the_same_gate() -> None:
    gates = (
        rule("a", max_drop=0.01, baseline=Path("baselines/main"), for_each=("model", "eps")),
        rule("b", minimum=0.5, per_class=True, min_samples=7, allow_partial=True, sequential=True),
        rule("c", maximum=0.5, eps=eps("8/255"), norm="linf"),
    )
    stored = json.loads(json.dumps(records.gates_to_json(gates)))
    assert records.gates_from_json(stored) == gates
    old = [
        {k: v for k, v in each.items() if k not in {"baseline", "for_each", "per_class"}}
        for each in stored[2:]
    ]
    assert records.gates_from_json(old) == gates[2:], "as written by an earlier robeval"
