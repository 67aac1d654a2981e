"""How much one page shows: 5 MB at most, and what is left out is counted on it."""

from __future__ import annotations

from dataclasses import dataclass

MOST_BYTES = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a page has room for; everything that is left out stands in the files of the run.

    `models`: pairs of model and dataset shown in detail, the first of the plan. `cells`: rows of
    the table of all cells. `lines`: of any other table. `pictures`: bytes of pictures.
    `text`: characters of the suite, and of the reasons and messages that others wrote.
    """

    models: int
    charts: int
    cells: int
    lines: int
    pictures: int
    text: int


LEVELS = (
    Limits(models=20, charts=120, cells=2000, lines=300, pictures=2_000_000, text=100_000),
    Limits(models=8, charts=30, cells=600, lines=120, pictures=900_000, text=20_000),
    Limits(models=2, charts=6, cells=100, lines=30, pictures=150_000, text=4_000),
    Limits(models=0, charts=0, cells=20, lines=10, pictures=0, text=1_000),
)
"""Tried in turn until the page is small enough."""
