"""A run as pandas frames, for people who analyse; columns are documented in reports/README.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from . import records, store
from .assess import Assessed, assess
from .report import tables
from .types import Finding, GateResult, Json

if TYPE_CHECKING:
    import pandas as pd

    from .store import StoredRun


class Frames:
    """A run directory as frames, each read when it is first asked for; no plug-in is needed.

    `path`: the directory. `stored`: the run as reporters get it.
    """

    def __init__(self, stored: StoredRun) -> None:
        self.path = stored.path
        self.stored = stored

    def __repr__(self) -> str:
        return f"<run '{self.path}': cells, metrics, samples, findings, gates>"

    @cached_property
    def _assessed(self) -> Assessed:
        return assess(self.stored, records.gates_from_json(self.stored.manifest.get("gates")))

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per cell and eps, with clean passes and worst cases: tables/cells.csv."""
        import pandas as pd

        rows = [tables.cell_values(row) for row in self._assessed.summary.rows]
        return pd.DataFrame(rows, columns=list(tables.CELL_COLUMNS))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The same numbers in long form, one row per number: tables/metrics.csv."""
        import pandas as pd

        rows = [
            tables.metric_values(row, metric)
            for row in self._assessed.summary.rows
            for metric in tables.metrics(row)
        ]
        return pd.DataFrame(rows, columns=list(tables.METRIC_COLUMNS))

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per sample and cell, all cells at once: tables/samples.parquet."""
        import pandas as pd

        parts = [self.samples_of(cell_id) for cell_id in self.stored.results]
        some = [part for part in parts if len(part)]
        if not some:
            return pd.DataFrame(columns=list(tables.SAMPLE_COLUMNS))
        return pd.concat(some, ignore_index=True)

    def samples_of(self, cell_id: str) -> pd.DataFrame:
        """The samples of one cell; no rows if it has none."""
        import pandas as pd

        table = self.stored.samples(cell_id)
        if table is None:
            return pd.DataFrame(columns=list(tables.SAMPLE_COLUMNS))
        frame = pd.DataFrame({name: getattr(table, name) for name in records.COLUMNS})
        frame.insert(0, "cell_id", cell_id)
        return frame

    @cached_property
    def findings(self) -> pd.DataFrame:
        """What was found about the measurement, one row each; `cells` holds their ids."""
        found = self._read(store.FINDINGS)
        if found is None:
            found = [
                {field.name: getattr(each, field.name) for field in fields(each)}
                for each in self._assessed.findings
            ]
        return _frame(found, Finding)

    @cached_property
    def gates(self) -> pd.DataFrame:
        """One row per gate and cell that it judges; none before the run was judged."""
        verdict = self._read(store.GATES)
        gates = verdict.get("gates", ()) if isinstance(verdict, Mapping) else ()
        return _frame(gates, GateResult)

    def _read(self, name: str) -> Json:
        path = self.path / name
        if not path.is_file():
            return None
        return cast("Json", json.loads(path.read_text(encoding="utf-8")))


def _frame(rows: object, kind: type[Finding | GateResult]) -> pd.DataFrame:
    """Records as a frame that has all columns of their kind, even without a row."""
    import pandas as pd

    frame = pd.DataFrame(list(cast("Sequence[Mapping[str, object]]", rows)))
    names = [field.name for field in fields(kind)]
    return frame.reindex(columns=[*names, *(name for name in frame.columns if name not in names)])


def load_run(path: str | Path) -> Frames:
    """The run in a directory as frames. Raises UsageError if it is none."""
    return Frames(store.load_run(path))
