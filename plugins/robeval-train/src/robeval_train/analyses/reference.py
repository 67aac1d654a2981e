"""The reference table: a paper's numbers beside ours, with the window that was agreed before."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field, FiniteFloat, model_validator

from robustbench_lite import AnalysisSpec, Column, Params

if TYPE_CHECKING:
    import pandas as pd

    from robustbench_lite import StoredRun

CELLS = "cells"
COLUMNS = (
    "id", "what", "paper", "provenance", "setting_matched", "ours", "lo", "hi", "n", "difference",
    "window", "inside", "verdict", "unit", "note",
)  # fmt: skip
Record = Mapping[str, object]


Matched = Literal["yes", "no", "unknown"]


class Measure(Params):
    """One number of the run: `column` of the only row of `table` with the values of `where`.

    A list of values in `where` allows any of them.

    `table`: `cells`, or the name of an analysis that stands earlier in the suite; its limits are
    the columns `<column>_lo` and `<column>_hi`. `mean`: take the mean over several rows instead.
    `times`: scales the number.
    """

    table: str = CELLS
    where: dict[str, str | int | float | tuple[str, ...]] = Field(default_factory=dict)
    column: str
    mean: bool = False
    times: FiniteFloat = 1.0


class Claim(Params):
    """One row of the reference table.

    `paper`: its number, None for an addition of ours. `source`: provenance: S the seed document,
    V read in a primary source, T third party, M memory, D derived, C calibrated here. `matched`:
    whether the paper's setting is ours, or that per profile. `window`: per profile, from which
    value to which an honest reproduction should come. `below`: another number that ours must stay
    under, by at least `by`. `hard`: profiles in which a row that is not inside fails its gate.
    `profiles`: where the row stands at all (all, if left out).
    """

    id: str
    what: str
    paper: FiniteFloat | None = None
    source: Literal["S", "V", "T", "M", "D", "C"] | None = None
    matched: Matched | dict[str, Matched] = "unknown"
    ours: Measure
    window: dict[str, tuple[FiniteFloat, FiniteFloat]] = Field(default_factory=dict)
    below: Measure | None = None
    by: FiniteFloat = 0.0
    hard: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    unit: Literal["percent", "number"] = "percent"
    note: str = ""

    @model_validator(mode="after")
    def _decidable(self) -> Claim:
        undecided = [name for name in self.hard if name not in self.window]
        if undecided and self.below is None:
            raise ValueError(f"'{self.id}' is hard in '{undecided[0]}' and has no window there")
        return self


class ReferenceParams(Params):
    """`profile`: which windows count. `rows`: the claims, in the order of the table."""

    profile: str
    rows: tuple[Claim, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Found:
    """A number of the run with its 95 % limits, where it has any; or why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    why: str = ""


def reference(run: StoredRun, *, profile: str, rows: tuple[Claim, ...]) -> pd.DataFrame:
    """One row per claim that the profile has.

    inside: whether ours lies in the window and below what it must stay under. verdict: of a hard
    row `holds`, `fails` or `no evidence`, for a gate; of any other `reported`.
    """
    import pandas as pd

    tables = Tables(run)
    kept = [claim for claim in rows if not claim.profiles or profile in claim.profiles]
    return pd.DataFrame([_row(claim, profile, tables) for claim in kept], columns=list(COLUMNS))


def _row(claim: Claim, profile: str, tables: Tables) -> dict[str, object]:
    found = tables.look_up(claim.ours)
    window = claim.window.get(profile)
    other = tables.look_up(claim.below) if claim.below is not None else None
    inside = _inside(found, window, other, claim.by)
    reasons = [claim.note, found.why, other.why if other else ""]
    return {
        "id": claim.id,
        "what": claim.what,
        "paper": claim.paper,
        "provenance": claim.source,
        "setting_matched": claim.matched
        if isinstance(claim.matched, str)
        else claim.matched.get(profile, "unknown"),
        "ours": found.value,
        "lo": found.low,
        "hi": found.high,
        "n": found.n,
        "difference": _difference(found.value, claim.paper),
        "window": _words(window, other, claim.by, claim.unit),
        "inside": "" if inside is None else "yes" if inside else "no",
        "verdict": _verdict(inside, hard=profile in claim.hard),
        "unit": claim.unit,
        "note": "; ".join(filter(None, reasons)),
    }


def _inside(
    found: Found, window: tuple[float, float] | None, other: Found | None, by: float
) -> bool | None:
    """Whether the number is where it should be; None where nothing says where, or it is missing."""
    if (window is None and other is None) or found.value is None:
        return None
    if other is not None and other.value is None:
        return None
    within = window is None or window[0] <= found.value <= window[1]
    below = other is None or other.value is None or found.value + by <= other.value
    return within and below


def _verdict(inside: bool | None, *, hard: bool) -> str:
    if not hard:
        return "reported"
    return "no evidence" if inside is None else "holds" if inside else "fails"


def _difference(ours: float | None, paper: float | None) -> float | None:
    return None if ours is None or paper is None else ours - paper


def _words(window: tuple[float, float] | None, other: Found | None, by: float, unit: str) -> str:
    parts = [] if window is None else [f"{_shown(window[0], unit)} to {_shown(window[1], unit)}"]
    if other is not None:
        under = f"below {_shown(other.value, unit)}"
        parts.append(f"{under} by {_shown(by, unit)}" if by else under)
    return " and ".join(parts)


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return "?"
    return f"{100 * value:.4g} %" if unit == "percent" else f"{value:.4g}"


class Tables:
    """The numbers of a run: its cells, and the tables of earlier analyses."""

    def __init__(self, run: StoredRun) -> None:
        self.run = run
        self.known: dict[str, Sequence[Record]] = {}

    def look_up(self, measure: Measure) -> Found:
        """The number, or why there is none."""
        rows = [row for row in self._table(measure.table) if _matches(row, measure.where)]
        place = f"{measure.table} with {measure.where}"
        if not rows or (len(rows) > 1 and not measure.mean):
            return Found(None, why=f"{len(rows)} rows of {place}, expected 1")
        found = [_number(row, measure) for row in rows]
        if any(each.value is None for each in found):
            status = next(
                (str(row["status"]) for row in rows if row.get("status", "ok") != "ok"), ""
            )
            return Found(None, why=f"no {measure.column} in {place} {status}".rstrip())
        if len(found) == 1:
            return found[0]
        values = [each.value for each in found if each.value is not None]
        return Found(sum(values) / len(values), n=sum(each.n or 0 for each in found) or None)

    def _table(self, name: str) -> Sequence[Record]:
        if name not in self.known:
            self.known[name] = _cells(self.run) if name == CELLS else _read(self.run, name)
        return self.known[name]


def _cells(run: StoredRun) -> list[Record]:
    """The rows of the summary; a row that is not ok has no rates."""
    assert run.summary is not None
    rows: list[Record] = []
    for row in run.summary.rows:
        plain: dict[str, object] = {
            "model": row.model,
            "dataset": row.dataset,
            "attack": row.attack,
            "source": row.source,
            "eps": row.eps.text if row.eps else "",
            "status": row.status,
            "n": row.n,
            "confidence_on_mistakes": row.confidence_on_mistakes,
        }
        for name in ("clean_accuracy", "robust_accuracy", "adversarial_error"):
            rate = getattr(row, name)
            plain |= {
                name: rate.value if rate else None,
                f"{name}_lo": rate.low if rate else None,
                f"{name}_hi": rate.high if rate else None,
            }
        rows.append(plain)
    return rows


def _read(run: StoredRun, name: str) -> list[Record]:
    path = run.path / "tables" / f"{name}.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _matches(row: Record, where: Mapping[str, str | int | float | tuple[str, ...]]) -> bool:
    return all(
        any(_same(row.get(key), each) for each in (value if isinstance(value, tuple) else (value,)))
        for key, value in where.items()
    )


def _same(found: object, wanted: str | float) -> bool:
    if isinstance(wanted, str):
        return str(found) == wanted
    number = _float(found)
    return number is not None and math.isclose(number, wanted, rel_tol=1e-9)


def _number(row: Record, measure: Measure) -> Found:
    value, low, high = (_float(row.get(f"{measure.column}{end}")) for end in ("", "_lo", "_hi"))
    n = _float(row.get("n"))
    scaled = [None if each is None else each * measure.times for each in (value, low, high)]
    return Found(scaled[0], scaled[1], scaled[2], None if n is None else int(n))


def _float(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


SPEC = AnalysisSpec(
    name="reference-table",
    implementation=reference,
    summary="a paper's numbers beside ours, with the windows that were agreed before",
    params=ReferenceParams,
    columns=(
        Column(name="id", title="Row"),
        Column(name="what", title="What is measured", below="note"),
        Column(name="paper", title="Paper", unit="unit"),
        Column(name="provenance", title="Provenance"),
        Column(name="setting_matched", title="Setting matched"),
        Column(name="ours", title="Ours [95 %]", unit="unit", low="lo", high="hi"),
        Column(name="n", title="Samples", shown="number"),
        Column(name="difference", title="Difference", unit="unit", signed=True),
        Column(name="window", title="Window"),
        Column(name="inside", title="Inside", shown="mark"),
        Column(name="verdict", title="Verdict"),
    ),
)
