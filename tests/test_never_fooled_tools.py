"""The page that sets robeval beside other libraries says what its command finds."""

from __future__ import annotations

import re

import pytest

from benchmarks import never_fooled, rivals
from robustbench_lite.testing import zoo

PAGE = never_fooled.PAGE.read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([a-z0-9-]+) \| (.+) \|$", PAGE, re.MULTILINE)
COMMAND = re.search(r"benchmarks\.never_fooled --images (\d+)", PAGE)


def cells(row: str) -> dict[str, str]:
    return dict(zip(never_fooled.COLUMNS, row.split(" | "), strict=True))


TABLE = {name: cells(row) for name, row in ROWS if name != "model"}


def test_the_page_names_its_command_and_every_version() -> None:
    assert COMMAND is not None
    assert int(COMMAND[1]) == never_fooled.IMAGES
    for name in ("torch", *never_fooled.LIBRARIES):
        assert re.search(rf"{name} \d+\.\d+", PAGE), name


def test_it_tells_how_often_a_healthy_model_is_accused() -> None:
    recorded = never_fooled.ALARMS.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (.+) \|$", recorded, re.MULTILINE)
    healthy = [member.name for member in zoo.MEMBERS if member.kind == "healthy"]
    assert [name for name, *_ in rows] == healthy
    accused, runs = (sum(int(row[at]) for row in rows) for at in (2, 1))
    (last,) = [line for line in recorded.splitlines() if line.startswith("False alarms: ")]
    assert f"{accused} of {runs} runs" in last
    assert last in PAGE


def test_every_broken_model_has_a_row_and_none_leaves_as_robust() -> None:
    broken = [member.name for member in never_fooled.members()]
    assert [name for name in TABLE if name not in never_fooled.CONTROLS] == broken
    assert {TABLE[name]["robeval exit"] for name in broken} <= {"1", "8"}
    for name in broken:
        numbers = re.findall(r"[\d.]+", TABLE[name]["robeval"])
        assert not numbers or float(numbers[0]) < 100 * never_fooled.FLOOR


def test_other_libraries_call_broken_models_robust() -> None:
    fooled = {name for name, row in TABLE.items() if row["foolbox PGD"] == "100 %"}
    assert {"nan-gradient", "quantised-input", "scaled-1000"} <= fooled


def test_each_flaw_is_told() -> None:
    for member in never_fooled.members():
        assert f"- `{member.name}`: {member.flaw}" in PAGE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nan-gradient", "scaled-100", "two-classes"])
def test_the_command_finds_what_the_page_says(name: str) -> None:
    for library in rivals.PACKAGES:
        if rivals.missing(library):
            pytest.skip(rivals.missing(library))
    found = never_fooled.row(zoo.member(name), never_fooled.IMAGES)
    assert found in PAGE.splitlines()
