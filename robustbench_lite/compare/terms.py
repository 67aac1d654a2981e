"""What decides a number beside its samples: the threat model of a cell, and where a run is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..group import BOX_HIGH, BOX_LOW
from ..types import CLEAN, Cell, CellResult, Component, Json, Plan

SEVERAL = " + "  # stands between the models of a source that averages several


def boxes(plan: Plan, results: Mapping[str, CellResult]) -> dict[str, list[float]]:
    """The range of every dataset's inputs, as its clean passes recorded it."""
    found: dict[str, list[float]] = {}
    for cell in plan.cells:
        result = results.get(cell.id)
        if cell.attack == CLEAN and result is not None and BOX_LOW in result.observed:
            found[cell.dataset] = [result.observed[BOX_LOW], result.observed[BOX_HIGH]]
    return found


def threat_of(
    cell: Cell, box: Sequence[float] | None, plan: Plan, judged: Sequence[str]
) -> dict[str, Json]:
    """What decides what an attack may do and how hard it tries, beside norm and eps."""
    threat: dict[str, Json] = {} if box is None else {"box": list(box)}
    if cell.attack == CLEAN:
        return threat
    threat |= {
        "attack": cell.attack,
        "parameters": dict(cell.params),
        "target": cell.target,
        "repeats": cell.repeats,
        "eot": cell.eot,
        "bpda": list(cell.bpda),
        "time_limit": cell.time_limit,
    }
    if cell.kind == "minimal-norm" and cell.reach is not None:
        threat["largest eps"] = str(cell.reach.value)
    surrogates = [name for name in cell.source.split(SEVERAL) if name not in judged]
    if surrogates:
        threat["source"] = {name: _content(plan.models.get(name)) for name in surrogates}
    return threat


def _content(model: Component | None) -> Json:
    """The files of a surrogate; its content id where it has none."""
    if model is None:
        return None
    return files_of(model) or model.content


def provenance_of(manifest: Mapping[str, Json]) -> dict[str, Json]:
    """What a manifest says of where a run comes from, without its machine."""
    wanted = ("suite", "suite_sha256", "seed", "plan_id", "ended", "versions", "python", "device")
    return {key: manifest[key] for key in wanted if key in manifest}


def files_of(model: Component | None) -> dict[str, str]:
    """File -> sha256; empty for a model that is not known."""
    return {} if model is None else dict(model.files)
