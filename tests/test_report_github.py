"""Annotations and the summary page of GitHub Actions: escaped, few, and never over the limit."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustbench_lite import gate
from robustbench_lite.errors import EnvironmentProblem, SuiteError
from robustbench_lite.report import github, markdown
from robustbench_lite.types import Finding, Severity, Where
from tests.finished_run import FakeRun, cell, eps, rule, world

if TYPE_CHECKING:
    from tests.conftest import Robeval

HOSTILE = "50 %\r\n::stop-commands::x\n,file=b.py:1\x1b[31m\ud800"
COMMAND = re.compile(r"^::(error|warning) (.*?)::(.*)$")


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """A workflow command as GitHub's runner reads it: kind, properties, message."""
    found = COMMAND.fullmatch(line)
    assert found, line
    kind, properties, message = found.groups()

    def undone(text: str, *pairs: tuple[str, str]) -> str:
        for code, character in (*pairs, ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            text = text.replace(code, character)
        return text

    read = dict(each.split("=", 1) for each in properties.split(","))
    more = (("%3A", ":"), ("%2C", ","))
    return kind, {key: undone(value, *more) for key, value in read.items()}, undone(message)


def finding(severity: Severity, *cells: str, waived: str = "", text: str = "odd") -> Finding:
    return Finding(
        id=f"about-{severity}",
        severity=severity,
        message=text,
        advice="mend",
        cells=cells,
        waived=waived,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    gates = [
        rule("open", attack="fgsm", model="robust", eps=eps("8/255"), minimum=0.97),
        rule("passes", attack="fgsm", model="robust", eps=eps("8/255"), minimum=0.1),
        rule("void", attack="nothing", minimum=0.5),
        rule("fails", attack="fgsm", model="undefended", eps=eps("0.3"), minimum=0.99),
    ]
    touched = cell("pgd", "0.2", model="robust").id
    findings = [
        finding("note"),
        finding("warning", touched),
        finding("error", touched),
        finding("error", touched, waived="waived by Ada until 2030-01-01: known"),
    ]
    made = world(
        tmp_path_factory.mktemp("runs") / "suite",
        n=100,
        gates=gates,
        findings=findings,
        manifest={"suite_folder": "suites", "suite_file": "a.yaml"},
    )
    return dataclasses.replace(made, suite_text="attacks:\n  pgd: {attack: pgd}\n")


def test_every_gate_that_does_not_pass_is_an_error_at_its_line(run: FakeRun) -> None:
    read = [parsed(line) for line in github.lines(run, Path())]
    gates = [each for each in read if "gate" in each[1]["title"]]
    assert [properties["title"] for _, properties, _ in gates] == [
        "robeval: gate fails FAIL",
        "robeval: gate void INVALID",
        "robeval: gate open INCONCLUSIVE",
    ]
    for kind, properties, _ in gates:
        assert kind == "error"
        assert (properties["file"], properties["line"], properties["col"]) == (
            "suite.yaml",
            "12",
            "3",
        )
    assert "below the floor of 99 %" in gates[0][2]
    assert "wanted >= 0.99" in gates[0][2]


def test_findings_are_annotated_by_severity_at_the_attack_that_they_touch(run: FakeRun) -> None:
    read = [parsed(line) for line in github.lines(run, Path())]
    about = [each for each in read if "finding" in each[1]["title"]]
    assert [kind for kind, *_ in about] == ["error", "warning", "warning"]
    for _, properties, message in about:
        assert (properties["file"], properties["line"]) == ("suites/a.yaml", "2")
        assert message.endswith("\nTo do: mend")
    assert "waived by Ada" in about[2][2]


def test_an_exit_code_without_a_gate_still_has_an_error(run: FakeRun) -> None:
    assert run.verdict is not None
    verdict = dataclasses.replace(run.verdict, gates=(), exit_code=4, sentence="No verdict.")
    assert run.summary is not None
    quiet = dataclasses.replace(run.summary, findings=())
    (line,) = github.lines(dataclasses.replace(run, verdict=verdict, summary=quiet), Path())
    assert parsed(line) == (
        "error",
        {"file": "suites/a.yaml", "title": "robeval: exit 4"},
        "No verdict.",
    )
    passed = dataclasses.replace(verdict, exit_code=0)
    assert github.lines(dataclasses.replace(run, verdict=passed, summary=quiet), Path()) == []


def test_no_more_than_github_shows(tmp_path: Path) -> None:
    gates = [rule(f"g{at}", attack="nothing", minimum=0.5) for at in range(25)]
    findings = [finding("warning") for _ in range(10)]
    lines = github.lines(world(tmp_path / "x", n=5, gates=gates, findings=findings), Path())
    read = [parsed(line) for line in lines]
    assert [kind for kind, *_ in read] == ["error"] * 10 + ["warning"] * 10
    assert read[9][2].startswith("16 more errors")
    assert read[19][2].startswith("odd")


@given(
    title=st.text(min_size=1, max_size=30),
    message=st.text(max_size=60),
    file=st.text(min_size=1, max_size=20),
)
def test_any_text_stays_inside_its_command(title: str, message: str, file: str) -> None:
    annotation = github.Annotation(
        kind="warning", title=title, message=message, where=Where(file, 3, 0)
    )
    line = github.command(annotation, Path("/checkout"))
    assert len(line.splitlines()) == 1
    line.encode("utf-8")
    kind, properties, said = parsed(line)
    assert (kind, properties["line"], properties["col"]) == ("warning", "3", "1")
    assert properties.keys() == {"file", "line", "col", "title"}
    assert seen(said) == seen(message)
    assert seen(properties["title"]) == seen(title)


def seen(text: str) -> list[str]:
    return [each for each in text if each.isprintable() and not each.isspace()]


def test_paths_are_relative_to_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert github.relative("suites/a.yaml", tmp_path) == "suites/a.yaml"
    assert github.relative(str(tmp_path / "b" / "a.yaml"), tmp_path) == "b/a.yaml"
    assert github.relative("a.yaml", tmp_path.parent) == f"{tmp_path.name}/a.yaml"
    outside = str(tmp_path.parent / "a.yaml")
    assert github.relative(outside, tmp_path) == outside


def test_problems_of_a_suite_stand_at_their_lines() -> None:
    problem = SuiteError(
        [
            "suites/a.yaml:8:24: error: attacks.fgsm.norm: 'Linf' is not one\n  help: linf?",
            "nothing here",
        ]
    )
    first, second = (
        parsed(line) for line in github.of_problem(problem, Path("suites/a.yaml"), Path())
    )
    assert (first[1]["file"], first[1]["line"], first[1]["col"]) == ("suites/a.yaml", "8", "24")
    assert first[2] == "attacks.fgsm.norm: 'Linf' is not one\n  help: linf?"
    assert second[1] == {"file": "suites/a.yaml", "title": "robeval: exit 2"}
    (third,) = github.of_problem(EnvironmentProblem("no device"), Path("b.yaml"), Path())
    assert parsed(third) == ("error", {"file": "b.yaml", "title": "robeval: exit 7"}, "no device")


# ---------------------------------------------------------------- the page


GATES = 900


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    long = "\U0001f600" * 2000
    run = world(
        tmp_path_factory.mktemp("runs") / "large", n=3, models={f"m{at}": 0.2 for at in range(30)}
    )
    run = dataclasses.replace(run, plan=dataclasses.replace(run.plan, suite=long))
    assert run.summary is not None
    assert run.verdict is not None
    rows = tuple(dataclasses.replace(row, model=f"{row.model} {long}") for row in run.summary.rows)
    findings = tuple(finding("warning", text=f"{at} {long}") for at in range(600))
    one = gate.check([rule("g", attack="nothing", minimum=0.5)], run.summary)[0]
    gates = tuple(dataclasses.replace(one, gate=f"{at} {long}") for at in range(GATES))
    return dataclasses.replace(
        run,
        summary=dataclasses.replace(run.summary, rows=rows, findings=findings),
        verdict=dataclasses.replace(run.verdict, gates=gates, sentence=long),
    )


@pytest.mark.parametrize("most", [markdown.PAGE, 60_000, 9_000, 200, 10, 0, -5])
def test_the_page_fits_whatever_is_in_it(large: FakeRun, most: int) -> None:
    text = markdown.text(large, most)
    assert len(text.encode()) < max(most, 1)
    if most >= 9_000:
        assert text.startswith("# ")
        assert len(text.encode()) > 0.3 * most
    if most == markdown.PAGE:
        for name in ("gates.json", "tables/cells.csv", "findings.json"):
            assert re.search(rf"\d more (lines |rows )?are in `{name}`", text), name
        left = int(re.findall(r"([\d,]+) more lines are", text)[0].replace(",", ""))
        assert left > 0
        assert text.count("\n| ! INVALID |") + left == GATES


def test_the_page_is_text_whatever_the_names_are(tmp_path: Path) -> None:
    run = world(tmp_path / "run", n=5, models={HOSTILE: 0.2}, gates=[rule(HOSTILE, minimum=0.9)])
    text = markdown.text(run)
    text.encode("utf-8")
    assert "\x1b" not in text
    assert not any(line.startswith("::") for line in text.splitlines())


# ---------------------------------------------------------------- the command line

SUITE = """\
reports: [junit]
controls: off
attacks:
  fgsm: {attack: fgsm, norm: linf, eps: 0.1}
gates:
  high: {metric: clean_accuracy, min: 0.999, confidence: 0.9}
"""


def test_the_flag_annotates_and_appends(
    robeval: Robeval,
    write_suite: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = tmp_path / "page.md"
    page.write_text("from an earlier command\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    path = write_suite(SUITE)
    ended = robeval("run", str(path), "-o", "out", "-q", "--github")
    assert ended.code == 1, ended.err
    lines = ended.out.splitlines()
    (stop,) = [at for at, line in enumerate(lines) if line.startswith("::stop-commands::")]
    token = lines[stop].removeprefix("::stop-commands::")
    assert len(token) == 32
    start = lines.index(f"::{token}::")
    assert any(line.startswith("verdict: FAIL") for line in lines[stop:start])
    commands = [line for line in lines if COMMAND.match(line)]
    assert lines.index(commands[0]) > start
    kind, properties, _ = parsed(commands[0])
    assert (kind, properties["file"]) == ("error", "suite.yaml")
    row = path.read_text().splitlines()[int(properties["line"]) - 1]
    assert row[int(properties["col"]) - 1 :].startswith("high:")
    first = page.read_text(encoding="utf-8")
    assert first.startswith("from an earlier command\n# ✕ FAIL")

    ended = robeval("gate", "out", "--json", "--github")
    assert json.loads(ended.out)["exit_code"] == ended.code == 1
    assert COMMAND.match(ended.err.splitlines()[0])
    assert page.read_text(encoding="utf-8").count("# ✕ FAIL") == 2

    page.write_text("x" * (markdown.PAGE - 40))
    (tmp_path / "out" / "junit.xml").unlink()
    ended = robeval("report", "out", "-f", "junit", "-f", "model-card", "--github")
    assert ended.code == 0
    for name in ("junit.xml", "model-card.yaml", "model-cards/linear.md"):
        assert (tmp_path / "out" / name).is_file()
    assert COMMAND.match(ended.out.splitlines()[-1])
    assert page.stat().st_size == markdown.PAGE - 40


def test_a_page_that_cannot_be_written_does_not_change_the_verdict(
    robeval: Robeval,
    write_suite: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    ended = robeval("run", str(write_suite(SUITE)), "-o", "out", "-q", "--github")
    assert ended.code == 1
    assert f"cannot append the summary to '{tmp_path}'" in ended.err


def test_without_the_variable_it_says_so_and_goes_on(
    robeval: Robeval, write_suite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    ended = robeval("run", str(write_suite(SUITE)), "-o", "out", "-q", "--github")
    assert ended.code == 1
    assert "GITHUB_STEP_SUMMARY is not set" in ended.err
    plain = robeval("gate", "out")
    assert "::" not in plain.out


def test_a_suite_that_cannot_run_is_annotated_too(
    robeval: Robeval, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_suite(SUITE.replace("norm: linf", "norm: Linf"))
    ended = robeval("run", str(path), "--github")
    assert ended.code == 2
    kind, properties, message = parsed(ended.out.splitlines()[0])
    assert (kind, properties["file"], properties["line"]) == ("error", "suite.yaml", "11")
    assert "'Linf'" in message
    assert "'Linf'" in ended.err
    ended = robeval("run", str(path), "--github", "--json")
    assert ended.out == ""
    assert parsed(ended.err.splitlines()[0])[0] == "error"
