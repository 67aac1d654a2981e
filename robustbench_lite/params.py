"""Parameters of plug-ins: a pydantic base and the field types that know about suites."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo

PACKAGE_SCHEME = "pkg://"


class Params(BaseModel):
    """Base of every plug-in's parameters: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class NoParams(Params):
    """For a plug-in that takes no parameters."""


def package_file(text: str) -> Path:
    """File of an installed package named as `pkg://package/folder/file`; the package is not run."""
    package, _, inside = text.removeprefix(PACKAGE_SCHEME).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations or not inside:
        raise ValueError(
            f"'{text}' names no installed package; expected {PACKAGE_SCHEME}package/path/to/file"
        )
    return Path(spec.submodule_search_locations[0]) / inside


def package_path(path: Path) -> Path:
    """The file of a package that a path names as `pkg://...`; any other path as it is."""
    text = path.as_posix()
    if text.startswith("pkg:/"):  # Path folds the double slash
        return package_file(PACKAGE_SCHEME + text.removeprefix("pkg:").lstrip("/"))
    return path


def _resolve(path: Path, info: ValidationInfo) -> Path:
    path = package_path(path)
    base = (info.context or {}).get("base")
    return path if path.is_absolute() or base is None else Path(base) / path


SuitePath = Annotated[Path, AfterValidator(_resolve)]
"""A path relative to the suite file, or `pkg://package/file` inside an installed package.

Parameters of this type are left out of content ids: the content of the files counts instead.
"""


@dataclass(frozen=True, slots=True)
class Refers:
    """Marks a parameter that holds the name of another entry of the suite."""

    kind: Literal["model", "dataset"]


ModelRef = Annotated[str, Refers("model")]
"""Name of a model of the suite; alone, in a tuple, or optional."""

DatasetRef = Annotated[str, Refers("dataset")]
"""Name of a dataset of the suite; alone, in a tuple, or optional."""


class Reference(NamedTuple):
    """One name that the parameter `field` refers to."""

    field: str
    kind: Literal["model", "dataset"]
    name: str


def referring(model: type[BaseModel]) -> dict[str, Refers]:
    """The parameters that hold names of other entries, and of what kind."""
    found: dict[str, Refers] = {}
    for name, field in model.model_fields.items():
        marks = [*field.metadata, *_marks(field.annotation)]
        mark = next((each for each in marks if isinstance(each, Refers)), None)
        if mark is not None:
            found[name] = mark
    return found


def refers_to(params: BaseModel) -> tuple[Reference, ...]:
    """Every entry that the parameters name, in order."""
    found: list[Reference] = []
    for field, mark in referring(type(params)).items():
        value = getattr(params, field)
        names = () if value is None else (value,) if isinstance(value, str) else tuple(value)
        found += [Reference(field, mark.kind, name) for name in names]
    return tuple(found)


def _marks(annotation: object) -> list[object]:
    """Everything that stands inside an annotation, at any depth."""
    inner = get_args(annotation)
    return [*inner, *(mark for each in inner for mark in _marks(each))]
