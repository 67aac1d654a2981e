"""Run directories: one immutable folder per finished cell, written aside and then renamed.

The rename is the done marker, so that resuming is a look-up and a kill loses at most one part.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from . import candidates, records
from .errors import EnvironmentProblem, UsageError
from .types import (
    Candidates,
    Cell,
    CellResult,
    Comparison,
    Examples,
    Finding,
    Json,
    Part,
    Plan,
    Samples,
    Suite,
    Summary,
    Verdict,
)

MANIFEST = "manifest.json"
PLAN = "plan.json"
SUITE = "suite.yaml"
RESOLVED = "suite.resolved.yaml"
GATES = "gates.json"
FINDINGS = "findings.json"
CANDIDATES = "candidates.npz"  # of a part; in a finished cell a folder of one file per part
OWN = frozenset({"cells", "parts", "baselines"})  # what a run killed before its manifest leaves
FINAL = frozenset({"ok"})  # what another run may reuse: a reason to skip may be of its machine


@contextlib.contextmanager
def naming_disk_problems(path: Path) -> Iterator[None]:
    """Turn an OSError while writing below `path` into the user's words."""
    try:
        yield
    except OSError as problem:
        cause = {
            errno.ENOSPC: "the disk is full",
            errno.EDQUOT: "the disk quota is used up",
            errno.EACCES: "it is not writable",
            errno.EPERM: "it is not writable",
            errno.EROFS: "the file system is read-only",
            errno.ENOTDIR: "a part of its path is a file",
            errno.EEXIST: "a part of its path is a file",
        }.get(problem.errno or 0, str(problem))
        raise EnvironmentProblem(
            f"cannot write to '{path}': {cause}. Finished cells are kept: make room or choose"
            " another directory with -o, then run again with --resume"
        ) from problem


def write_text(path: Path, text: str) -> None:
    """Write a file aside and rename it over `path`."""
    with naming_disk_problems(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)


def write_json(path: Path, value: Json) -> None:
    """Write a value as indented JSON, atomically; what is not finite is null."""
    write_text(path, json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n")


def _finite(value: Json) -> Json:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The folder of one run, open for writing."""

    path: Path

    def cell_path(self, cell_id: str) -> Path:
        """Folder of a finished cell."""
        return self.path / "cells" / cell_id

    def _parts_path(self, cell_id: str) -> Path:
        return self.path / "parts" / cell_id

    def has(self, cell_id: str) -> bool:
        """Whether the cell is finished, whatever its status."""
        return (self.cell_path(cell_id) / "result.json").is_file()

    def save(self, result: CellResult) -> None:
        """Store a finished cell; its parts are dropped. A result of an earlier try is replaced."""
        final = self.cell_path(result.cell.id)
        with naming_disk_problems(self.path):
            aside = _fresh(final.with_name(f".{final.name}.{os.getpid()}.tmp"))
            if result.samples is not None:
                records.write_samples(result.samples, aside / "samples.parquet")
            if result.examples is not None:
                records.write_examples(result.examples, aside / "examples.npz")
            if result.samples is not None:
                self._keep_candidates(result.cell.id, aside)
            write_json(aside / "result.json", records.result_to_json(result))
            _swap(aside, final)
            shutil.rmtree(self._parts_path(result.cell.id), ignore_errors=True)

    def _keep_candidates(self, cell_id: str, cell: Path) -> None:
        """Give the finished cell what its parts hold for a replay."""
        for part in sorted(self._parts_path(cell_id).glob("[0-9]*/" + CANDIDATES)):
            (cell / "candidates").mkdir(exist_ok=True)
            shutil.copyfile(part, cell / "candidates" / f"{part.parent.name}.npz")

    def adopt(self, cell_id: str, finished: Path) -> None:
        """Take over a finished cell of another run of the same content."""
        final = self.cell_path(cell_id)
        with naming_disk_problems(self.path):
            aside = final.with_name(f".{final.name}.{os.getpid()}.tmp")
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(finished, aside)
            _swap(aside, final)

    def forget(self, cell_id: str) -> None:
        """Drop a result that is to be computed again."""
        with naming_disk_problems(self.path):
            shutil.rmtree(self.cell_path(cell_id), ignore_errors=True)

    def save_part(self, cell_id: str, part: Part) -> None:
        """Store one finished part of a cell that is still running."""
        folder = self._parts_path(cell_id)
        final = folder / f"{part.start:09d}-{part.stop:09d}"
        with naming_disk_problems(self.path):
            aside = _fresh(folder / f".{final.name}.{os.getpid()}.tmp")
            records.write_samples(part.samples, aside / "samples.parquet")
            records.write_examples(part.examples, aside / "examples.npz")
            if part.candidates is not None:
                candidates.write(part.candidates, aside / CANDIDATES)
            write_json(aside / "part.json", records.part_to_json(part))
            _swap(aside, final)

    def parts(self, cell_id: str) -> list[Part]:
        """The finished parts of a cell, in sample order."""
        found = []
        for folder in sorted(self._parts_path(cell_id).glob("[0-9]*")):
            plain = _read_json(folder / "part.json")
            found.append(
                Part(
                    samples=records.read_samples(folder / "samples.parquet"),
                    examples=records.read_examples(folder / "examples.npz"),
                    **plain,  # type: ignore[arg-type]  # the keys are the record's own fields
                )
            )
        return found

    def write_start(self, suite: Suite, plan: Plan, resolved: str) -> None:
        """Write what is known before anything runs."""
        write_text(self.path / SUITE, suite.text)
        write_text(self.path / RESOLVED, resolved)
        write_json(self.path / PLAN, records.plan_to_json(plan))


def _holds_more(path: Path) -> bool:
    """Whether a folder holds more than a run leaves that was killed before its manifest."""
    names = [each.name for each in path.iterdir()]
    return any(name not in OWN and not name.endswith(".tmp") for name in names)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _swap(aside: Path, final: Path) -> None:
    if final.exists():
        shutil.rmtree(final)
    aside.rename(final)


def open_directory(path: Path, plan_id: str) -> RunDirectory:
    """Open `path` for a run: new, empty, or of this very run. Anything else is refused."""
    manifest = path / MANIFEST
    if manifest.is_file():
        found = _read_json(manifest).get("plan_id")
        if found != plan_id:
            raise UsageError(
                f"'{path}' holds another run (plan {found}, this one is {plan_id});"
                " name a new directory with -o"
            )
    elif path.exists() and (not path.is_dir() or _holds_more(path)):
        raise UsageError(
            f"'{path}' is not empty and holds no run of robeval; name a new directory with -o"
        )
    with naming_disk_problems(path):
        (path / "cells").mkdir(parents=True, exist_ok=True)
        for leftover in [*path.glob("cells/.*.tmp"), *path.glob("parts/*/.*.tmp")]:
            shutil.rmtree(leftover, ignore_errors=True)
        for leftover in path.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        probe = path / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    return RunDirectory(path)


def find_finished(root: Path, cells: Sequence[Cell], skip: Path) -> dict[str, Path]:
    """Finished cells of the same content in other runs below `root`: cell id -> folder."""
    wanted = {cell.id for cell in cells}
    found: dict[str, Path] = {}
    for run in sorted(root.glob("*/cells"), reverse=True):
        if run.parent == skip:
            continue
        for cell_id in wanted - found.keys():
            result = run / cell_id / "result.json"
            with contextlib.suppress(UsageError):  # a damaged cell is as good as none
                if result.is_file() and _is_whole(_read_json(result)):
                    found[cell_id] = run / cell_id
    return found


def _is_whole(result: Mapping[str, Json]) -> bool:
    """Whether another run may take it over: a cell that gates stopped early is of its own run."""
    return result.get("status") in FINAL and not result.get("stopped")


def _read_json(path: Path) -> dict[str, Json]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise UsageError(f"'{path}' cannot be read: {problem}") from problem
    if not isinstance(value, dict):
        raise UsageError(f"'{path}' does not hold a JSON object")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run on disk. Samples are read one cell at a time, when asked for.

    `results`: cell id -> result without samples. `summary`, `verdict`: set while reports are
    written; `verdict` is None for a run that was never judged. `comparison`: against a baseline.
    """

    path: Path
    manifest: Mapping[str, Json]
    plan: Plan
    suite_text: str
    results: Mapping[str, CellResult]
    summary: Summary | None = None
    verdict: Verdict | None = None
    comparison: Comparison | None = None

    def samples(self, cell_id: str) -> Samples | None:
        """The per-sample table of a cell, None if it has none."""
        path = self.path / "cells" / cell_id / "samples.parquet"
        return records.read_samples(path) if path.is_file() else None

    def examples(self, cell_id: str) -> Examples | None:
        """The gallery images of a cell, None if it has none."""
        path = self.path / "cells" / cell_id / "examples.npz"
        return records.read_examples(path) if path.is_file() else None

    def candidates(self, cell_id: str) -> Iterator[Candidates]:
        """The points kept for a replay, one part of the cell at a time."""
        for path in sorted((self.path / "cells" / cell_id / "candidates").glob("*.npz")):
            yield candidates.read(path)

    def has_candidates(self, cell_id: str) -> bool:
        """Whether any points of the cell were kept."""
        return (self.path / "cells" / cell_id / "candidates").is_dir()

    @property
    def partial(self) -> bool:
        """Whether only a part of the suite was asked for (`--limit`, `-k`)."""
        return bool(self.manifest.get("partial", False))


def load_run(path: str | Path) -> StoredRun:
    """Read a run directory. No plug-in and no model is needed."""
    path = Path(path)
    if not (path / MANIFEST).is_file() or not (path / PLAN).is_file():
        raise UsageError(
            f"'{path}' is not a run directory: it has no {MANIFEST} or no {PLAN};"
            " expected reports/<suite>/<time>-<id>"
        )
    plan = records.plan_from_json(_read_json(path / PLAN))
    try:
        suite_text = (path / SUITE).read_text(encoding="utf-8")
    except OSError as problem:
        raise UsageError(f"'{path / SUITE}' cannot be read: {problem}") from problem
    return StoredRun(
        path=path,
        manifest=_read_json(path / MANIFEST),
        plan=plan,
        suite_text=suite_text,
        results=load_results(path, plan),
    )


def plan_id_of(path: Path) -> str | None:
    """The plan id of a run directory, None where its manifest cannot be read."""
    with contextlib.suppress(UsageError):
        return cast("str | None", _read_json(path / MANIFEST).get("plan_id"))
    return None


def gates_of(path: Path) -> Json:
    """The gates that a run directory was made for, as its manifest has them; None without one."""
    with contextlib.suppress(UsageError):
        return _read_json(path / MANIFEST).get("gates")
    return None


def load_result(folder: Path) -> CellResult:
    """The finished cell in a folder, without samples."""
    return records.result_from_json(_read_json(folder / "result.json"))


def load_results(path: Path, plan: Plan) -> dict[str, CellResult]:
    """The finished cells of a plan in a run directory, without samples: cell id -> result."""
    results = {}
    for cell in plan.cells:
        result = path / "cells" / cell.id / "result.json"
        if result.is_file():
            results[cell.id] = records.result_from_json(_read_json(result))
    return results


def write_findings(path: Path, findings: Sequence[Finding]) -> None:
    """Write findings.json."""
    write_json(
        path / FINDINGS,
        [
            {
                "id": finding.id,
                "severity": finding.severity,
                "message": finding.message,
                "advice": finding.advice,
                "cells": list(finding.cells),
                "numbers": dict(finding.numbers),
                "waived": finding.waived,
            }
            for finding in findings
        ],
    )


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Write gates.json."""
    write_json(path / GATES, verdict_to_json(verdict))


def verdict_to_json(verdict: Verdict) -> dict[str, Json]:
    """A verdict as it stands in gates.json."""
    gates = [
        {name: getattr(gate, name) for name in gate.__dataclass_fields__} for gate in verdict.gates
    ]
    return {
        "exit_code": verdict.exit_code,
        "sentence": verdict.sentence,
        "gates": cast("Json", gates),
    }
