"""Earlier runs -> one row per run and gate, in order of their start; nothing is judged again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from . import records
from .errors import NothingSelected, UsageError
from .store import GATES, MANIFEST, PLAN
from .types import History, Json, Past, Plan

_SHORT = 12  # characters of a hash that tell models apart
Record = Mapping[str, Json]


def read(paths: Sequence[Path]) -> History:
    """The verdicts of the runs in `paths`: run directories, or folders that hold some.

    A run that is damaged, unfinished or not judged is named and left out. Raises UsageError for a
    path that is not there, NothingSelected if no run is left.
    """
    found: list[tuple[datetime, str, list[Past]]] = []
    left_out: list[str] = []
    for folder in dict.fromkeys(each for path in paths for each in _runs(path)):
        try:
            when, rows = _of_run(folder)
        except _Unusable as problem:
            left_out.append(f"'{folder}': {problem}")
        else:
            found.append((when, folder.name, rows))
    if not found:
        raise NothingSelected("\n".join(["no judged run is left", *left_out]))
    ordered = sorted(found, key=lambda run: run[:2])
    return History(
        rows=tuple(row for *_, rows in ordered for row in rows), left_out=tuple(left_out)
    )


class _Unusable(Exception):
    """Why a run cannot be shown."""


def _runs(path: Path) -> Iterator[Path]:
    """The run directories at or below a path."""
    if not path.is_dir():
        raise UsageError(
            f"'{path}' is no directory; expected runs such as reports/<suite>/<time>-<id>"
        )
    if (path / MANIFEST).is_file():
        yield path
        return
    below = sorted(each.parent for each in path.rglob(MANIFEST))
    if not below:
        raise UsageError(f"there is no run (no {MANIFEST}) in or below '{path}'")
    yield from below


def _of_run(folder: Path) -> tuple[datetime, list[Past]]:
    manifest = _object(folder / MANIFEST)
    status = manifest.get("status")
    if status != "finished":
        raise _Unusable(f"it is not finished (status {status})")
    if not (folder / GATES).is_file():
        raise _Unusable(f"it was never judged (no {GATES}); run `robeval gate` on it")
    verdict = _object(folder / GATES)
    try:
        when = datetime.fromisoformat(str(manifest["started"]))
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        plan = records.plan_from_json(_object(folder / PLAN))
        gates = cast("Sequence[Record]", verdict["gates"])
        code = int(cast("int", verdict["exit_code"]))
        rows = [_row(folder.name, when, code, gate, plan) for gate in gates or [_no_gate(code)]]
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        reason = f"{type(problem).__name__}: {problem}"
        raise _Unusable(f"it is damaged, or of another version ({reason})") from problem
    return when, rows


def _object(path: Path) -> Record:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise _Unusable(f"{path.name} cannot be read: {problem}") from problem
    if not isinstance(value, dict):
        raise _Unusable(f"{path.name} does not hold a JSON object")
    return value


def _no_gate(code: int) -> Record:
    """A run without gates still has its line."""
    return {"status": "INCOMPLETE" if code else "COMPLETE"}


def _row(run: str, when: datetime, code: int, gate: Record, plan: Plan) -> Past:
    model = _model(str(gate.get("cell_id", "")), plan)
    return Past(
        run=run,
        started=when.astimezone(UTC).isoformat(timespec="seconds"),
        suite=plan.suite,
        gate=str(gate.get("gate", "")),
        status=str(gate["status"]),
        metric=str(gate.get("metric", "")),
        subject=str(gate.get("subject", "")),
        model=model,
        model_sha256=_hash(model, plan),
        value=_number(gate.get("value")),
        low=_number(gate.get("low")),
        high=_number(gate.get("high")),
        n=int(cast("int", gate.get("n", 0))),
        threshold=str(gate.get("threshold", "")),
        reason=str(gate.get("reason", "")),
        exit_code=code,
    )


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _model(cell_id: str, plan: Plan) -> str:
    """The model of a cell, or of a worst case by its id; the only one there is, else none."""
    for cell in plan.cells:
        if cell.id == cell_id:
            return cell.model
    named = [name for name in plan.models if f"/{name}/" in cell_id]
    known = named or (list(plan.models) if len(plan.models) == 1 else [])
    return max(known, key=len, default="")


def _hash(model: str, plan: Plan) -> str:
    part = plan.models.get(model)
    if part is None:
        return ""
    hashes = list(part.files.values())
    whole = hashes[0] if len(hashes) == 1 else part.content
    return whole.removeprefix("sha256:")[:_SHORT]
