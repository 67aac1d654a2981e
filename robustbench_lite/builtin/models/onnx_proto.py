"""An ONNX file as a checked graph: safe to hand to a runtime, its ports and facts read out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from robustbench_lite import ModelError

from .formats import DESCRIPTION, existing_file, sniff

MAX_FILE_BYTES = 2 * 1024**3  # protobuf's own limit for one message
MAX_WEIGHT_BYTES = 64 * 1024**3
KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or output of a graph.

    `type`: "float32", "uint8", ..., or the declared type in words where it is no tensor.
    `shape`: None if undeclared; a dimension is a number, a symbol, or None where unknown.
    """

    name: str
    type: str
    is_tensor: bool
    shape: tuple[int | str | None, ...] | None

    @property
    def batch(self) -> int | None:
        """The fixed first dimension, or None where any batch size is accepted."""
        first = self.shape[0] if self.shape else None
        return first if isinstance(first, int) and first > 0 else None

    def __str__(self) -> str:
        dims = "unknown" if self.shape is None else ", ".join(str(d or "?") for d in self.shape)
        return f"'{self.name}' {self.type} [{dims}]" if self.is_tensor else self._in_words()

    def _in_words(self) -> str:
        return f"'{self.name}' {self.type}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxGraph:
    """A parsed and checked file. `inputs` leaves out initializers."""

    path: Path
    proto: onnx.ModelProto
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    file_bytes: int


def read_graph(path: Path) -> OnnxGraph:
    """Parse and check an ONNX file; ModelError for every file that is not a sound one.

    External data are opened by `onnx`, which refuses names that leave the file's folder
    (onnxruntime alone follows hard links).
    """
    size = existing_file(path)
    found = sniff(path)
    if found != "unknown":
        raise ModelError(f"{path} is {DESCRIPTION[found]}; expected an ONNX file")
    if size > MAX_FILE_BYTES:
        raise ModelError(
            f"{path} has {size} bytes; an ONNX file ends at 2 GiB (external data aside)"
        )
    proto = _with_external(path, _parse(path))
    _check_domains(path, proto)
    _check(path, proto)
    initializers = {tensor.name for tensor in proto.graph.initializer}
    initializers |= {tensor.values.name for tensor in proto.graph.sparse_initializer}
    return OnnxGraph(
        path=path,
        proto=proto,
        inputs=tuple(_port(v) for v in proto.graph.input if v.name not in initializers),
        outputs=tuple(_port(value) for value in proto.graph.output),
        file_bytes=size,
    )


def external_names(path: Path) -> list[str]:
    """Names of the files beside `path` that hold its external data; none if it cannot be parsed."""
    try:
        proto = onnx.load(path, load_external_data=False)
    except DecodeError:
        return []
    return sorted({location for location, _ in _external(proto)})


def _parse(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(path, load_external_data=False)
    except DecodeError as problem:
        raise ModelError(
            f"{path} is no ONNX file, or a truncated one (its protobuf does not parse): fetch or "
            "export it again"
        ) from problem
    if not proto.opset_import or not proto.graph.node:
        raise ModelError(
            f"{path} is no ONNX model, or a truncated one: it has "
            f"{'no operators' if proto.opset_import else 'no opset'}; fetch or export it again"
        )
    return proto


def _with_external(path: Path, proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its external data, read by `onnx` under its checks."""
    locations = sorted({location for location, _ in _external(proto)})
    if not locations:
        return proto
    declared = sum(size for _, size in _external(proto))
    if declared > MAX_WEIGHT_BYTES:
        raise ModelError(f"{path} declares {declared} bytes of weights; the limit is 64 GiB")
    try:
        return onnx.load(path)
    except (onnx.checker.ValidationError, ValueError, OSError, RuntimeError) as problem:
        raise ModelError(
            f"{path}: its external data {', '.join(locations)} cannot be used: "
            f"{_first_line(problem)}. They must lie beside the model file, complete"
        ) from problem


def _external(proto: onnx.ModelProto) -> Iterator[tuple[str, int]]:
    """(location, declared bytes) of every external tensor."""
    for tensor in _tensors(proto.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        length = entries.get("length", "0")
        yield entries.get("location", ""), int(length) if length.isdigit() else 0


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for inner in _subgraphs(attribute):
                yield from _tensors(inner)


def _subgraphs(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def _nodes(nodes: Iterator[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for inner in _subgraphs(attribute):
                yield from _nodes(iter(inner.node))


def _check_domains(path: Path, proto: onnx.ModelProto) -> None:
    local = {function.domain for function in proto.functions}
    bodies = [iter(proto.graph.node), *(iter(function.node) for function in proto.functions)]
    for body in bodies:
        for node in _nodes(body):
            if node.domain not in KNOWN_DOMAINS and node.domain not in local:
                raise ModelError(
                    f"{path}: operator {node.op_type} is of the domain '{node.domain}', which "
                    "needs a custom-operator library; robeval loads none. Known domains: ai.onnx, "
                    "ai.onnx.ml, com.microsoft"
                )


def _check(path: Path, proto: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as problem:
        if "topologically" in str(problem) and _sound_when_sorted(proto):
            return
        raise ModelError(
            f"{path} is no sound ONNX model, or a truncated one: {_first_line(problem)}"
        ) from problem


def _sound_when_sorted(proto: onnx.ModelProto) -> bool:
    """onnxruntime sorts the operators itself, and tools do write them out of order."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    made = {"", *(value.name for value in copy.graph.input)}
    made.update(tensor.name for tensor in copy.graph.initializer)
    waiting, ordered = list(copy.graph.node), list[onnx.NodeProto]()
    while waiting:
        ready = [node for node in waiting if made.issuperset(node.input)]
        if not ready:
            return False
        ordered += ready
        made.update(name for node in ready for name in node.output)
        waiting = [node for node in waiting if not made.issuperset(node.output)]
    del copy.graph.node[:]
    copy.graph.node.extend(ordered)
    try:
        onnx.checker.check_model(copy)
    except (onnx.checker.ValidationError, ValueError, RuntimeError):
        return False
    return True


def _first_line(problem: Exception) -> str:
    lines = str(problem).splitlines()
    return lines[0].rstrip(". ") if lines else type(problem).__name__


def _port(value: onnx.ValueInfoProto) -> Port:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return Port(name=value.name, type=_words(value.type), is_tensor=False, shape=None)
    tensor = value.type.tensor_type
    shape = tuple(_dimension(d) for d in tensor.shape.dim) if tensor.HasField("shape") else None
    return Port(name=value.name, type=_element(tensor.elem_type), is_tensor=True, shape=shape)


def _dimension(dimension: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dimension.HasField("dim_value"):
        return int(dimension.dim_value)
    return dimension.dim_param or None


def _element(number: int) -> str:
    """ "float32", "int64", ... from the protobuf's enumeration."""
    name = str(onnx.TensorProto.DataType.Name(number)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _words(kind: onnx.TypeProto) -> str:
    match kind.WhichOneof("value"):
        case "tensor_type":
            return f"tensor({_element(kind.tensor_type.elem_type)})"
        case "sequence_type":
            return f"sequence({_words(kind.sequence_type.elem_type)})"
        case "map_type":
            key = _element(kind.map_type.key_type)
            return f"map({key}, {_words(kind.map_type.value_type)})"
        case other:
            return str(other)


def choose(ports: tuple[Port, ...], name: str, role: str) -> Port:
    """The port of this name; ModelError with the nearest one."""
    for port in ports:
        if port.name == name:
            return port
    near = get_close_matches(name, [port.name for port in ports], n=1)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    raise ModelError(f"the graph has no {role} '{name}'{hint} Its {role}s: {listed(ports)}")


def listed(ports: tuple[Port, ...]) -> str:
    """The ports in one line, for messages."""
    return "; ".join(map(str, ports)) or "none"
