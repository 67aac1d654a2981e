"""A cell in words, as every finding names it."""

from __future__ import annotations

from ..types import NO_NORM, Cell


def subject(cell: Cell) -> str:
    """Entry, eps, source and model of a cell."""
    norm = "strength" if cell.norm == NO_NORM else cell.norm
    eps = "" if cell.eps is None else f" at {norm} {cell.eps.text}"
    source = "" if cell.source == cell.model else f" from '{cell.source}'"
    return f"'{cell.entry}'{eps}{source} on '{cell.model}'"
