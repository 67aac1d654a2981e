"""Parameters of plug-ins: a pydantic base and the field types that know about suites."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

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


def _resolve(path: Path, info: ValidationInfo) -> Path:
    text = path.as_posix()
    if text.startswith("pkg:/"):  # Path folds the double slash
        return package_file(PACKAGE_SCHEME + text.removeprefix("pkg:").lstrip("/"))
    base = (info.context or {}).get("base")
    return path if path.is_absolute() or base is None else Path(base) / path


SuitePath = Annotated[Path, AfterValidator(_resolve)]
"""A path relative to the suite file, or `pkg://package/file` inside an installed package.

Parameters of this type are left out of content ids: the content of the files counts instead.
"""
