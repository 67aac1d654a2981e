"""`robeval doctor PATH`: what a model file is, found by running it on noise and on real data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import ValidationError

from . import preflight
from .checkup import DataReport, Ports, Report
from .diagnose.preflight import judged
from .errors import FOREIGN, DataError, ModelError, RobevalError, UsageError
from .hookspecs import ModelSpec
from .params import Params, package_path
from .plugins import Registered, Registry, implementation
from .preflight import keys
from .probe import SEED, cause, probe
from .samples import Selected, select
from .types import Json, LoadedModel, Places, Selection
from .words import did_you_mean, listed

ARRAYS = "arrays"  # the loader of array files


def examine(
    path: Path,
    registry: Registry,
    *,
    device: str,
    threads: int,
    factory: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    data: str | None = None,
    places: Places | None = None,
) -> Report:
    """Load the file with the loader of its suffix and run it; a broken file is a report, no error.

    `path`: of a file, or `pkg://package/file`.

    `device`: "cpu" or "cuda:i". `factory`: "package.module:name" for a file that holds only
    weights. `input_shape`: one sample, for a model that does not declare it (a free dimension is
    otherwise taken as the data's, or 1). `data`: name of a dataset loader that needs no parameter
    (`mnist`, `mnist-sample`), or path of an array file (.npz, .parquet, .safetensors) with `x` and
    `y`: the pre-flight checks of a run are made on it. `places`: where its files may lie.

    Raises UsageError for data that are not known, DataError for those that cannot be read.
    """
    try:
        path = package_path(path)
    except ValueError as problem:
        return Report(path=path, problem=str(problem))
    samples = None if data is None else _samples(data, registry, places or _places(path))
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
    own = samples.shape if samples is not None else None
    shape = input_shape or model.input_shape or own or _probe_shape(model)
    if shape is None:
        asks = "it does not say what shape its input has: give --input-shape, for example 3,32,32"
        return replace(report, problem=asks)
    report = probe(report, model, shape)
    report = replace(report, findings=(*judged(report.observed), *report.findings))
    return report if samples is None or not report.runs else _flown(report, model, samples, device)


def _places(path: Path) -> Places:
    folder = path.resolve().parent
    return Places(suite=folder, data=None, cache=folder)


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
    load = implementation(registered)
    try:
        model = load(params, places=_places(path), device=device, threads=threads)
    except RobevalError:
        raise
    except FOREIGN as problem:
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


# ---------------------------------------------------------------- real data


def _samples(name: str, registry: Registry, places: Places) -> Selected:
    """All samples of a dataset that needs no parameters, or of an array file."""
    registered = registry.datasets.get(name)
    given: dict[str, object] = {}
    if registered is None:
        if not Path(name).is_file() or ARRAYS not in registry.datasets:
            helps = "".join(f"; {text}" for text in did_you_mean(name, registry.datasets))
            raise UsageError(
                f"--data '{name}' is neither a dataset ({listed(registry.datasets)}) nor a file"
                f"{helps}"
            )
        registered, given = registry.datasets[ARRAYS], {"path": Path(name).resolve()}
    try:
        params = registered.spec.params.model_validate(given)
    except ValidationError as problem:
        lacking = "; ".join(error["msg"] for error in problem.errors())
        raise UsageError(
            f"--data '{name}' needs more than its name ({lacking}): give an array file (.npz)"
        ) from problem
    try:
        source = implementation(registered)(params, places=places)
    except RobevalError:
        raise
    except FOREIGN as problem:
        raised = f"{type(problem).__name__}: {problem}"
        raise DataError(f"--data '{name}': its loader raised {raised}") from problem
    return select(name, source, Selection())  # type: ignore[arg-type]  # checked by select


def _flown(report: Report, model: LoadedModel, samples: Selected, device: str) -> Report:
    """The report with the pre-flight checks on the data; what they say comes before noise."""
    batch = preflight.chosen(samples, torch.device(device))
    try:
        observed = preflight.observe(model, batch, classes=samples.classes, seed=SEED)
    except FOREIGN as problem:  # whatever a model raises on data not made for it
        asked = f"samples of shape {list(samples.shape)} from '{samples.name}'"
        failed = f"it does not run on {asked}: {cause(problem)}"
        return replace(report, runs=False, problem=failed)
    found = judged(observed)
    told = {finding.id for finding in found}
    of_data = DataReport(
        name=samples.name,
        samples=int(observed[keys.SAMPLES]),
        correct=int(observed.get(keys.CORRECT, 0)),
        forward_passes=int(observed[keys.PASSES]),
        backward_passes=int(observed.get(keys.GRADIENT_PASSES, 0)),
        observed=observed,
    )
    of_noise = [finding for finding in report.findings if finding.id not in told]
    return replace(report, data=of_data, findings=(*found, *of_noise))
