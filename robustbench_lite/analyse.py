"""The tables of a run's analyses, and beside each how the report shows it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from . import plugins, store
from .errors import FOREIGN, EnvironmentProblem, PluginError
from .hookspecs import AnalysisSpec, Column
from .params import referring, refers_to
from .plugins import Registered, Registry
from .raised import cause
from .stock import Stock, StockBench
from .store import StoredRun
from .types import FailedAnalysis
from .words import slug

if TYPE_CHECKING:
    import pandas as pd

    from .types import AnalysisEntry, Json

log = logging.getLogger(__name__)


def analyse(
    run: StoredRun,
    entries: Iterable[AnalysisEntry],
    registry: Registry,
    stock: Stock,
    device: str,
) -> tuple[FailedAnalysis, ...]:
    """Every analysis in the order of the suite; a later one finds the tables of the earlier.

    A run that was cut makes no model for the sake of an analysis alone. What an analysis raises,
    and a table that is none or lacks a column which its spec names, fails that analysis alone: the
    cells are measured, whatever is made of them. Its traceback is logged.
    """
    there = {name for cell in run.plan.cells for name in (cell.model, cell.source)}
    failed: list[FailedAnalysis] = []
    for entry in entries:
        needed = {each.name for each in refers_to(entry.params) if each.kind == "model"}
        if run.partial and not needed <= there:
            missing = ", ".join(sorted(needed - there))
            log.warning("analysis '%s' is left out: this run has no %s", entry.name, missing)
            continue
        registered = registry.analyses[entry.analysis]
        try:
            frame = _frame(run, entry, registered, stock, device)
        except FOREIGN as problem:  # of this analysis alone: the cells stand
            log.info("analysis '%s' failed", entry.name, exc_info=True)
            failed.append(_failed(entry, registered, problem))
            continue
        _write(run.path, entry.name, frame, registered.spec)
        if lacks := _lacks(frame, registered.spec):
            failed.append(_failed(entry, registered, PluginError(lacks)))
    return tuple(failed)


def table_path(run: Path, analysis: str) -> Path:
    """Where the table of an analysis stands in a run's folder."""
    return run / "tables" / f"{slug(analysis)}.csv"


def forget(run: Path, entries: Iterable[AnalysisEntry]) -> None:
    """Drop the tables of an earlier try: no gate may read them for those of today."""
    for entry in entries:
        path = table_path(run, entry.name)
        with store.naming_disk_problems(path.parent):
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)


def _frame(
    run: StoredRun,
    entry: AnalysisEntry,
    registered: Registered[AnalysisSpec],
    stock: Stock,
    device: str,
) -> pd.DataFrame:
    import pandas as pd

    params = dict(entry.params)
    if referring(registered.spec.params):
        params["bench"] = StockBench(stock, "", device)
    frame = plugins.implementation(registered)(run, **params)
    if not isinstance(frame, pd.DataFrame):
        raise PluginError(f"it returned {type(frame).__name__}, expected a pandas.DataFrame")
    return frame


def _failed(
    entry: AnalysisEntry, registered: Registered[AnalysisSpec], problem: BaseException
) -> FailedAnalysis:
    """Why it failed, in one line: what robeval says itself needs no name of a class before it."""
    told = cause(problem)
    log.error("analysis '%s' of %s failed: %s", entry.name, registered.plugin, told)
    return FailedAnalysis(
        name=entry.name, reason=told, environment=isinstance(problem, EnvironmentProblem)
    )


def _lacks(frame: pd.DataFrame, spec: AnalysisSpec) -> str:
    """The columns that the spec names to be shown and the table does not have, "" without any."""
    shown = {name for each in spec.columns for name in _names(each)}
    lacking = sorted(shown - set(frame.columns))
    if not lacking:
        return ""
    return (
        f"its spec names the column '{lacking[0]}' to be shown; the columns of its table are"
        f" {', '.join(map(str, frame.columns)) or 'none'}"
    )


def _names(column: Column) -> Iterator[str]:
    """The columns of the table that a shown one takes anything from."""
    yield from filter(None, (column.name, column.unit, column.low, column.high, column.below))


def _write(run: Path, name: str, frame: pd.DataFrame, spec: AnalysisSpec) -> None:
    path = table_path(run, name)
    with store.naming_disk_problems(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False)
        shown: list[Json] = [dataclasses.asdict(each) for each in spec.columns]
        about: Json = {"summary": spec.summary, "paper": spec.paper, "columns": shown}
        store.write_json(path.with_suffix(".json"), about)
