"""What every section of the page shows, from rows, tallies and the stored run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..types import CLEAN, NORMS, WORST_CASE, Finding, GateResult, Row
from . import (
    against,
    classes,
    confidence,
    cost,
    gallery,
    origin,
    pixels,
    strengths,
    transfer,
    words,
)
from .analyses import analyses
from .charts import Chart, charts, distances, slots
from .keys import Keys
from .limits import Limits
from .tallies import Place, Tally
from .view import FinishedRun, summary_of

_BUDGETS = 8  # columns of the first table
_ROOM_FOR_CHANGES = 5  # one part in five of the pictures


@dataclass(frozen=True, slots=True)
class Glance:
    """The headline of one model: its clean row and the worst case per budget (None: not asked)."""

    model: str
    dataset: str
    clean: Row | None
    worst: tuple[Row | None, ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """Cells without a rate that share model, attack, status and reason."""

    model: str
    attack: str
    entry: str
    budgets: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Gathered:
    """What is read once from the stored tables, however often the page is drawn."""

    places: tuple[Place, ...]
    groups: dict[tuple[str, str, str], dict[tuple[str, str], Row]]
    tallied: dict[str, Tally]


def gather(
    run: FinishedRun,
    limits: Limits,
    tally: Callable[[FinishedRun, Sequence[Place], set[str]], dict[str, Tally]],
) -> Gathered:
    """Read the tables of the models that are shown in detail, one at a time."""
    rows = summary_of(run).rows
    places = tuple(dict.fromkeys((row.model, row.dataset) for row in rows))[: limits.models]
    found = transfer.groups(rows, run.plan, places)
    return Gathered(places, found, tally(run, places, transfer.paired(found)))


def content(run: FinishedRun, gathered: Gathered, limits: Limits) -> dict[str, object]:
    """Every value of the template."""
    summary = summary_of(run)
    cells = [row for row in summary.rows if row.plugin != WORST_CASE]
    return {
        **_head(run, cells, limits),
        **_compared(run, limits),
        **_measured(run, gathered, limits),
        **_about(run, cells, limits),
        "tables": _by_model(summary.rows[: limits.cells]),
        "rows_left": max(0, len(summary.rows) - limits.cells),
        "keys": Keys(summary.rows),
        "run": run,
    }


def _head(run: FinishedRun, cells: Sequence[Row], limits: Limits) -> dict[str, object]:
    gates = run.verdict.gates if run.verdict else ()
    budgets, glances = _glances(summary_of(run).rows)
    return {
        "verdict": run.verdict,
        "word": words.overall(run.verdict),
        "worries": _worries(gates),
        "closest": _closest(gates),
        "partial": summary_of(run).partial,
        "facts": _facts(run, cells),
        "gates": gates[: limits.lines],
        "gates_left": max(0, len(gates) - limits.lines),
        "budgets": budgets,
        "glances": glances[: limits.lines],
        "glances_left": max(0, len(glances) - limits.lines),
    }


def _compared(run: FinishedRun, limits: Limits) -> dict[str, object]:
    found = against.changes(run, limits.lines, limits.pictures // _ROOM_FOR_CHANGES)
    every = run.comparison.changes if run.comparison else ()
    return {
        "comparison": run.comparison,
        "changed": found,
        "changed_left": len(every) - len(found),
    }


def _measured(run: FinishedRun, gathered: Gathered, limits: Limits) -> dict[str, object]:
    rows = summary_of(run).rows
    looks = slots(rows)
    drawn = charts(rows)
    places = gathered.places[: limits.models]
    tallied = {
        cell_id: tally
        for cell_id, tally in gathered.tallied.items()
        if (tally.row.model, tally.row.dataset) in places
    }
    matrices = transfer.matrices(gathered.groups, tallied) if places else []
    every = len(dict.fromkeys((row.model, row.dataset) for row in rows))
    compared = limits.pictures // _ROOM_FOR_CHANGES if run.comparison else 0
    return {
        "places_left": every - len(places),
        "places_shown": len(places),
        "charts": drawn[: limits.charts],
        "charts_left": max(0, len(drawn) - limits.charts),
        "values": _values,
        "strengths": strengths.strengths(rows)[: limits.charts],
        "matrices": matrices[: limits.charts],
        "matrices_left": max(0, len(matrices) - limits.charts),
        "classes": classes.classes(tallied),
        "confidence": confidence.confidence(tallied),
        "distances": distances(tallied, looks),
        "walls": gallery.walls(run, tallied, limits.pictures - compared),
        "heats": pixels.heat_maps(tallied)[: limits.charts],
    }


def _about(run: FinishedRun, cells: Sequence[Row], limits: Limits) -> dict[str, object]:
    findings = sorted(summary_of(run).findings, key=_severity)
    missing = _missing(cells)
    provenance = list(origin.flat(run.manifest))
    components = [*run.plan.models.values(), *run.plan.datasets.values()]
    return {
        "costs": cost.costs(cells)[: limits.lines],
        "analyses": list(analyses(run.path / "tables", limits.lines)),
        "findings": findings[: limits.lines],
        "findings_left": max(0, len(findings) - limits.lines),
        "touched": {each.cells: _touched(each, cells) for each in findings[: limits.lines]},
        "waivers": origin.waivers(run),
        "missing": missing[: limits.lines],
        "missing_left": max(0, len(missing) - limits.lines),
        "components": components[: limits.lines],
        "provenance": provenance[: limits.lines],
        "provenance_left": max(0, len(provenance) - limits.lines),
        "command": origin.cut(origin.command(run), limits.text),
        "suite_text": origin.cut(run.suite_text, limits.text),
    }


def _worries(gates: Sequence[GateResult]) -> list[GateResult]:
    order = ("FAIL", "INVALID", "INCONCLUSIVE")
    bad = [gate for gate in gates if gate.status in order]
    return sorted(bad, key=lambda gate: order.index(gate.status))


def _closest(gates: Sequence[GateResult]) -> GateResult | None:
    """Of gates that all pass, the one whose limit is nearest to its bound."""
    measured = [(slack, gate) for gate in gates if (slack := words.slack(gate)) is not None]
    if not measured or any(gate.status != "PASS" for gate in gates):
        return None
    return min(measured, key=lambda pair: pair[0])[1]


def _facts(run: FinishedRun, cells: Sequence[Row]) -> list[tuple[str, str]]:
    """The few numbers under the verdict."""
    samples = sorted({row.n for row in cells if row.n})
    ok = sum(row.status == "ok" for row in cells)
    devices = sorted({row.device for row in cells if row.device})
    spread = " to ".join(f"{n:,}" for n in dict.fromkeys((*samples[:1], *samples[-1:])))
    return [
        ("models", f"{len({row.model for row in cells}):,}"),
        ("cells ok", f"{ok:,} of {len(cells):,}"),
        ("samples per cell", spread or words.NOTHING),
        ("compute", words.seconds(sum(row.seconds for row in cost.paid(cells)))),
        ("device", ", ".join(devices) or words.NOTHING),
        ("seed", str(run.plan.seed)),
    ]


def _glances(rows: Sequence[Row]) -> tuple[list[str], list[Glance]]:
    """Budgets (at most eight, the largest kept) and per model its clean and worst-case rows."""
    worst = [row for row in rows if row.attack == WORST_CASE]
    keys = {(r.norm, r.eps.value): words.budget(r) for r in worst if r.norm and r.eps}
    wanted = sorted(keys, key=lambda key: (NORMS.index(key[0]), key[1]))
    wanted = wanted[:: -max(1, -(-len(wanted) // _BUDGETS))][::-1]
    clean = {(row.model, row.dataset): row for row in rows if row.attack == CLEAN}
    found = {(r.model, r.dataset, r.norm, r.eps.value): r for r in worst if r.eps}
    places = dict.fromkeys((row.model, row.dataset) for row in rows)
    glances = [
        Glance(*place, clean.get(place), tuple(found.get((*place, *key)) for key in wanted))
        for place in places
    ]
    return [keys[key] for key in wanted], glances


def _values(chart: Chart) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """A chart as a table: eps texts, and per curve its values in that order."""
    texts = {point.eps: point.text for series in chart.series for point in series.points}
    columns = sorted(texts)
    lines = []
    for series in chart.series:
        at = {point.eps: words.rate_text(point.rate) for point in series.points}
        lines.append((series.name, [at.get(eps, words.NOTHING) for eps in columns]))
    return [texts[eps] for eps in columns], lines


def _severity(finding: Finding) -> int:
    return ("error", "warning", "note").index(finding.severity)


def _touched(finding: Finding, cells: Sequence[Row]) -> str:
    wanted = frozenset(finding.cells)
    named = [
        f"{row.model}: {words.attack_name(row)} {words.budget(row)}"
        for row in cells
        if row.cell_id in wanted
    ]
    more = f" and {len(named) - 6} more" if len(named) > 6 else ""
    return ", ".join(named[:6]) + more


def _missing(cells: Sequence[Row]) -> list[Missing]:
    """Cells without a rate, those that differ in their budget alone together."""
    groups: dict[tuple[str, str, str, str, str], list[str]] = {}
    for row in cells:
        if row.status != "ok":
            key = (row.model, words.attack_name(row), row.attack, row.status, row.reason)
            groups.setdefault(key, []).append(words.budget(row))
    return [
        Missing(model, attack, entry, ", ".join(dict.fromkeys(budgets)), status, reason)
        for (model, attack, entry, status, reason), budgets in groups.items()
    ]


def _by_model(rows: Sequence[Row]) -> Mapping[Place, list[Row]]:
    groups: dict[Place, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.dataset), []).append(row)
    return groups
