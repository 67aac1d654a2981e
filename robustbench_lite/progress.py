"""Progress on stderr: bars on a terminal, one line per finished cell elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from .types import CLEAN, NO_NORM, Cell, CellResult

if TYPE_CHECKING:
    from rich.progress import Progress

HEARTBEAT = 30.0  # seconds without a finished cell after which a plain log says where it is


def describe(cell: Cell) -> str:
    """A cell in a few words."""
    if cell.attack == CLEAN:
        return f"{cell.model} on {cell.dataset}: clean"
    norm = "strength" if cell.norm == NO_NORM else cell.norm
    eps = f" {norm} {cell.eps.text}" if cell.eps else ""
    source = "" if cell.source == cell.model else f" from {cell.source}"
    return f"{cell.model} on {cell.dataset}: {cell.entry}{eps}{source}"


def line(result: CellResult) -> str:
    """One finished cell in one line: status, robust accuracy, seconds."""
    text = f"{describe(result.cell)}: {result.status}"
    if result.samples is not None:
        robust = result.samples.clean_correct & ~result.samples.success
        text += f", {100 * robust.mean():.1f} % of {len(robust)} robust, {result.seconds:.1f} s"
    return f"{text} ({result.reason})" if result.reason else text


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def advanced(self, cell: Cell, done: int, total: int, robust: int) -> None:
        """Nothing to show."""

    def finished(self, result: CellResult) -> None:
        """Nothing to show."""


class Lines(Silent):
    """One line per finished cell, and a heartbeat in long ones."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._count = 0
        self._last = time.monotonic()

    def advanced(self, cell: Cell, done: int, total: int, robust: int) -> None:
        """Say where it is, at most every 30 seconds."""
        if time.monotonic() - self._last >= HEARTBEAT:
            self._write(f"... {describe(cell)}: {done} of {total} samples, {robust} robust")

    def finished(self, result: CellResult) -> None:
        """Print the cell's line; a stand-in that was not needed has none."""
        if result.cell.fallback_for and result.status == "skipped":
            return
        self._count += 1
        self._write(f"[{self._count}] {line(result)}")

    def _write(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()
        self._last = time.monotonic()


class Bars:
    """Two bars on a terminal: cells, and the samples of the running cell with live accuracy."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._progress: Progress = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._cells = self._progress.add_task("cells finished", total=None)
        self._samples = self._progress.add_task("samples", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def advanced(self, cell: Cell, done: int, total: int, robust: int) -> None:
        """Move the sample bar."""
        text = f"{describe(cell)} ({100 * robust / max(done, 1):.1f} % robust)"
        self._progress.update(self._samples, description=text, completed=done, total=total)

    def finished(self, result: CellResult) -> None:
        """Move the cell bar and leave the cell's line above the bars."""
        self._progress.console.print(line(result), markup=False, highlight=False)
        self._progress.advance(self._cells)


def display(stream: TextIO, *, quiet: bool, terminal: bool) -> Silent | Lines | Bars:
    """The observer for this stream."""
    if quiet:
        return Silent()
    return Bars() if terminal else Lines(stream)
