"""What a report sees of a run, and how it writes a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from ..errors import EnvironmentProblem, RobevalError
from ..types import CellResult, Comparison, Examples, Json, Plan, Samples, Summary, Verdict


class FinishedRun(Protocol):
    """A stored run with its summary; samples and examples are read one cell at a time."""

    @property
    def path(self) -> Path:
        """The run directory."""
        ...

    @property
    def manifest(self) -> Mapping[str, Json]:
        """Provenance, as in manifest.json."""
        ...

    @property
    def plan(self) -> Plan:
        """Every cell, in order."""
        ...

    @property
    def suite_text(self) -> str:
        """The suite as the user wrote it."""
        ...

    @property
    def results(self) -> Mapping[str, CellResult]:
        """Cell id -> result without samples."""
        ...

    @property
    def summary(self) -> Summary | None:
        """Rows and findings, once they are made."""
        ...

    @property
    def verdict(self) -> Verdict | None:
        """None if the run was not judged."""
        ...

    @property
    def comparison(self) -> Comparison | None:
        """What changed against the baseline, None without one."""
        ...

    def samples(self, cell_id: str) -> Samples | None:
        """The per-sample table of a cell, None if it has none."""
        ...

    def examples(self, cell_id: str) -> Examples | None:
        """The gallery images of a cell, None if it has none."""
        ...


def summary_of(run: FinishedRun) -> Summary:
    """The run's summary; an internal error if the run was not summarised before its reports."""
    if run.summary is None:
        raise RobevalError(f"internal error: '{run.path}' has no summary, nothing can be reported")
    return run.summary


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it replaces `path` when the block ends without an error."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(path)
    except OSError as problem:
        raise EnvironmentProblem(
            f"cannot write '{path}': {problem.strerror or problem}; the measured cells are kept:"
            " make room, then render again with `robeval report`"
        ) from problem
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a file by `text`, in UTF-8 with plain line feeds."""
    with writing(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")
