"""What a step of GitHub Actions prints: annotations at lines of the suite (workflow commands).

GitHub shows about ten annotations of a kind per step, so the gravest come first and the last one
says how many are left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import RobevalError, SuiteError
from ..types import Where
from ..where import place_of, where_is
from .view import FinishedRun, summary_of
from .words import decided_by, gate_value, plain, told

MOST = 10  # annotations of one kind that GitHub shows for a step
_LONGEST = 4_000  # characters of one message
_GRAVEST = ("FAIL", "INVALID", "INCONCLUSIVE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """A message at a place of the suite; line and column are 0 where it has none."""

    kind: Literal["error", "warning"]
    title: str
    message: str
    where: Where


def lines(run: FinishedRun, root: Path) -> list[str]:
    """The annotations of a run as workflow commands; paths are written relative to `root`."""
    found = [*_gates(run), *_findings(run)]
    if run.verdict and run.verdict.exit_code and not any(a.kind == "error" for a in found):
        title = f"robeval: exit {run.verdict.exit_code}"
        found.append(
            Annotation(kind="error", title=title, message=run.verdict.sentence, where=where_is(run))
        )
    return commands(found, root)


def of_problem(problem: RobevalError, suite: Path, root: Path) -> list[str]:
    """What kept a run from starting: every problem of a suite at its line, or the one sentence."""
    told = problem.problems if isinstance(problem, SuiteError) else (str(problem),)
    title = f"robeval: exit {problem.exit_code}"
    found: list[Annotation] = []
    for text in told:
        place, marked, message = text.partition(": error: ")
        where = place_of(place) if marked and "\n" not in place else Where(str(suite), 0, 0)
        text = message if marked and "\n" not in place else text
        found.append(Annotation(kind="error", title=title, message=text, where=where))
    return commands(found, root)


def commands(annotations: Sequence[Annotation], root: Path) -> list[str]:
    """At most ten of each kind, errors first; the tenth tells of those that are left."""
    written: list[str] = []
    kinds: tuple[Literal["error", "warning"], ...] = ("error", "warning")
    for kind in kinds:
        found = [each for each in annotations if each.kind == kind]
        left = len(found) - MOST + 1
        if left > 1:
            message = f"{left} more {kind}s are in the summary and in report.html"
            rest = Annotation(kind=kind, title="robeval", message=message, where=found[0].where)
            found = [*found[: MOST - 1], rest]
        written += [command(each, root) for each in found]
    return written


def command(annotation: Annotation, root: Path) -> str:
    """`::error file=suites/a.yaml,line=3,col=5,title=...::message`, escaped as GitHub reads it."""
    where = annotation.where
    properties = {"file": relative(where.file, root)}
    if where.line:
        properties |= {"line": str(where.line), "col": str(max(where.col, 1))}
    properties["title"] = annotation.title
    written = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{annotation.kind} {written}::{_message(annotation.message[:_LONGEST])}"


def relative(file: str, root: Path) -> str:
    """A path below `root` (the checkout) as GitHub wants it; any other is left as it is."""
    path = os.path.relpath(os.path.abspath(file), os.path.abspath(root))  # noqa: PTH100  (links stay)
    return file if path.startswith("..") else Path(path).as_posix()


def _message(text: str) -> str:
    """Lines are kept as %0A; other control characters are dropped."""
    safe = "\n".join(plain(line) for line in text.splitlines())
    return safe.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def _gates(run: FinishedRun) -> Iterator[Annotation]:
    gates = run.verdict.gates if run.verdict else ()
    bad = [gate for gate in gates if gate.status in _GRAVEST]
    for gate in sorted(bad, key=lambda gate: _GRAVEST.index(gate.status)):
        subject = f" of {gate.subject}" if gate.subject else ""
        value = "" if gate.value is None else f" is {gate_value(gate)}, wanted {gate.threshold}"
        yield Annotation(
            kind="error",
            title=f"robeval: gate {gate.gate} {gate.status}",
            message=f"{gate.metric.replace('_', ' ')}{subject}{value}: {decided_by(gate)}",
            where=place_of(gate.where),
        )


def _findings(run: FinishedRun) -> Iterator[Annotation]:
    for finding in summary_of(run).findings:
        if finding.severity == "note":
            continue
        yield Annotation(
            kind="error" if finding.severity == "error" and not finding.waived else "warning",
            title=f"robeval: finding {finding.id}",
            message=f"{told(finding)}\nTo do: {finding.advice}",
            where=where_is(run, finding.cells),
        )
