"""summary.md: verdict, gates, table, findings, for a pull request or a CI summary page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..types import CLEAN, WORST_CASE, Finding, GateResult, Row, Summary
from .view import FinishedRun, summary_of, write_text
from .words import (
    SIGNS,
    attack_name,
    budget,
    decided_by,
    gate_limits,
    gate_value,
    overall,
    percent,
    plain,
    rate_text,
    told,
)

MOST_ROWS = 300  # a CI summary page is cut at 1 MiB
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$@:>])")


def write(run: FinishedRun) -> None:
    """Write summary.md."""
    write_text(run.path / "summary.md", text(run))


def text(run: FinishedRun) -> str:
    """The summary of a run as Markdown; every name is escaped."""
    summary = summary_of(run)
    word = overall(run.verdict)
    sentence = run.verdict.sentence if run.verdict else "This run was not judged."
    files = "`report.html`, `tables/cells.csv`, `tables/metrics.csv`, `tables/samples.parquet`"
    parts = [
        f"# {SIGNS[word]} {word}: {escaped(run.plan.suite)}",
        escaped(sentence),
        *_gates(run.verdict.gates if run.verdict else ()),
        *_cells(summary),
        *_findings(summary.findings),
        f"Run: {_code(run.path.name)} &middot; files: {files}, `manifest.json`",
    ]
    return "\n\n".join(parts) + "\n"


def escaped(name: str) -> str:
    """A name as Markdown text on one line: no markup, no HTML, no mention, no table bar."""
    line = plain(name).replace("&", "&amp;").replace("<", "&lt;")
    return _SPECIAL.sub(r"\\\1", line)


def _code(name: str) -> str:
    return f"`{plain(name).replace('`', '')}`"


def _table(head: Sequence[str], rows: Iterator[Sequence[str]], right: set[int]) -> str:
    rule = ["---:" if at in right else "---" for at in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


def _gates(results: Sequence[GateResult]) -> list[str]:
    if not results:
        return []
    head = ("", "gate", "on", "value", "limits", "wanted", "n", "why")
    return ["## Gates", _table(head, map(_gate_line, results), {3, 4, 6})]


def _gate_line(result: GateResult) -> Sequence[str]:
    return (
        f"{SIGNS[result.status]} {result.status}",
        escaped(result.gate),
        escaped(f"{result.metric}: {result.subject}" if result.subject else result.metric),
        gate_value(result),
        gate_limits(result),
        escaped(result.threshold),
        f"{result.n:,}",
        escaped(decided_by(result)),
    )


def _cells(summary: Summary) -> list[str]:
    rows = list(summary.rows)
    note = (
        "Robust accuracy is what is correct and unbroken, of all samples, with its 95 % interval."
        " Under an attack it is an upper bound: a stronger attack can only lower it."
    )
    if len(rows) > MOST_ROWS:
        kept = [row for row in rows if row.attack in (CLEAN, WORST_CASE) or row.status != "ok"]
        kept = kept[:MOST_ROWS]
        note += f" {len(rows) - len(kept):,} more rows are in `tables/cells.csv`."
        rows = kept
    head = ("model", "dataset", "attack", "eps", "robust accuracy", "broken of correct")
    return ["## Results", _table(head, map(_cell_line, rows), {4, 5}), note]


def _cell_line(row: Row) -> Sequence[str]:
    strong = "**" if row.attack == WORST_CASE and row.status == "ok" else ""
    robust = rate_text(row.robust_accuracy)
    broken = row.attack_success_rate
    return (
        escaped(row.model),
        escaped(row.dataset),
        escaped(attack_name(row)),
        escaped(budget(row)),
        f"{strong}{robust}{strong}"
        if row.status == "ok"
        else f"{row.status}: {escaped(row.reason)}",
        percent(broken.value if broken else None),
    )


def _findings(findings: Sequence[Finding]) -> list[str]:
    if not findings:
        return []
    items = [
        f"- **{finding.severity}** {escaped(told(finding))}. To do: {escaped(finding.advice)}."
        for finding in findings
    ]
    return ["## Findings", "\n".join(items)]
