"""A baseline: a small file that a person can review and a repository can keep.

JSON with sorted keys, the same bytes for the same run. Of every row it holds the metrics, what the
attacker might do, and one bit for each sample: whether it stayed right. The bits stand in the order
of the dataset's sample keys, most significant first, as hexadecimal digits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np

from ..bits import Mask
from ..errors import UsageError
from ..types import CellStatus, Eps, Json, Norm
from .pairs import subject
from .side import Line, Pool, Side

FORMAT = 1
_KEY = "robeval_baseline"
_PER_LINE = 8  # sample keys on one line of the file
_DIGITS = 6


def unfit(side: Side, status: object) -> str:
    """Why a run must not become a baseline, "" if it may. `status`: of its manifest."""
    if side.partial:
        return "it is partial (--limit or -k): run the whole suite"
    if status != "finished":
        return f"it is not complete (status {status}): go on with `robeval run --resume`"
    bad = [line for line in side.lines if line.status not in ("ok", "skipped")]
    if bad:
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        return f"{subject(bad[0])} is {bad[0].status}: {bad[0].reason}{more}"
    early = [line for line in side.lines if line.seen is not None and not line.seen.all()]
    if early:
        return (
            f"{subject(early[0])} was stopped early by a sequential gate: a baseline needs all"
            " samples, so run without `sequential`"
        )
    if not any(line.status == "ok" for line in side.lines):
        return "no cell of it was measured"
    return ""


def write_text(side: Side) -> str:
    """The text of the file."""
    threats: dict[str, Json] = {}
    lines: list[Json] = [_line(line, threats) for line in side.lines]
    whole: dict[str, Json] = {
        _KEY: FORMAT,
        "cells": lines,
        "datasets": {name: _pool(pool) for name, pool in side.pools.items()},
        "models": {name: dict(files) for name, files in side.models.items()},
        "partial": side.partial,
        "provenance": side.provenance,
        "threats": threats,
    }
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _pool(pool: Pool) -> dict[str, Json]:
    keys = pool.keys
    rows = [" ".join(keys[at : at + _PER_LINE]) for at in range(0, len(keys), _PER_LINE)]
    return {"n": len(keys), "samples": rows}


def _line(line: Line, threats: dict[str, Json]) -> dict[str, Json]:
    numbers = {
        name: None if value is None else round(value, _DIGITS)
        for name, value in line.numbers.items()
    }
    record: dict[str, Json] = {
        "attack": line.attack,
        "cell": line.cell_id,
        "dataset": line.dataset,
        "eps": None if line.eps is None else str(line.eps.value),
        "eps_text": None if line.eps is None else line.eps.text,
        "members": list(line.members),
        "metrics": {name: value for name, value in numbers.items() if value is not None},
        "model": line.model,
        "norm": line.norm,
        "reason": line.reason,
        "source": line.source,
        "status": line.status,
        "threat": _shared(line, threats),
    }
    if line.right is not None and line.seen is not None:
        record["n"] = int(line.seen.sum())
        record["correct"] = int(line.right.sum())
        record["right"] = _packed(line.right)
        record["seen"] = None if line.seen.all() else _packed(line.seen)
    return {key: value for key, value in record.items() if value not in (None, "", [], {})}


def _packed(mask: Mask) -> str:
    return np.packbits(mask).tobytes().hex()


def _unpacked(text: Json, n: int) -> Mask:
    packed = np.frombuffer(bytes.fromhex(str(text)), dtype=np.uint8)
    return np.unpackbits(packed, count=n).astype(bool)


def _shared(line: Line, threats: dict[str, Json]) -> str:
    """The name of a line's threat among those of the file; equal ones are written once."""
    if not line.threat:
        return ""
    value = json.loads(json.dumps(line.threat))
    number = 1
    while threats.setdefault(name := f"{line.attack} {number}", value) != value:
        number += 1
    return name


# ---------------------------------------------------------------- reading


def read(path: Path) -> Side:
    """The side that a baseline file holds. Raises UsageError where it is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as problem:
        place = f"{path}:{problem.lineno}:{problem.colno}"
        raise UsageError(
            f"{place}: error: the baseline cannot be read: {problem.msg}; restore it, or set it"
            " again with `robeval baseline set RUN NAME`"
        ) from problem
    except (OSError, ValueError) as problem:
        raise UsageError(f"the baseline '{path}' cannot be read: {problem}") from problem
    if not isinstance(value, dict) or _KEY not in value:
        raise UsageError(
            f"'{path}' is not a baseline; make one with `robeval baseline set RUN NAME`"
        )
    if value[_KEY] != FORMAT:
        raise UsageError(
            f"the baseline '{path}' has format {value[_KEY]}, this robeval reads {FORMAT};"
            " set it again, or upgrade robustbench-lite"
        )
    try:
        return _side(path.stem, value)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as problem:
        raise UsageError(
            f"the baseline '{path}' is damaged ({type(problem).__name__}: {problem});"
            " restore it, or set it again with `robeval baseline set RUN NAME`"
        ) from problem


def _side(name: str, value: Mapping[str, Json]) -> Side:
    pools = {}
    for dataset, record in cast("Mapping[str, Mapping[str, Json]]", value["datasets"]).items():
        keys = tuple(" ".join(cast("Sequence[str]", record["samples"])).split())
        if len(keys) != record["n"]:
            raise ValueError(f"dataset '{dataset}' has {len(keys)} samples, n is {record['n']}")
        pools[dataset] = Pool(keys, keys)
    threats = cast("Mapping[str, Mapping[str, Json]]", value["threats"])
    records = cast("Sequence[Mapping[str, Json]]", value["cells"])
    return Side(
        name=name,
        lines=tuple(_line_from(record, threats, pools) for record in records),
        pools=pools,
        models=cast("Mapping[str, Mapping[str, str]]", value["models"]),
        provenance=cast("Mapping[str, Json]", value["provenance"]),
        partial=bool(value["partial"]),
    )


def _line_from(
    record: Mapping[str, Json],
    threats: Mapping[str, Mapping[str, Json]],
    pools: Mapping[str, Pool],
) -> Line:
    eps = cast("str | None", record.get("eps"))
    dataset = str(record["dataset"])
    right, seen = _bits(record, len(pools[dataset].keys) if dataset in pools else 0)
    threat = str(record.get("threat", ""))
    if "right" in record and not (threat or "members" in record):
        raise ValueError(f"cell {record['cell']} has no threat")
    return Line(
        cell_id=str(record["cell"]),
        model=str(record["model"]),
        dataset=dataset,
        attack=str(record["attack"]),
        source=str(record.get("source", "")),
        norm=cast("Norm | None", record.get("norm")),
        eps=None if eps is None else Eps(Fraction(eps), str(record["eps_text"])),
        status=cast("CellStatus", record["status"]),
        reason=str(record.get("reason", "")),
        threat=threats[threat] if threat else {},
        members=tuple(cast("Sequence[str]", record.get("members", ()))),
        right=right,
        seen=seen,
        numbers=cast("Mapping[str, float | None]", record.get("metrics", {})),
    )


def _bits(record: Mapping[str, Json], n: int) -> tuple[Mask | None, Mask | None]:
    """What a line kept and saw of the n samples of its dataset."""
    if "right" not in record:
        return None, None
    right = _unpacked(record["right"], n)
    seen = _unpacked(record["seen"], n) if "seen" in record else np.ones(n, dtype=bool)
    if (int(seen.sum()), int(right.sum())) != (record["n"], record["correct"]):
        raise ValueError(f"the bits of cell {record['cell']} are not its {record['n']} samples")
    return right, seen
