"""Gates on an analysis: every verdict in its table must hold, and there must be evidence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from robustbench_lite import tablegate
from robustbench_lite.records import gates_from_json, gates_to_json
from robustbench_lite.types import FailedAnalysis, Gate, Where

GATE = Gate(
    name="paper",
    metric="verdict",
    model=None,
    dataset=None,
    attack=None,
    norm=None,
    eps=None,
    minimum=None,
    maximum=None,
    confidence=0.95,
    where=Where("s.yaml", 3, 1),
    analysis="table",
)


@pytest.mark.parametrize(
    ("verdicts", "status", "reason"),
    [
        (["holds", "reported", "holds"], "PASS", "all 2 hold"),
        (["holds", "fails"], "FAIL", "1 of 2 fail: r1 what 1"),
        (["no evidence", "fails"], "FAIL", "1 of 2 fail: r1 what 1"),
        (["holds", "no evidence"], "INVALID", "no evidence for r1 what 1"),
        (["holds", "fail"], "INVALID", "none of holds, fails, no evidence, reported: 'fail' of r1"),
        (["holds", ""], "INVALID", "'' of r1 what 1"),
        (["fails", "Holds"], "FAIL", "1 of 1 fail: r0 what 0"),
        (["reported"], "INVALID", "the table has no verdicts"),
        ([], "INVALID", "the table has no verdicts"),
        (None, "INVALID", "the table has no verdicts"),
    ],
)
def test_a_gate_passes_only_where_all_hold(
    tmp_path: Path, verdicts: list[str] | None, status: str, reason: str
) -> None:
    if verdicts is not None:
        rows = [f"r{at},what {at},{verdict}" for at, verdict in enumerate(verdicts)]
        (tmp_path / "table.csv").write_text("\n".join(["id,what,verdict", *rows, ""]))
    (result,) = tablegate.check([GATE], lambda name: tmp_path / f"{name}.csv", partial=False)
    assert result.status == status
    assert reason in result.reason


def test_a_partial_run_decides_nothing(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("id,what,verdict\na,b,holds\n")
    (result,) = tablegate.check([GATE], lambda name: tmp_path / f"{name}.csv", partial=True)
    assert result.status == "INVALID"


@pytest.mark.parametrize("verdict", ["holds", "fails"])
def test_the_table_of_an_analysis_that_failed_is_no_evidence(tmp_path: Path, verdict: str) -> None:
    (tmp_path / "table.csv").write_text(f"id,what,verdict\na,b,{verdict}\n")
    (result,) = tablegate.check(
        [GATE],
        lambda name: tmp_path / f"{name}.csv",
        partial=False,
        failed=[FailedAnalysis(name="table", reason="it lacks a column")],
    )
    assert (result.status, result.reason) == (
        "INVALID",
        "the analysis failed: it lacks a column",
    )


def test_other_gates_are_not_looked_at(tmp_path: Path) -> None:
    other = dataclasses.replace(GATE, analysis=None, metric="clean_accuracy", minimum=0.5)
    assert tablegate.check([other], lambda name: tmp_path / name, partial=False) == ()


def test_a_gate_on_an_analysis_survives_the_manifest() -> None:
    assert gates_from_json(gates_to_json([GATE])) == (GATE,)
