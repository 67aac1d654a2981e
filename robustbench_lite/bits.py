"""Which samples stayed right under one row of a summary, be it a cell or a union of cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .types import CLEAN, Row, Samples

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bits:
    """What became of the n samples of a row, in the order of its tables.

    `robust`: clean-correct and unbroken by every cell of the row; `survived`: broken still after
    rounding to 8 bits, None for a union.
    """

    sample_id: NDArray[np.object_]
    sample_hash: NDArray[np.object_]
    label: NDArray[np.int64]
    correct: Mask
    robust: Mask
    adv_correct: Mask
    survived: Mask | None

    @property
    def broken(self) -> Mask:
        """Right on the clean input, and broken."""
        return self.correct & ~self.robust


def of_row(
    row: Row, rows: Mapping[str, Row], samples: Callable[[str], Samples | None]
) -> Bits | None:
    """The bits of a row whose status is ok; None where a table is lost.

    `rows`: the rows of the summary by cell id. A union is that of its members which are ok: the
    others are stood in for (see `summary`).
    """
    members = [name for name in row.members if rows[name].status == "ok"] or [row.cell_id]
    found: Bits | None = None
    for name in members:
        table = samples(name)
        if table is None:
            return None
        here = _of_table(table, union=bool(row.members), clean=row.attack == CLEAN)
        found = here if found is None else _both(found, here)
    return found


def _of_table(table: Samples, *, union: bool, clean: bool) -> Bits:
    correct = table.clean_correct
    robust = correct if clean else correct & ~table.success
    return Bits(
        sample_id=table.sample_id,
        sample_hash=table.sample_hash,
        label=table.label,
        correct=correct,
        robust=robust,
        adv_correct=correct if clean else table.adv_correct,
        survived=None if union else correct & table.success & table.survives_uint8,
    )


def _both(one: Bits, other: Bits) -> Bits:
    return Bits(
        sample_id=one.sample_id,
        sample_hash=one.sample_hash,
        label=one.label,
        correct=one.correct & other.correct,
        robust=one.robust & other.robust,
        adv_correct=one.adv_correct & other.adv_correct,
        survived=None,
    )
