"""From a ModelProto to a checked, sorted list of nodes; the proto itself is never changed.

Everything is bounded before anything is allocated: node count, expansion of model-local
functions, declared against stored bytes of every tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from robustbench_lite import ModelError

from .precision import check_tensor, declared_bytes, elem_type_of

MAX_NODES = 100_000
MAX_BYTES = 16 << 30
MAX_DEPTH = 64
OLDEST_OPSET = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A readable graph: `inputs` without the initializers, `nodes` in an order that runs.

    `inputs` and `outputs` map names to element types (0: not a tensor), `shapes` the names of
    both to their declared sizes (None: unknown). `opsets` maps each domain to its version.
    """

    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    shapes: Mapping[str, tuple[int | None, ...] | None]
    initializers: Mapping[str, TensorProto]
    nodes: Sequence[NodeProto]
    opsets: Mapping[str, int]


def domain_of(name: str) -> str:
    """The domain with its alias resolved: "ai.onnx" is ""."""
    return "" if name == "ai.onnx" else name


def read(model: ModelProto) -> Graph:
    """Check `model` and bring its nodes into order.

    Raises ModelError where the file is damaged, too large, cyclic or incomplete.
    """
    if not model.HasField("graph"):
        raise ModelError("the model holds no graph; the file is damaged or not an ONNX model")
    _check_size(model)
    _check_opsets(model)
    if model.functions:
        model = _inlined(model)
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    declared = [*graph.input, *graph.output]
    inputs = {
        value.name: elem_type_of(value) for value in graph.input if value.name not in initializers
    }
    return Graph(
        inputs=inputs,
        outputs={value.name: elem_type_of(value) for value in graph.output},
        shapes={value.name: shape_of(value) for value in declared},
        initializers=initializers,
        nodes=in_order(graph.node, {*inputs, *initializers}),
        opsets={domain_of(entry.domain): entry.version for entry in model.opset_import},
    )


def shape_of(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """The declared sizes of a graph value (None: any); None where even the rank is open."""
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        return None
    return tuple(
        size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None
        for size in kind.shape.dim
    )


def _graphs(attributes: Iterable[AttributeProto]) -> Iterator[GraphProto]:
    for attribute in attributes:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def _walk(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Every node, those of subgraphs included."""
    pending = [iter(nodes)]
    while pending:
        node = next(pending[-1], None)
        if node is None:
            pending.pop()
            continue
        yield node
        pending.extend(iter(graph.node) for graph in _graphs(node.attribute))


def _tensors(graph: GraphProto, functions: Sequence[FunctionProto]) -> Iterator[TensorProto]:
    yield from graph.initializer
    bodies = [graph.node, *(function.node for function in functions)]
    for body in bodies:
        for node in _walk(body):
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    yield attribute.t
                yield from attribute.tensors
            for subgraph in _graphs(node.attribute):
                yield from subgraph.initializer


def _check_size(model: ModelProto) -> None:
    if model.graph.sparse_initializer:
        raise ModelError(
            "the model keeps weights as sparse initializers, which are not supported; "
            "export it with dense weights"
        )
    total = _expanded_nodes(model)
    if total > MAX_NODES:
        raise ModelError(
            f"the graph has {total} nodes, more than the {MAX_NODES} allowed; "
            "simplify it (constant folding) before use"
        )
    size = 0
    for tensor in _tensors(model.graph, model.functions):
        check_tensor(tensor)
        size += declared_bytes(tensor)
        if size > MAX_BYTES:
            raise ModelError(f"the initializers hold more than {MAX_BYTES >> 30} GiB")


def _expanded_nodes(model: ModelProto) -> int:
    """The number of nodes once every model-local function stands in place of its calls."""
    bodies = {(f.domain, f.name, f.overload): f for f in model.functions}
    known: dict[tuple[str, str, str], int] = {}

    def count(nodes: Iterable[NodeProto], callers: tuple[tuple[str, str, str], ...]) -> int:
        total = 0
        for node in _walk(nodes):
            key = (node.domain, node.op_type, node.overload)
            if key not in bodies:
                total += 1
                continue
            if key in callers or len(callers) > MAX_DEPTH:
                raise ModelError(f"the model function '{node.op_type}' calls itself, or too deep")
            if key not in known:
                known[key] = count(bodies[key].node, (*callers, key))
            total += known[key]
        return total

    return count(model.graph.node, ())


def _check_opsets(model: ModelProto) -> None:
    opsets = {domain_of(entry.domain): entry.version for entry in model.opset_import}
    newest = onnx.defs.onnx_opset_version()
    version = opsets.get("")
    if version is None and not opsets:
        raise ModelError("the model declares no operator set; the file is damaged")
    if version is not None and not OLDEST_OPSET <= version <= newest:
        raise ModelError(
            f"the model uses opset {version}; opsets {OLDEST_OPSET} to {newest} are supported "
            "(the newest is what the installed onnx defines): convert it with "
            "onnx.version_converter, or update onnx"
        )


def _inlined(model: ModelProto) -> ModelProto:
    import onnx.inliner

    try:
        return onnx.inliner.inline_local_functions(model, convert_version=True)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as problem:
        raise ModelError(f"the model functions cannot be inlined: {problem}") from problem


def reads(node: NodeProto) -> list[str]:
    """The names a node reads, those that its subgraphs take from outside included."""
    names = [name for name in node.input if name]
    for graph in _graphs(node.attribute):
        inner = {tensor.name for tensor in graph.initializer}
        inner.update(value.name for value in graph.input)
        inner.update(name for inside in graph.node for name in inside.output)
        outer = [name for inside in graph.node for name in reads(inside)]
        outer += [value.name for value in graph.output]
        names += [name for name in outer if name not in inner]
    return names


def in_order(nodes: Sequence[NodeProto], known: set[str]) -> list[NodeProto]:
    """`nodes` so that each stands behind the makers of what it reads; stable otherwise.

    `known`: names that exist already. Raises ModelError on a cycle or on a name without maker.
    """
    maker: dict[str, int] = {}
    for place, node in enumerate(nodes):
        for name in node.output:
            if name and (name in maker or name in known):
                raise ModelError(f"two nodes of the graph write the same value '{name}'")
            maker[name] = place
    state = [0] * len(nodes)  # 0 unseen, 1 on the way, 2 placed
    ordered: list[NodeProto] = []
    for first in range(len(nodes)):
        pending = [first]
        while pending:
            place = pending[-1]
            if state[place] == 2:
                pending.pop()
                continue
            waiting = [] if state[place] else _makers(nodes[place], maker, known)
            waiting = [other for other in waiting if state[other] != 2]
            state[place] = 1
            if any(state[other] == 1 for other in waiting):
                raise ModelError(_cycle(nodes, pending, state))
            if waiting:
                pending.extend(reversed(waiting))
                continue
            state[place] = 2
            ordered.append(nodes[place])
            pending.pop()
    return ordered


def _makers(node: NodeProto, maker: Mapping[str, int], known: set[str]) -> list[int]:
    found = []
    for name in reads(node):
        if name in known:
            continue
        if name not in maker:
            raise ModelError(
                f"node '{node_name(node)}' ({node.op_type}) reads '{name}', which no node, input "
                "or initializer of the graph makes; the file is incomplete: export it again"
            )
        found.append(maker[name])
    return found


def _cycle(nodes: Sequence[NodeProto], pending: Sequence[int], state: Sequence[int]) -> str:
    names = [f"'{node_name(nodes[place])}'" for place in pending if state[place] == 1]
    return (
        f"the graph is cyclic: the nodes {', '.join(names[:6])} wait for each other; "
        "the file is damaged: export it again"
    )


def node_name(node: NodeProto) -> str:
    """The name of a node; the name of its first output where it has none."""
    return node.name or next((name for name in node.output if name), node.op_type)
