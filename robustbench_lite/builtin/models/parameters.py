"""What a suite may say about a model: light pydantic models, no torch, no onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, PositiveInt, model_validator

from robustbench_lite import Params, SuitePath

Output = Literal["logits", "probabilities", "log-probabilities"]
Layout = Literal["NCHW", "NHWC", "flat", "auto"]
GraphLayout = Literal["NCHW", "NHWC", "NHW", "flat"]
"""What a graph wants: the declared layouts, and grey images without a channel."""

Positive = Annotated[FiniteFloat, Field(gt=0)]
PerChannel = Annotated[tuple[FiniteFloat, ...], Field(min_length=1)]
PositivePerChannel = Annotated[tuple[Positive, ...], Field(min_length=1)]
Side = PositiveInt

TRUSTED_SUFFIXES = (".pt", ".pth", ".pt2", ".pkl")
"""File endings that may hold a whole network, so that no factory is needed (with trust)."""


class Preprocessing(Params):
    """What happens to x inside the model, in this order: scale, channels, resize, mean and std.

    `scale`: x is multiplied by it first (255 for a network trained on bytes).
    `channels`: "bgr" reverses the three channels; the data are taken as RGB.
    `resize`: one side or [height, width], bilinear with antialiasing (half-pixel centres).
    `mean`, `std`: a number, or one per channel in the order the network sees them (after
    `channels`), in the unit after `scale`: (x - mean) / std.
    `num_classes`, `input_shape`: only needed where they cannot be read from the model;
    `input_shape` is one sample of the data, before any of the above.
    """

    scale: Positive = 1.0
    channels: Literal["rgb", "bgr"] = "rgb"
    resize: Side | tuple[Side, Side] | None = None
    mean: FiniteFloat | PerChannel = 0.0
    std: Positive | PositivePerChannel = 1.0
    num_classes: Annotated[int, Field(ge=2)] | None = None
    input_shape: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None


class TorchParams(Preprocessing):
    """Parameters of the `torch` loader.

    `factory`: "package.module:name", a function that returns the network.
    `weights`: .safetensors or a state dict saved by torch.save; None keeps the factory's own
    initialisation, drawn with seed 0. `kwargs`: passed to the factory.
    `trust`: allow files that can run code (TorchScript, .pt2, pickled modules).
    `output`: what the network returns.
    """

    factory: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")] | None = None
    weights: SuitePath | None = None
    kwargs: dict[str, object] = {}  # noqa: RUF012  (pydantic copies a default)
    trust: bool = False
    output: Output = "logits"

    @model_validator(mode="after")
    def _needs_a_network(self) -> TorchParams:
        if self.factory is None:
            whole = self.weights is not None and self.weights.suffix.lower() in TRUSTED_SUFFIXES
            if not (self.trust and whole):
                raise ValueError(_factory_missing(self.weights))
        elif self.kwargs and not all(isinstance(name, str) for name in self.kwargs):
            raise ValueError("kwargs: every key must be a name of a factory argument")
        return self


def _factory_missing(weights: Path | None) -> str:
    if weights is None:
        found = "neither factory nor weights is given"
    else:
        found = f"{weights.name} holds weights and no network"
    return (
        f"factory is missing: {found}; expected factory: 'package.module:name' of a function that "
        "returns the network (TorchScript, .pt2 and pickled modules need none, with trust: true)"
    )


class OnnxParams(Preprocessing):
    """Parameters of the `onnx` loader.

    `input`, `output`: names in the graph, needed where there is more than one candidate.
    `layout`: how the graph wants an image; "auto" reads it from the declared input: rank 2 is
    "flat", rank 4 with 1, 3 or 4 as last dimension and not as the second is "NHWC".
    `output_kind`: "auto" reads it from the operator behind the output.
    """

    path: SuitePath
    input: str | None = None
    output: str | None = None
    layout: Layout = "auto"
    output_kind: Output | Literal["auto"] = "auto"
