"""The differentiable twin of an ONNX file: the same function as a torch module, with gradients.

`convert(model)` reads the proto (`reader`), drafts steps from the operator table (`table`,
`ops_*`, `compiler`) and returns a `Twin`, whose forward pass is a flat list of torch calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import onnx
import torch
from onnx import TensorProto
from torch import Tensor, nn

from robustbench_lite import ModelError

from . import (
    ops_activation,
    ops_attention,
    ops_cast,
    ops_conv,
    ops_elementwise,
    ops_gather,
    ops_layout,
    ops_linear,
    ops_loss,
    ops_ml,
    ops_norm,
    ops_pool,
    ops_quant,
    ops_recurrent,
    ops_reduce,
    ops_resize,
    ops_roi,
    ops_shape,
    ops_signal,
    shapes,
    shapes_layout,
)
from .compiler import Compiler, compile_graph
from .fuse import REWRITES, grid_step
from .head import Head, chosen_output, without_head
from .precision import Precision, type_name
from .program import Program
from .reader import Graph, read
from .table import supported

TABLES = (
    ops_activation,
    ops_attention,
    ops_cast,
    ops_conv,
    ops_elementwise,
    ops_gather,
    ops_layout,
    ops_linear,
    ops_loss,
    ops_ml,
    ops_norm,
    ops_pool,
    ops_quant,
    ops_recurrent,
    ops_reduce,
    ops_resize,
    ops_roi,
    ops_shape,
    ops_signal,
    shapes,
    shapes_layout,
)
"""The modules whose import fills the operator table."""

__all__ = ["Head", "ModelError", "Program", "Twin", "convert", "program_of", "supported"]

_SMALL_INTEGERS = {TensorProto.UINT8, TensorProto.INT8}


class Twin(nn.Module):
    """One image input, one output, differentiable.

    `head` says what stood behind the output and was taken out; `operators` counts the operator
    types that are left. `output_step` is the step of the grid that a quantised file rounds the
    output to (0: none); sums in another order move single outputs by one such step. `batch` is
    the batch size the file fixes (None: any): another batch is run in pieces of that size, the
    last one filled up.
    """

    def __init__(
        self,
        program: Program,
        *,
        input_name: str,
        input_type: int,
        output_name: str,
        head: Head,
        operators: Counter[str],
        output_step: float,
        shape: tuple[int | None, ...] | None,
    ) -> None:
        super().__init__()
        self.program = program
        self.input_name = input_name
        self.input_type = input_type
        self.output_name = output_name
        self.head = head
        self.operators = operators
        self.output_step = output_step
        self.input_shape = shape
        self.batch = shape[0] if shape else None
        self.eval()

    @property
    def is_half(self) -> bool:
        """Whether the file computes in half precision, so that its own results carry 3 digits."""
        return self.program.is_half

    def forward(self, x: Tensor) -> Tensor:
        """The output for x, float32 (float64 if the twin was made so).

        x: [n, ...] float, also where the file reads integers; gradients flow to it in any case.
        """
        dtype = torch.float32
        if self.input_type not in _SMALL_INTEGERS:
            dtype = self.program.precision.of(self.input_type)
        x = x.to(self.program.precision.float_type(dtype))
        if self.batch is None or len(x) == self.batch:
            made = self._run(x)
        else:
            made = _in_pieces(self._run, x, self.batch)
        return made.float() if made.dtype in (torch.float16, torch.bfloat16) else made

    def _run(self, x: Tensor) -> Tensor:
        made: Tensor = self.program(x)[0]
        return made


def _in_pieces(run: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    missing = -len(x) % size
    full = torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x
    return torch.cat([run(piece) for piece in torch.split(full, size)])[: len(x)]


def program_of(
    graph: Graph,
    wanted: Sequence[str],
    *,
    dtype: torch.dtype | None = None,
    tagged: Mapping[str, int] | None = None,
) -> tuple[Program, Compiler]:
    """The program that computes the outputs `wanted` of `graph`, and how it came to be.

    `tagged`: inputs of integer type that are fed as floats, with their element types.
    """
    precision = Precision(dtype)
    compiler, inputs, outputs = compile_graph(
        graph, wanted, precision, rewrites=REWRITES, tagged=tagged or {}
    )
    program = Program(compiler.drafts, inputs, outputs, precision)
    return program, compiler


def convert(
    model: onnx.ModelProto,
    *,
    output: str | None = None,
    logits: bool = True,
    dtype: torch.dtype | None = None,
) -> Twin:
    """The differentiable twin of `model`, on the CPU; move it with `.to(device)`.

    `output` names the output wanted (the only one, or the first that holds floats, if None).
    `logits` takes a final Softmax, LogSoftmax or two-class Sigmoid out. `dtype` runs every float
    in that type (float64 for diagnosis); without it half types run as float32 on the CPU and as
    they are elsewhere. `model` is not changed.

    Raises ModelError where the file is damaged, or holds something that cannot be converted.
    """
    graph = read(model)
    if len(graph.inputs) != 1:
        raise ModelError(
            f"the model has the inputs {sorted(graph.inputs)}; one image input is needed: export "
            "it with one input tensor, the others folded in as constants"
        )
    ((name, elem_type),) = graph.inputs.items()
    if elem_type in (TensorProto.STRING, 0):
        raise ModelError(f"the input '{name}' has type {type_name(elem_type)}, not numbers")
    wanted = chosen_output(graph) if output is None else output
    if wanted not in graph.outputs:
        raise ModelError(f"the model has no output '{wanted}'; it has {sorted(graph.outputs)}")
    head: Head = "logits"
    if logits:
        graph, head = without_head(graph, wanted)
    tagged = {name: elem_type} if elem_type in _SMALL_INTEGERS else {}
    program, compiler = program_of(graph, [wanted], dtype=dtype, tagged=tagged)
    return Twin(
        program,
        input_name=name,
        input_type=elem_type,
        output_name=wanted,
        head=head,
        operators=compiler.operators,
        output_step=grid_step(compiler.wires[wanted]),
        shape=graph.shapes.get(name),
    )
