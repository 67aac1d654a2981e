"""The page of the self-test: sound attacks pass on healthy models, broken ones do not."""

from __future__ import annotations

import pytest

from benchmarks import selftest
from benchmarks.selftest import Row

PAGE = selftest.PAGE.read_text(encoding="utf-8")
SOUND, _, BROKEN = PAGE.replace("Broken attacks,", "Sound attacks with").split("Sound attacks with")


def shares(part: str, row: Row) -> list[float]:
    """The numbers of one line of the page, in percent."""
    (line,) = [
        line for line in part.splitlines() if line.startswith(f"| {row.label} | {row.norm} |")
    ]
    return [float(cell.split("%")[0]) for cell in line.strip("| ").split(" | ")[3:]]


@pytest.mark.parametrize("row", selftest.SOUND, ids=lambda row: f"{row.label} {row.norm}")
def test_a_sound_attack_passes_on_every_healthy_model(row: Row) -> None:
    found = shares(SOUND, row)
    assert len(found) == len(selftest.HEALTHY)
    assert min(found) >= 95


@pytest.mark.parametrize("row", selftest.UNSOUND, ids=lambda row: f"{row.label} {row.norm}")
def test_a_broken_attack_passes_on_none(row: Row) -> None:
    found = shares(BROKEN, row)
    assert len(found) == len(selftest.HEALTHY)
    assert max(found) < 95


@pytest.mark.slow
@pytest.mark.parametrize("row", [selftest.SOUND[1], selftest.UNSOUND[3]], ids=lambda row: row.label)
def test_the_command_finds_what_the_page_says(row: Row) -> None:
    found = selftest.worst(row, "standard", seeds=1)
    part = SOUND if row in selftest.SOUND else BROKEN
    assert float(found.split("%")[0]) == shares(part, row)[0]
