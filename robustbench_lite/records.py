"""Plans and results as JSON and back; samples as parquet and back. No plug-in is needed to read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .types import (
    Cell,
    CellResult,
    Component,
    Cost,
    Eps,
    Examples,
    FailedAnalysis,
    Gate,
    Json,
    Part,
    Plan,
    Samples,
    Waiver,
    Where,
)

if TYPE_CHECKING:
    import pyarrow as pa

TEXT_COLUMNS = ("sample_id", "sample_hash", "status")
FAILED_ANALYSES = "failed_analyses"  # of the manifest
COLUMNS = tuple(field.name for field in dataclasses.fields(Samples))


def eps_to_json(eps: Eps | None) -> Json:
    """`{"value": "8/255", "text": "8/255"}`, or None."""
    return None if eps is None else {"value": str(eps.value), "text": eps.text}


def eps_from_json(value: Json) -> Eps | None:
    """Inverse of `eps_to_json`."""
    if value is None:
        return None
    record = cast("Mapping[str, str]", value)
    return Eps(Fraction(record["value"]), record["text"])


def cell_to_json(cell: Cell) -> dict[str, Json]:
    """A cell as plain values."""
    plain = {field.name: getattr(cell, field.name) for field in dataclasses.fields(cell)}
    plain["eps"] = eps_to_json(cell.eps)
    plain["reach"] = eps_to_json(cell.reach)
    plain["carried"] = [eps_to_json(eps) for eps in cell.carried]
    plain["cost"] = list(cell.cost) if cell.cost else None
    return plain


def cell_from_json(value: Json) -> Cell:
    """Inverse of `cell_to_json`."""
    plain = dict(cast("Mapping[str, Json]", value))
    carried = cast("Sequence[Json]", plain["carried"])
    cost = cast("Sequence[float] | None", plain["cost"])
    plain |= {"eps": None, "reach": None, "carried": None, "cost": None}
    rebuilt = dict[str, object](plain)
    rebuilt["eps"] = eps_from_json(cast("Mapping[str, Json]", value)["eps"])
    rebuilt["reach"] = eps_from_json(cast("Mapping[str, Json]", value)["reach"])
    rebuilt["carried"] = tuple(eps_from_json(eps) for eps in carried)
    rebuilt["cost"] = None if cost is None else Cost(*cost)
    rebuilt["bpda"] = tuple(cast("Sequence[str]", plain.get("bpda", ())))
    return Cell(**rebuilt)  # type: ignore[arg-type]  # the keys are the record's own fields


def plan_to_json(plan: Plan) -> dict[str, Json]:
    """A plan as plain values."""
    return {
        "suite": plan.suite,
        "seed": plan.seed,
        "models": {name: _component(part) for name, part in plan.models.items()},
        "datasets": {name: _component(part) for name, part in plan.datasets.items()},
        "cells": [cell_to_json(cell) for cell in plan.cells],
    }


def plan_from_json(value: Json) -> Plan:
    """Inverse of `plan_to_json`."""
    plain = cast("Mapping[str, Json]", value)
    models = cast("Mapping[str, Mapping[str, Json]]", plain["models"])
    datasets = cast("Mapping[str, Mapping[str, Json]]", plain["datasets"])
    return Plan(
        suite=cast("str", plain["suite"]),
        seed=cast("int", plain["seed"]),
        models={name: _component_from(part) for name, part in models.items()},
        datasets={name: _component_from(part) for name, part in datasets.items()},
        cells=tuple(cell_from_json(cell) for cell in cast("Sequence[Json]", plain["cells"])),
    )


def _component(component: Component) -> dict[str, Json]:
    return {field.name: getattr(component, field.name) for field in dataclasses.fields(component)}


def _component_from(part: Mapping[str, Json]) -> Component:
    members = tuple(cast("Sequence[str]", part.get("members", ())))
    refers = tuple(cast("Sequence[str]", part.get("refers", ())))
    return Component(**{**part, "members": members, "refers": refers})  # type: ignore[arg-type]


def gates_to_json(gates: Sequence[Gate]) -> list[Json]:
    """Gates as plain values, so that a run can be judged again without its suite."""
    plain: list[Json] = []
    for gate in gates:
        record = {field.name: getattr(gate, field.name) for field in dataclasses.fields(gate)}
        record["eps"] = eps_to_json(gate.eps)
        record["where"] = [gate.where.file, gate.where.line, gate.where.col]
        record["baseline"] = None if gate.baseline is None else str(gate.baseline)
        record["for_each"] = list(gate.for_each)
        plain.append(record)
    return plain


def gates_from_json(value: Json) -> tuple[Gate, ...]:
    """Inverse of `gates_to_json`."""
    gates = []
    for record in cast("Sequence[Mapping[str, Json]]", value or ()):
        plain = dict[str, object](record)
        plain["eps"] = eps_from_json(record["eps"])
        plain["where"] = Where(*cast("Sequence[Json]", record["where"]))  # type: ignore[arg-type]
        baseline = record.get("baseline")
        plain["baseline"] = None if baseline is None else Path(str(baseline))
        plain["for_each"] = tuple(cast("Sequence[str]", record.get("for_each", ())))
        gates.append(Gate(**plain))  # type: ignore[arg-type]  # the keys are the record's own fields
    return tuple(gates)


def waivers_to_json(waivers: Sequence[Waiver]) -> list[Json]:
    """Waivers as plain values, so that a run can be judged again without its suite."""
    plain: list[Json] = []
    for waiver in waivers:
        record = {field.name: getattr(waiver, field.name) for field in dataclasses.fields(waiver)}
        record["expires"] = waiver.expires.isoformat()
        record["where"] = [waiver.where.file, waiver.where.line, waiver.where.col]
        plain.append(record)
    return plain


def waivers_from_json(value: Json) -> tuple[Waiver, ...]:
    """Inverse of `waivers_to_json`."""
    waivers = []
    for record in cast("Sequence[Mapping[str, Json]]", value or ()):
        plain = dict[str, object](record)
        plain["expires"] = date.fromisoformat(cast("str", record["expires"]))
        plain["where"] = Where(*cast("Sequence[Json]", record["where"]))  # type: ignore[arg-type]
        waivers.append(Waiver(**plain))  # type: ignore[arg-type]  # the record's own fields
    return tuple(waivers)


def failed_to_json(failed: Sequence[FailedAnalysis]) -> list[Json]:
    """Analyses without a table to rely on, as plain values."""
    return [dataclasses.asdict(each) for each in failed]


def failed_from_json(value: Json) -> tuple[FailedAnalysis, ...]:
    """Inverse of `failed_to_json`; none for a run of an older robeval."""
    records = cast("Sequence[Mapping[str, Json]]", value or ())
    return tuple(FailedAnalysis(**record) for record in records)  # type: ignore[arg-type]


def result_to_json(result: CellResult) -> dict[str, Json]:
    """A finished cell without its samples and examples."""
    return {
        "cell": cell_to_json(result.cell),
        "status": result.status,
        "reason": result.reason,
        "observed": dict(result.observed),
        "seconds": result.seconds,
        "device": result.device,
        "provider": result.provider,
        "batch_size": result.batch_size,
        "traceback": result.traceback,
        "environment": result.environment,
        "stopped": result.stopped,
    }


def result_from_json(value: Json) -> CellResult:
    """Inverse of `result_to_json`; samples and examples stay on disk (None)."""
    plain = dict[str, object](cast("Mapping[str, Json]", value))
    plain["cell"] = cell_from_json(cast("Mapping[str, Json]", value)["cell"])
    return CellResult(**plain, samples=None, examples=None)  # type: ignore[arg-type]


def samples_table(samples: Samples) -> pa.Table:
    """The columns of `Samples` as an arrow table."""
    import pyarrow as pa

    return pa.table(
        {
            name: pa.array(
                getattr(samples, name).tolist() if name in TEXT_COLUMNS else getattr(samples, name),
                type=pa.string() if name in TEXT_COLUMNS else None,
            )
            for name in COLUMNS
        }
    )


def write_samples(samples: Samples, path: Path) -> None:
    """Write one cell's samples as zstd parquet."""
    import pyarrow.parquet as pq

    pq.write_table(samples_table(samples), path, compression="zstd")


def read_samples(path: Path) -> Samples:
    """Read one cell's samples."""
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    columns = {}
    for name in COLUMNS:
        if name in TEXT_COLUMNS:
            columns[name] = np.array(table[name].to_pylist(), dtype=object)
        else:
            columns[name] = table[name].to_numpy()
    return Samples(**columns)


def write_examples(examples: Examples, path: Path) -> None:
    """Write the exact float32 gallery images."""
    import numpy as np

    with path.open("wb") as stream:
        np.savez_compressed(
            stream, positions=examples.positions, x=examples.x, x_adv=examples.x_adv
        )


def read_examples(path: Path) -> Examples:
    """Read the gallery images."""
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        return Examples(positions=archive["positions"], x=archive["x"], x_adv=archive["x_adv"])


def concat(parts: Sequence[Samples]) -> Samples:
    """Tables one below the other."""
    import numpy as np

    return Samples(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    )


def join(parts: Sequence[Part], gallery: int) -> tuple[Samples, Examples, dict[str, float]]:
    """A cell's parts in order -> its samples, its first `gallery` examples, its observations."""
    import numpy as np

    ordered = sorted(parts, key=lambda part: part.start)
    samples = concat([part.samples for part in ordered])
    examples = Examples(
        positions=np.concatenate([part.examples.positions for part in ordered])[:gallery],
        x=np.concatenate([part.examples.x for part in ordered])[:gallery],
        x_adv=np.concatenate([part.examples.x_adv for part in ordered])[:gallery],
    )
    observed: dict[str, float] = {}
    for part in ordered:
        for key, value in part.observed.items():
            observed[key] = observed.get(key, 0) + value
    return samples, examples, observed


def part_to_json(part: Part) -> dict[str, Json]:
    """A part without its samples and examples."""
    return {
        "start": part.start,
        "stop": part.stop,
        "observed": dict(part.observed),
        "seconds": part.seconds,
        "batch_size": part.batch_size,
    }
