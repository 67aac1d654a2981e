"""How the report shows the tables of analyses: chosen columns in their units, others as they are."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from robustbench_lite import AnalysisSpec, Column, NoParams, hookimpl, plugins
from robustbench_lite.analyse import analyse
from robustbench_lite.report.analyses import Analysis, analyses
from robustbench_lite.types import AnalysisEntry, FailedAnalysis, Where

COLUMNS = (
    Column(name="what", title="What", below="note"),
    Column(name="rate", title="Rate", unit="unit", low="lo", high="hi"),
    Column(name="gap", title="Gap", shown="percent", signed=True),
    Column(name="size", title="Size", shown="number"),
    Column(name="inside", title="Inside", shown="mark"),
)
FRAME = pd.DataFrame(
    {
        "what": ["error", "norm <b>", "left out"],
        "note": ["a note", "", ""],
        "rate": [0.12345, 7.18612, None],
        "lo": [0.1, None, None],
        "hi": [0.15, None, None],
        "unit": ["percent", "number", "percent"],
        "gap": [0.05, -0.25, None],
        "size": [12000, 1.23456789, None],
        "inside": ["yes", "no", ""],
        "unnamed": [1, 2, 3],
    }
)


def made(folder: Path, columns: tuple[Column, ...]) -> tuple[FailedAnalysis, ...]:
    """The analysis `look` over a run in that folder, with FRAME for a table."""

    class Plugin:
        @hookimpl
        def robeval_analyses(self) -> list[AnalysisSpec]:
            spec = AnalysisSpec(
                name="look",
                implementation=lambda run: FRAME,
                summary="how things look",
                paper="https://example.org/paper",
                columns=columns,
            )
            return [spec]

    run = SimpleNamespace(path=folder, partial=False, plan=SimpleNamespace(cells=()))
    entry = AnalysisEntry(
        name="my look", analysis="look", params=NoParams(), where=Where("s.yaml", 1, 1)
    )
    return analyse(run, [entry], plugins.build([Plugin()]), SimpleNamespace(), "cpu")  # type: ignore[arg-type]


def shown(folder: Path, most: int = 300) -> Analysis:
    (found,) = analyses(folder / "tables", most)
    return found


def test_chosen_columns_stand_in_their_order_and_units(tmp_path: Path) -> None:
    made(tmp_path, COLUMNS)
    table = shown(tmp_path)
    assert (table.name, table.summary) == ("my-look", "how things look")
    assert table.paper == "https://example.org/paper"
    assert [(cell.text, cell.look) for cell in table.head] == [
        ("What", ""),
        ("Rate", "num"),
        ("Gap", "num"),
        ("Size", "num"),
        ("Inside", ""),
    ]
    first, second, third = table.lines
    assert [cell.text for cell in first] == ["error", "12.35 %", "+5.00 %", "12,000", "✓ yes"]
    assert [cell.below for cell in first] == ["a note", "[10.00 %, 15.00 %]", "", "", ""]
    assert [cell.text for cell in second] == ["norm <b>", "7.186", "-25.00 %", "1.235", "✗ no"]
    assert [cell.look for cell in second][-1] == "no"
    assert [cell.text for cell in third] == ["left out", "", "", "", ""]


def test_a_table_without_chosen_columns_is_shown_as_it_is_at_a_glance(tmp_path: Path) -> None:
    made(tmp_path, ())
    table = shown(tmp_path, 24)
    assert [cell.text for cell in table.head] == list(FRAME.columns)
    assert (len(table.lines), table.left) == (1, 2)
    assert [cell.text for cell in table.lines[0]][:3] == ["error", "a note", "0.1235"]


def test_chosen_columns_have_the_room_of_a_table_of_ours(tmp_path: Path) -> None:
    made(tmp_path, COLUMNS)
    assert (len(shown(tmp_path, 2).lines), shown(tmp_path, 2).left) == (2, 1)
    assert shown(tmp_path, 24).left == 0


def test_a_table_of_a_run_before_columns_were_told_is_still_shown(tmp_path: Path) -> None:
    made(tmp_path, COLUMNS)
    (tmp_path / "tables" / "my-look.json").unlink()
    assert len(shown(tmp_path).head) == len(FRAME.columns)


def test_what_a_later_version_says_of_a_column_is_passed_over(tmp_path: Path) -> None:
    made(tmp_path, COLUMNS)
    path = tmp_path / "tables" / "my-look.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told["columns"] = [{**each, "colour": "red"} for each in told["columns"]]
    path.write_text(json.dumps(told), encoding="utf-8")
    assert len(shown(tmp_path).head) == len(COLUMNS)


@pytest.mark.parametrize(
    "wrong", [Column(name="rates", title="Rates"), Column(name="rate", title="R", below="rates")]
)
def test_a_column_that_the_table_lacks_is_told_and_the_table_is_kept(
    tmp_path: Path, wrong: Column
) -> None:
    (failed,) = made(tmp_path, (*COLUMNS, wrong))
    assert failed.name == "my look"
    assert (
        "names the column 'rates' to be shown; the columns of its table are what, note"
        in failed.reason
    )
    assert not failed.environment
    assert (tmp_path / "tables" / "my-look.csv").is_file()
    assert len(shown(tmp_path).head) == len(COLUMNS) + (wrong.name == "rate")


def test_what_the_report_needs_is_plain_json(tmp_path: Path) -> None:
    made(tmp_path, COLUMNS)
    told = json.loads((tmp_path / "tables" / "my-look.json").read_text(encoding="utf-8"))
    assert [each["name"] for each in told["columns"]] == [each.name for each in COLUMNS]
