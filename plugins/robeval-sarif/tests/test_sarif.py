"""SARIF 2.1.0: the structure that the standard asks for, lines that exist, any name at all."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest

import robeval_sarif
from robeval_sarif import FILE, document, robeval_reporters, text, write
from robustbench_lite import Cell, Finding, GateResult, Plan, StoredRun, Summary, Verdict

HOSTILE = "a\x00]]>\"'<script>\ud800\U0001f600\r\n%20 #?"
SUITE = """\
schema: 1
models:
  net: {load: onnx, path: net.onnx}
attacks:
  fgsm: {attack: fgsm, eps: 0.1}
gates:
  floor: {metric: robust_accuracy, min: 0.9}
"""


def closed(required: tuple[str, ...], **properties: object) -> dict[str, object]:
    """An object that has what is required and nothing that the standard does not know."""
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


TEXT = closed(("text",), text={"type": "string", "minLength": 1})
LEVEL = {"enum": ["none", "note", "warning", "error"]}
TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"}
BAG = {"type": "object", "properties": {"tags": {"type": "array", "uniqueItems": True}}}
RULE = closed(
    ("id", "shortDescription", "help"),
    id={"type": "string"},
    name={"type": "string"},
    shortDescription=TEXT,
    help=TEXT,
    defaultConfiguration=closed((), level=LEVEL),
    properties=BAG,
)
POSITIVE = {"type": "integer", "minimum": 1}
PLACE = closed(
    ("artifactLocation", "region"),
    artifactLocation=closed(
        ("uri",),
        uri={"type": "string", "pattern": r"^[A-Za-z0-9._~%/:+-]+$"},
        uriBaseId={"type": "string"},
    ),
    region=closed(("startLine",), startLine=POSITIVE, startColumn=POSITIVE),
)
RESULT = closed(
    ("ruleId", "ruleIndex", "level", "message", "locations", "partialFingerprints"),
    ruleId={"type": "string"},
    ruleIndex={"type": "integer", "minimum": 0},
    level=LEVEL,
    message=TEXT,
    locations={
        "type": "array",
        "minItems": 1,
        "items": closed(("physicalLocation",), physicalLocation=PLACE),
    },
    partialFingerprints={"type": "object", "additionalProperties": {"type": "string"}},
    properties=BAG,
    suppressions={
        "type": "array",
        "items": closed(
            ("kind",),
            kind={"enum": ["inSource", "external"]},
            status={"enum": ["accepted", "underReview", "rejected"]},
            justification={"type": "string"},
        ),
    },
)
DRIVER = closed(
    ("name",),
    name={"type": "string"},
    semanticVersion={"type": "string"},
    rules={"type": "array", "uniqueItems": True, "items": RULE},
)
RUN = closed(
    ("tool", "results"),
    tool=closed(("driver",), driver=DRIVER),
    automationDetails=closed((), id={"type": "string"}),
    invocations={
        "type": "array",
        "items": closed(
            ("executionSuccessful",),
            executionSuccessful={"type": "boolean"},
            exitCode={"type": "integer"},
            startTimeUtc=TIME,
            endTimeUtc=TIME,
        ),
    },
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
    results={"type": "array", "items": RESULT},
)
STRUCTURE = closed(
    ("version", "runs"),
    **{"$schema": {"type": "string"}},
    version={"const": "2.1.0"},
    runs={"type": "array", "minItems": 1, "items": RUN},
)


def checked(written: str) -> Any:
    """The one run of a document that has the structure and whose results name their rules."""
    whole = json.loads(written)
    jsonschema.Draft202012Validator(STRUCTURE).validate(whole)
    (run,) = whole["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    assert {result["ruleId"] for result in run["results"]} == {rule["id"] for rule in rules}
    return run


CELL = Cell(
    id="c1",
    model="net",
    dataset="test",
    entry="fgsm",
    attack="fgsm",
    source="net",
    role="attack",
    kind="fixed-budget",
    effort="single-step",
    norm="linf",
    eps=None,
    target=None,
    repeats=1,
    params={},
    carried=(),
    implicit=False,
    skip=None,
    cost=None,
)
GATE = GateResult(
    gate="floor",
    status="FAIL",
    metric="robust_accuracy",
    threshold=">= 0.9",
    subject="net on test, fgsm linf 0.1",
    cell_id="c1",
    value=0.5,
    low=0.4,
    high=0.6,
    n=100,
    reason="at most 60.00 %, below the floor of 90 %",
    needed=None,
    where="suites/a.yaml:7:3",
)
FINDING = Finding(
    id="weaker-than-control",
    severity="warning",
    message="fgsm is odd",
    advice="look",
    cells=("c1",),
    numbers={"share": 0.25, "bad": float("nan")},
)


def stored(
    path: Path,
    *gates: GateResult,
    findings: tuple[Finding, ...] = (),
    code: int = 1,
    manifest: Mapping[str, str] | None = None,
) -> StoredRun:
    times = {"started": "2026-11-21T10:15:30+00:00", "ended": "2026-11-21T10:16:00+00:00"}
    return StoredRun(
        path=path,
        manifest=manifest or {"suite_folder": "suites", "suite_file": "a.yaml", **times},
        plan=Plan(suite="release", seed=0, models={}, datasets={}, cells=(CELL,)),
        suite_text=SUITE,
        results={},
        summary=Summary(rows=(), findings=findings, partial=False),
        verdict=Verdict(gates=gates, exit_code=code, sentence="s"),
    )


def test_gates_that_do_not_pass_and_findings_are_results(tmp_path: Path) -> None:
    statuses: list[Literal["PASS", "FAIL", "INCONCLUSIVE", "INVALID"]]
    statuses = ["PASS", "FAIL", "INCONCLUSIVE", "INVALID"]
    gates = [dataclasses.replace(GATE, status=status) for status in statuses]
    note = dataclasses.replace(FINDING, severity="note", id="made-up-rule", cells=())
    write(stored(tmp_path, *gates, findings=(note, FINDING)))
    run = checked((tmp_path / FILE).read_text(encoding="utf-8"))
    assert [(result["ruleId"], result["level"]) for result in run["results"]] == [
        ("gate-fail", "error"),
        ("gate-inconclusive", "error"),
        ("gate-invalid", "error"),
        ("weaker-than-control", "warning"),
        ("made-up-rule", "note"),
    ]
    first = run["results"][0]
    assert first["message"]["text"] == (
        "Gate 'floor': robust accuracy of net on test, fgsm linf 0.1 is 50.0 %, wanted >= 0.9:"
        " at most 60.00 %, below the floor of 90 %."
    )
    assert first["properties"]["value"] == 0.5
    assert run["results"][3]["properties"] == {"share": 0.25, "bad": None}
    assert run["invocations"] == [
        {
            "executionSuccessful": True,
            "exitCode": 1,
            "startTimeUtc": "2026-11-21T10:15:30Z",
            "endTimeUtc": "2026-11-21T10:16:00Z",
        }
    ]


def test_results_point_at_their_line_of_the_suite(tmp_path: Path) -> None:
    override = dataclasses.replace(GATE, where="--set gates.floor.min=0.9:0:0")
    run = checked(text(stored(tmp_path, GATE, override, findings=(FINDING,))))
    places = [result["locations"][0]["physicalLocation"] for result in run["results"]]
    assert {place["artifactLocation"]["uri"] for place in places} == {"suites/a.yaml"}
    lines = [place["region"]["startLine"] for place in places]
    assert lines == [7, 1, 5]
    assert SUITE.splitlines()[lines[0] - 1].strip().startswith("floor:")
    assert SUITE.splitlines()[lines[2] - 1].strip().startswith("fgsm:")


def test_paths_become_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def uri(file: str) -> tuple[str, str | None]:
        gate = dataclasses.replace(GATE, where=f"{file}:7:3")
        result = checked(text(stored(tmp_path, gate)))["results"][0]
        location = result["locations"][0]["physicalLocation"]["artifactLocation"]
        return location["uri"], location.get("uriBaseId")

    assert uri(str(tmp_path / "my suites" / "a#1.yaml")) == ("my%20suites/a%231.yaml", "%SRCROOT%")
    assert uri("/else where/a.yaml") == ("file:///else%20where/a.yaml", None)
    assert uri("../a.yaml") == ("../a.yaml", "%SRCROOT%")


def test_the_same_result_keeps_its_fingerprint_and_no_two_share_one(tmp_path: Path) -> None:
    other = dataclasses.replace(GATE, subject="other")
    moved = dataclasses.replace(GATE, where="suites/a.yaml:9:3", value=0.51)

    def prints(*gates: GateResult) -> list[str]:
        results = checked(text(stored(tmp_path, *gates, findings=(FINDING,))))["results"]
        return [result["partialFingerprints"]["robeval/v1"] for result in results]

    one, two, three = prints(GATE, other)
    assert len({one, two, three}) == 3
    assert prints(moved) == [one, three]


def test_a_waived_finding_is_suppressed_with_its_reason(tmp_path: Path) -> None:
    waived = dataclasses.replace(FINDING, severity="error", waived="waived by Ada: known")
    (result,) = checked(text(stored(tmp_path, findings=(waived,), code=0)))["results"]
    assert result["suppressions"] == [
        {"kind": "inSource", "status": "accepted", "justification": "waived by Ada: known"}
    ]


def test_no_name_breaks_the_document(tmp_path: Path) -> None:
    gate = dataclasses.replace(
        GATE, gate=HOSTILE, subject=HOSTILE, reason=HOSTILE, where=f"{HOSTILE}:3:1"
    )
    finding = dataclasses.replace(FINDING, id=HOSTILE, message=HOSTILE, advice=HOSTILE)
    run = stored(tmp_path, gate, findings=(finding,), manifest={"suite_file": HOSTILE})
    write(run)
    checked((tmp_path / FILE).read_bytes().decode("utf-8"))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_clean_run_has_no_results(tmp_path: Path) -> None:
    run = checked(text(stored(tmp_path, dataclasses.replace(GATE, status="PASS"), code=0)))
    assert run["results"] == []
    unjudged = dataclasses.replace(stored(tmp_path), summary=None, verdict=None)
    assert document(unjudged)["runs"]


def test_a_suite_names_it_and_the_command_line_writes_it(tmp_path: Path) -> None:
    """Through the entry point, in a process of its own."""
    site, work = tmp_path / "site", tmp_path / "work"
    shutil.copytree(Path(robeval_sarif.__file__).parent, site / "robeval_sarif")
    info = site / "robeval_sarif-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: robeval-sarif\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[robeval]\nsarif = robeval_sarif\n")
    work.mkdir()
    suite = (
        SUITE.replace("path: net.onnx", 'path: "pkg://robustbench_lite/embedded/mnist_cnn.onnx"')
        .replace("attacks:", "datasets:\n  test: {load: mnist-sample, take: 20}\nattacks:")
        .replace("eps: 0.1", "eps: 0.3")
    )
    (work / "suite.yaml").write_text(f"{suite}reports: [sarif]\n")
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ROBEVAL_")}
    ended = subprocess.run(
        [sys.executable, "-m", "robustbench_lite", "run", "suite.yaml", "-o", "out", "-q"],
        cwd=work,
        env={**kept, "PYTHONPATH": path, "ROBEVAL_THREADS": "1"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    run = checked((work / "out" / FILE).read_text(encoding="utf-8"))
    assert run["invocations"][0]["exitCode"] == 1
    first = run["results"][0]["locations"][0]["physicalLocation"]
    assert first["artifactLocation"]["uri"] == "suite.yaml"
    line = (work / "suite.yaml").read_text().splitlines()[first["region"]["startLine"] - 1]
    assert line.strip().startswith("floor:")


def test_the_spec_names_its_file() -> None:
    (spec,) = robeval_reporters()
    assert (spec.name, spec.files, spec.implementation) == ("sarif", (FILE,), write)
