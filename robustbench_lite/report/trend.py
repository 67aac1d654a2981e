"""Runs over time: a text table, JSON, CSV, and one offline page with a chart per gate."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from ..types import History, Past
from . import words
from .trendchart import chart
from .view import write_text

TEMPLATES = Path(__file__).parent / "templates"
MOST_CHARTS = 60
MOST_RUNS = 200  # of a chart, the newest
MOST_LINES = 2000  # of the page's table; all of them are in the CSV


@dataclass(frozen=True, slots=True)
class Trend:
    """One gate on one row over the runs that judged it, oldest first; `bounds` as of the newest."""

    suite: str
    gate: str
    subject: str
    metric: str
    rows: tuple[Past, ...]
    bounds: tuple[float, ...]


def trends(rows: Sequence[Past]) -> list[Trend]:
    """The rows grouped by suite, gate and subject, in order of first appearance."""
    groups: dict[tuple[str, str, str, str], list[Past]] = {}
    for row in rows:
        if row.gate:
            groups.setdefault((row.suite, row.gate, row.subject, row.metric), []).append(row)
    return [Trend(*key, tuple(found), bounds(found[-1])) for key, found in groups.items()]


def bounds(row: Past) -> tuple[float, ...]:
    """The floor and ceiling of a gate, in the metric's unit."""
    return tuple(bound for _, bound in words.bounds(row))


def shown(row: Past) -> tuple[str, str]:
    """Value and limits as text, each in the unit of its metric."""
    return words.gate_value(row), words.gate_limits(row)


# ---------------------------------------------------------------- text

_HEAD = (
    *("started", "run", "suite", "model", "gate", "on"),
    *("value", "limits", "wanted", "n", "status", "exit"),
)
_RIGHT = frozenset({6, 7, 9, 11})


def _cells(row: Past) -> tuple[str, ...]:
    value, limits = shown(row)
    sha = f" {row.model_sha256}" if row.model_sha256 else ""
    cells = (
        row.started.removesuffix("+00:00"),
        row.run,
        row.suite,
        f"{row.model or words.NOTHING}{sha}",
        row.gate or words.NOTHING,
        f"{row.metric}: {row.subject}" if row.subject else row.metric or words.NOTHING,
        value,
        limits,
        row.threshold or words.NOTHING,
        f"{row.n:,}",
        row.status,
        str(row.exit_code),
    )
    return tuple(words.plain(cell) for cell in cells)


def as_text(rows: Sequence[Past]) -> str:
    """Aligned lines for a terminal, oldest first; times are UTC."""
    table = [[c.replace(words.NOTHING, "-") for c in line] for line in (_HEAD, *map(_cells, rows))]
    widths = [max(len(line[at]) for line in table) for at in range(len(_HEAD))]
    lines = [
        "  ".join(
            cell.rjust(width) if at in _RIGHT else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]
    return "\n".join(lines) + "\n"


def as_json(rows: Sequence[Past]) -> str:
    """A list of records, one per run and gate."""
    return json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n"


def as_csv(rows: Sequence[Past]) -> str:
    """The same records as CSV; an empty field is no number."""
    text = io.StringIO()
    names = [field.name for field in dataclasses.fields(Past)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    return text.getvalue()


# ---------------------------------------------------------------- page


def write(history: History, path: Path) -> None:
    """Write the page."""
    write_text(path, page(history))


def page(history: History) -> str:
    """One offline page without script or request; every name is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = (TEMPLATES / "trend.css").read_text(encoding="utf-8")
    css = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8") + own)  # noqa: S704  (ours)
    drawn = trends(history.rows)
    runs = dict.fromkeys((row.run, row.started) for row in history.rows)
    html = environment.get_template("trend.html.j2").render(
        css=css,
        policy=_policy(css),
        words=words,
        shown=shown,
        charts=[
            (each, chart(each.rows[-MOST_RUNS:], each.bounds, shown))
            for each in drawn[:MOST_CHARTS]
        ],
        most_runs=MOST_RUNS,
        charts_left=max(0, len(drawn) - MOST_CHARTS),
        rows=history.rows[::-1][:MOST_LINES],
        rows_left=max(0, len(history.rows) - MOST_LINES),
        runs=len(runs),
        suites=list(dict.fromkeys(row.suite for row in history.rows)),
        left_out=history.left_out,
    )
    return f"{html}\n".encode("utf-8", "replace").decode("utf-8")


def _policy(css: str) -> str:
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
