"""Rewrites: what exporters took apart is put together again where torch has one kernel for it.

Each rewrite looks at a node and at the makers of its inputs, and answers with another node and
its inputs, or None. Nodes that nobody reads afterwards fall away.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .compiler import Rewrite, Wire
from .ops_quant import MICROSOFT, target_type
from .quant import is_float8
from .table import OWN, Node

Changed = tuple[Node, list[Wire | None]]


def _made_by(wire: Wire | None, *names: str) -> Sequence[Wire | None] | None:
    """The inputs of the node that made `wire`, where it is one of the ai.onnx operators named."""
    maker = None if wire is None else wire.maker
    if maker is None or maker.node.op not in names or maker.node.domain not in ("", MICROSOFT):
        return None
    return [port for port, _ in maker.ports]


def _number(wire: Wire | None) -> float | None:
    const = None if wire is None else wire.const
    return float(const) if const is not None and const.numel() == 1 else None


def _same(a: Wire | None, b: Wire | None) -> bool:
    if a is b:
        return True
    left, right = (None if wire is None else wire.const for wire in (a, b))
    return left is not None and right is not None and torch.equal(left, right)


def fake_quantize(node: Node, inputs: Sequence[Wire | None]) -> Changed | None:
    """Dequantisation right behind quantisation with the same scale and zero point."""
    source = _made_by(inputs[0], "QuantizeLinear")
    if source is None or inputs[0] is None or inputs[0].maker is None:
        return None
    first = inputs[0].maker.node
    scale, zero = source[1], source[2] if len(source) > 2 else None
    mine = inputs[2] if len(inputs) > 2 else None
    known = (
        scale is not None and scale.const is not None and (zero is None or zero.const is not None)
    )
    blocks = first.integer("block_size") or node.integer("block_size")
    if not known or blocks or not _same(scale, inputs[1]) or not _same(zero, mine):
        return None
    if first.integer("axis", 1) != node.integer("axis", 1) and _number(scale) is None:
        return None
    tag = inputs[0].tag
    if tag is None or is_float8(tag):
        return None
    if _rounded(source[0], scale, zero, tag):
        return dataclasses.replace(node, op="Identity", domain=""), [source[0]]
    fused = dataclasses.replace(first, op="FakeQuantize", domain=OWN, outputs=node.outputs)
    return fused, list(source)


_CARRIERS = (
    *("Reshape", "Transpose", "Split", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather"),
    *("MaxPool", "Relu", "Identity", "Expand"),
)


def _rounded(wire: Wire | None, scale: Wire | None, zero: Wire | None, tag: int) -> bool:
    """Whether `wire` holds values of this grid already: rounding again would change nothing."""
    if _number(scale) is None:
        return False
    while wire is not None and wire.maker is not None:
        node, ports = wire.maker.node, [port for port, _ in wire.maker.ports]
        if node.op == "FakeQuantize":
            before = ports[2] if len(ports) > 2 else None
            return target_type(node, 2) == tag and _same(ports[1], scale) and _same(before, zero)
        if node.op not in _CARRIERS or node.domain:
            return False
        wire = ports[0]
    return False


def grid_step(wire: Wire) -> float:
    """The step of the grid that a quantised model rounds `wire` to last; 0 where it does not."""
    place: Wire | None = wire
    while place is not None and place.maker is not None:
        node, ports = place.maker.node, [port for port, _ in place.maker.ports]
        if node.op in ("FakeQuantize", "DequantizeLinear"):
            return _number(ports[1]) or 0.0
        if node.op not in _CARRIERS or node.domain:
            return 0.0
        place = ports[0]
    return 0.0


def _factors(wire: Wire | None, depth: int) -> tuple[list[Wire], float] | None:
    """`wire` as a product: the factors that are not constant, and the product of the numbers."""
    number = _number(wire)
    if number is not None:
        return [], number
    if wire is None or wire.const is not None:
        return None
    product = _made_by(wire, "Mul") if depth else None
    quotient = _made_by(wire, "Div") if depth else None
    if quotient is not None:
        below = _number(quotient[1])
        above = _factors(quotient[0], depth - 1)
        if below and above is not None:
            return above[0], above[1] / below
    if product is None:
        return [wire], 1.0
    return _joined(product, depth - 1) or ([wire], 1.0)


def _joined(pair: Sequence[Wire | None], depth: int) -> tuple[list[Wire], float] | None:
    left, right = _factors(pair[0], depth), _factors(pair[1], depth)
    if left is None or right is None:
        return None
    return left[0] + right[0], left[1] * right[1]


def _near(number: float, wanted: float) -> bool:
    return math.isclose(number, wanted, rel_tol=1e-5)


def _one_plus_erf(wire: Wire) -> Wire | None:
    """z where `wire` is 1 + erf(z / sqrt 2)."""
    pair = _made_by(wire, "Add")
    if pair is None:
        return None
    inner = [side for side in pair if _number(side) is None]
    if len(inner) != 1 or not any(_number(side) == 1.0 for side in pair):
        return None
    argument = _made_by(inner[0], "Erf")
    scaled = None if argument is None else _factors(argument[0], 2)
    if scaled is None or len(scaled[0]) != 1 or not _near(scaled[1], math.sqrt(0.5)):
        return None
    return scaled[0][0]


def gelu_or_silu(node: Node, inputs: Sequence[Wire | None]) -> Changed | None:
    """x (1 + erf(x / sqrt 2)) / 2, and x sigmoid(x), from their products."""
    parts = _joined(inputs, 2)
    if parts is None or len(parts[0]) != 2:
        return None
    wires, number = parts
    for x, other in (wires, wires[::-1]):
        if _near(number, 0.5) and _one_plus_erf(other) is x:
            return _own(node, "Gelu", 20), [x]
        gate = _made_by(other, "Sigmoid")
        if number == 1.0 and gate is not None and gate[0] is x:
            return _own(node, "Swish", 24), [x]
    return None


def _own(node: Node, name: str, opset: int) -> Node:
    return dataclasses.replace(node, op=name, domain="", opset=opset, attributes={}, constants=())


def attention(node: Node, inputs: Sequence[Wire | None]) -> Changed | None:
    """softmax(q k) v over the last axis."""
    weights = inputs[0]
    source = _made_by(weights, "Softmax")
    if source is None or weights is None or weights.maker is None:
        return None
    soft = weights.maker.node
    last = soft.integer("axis", -1) == -1 and soft.opset >= 13
    product = _made_by(source[0], "MatMul") if last else None
    live = [wire for wire in (*(product or ()), inputs[1]) if wire is not None and not wire.host]
    if product is None or len(live) != 3 or any(wire.const is not None for wire in live):
        return None
    return dataclasses.replace(node, op="ScaledDotProduct", domain=OWN), [*product, inputs[1]]


def layer_norm(node: Node, inputs: Sequence[Wire | None]) -> Changed | None:
    """d / sqrt(mean(d d) + eps) times a scale, where d = x - mean(x), over the last axis."""
    scale = next((wire for wire in inputs if wire is not None and wire.const is not None), None)
    ratio = next((wire for wire in inputs if wire is not scale), None)
    parts = _made_by(ratio, "Div")
    if scale is None or scale.const is None or scale.const.dim() != 1 or parts is None:
        return None
    centred = _made_by(parts[0], "Sub")
    root = _made_by(parts[1], "Sqrt")
    inside = _made_by(root[0], "Add") if root is not None else None
    if centred is None or inside is None or not _is_mean(centred[1], centred[0]):
        return None
    eps = next((number for number in map(_number, inside) if number is not None), None)
    mean = next((wire for wire in inside if _number(wire) is None), None)
    square = _made_by(mean, "ReduceMean")
    if eps is None or square is None or not _is_square(square[0], parts[0]):
        return None
    if not _is_mean(mean, square[0]):
        return None
    return _layer_norm_node(node, eps), [centred[0], scale]


def _layer_norm_node(node: Node, eps: float) -> Node:
    from onnx import helper

    changed = _own(node, "LayerNormalization", 17)
    return dataclasses.replace(
        changed, attributes={"epsilon": helper.make_attribute("epsilon", eps)}
    )


def _is_mean(wire: Wire | None, x: Wire | None) -> bool:
    """Whether `wire` is the mean of x over its last axis, kept."""
    source = _made_by(wire, "ReduceMean")
    if source is None or source[0] is not x or wire is None or wire.maker is None:
        return False
    node = wire.maker.node
    axes: Tensor | list[int] | None = node.integers("axes")
    if len(source) > 1 and source[1] is not None:
        axes = source[1].const
    return node.integer("keepdims", 1) == 1 and axes is not None and list(axes) == [-1]


def _is_square(wire: Wire | None, x: Wire | None) -> bool:
    power, product = _made_by(wire, "Pow"), _made_by(wire, "Mul")
    if power is not None:
        return power[0] is x and _number(power[1]) == 2.0
    return product is not None and product[0] is x and product[1] is x


REWRITES: Mapping[str, Sequence[Rewrite]] = {
    "DequantizeLinear": (fake_quantize,),
    f"{MICROSOFT}.DequantizeLinear": (fake_quantize,),
    "Mul": (gelu_or_silu, layer_norm),
    "MatMul": (attention,),
}
