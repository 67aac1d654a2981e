"""The reference table: numbers looked up, windows, orderings, and what a gate makes of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from robeval_train import reporter
from robeval_train.analyses.reference import Claim, Measure, reference
from robustbench_lite import StoredRun
from robustbench_lite.types import Plan, Rate, Row, Summary

WIDE = (0.0, 1.0)


def row(model: str, error: float | None, attack: str = "fgsm") -> Row:
    rate = None if error is None else Rate(int(100 * error), 100, error, error - 0.1, error + 0.1)
    return Row(
        cell_id=f"{model}-{attack}",
        model=model,
        dataset="test",
        attack=attack,
        plugin=attack,
        source=model,
        role="attack",
        kind="fixed-budget",
        norm="linf",
        eps=None,
        n=100,
        status="ok" if rate else "invalid",
        reason="",
        clean_accuracy=None,
        robust_accuracy=None,
        attack_success_rate=None,
        adversarial_error=rate,
        confidence_on_mistakes=0.7,
        median_distance=None,
        survives_uint8=None,
        queries_mean=None,
        gradients_mean=None,
        seconds=0.0,
        device="cpu",
        provider="torch",
        batch_size=1,
    )


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    rows = (row("a", 0.9), row("b", 0.2), row("c", None), row("a", 0.5, "from-b"))
    (tmp_path / "tables").mkdir()
    table = pd.DataFrame(
        {"id": ["x", "y"], "share": [0.25, 0.75], "n": [10, 10], "none": [None, None]}
    )
    table.to_csv(tmp_path / "tables" / "own.csv", index=False)
    return StoredRun(
        path=tmp_path,
        manifest={"suite": "s", "suite_file": "s.yaml", "argv": ["robeval", "--set", "a.b=c"]},
        plan=Plan(suite="s", seed=0, models={}, datasets={}, cells=()),
        suite_text="",
        results={},
        summary=Summary(rows=rows, findings=(), partial=False),
    )


def measure(**where: object) -> Measure:
    return Measure.model_validate({"where": where, "column": "adversarial_error"})


def told(run: StoredRun, *claims: Claim, profile: str = "cpu") -> list[dict[str, object]]:
    frame = reference(run, profile=profile, rows=claims)
    return [{str(k): v for k, v in each.items()} for each in frame.to_dict("records")]


def claim(**given: object) -> Claim:
    ours = {"where": {"model": "a", "attack": "fgsm"}, "column": "adversarial_error"}
    return Claim.model_validate({"id": "G", "what": "w", "ours": ours, **given})


@pytest.mark.parametrize(
    ("window", "hard", "inside", "verdict"),
    [
        ((0.85, 0.95), ("cpu",), "yes", "holds"),
        ((0.91, 0.95), ("cpu",), "no", "fails"),
        ((0.91, 0.95), (), "no", "reported"),
        ((0.9, 0.9), ("cpu",), "yes", "holds"),
    ],
)
def test_a_window_decides_a_hard_row_and_is_only_shown_for_others(
    run: StoredRun, window: tuple[float, float], hard: tuple[str, ...], inside: str, verdict: str
) -> None:
    (found,) = told(run, claim(paper=0.894, window={"cpu": window}, hard=hard))
    assert (found["inside"], found["verdict"]) == (inside, verdict)
    assert found["difference"] == pytest.approx(0.006)
    assert (found["ours"], found["lo"], found["hi"], found["n"]) == pytest.approx(
        (0.9, 0.8, 1.0, 100)
    )


def test_an_ordering_holds_only_with_its_distance(run: StoredRun) -> None:
    below = {"where": {"model": "a", "attack": "fgsm"}, "column": "adversarial_error"}
    ours = {"where": {"model": "b"}, "column": "adversarial_error"}
    for by, verdict in ((0.3, "holds"), (0.7, "holds"), (0.71, "fails")):
        (found,) = told(run, claim(ours=ours, below=below, by=by, hard=("cpu",)))
        assert found["verdict"] == verdict


def test_an_invalid_cell_or_a_missing_row_is_no_evidence(run: StoredRun) -> None:
    for where in ({"model": "c"}, {"model": "nobody"}, {"model": "a"}):
        ours = {"where": where, "column": "adversarial_error"}
        (found,) = told(run, claim(ours=ours, window={"cpu": WIDE}, hard=("cpu",)))
        assert (found["verdict"], found["inside"]) == ("no evidence", "")
        assert found["note"]
    for column in ("none", "nowhere"):
        ours = {"table": "own", "where": {"id": "x"}, "column": column}
        (found,) = told(run, claim(ours=ours, window={"cpu": WIDE}, hard=("cpu",)))
        assert found["verdict"] == "no evidence"


def test_numbers_come_from_the_tables_of_other_analyses_and_from_means(run: StoredRun) -> None:
    ours = {"table": "own", "where": {"id": "y"}, "column": "share"}
    assert told(run, claim(ours=ours))[0]["ours"] == 0.75
    both = {"table": "own", "column": "share", "mean": True, "times": 2}
    assert told(run, claim(ours=both))[0]["ours"] == 1.0
    some = {"where": {"model": "a", "attack": ["fgsm", "from-b"]}, "column": "adversarial_error"}
    assert told(run, claim(ours={**some, "mean": True}))[0]["ours"] == pytest.approx(0.7)


def test_a_profile_leaves_out_rows_and_has_its_own_windows(run: StoredRun) -> None:
    rows = (claim(profiles=("full",)), claim(window={"cpu": WIDE, "full": (0.0, 0.1)}))
    assert [each["inside"] for each in told(run, *rows)] == ["yes"]
    assert [each["inside"] for each in told(run, *rows, profile="full")] == ["", "no"]


def test_whether_the_setting_is_the_papers_may_depend_on_the_profile(run: StoredRun) -> None:
    each = claim(matched={"cpu": "no", "full": "yes"})
    found = [told(run, each, profile=name)[0]["setting_matched"] for name in ("cpu", "full", "x")]
    assert found == ["no", "yes", "unknown"]
    assert told(run, claim(matched="yes"))[0]["setting_matched"] == "yes"


def test_a_hard_row_without_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="hard in 'cpu' and has no window there"):
        claim(hard=("cpu",))


def test_the_report_shows_every_row_with_the_command_and_without_paths(run: StoredRun) -> None:
    frame = reference(
        run,
        profile="cpu",
        rows=(claim(paper=0.894, window={"cpu": (0.91, 1.0)}, hard=("cpu",), note="why"),),
    )
    frame.to_csv(run.path / "tables" / "reference.csv", index=False)
    reporter.write(dataclasses.replace(run))
    text = (run.path / "reference.md").read_text(encoding="utf-8")
    assert "`robeval run suites/s.yaml --set a.b=c`" in text
    assert "| G | w | 89.40 % |" in text
    assert (
        "| 90.00 % | 80.00 % to 100.00 % | 100 | +0.60 % | 91 % to 100 % | no (hard: fails) |"
        in text
    )
    assert "- **G** w: why" in text
    assert "share" not in text.split("Notes:")[1]  # other tables are not shown
