"""The report `reference`: the reference table as Markdown, fit to be committed."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_lite import ReporterSpec

if TYPE_CHECKING:
    from robustbench_lite import StoredRun

FILE = "reference.md"
_MARK = ("id", "what", "paper", "provenance")
_CASES = ("case", "n")
_LIMITS = ("_lo", "_hi")
Row = Mapping[str, str]


def write(run: StoredRun) -> None:
    """Write reference.md from every table of the run that is a reference table or one of cases."""
    tables = sorted((run.path / "tables").glob("*.csv"))
    claims = [rows for rows in (_rows(path, _MARK) for path in tables) if rows]
    parts = [_head(run, claims=bool(claims)), *(_table(rows) for rows in claims)]
    parts += [_cases(path.stem, rows) for path in tables if (rows := _rows(path, _CASES))]
    parts.append(_seconds(run))
    (run.path / FILE).write_text("\n".join(parts), encoding="utf-8")


def _rows(path: Path, mark: tuple[str, ...]) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        return list(reader) if tuple(reader.fieldnames or ())[: len(mark)] == mark else []


def _head(run: StoredRun, *, claims: bool) -> str:
    manifest = run.manifest
    versions = manifest.get("versions")
    torch = versions.get("torch") if isinstance(versions, Mapping) else None
    verdict = "" if run.verdict is None else f"\n\nVerdict: {run.verdict.sentence}"
    head = (
        f"# {manifest.get('suite')}: the paper's numbers and ours\n\n"
        f"Written by `{_command(run)}`, started {manifest.get('started')}"
        f"{f' with torch {torch}' if torch else ''}, seed {manifest.get('seed')}.{verdict}\n"
    )
    if not claims:
        return head
    return (
        f"{head}\nEvery rate is over all samples of its row, with its 95 % Wilson interval."
        " Provenance of the paper's number: S the seed document, V read in a primary source, T a"
        " third party's, M from memory, D derived, C calibrated by us. A window is what an honest"
        " reproduction should reach in this profile; it was set before the run. `hard` rows are"
        " gates.\n"
    )


def _command(run: StoredRun) -> str:
    """What was asked for, without the paths of the machine that it ran on."""
    argv = run.manifest.get("argv")
    words = [str(word) for word in argv] if isinstance(argv, list | tuple) else []
    sets = [f"--set {words[at + 1]}" for at, word in enumerate(words[:-1]) if word == "--set"]
    return " ".join(["robeval run", f"suites/{run.manifest.get('suite_file')}", *sets])


def _table(rows: list[Row]) -> str:
    head = ("row", "what", "paper", "", "matched", "ours", "95 %", "n", "difference", "window",
            "inside")  # fmt: skip
    lines = [head, ("---",) * len(head), *(_line(row) for row in rows)]
    notes = [f"- **{row['id']}** {row['what']}: {row['note']}" for row in rows if row["note"]]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([text, *(["", "Notes:", "", *notes] if notes else []), ""])


def _cases(name: str, rows: list[Row]) -> str:
    """A table of cases: shares in percent; how wide their limits are stands once, below."""
    keys = [key for key in rows[0] if not key.endswith(_LIMITS)]
    lines = [keys, ["---"] * len(keys)]
    for row in rows:
        cells = [_shown(row[key], "percent") for key in keys[2:]]
        lines.append([row["case"].replace("|", "\\|"), row["n"].removesuffix(".0"), *cells])
    ends = [
        (row[f"{key}_lo"], row[f"{key}_hi"]) for row in rows for key in keys if f"{key}_lo" in row
    ]
    widest = max((float(high) - float(low) for low, high in ends if low and high), default=0.0)
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    limits = f"The widest 95 % Wilson interval has {100 * widest:.1f} points, from end to end;"
    return f"## {name}\n\n{text}\n\n{limits} all of them stand in `tables/{name}.csv`.\n"


def _line(row: Row) -> tuple[str, ...]:
    unit = row["unit"]
    limits = f"{_shown(row['lo'], unit)} to {_shown(row['hi'], unit)}" if row["lo"] else ""
    inside = row["inside"] or "-"
    if row["verdict"] in {"holds", "fails", "no evidence"}:
        inside = f"{inside} (hard: {row['verdict']})"
    shown = [_shown(row[key], unit) for key in ("paper", "ours")]
    difference = _shown(row["difference"], unit, signed=True)
    return (
        row["id"], row["what"].replace("|", "\\|"), shown[0], row["provenance"],
        row["setting_matched"], shown[1], limits, row["n"].removesuffix(".0"), difference,
        row["window"], inside,
    )  # fmt: skip


def _shown(text: str, unit: str, *, signed: bool = False) -> str:
    if not text:
        return ""
    sign = "+" if signed else ""
    value = float(text)
    return f"{100 * value:{sign}.2f} %" if unit == "percent" else f"{value:{sign}.4g}"


def _seconds(run: StoredRun) -> str:
    total = sum(result.seconds for result in run.results.values())
    return f"Attacks and passes took {total:.0f} s; training is not counted here.\n"


SPEC = ReporterSpec(
    name="reference",
    implementation=write,
    summary="reference tables as Markdown: a paper's numbers beside ours",
    files=(FILE,),
)
