"""What is printed: plain aligned lines for a pipe, tables for a terminal, never markup of a name."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from robustbench_lite.report import terminal
from robustbench_lite.report.words import (
    NOTHING,
    count,
    interval,
    number,
    percent,
    plain,
    seconds,
)
from robustbench_lite.types import Finding
from tests.finished_run import FakeRun, cell, eps, rule, world

HOSTILE = "[bold red]x[/]\x1b[31m\r\n\u202ey"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return world(
        tmp_path_factory.mktemp("runs") / "suite",
        n=100,
        gates=[rule("worst", "worst_case_robust_accuracy", minimum=0.75, eps=eps("0.1"))],
        skipped=[cell("apgd", "0.1", model="robust", norm="l2", skip="needs gradients")],
        findings=[Finding(id="f", severity="warning", message="odd", advice="look", cells=())],
    )


def shown(run: FakeRun, *, tty: bool) -> str:
    stream = io.StringIO()
    terminal.render(run, Console(file=stream, width=200, force_terminal=tty))
    return stream.getvalue()


def test_plain_lines_are_aligned_ascii_and_whole(run: FakeRun) -> None:
    text = shown(run, tty=False)
    assert text == "\n".join(terminal.lines(run)) + "\n"
    assert text.isascii()
    assert "\x1b" not in text
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("model "))
    table = [line for line in lines if line.startswith(("robust  ", "undefended "))]
    assert run.summary is not None
    assert len(table) == len(run.summary.rows)
    end = head.index("robust accuracy") + len("robust accuracy")
    assert all(line[end - 1] in "]d" and line[end : end + 1] in ("", " ") for line in table)
    assert sum("skipped" in line for line in table) == 2


def test_both_forms_end_with_verdict_and_report(run: FakeRun) -> None:
    for tty in (False, True):
        lines = shown(run, tty=tty).splitlines()
        assert "FAIL" in lines[-3]
        assert "Gate 'worst' fails" in lines[-3]
        assert "(exit 1)" in lines[-3]
        assert lines[-2].startswith("next: ")
        assert str(run.path) in lines[-1]
    (run.path).mkdir(exist_ok=True)
    (run.path / "report.html").touch()
    assert terminal.lines(run)[-1].endswith("report.html")


def test_why_a_gate_does_not_pass_stands_below_the_table_with_its_line(tmp_path: Path) -> None:
    gates = [
        rule("passes", attack="fgsm", model="robust", eps=eps("8/255"), minimum=0.1),
        rule("open", attack="fgsm", model="robust", eps=eps("8/255"), minimum=0.97),
        rule("void", attack="nothing", minimum=0.5),
        rule("fails", attack="fgsm", model="undefended", eps=eps("0.3"), minimum=0.99),
    ]
    lines = terminal.lines(world(tmp_path / "x", n=100, gates=gates))
    why = [line for line in lines if line.endswith("(suite.yaml:12:3)")]
    assert [line.split(":")[0] for line in why] == ["FAIL", "INVALID", "INCONCLUSIVE"]
    assert [name in line for name, line in zip(("fails", "void", "open"), why, strict=True)] == [
        True,
        True,
        True,
    ]
    assert "samples would decide" in why[2]
    table = [line for line in lines if line.startswith(("open ", "void ", "fails ", "passes "))]
    assert len(table) == 4
    assert max(map(len, table)) < 120


@pytest.mark.parametrize(
    ("code", "step"),
    [
        (0, None),
        (1, "complete"),
        (4, "--resume --retry-errors"),
        (6, "what it asks for"),
        (7, "--retry-errors"),
        (8, "error findings above"),
    ],
)
def test_the_next_step_follows_from_the_exit_code(
    run: FakeRun, code: int, step: str | None
) -> None:
    assert run.verdict is not None
    judged = dataclasses.replace(run, verdict=dataclasses.replace(run.verdict, exit_code=code))
    for shown_lines in (terminal.lines(judged), shown(judged, tty=True).splitlines()):
        steps = [line for line in shown_lines if line.startswith("next: ")]
        assert len(steps) == (step is not None)
        assert step is None or step in steps[0]


def test_errors_of_the_measurement_come_before_warnings(tmp_path: Path) -> None:
    findings = [
        Finding(id=kind, severity=kind, message=f"about {kind}", advice=f"mend {kind}", cells=())
        for kind in ("note", "warning", "error")
    ]
    run = world(tmp_path / "x", n=10, findings=findings)
    for lines in (terminal.lines(run), shown(run, tty=True).splitlines()):
        plain_lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]
        said = [line.strip() for line in plain_lines if " about " in line or "mend" in line]
        assert said == [
            "error: about error",
            "help: mend error",
            "warning: about warning",
            "help: mend warning",
        ]


def test_a_terminal_gets_tables(run: FakeRun) -> None:
    text = shown(run, tty=True)
    assert "\x1b[" in text
    assert "worst-case" in text
    assert "odd" in text


def test_names_are_neither_markup_nor_escape_codes(tmp_path: Path) -> None:
    hostile = world(
        tmp_path / "x",
        n=10,
        models={HOSTILE: 0.2},
        gates=[rule(HOSTILE, minimum=0.9, eps=eps("0.3"))],
        findings=[Finding(id="f", severity="error", message=HOSTILE, advice="", cells=())],
    )
    for tty in (False, True):
        text = shown(hostile, tty=tty)
        assert "[bold red]x[/]" in text
        assert "\u202e" not in text
        assert "\r" not in text
        assert "\x1b[31m y" not in text
    assert "\x1b" not in shown(hostile, tty=False)


def test_many_rows_are_cut_to_what_matters(tmp_path: Path) -> None:
    large = world(tmp_path / "x", n=5, models={f"m{at}": 0.2 for at in range(10)})
    lines = terminal.lines(large)
    assert any("more rows in tables/cells.csv" in line for line in lines)
    assert not any("fgsm" in line for line in lines)
    assert sum("worst-case" in line for line in lines) == 50


def test_a_run_that_was_not_judged_says_so(run: FakeRun) -> None:
    assert "not judged" in terminal.lines(dataclasses.replace(run, verdict=None))[-2]


def test_words() -> None:
    assert [percent(value) for value in (0.0, 1.0, 0.885, 0.0001, 0.99999, None, float("nan"))] == [
        "0.0 %",
        "100.0 %",
        "88.5 %",
        "< 0.1 %",
        "> 99.9 %",
        NOTHING,
        NOTHING,
    ]
    assert interval(0.8641, 0.9034) == "86.4, 90.3"
    assert [number(value) for value in (0.12345, 1234.0, None)] == ["0.123", "1.23e+03", NOTHING]
    assert [count(value) for value in (1568.0, 2.5, None)] == ["1,568", "2.5", NOTHING]
    assert [seconds(value) for value in (0.44, 12.3, 185, 7440)] == [
        "0.4 s",
        "12 s",
        "3 min 5 s",
        "2 h 4 min",
    ]
    assert plain("a\x1b[1m\n\u202eb") == "a[1m b"
