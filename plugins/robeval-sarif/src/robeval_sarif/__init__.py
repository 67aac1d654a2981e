"""SARIF 2.1.0: gates that do not pass and findings, each at its line of the suite.

Static Analysis Results Interchange Format, OASIS standard, version 2.1.0 with errata 01.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from robustbench_lite import (
    FINDINGS,
    ReporterSpec,
    Where,
    __version__,
    hookimpl,
    place_of,
    where_is,
)

if TYPE_CHECKING:
    from robustbench_lite import Finding, GateResult, StoredRun

FILE = "report.sarif"
SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
MOST = 25_000  # results of a run that GitHub accepts; it shows the first 5,000
_LEVELS = ("error", "warning", "note")
_GATES = {
    "gate-fail": "A gate fails",
    "gate-invalid": "A gate has no valid number",
    "gate-inconclusive": "A gate is undecided",
}
_HELP = {
    "gate-fail": "The limits of the measured number lie beyond the gate's bound, on complete"
    " evidence. Another run of the same suite gives the same: look at the broken samples in"
    " report.html.",
    "gate-invalid": "What the gate needs is missing, partial, skipped, failed or invalid. Read the"
    " reason and the error findings; nothing passes until there is a valid number.",
    "gate-inconclusive": "The evidence does not decide. Give the gate the samples or the attack"
    " that the message names, and run again: finished cells are kept.",
}

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One result: its rule, where it points, and what tells it apart from run to run."""

    rule: str
    level: str
    message: str
    where: Where
    same: tuple[str, ...]
    numbers: Mapping[str, Json] = field(default_factory=dict)
    waived: str = ""


def write(run: StoredRun) -> None:
    """Write report.sarif into the run directory."""
    aside = run.path / f".{FILE}.tmp"
    aside.write_text(text(run), encoding="utf-8")
    aside.replace(run.path / FILE)


def text(run: StoredRun) -> str:
    """The document as JSON; a lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
    whole = json.dumps(document(run), indent=2, ensure_ascii=False, allow_nan=False)
    return whole.encode("utf-8", "replace").decode("utf-8") + "\n"


def document(run: StoredRun) -> dict[str, Json]:
    """The SARIF log of a run, the gravest results first."""
    found = sorted([*_gates(run), *_findings(run)], key=lambda each: _LEVELS.index(each.level))
    rules = list(dict.fromkeys(result.rule for result in found))
    code = run.verdict.exit_code if run.verdict else 0
    driver: dict[str, Json] = {
        "name": "robeval",
        "semanticVersion": __version__,
        "rules": [_rule(rule, found) for rule in rules],
    }
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "automationDetails": {"id": f"robeval/{run.plan.suite}/{run.path.name}"},
                "invocations": [_invocation(run, code)],
                "columnKind": "unicodeCodePoints",
                "results": [_result(each, rules) for each in found[:MOST]],
            }
        ],
    }


# ---------------------------------------------------------------- what is told


def _gates(run: StoredRun) -> Iterator[Result]:
    gates: Sequence[GateResult] = run.verdict.gates if run.verdict else ()
    for gate in gates:
        if gate.status == "PASS":
            continue
        about = f"{gate.metric.replace('_', ' ')}{f' of {gate.subject}' if gate.subject else ''}"
        value = "" if gate.value is None else f" is {_said(gate, gate.value)}"
        more = "" if gate.needed is None else f"; about {gate.needed:,} samples would decide"
        where = place_of(gate.where)
        yield Result(
            rule=f"gate-{gate.status.lower()}",
            level="error",
            message=f"Gate '{gate.gate}': {about}{value}, wanted {gate.threshold}:"
            f" {gate.reason}{more}.",
            where=where if where.line else where_is(run),
            same=(gate.gate, gate.subject),
            numbers={
                "metric": gate.metric,
                "value": gate.value,
                "low": gate.low,
                "high": gate.high,
                "n": gate.n,
                "wanted": gate.threshold,
            },
        )


def _said(gate: GateResult, value: float) -> str:
    """A distance has the data's unit, a difference from a baseline is in points."""
    if "distance" in gate.metric:
        return f"{value:.4g}"
    if "baseline" in gate.threshold:
        return f"{100 * value:+.1f} points"
    return f"{100 * value:.1f} %"


def _findings(run: StoredRun) -> Iterator[Result]:
    findings: Sequence[Finding] = run.summary.findings if run.summary else ()
    for finding in findings:
        yield Result(
            rule=finding.id,
            level=finding.severity,
            message=f"{finding.message}. To do: {finding.advice}.",
            where=where_is(run, finding.cells),
            same=(finding.id, finding.message),
            numbers={name: _finite(value) for name, value in finding.numbers.items()},
            waived=finding.waived,
        )


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


# ---------------------------------------------------------------- SARIF objects


def _rule(rule: str, results: Iterable[Result]) -> dict[str, Json]:
    level = next(each.level for each in results if each.rule == rule)
    if rule in _GATES:
        short, help_text = _GATES[rule], _HELP[rule]
    else:
        known = FINDINGS.get(rule)
        short = known.meaning if known else rule.replace("-", " ")
        help_text = (
            f"About the measurement, not about the model's robustness: {short}."
            " The message of each result says what to do."
        )
    return {
        "id": rule,
        "name": "".join(word.capitalize() for word in rule.split("-")),
        "shortDescription": {"text": f"{short[:1].upper()}{short[1:]}."},
        "help": {"text": help_text},
        "defaultConfiguration": {"level": level},
        "properties": {"tags": ["robustness", "gate" if rule in _GATES else "measurement"]},
    }


def _result(result: Result, rules: Sequence[str]) -> dict[str, Json]:
    place: dict[str, Json] = {
        "artifactLocation": _artifact(result.where.file),
        "region": {
            "startLine": max(result.where.line, 1),
            "startColumn": max(result.where.col, 1),
        },
    }
    same = "\x1f".join((result.rule, *result.same)).encode("utf-8", "replace")
    told: dict[str, Json] = {
        "ruleId": result.rule,
        "ruleIndex": rules.index(result.rule),
        "level": result.level,
        "message": {"text": result.message},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"robeval/v1": hashlib.sha256(same).hexdigest()},
        "properties": dict(result.numbers),
    }
    if result.waived:
        told["suppressions"] = [
            {"kind": "inSource", "status": "accepted", "justification": result.waived}
        ]
    return told


def _artifact(file: str) -> dict[str, Json]:
    """A path as a URI: relative to the checkout where it can be."""
    path = Path(file)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    if path.is_absolute():
        return {"uri": quote(f"file://{path.as_posix()}", safe="/:", errors="replace")}
    return {"uri": quote(path.as_posix(), errors="replace"), "uriBaseId": "%SRCROOT%"}


def _invocation(run: StoredRun, code: int) -> dict[str, Json]:
    told: dict[str, Json] = {"executionSuccessful": code in (0, 1, 6), "exitCode": code}
    for key, name in (("started", "startTimeUtc"), ("ended", "endTimeUtc")):
        when = run.manifest.get(key)
        if isinstance(when, str) and when.endswith("+00:00"):
            told[name] = f"{when.removesuffix('+00:00')}Z"
    return told


@hookimpl
def robeval_reporters() -> Iterable[ReporterSpec]:
    """The reporter of this distribution: sarif."""
    return [
        ReporterSpec(
            name="sarif",
            implementation=write,
            summary="gates and findings at the lines of the suite, for code scanning",
            files=(FILE,),
        )
    ]
