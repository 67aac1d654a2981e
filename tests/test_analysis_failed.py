"""An analysis or a reporter that fails takes nothing else with it, and never ends in exit 0."""

from __future__ import annotations

import html
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from robustbench_lite.store import load_run

if TYPE_CHECKING:
    from tests.conftest import Robeval

WriteSuite = Callable[..., Path]

PLUGIN = """\
import os
from collections.abc import Iterable
import pandas as pd
from robustbench_lite import AnalysisSpec, Column, ModelError, ReporterSpec, hookimpl

ROWS = pd.DataFrame({"id": ["a"], "what": ["it"], "verdict": ["holds"]})

def raises(run):
    raise KeyError("confidance")

def nothing(run):
    ROWS.copy()

def no_model(run):
    raise ModelError("'net' has 3 layers, expected 1")

def sound(run):
    if (run.path / "break-it").exists():
        raise ValueError("today it is broken")
    return ROWS

def report(run):
    raise IndexError("no first row")

def full(run):
    raise OSError(28, "No space left on device")

@hookimpl
def robeval_analyses():
    for each in (raises, nothing, no_model, sound):
        yield AnalysisSpec(name=each.__name__, implementation=each, summary="")
    rates = (Column(name="what", title="What", low="lowest"),)
    yield AnalysisSpec(name="lacks", implementation=sound, summary="", columns=rates)

@hookimpl
def robeval_reporters():
    yield ReporterSpec(name="torn", implementation=report, summary="", files=("torn.txt",))
    yield ReporterSpec(name="full", implementation=full, summary="", files=("full.txt",))
"""
PASSES = "passes: {metric: clean_accuracy, min: 0.5}"
FAILS = "fails: {metric: clean_accuracy, min: 0.999, confidence: 0.9}"
OPEN = "open: {metric: clean_accuracy, min: 0.88}"
ON_IT = "on-it: {analysis: it}"


@pytest.fixture(autouse=True)
def looks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the analyses and reporters as a distribution of their own."""
    site = tmp_path_factory.mktemp("site")
    (site / "robeval_looks.py").write_text(PLUGIN)
    info = site / "robeval_looks-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: robeval-looks\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[robeval]\nlooks = robeval_looks\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "robeval_looks", raising=False)


def suite(analysis: str, *gates: str, reports: str = "markdown") -> str:
    lines = [
        f"reports: [{reports}]",
        "controls: off",
        "analyses:",
        f"  it: {{analysis: {analysis}}}",
    ]
    lines += ["  after: {analysis: per-class}", "attacks:", "  f: {attack: fgsm, eps: 0.1}"]
    return "\n".join([*lines, *(["gates:", *(f"  {each}" for each in gates)] if gates else []), ""])


TOLD = {
    "raises": "KeyError: 'confidance'",
    "nothing": "it returned NoneType, expected a pandas.DataFrame",
    "lacks": "its spec names the column 'lowest' to be shown; the columns of its table are id, what, verdict",
}


@pytest.mark.parametrize("analysis", TOLD)
def test_the_rest_of_the_run_is_whole_and_the_code_is_4(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path, analysis: str
) -> None:
    pages = {"summary.md": "markdown", **({"report.html": "html"} if analysis == "raises" else {})}
    path = str(write_suite(suite(analysis, PASSES, ON_IT, reports=", ".join(pages.values()))))
    ended = robeval("run", path, "-o", "out", "-q")
    assert ended.code == 4
    assert f"No verdict: analysis 'it' failed: {TOLD[analysis]}" in ended.out
    assert (
        f"analysis 'it' of plug-in looks of distribution robeval-looks failed: {TOLD[analysis]}"
        in ended.err
    )
    judged = json.loads((tmp_path / "out" / "gates.json").read_text())
    assert {gate["gate"]: gate["status"] for gate in judged["gates"]} == {
        "passes": "PASS",
        "on-it": "INVALID",
    }
    (found,) = [f for f in read(tmp_path / "out" / "findings.json") if f["id"] == "analysis-failed"]
    assert found["severity"] == "error"
    assert TOLD[analysis] in str(found["message"])
    for name in pages:
        page = html.unescape((tmp_path / "out" / name).read_text()).replace("\\", "")
        assert f"analysis 'it' failed: {TOLD[analysis]}" in page
    assert (tmp_path / "out" / "tables" / "after.csv").is_file()
    assert (tmp_path / "out" / "tables" / "it.csv").is_file() == (analysis == "lacks")
    again = robeval("gate", "out")
    assert again.code == 4
    assert json.loads((tmp_path / "out" / "gates.json").read_text()) == judged


def read(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize(("gates", "code"), [((), 4), ((OPEN,), 4), ((FAILS, ON_IT), 1)])
def test_it_never_hides_a_failure_and_never_passes(
    robeval: Robeval, write_suite: WriteSuite, gates: tuple[str, ...], code: int
) -> None:
    path = str(write_suite(suite("raises", *gates)))
    assert robeval("run", path, "-o", "out", "-q").code == code


def test_a_model_that_cannot_be_had_is_the_environment(
    robeval: Robeval, write_suite: WriteSuite
) -> None:
    ended = robeval("run", str(write_suite(suite("no_model", FAILS))), "-o", "out", "-q")
    assert ended.code == 7
    assert "the environment failed: analysis 'it': 'net' has 3 layers, expected 1" in ended.out


def test_a_table_of_an_earlier_try_is_no_evidence_and_mending_it_is_enough(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = str(write_suite(suite("sound", ON_IT)))
    assert robeval("run", path, "-o", "out", "-q").code == 0
    (tmp_path / "out" / "break-it").touch()
    ended = robeval("run", path, "-o", "out", "-q", "-v")
    assert ended.code == 4
    assert "the analysis failed: ValueError: today it is broken" in ended.out
    assert "Traceback" in ended.err
    assert not (tmp_path / "out" / "tables" / "it.csv").exists()
    (tmp_path / "out" / "break-it").unlink()
    mended = robeval("run", path, "-o", "out", "-q")
    assert (mended.code, load_run(tmp_path / "out").manifest.get("failed_analyses")) == (0, None)


def test_a_report_that_cannot_be_written_keeps_none_of_the_others(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = str(write_suite(suite("sound", PASSES, reports="torn, markdown")))
    ended = robeval("run", path, "-o", "out", "-q")
    assert ended.code == 4
    told = "report 'torn' of plug-in looks of distribution robeval-looks could not be written: IndexError"
    assert told in ended.err
    assert "verdict: PASS" in ended.out
    assert (tmp_path / "out" / "summary.md").is_file()
    assert robeval("gate", "out").code == 0
    assert robeval("report", "out").code == 4
    assert robeval("report", "out", "-f", "markdown").code == 0
    failing = str(write_suite(suite("sound", FAILS, reports="torn, markdown")))
    assert robeval("run", failing, "-o", "other", "-q").code == 1


def test_a_run_renders_without_the_reporter_that_is_gone_but_says_so(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = str(write_suite(suite("sound", PASSES, reports="torn, markdown")))
    robeval("run", path, "-o", "out", "-q")
    (tmp_path / "out" / "summary.md").unlink()
    ended = robeval("report", "out", "-p", "no:looks")
    assert ended.code == 4
    assert "unknown reporter 'torn'" in ended.err
    assert (tmp_path / "out" / "summary.md").is_file()
    assert robeval("report", "out", "-p", "no:looks", "-f", "torn").code == 2


def test_a_full_disk_is_the_environment_after_the_other_reports(
    robeval: Robeval, write_suite: WriteSuite, tmp_path: Path
) -> None:
    path = str(write_suite(suite("sound", PASSES, reports="full, markdown")))
    ended = robeval("run", path, "-o", "out", "-q")
    assert ended.code == 7
    assert "the disk is full" in ended.err
    assert (tmp_path / "out" / "summary.md").is_file()
