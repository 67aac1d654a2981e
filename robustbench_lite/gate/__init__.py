"""Rules -> PASS, FAIL, INCONCLUSIVE, INVALID, and the one exit code of a run.

A gate compares one-sided limits of a number with its floor or ceiling. It fails closed: what is
missing, partial, NaN, skipped or invalid never passes. Robust accuracy under an attack is an upper
bound on the truth, and the limits cover the choice of samples only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..metrics import METRICS, WORST
from ..types import Comparison, Gate, GateResult, GateStatus, Row, Samples, Summary
from .claims import Claim, Lack, Sources, claims_of
from .decide import Decision, Levels, decide, levels_of, threshold
from .select import nothing, selects
from .verdict import PARTIAL
from .verdict import verdict as verdict

_UNUSABLE = (
    "a gate needs a min, a max or a max_drop (of the paired metrics) on one of: "
    f"{', '.join(METRICS)}"
)
_NO_BASELINE = "no baseline was given; name one with --baseline or `baseline:`"


def check(
    gates: Sequence[Gate],
    summary: Summary,
    lacking: Callable[[Row], str] = lambda _: "",
    *,
    samples: Callable[[str], Samples | None] = lambda _: None,
    compared: Callable[[Gate], Comparison | str] = lambda _: _NO_BASELINE,
) -> tuple[GateResult, ...]:
    """Every gate on every row that it selects; a gate that selects no row is INVALID.

    `clean_accuracy` selects the clean passes, `worst_case_robust_accuracy` the worst cases, any
    other metric the cells of the gate's attack entry; without one (or with "all") every cell of
    role attack, so that a control counts only where it is named. `lacking(row)`: why a worst case
    rests on too little to be passed, with the line to add ("" if it does not). `samples(cell id)`:
    the per-sample table, read for gates on a mean, a median or single classes. `compared(gate)`:
    the run against the gate's baseline, or why there is none.
    """
    sources = Sources(rows={row.cell_id: row for row in summary.rows}, samples=samples)
    return tuple(
        result for gate in gates for result in _check(gate, summary, lacking, sources, compared)
    )


def _check(
    gate: Gate,
    summary: Summary,
    lacking: Callable[[Row], str],
    sources: Sources,
    compared: Callable[[Gate], Comparison | str],
) -> list[GateResult]:
    if gate.metric not in METRICS or not threshold(gate):
        return [_result(gate, None, "INVALID", _UNUSABLE)]
    rows = [row for row in summary.rows if selects(gate, row)]
    if not rows:
        return [_result(gate, None, "INVALID", nothing(gate, summary))]
    comparison = compared(gate) if gate.max_drop is not None else ""
    claims = [claim for row in rows for claim in claims_of(gate, row, sources, comparison)]
    levels = levels_of(gate, claims)
    partial = summary.partial and not gate.allow_partial
    results = [
        _judged(gate, claim, level, partial=partial)
        for claim, level in zip(claims, levels, strict=True)
    ]
    if gate.metric != WORST:
        return results
    return [_on_evidence(one, lacking(each.row)) for one, each in zip(results, claims, strict=True)]


def _judged(gate: Gate, claim: Claim, level: Levels, *, partial: bool) -> GateResult:
    if isinstance(claim.evidence, Lack):
        lack = claim.evidence
        result = _result(gate, claim, "INVALID", lack.reason)
        return replace(result, missing=lack.missing, n=lack.n)
    found = decide(gate, claim.evidence, level)
    if claim.row.stopped:
        found = replace(found, reason=f"{found.reason} ({claim.row.stopped})")
    if partial:
        found = replace(found, status="INVALID", reason=PARTIAL, needed=None)
    return _result(gate, claim, found.status, found.reason, found)


def _on_evidence(result: GateResult, lacks: str) -> GateResult:
    """A worst case that nothing strong has tried is not passed; that it failed is certain."""
    if result.status != "PASS" or not lacks:
        return result
    return replace(result, status="INCONCLUSIVE", reason=lacks)


def _result(
    gate: Gate,
    claim: Claim | None,
    status: GateStatus,
    reason: str,
    decision: Decision | None = None,
) -> GateResult:
    return GateResult(
        gate=gate.name,
        status=status,
        metric=gate.metric,
        threshold=threshold(gate),
        subject=claim.subject if claim else "",
        cell_id=claim.row.cell_id if claim else "",
        value=decision.value if decision else None,
        low=decision.low if decision else None,
        high=decision.high if decision else None,
        n=decision.n if decision else 0,
        reason=reason,
        needed=decision.needed if decision else None,
        where=str(gate.where),
        newly_broken=decision.newly_broken if decision else (),
    )
