"""The tables that analyses wrote, as the page shows them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ..hookspecs import Column
from . import words

_OWN_TABLES = ("cells.csv", "metrics.csv")
_GLANCE = 24
_SIGNS = {"yes": "✓ yes", "no": "✗ no"}


@dataclass(frozen=True, slots=True)
class Shown:
    """A value as text, its class on the page (`num`, `yes`, `no` or nothing), what is below it."""

    text: str
    look: str = ""
    below: str = ""


@dataclass(frozen=True, slots=True)
class Analysis:
    """A table that an analysis wrote: its first lines, and how many more there are."""

    name: str
    summary: str
    paper: str
    head: tuple[Shown, ...]
    lines: tuple[tuple[Shown, ...], ...]
    left: int


def analyses(folder: Path, most: int) -> Iterator[Analysis]:
    """The tables of a run's folder beside our own; only the first lines of each are held.

    `most`: lines of a table whose columns were chosen to be read; of any other a glance, 1 in 24.
    """
    for path in sorted(folder.glob("*.csv")):
        if path.name in _OWN_TABLES:
            continue
        about = _about(path)
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            names = reader.fieldnames or ()
            columns = [each for each in _columns(about) if each.name in names]
            room = most if columns else most // _GLANCE
            columns = columns or [Column(name=name, title=_title(name)) for name in names]
            lines: list[tuple[Shown, ...]] = []
            left = 0
            for line in reader:
                if len(lines) < room:
                    lines.append(tuple(_shown(column, line) for column in columns))
                else:
                    left += 1
        head = tuple(Shown(each.title, "num" if _is_number(each) else "") for each in columns)
        summary, paper = (str(about.get(key, "")) for key in ("summary", "paper"))
        yield Analysis(path.stem, summary, paper, head, tuple(lines), left)


def _about(table: Path) -> Mapping[str, object]:
    """What the spec of the analysis said; nothing for a table of an older run."""
    path = table.with_suffix(".json")
    if not path.is_file():
        return {}
    found: object = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def _columns(about: Mapping[str, object]) -> list[Column]:
    told = about.get("columns")
    columns = told if isinstance(told, Sequence) else []
    known = {field.name for field in fields(Column)}  # a later robeval may have said more
    return [Column(**{key: each[key] for key in known & each.keys()}) for each in columns]


def _title(name: str) -> str:
    return name.replace("_", " ") or words.NOTHING


def _is_number(column: Column) -> bool:
    return bool(column.unit) or column.shown in {"number", "percent"}


def _shown(column: Column, line: Mapping[str, str]) -> Shown:
    text, below = line.get(column.name) or "", line.get(column.below) or ""
    if column.shown == "mark":
        return Shown(_SIGNS.get(text, text), text if text in _SIGNS else "", below)
    if not _is_number(column):
        return Shown(words.cell(text), "", below)
    unit = line.get(column.unit, "number") if column.unit else column.shown
    ends = [_number(line.get(name) or "", unit) for name in (column.low, column.high) if name]
    between = f"[{ends[0]}, {ends[1]}]" if len(ends) == 2 and all(ends) else ""
    value = _number(text, unit, signed=column.signed)
    return Shown(value, "num", "; ".join(filter(None, (between, below))))


def _number(text: str, unit: str, *, signed: bool = False) -> str:
    """A number in its unit; what is none, as it is."""
    try:
        value = float(text)
    except ValueError:
        return text
    if not math.isfinite(value):
        return text
    sign = "+" if signed else ""
    if unit == "percent":
        return f"{100 * value:{sign}.2f} %"
    whole = value.is_integer() and abs(value) < 1e15
    return f"{value:{sign},.0f}" if whole else f"{value:{sign}.4g}"
