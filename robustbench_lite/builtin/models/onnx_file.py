"""The `onnx` loader: the file as onnxruntime runs it, and its twin for gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite import LoadedModel, ModelError, Places

from .onnx_output import output_kind
from .onnx_proto import OnnxGraph, Port, choose, listed, read_graph
from .onnx_session import INPUT_DTYPES, OUTPUT_TYPES, Session, open_session
from .onnx_twin import Joined, join, verifier
from .parameters import GraphLayout, OnnxParams, Output
from .preprocess import IMAGE_RANK, Preprocess, class_columns

CHANNELS = (1, 3, 4)
Fact = None | bool | int | float | str | Sequence["Fact"] | Mapping[str, "Fact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFile:
    """An opened file: its checked graph, the session that judges, and how to feed it.

    A twin is built from `graph.proto` (external data included), `session.input` and
    `session.output`; it takes what `Preprocess(params, layout)` gives.
    """

    graph: OnnxGraph
    session: Session
    layout: GraphLayout
    output: Output


def open_file(params: OnnxParams, *, device: str, threads: int) -> OnnxFile:
    """Check the file, choose input and output, open the session; ModelError for what is wrong."""
    graph = read_graph(params.path)
    input_ = the_input(graph, params.input)
    output = the_output(graph, params.output)
    session = open_session(
        params.path, input_=input_, output=output, device=device, threads=threads
    )
    kind = params.output_kind
    return OnnxFile(
        graph=graph,
        session=session,
        layout=the_layout(input_) if params.layout == "auto" else params.layout,
        output=output_kind(graph.proto, output.name) if kind == "auto" else kind,
    )


def load(params: OnnxParams, *, places: Places, device: str, threads: int) -> LoadedModel:  # noqa: ARG001
    """The artefact behind `predict`: preprocessing in torch, then onnxruntime, then two columns."""
    opened = open_file(params, device=device, threads=threads)
    preprocess = Preprocess(params, opened.layout).eval().to(device)
    shape = sample_shape(params, opened)
    num_classes = params.num_classes or _count_classes(opened, preprocess, shape)
    predict = _predictor(opened.session, preprocess, opened.output, num_classes)
    joined, refusal = _twin(opened, preprocess, num_classes, device)
    return LoadedModel(
        predict=predict,
        differentiable=joined.module if joined else None,
        no_gradient=refusal,
        verify=verifier(joined, opened, preprocess, predict, threads) if joined else None,
        num_classes=num_classes,
        input_shape=params.input_shape or _fixed_image(shape),
        output=opened.output,
        device=device,
        provider=opened.session.provider,
        leaves_input=True,  # neither the preprocessing nor onnxruntime writes to it
        facts=_facts(opened, shape) | _twin_facts(joined),
    )


def _twin(
    opened: OnnxFile, preprocess: Preprocess, num_classes: int, device: str
) -> tuple[Joined | None, str]:
    try:
        return join(opened, preprocess, num_classes, device), ""
    except ModelError as problem:
        return None, f"its twin cannot be built: {problem}"


def _predictor(
    session: Session, preprocess: Preprocess, output: Output, num_classes: int
) -> Callable[[Tensor], Tensor]:
    @torch.no_grad()
    def predict(x: Tensor) -> Tensor:
        if len(x) == 0:
            return x.new_zeros(0, num_classes)
        return class_columns(session.run(preprocess(x)), output, num_classes)

    return predict


def the_input(graph: OnnxGraph, name: str | None) -> Port:
    """The one input that is fed, of a type that can be fed."""
    chosen = choose(graph.inputs, name, "input") if name is not None else None
    if len(graph.inputs) != 1:
        raise ModelError(
            f"{graph.path} has {len(graph.inputs)} inputs ({listed(graph.inputs)}); robeval feeds "
            "one: fix the others as initializers when you export it"
        )
    port = chosen or graph.inputs[0]
    if not port.is_tensor or port.type not in INPUT_DTYPES:
        raise ModelError(
            f"{graph.path}: input {port} cannot be fed with images; expected a tensor of "
            f"{', '.join(INPUT_DTYPES)}"
        )
    return port


def the_output(graph: OnnxGraph, name: str | None) -> Port:
    """The output with the class scores: the named one, or the only tensor of floats."""
    scores = tuple(p for p in graph.outputs if p.is_tensor and p.type in OUTPUT_TYPES)
    if name is not None:
        port = choose(graph.outputs, name, "output")
        if port not in scores:
            raise ModelError(
                f"{graph.path}: output {port} holds no scores.{_advice(graph, scores)}"
            )
        return port
    if len(scores) == 1:
        return scores[0]
    count = "no output" if not scores else f"{len(scores)} outputs"
    raise ModelError(f"{graph.path} has {count} of float scores.{_advice(graph, scores)}")


def _advice(graph: OnnxGraph, scores: tuple[Port, ...]) -> str:
    text = f" Its outputs: {listed(graph.outputs)}."
    if scores:
        return text + f" Choose one of floats, for example output: {scores[0].name}"
    if any(not port.is_tensor for port in graph.outputs):
        return text + " Export it without ZipMap: options={'zipmap': False} in skl2onnx"
    return text + " Export it with the class scores as an output, not only the label"


def the_layout(port: Port) -> GraphLayout:
    """How a graph wants its images, read from the declared input."""
    shape = port.shape
    if shape is not None and len(shape) == 2:
        return "flat"
    if shape is not None and len(shape) == 3:
        return "NHW"
    if shape is not None and len(shape) == 4 and shape[3] in CHANNELS and shape[1] not in CHANNELS:
        return "NHWC"
    return "NCHW"


def sample_shape(params: OnnxParams, opened: OnnxFile) -> tuple[int | None, ...] | None:
    """One sample of the data, None where a dimension is free; None if even the rank is."""
    if params.input_shape is not None:
        return params.input_shape
    declared = opened.session.input.shape
    if declared is None or not declared:
        return None
    sizes = [d if isinstance(d, int) and d > 0 else None for d in declared[1:]]
    if opened.layout == "NHWC" and len(sizes) == 3:
        sizes = [sizes[2], sizes[0], sizes[1]]
    if params.resize is not None and len(sizes) == 3:
        sizes = [sizes[0], None, None]
    return tuple(sizes)


def _fixed_image(shape: tuple[int | None, ...] | None) -> tuple[int, ...] | None:
    """[c, h, w] where all are fixed; graphs of another rank take data of more than one shape."""
    if shape is None or len(shape) != IMAGE_RANK - 1:
        return None
    sizes = tuple(size for size in shape if size is not None)
    return sizes if len(sizes) == len(shape) else None


def _count_classes(
    opened: OnnxFile, preprocess: Preprocess, shape: tuple[int | None, ...] | None
) -> int:
    declared = opened.session.output.shape
    last = declared[-1] if declared is not None and len(declared) == 2 else None
    if isinstance(last, int) and last > 0:
        return max(last, 2)
    if shape is None:
        raise ModelError(
            f"{opened.graph.path} declares neither its input's shape nor its number of classes: "
            "add num_classes to the model"
        )
    x = torch.zeros(2, *(size or 1 for size in shape), device=opened.session.device)
    try:
        own = opened.session.run(preprocess(x))
    except ModelError as problem:
        raise ModelError(
            f"{opened.graph.path} does not declare its number of classes and a trial run failed: "
            f"add num_classes, or input_shape, to the model ({problem})"
        ) from problem
    return 2 if own.ndim == 1 else max(own.shape[1], 2)


def _facts(opened: OnnxFile, shape: tuple[int | None, ...] | None) -> dict[str, Fact]:
    graph, proto = opened.graph, opened.graph.proto
    batch = opened.session.input.batch
    return {
        "format": "onnx",
        "file_bytes": graph.file_bytes,
        "ir_version": proto.ir_version,
        "opset": {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import},
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "inputs": [_as_fact(port) for port in graph.inputs],
        "outputs": [_as_fact(port) for port in graph.outputs],
        "input": opened.session.input.name,
        "output": opened.session.output.name,
        "layout": opened.layout,
        "providers": opened.session.raw.get_providers(),
        "batch": "dynamic" if batch is None else batch,
        "sample_shape": list(shape) if shape is not None else None,
    }


def _twin_facts(joined: Joined | None) -> dict[str, Fact]:
    """Operators of the twin by type, the most frequent first, and the head that was taken out."""
    if joined is None:
        return {}
    operators = dict(joined.twin.operators.most_common())
    return {"twin": {"operators": operators, "head": joined.twin.head}}


def _as_fact(port: Port) -> dict[str, Fact]:
    shape = list(port.shape) if port.shape is not None else None
    return {"name": port.name, "type": port.type, "shape": shape}
