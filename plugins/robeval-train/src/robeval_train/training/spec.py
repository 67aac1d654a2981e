"""What the loader `trained` says of itself; nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from robustbench_lite import ModelSpec, Params, Places

from .. import nets
from .options import TrainedParams


def _content(params: Params, places: Places) -> dict[str, Path]:  # noqa: ARG001
    """The source of the architecture: another network is another model."""
    assert isinstance(params, TrainedParams)
    return nets.files(params.arch)


SPEC = ModelSpec(
    name="trained",
    implementation="robeval_train.training.load:load",
    summary="trained on a dataset of the suite by a recipe, kept by content id",
    params=TrainedParams,
    content=_content,
)
