"""What the loader `trained` says of itself; nothing here imports torch."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path

from robustbench_lite import ModelSpec, Params, Places

from .. import nets
from .options import PgdAdversarial, Trades, TrainedParams

CORE = "robustbench_lite.norms"  # steps and projections of the recipes that search


def _content(params: Params, places: Places) -> dict[str, Path | str]:  # noqa: ARG001
    """What else decides the weights: the architecture's source, the search's, torch's version.

    The source of this folder counts already, and so do the parameters and the training data.
    """
    assert isinstance(params, TrainedParams)
    found: dict[str, Path | str] = {**nets.files(params.arch)}
    search = importlib.util.find_spec(CORE)
    if isinstance(params.recipe, PgdAdversarial | Trades) and search and search.origin:
        found["norms.py"] = Path(search.origin)
    version = importlib.metadata.version("torch")
    found["torch"] = f"sha256:{hashlib.sha256(version.encode()).hexdigest()}"
    return found


SPEC = ModelSpec(
    name="trained",
    implementation="robeval_train.training.load:load",
    summary="trained on a dataset of the suite by a recipe, kept by content id",
    params=TrainedParams,
    content=_content,
)
