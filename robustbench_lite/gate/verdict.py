"""The one exit code of a run and the sentence that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..types import (
    WORST_CASE,
    CellStatus,
    FailedAnalysis,
    GateResult,
    GateStatus,
    Row,
    Summary,
    Verdict,
)
from ..unmet import unmet

PARTIAL = "a partial run decides nothing; run it without --limit and -k"
_INTERRUPTED = {130: "interrupted by Ctrl-C", 143: "stopped by SIGTERM"}


def verdict(
    results: Sequence[GateResult],
    summary: Summary,
    *,
    environment: str = "",
    interrupted: int | None = None,
    failed: Sequence[FailedAnalysis] = (),
) -> Verdict:
    """Exit code and sentence, by the precedence 7, 130/143, 1, 8, 4, 6, 0.

    `environment`: why a cell failed because of device, provider, model file or dataset (7), or "".
    `interrupted`: 130 or 143 if a signal ended the run. 1: a gate failed, which takes complete and
    valid evidence. 8: a gate needs a row that is invalid, or a rate without a denominator. 4: a
    cell failed, timed out or did not run, or a gate needs one that is missing or skipped, or an
    analysis `failed`. 6: a gate is inconclusive. A skipped cell that no gate needs leaves 0.
    """
    broken = next((each for each in failed if each.environment), None)
    if broken is not None and not environment:
        environment = f"analysis '{broken.name}': {broken.reason}"
    code = _exit_code(
        results, summary, environment=environment, interrupted=interrupted, failed=bool(failed)
    )
    sentence = _sentence(code, results, summary, environment, failed)
    return Verdict(gates=tuple(results), exit_code=code, sentence=sentence)


def _exit_code(
    results: Sequence[GateResult],
    summary: Summary,
    *,
    environment: str,
    interrupted: int | None,
    failed: bool,
) -> int:
    statuses = {row.cell_id: row.status for row in summary.rows}
    closed = [_closed_code(result, statuses, summary) for result in results]
    applies = {
        7: bool(environment),
        interrupted or 130: interrupted is not None,
        1: any(result.status == "FAIL" for result in results),
        8: 8 in closed,
        4: 4 in closed or bool(_unfinished(summary)) or failed,
        6: any(result.status == "INCONCLUSIVE" for result in results),
    }
    return next((code for code, holds in applies.items() if holds), 0)


def _closed_code(
    result: GateResult, statuses: Mapping[str, CellStatus], summary: Summary
) -> int | None:
    """Why an INVALID gate has no evidence: 8 it is broken, 4 it is not there. None for others."""
    if result.status != "INVALID":
        return None
    if result.missing:
        return 4
    status = statuses.get(result.cell_id)
    if status == "invalid" or (status == "ok" and not summary.partial):
        return 8
    return 4


def _unfinished(summary: Summary) -> list[Row]:
    return [
        row
        for row in summary.rows
        if row.status in ("failed", "timeout") and row.attack != WORST_CASE
    ]


def _sentence(
    code: int,
    results: Sequence[GateResult],
    summary: Summary,
    environment: str,
    failed: Sequence[FailedAnalysis],
) -> str:
    cells = [row for row in summary.rows if row.attack != WORST_CASE]
    match code:
        case 130 | 143:
            done = len(cells) - len(_unfinished(summary))
            return f"No verdict: {_INTERRUPTED[code]} with {done} of {len(cells)} cells finished."
        case 7:
            text = f"No verdict: the environment failed: {environment}"
        case 1:
            text = _about(results, "FAIL", "fails")
        case 8:
            text = (
                f"No verdict: the measurement is invalid. {_about(results, 'INVALID', 'is void')}"
            )
        case 4:
            text = f"No verdict: {_incomplete(results, summary, failed)}"
        case 6:
            text = _about(results, "INCONCLUSIVE", "is undecided")
        case _:
            text = _passes(results, len(cells), partial=summary.partial)
    return text if text.endswith(".") else f"{text}."


def _passes(results: Sequence[GateResult], cells: int, *, partial: bool) -> str:
    names = {result.gate for result in results}
    if not names:
        return f"{'Partial run' if partial else 'Complete'}: {cells} cells; the suite has no gates."
    on = ", on a partial run as allowed" if partial else ""
    return f"The gate passes{on}." if len(names) == 1 else f"All {len(names)} gates pass{on}."


def _incomplete(
    results: Sequence[GateResult], summary: Summary, failed: Sequence[FailedAnalysis]
) -> str:
    unfinished = _unfinished(summary)
    if failed and not unfinished:
        others = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        return f"analysis '{failed[0].name}' failed{others}: {failed[0].reason}"
    if not unfinished and summary.partial:
        return PARTIAL
    if not unfinished:
        return f"the evidence is incomplete. {_about(results, 'INVALID', 'is void')}"
    first = unfinished[0]
    cells = sum(row.attack != WORST_CASE for row in summary.rows)
    lacks = unmet(results, summary, unfinished)
    return (
        f"{len(unfinished)} of {cells} cells did not finish.{' ' * bool(lacks)}{lacks}"
        f" First: {first.attack} on model '{first.model}': {first.reason}"
    )


def _about(results: Sequence[GateResult], status: GateStatus, says: str) -> str:
    """The first gate of that status with its reason, and how many others share it."""
    found = [result for result in results if result.status == status]
    first = found[0]
    names = {result.gate for result in results if result.status == status} - {first.gate}
    others = f", and {len(names)} more" if names else ""
    metric = first.metric.replace("_", " ")
    subject = f" of {first.subject}" if first.subject else ""
    return f"Gate '{first.gate}' {says}{others}: {metric}{subject}: {first.reason}"
