"""The model of a replay: one of the stored run, as its suite had it, or a file in its place."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast, get_args

from pydantic import ValidationError

from .errors import FOREIGN, EnvironmentProblem, ModelError, RobevalError, UsageError
from .hookspecs import ModelSpec
from .identity import FROM_ENVIRONMENT
from .params import Params
from .plugins import Registered, Registry, implementation, missing
from .store import RESOLVED, StoredRun
from .types import Json, LoadedModel, Places
from .words import listed

FOLDER = "suite_folder"  # in the manifest: what the suite's paths are relative to


def load(
    stored: StoredRun,
    name: str,
    file: Path | None,
    registry: Registry,
    places: Places,
    *,
    device: str,
    threads: int,
) -> LoadedModel:
    """Model `name` of a stored run, or `file` in its place (same loader if it opens such files).

    Raises UsageError or EnvironmentProblem where it cannot be had.
    """
    wanted = _parameters(stored, name)
    registered = _loader(wanted, file, registry)
    suffixes = registered.spec.suffixes
    if file is not None and not file.is_file():
        raise EnvironmentProblem(f"--model: there is no file '{file}'; expected {listed(suffixes)}")
    params = _params(registered.spec, wanted, name, file, places)
    for folder in _python_path(stored):
        if (text := str(places.suite / folder)) not in sys.path:
            sys.path.insert(0, text)
    what = f"model '{file or name}'"
    try:
        model = implementation(registered)(params, places=places, device=device, threads=threads)
    except RobevalError as problem:
        raise ModelError(f"{what}: {problem}") from problem
    except FOREIGN as problem:
        raised = f"{type(problem).__name__}: {problem}"
        raise ModelError(f"{what} could not be loaded: {raised}") from problem
    if not isinstance(model, LoadedModel):
        raise ModelError(f"{what}: its loader returned {type(model).__name__}, not a LoadedModel")
    return model


def _resolved(stored: StoredRun) -> Mapping[str, Json]:
    try:
        text = (stored.path / RESOLVED).read_text(encoding="utf-8")
        return cast("Mapping[str, Json]", json.loads(text))
    except (OSError, ValueError) as problem:
        raise UsageError(f"'{stored.path / RESOLVED}' cannot be read: {problem}") from problem


def _parameters(stored: StoredRun, name: str) -> dict[str, Json]:
    models = cast("Mapping[str, Mapping[str, Json]]", _resolved(stored).get("models", {}))
    return {key: value for key, value in models[name].items() if key != "sha256"}


def _python_path(stored: StoredRun) -> list[str]:
    return list(cast("list[str]", _resolved(stored).get("python_path") or []))


def _loader(
    wanted: Mapping[str, Json], file: Path | None, registry: Registry
) -> Registered[ModelSpec]:
    """The run's own loader, unless a file is given that another one opens."""
    own = registry.models.get(str(wanted["load"]))
    suffix = "" if file is None else file.suffix.lower()
    if own is not None and (file is None or suffix in own.spec.suffixes):
        return own
    if file is None:
        raise UsageError(missing(registry, "model", str(wanted["load"])))
    for registered in registry.models.values():
        if suffix in registered.spec.suffixes and registered.spec.from_path is not None:
            return registered
    known = sorted({ending for each in registry.models.values() for ending in each.spec.suffixes})
    raise UsageError(f"--model: no loader opens '{file}'; known endings: {listed(known)}")


def _params(
    spec: ModelSpec, wanted: Mapping[str, Json], name: str, file: Path | None, places: Places
) -> Params:
    values: dict[str, object] = {key: value for key, value in wanted.items() if key != "load"}
    if file is not None and wanted["load"] == spec.name:
        values[_path_field(spec)] = str(file.absolute())
    hidden = [key for key, value in values.items() if FROM_ENVIRONMENT in json.dumps(value)]
    if hidden and (file is None or wanted["load"] == spec.name):
        raise UsageError(
            f"model '{name}': {listed(hidden)} came from the environment, which a run does not keep"
        )
    try:
        if file is not None and wanted["load"] != spec.name:
            assert spec.from_path is not None
            return spec.from_path(file.absolute())
        return spec.params.model_validate(values, context={"base": places.suite})
    except ValidationError as problem:
        told = "; ".join(error["msg"].removeprefix("Value error, ") for error in problem.errors())
        raise UsageError(f"model '{file or name}': {told}") from problem


def _path_field(spec: ModelSpec) -> str:
    """The parameter that holds the model's file: the first that is a path."""
    for name, field in spec.params.model_fields.items():
        if _is_path(field.annotation):
            return name
    raise UsageError(f"--model: the loader '{spec.name}' takes no file")


def _is_path(annotation: object) -> bool:
    return annotation is Path or any(_is_path(part) for part in get_args(annotation))
