"""Which files decide a model, found without running any of them."""

from __future__ import annotations

import mmap
from importlib.machinery import PathFinder
from pathlib import Path

from robustbench_lite import Params, Places

from .parameters import OnnxParams, TorchParams


def torch_content(params: Params, places: Places) -> dict[str, Path | str]:  # noqa: ARG001
    """The weights, and the source file of the factory where it can be found."""
    assert isinstance(params, TorchParams)
    files: dict[str, Path | str] = {}
    if params.weights is not None:
        files["weights"] = params.weights
    source = module_source(params.factory.partition(":")[0]) if params.factory else None
    if source is not None:
        files["factory"] = source
    return files


def module_source(module: str) -> Path | None:
    """Source file of an importable module; neither it nor its parent packages are run."""
    locations: list[str] | None = None
    origin: str | None = None
    parts = module.split(".")
    for depth in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), locations)
        if spec is None:
            return None
        origin = spec.origin
        locations = list(spec.submodule_search_locations or [])
    found = Path(origin) if origin else None
    return found if found is not None and found.is_file() else None


def onnx_content(params: Params, places: Places) -> dict[str, Path | str]:  # noqa: ARG001
    """The file, and the files beside it that hold its external data."""
    assert isinstance(params, OnnxParams)
    files: dict[str, Path | str] = {"path": params.path}
    for name in _external_names(params.path):
        files[f"external:{name}"] = params.path.parent / name
    return files


def _external_names(path: Path) -> list[str]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            if raw.find(b"location") < 0:  # the key of every external tensor: skips the import
                return []
    except (OSError, ValueError):  # missing or empty: the loader says so in full
        return []
    from .onnx_proto import external_names

    return external_names(path)
