"""The tables of a run's analyses, and beside each how the report shows it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from . import plugins, store
from .blame import blaming
from .errors import PluginError
from .hookspecs import AnalysisSpec
from .params import referring, refers_to
from .plugins import Registry
from .stock import Stock, StockBench
from .store import StoredRun
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
) -> None:
    """Every analysis in the order of the suite; a later one finds the tables of the earlier.

    A run that was cut makes no model for the sake of an analysis alone. Raises `PluginError` for a
    table that lacks a column which its spec names to be shown.
    """
    there = {name for cell in run.plan.cells for name in (cell.model, cell.source)}
    for entry in entries:
        needed = {each.name for each in refers_to(entry.params) if each.kind == "model"}
        if run.partial and not needed <= there:
            missing = ", ".join(sorted(needed - there))
            log.warning("analysis '%s' is left out: this run has no %s", entry.name, missing)
            continue
        registered = registry.analyses[entry.analysis]
        params = dict(entry.params)
        if referring(registered.spec.params):
            params["bench"] = StockBench(stock, "", device)
        with blaming(registered, f"analysis '{registered.spec.name}'"):
            frame = cast("pd.DataFrame", plugins.implementation(registered)(run, **params))
            _write(run.path, entry.name, frame, registered.spec)


def table_path(run: Path, analysis: str) -> Path:
    """Where the table of an analysis stands in a run's folder."""
    return run / "tables" / f"{slug(analysis)}.csv"


def _write(run: Path, name: str, frame: pd.DataFrame, spec: AnalysisSpec) -> None:
    lacking = [each.name for each in spec.columns if each.name not in frame.columns]
    path = table_path(run, name)
    with store.naming_disk_problems(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False)
        shown: list[Json] = [dataclasses.asdict(each) for each in spec.columns]
        about: Json = {"summary": spec.summary, "paper": spec.paper, "columns": shown}
        store.write_json(path.with_suffix(".json"), about)
    if lacking:
        raise PluginError(
            f"analysis '{spec.name}' names the column '{lacking[0]}' to be shown, and its table has"
            f" {', '.join(map(str, frame.columns)) or 'none'}"
        )
