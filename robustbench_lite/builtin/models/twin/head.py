"""The logits behind the probabilities: which nodes at the end of a graph are left out."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

from onnx import NodeProto, TensorProto, helper

from .reader import Graph, domain_of

Head: TypeAlias = Literal["logits", "softmax", "sigmoid", "log-softmax"]

_CARRIERS = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Dropout"}
_ROUNDERS = {"QuantizeLinear", "DequantizeLinear"}
_TRANSFORMS: dict[bytes, Head] = {b"SOFTMAX": "softmax", b"LOGISTIC": "sigmoid"}


def without_head(graph: Graph, output: str) -> tuple[Graph, Head]:
    """`graph` with the final Softmax, LogSoftmax or two-class Sigmoid before `output` taken out.

    Found behind nodes that only carry values on, and behind the quantisation of probabilities,
    which goes with them. A linear classifier of ai.onnx.ml gives its raw scores instead. Where
    the end is none of these the graph comes back as it is, with "logits".
    """
    makers = {name: node for node in graph.nodes for name in node.output}
    path: list[NodeProto] = []
    name = output
    while name in makers:
        node = makers[name]
        kind = (domain_of(node.domain), node.op_type)
        head = _head(kind, node, graph, output)
        if head is not None:
            if any(step.op_type == "Log" for step in path):
                head = "log-softmax"
            return _replaced(graph, node, path), head
        if not _passes(kind, node):
            break
        path.append(node)
        name = node.input[0]
    return graph, "logits"


def _passes(kind: tuple[str, str], node: NodeProto) -> bool:
    if kind == ("", "Log"):
        return True
    if kind[0] == "ai.onnx.ml":
        return kind[1] in ("ZipMap", "Normalizer")
    return kind[0] == "" and kind[1] in _CARRIERS | _ROUNDERS and bool(node.input)


def _head(kind: tuple[str, str], node: NodeProto, graph: Graph, output: str) -> Head | None:
    if kind == ("ai.onnx.ml", "LinearClassifier"):
        transform = next((a.s for a in node.attribute if a.name == "post_transform"), b"NONE")
        return _TRANSFORMS.get(transform)
    if kind[0] != "":
        return None
    shape = graph.shapes.get(output)
    if kind[1] in ("Softmax", "LogSoftmax"):
        since_13 = graph.opsets.get("", 0) >= 13
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1 if since_13 else 1)
        if axis in (-1, 1) or (shape is not None and axis == len(shape) - 1):
            return "softmax" if kind[1] == "Softmax" else "log-softmax"
    if kind[1] == "Sigmoid" and shape is not None and shape[-1:] in ((1,), (2,)):
        return "sigmoid"
    return None


def _replaced(graph: Graph, found: NodeProto, path: list[NodeProto]) -> Graph:
    """`graph` with `found` passing its input on, and no rounding or scaling behind it."""
    passing = {id(node) for node in path if node.op_type in _ROUNDERS | {"Normalizer", "Log"}}
    nodes = []
    for node in graph.nodes:
        if node is found and node.op_type == "LinearClassifier":
            node = _raw_scores(node)
        elif node is found or id(node) in passing:
            node = helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.name)
        nodes.append(node)
    return dataclasses.replace(graph, nodes=nodes)


def _raw_scores(node: NodeProto) -> NodeProto:
    raw = NodeProto()
    raw.CopyFrom(node)
    for attribute in raw.attribute:
        if attribute.name == "post_transform":
            attribute.s = b"NONE"
    return raw


def chosen_output(graph: Graph) -> str:
    """The output to differentiate where the user names none.

    The only one; else the one that holds floats (classifiers of scikit-learn put a label
    first); else the first.
    """
    floats = [
        name
        for name, kind in graph.outputs.items()
        if kind in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    ]
    maps = [name for name, kind in graph.outputs.items() if kind == 0]
    return [*floats, *maps, *graph.outputs][0]
