"""Rules -> PASS, FAIL, INCONCLUSIVE, INVALID, and the one exit code of a run.

A gate compares the one-sided Clopper-Pearson limits of a rate with its floor or ceiling. It fails
closed: what is missing, partial, NaN, skipped or invalid never passes. Robust accuracy under an
attack is an upper bound on the truth, and the limits cover the choice of samples only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from .stats import limits, samples_to_decide
from .types import (
    CLEAN,
    WORST_CASE,
    CellStatus,
    Gate,
    GateResult,
    GateStatus,
    Rate,
    Row,
    Summary,
    Verdict,
)
from .unmet import unmet

METRICS: Mapping[str, Callable[[Row], Rate | None]] = MappingProxyType(
    {
        "clean_accuracy": lambda row: row.clean_accuracy,
        "robust_accuracy": lambda row: row.robust_accuracy,
        "worst_case_robust_accuracy": lambda row: row.robust_accuracy,
        "attack_success_rate": lambda row: row.attack_success_rate,
        "adversarial_error": lambda row: row.adversarial_error,
    }
)
"""What a gate can decide on: rates of counts, each with its own denominator (see `summary`)."""

ALL = "all"
POWER = 0.8  # chance that the suggested number of samples decides
_INTERRUPTED = {130: "interrupted by Ctrl-C", 143: "stopped by SIGTERM"}
_UNUSABLE = f"a gate needs a min or a max on one of: {', '.join(METRICS)}"
_PARTIAL = "a partial run decides nothing; run it without --limit and -k"


def check(
    gates: Sequence[Gate], summary: Summary, lacking: Callable[[Row], str] = lambda _: ""
) -> tuple[GateResult, ...]:
    """Every gate on every row that it selects; a gate that selects no row is INVALID.

    `clean_accuracy` selects the clean passes, `worst_case_robust_accuracy` the worst cases, any
    other metric the cells of the gate's attack entry; without one (or with "all") every cell of
    role attack, so that a control counts only where it is named. `lacking(row)`: why a worst case
    rests on too little to be passed, with the line to add ("" if it does not).
    """
    return tuple(result for gate in gates for result in _check(gate, summary, lacking))


def verdict(
    results: Sequence[GateResult],
    summary: Summary,
    *,
    environment: str = "",
    interrupted: int | None = None,
) -> Verdict:
    """Exit code and sentence, by the precedence 7, 130/143, 1, 8, 4, 6, 0.

    `environment`: why a cell failed because of device, provider, model file or dataset (7), or "".
    `interrupted`: 130 or 143 if a signal ended the run. 1: a gate failed, which takes complete and
    valid evidence. 8: a gate needs a row that is invalid, or a rate without a denominator. 4: a
    cell failed, timed out or did not run, or a gate needs one that is missing or skipped.
    6: a gate is inconclusive. A skipped cell that no gate needs leaves 0.
    """
    code = _exit_code(results, summary, environment=environment, interrupted=interrupted)
    sentence = _sentence(code, results, summary, environment)
    return Verdict(gates=tuple(results), exit_code=code, sentence=sentence)


# ---------------------------------------------------------------- one gate


def _check(gate: Gate, summary: Summary, lacking: Callable[[Row], str]) -> list[GateResult]:
    if gate.metric not in METRICS or not _threshold(gate):
        return [_result(gate, None, "INVALID", reason=_UNUSABLE)]
    rows = [row for row in summary.rows if _selects(gate, row)]
    if not rows:
        return [_result(gate, None, "INVALID", reason=_nothing(gate, summary))]
    results = [_on_row(gate, row, partial=summary.partial) for row in rows]
    if gate.metric != "worst_case_robust_accuracy":
        return results
    return [_on_evidence(one, lacking(row)) for one, row in zip(results, rows, strict=True)]


def _on_evidence(result: GateResult, lacks: str) -> GateResult:
    """A worst case that nothing strong has tried is not passed; that it failed is certain."""
    if result.status != "PASS" or not lacks:
        return result
    return replace(result, status="INCONCLUSIVE", reason=lacks)


def _selects(gate: Gate, row: Row) -> bool:
    return (
        _kind_matches(gate, row)
        and gate.model in (None, row.model)
        and gate.dataset in (None, row.dataset)
        and gate.norm in (None, row.norm)
        and (gate.eps is None or (row.eps is not None and row.eps.value == gate.eps.value))
    )


def _kind_matches(gate: Gate, row: Row) -> bool:
    everything = gate.attack in (None, ALL)
    if gate.metric == "clean_accuracy":
        return row.attack == CLEAN and (everything or gate.attack == CLEAN)
    if gate.metric == "worst_case_robust_accuracy":
        return row.attack == WORST_CASE and (everything or gate.attack == WORST_CASE)
    if everything:
        return row.role == "attack" and row.attack not in (CLEAN, WORST_CASE)
    return row.attack == gate.attack or (row.family == gate.attack and not row.union)


def _nothing(gate: Gate, summary: Summary) -> str:
    wanted = [
        f"{name} {value}"
        for name, value in (
            ("model", gate.model),
            ("dataset", gate.dataset),
            ("attack", gate.attack),
            ("norm", gate.norm),
            ("eps", gate.eps.text if gate.eps else None),
        )
        if value is not None
    ]
    there = {f"{row.attack} at eps {row.eps.text}" for row in summary.rows if row.eps is not None}
    worst = gate.metric == "worst_case_robust_accuracy"
    needs = "; a worst case takes an attack at that very eps, not noise alone" if worst else ""
    return (
        f"no row of this run matches {gate.metric}{' with ' if wanted else ''}{', '.join(wanted)};"
        f" it has: {', '.join(sorted(there)) or 'only clean passes'}{needs}"
    )


def _on_row(gate: Gate, row: Row, *, partial: bool) -> GateResult:
    if row.status != "ok":
        return _result(gate, row, "INVALID", reason=f"{row.status}: {row.reason}")
    measured = METRICS[gate.metric](row)
    if measured is None or measured.n == 0 or math.isnan(measured.value):
        reason = f"{gate.metric} is not defined here: no sample is in its denominator"
        return _result(gate, row, "INVALID", reason=reason)
    anytime = gate.sequential or bool(row.stopped)  # limits that hold wherever it was stopped
    low, high = limits(measured.count, measured.n, gate.confidence, anytime=anytime)
    status, reason = _decide(gate, low, high)
    if partial:
        status, reason = "INVALID", _PARTIAL
    needed = (
        _needed(gate, measured, low, high, anytime=anytime) if status == "INCONCLUSIVE" else None
    )
    if row.stopped:
        reason = f"{reason} ({row.stopped})"
    return _result(gate, row, status, reason=reason, rate=measured, limits=(low, high), n=needed)


def _decide(gate: Gate, low: float, high: float) -> tuple[GateStatus, str]:
    """Three-valued: a limit that clears both bounds, one that misses either, or neither."""
    floor = -math.inf if gate.minimum is None else gate.minimum
    ceiling = math.inf if gate.maximum is None else gate.maximum
    if high < floor:
        return "FAIL", f"at most {_percent(high)}, below the floor of {100 * floor:.6g} %"
    if low > ceiling:
        return "FAIL", f"at least {_percent(low)}, above the ceiling of {100 * ceiling:.6g} %"
    if low >= floor and high <= ceiling:
        kept = [] if gate.minimum is None else [f"at least {_percent(low)}"]
        kept += [] if gate.maximum is None else [f"at most {_percent(high)}"]
        return "PASS", ", ".join(kept)
    return "INCONCLUSIVE", f"between {_percent(low)} and {_percent(high)}: too wide to decide"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _needed(gate: Gate, measured: Rate, low: float, high: float, *, anytime: bool) -> int | None:
    """Samples that would decide every bound that lies inside the limits, if any number can."""
    bounds = (gate.minimum, gate.maximum)
    open_bounds = [bound for bound in bounds if bound is not None and low <= bound <= high]
    counts = [
        samples_to_decide(measured.value, bound, gate.confidence, POWER, anytime=anytime)
        for bound in open_bounds
    ]
    known = [count for count in counts if count is not None]
    if not known or len(known) < len(counts):
        return None
    return max(*known, measured.n + 1)


def _threshold(gate: Gate) -> str:
    bounds = ((">=", gate.minimum), ("<=", gate.maximum))
    return ", ".join(f"{sign} {bound:.6g}" for sign, bound in bounds if bound is not None)


def _result(
    gate: Gate,
    row: Row | None,
    status: GateStatus,
    *,
    reason: str,
    rate: Rate | None = None,
    limits: tuple[float, float] | None = None,
    n: int | None = None,
) -> GateResult:
    low, high = limits or (None, None)
    return GateResult(
        gate=gate.name,
        status=status,
        metric=gate.metric,
        threshold=_threshold(gate),
        subject=_subject(row) if row else "",
        cell_id=row.cell_id if row else "",
        value=rate.value if rate else None,
        low=low,
        high=high,
        n=rate.n if rate else 0,
        reason=reason,
        needed=n,
        where=str(gate.where),
    )


def _subject(row: Row) -> str:
    crafted = "" if row.source in (row.model, "") else f" (from {row.source})"
    budget = f" {row.norm} {row.eps.text}" if row.norm and row.eps else ""
    return f"{row.model} on {row.dataset}, {row.attack}{crafted}{budget}"


# ---------------------------------------------------------------- the verdict


def _exit_code(
    results: Sequence[GateResult],
    summary: Summary,
    *,
    environment: str,
    interrupted: int | None,
) -> int:
    statuses = {row.cell_id: row.status for row in summary.rows}
    closed = [_closed_code(result, statuses, summary) for result in results]
    applies = {
        7: bool(environment),
        interrupted or 130: interrupted is not None,
        1: any(result.status == "FAIL" for result in results),
        8: 8 in closed,
        4: 4 in closed or bool(_unfinished(summary)),
        6: any(result.status == "INCONCLUSIVE" for result in results),
    }
    return next((code for code, holds in applies.items() if holds), 0)


def _closed_code(
    result: GateResult, statuses: Mapping[str, CellStatus], summary: Summary
) -> int | None:
    """Why an INVALID gate has no evidence: 8 it is broken, 4 it is not there. None for others."""
    if result.status != "INVALID":
        return None
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


def _sentence(code: int, results: Sequence[GateResult], summary: Summary, environment: str) -> str:
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
            text = f"No verdict: {_incomplete(results, summary)}"
        case 6:
            text = _about(results, "INCONCLUSIVE", "is undecided")
        case _:
            text = _passes(results, len(cells), partial=summary.partial)
    return text if text.endswith(".") else f"{text}."


def _passes(results: Sequence[GateResult], cells: int, *, partial: bool) -> str:
    names = {result.gate for result in results}
    if not names:
        return f"{'Partial run' if partial else 'Complete'}: {cells} cells; the suite has no gates."
    return "The gate passes." if len(names) == 1 else f"All {len(names)} gates pass."


def _incomplete(results: Sequence[GateResult], summary: Summary) -> str:
    unfinished = _unfinished(summary)
    if not unfinished and summary.partial:
        return _PARTIAL
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
