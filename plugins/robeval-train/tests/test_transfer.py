"""The table of agreement cases against counts by hand, and as the report writes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from stored import run_with

from robeval_train import reporter
from robeval_train.analyses import agreement
from robeval_train.analyses.transfer import SPEC, Case, transfer
from robustbench_lite import Json, ModelError, StoredRun

LABEL = [0, 0, 0, 0, 1, 1, 1, 1]
FIRST = [1, 1, 2, 2, 0, 0, 1, 1]
SECOND = [1, 2, 2, 0, 0, 1, 1, 0]
THIRD = [1, 1, 0, 0, 2, 2, 2, 0]
CASE = Case(what="one", attack="x", first="m", second="s", third="r")
PAPER = {"A1": 0.16, "A2": 0.546, "A3": 0.846, "A4": 0.543}


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    cells = {("x", "m"): (LABEL, FIRST), ("x", "s"): (LABEL, SECOND), ("x", "r"): (LABEL, THIRD)}
    return run_with(tmp_path, cells)


def test_every_share_is_counted_by_hand(run: StoredRun) -> None:
    (row,) = transfer(run, paper={}, cases=(CASE,)).to_dict("records")
    assert row["n"] == 6  # of the first's: rows 0 to 5
    expected = {
        "error": 6 / 8,
        "second_wrong": 4 / 6,  # rows 0, 1, 2, 4
        "third_wrong": 4 / 6,  # rows 0, 1, 4, 5
        "A1": 2 / 6,
        "A2": 3 / 6,
        "A3": 3 / 4,
        "A4": 2 / 4,
        "A5": 2 / 4,  # both wrong: rows 0, 1, 4, 7; the same class: 0, 7
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert {column.name for column in SPEC.columns} <= row.keys()
    assert {column.high for column in SPEC.columns if column.high} <= row.keys()
    assert row["A2"] / row["A3"] == pytest.approx(row["second_wrong"])
    assert row["A1"] / row["A4"] == pytest.approx(row["third_wrong"])


def test_it_is_what_agreement_says_of_the_same_cells(run: StoredRun) -> None:
    (row,) = transfer(run, paper={}, cases=(CASE,)).to_dict("records")
    frame = agreement.agreement(run, bench=None, attack="x", first="m", second="s", third="r")
    told = dict(zip(frame["id"], frame["agreement"], strict=True))
    assert {name: row[name] for name in told} == pytest.approx(told)


def test_the_papers_row_has_the_shares_that_its_numbers_imply(run: StoredRun) -> None:
    first, second = transfer(run, paper=PAPER, cases=(CASE,)).to_dict("records")
    assert (first["case"], second["case"]) == ("the paper", "one")
    assert first["second_wrong"] == pytest.approx(0.645, abs=0.001)
    assert first["third_wrong"] == pytest.approx(0.295, abs=0.001)
    assert np.isnan(first["n"])


def test_a_case_without_samples_is_named(run: StoredRun) -> None:
    with pytest.raises(ModelError, match="'one': the run has no samples of 'x' on 'nobody'"):
        transfer(run, paper={}, cases=(CASE.model_copy(update={"third": "nobody"}),))


def test_the_report_has_one_line_per_case(run: StoredRun) -> None:
    (run.path / "tables").mkdir()
    frame = transfer(run, paper=PAPER, cases=(CASE,))
    frame.to_csv(run.path / "tables" / "cases.csv", index=False)
    manifest: dict[str, Json] = {"suite": "s", "suite_file": "s.yaml", "started": "now", "seed": 0}
    reporter.write(dataclasses.replace(run, manifest=manifest))
    text = (run.path / "reference.md").read_text(encoding="utf-8")
    assert "window" not in text  # said of claims only
    assert "| the paper |  |  |  |  | 64.54 % | 29.47 % | 16.00 % |" in text
    assert "| one | 6 | " in text
    assert (
        "| 75.00 % | 66.67 % | 66.67 % | 33.33 % | 50.00 % | 75.00 % | 50.00 % | 50.00 % |" in text
    )
    assert "The widest 95 % Wilson interval has" in text
