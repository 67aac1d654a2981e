"""What a content id is made of: parameters without paths, hashes of files, the code's version.

Only bytes of files are read, to hash them. What is missing or changed is collected, not raised.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel

from .errors import EnvironmentProblem
from .hookspecs import Content
from .params import Params, referring, refers_to
from .plugins import Registry, source_hash
from .types import (
    AttackEntry,
    Component,
    DatasetEntry,
    Json,
    ModelEntry,
    Places,
    Selection,
    Suite,
)

KNOWN = "sha256:"
FROM_ENVIRONMENT = "${env:"


def content_hash(value: Json) -> str:
    """First 16 hex digits of the sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def text_hash(text: str) -> str:
    """Hex sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def selection(entry: DatasetEntry, limit: int | None) -> Selection:
    """The entry's selection, cut to at most `limit` samples."""
    if limit is None:
        return entry.selection
    take = entry.selection.take
    return dataclasses.replace(entry.selection, take=limit if take is None else min(take, limit))


def parameters(params: BaseModel) -> dict[str, Json]:
    """A plug-in's parameters as plain JSON values, paths as text."""
    dumped: dict[str, Json] = params.model_dump(mode="json")
    return dumped


def shown(params: BaseModel, suite: Suite, section: str, name: str) -> dict[str, Json]:
    """The parameters for display: references to the environment and paths as they were written."""
    values = parameters(params)
    entries = suite.resolved.get(section)
    written = entries.get(name) if isinstance(entries, Mapping) else None
    if isinstance(written, Mapping):
        for key, value in written.items():
            from_environment = FROM_ENVIRONMENT in json.dumps(value)
            if key in values and (from_environment or isinstance(getattr(params, key), Path)):
                values[key] = value
    return values


def without_paths(params: BaseModel) -> dict[str, Json]:
    """The parameters that belong to a content id: everything but paths and names of entries."""
    dumped = parameters(params)
    names = referring(type(params))
    return {
        name: value
        for name, value in dumped.items()
        if name not in names and not isinstance(getattr(params, name, None), Path)
    }


def model_component(
    entry: ModelEntry,
    suite: Suite,
    registry: Registry,
    places: Places,
    problems: list[str],
    made_of: Mapping[str, str] = MappingProxyType({}),
) -> Component | None:
    """A model of the plan; None if a file is missing or changed, which `problems` then tells.

    `made_of`: content ids of the entries that it refers to, by their place in the parameters.
    """
    registered = registry.models[entry.loader]
    assert isinstance(entry.params, Params)
    place = f"{entry.where}: error: models.{entry.name}"
    try:
        content = registered.spec.content(entry.params, places)
        access = registered.spec.access(entry.params)
    except EnvironmentProblem as problem:
        problems.append(f"{place}: {problem}")
        return None
    files = _hashed(content, entry.sha256, place, problems)
    identity: dict[str, Json] = {
        "loader": entry.loader,
        "code": source_hash(registered),
        "version": registered.plugin.version,
        "params": without_paths(entry.params),
        "files": files,
        **({"made_of": dict(made_of)} if made_of else {}),
    }
    content_id = content_hash(identity)
    return Component(
        name=entry.name,
        loader=entry.loader,
        content=content_id,
        files=files,
        parameters=shown(entry.params, suite, "models", entry.name),
        access=access,
        origin=content_id,
        refers=tuple(reference.name for reference in refers_to(entry.params)),
    )


def dataset_component(
    entry: DatasetEntry,
    suite: Suite,
    registry: Registry,
    places: Places,
    limit: int | None,
    problems: list[str],
    made_of: Mapping[str, str] = MappingProxyType({}),
) -> Component | None:
    """A dataset of the plan; None if a file is missing or changed, which `problems` then tells."""
    registered = registry.datasets[entry.loader]
    assert isinstance(entry.params, Params)
    place = f"{entry.where}: error: datasets.{entry.name}"
    try:
        content = registered.spec.content(entry.params, places)
    except EnvironmentProblem as problem:
        problems.append(f"{place}: {problem}")
        return None
    files = _hashed(content, entry.sha256, place, problems)
    chosen: dict[str, Json] = dataclasses.asdict(selection(entry, limit))
    identity: dict[str, Json] = {
        "loader": entry.loader,
        "code": source_hash(registered),
        "version": registered.plugin.version,
        "params": without_paths(entry.params),
        "files": files,
        **({"made_of": dict(made_of)} if made_of else {}),
    }
    return Component(
        name=entry.name,
        loader=entry.loader,
        content=content_hash(identity | {"selection": chosen}),
        files=files,
        parameters=shown(entry.params, suite, "datasets", entry.name) | {"selection": chosen},
        origin=content_hash(identity),
        refers=tuple(reference.name for reference in refers_to(entry.params)),
    )


def param_files(entry: AttackEntry) -> dict[str, str]:
    """Hashes of the files that an attack's parameters name."""
    files = {}
    for name in type(entry.params).model_fields:
        path = getattr(entry.params, name)
        if not isinstance(path, Path):
            continue
        if not path.is_file():
            raise EnvironmentProblem(
                f"{entry.where}: error: attacks.{entry.name}: {name}: there is no file '{path}'"
            )
        files[name] = _sha256(path)
    return files


def _hashed(content: Content, pin: str | None, place: str, problems: list[str]) -> dict[str, str]:
    files: dict[str, str] = {}
    for name, source in content.items():
        if isinstance(source, str):
            files[name] = source.removeprefix(KNOWN)
        elif not source.is_file():
            problems.append(f"{place}: {name}: there is no file '{source}'")
        else:
            files[name] = _sha256(source)
    if pin is not None:
        problem = _unpinned(content, files, pin)
        if problem:
            problems.append(f"{place}: sha256: {problem}")
    return files


def _unpinned(content: Content, files: Mapping[str, str], pin: str) -> str:
    """What is wrong with a pin on the first file of `content`, or nothing."""
    if not content:
        return "this loader names no file, so nothing can be pinned; leave sha256 away"
    name = next(iter(content))
    if name not in files or files[name] == pin.lower():
        return ""
    return (
        f"{name} '{content[name]}' has {files[name]}, the suite pins {pin}; the file changed:"
        " check where it comes from, then update the pin"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
