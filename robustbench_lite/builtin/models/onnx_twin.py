"""The twin of an opened ONNX file: gradients for attacks, and how well it stands for the file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from onnx import TensorProto
from torch import Tensor, nn

from robustbench_lite import ModelError, Parity

from .onnx_output import is_normalised
from .onnx_session import unoptimised
from .parameters import Output
from .preprocess import Classification, Preprocess, class_columns
from .twin import Head, Twin, convert
from .twin.quant import quantised

if TYPE_CHECKING:
    from .onnx_file import OnnxFile

RELATIVE = 1e-4  # of the largest output: what float32 arithmetic in another order explains
HALF = 1e-3  # the same for a file whose own output is rounded to half precision
RUNTIME_GAP = 2.0  # times what the runtime's own optimisations change
STEPS = 2.0  # of a quantised output's grid: one flipped rounding shows as a whole step
DISAGREEING = 0.1  # share of other decisions, all of them near ties, that a twin may make


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A twin with its preprocessing as one module x -> logits, and what it says of the file.

    `as_file(logits)`: the file's own output from the twin's logits, for comparing the two.
    """

    module: Classification
    twin: Twin
    as_file: Callable[[Tensor], Tensor]


class Bytes(nn.Module):
    """x rounded and clipped as the file is fed; the gradient passes inside [0, 255]."""

    def forward(self, x: Tensor) -> Tensor:
        """x: any shape, float, in bytes."""
        return quantised(x, TensorProto.UINT8, None)


def join(opened: OnnxFile, preprocess: Preprocess, num_classes: int, device: str) -> Joined:
    """Build the twin. Raises ModelError naming what it cannot do."""
    twin = convert(opened.graph.proto, output=opened.session.output.name, logits=True).to(device)
    output: Output = opened.output if twin.head == "logits" else "logits"
    network = nn.Sequential(Bytes(), twin) if opened.session.input.type == "uint8" else twin
    module = Classification(preprocess, network, output, num_classes).eval().to(device)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return Joined(module=module, twin=twin, as_file=_as_file(opened, twin.head))


def _as_file(opened: OnnxFile, head: Head) -> Callable[[Tensor], Tensor]:
    if head == "softmax":
        return lambda logits: logits.softmax(dim=1)
    if head == "log-softmax":
        return lambda logits: logits.log_softmax(dim=1)
    if head == "sigmoid":
        return _sigmoids(opened)
    if opened.output == "probabilities":
        return lambda logits: logits.exp()
    return lambda logits: logits


def _sigmoids(opened: OnnxFile) -> Callable[[Tensor], Tensor]:
    shape = opened.session.output.shape
    if shape is not None and shape[1:] in ((), (1,)):
        return lambda logits: logits.softmax(dim=1)  # (0, z) gives (1 - p, p)
    if is_normalised(opened.graph.proto, opened.session.output.name):
        return lambda logits: nn.functional.normalize(logits.sigmoid(), p=1.0, dim=1)
    return lambda logits: logits.sigmoid()


def verifier(
    joined: Joined,
    opened: OnnxFile,
    preprocess: nn.Module,
    predict: Callable[[Tensor], Tensor],
    threads: int,
) -> Callable[[Tensor], Parity]:
    """Compare twin and file on x, allowing what the runtime's own optimisations change.

    A twin that does not run on x is a Parity with a reason, no error.
    """

    @torch.no_grad()
    def verify(x: Tensor) -> Parity:
        file = predict(x)
        try:
            twin = joined.as_file(joined.module(x))
        except ModelError as problem:
            reason = f"its twin does not run: {problem}"
            return Parity(difference=math.inf, tolerance=0.0, agreement=0.0, reason=reason)
        plain = _unoptimised(opened, preprocess, x, file, threads)
        difference = float((file - twin).abs().max())
        tolerance = max(
            (HALF if joined.twin.is_half else RELATIVE) * float(file.abs().max()),
            RUNTIME_GAP * float((file - plain).abs().max()),
            STEPS * joined.twin.output_step,
        )
        other = int((file.argmax(dim=1) != twin.argmax(dim=1)).sum())
        own = int((file.argmax(dim=1) != plain.argmax(dim=1)).sum())
        allowed = max(DISAGREEING * len(x), RUNTIME_GAP * own)
        reason = _reason(difference, tolerance, other, allowed, len(x))
        return Parity(
            difference=difference,
            tolerance=tolerance,
            agreement=1 - other / len(x),
            reason=reason,
        )

    return verify


def _unoptimised(
    opened: OnnxFile, preprocess: nn.Module, x: Tensor, file: Tensor, threads: int
) -> Tensor:
    """The file's output without the runtime's optimisations; the same where it needs them."""
    try:
        plain = unoptimised(opened.session, opened.graph.path, threads).run(preprocess(x))
    except ModelError:
        return file
    return class_columns(plain, opened.output, file.shape[1])


def _reason(difference: float, tolerance: float, other: int, allowed: float, samples: int) -> str:
    if not difference <= tolerance < math.inf:  # NaN too
        return (
            f"its twin differs from the file by {difference:.3g}, allowed is {tolerance:.3g};"
            " gradients of something else would attack something else"
        )
    if other > allowed:
        return f"its twin decides otherwise than the file for {other} of {samples} inputs"
    return ""
