"""A run as pandas frames, and the examples of reports/README.md, executed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

import robustbench_lite
from robustbench_lite import load_run
from robustbench_lite.errors import UsageError
from robustbench_lite.report.tables import CELL_COLUMNS, METRIC_COLUMNS, SAMPLE_COLUMNS

if TYPE_CHECKING:
    from tests.conftest import Robeval

PAGE = Path(robustbench_lite.__file__).parents[1] / "reports" / "README.md"
SUITE = """\
self_test: "off"
reports: [csv, parquet]
attacks:
  fgsm: {{attack: fgsm, norm: linf, eps: [0.02, 0.05]}}
  pgd: {{attack: pgd, norm: linf, eps: [0.02, 0.05], steps: {steps}}}
gates:
  floor: {{metric: robust_accuracy, attack: pgd, min: 0.01}}
"""


@pytest.fixture
def runs(robeval: Robeval, write_suite: Callable[..., Path]) -> None:
    """Two runs, at the places that the examples read."""
    for name, steps in (("base", 1), ("head", 5)):
        path = str(write_suite(SUITE.format(steps=steps), take=60))
        assert robeval("run", path, "-o", f"reports/mnist/{name}").code == 0


def test_frames_are_the_tables(runs: None) -> None:
    run = load_run("reports/mnist/head")
    assert "reports/mnist/head" in repr(run)
    read = {"keep_default_na": False, "na_values": [""]}
    for frame, name in ((run.cells, "cells"), (run.metrics, "metrics")):
        table = pd.read_csv(run.path / "tables" / f"{name}.csv", **read)  # type: ignore[call-overload]
        pd.testing.assert_frame_equal(_plain(frame), _plain(table), check_dtype=False)
    samples = pd.read_parquet(run.path / "tables" / "samples.parquet")
    mine = run.samples.sort_values(["cell_id", "sample_id"], ignore_index=True)
    theirs = samples.sort_values(["cell_id", "sample_id"], ignore_index=True)
    pd.testing.assert_frame_equal(mine, theirs, check_dtype=False)
    assert run.samples is run.samples  # read once


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    text = frame.astype(object).where(frame.notna() & (frame != ""), None)
    return text.map(
        lambda value: f"{value:.12g}" if isinstance(value, float) else str(value).lower()
    )


def test_columns_findings_and_gates(runs: None) -> None:
    run = load_run("reports/mnist/head")
    assert tuple(run.cells.columns) == CELL_COLUMNS
    assert tuple(run.metrics.columns) == METRIC_COLUMNS
    assert tuple(run.samples.columns) == SAMPLE_COLUMNS
    assert run.gates["gate"].tolist() == ["floor"] * 2
    assert set(run.gates["cell_id"]) <= set(run.cells["cell_id"])
    assert set(run.findings.columns) >= {"id", "severity", "cells", "numbers"}
    known = set(run.cells["cell_id"])
    assert all(set(cells) <= known for cells in run.findings["cells"])
    one = run.samples_of(run.gates["cell_id"][0])
    assert len(one) == 60
    assert len(run.samples_of("nowhere")) == 0


def test_a_run_that_was_never_judged(runs: None) -> None:
    folder = Path("reports/mnist/head")
    judged = load_run(folder).findings["id"].tolist()
    for name in ("gates.json", "findings.json"):
        (folder / name).unlink()
    run = load_run(folder)
    assert run.findings["id"].tolist() == judged
    assert len(run.gates) == 0
    assert "status" in run.gates.columns
    assert not (folder / "findings.json").exists()
    with pytest.raises(UsageError, match="is not a run directory"):
        load_run("reports")


def test_a_run_whose_plug_ins_are_gone(runs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise AssertionError("no plug-in is needed")

    monkeypatch.setattr(robustbench_lite.plugins, "load", none)
    run = load_run("reports/mnist/base")
    assert len(run.cells) > 5
    assert len(run.samples) > 100


def test_the_examples_of_the_page(runs: None, capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 3
    spaces: list[dict[str, object]] = []
    for text in examples:
        spaces.append({})
        exec(compile(text, str(PAGE), "exec"), spaces[-1])
        assert capsys.readouterr().out
    run = load_run("reports/mnist/head")
    curve, broken, worse = spaces[0]["curves"], spaces[1]["broken"], spaces[2]["worse"]
    assert isinstance(curve, pd.DataFrame)
    assert isinstance(broken, pd.DataFrame)
    assert isinstance(worse, pd.DataFrame)
    pgd = run.cells.query("attack == 'pgd'").set_index("eps")["robust_accuracy"]
    assert curve["linear", "pgd"].to_dict() == pytest.approx(pgd.to_dict())
    rates = run.metrics.query("attack == 'pgd' and metric == 'attack_success_rate'")
    counts = (rates["value"] * rates["n"]).round().astype(int)
    assert len(broken) == counts.sum() > 0
    base = load_run("reports/mnist/base")
    for eps in ("0.02", "0.05"):
        pick = f"attack == 'pgd' and eps_text == '{eps}'"
        ids = [each.cells.query(pick)["cell_id"].item() for each in (base, run)]
        left, right = (
            each.samples_of(cell)
            .set_index("sample_hash")
            .pipe(lambda f: f.clean_correct & ~f.success)
            for each, cell in zip((base, run), ids, strict=True)
        )
        found = worse.query(f"attack == 'pgd' and eps_text == '{eps}'")
        assert set(found["sample_hash"]) == set(left.index[left & ~right])
    assert len(worse)
