"""A gate on an analysis: every verdict in its table must hold, and there must be evidence."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .types import FailedAnalysis, Gate, GateResult, GateStatus

COLUMN = "verdict"
HOLDS, FAILS, NO_EVIDENCE = "holds", "fails", "no evidence"
_NO_VERDICTS = (
    f"the table has no verdicts; it needs a column '{COLUMN}' with '{HOLDS}', '{FAILS}' or"
    f" '{NO_EVIDENCE}'"
)
REPORTED = "reported"
_PARTIAL = "a partial run decides nothing; run it without --limit and -k"


def check(
    gates: Sequence[Gate],
    table_of: Callable[[str], Path],
    *,
    partial: bool,
    failed: Sequence[FailedAnalysis] = (),
) -> tuple[GateResult, ...]:
    """The gates with an `analysis`, judged on its CSV file, `table_of(analysis)`.

    A row counts if its column `verdict` is "holds", "fails" or "no evidence"; "reported" is for the
    reader. One that fails fails the gate; without any row, without evidence, with any other word
    (an empty one, NaN), it is INVALID, and so is a gate on an analysis that `failed`, whatever its
    table says.
    """
    why = {each.name: each.reason for each in failed}
    return tuple(
        _judged(gate, _rows(table_of(gate.analysis)), partial=partial, why=why.get(gate.analysis))
        for gate in gates
        if gate.analysis is not None
    )


def _judged(
    gate: Gate, rows: Sequence[Mapping[str, str]], *, partial: bool, why: str | None
) -> GateResult:
    counted = [row for row in rows if row.get(COLUMN) in {HOLDS, FAILS, NO_EVIDENCE}]
    failed = [_title(row) for row in counted if row[COLUMN] == FAILS]
    empty = [_title(row) for row in counted if row[COLUMN] == NO_EVIDENCE]
    strange = [
        f"'{row[COLUMN]}' of {_title(row)}"
        for row in rows
        if COLUMN in row and row not in counted and row[COLUMN] != REPORTED
    ]
    status: GateStatus = "PASS"
    reason = f"all {len(counted)} hold"
    if failed:
        status, reason = "FAIL", f"{len(failed)} of {len(counted)} fail: {'; '.join(failed)}"
    elif strange:
        words = f"{HOLDS}, {FAILS}, {NO_EVIDENCE}, {REPORTED}"
        status, reason = "INVALID", f"the verdict is none of {words}: {'; '.join(strange)}"
    elif empty or not counted:
        lacks = f" for {'; '.join(empty)}" if empty else f": {_NO_VERDICTS}"
        status, reason = "INVALID", f"there is no evidence{lacks}"
    if why is not None:
        status, reason = "INVALID", f"the analysis failed: {why}"
    if partial:
        status, reason = "INVALID", _PARTIAL
    return GateResult(
        gate=gate.name,
        status=status,
        metric=gate.metric,
        threshold="every row holds",
        subject=f"analysis {gate.analysis}",
        cell_id="",
        value=None,
        low=None,
        high=None,
        n=len(counted),
        reason=reason,
        needed=None,
        where=str(gate.where),
    )


def _title(row: Mapping[str, str]) -> str:
    """The first two columns name a row."""
    return " ".join(list(row.values())[:2])


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
