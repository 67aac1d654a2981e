"""What the chosen output of a graph means, read from the operator behind it."""

from __future__ import annotations

import onnx

from .parameters import Output

RESHAPES = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Dropout")
CASTS = ("Cast", "QuantizeLinear", "DequantizeLinear")
PASSES_THROUGH = frozenset((*RESHAPES, *CASTS))
PROBABILITIES = frozenset(("Softmax", "Sigmoid", "Normalizer"))
CLASSIFIERS = frozenset(("LinearClassifier", "TreeEnsembleClassifier", "SVMClassifier"))
NORMALISED = ("SOFTMAX", "LOGISTIC")


def output_kind(proto: onnx.ModelProto, name: str) -> Output:
    """Logits unless a softmax or the like stands at the end, reshapes and casts looked past."""
    makers = {output: node for node in proto.graph.node for output in node.output}
    node = _behind(makers, name)
    if node is None:
        return "logits"
    if node.op_type == "LogSoftmax":
        return "log-probabilities"
    if node.op_type == "Log":
        inner = _behind(makers, node.input[0])
        softmax = inner is not None and inner.op_type in PROBABILITIES
        return "log-probabilities" if softmax else "logits"
    if node.op_type in PROBABILITIES:
        return "probabilities"
    if node.op_type in CLASSIFIERS and _post_transform(node) in NORMALISED:
        return "probabilities"
    return "logits"


def is_normalised(proto: onnx.ModelProto, name: str) -> bool:
    """Whether the output comes out of a Normalizer, reshapes and casts looked past."""
    makers = {output: node for node in proto.graph.node for output in node.output}
    node = _behind(makers, name)
    return node is not None and node.op_type == "Normalizer"


def _behind(makers: dict[str, onnx.NodeProto], name: str) -> onnx.NodeProto | None:
    node = makers.get(name)
    while node is not None and node.op_type in PASSES_THROUGH:
        node = makers.get(node.input[0])
    return node


def _post_transform(node: onnx.NodeProto) -> str:
    found = [a.s.decode() for a in node.attribute if a.name == "post_transform"]
    return found[0] if found else "NONE"
