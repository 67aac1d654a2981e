"""`robeval doctor PATH`: what a model file is, found by loading it and running it on noise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from .checkup import Ports, Report
from .errors import ModelError, RobevalError
from .hookspecs import ModelSpec
from .params import Params
from .plugins import Registered, Registry, implementation
from .probe import probe
from .types import Json, LoadedModel, Places
from .words import listed


def examine(
    path: Path,
    registry: Registry,
    *,
    device: str,
    threads: int,
    factory: str | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> Report:
    """Load the file with the loader of its suffix and run it; a broken file is a report, no error.

    `device`: "cpu" or "cuda:i". `factory`: "package.module:name" for a file that holds only
    weights. `input_shape`: one sample, for a model that does not declare it (a free dimension is
    otherwise taken as 1).
    """
    report = Report(path=path)
    try:
        report = replace(report, size=path.stat().st_size, sha256=_sha256(path))
    except OSError as problem:
        return replace(report, problem=f"cannot be read: {problem.strerror or problem}")
    try:
        registered = _loader(path, registry)
        params = _params(path, registered.spec, factory, input_shape)
        model = _load(registered, params, path, device, threads)
    except RobevalError as problem:
        return replace(report, problem=str(problem))
    report = _declared(report, model)
    shape = input_shape or _probe_shape(model)
    if shape is None:
        asks = "it does not say what shape its input has: give --input-shape, for example 3,32,32"
        return replace(report, problem=asks)
    return probe(report, model, shape)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- loading


def _loader(path: Path, registry: Registry) -> Registered[ModelSpec]:
    suffix = path.suffix.lower()
    loaders = registry.models.values()
    for registered in loaders:
        if suffix in registered.spec.suffixes and registered.spec.from_path is not None:
            return registered
    known = sorted({ending for each in loaders for ending in each.spec.suffixes})
    raise ModelError(f"no loader opens '{suffix or path.name}' files; known: {listed(known)}")


def _params(
    path: Path, spec: ModelSpec, factory: str | None, input_shape: tuple[int, ...] | None
) -> Params:
    """The loader's parameters for the bare file, with what the user added where it has a place."""
    assert spec.from_path is not None
    given = {"factory": factory, "input_shape": input_shape}
    added = {name: value for name, value in given.items() if value is not None}
    unknown = sorted(set(added) - set(spec.params.model_fields))
    if unknown:
        raise ModelError(f"the loader '{spec.name}' takes no {listed(unknown)}: leave it out")
    try:
        if factory is not None:
            return spec.params.model_validate({"weights": path, **added})
        bare = spec.from_path(path)
        return spec.params.model_validate({**bare.model_dump(), **added})
    except ValidationError as problem:
        reasons = "; ".join(
            error["msg"].removeprefix("Value error, ") for error in problem.errors()
        )
        raise ModelError(reasons) from problem


def _load(
    registered: Registered[ModelSpec], params: Params, path: Path, device: str, threads: int
) -> LoadedModel:
    folder = path.resolve().parent
    places = Places(suite=folder, data=None, cache=folder)
    load = implementation(registered)
    try:
        model = load(params, places=places, device=device, threads=threads)
    except RobevalError:
        raise
    except Exception as problem:
        raise ModelError(f"its loader raised {type(problem).__name__}: {problem}") from problem
    if not isinstance(model, LoadedModel):
        raise ModelError(f"its loader returned {type(model).__name__}; expected a LoadedModel")
    return model


def _declared(report: Report, model: LoadedModel) -> Report:
    facts = model.facts
    kind = facts.get("format")
    return replace(
        report,
        loadable=True,
        format=kind if isinstance(kind, str) else None,
        inputs=_ports(facts.get("inputs")),
        outputs=_ports(facts.get("outputs")),
        opset=facts.get("opset"),
        providers=_texts(facts.get("providers")) or (model.provider,),
        num_classes=model.num_classes,
    )


def _ports(value: Json) -> Ports:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return tuple(port for port in value if isinstance(port, Mapping))


def _texts(value: Json) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return tuple(map(str, value))


def _probe_shape(model: LoadedModel) -> tuple[int, ...] | None:
    if model.input_shape is not None:
        return model.input_shape
    declared = model.facts.get("sample_shape")
    if not isinstance(declared, Sequence) or isinstance(declared, str):
        return None
    return tuple(size if isinstance(size, int) else 1 for size in declared)
