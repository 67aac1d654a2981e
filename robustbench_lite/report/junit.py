"""junit.xml: gates and cells as test cases, for the test page of a CI server.

Elements and attributes are those of the schema of Jenkins' xunit plug-in (junit-10.xsd), which
GitLab, Azure and GitHub's test reporters read as well. A gate that fails is a failure; one that
is inconclusive or invalid is an error, because it must not look like a pass or a skipped test.
Some viewers show no errors, and an invalid cell that no gate needs is an error here too: the exit
code stays the authority.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree as ET

from ..types import CLEAN, GateResult, Row, Where
from ..where import place_of, where_each, where_is
from .outcome import sentence
from .view import FinishedRun, summary_of, write_text
from .words import attack_name, budget, decided_by, gate_limits, gate_value, overall, rate_text

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REPLACEMENT = "\ufffd"
_BAD = {"FAIL": "failure", "INCONCLUSIVE": "error", "INVALID": "error"}
_NOT_OK = {"failed": "error", "timeout": "error", "invalid": "error", "skipped": "skipped"}


def write(run: FinishedRun) -> None:
    """Write junit.xml."""
    write_text(run.path / "junit.xml", text(run))


def text(run: FinishedRun) -> str:
    """The run as JUnit XML: a suite of tests per gate, then one per model with its cells."""
    root = ET.Element("testsuites", name=_legal(f"robeval {run.plan.suite}"))
    root.extend([*_gates(run), *_cells(run)])
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    root.set("time", _time(sum(float(suite.get("time", "0")) for suite in root)))
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _legal(value: str) -> str:
    """A text without the characters that XML 1.0 cannot hold, lone surrogates among them."""
    return _ILLEGAL.sub(_REPLACEMENT, value)


def _time(seconds: float) -> str:
    return f"{seconds:.3f}"


# ---------------------------------------------------------------- gates


def _gates(run: FinishedRun) -> Iterator[ET.Element]:
    groups: dict[str, list[GateResult]] = {}
    for result in run.verdict.gates if run.verdict else ():
        groups.setdefault(result.gate, []).append(result)
    for name, results in groups.items():
        first = results[0]
        facts = {"metric": first.metric, "wanted": first.threshold, "where": first.where}
        cases = [_gate_case(result) for result in results]
        yield _suite(run, f"gate {name}", facts, place_of(first.where), cases)


def _gate_case(result: GateResult) -> ET.Element:
    name = f"{result.metric}: {result.subject}" if result.subject else result.metric
    case = _case(f"gates.{result.gate}", name, place_of(result.where), 0.0)
    told = [f"{result.status}: {decided_by(result)}", f"wanted {result.threshold}, n {result.n:,}"]
    if result.value is not None:
        told.insert(1, f"value {gate_value(result)}, limits {gate_limits(result)}")
    if result.status in _BAD:
        kind = _BAD[result.status]
        message = f"{result.status}: {decided_by(result)}"
        _problem(case, kind, message, result.status.lower(), "\n".join([*told, result.where]))
    else:
        ET.SubElement(case, "system-out").text = _legal("\n".join(told))
    return case


# ---------------------------------------------------------------- cells


def _cells(run: FinishedRun) -> Iterator[ET.Element]:
    places, nowhere = where_each(run), where_is(run)
    groups: dict[str, list[Row]] = {}
    for row in summary_of(run).rows:
        if not row.members:  # a worst case is no cell
            groups.setdefault(row.model, []).append(row)
    for model, rows in groups.items():
        part = run.plan.models.get(model)
        facts = {f"sha256 of {name}": value for name, value in (part.files if part else {}).items()}
        cases = [_cell_case(row, places.get(row.cell_id, nowhere)) for row in rows]
        yield _suite(run, f"cells of {model}", facts, nowhere, cases)


def _cell_case(row: Row, where: Where) -> ET.Element:
    spent = "" if row.attack == CLEAN else f" {budget(row)}"
    name = f"{attack_name(row)}{spent} on {row.dataset}"
    case = _case(f"cells.{row.model}", name, where, row.seconds)
    if row.status in _NOT_OK:
        message = f"{row.status}: {row.reason}"
        _problem(case, _NOT_OK[row.status], message, row.status, f"{message}\n{row.cell_id}")
    else:
        told = f"robust accuracy {rate_text(row.robust_accuracy)}"
        ET.SubElement(case, "system-out").text = _legal(f"{told}\n{row.cell_id}")
    return case


# ---------------------------------------------------------------- elements


def _suite(
    run: FinishedRun,
    name: str,
    facts: Mapping[str, str],
    where: Where,
    cases: Sequence[ET.Element],
) -> ET.Element:
    kinds = [each.tag for case in cases for each in case]
    suite = ET.Element(
        "testsuite",
        name=_legal(name),
        tests=str(len(cases)),
        failures=str(kinds.count("failure")),
        errors=str(kinds.count("error")),
        skipped=str(kinds.count("skipped")),
        time=_time(sum(float(case.get("time", "0")) for case in cases)),
    )
    if started := run.manifest.get("started"):
        suite.set("timestamp", _legal(str(started)))
    suite.set("file", _legal(where.file))
    properties = ET.SubElement(suite, "properties")
    everywhere = {"run": run.path.name, "verdict": overall(run.verdict)}
    if run.verdict:
        everywhere["exit_code"] = str(run.verdict.exit_code)
    if run.comparison:
        everywhere["baseline"] = sentence(run.comparison)
    for key, value in {**everywhere, **facts}.items():
        ET.SubElement(properties, "property", name=_legal(key), value=_legal(value))
    suite.extend(cases)
    return suite


def _case(group: str, name: str, where: Where, seconds: float) -> ET.Element:
    case = ET.Element("testcase", classname=_legal(group), name=_legal(name), time=_time(seconds))
    case.set("file", _legal(where.file))
    if where.line:
        case.set("line", str(where.line))
    return case


def _problem(case: ET.Element, tag: str, message: str, kind: str, body: str) -> None:
    problem = ET.SubElement(case, tag, type=kind, message=_legal(message))
    problem.text = _legal(body)
