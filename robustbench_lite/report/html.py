"""report.html: one offline file with no script, no request and a strict content security policy."""

from __future__ import annotations

import base64
import csv
import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from ..metrics import DISTANCE
from ..types import CLEAN, NORMS, WORST_CASE, Component, Finding, GateResult, Json, Row
from . import svg, words
from .charts import Chart, charts
from .gallery import walls
from .view import FinishedRun, summary_of, write_text

TEMPLATES = Path(__file__).parent / "templates"
MOST_CELLS = 2000  # rows of the cells table; all of them are in tables/cells.csv
MOST_CHARTS = 120
MOST_LINES = 24  # of an analysis; all of them are in its file
_BUDGETS = 8  # columns of the first table
_LONGEST = 400
_OWN_TABLES = ("cells.csv", "metrics.csv")
_SHOWN_APART = frozenset({"argv", "gates", "models", "datasets"})  # keys of the manifest


@dataclass(frozen=True, slots=True)
class Glance:
    """The headline of one model: its clean row and the worst case per budget (None: not asked)."""

    model: str
    dataset: str
    clean: Row | None
    worst: tuple[Row | None, ...]


@dataclass(frozen=True, slots=True)
class Analysis:
    """A table that an analysis wrote: its first lines, and how many more there are."""

    name: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    left: int


def write(run: FinishedRun) -> None:
    """Write report.html."""
    write_text(run.path / "report.html", page(run))


def page(run: FinishedRun) -> str:
    """The whole report as HTML; every string of suite, model or plug-in is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(svg=svg, words=words, limits=_limits)
    css = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))  # noqa: S704  (our own file)
    html = environment.get_template("report.html.j2").render(
        css=css, policy=policy(css), **_context(run)
    )
    return f"{html}\n"


def policy(css: str) -> str:
    """The content security policy: nothing but data images and this very style sheet."""
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}';"
        " base-uri 'none'; form-action 'none'"
    )


def _context(run: FinishedRun) -> dict[str, object]:
    summary = summary_of(run)
    cells = [row for row in summary.rows if row.attack != WORST_CASE]
    budgets, glances = _glances(summary.rows)
    drawn = charts(summary.rows)
    return {
        "suite": run.plan.suite,
        "run_name": run.path.name,
        "verdict": run.verdict,
        "word": words.overall(run.verdict),
        "worries": _worries(run.verdict.gates if run.verdict else ()),
        "partial": summary.partial,
        "facts": _facts(run, cells),
        "budgets": budgets,
        "glances": glances,
        "charts": drawn[:MOST_CHARTS],
        "charts_left": max(0, len(drawn) - MOST_CHARTS),
        "values": _values,
        "analyses": list(_analyses(run.path / "tables")),
        "walls": walls(run),
        "findings": sorted(summary.findings, key=_severity),
        "touched": {finding.cells: _touched(finding, cells) for finding in summary.findings},
        "missing": [row for row in cells if row.status != "ok"],
        "tables": _by_model(summary.rows[:MOST_CELLS]),
        "rows_left": max(0, len(summary.rows) - MOST_CELLS),
        "components": [*_components(run.plan.models), *_components(run.plan.datasets)],
        "provenance": list(_flat(run.manifest)),
        "command": command(run),
        "suite_text": run.suite_text,
    }


def command(run: FinishedRun) -> str:
    """The command that made the run, quoted for a shell; the program by its name, not its path."""
    argv = run.manifest.get("argv")
    if isinstance(argv, Sequence) and not isinstance(argv, str) and len(argv) > 1:
        return shlex.join(["robeval", *(str(each) for each in argv[1:])])
    return shlex.join(["robeval", "run", str(run.manifest.get("suite_file", "suite.yaml"))])


def _worries(gates: Sequence[GateResult]) -> list[GateResult]:
    order = ("FAIL", "INVALID", "INCONCLUSIVE")
    bad = [gate for gate in gates if gate.status in order]
    return sorted(bad, key=lambda gate: order.index(gate.status))


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
        ("compute", words.seconds(sum(row.seconds for row in cells))),
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


def _limits(gate: GateResult) -> Markup:
    if gate.value is None or gate.low is None or gate.high is None:
        return Markup("")
    if gate.metric == DISTANCE or words.is_difference(gate):
        return Markup("")  # the axis is one of shares
    bounds = [float(part.split()[-1]) for part in gate.threshold.split(", ") if part]
    return svg.limits(gate.value, gate.low, gate.high, bounds, gate.status)


def _analyses(folder: Path) -> Iterator[Analysis]:
    """Tables beside our own, as analyses wrote them; only the first lines are held."""
    for path in sorted(folder.glob("*.csv")):
        if path.name in _OWN_TABLES:
            continue
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream)
            head = tuple(next(reader, ()))
            lines: list[tuple[str, ...]] = []
            left = 0
            for line in reader:
                if len(lines) < MOST_LINES:
                    lines.append(tuple(words.cell(value) for value in line))
                else:
                    left += 1
        yield Analysis(path.stem, head, tuple(lines), left)


def _severity(finding: Finding) -> int:
    return ("error", "warning", "note").index(finding.severity)


def _touched(finding: Finding, cells: Sequence[Row]) -> str:
    named = [
        f"{row.model}: {words.attack_name(row)} {words.budget(row)}"
        for row in cells
        if row.cell_id in finding.cells
    ]
    more = f" and {len(named) - 6} more" if len(named) > 6 else ""
    return ", ".join(named[:6]) + more


def _by_model(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.dataset), []).append(row)
    return groups


def _components(parts: Mapping[str, Component]) -> list[Component]:
    return list(parts.values())


def _flat(value: Json, path: str = "") -> Iterator[tuple[str, str]]:
    """A manifest as dotted keys and short texts."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if path or key not in _SHOWN_APART:
                yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(inner, Mapping) for inner in value):
            for at, inner in enumerate(value):
                yield from _flat(inner, f"{path}.{at}")
        else:
            yield path, _short(", ".join(str(inner) for inner in value))
    else:
        yield path, words.NOTHING if value is None else _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
