"""Findings by their numbers: what was observed, how grave it is, and what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from robustbench_lite.craft import (
    BROKEN_GRADIENT,
    BROKEN_WITH,
    CHANGED_INPUT,
    CHANGED_MODEL,
    TOUCHED_RNG,
    ZERO_GRADIENT,
    ZERO_WITH,
)
from robustbench_lite.diagnose import findings
from robustbench_lite.group import (
    ATTACKABLE,
    FOUND_ON_TWIN,
    ILLEGAL,
    NO_PREFLIGHT,
    NOT_CONFIRMED,
    PARITY_DIFFERENCE,
    PARITY_TOLERANCE,
    TAKEN_BACK,
    UNCHANGED,
)
from robustbench_lite.types import Cell, CellResult, CellStatus, Finding
from tests.finished_run import cell

FGSM = cell("fgsm", "8/255")


def result(of: Cell, observed: Mapping[str, float], status: CellStatus = "ok") -> CellResult:
    return CellResult(
        cell=of, status=status, reason="", samples=None, examples=None, observed=observed,
        seconds=0.0, device="cpu", provider="torch", batch_size=1,
    )  # fmt: skip


def about(observed: Mapping[str, float], of: Cell = FGSM) -> list[Finding]:
    return list(findings([of], {of.id: result(of, observed)}))


def one(observed: Mapping[str, float], of: Cell = FGSM) -> Finding:
    (finding,) = about(observed, of)
    assert finding.cells == (of.id,)
    assert finding.advice
    return finding


def test_a_quiet_cell_has_no_finding() -> None:
    assert about({}) == []
    assert about({ATTACKABLE: 90, UNCHANGED: 3}) == []


def test_a_look_beforehand_that_failed_is_a_warning() -> None:
    finding = one({NO_PREFLIGHT: 1})
    assert (finding.id, finding.severity) == ("no-preflight", "warning")


def test_a_stand_in_for_gradients_is_a_warning() -> None:
    stood_in = dataclasses.replace(cell("square", "8/255"), fallback_for=FGSM.entry)
    skipped = dataclasses.replace(result(FGSM, {}, "skipped"), reason="no derivative")
    results = {FGSM.id: skipped, stood_in.id: result(stood_in, {})}
    (finding,) = findings([FGSM, stood_in], results)
    assert (finding.id, finding.severity) == ("no-gradients", "warning")
    assert finding.cells == (FGSM.id, stood_in.id)
    assert "no derivative" in finding.message


def test_few_breaks_taken_back_may_be_rounding() -> None:
    assert about({TAKEN_BACK: 4, ATTACKABLE: 90}) == []
    finding = one({TAKEN_BACK: 5, ATTACKABLE: 90})
    assert (finding.id, finding.severity) == ("break-taken-back", "error")


def test_broken_gradients_are_an_error() -> None:
    finding = one({BROKEN_GRADIENT: 3, ATTACKABLE: 90})
    assert (finding.id, finding.severity) == ("broken-gradient", "error")
    assert "NaN or infinite for 3 samples" in finding.message
    assert finding.numbers == {BROKEN_GRADIENT: 3}


@pytest.mark.parametrize(
    ("zero", "attackable", "expected"),
    [
        (1, 100, ("some-zero-gradient", "warning")),
        (4, 100, ("some-zero-gradient", "warning")),
        (5, 100, ("zero-gradient", "error")),  # 5 % and more
        (49, 1000, ("some-zero-gradient", "warning")),
        (50, 1000, ("zero-gradient", "error")),
        (100, 100, ("zero-gradient", "error")),
        (1, 1, ("zero-gradient", "error")),
    ],
)
def test_zero_gradients_are_an_error_from_five_percent(
    zero: int, attackable: int, expected: tuple[str, str]
) -> None:
    finding = one({ZERO_GRADIENT: zero, ATTACKABLE: attackable})
    assert (finding.id, finding.severity) == expected
    assert f"exactly zero for {zero} of {attackable} attacked samples" in finding.message
    assert finding.numbers == {ZERO_GRADIENT: zero, ATTACKABLE: attackable}


def test_the_losses_that_were_tried_are_named_with_their_shares() -> None:
    seen = {ZERO_GRADIENT: 40, ATTACKABLE: 100, ZERO_WITH + "cross-entropy": 40}
    seen |= {ZERO_WITH + "margin": 0}
    finding = one(seen)
    assert finding.message.endswith("(by loss: cross-entropy 40 %, margin 0 %)")
    assert finding.numbers == seen
    seen = {BROKEN_GRADIENT: 3, ATTACKABLE: 90, BROKEN_WITH + "dlr": 3}
    assert one(seen).message.endswith("(by loss: dlr 3 %)")
    assert one(seen).numbers == {BROKEN_GRADIENT: 3, BROKEN_WITH + "dlr": 3}


def test_zero_gradients_where_nothing_could_be_attacked_are_no_crash() -> None:
    found = about({ZERO_GRADIENT: 5}, cell("fgsm", "0"))
    assert all(finding.severity in {"error", "warning", "note"} for finding in found)


def test_an_attack_that_returns_every_input_unchanged_is_an_error() -> None:
    finding = one({ATTACKABLE: 90, UNCHANGED: 90})
    assert (finding.id, finding.severity) == ("attack-did-nothing", "error")
    assert "all 90 correctly classified inputs unchanged" in finding.message
    assert about({ATTACKABLE: 90, UNCHANGED: 89}) == []
    assert about({ATTACKABLE: 0, UNCHANGED: 0}) == []  # nothing was right from the start


def test_a_changed_model_is_an_error() -> None:
    finding = one({CHANGED_MODEL: 1})
    assert (finding.id, finding.severity) == ("changed-model", "error")
    assert "model.module()" in finding.advice


@pytest.mark.parametrize(
    ("key", "name", "text"),
    [
        (TOUCHED_RNG, "touched-global-rng", "global random state in 2 calls"),
        (CHANGED_INPUT, "changed-input", "changed its input in place in 2 calls"),
    ],
)
def test_a_side_effect_that_was_undone_is_a_warning(key: str, name: str, text: str) -> None:
    finding = one({key: 2})
    assert (finding.id, finding.severity) == (name, "warning")
    assert text in finding.message


@pytest.mark.parametrize(
    ("problem", "name", "text"),
    [
        ("outside the box", "illegal-candidate", "4 returned points are illegal: outside the box"),
        ("returned NoneType, expected a tensor", "illegal-candidate", "returned NoneType"),
        ("model output not finite", "output-not-finite", "4 outputs are not finite"),
    ],
)
def test_an_illegal_candidate_or_output_is_an_error(problem: str, name: str, text: str) -> None:
    finding = one({f"{ILLEGAL}{problem}": 4})
    assert (finding.id, finding.severity) == (name, "error")
    assert text in finding.message
    assert finding.numbers == {"samples": 4}


def test_a_clean_pass_without_a_decision_is_an_error() -> None:
    finding = one({f"{ILLEGAL}model output not finite": 2}, cell("clean", None, norm=None))
    assert finding.message.startswith("'clean' on 'candidate'")


def test_every_finding_of_a_cell_and_every_cell_in_plan_order() -> None:
    both = {
        ATTACKABLE: 90,
        UNCHANGED: 90,
        BROKEN_GRADIENT: 1,
        f"{ILLEGAL}not finite": 2,
        f"{ILLEGAL}outside the box": 1,
    }
    assert [finding.id for finding in about(both)] == [
        "illegal-candidate", "illegal-candidate", "broken-gradient", "attack-did-nothing",
    ]  # fmt: skip
    cells = [cell("b", "0.1"), cell("a", "0.1"), cell("c", "0.1")]
    results = {c.id: result(c, {CHANGED_MODEL: 1}) for c in (cells[1], cells[0])}
    assert [f.cells for f in findings(cells, results)] == [(cells[0].id,), (cells[1].id,)]


@pytest.mark.parametrize("status", ["failed", "skipped", "timeout", "invalid"])
def test_a_cell_without_a_number_has_no_finding(status: CellStatus) -> None:
    assert findings([FGSM], {FGSM.id: result(FGSM, {CHANGED_MODEL: 1}, status)}) == ()
    assert findings([FGSM], {}) == ()


def test_the_subject_is_named_with_eps_and_source() -> None:
    assert one({CHANGED_MODEL: 1}).message.startswith("'fgsm' at linf 8/255 on 'candidate': ")
    transfer = dataclasses.replace(FGSM, source="surrogate")
    finding = one({CHANGED_MODEL: 1}, transfer)
    assert finding.message.startswith("'fgsm' at linf 8/255 from 'surrogate' on 'candidate': ")


def test_the_parity_of_a_twin_is_a_note_and_points_it_alone_believes_are_counted() -> None:
    parity = {PARITY_DIFFERENCE: 1e-6, PARITY_TOLERANCE: 1e-4}
    note = one(parity)
    assert (note.id, note.severity) == ("twin-parity", "note")
    assert note.numbers == parity
    for missed, severity in ((1, "note"), (2, "warning")):
        found = about(parity | {FOUND_ON_TWIN: 100, NOT_CONFIRMED: missed})
        assert [(f.id, f.severity) for f in found] == [
            ("twin-parity", "note"), ("transfer-failure", severity),
        ]  # fmt: skip
        assert f"{missed} of 100 points" in found[1].message
