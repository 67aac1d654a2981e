"""The written tables against the values they come from; the documentation against the columns."""

from __future__ import annotations

import csv
import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from robustbench_lite.builtin.analyses import COLUMNS, per_class, robeval_analyses
from robustbench_lite.builtin.reports import robeval_reporters
from robustbench_lite.errors import EnvironmentProblem, RobevalError
from robustbench_lite.report import markdown, tables
from robustbench_lite.stats import wilson
from robustbench_lite.types import Finding
from tests.finished_run import FakeRun, cell, eps, rule, world

DOCUMENTED = Path(__file__).parents[1] / "reports" / "README.md"
FLAGS = re.MULTILINE | re.DOTALL
HOSTILE = "a|b\n`c` <script>alert(1)</script> [x](y) @team"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    path = tmp_path_factory.mktemp("runs") / "suite"
    skipped = [cell("apgd", "0.1", model="robust", skip="needs gradients")]
    made = world(path, n=60, skipped=skipped, gates=[rule(minimum=0.5)])
    tables.write_csv(made)
    tables.write_parquet(made)
    return made


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_cells_csv_says_exactly_what_the_summary_says(run: FakeRun) -> None:
    lines = read(run.path / "tables" / "cells.csv")
    assert run.summary is not None
    assert len(lines) == len(run.summary.rows)
    for line, row in zip(lines, run.summary.rows, strict=True):
        assert (line["cell_id"], line["attack"], line["status"]) == (
            row.cell_id,
            row.attack,
            row.status,
        )
        assert line["eps_text"] == (row.eps.text if row.eps else "")
        assert line["eps"] == (repr(float(row.eps)) if row.eps else "")
        if row.robust_accuracy is not None:
            kept = [line[name] for name in ("robust_accuracy", "robust_lo", "robust_hi")]
            rate = row.robust_accuracy
            assert [float(text) for text in kept] == [rate.value, rate.low, rate.high]


def test_a_row_without_a_rate_has_empty_rates(run: FakeRun) -> None:
    lines = read(run.path / "tables" / "cells.csv")
    bad = [line for line in lines if line["status"] != "ok"]
    assert {line["attack"] for line in bad} == {"apgd", "worst-case"}
    for line in bad:
        rates = ("clean_accuracy", "robust_accuracy", "robust_lo", "robust_hi")
        more = ("attack_success_rate", "adversarial_error", "confidence_on_mistakes")
        assert {line[name] for name in (*rates, *more, "median_distance")} == {""}
        assert "needs gradients" in line["reason"]


def test_pandas_reads_the_same_floats(run: FakeRun) -> None:
    frame = pd.read_csv(run.path / "tables" / "cells.csv")
    assert run.summary is not None
    values = [r.robust_accuracy.value for r in run.summary.rows if r.robust_accuracy]
    assert frame["robust_accuracy"].dropna().tolist() == pytest.approx(values, rel=1e-15)


def test_metrics_csv_is_the_same_in_long_form(run: FakeRun) -> None:
    lines = read(run.path / "tables" / "metrics.csv")
    cells = {line["cell_id"]: line for line in read(run.path / "tables" / "cells.csv")}
    assert len({(line["cell_id"], line["metric"]) for line in lines}) == len(lines)
    for line in lines:
        if line["metric"] in cells[line["cell_id"]]:
            assert line["value"] == cells[line["cell_id"]][line["metric"]]
        if line["unit"] == "share":
            low, high = wilson(round(float(line["value"]) * int(line["n"])), int(line["n"]))
            assert (float(line["lo"]), float(line["hi"])) == pytest.approx((low, high))
        else:
            assert line["lo"] == line["hi"] == ""
    directions = {line["metric"]: line["higher_is_better"] for line in lines}
    assert directions["robust_accuracy"] == "true"
    assert directions["attack_success_rate"] == "false"
    assert directions["seconds"] == ""


def test_samples_parquet_holds_every_cell_in_its_own_group(run: FakeRun) -> None:
    path = run.path / "tables" / "samples.parquet"
    file = pq.ParquetFile(path)
    assert file.num_row_groups == len(run.tables)
    whole = pd.read_parquet(path)
    assert list(whole.columns) == list(tables.SAMPLE_COLUMNS)
    for cell_id, samples in run.tables.items():
        own = whole[whole["cell_id"] == cell_id]
        for field in dataclasses.fields(samples):
            column = getattr(samples, field.name)
            np.testing.assert_array_equal(own[field.name].to_numpy(), column)
            if column.dtype != object:
                assert own[field.name].dtype == column.dtype


def test_the_columns_are_those_of_the_documentation() -> None:
    text = DOCUMENTED.read_text(encoding="utf-8")

    def documented(section: str) -> list[str]:
        (part,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, FLAGS)
        firsts = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
        return [name for first in firsts for name in re.findall(r"`(\w+)`", first)]

    assert documented("tables/cells.csv") == list(tables.CELL_COLUMNS)
    assert documented("tables/metrics.csv") == list(tables.METRIC_COLUMNS)
    assert sorted(documented("tables/samples.parquet")) == sorted(tables.SAMPLE_COLUMNS)
    assert documented("tables/per-class.csv") == list(COLUMNS)


def test_markdown_says_verdict_gates_cells_and_findings(run: FakeRun) -> None:
    finding = Finding(id="x", severity="warning", message="odd", advice="look", cells=())
    assert run.summary is not None
    told = dataclasses.replace(run, summary=dataclasses.replace(run.summary, findings=(finding,)))
    markdown.write(told)
    text = (run.path / "summary.md").read_text(encoding="utf-8")
    assert text.startswith("# ✕ FAIL: suite\n")
    assert told.verdict is not None
    assert "below the floor of 50 %" in text
    assert "**warning** odd. To do: look." in text
    assert text.count("| undefended | test | pgd |") == 4


def test_markdown_escapes_every_name(tmp_path: Path) -> None:
    hostile = world(
        tmp_path / "run",
        n=20,
        models={HOSTILE: 0.2},
        dataset=HOSTILE,
        gates=[rule(HOSTILE, minimum=0.5, eps=eps("0.3"))],
        findings=[Finding(id="x", severity="note", message=HOSTILE, advice=HOSTILE, cells=())],
    )
    text = markdown.text(hostile)
    assert "<script" not in text
    assert "[x](y)" not in text
    assert " @team" not in text
    for line in text.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) in (7, 9)


def test_a_large_summary_stays_under_the_limit_of_ci_pages(tmp_path: Path) -> None:
    models = {f"model-{at}": 0.2 for at in range(60)}
    large = world(tmp_path / "run", n=5, models=models)
    text = markdown.text(large)
    assert len(text.encode()) < 2**20
    assert "more rows are in `tables/cells.csv`" in text


def test_per_class_adds_up_to_the_cell(run: FakeRun) -> None:
    frame = per_class(run)  # type: ignore[arg-type]  # the attributes of a StoredRun are enough
    assert list(frame.columns) == list(COLUMNS)
    assert run.summary is not None
    cells = frame.groupby(["model", "attack", "eps_text"])
    for row in run.summary.rows:
        if row.status == "ok" and row.attack != "worst-case":
            own = cells.get_group((row.model, row.attack, row.eps.text if row.eps else ""))
            assert row.robust_accuracy is not None
            assert own["n"].sum() == row.n
            kept = (own["robust_accuracy"] * own["n"]).round().sum()
            assert kept == row.robust_accuracy.count
            assert own["robust_accuracy"].is_monotonic_increasing
            first = own.iloc[0]
            low, high = wilson(round(first["robust_accuracy"] * first["n"]), int(first["n"]))
            assert (first["robust_lo"], first["robust_hi"]) == pytest.approx((low, high))


def test_per_class_leaves_out_what_a_finding_made_invalid(tmp_path: Path) -> None:
    touched = cell("pgd", "0.3", model="robust")
    error = Finding(id="x", severity="error", message="m", advice="", cells=(touched.id,))
    frame = per_class(world(tmp_path / "run", n=20, findings=[error]))  # type: ignore[arg-type]
    pgd = frame[(frame["attack"] == "pgd") & (frame["eps_text"] == "0.3")]
    assert set(pgd["model"]) == {"undefended"}


def test_the_specs_name_what_they_write() -> None:
    files = {spec.name: spec.files for spec in robeval_reporters()}
    assert set(files) == {"html", "markdown", "junit", "model-card", "csv", "parquet"}
    assert files["parquet"] == ("tables/samples.parquet",)
    assert [spec.name for spec in robeval_analyses()] == ["per-class", "corruption-table"]


def test_a_place_that_cannot_be_written_is_named(run: FakeRun, tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("a file where a folder should be")
    blocked = dataclasses.replace(run, path=tmp_path)
    for write in (tables.write_csv, tables.write_parquet):
        with pytest.raises(EnvironmentProblem, match="cannot write"):
            write(blocked)
    assert [path.name for path in tmp_path.iterdir()] == ["tables"]


def test_a_run_without_a_summary_is_an_internal_error(run: FakeRun) -> None:
    with pytest.raises(RobevalError, match="no summary"):
        tables.write_csv(dataclasses.replace(run, summary=None))
