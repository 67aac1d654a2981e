"""Rates against brute force over the per-sample tables; the worst case against a plain loop."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_lite import summary
from robustbench_lite.errors import RobevalError
from robustbench_lite.types import Finding, Rate, Row, Samples, Summary
from tests.finished_run import cell, result, summarised, table, world

BITS = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=40)


def found(rate: Rate | None) -> Rate:
    assert rate is not None
    return rate


def row(of: Summary, attack: str, eps: str | None = None) -> Row:
    (match,) = [
        row
        for row in of.rows
        if row.attack == attack and (row.eps.text if row.eps else None) == eps
    ]
    return match


def test_every_rate_has_its_definition() -> None:
    correct = [True, True, True, True, False, False]
    broken = [True, True, False, False, True, False]
    samples = table(
        correct,
        broken,
        linf=np.array([0.1, 0.3, 9.0, 9.0, 7.0, 9.0]),
        survives_uint8=np.array([True, False, False, False, True, False]),
        adv_confidence=np.array([0.5, 0.7, 1.0, 1.0, 0.9, 0.3], dtype=np.float32),
        queries=np.array([1.0, 2, 3, 4, 5, 9]),
    )
    measured = row(summarised((cell("fgsm", "0.3"), samples)), "fgsm", "0.3")
    assert found(measured.clean_accuracy).count == 4
    assert (found(measured.robust_accuracy).count, found(measured.robust_accuracy).n) == (2, 6)
    assert found(measured.attack_success_rate).value == 2 / 4
    assert found(measured.adversarial_error).value == 4 / 6
    assert measured.confidence_on_mistakes == pytest.approx((0.5 + 0.7 + 0.9 + 0.3) / 4)
    assert measured.median_distance == pytest.approx(0.2)
    assert found(measured.survives_uint8).value == 1 / 2
    assert measured.queries_mean == 4.0
    assert measured.gradients_mean == 2.0


def test_the_clean_pass_is_a_row_of_its_own() -> None:
    clean = row(summarised((cell("clean"), table([True, True, False], [False] * 3))), "clean")
    assert (clean.norm, clean.eps, clean.n) == (None, None, 3)
    assert clean.robust_accuracy == clean.clean_accuracy
    assert found(clean.clean_accuracy).value == 2 / 3
    assert found(clean.adversarial_error).value == 1 / 3
    assert clean.attack_success_rate is None
    assert clean.confidence_on_mistakes == pytest.approx(0.9)


def test_a_candidate_that_was_not_decided_has_no_confidence() -> None:
    samples = table(
        [True, True],
        [False, False],
        adv_correct=np.array([False, True]),
        adv_pred=np.array([-1, 1]),
        adv_confidence=np.array([np.nan, 0.9], dtype=np.float32),
    )
    measured = row(summarised((cell("pgd", "0.3"), samples)), "pgd", "0.3")
    assert measured.confidence_on_mistakes is None
    assert found(measured.adversarial_error).count == 1


def test_without_a_clean_correct_sample_the_success_rate_is_undefined() -> None:
    samples = table([False, False], [True, True])
    measured = row(summarised((cell("pgd", "0.3"), samples)), "pgd", "0.3")
    assert np.isnan(found(measured.attack_success_rate).value)
    assert measured.median_distance is None


@settings(max_examples=60, deadline=None)
@given(BITS)
def test_the_worst_case_equals_a_plain_loop(bits: list[tuple[bool, bool, bool]]) -> None:
    correct, strong, weak = (np.array(column) for column in zip(*bits, strict=True))
    cells = [
        cell("pgd", "0.2"),
        cell("noise", "8/255", role="control"),
        cell("pgd", "0.3"),
    ]
    tables = [table(correct, weak & correct), table(correct, strong), table(correct, weak)]
    whole = summarised(*zip(cells, tables, strict=True))
    worst = [row for row in whole.rows if row.attack == "worst-case"]
    assert [row.eps.text for row in worst if row.eps] == ["0.2", "0.3"]  # a control alone is none
    for measured in worst:
        assert measured.eps is not None
        hit = [
            any(
                samples.success[i]
                for each, samples in zip(cells, tables, strict=True)
                if each.eps and each.eps.value <= measured.eps.value
            )
            for i in range(len(correct))
        ]
        robust = sum(bool(ok) and not broken for ok, broken in zip(correct, hit, strict=True))
        assert found(measured.robust_accuracy).count == robust
        assert found(measured.attack_success_rate).count == int(correct.sum()) - robust


def test_there_is_no_worst_case_where_no_attack_spends_the_eps() -> None:
    correct, none = [True] * 4, [False] * 4
    noise = (cell("noise", "0.3", role="control"), table(correct, none))
    weaker = (cell("fgsm", "0.01"), table(correct, none))
    alone = summarised(noise)
    assert [row for row in alone.rows if row.attack == "worst-case"] == []
    beside = summarised(weaker, noise)
    worst = [row for row in beside.rows if row.attack == "worst-case"]
    assert [row.eps.text for row in worst if row.eps] == ["0.01"]


def test_a_worst_case_never_rises_with_eps_and_is_never_above_a_member(tmp_path: Path) -> None:
    whole = world(tmp_path / "suite").summary
    assert whole is not None
    by_id = {row.cell_id: row for row in whole.rows}
    for model in ("robust", "undefended"):
        worst = [r for r in whole.rows if r.attack == "worst-case" and r.model == model]
        linf = [found(r.robust_accuracy).value for r in worst if r.norm == "linf"]
        assert len(linf) == 4
        assert linf == sorted(linf, reverse=True)
        for each in worst:
            lowest = min(found(by_id[m].robust_accuracy).value for m in each.members)
            assert found(each.robust_accuracy).value <= lowest


def test_norms_models_and_datasets_are_apart() -> None:
    sane, broken = table([True], [False]), table([True], [True])
    whole = summarised(
        (cell("a", "0.1"), sane),
        (cell("b", "0.1", norm="l2"), broken),
        (cell("c", "0.1", model="other"), broken),
        (cell("d", "0.1", dataset="other"), broken),
    )
    first = next(r for r in whole.rows if r.attack == "worst-case")
    assert (first.norm, first.model, first.dataset) == ("linf", "candidate", "test")
    assert found(first.robust_accuracy).value == 1.0
    assert sum(r.attack == "worst-case" for r in whole.rows) == 4


def test_one_member_without_a_rate_takes_it_from_the_worst_case_above_it_only() -> None:
    samples = table([True, True], [True, False])
    small, large = cell("fgsm", "0.1"), cell("pgd", "0.3", skip="needs gradients")
    whole = summary.make(
        [small, large], {each.id: result(each) for each in (small, large)}, lambda _: samples, []
    )
    assert row(whole, "worst-case", "0.1").status == "ok"
    missing = row(whole, "worst-case", "0.3")
    assert (missing.status, missing.robust_accuracy) == ("skipped", None)
    assert "pgd at eps 0.3" in missing.reason
    assert "needs gradients" in missing.reason


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (("skipped", "timeout", "ok"), "timeout"),
        (("timeout", "failed", "skipped"), "failed"),
        (("failed", "invalid", "timeout"), "invalid"),
    ],
)
def test_the_gravest_member_names_the_status(statuses: tuple[str, ...], expected: str) -> None:
    cells = [cell(f"attack{i}", "0.1") for i in range(3)]
    results = {
        each.id: result(each, status=status, reason=f"because {status}")
        for each, status in zip(cells, statuses, strict=True)
    }
    whole = summary.make(cells, results, lambda _: table([True], [False]), [])
    worst = row(whole, "worst-case", "0.1")
    assert worst.status == expected
    assert f"because {expected}" in worst.reason
    assert worst.robust_accuracy is None


def test_a_finding_of_severity_error_takes_the_rates_and_a_warning_does_not() -> None:
    touched, spared = cell("pgd", "0.3"), cell("fgsm", "0.3")
    findings = [
        Finding(id="f", severity="error", message="NaN", advice="look", cells=(touched.id,)),
        Finding(id="g", severity="warning", message="odd", advice="", cells=(spared.id,)),
    ]
    samples = table([True, True], [False, False])
    whole = summarised((touched, samples), (spared, samples), findings=findings)
    invalid = row(whole, "pgd", "0.3")
    assert (invalid.status, invalid.reason, invalid.robust_accuracy) == ("invalid", "NaN", None)
    assert invalid.n == 2
    assert row(whole, "fgsm", "0.3").status == "ok"
    assert row(whole, "worst-case", "0.3").status == "invalid"
    assert whole.findings == tuple(findings)


def test_a_cell_without_a_result_is_listed_as_not_run() -> None:
    whole = summary.make([cell("fgsm", "0.1")], {}, lambda _: None, [])
    missing = row(whole, "fgsm", "0.1")
    assert missing.status == "timeout"
    assert "--resume" in missing.reason
    planned = summary.make([cell("fgsm", "0.1", skip="no")], {}, lambda _: None, [])
    assert row(planned, "fgsm", "0.1").status == "skipped"


def test_a_finished_cell_without_its_table_is_a_failure_not_a_rate() -> None:
    lost = cell("fgsm", "0.1")
    whole = summary.make([lost], {lost.id: result(lost)}, lambda _: None, [])
    assert row(whole, "fgsm", "0.1").status == "failed"


def test_cells_that_differ_in_their_samples_are_an_internal_error() -> None:
    swapped = table([True, True], [False, False], sample_id=np.array(["b", "a"], dtype=object))
    with pytest.raises(RobevalError, match="other samples") as caught:
        summarised(
            (cell("a", "0.1"), table([True, True], [False, True])), (cell("b", "0.1"), swapped)
        )
    assert caught.value.exit_code == 3


def test_one_table_is_read_at_a_time_and_once() -> None:
    cells = [cell("fgsm", text) for text in ("0.1", "0.2", "0.3")]
    asked: list[str] = []

    def samples(cell_id: str) -> Samples:
        asked.append(cell_id)
        return table([True], [False])

    summary.make(cells, {each.id: result(each) for each in cells}, samples, [])
    assert asked == [each.id for each in cells]


def test_eps_is_compared_as_a_fraction() -> None:
    samples = table([True], [True])
    whole = summarised((cell("a", "1/10"), samples), (cell("b", "0.1"), table([True], [False])))
    worst = [r for r in whole.rows if r.attack == "worst-case"]
    assert [r.eps.value for r in worst if r.eps] == [Fraction(1, 10)]
    assert found(worst[0].robust_accuracy).value == 0.0
    assert len(worst[0].members) == 2
