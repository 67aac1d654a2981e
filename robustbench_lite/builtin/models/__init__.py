"""The built-in model loaders, `torch` and `onnx`: specs here, the work in the modules beside."""

from __future__ import annotations

from collections.abc import Iterable

from robustbench_lite import ModelSpec, hookimpl

from .content import onnx_content, torch_content
from .parameters import OnnxParams, TorchParams

TORCH = ModelSpec(
    name="torch",
    implementation="robustbench_lite.builtin.models.torch_file:load",
    summary="a PyTorch network from a factory and its weights (safetensors or state dict)",
    params=TorchParams,
    access=lambda params: "gradient",  # noqa: ARG005
    content=torch_content,
    suffixes=(".safetensors", ".pt", ".pth", ".pt2"),
    from_path=lambda path: TorchParams(weights=path),
)
ONNX = ModelSpec(
    name="onnx",
    implementation="robustbench_lite.builtin.models.onnx_file:load",
    summary="an ONNX file, judged by onnxruntime on the provider that was asked for",
    params=OnnxParams,
    access=lambda params: "gradient",  # noqa: ARG005
    content=onnx_content,
    stand_in=True,
    suffixes=(".onnx",),
    from_path=lambda path: OnnxParams(path=path),
)


@hookimpl
def robeval_models() -> Iterable[ModelSpec]:
    """`torch` and `onnx`."""
    return (TORCH, ONNX)
