"""A comparison is told in the same words and numbers wherever it is told."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from markupsafe import escape

from robustbench_lite.report import (
    changes,
    changes_page,
    html,
    junit,
    markdown,
    outcome,
    terminal,
    words,
)
from robustbench_lite.types import Change, Comparison
from tests.showcase import showcase

RUN = showcase(Path("showcase"))
assert RUN.comparison is not None
FOUND: Comparison = RUN.comparison
JUDGED = outcome.judged(FOUND)


@pytest.mark.parametrize(
    ("difference", "p", "word"),
    [(-0.2, 0.04, "WORSE"), (0.1, 0.05, "BETTER"), (-0.2, 0.051, "UNCLEAR"), (0.1, 1, "UNCLEAR")],
)
def test_a_change_is_called_what_its_corrected_p_says(
    difference: float, p: float, word: str
) -> None:
    change = dataclasses.replace(FOUND.changes[3], difference=difference)
    assert change.newly_broken
    assert outcome.word(change, p) == word
    quiet = dataclasses.replace(change, newly_broken=(), newly_fixed=())
    assert outcome.word(quiet, 1.0) == "SAME"
    assert outcome.word(dataclasses.replace(change, reason="data differ"), p) == "NOT COMPARED"


def test_the_showcase_has_every_kind_of_change() -> None:
    said = {word for word, _ in JUDGED}
    assert {"WORSE", "UNCLEAR", "NOT COMPARED"} <= said


def report_of(tmp_path: Path) -> str:
    run = dataclasses.replace(RUN, path=tmp_path / "showcase")
    run.path.mkdir()
    html.write(run)
    return (run.path / "report.html").read_text(encoding="utf-8")


def _value(change: Change) -> str:
    return words.difference(change.difference, change.low, change.high)


def test_tables_give_each_change_the_same_word_and_numbers(tmp_path: Path) -> None:
    page, own = report_of(tmp_path), changes_page.page(FOUND, None, RUN)
    text, table = changes.lines(FOUND), changes.markdown(FOUND).replace("\\", "")
    for said, change in JUDGED:
        subject = re.escape(str(escape(change.subject)))
        badge = said.lower().replace(" ", "-")
        head = rf'<th scope="row">{subject}<span class="sub">[a-z0-9 ]+</span></th>'
        assert re.search(rf'{head}<td><span class="badge {badge} ">', page)
        if said == "NOT COMPARED":
            continue
        line = next(each for each in text if each.startswith(f"{change.subject} "))
        assert f" {said} " in line
        assert _value(change) in line
        shown = (
            rf"{re.escape(change.subject)}(\*\*)? \| . {said} \|.*\| {re.escape(_value(change))} "
        )
        assert re.search(shown, table)
        assert re.search(rf'{subject}</th>\s*<td class="{said.lower()}">', own)
        assert f'<td class="number">{_value(change)}</td>' in own


def test_json_has_the_words() -> None:
    told = changes.as_json(FOUND)["changes"]
    assert isinstance(told, list)
    assert [each["word"] for each in told if isinstance(each, dict)] == [w for w, _ in JUDGED]


def test_every_report_of_a_run_says_how_much_changed(tmp_path: Path) -> None:
    sentence = outcome.sentence(FOUND)
    assert f"baseline: {sentence}" in terminal.lines(RUN)
    assert sentence in markdown.text(RUN).replace("\\", "")
    assert f'name="baseline" value="{sentence}"' in junit.text(RUN)
    assert sentence in report_of(tmp_path)


def test_the_summary_names_who_is_newly_broken() -> None:
    text = markdown.text(RUN).replace("\\", "")
    worse = [change for said, change in JUDGED if said == "WORSE"][: markdown.MOST_CHANGES]
    assert worse
    for change in worse:
        assert f"- newly broken, {change.subject}: {outcome.names(change.newly_broken)}" in text


def test_what_is_no_comparison_is_said_in_one_sentence() -> None:
    apart = dataclasses.replace(FOUND.changes[0], reason="data differ", p_value=None)
    nothing = dataclasses.replace(FOUND, changes=(apart,))
    assert outcome.sentence(nothing).endswith("nothing could be compared.")
