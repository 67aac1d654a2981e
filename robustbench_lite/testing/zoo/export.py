"""Members as ONNX files."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from robustbench_lite import ModelError

from .registry import member

OPSET = 17
TRACED = 2  # samples; the batch axis stays open


def export(name: str, path: Path) -> None:
    """Write the member of that name as ONNX: `x` [n, *shape] float32 to `y` [n, k], opset 17.

    Raises ModelError for an unknown name, and for a member that ONNX cannot express, with the
    reason.
    """
    chosen = member(name)
    if chosen.no_onnx:
        raise ModelError(f"the zoo's '{name}' has no ONNX form: {chosen.no_onnx}")
    network = chosen.factory()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of tracing and of its older exporter
        # the newer exporter needs onnxscript, and writes local paths into every node
        torch.onnx.export(
            network,
            (torch.zeros(TRACED, *chosen.shape),),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        )
