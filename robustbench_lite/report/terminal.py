"""The result on a terminal: a table, the gates, the verdict and where the report is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..types import (
    CLEAN,
    WORST_CASE,
    GateResult,
    GateStatus,
    Row,
    Severity,
    Summary,
    Verdict,
)
from .outcome import names, sentence
from .view import FinishedRun, summary_of
from .words import (
    NOTHING,
    SIGNS,
    attack_name,
    budget,
    count,
    decided_by,
    gate_limits,
    gate_value,
    interval,
    overall,
    percent,
    plain,
    told,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

MOST_ROWS = 80  # above it only clean passes, worst cases and what is not ok are printed
MOST_REASONS, MOST_CELLS = 12, 3  # why cells have no numbers, and how many are named
_COLOURS = {
    "PASS": "green",
    "COMPLETE": "green",
    "FAIL": "red",
    "INCONCLUSIVE": "yellow",
    "INVALID": "magenta",
    "NOT JUDGED": "cyan",
}
_GRAVEST: tuple[GateStatus, ...] = ("FAIL", "INVALID", "INCONCLUSIVE")
_STEPS = {
    1: "the evidence is complete, so another try gives the same; look at the broken samples",
    4: "run the same command with --resume --retry-errors; finished cells are kept",
    6: "give each undecided gate what it asks for, then run again; finished cells are kept",
    7: "put right what is named above, then run the same command with --retry-errors",
    8: "act on the error findings above; no rate of an invalid cell can be trusted",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table as text: `right` are the columns of numbers, `marks` the rows that stand out."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int]
    marks: frozenset[int] = frozenset()


def render(run: FinishedRun, console: Console, *, tty: bool | None = None) -> None:
    """Print the result: rich tables on a terminal, plain aligned lines elsewhere.

    `tty` decides instead of the console if given. Names are never read as markup.
    """
    if not (console.is_terminal if tty is None else tty):
        for line in lines(run):
            console.out(line, highlight=False)
        return
    from rich.text import Text

    for grid in _grids(run):
        console.print(rich_table(grid))
    if left := _left_out(summary_of(run)):
        console.print(Text(left, style="dim"))
    for status, text in _reasons(run.verdict):
        console.print(Text(text, style=_COLOURS[status]))
    for text in _unfinished(summary_of(run)):
        console.print(Text(text, style="magenta"))
    for severity, text in _warnings(summary_of(run)):
        console.print(Text(text, style="magenta" if severity == "error" else "yellow"))
    word = overall(run.verdict)
    verdict = Text(f" {SIGNS[word]} {word} ", style=f"bold reverse {_COLOURS[word]}")
    console.print(verdict, Text(_sentence(run.verdict), style="bold"))
    if compared := _compared(run):
        console.print(Text(compared))
    if step := _next(run):
        console.print(Text(step))
    console.print(Text(f"report: {_where(run)}"), soft_wrap=True)


def lines(run: FinishedRun) -> list[str]:
    """The result as plain lines, ASCII but for the user's own names."""
    summary = summary_of(run)
    found: list[str] = []
    for grid in _grids(run):
        found += [*aligned(grid), ""]
    if left := _left_out(summary):
        found += [left, ""]
    told = [text for _, text in _reasons(run.verdict)]
    findings = [line for _, text in _warnings(summary) for line in text.split("\n")]
    for block in (told, _unfinished(summary), findings):
        if block:
            found += [*block, ""]
    found.append(f"verdict: {overall(run.verdict)}: {_sentence(run.verdict)}")
    if compared := _compared(run):
        found.append(compared)
    if step := _next(run):
        found.append(step)
    found.append(f"report: {_where(run)}")
    return found


def _sentence(verdict: Verdict | None) -> str:
    if verdict is None:
        return "This run was not judged."
    return plain(f"{verdict.sentence} (exit {verdict.exit_code})")


def _compared(run: FinishedRun) -> str:
    """What changed against the baseline, "" without one."""
    return "" if run.comparison is None else plain(f"baseline: {sentence(run.comparison)}")


def _next(run: FinishedRun) -> str:
    """What to do about a verdict that does not let the model pass, "" about one that does."""
    code = run.verdict.exit_code if run.verdict else 0
    if code == 4 and summary_of(run).partial:
        return ""  # the sentence says it
    return f"next: {_STEPS[code]}" if code in _STEPS else ""


def _reasons(verdict: Verdict | None) -> list[tuple[GateStatus, str]]:
    """Why gates do not pass, each with its line of the suite, the gravest first."""
    bad = [gate for gate in (verdict.gates if verdict else ()) if gate.status in _GRAVEST]
    found: list[tuple[GateStatus, str]] = []
    for gate in sorted(bad, key=lambda gate: _GRAVEST.index(gate.status)):
        subject = f", {gate.subject}" if gate.subject else ""
        said = f"{gate.status}: gate '{gate.gate}'{subject}: {decided_by(gate)} ({gate.where})"
        found.append((gate.status, plain(said)))
    return found


def _unfinished(summary: Summary) -> list[str]:
    """Why cells have no numbers, a line for each reason."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for row in summary.rows:
        if row.status in ("failed", "timeout") and row.attack != WORST_CASE:
            spent = "" if row.attack == CLEAN else f" {budget(row)}"
            groups.setdefault((row.status, row.model, row.reason), []).append(
                f"{attack_name(row)}{spent}"
            )
    told = [
        plain(f"{status}: {names(cells, MOST_CELLS)} on model '{model}': {reason}")
        for (status, model, reason), cells in groups.items()
    ]
    left = len(told) - MOST_REASONS
    return [*told[:MOST_REASONS], *([f"{left:,} more, in tables/cells.csv"] if left > 0 else [])]


def _warnings(summary: Summary) -> list[tuple[Severity, str]]:
    """Errors and warnings about the measurement, errors first, with what to do."""
    found = [finding for finding in summary.findings if finding.severity != "note"]
    return [
        (
            finding.severity,
            plain(f"{finding.severity}: {told(finding)}")
            + "\n"
            + plain(f"  help: {finding.advice}"),
        )
        for finding in sorted(found, key=lambda finding: finding.severity != "error")
    ]


def _where(run: FinishedRun) -> str:
    page = run.path / "report.html"
    return plain(str(page if page.is_file() else run.path))


def _grids(run: FinishedRun) -> list[Grid]:
    grids = [_cells(summary_of(run))]
    if run.verdict is not None and run.verdict.gates:
        grids.append(_gates(run.verdict.gates))
    return grids


def _shown(summary: Summary) -> list[Row]:
    if len(summary.rows) <= MOST_ROWS:
        return list(summary.rows)
    return [row for row in summary.rows if row.attack in (CLEAN, WORST_CASE) or row.status != "ok"]


def _left_out(summary: Summary) -> str:
    left = len(summary.rows) - len(_shown(summary))
    return f"{left:,} more rows in tables/cells.csv" if left else ""


def _cells(summary: Summary) -> Grid:
    places: dict[tuple[str, str], list[Row]] = {}
    for row in _shown(summary):
        places.setdefault((row.dataset, row.model), []).append(row)
    rows = [row for group in places.values() for row in group]
    marks = {at for at, row in enumerate(rows) if row.attack == WORST_CASE}
    return Grid(
        title="robust accuracy: correct and unbroken, of all samples [95 % interval]",
        head=("model", "dataset", "attack", "eps", "robust accuracy", "broken", "n", "queries"),
        rows=tuple(_cell_line(row) for row in rows),
        right=frozenset({4, 5, 6, 7}),
        marks=frozenset(marks),
    )


def _cell_line(row: Row) -> tuple[str, ...]:
    robust, broken = row.robust_accuracy, row.attack_success_rate
    shown: str = row.status
    if row.status == "ok" and robust is not None:
        shown = f"{percent(robust.value)} [{interval(robust.low, robust.high)}]"
    role = " (control)" if row.role == "control" and row.attack != CLEAN else ""
    name = attack_name(row)
    return (
        plain(row.model),
        plain(row.dataset),
        plain(name if name.endswith(role) else name + role),
        plain(budget(row)),
        shown,
        percent(broken.value if broken else None),
        f"{row.n:,}",
        count(row.queries_mean),
    )


def _gates(results: Sequence[GateResult]) -> Grid:
    return Grid(
        title="gates",
        head=("gate", "status", "on", "value", "limits", "wanted", "n"),
        rows=tuple(_gate_line(result) for result in results),
        right=frozenset({3, 4, 6}),
    )


def _gate_line(result: GateResult) -> tuple[str, ...]:
    return (
        plain(result.gate),
        result.status,
        plain(f"{result.metric}: {result.subject}" if result.subject else result.metric),
        gate_value(result),
        gate_limits(result),
        result.threshold,
        f"{result.n:,}",
    )


def aligned(grid: Grid) -> list[str]:
    """A grid as plain lines: its title, its head, its rows."""
    table = [grid.head, *grid.rows]
    ascii_table = [[cell.replace(NOTHING, "-") for cell in line] for line in table]
    widths = [max(len(line[at]) for line in ascii_table) for at in range(len(grid.head))]
    found = [f"{grid.title}"]
    for line in ascii_table:
        cells = [
            cell.rjust(width) if at in grid.right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        found.append("  ".join(cells).rstrip())
    return found


def rich_table(grid: Grid) -> Table:
    """A grid as a rich table; no cell is read as markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=grid.title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for at, name in enumerate(grid.head):
        table.add_column(Text(name), justify="right" if at in grid.right else "left")
    for at, line in enumerate(grid.rows):
        style = "bold" if at in grid.marks else ""
        cells: list[Text] = [Text(cell, style=_COLOURS.get(cell, "")) for cell in line]
        table.add_row(*cells, style=style)
    return table
