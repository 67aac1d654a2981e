"""summary.md: verdict, gates, table, findings, for a pull request or a CI summary page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..types import CLEAN, WORST_CASE, Change, Comparison, Finding, GateResult, Row, Summary
from .outcome import HEAD, RIGHT, SURE, cells, gravest, names, sentence
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

PAGE = 1024 * 1024  # bytes; of a longer summary GitHub shows nothing at all
MOST_ROWS = 300
MOST_CHANGES = 20  # lines of the comparison with a baseline
_MARGIN = 4096  # for headings and notes
_SHARES = {"gates": 0.35, "changes": 0.1, "results": 0.3, "findings": 0.25}  # of the page
_GRAVEST = ("FAIL", "INVALID", "INCONCLUSIVE", "PASS")
_LONGEST = 600  # characters of a name or reason
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$@:>]|(?<=www)\.)")


def write(run: FinishedRun) -> None:
    """Write summary.md."""
    write_text(run.path / "summary.md", text(run))


def append(run: FinishedRun, page: Path) -> None:
    """Append the summary to a page that may hold more already, in all less than GitHub shows."""
    room = PAGE - (page.stat().st_size if page.is_file() else 0)
    with page.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(text(run, room))


def text(run: FinishedRun, most: int = PAGE) -> str:
    """The summary of a run as Markdown of less than `most` bytes; every name is escaped.

    What does not fit is cut line by line, the least important last, and a note says how much.
    """
    summary = summary_of(run)
    word = overall(run.verdict)
    sentence = run.verdict.sentence if run.verdict else "This run was not judged."
    files = "`report.html`, `tables/cells.csv`, `tables/metrics.csv`, `tables/samples.parquet`"
    room = {name: int(share * (most - _MARGIN)) for name, share in _SHARES.items()}
    parts = [
        f"# {SIGNS[word]} {word}: {escaped(run.plan.suite)}",
        escaped(sentence),
        *_gates(run.verdict.gates if run.verdict else (), room["gates"]),
        *_changes(run.comparison, room["changes"]),
        *_cells(summary, room["results"]),
        *_findings(summary.findings, room["findings"]),
        f"Run: {_code(run.path.name)} &middot; files: {files}, `manifest.json`",
    ]
    whole = "\n\n".join(parts) + "\n"
    return whole if size(whole) < most else _tiny(parts, most)


def size(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text.encode("utf-8", "surrogatepass"))


def _tiny(parts: Sequence[str], most: int) -> str:
    """The heading and the sentence alone, or nothing where even they do not fit."""
    short = f"{parts[0]}\n\n{parts[1]}\n\nThe rest did not fit; it is in `summary.md`.\n"
    return short if size(short) < most else ""


def escaped(name: str) -> str:
    """A name as Markdown text on one line: no markup, no HTML, mention, link or table bar."""
    line = plain(name if len(name) <= _LONGEST else f"{name[:_LONGEST]} ...")
    line = line.replace("&", "&amp;").replace("<", "&lt;")
    return _SPECIAL.sub(r"\\\1", line)


def _code(name: str) -> str:
    return f"`{plain(name[:_LONGEST]).replace('`', '')}`"


def _table(
    head: Sequence[str], rows: Iterable[Sequence[str]], right: set[int], room: int
) -> tuple[str, int]:
    """A table of at most `room` bytes, and how many rows were left out."""
    rule = ["---:" if at in right else "---" for at in range(len(head))]
    lines = [f"| {' | '.join(line)} |" for line in (head, rule, *rows)]
    kept = _fitting(lines, room)
    return "\n".join(kept), len(lines) - len(kept)


def _fitting(lines: Sequence[str], room: int) -> list[str]:
    kept: list[str] = []
    for line in lines:
        room -= size(line) + 1
        if room < 0:
            break
        kept.append(line)
    return kept


def _gates(results: Sequence[GateResult], room: int) -> list[str]:
    if not results:
        return []
    head = ("", "gate", "on", "value", "limits", "wanted", "n", "why")
    order = sorted(results, key=lambda result: _GRAVEST.index(result.status))
    table, left = _table(head, map(_gate_line, order), {3, 4, 6}, room)
    note = [f"{left:,} more lines are in `gates.json`."] if left else []
    return ["## Gates", table, *note]


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


def changed_lines(changes: Sequence[tuple[str, Change]], most: int) -> list[str]:
    """A table of changes that could be compared, those beyond chance in bold; what is left out."""
    if not changes:
        return []
    lines = [_change_line(said, change) for said, change in changes[:most]]
    rule = ["---:" if at in RIGHT else "---" for at in range(len(HEAD))]
    left = len(changes) - len(lines)
    note = [f"{left:,} more are left out."] if left else []
    return ["\n".join(f"| {' | '.join(line)} |" for line in (HEAD, rule, *lines)), *note]


def _change_line(said: str, change: Change) -> Sequence[str]:
    strong = "**" if said in SURE else ""
    what, status, *numbers = map(escaped, cells(said, change))
    return (f"{strong}{what}{strong}", f"{SIGNS[said]} {status}", *numbers)


def _changes(comparison: Comparison | None, room: int) -> list[str]:
    """What a baseline comparison found: a sentence, what changed beyond chance, who is broken."""
    if comparison is None:
        return []
    sure = [(said, change) for said, change in gravest(comparison) if said in SURE]
    broken = [
        f"- newly broken, {escaped(change.subject)}: {escaped(names(change.newly_broken))}"
        for _, change in sure[:MOST_CHANGES]
        if change.newly_broken
    ]
    apart = sum(bool(change.reason) for change in comparison.changes) + len(comparison.unmatched)
    note = f" Not compared: {apart:,}; `report.html` says why." if apart else ""
    parts = [
        "## Against the baseline",
        f"{escaped(sentence(comparison))}{note}",
        *changed_lines(sure, MOST_CHANGES),
        "\n".join(broken),
    ]
    whole = [part for part in parts if part]
    return whole if size("\n\n".join(whole)) < room else whole[:2]


def _cells(summary: Summary, room: int) -> list[str]:
    rows = _by_model(summary.rows)
    note = (
        "Robust accuracy is what is correct and unbroken, of all samples, with its 95 % interval."
        " Under an attack it is an upper bound: a stronger attack can only lower it."
    )
    if len(rows) > MOST_ROWS:
        kept = [row for row in rows if row.attack in (CLEAN, WORST_CASE) or row.status != "ok"]
        rows = kept[:MOST_ROWS]
    head = ("model", "dataset", "attack", "eps", "robust accuracy", "broken of correct")
    table, left = _table(head, map(_cell_line, rows), {4, 5}, room)
    left += len(summary.rows) - len(rows)
    if left:
        note += f" {left:,} more rows are in `tables/cells.csv`."
    return ["## Results", table, note]


def _by_model(rows: Sequence[Row]) -> list[Row]:
    """The rows of a model together, in the order of the plan."""
    places = list(dict.fromkeys((row.model, row.dataset) for row in rows))
    order = {place: at for at, place in enumerate(places)}
    return sorted(rows, key=lambda row: order[row.model, row.dataset])


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


def _findings(findings: Sequence[Finding], room: int) -> list[str]:
    if not findings:
        return []
    order = ("error", "warning", "note")
    items = [
        f"- **{finding.severity}** {escaped(told(finding))}. To do: {escaped(finding.advice)}."
        for finding in sorted(findings, key=lambda finding: order.index(finding.severity))
    ]
    kept = _fitting(items, room)
    left = len(items) - len(kept)
    note = [f"{left:,} more are in `findings.json`."] if left else []
    return ["## Findings", "\n".join(kept), *note]
