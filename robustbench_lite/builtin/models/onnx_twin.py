"""The twin of an opened ONNX file: gradients for attacks, and how well it stands for the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robustbench_lite import Parity

from .onnx_session import unoptimised
from .parameters import Output
from .preprocess import Classification, Preprocess, class_columns
from .twin import Twin, convert

if TYPE_CHECKING:
    from .onnx_file import OnnxFile

RELATIVE = 1e-4  # of the largest output: what float32 arithmetic in another order explains
HALF = 1e-3  # the same for a file whose own output is rounded to half precision
RUNTIME_GAP = 2.0  # times what the runtime's own optimisations change
STEPS = 2.0  # of a quantised output's grid: one flipped rounding shows as a whole step


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A twin with its preprocessing as one module x -> logits, and what it says of the file.

    `as_file(logits)`: the file's own output from the twin's logits, for comparing the two.
    """

    module: Classification
    twin: Twin
    as_file: Callable[[Tensor], Tensor]


def join(opened: OnnxFile, preprocess: Preprocess, num_classes: int, device: str) -> Joined:
    """Build the twin. Raises ModelError naming what it cannot do."""
    twin = convert(opened.graph.proto, output=opened.session.output.name, logits=True).to(device)
    output: Output = opened.output if twin.head == "logits" else "logits"
    module = Classification(preprocess, twin, output, num_classes).eval().to(device)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return Joined(module=module, twin=twin, as_file=_as_file(opened.output))


def _as_file(output: Output) -> Callable[[Tensor], Tensor]:
    if output == "probabilities":
        return lambda logits: logits.softmax(dim=1)
    if output == "log-probabilities":
        return lambda logits: logits.log_softmax(dim=1)
    return lambda logits: logits


def verifier(
    joined: Joined,
    opened: OnnxFile,
    preprocess: nn.Module,
    predict: Callable[[Tensor], Tensor],
    threads: int,
) -> Callable[[Tensor], Parity]:
    """Compare twin and file on x, allowing what the runtime's own optimisations change."""

    @torch.no_grad()
    def verify(x: Tensor) -> Parity:
        file = predict(x)
        twin = joined.as_file(joined.module(x))
        plain = unoptimised(opened.session, opened.graph.path, threads).run(preprocess(x))
        columns = class_columns(plain, opened.output, file.shape[1])
        gap = float((file - columns).abs().max())
        difference = float((file - twin).abs().max())
        relative = HALF if joined.twin.is_half else RELATIVE
        tolerance = max(
            relative * float(file.abs().max()), RUNTIME_GAP * gap, STEPS * joined.twin.output_step
        )
        top = file.topk(2, dim=1).values
        clear = top[:, 0] - top[:, 1] > 2 * tolerance
        agree = file.argmax(dim=1) == twin.argmax(dim=1)
        reason = _reason(difference, tolerance, clear, agree)
        return Parity(
            difference=difference,
            tolerance=tolerance,
            agreement=float(agree.float().mean()),
            reason=reason,
        )

    return verify


def _reason(difference: float, tolerance: float, clear: Tensor, agree: Tensor) -> str:
    if not difference <= tolerance:  # NaN too
        return (
            f"its twin differs from the file by {difference:.3g}, allowed is {tolerance:.3g};"
            " gradients of something else would attack something else"
        )
    wrong = int((clear & ~agree).sum())
    if wrong:
        return f"its twin decides otherwise than the file for {wrong} of {len(agree)} inputs"
    return ""
