"""From sorted nodes to a flat list of prepared steps.

Each value of the graph becomes a `Wire`. What is known at load time is folded, what depends on
the input shapes alone is marked `fixed` (the program computes it once per shape), arrays for
shape arithmetic live on the host, and pairs the exporter took apart are put together again.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from onnx import GraphProto, NodeProto, TensorProto
from torch import Tensor

from robustbench_lite import ModelError

from .precision import Precision, tensor_of
from .reader import Graph, domain_of, in_order, node_name
from .table import Entry, Host, Kernel, Node, Value, find, host_builder, within

FOLDED = 1 << 27
"""The most elements that constants of a file may grow to when they are computed at load time."""


@dataclass(slots=True, eq=False)
class Wire:
    """A value of the graph before it has a place at run time.

    `const`: its value where known. `host`: it is a numpy array when the program runs. `fixed`:
    it depends on the shapes of the inputs alone. `tag`: the ONNX element type of a quantised
    value that stands as a float tensor. `elem`: the element type in the file, where known.
    """

    const: Tensor | None = None
    host: bool = False
    fixed: bool = False
    tag: int | None = None
    elem: int | None = None
    maker: Draft | None = None


@dataclass(slots=True, eq=False)
class Draft:
    """One step to be: `ports` are the wires it reads and whether as host arrays."""

    node: Node
    kernel: Kernel
    ports: list[tuple[Wire | None, bool]]
    outputs: list[Wire]
    fixed: bool
    dynamic: bool


Rewrite = Callable[[Node, Sequence[Wire | None]], tuple[Node, list[Wire | None]] | None]


@dataclass(slots=True)
class Compiler:
    """Drafts the steps of one graph; `wires` grows with every node added."""

    opsets: Mapping[str, int]
    precision: Precision
    rewrites: Mapping[str, Sequence[Rewrite]]
    wires: MutableMapping[str, Wire] = field(default_factory=dict)
    drafts: list[Draft] = field(default_factory=list)
    operators: Counter[str] = field(default_factory=Counter)

    def constant(self, name: str, tensor: TensorProto) -> None:
        """Take in an initializer."""
        const = self._kept(tensor_of(tensor, self.precision))
        self.wires[name] = Wire(const=const, fixed=True, elem=tensor.data_type)

    def _kept(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.precision.float_type(tensor.dtype))

    def add(self, nodes: Iterable[NodeProto]) -> None:
        """Draft `nodes`, which stand in an order that runs."""
        for proto in nodes:
            if proto.op_type == "If" and domain_of(proto.domain) == "":
                self._branch(proto)
            elif proto.op_type == "Constant" and proto.attribute[0].name == "value":
                self.constant(proto.output[0], proto.attribute[0].t)
                self.operators["Constant"] += 1
            else:
                self._add(proto)

    def _add(self, proto: NodeProto) -> None:
        inputs: list[Wire | None] = [self.wires[name] if name else None for name in proto.input]
        while inputs and inputs[-1] is None:
            inputs.pop()
        node = self._node(proto, inputs)
        kind = f"{node.domain}.{node.op}" if node.domain else node.op
        self.operators[kind] += 1
        for rewrite in self.rewrites.get(kind, ()):
            changed = rewrite(node, inputs)
            if changed is not None:
                node, inputs = _told(*changed), changed[1]
                break
        outputs = self.draft(node, inputs)
        for name, wire in zip(proto.output, outputs, strict=False):
            self.wires[name] = wire

    def _node(self, proto: NodeProto, inputs: Sequence[Wire | None]) -> Node:
        domain = domain_of(proto.domain)
        node = Node(
            op=proto.op_type,
            name=node_name(proto),
            domain=domain,
            opset=self.opsets.get(domain, 1),
            attributes={attribute.name: attribute for attribute in proto.attribute},
            outputs=tuple(proto.output),
            precision=self.precision,
        )
        return _told(node, inputs)

    def draft(self, node: Node, inputs: Sequence[Wire | None]) -> list[Wire]:
        """The outputs of `node`: folded, or made by a new step."""
        entry = find(node.domain, node.op, node.opset)
        if entry is None:
            raise node.refuse(_unknown(node, self.opsets))
        tags = _tags(node, entry)
        given = [wire for wire in inputs if wire is not None]
        if all(wire.const is not None for wire in given) and not entry.dynamic:
            return [
                Wire(const=value, fixed=True, tag=tag)
                for value, tag in zip(self._fold(node, entry, inputs), tags, strict=False)
            ]
        numpy_kernel = host_builder(node.domain, node.op)
        on_host = (
            numpy_kernel is not None
            and any(wire.host for wire in given)
            and all(wire.host or wire.const is not None for wire in given)
        )
        fixed = all(wire.fixed for wire in given) or entry.to_host
        draft = Draft(
            node=node,
            kernel=(numpy_kernel if on_host and numpy_kernel else entry.build)(node),
            ports=[(wire, on_host or place in entry.host) for place, wire in enumerate(inputs)],
            outputs=[],
            fixed=fixed,
            dynamic=entry.dynamic and not on_host,
        )
        draft.outputs = [
            Wire(host=on_host or entry.to_host, fixed=fixed, tag=tag, maker=draft)
            for _, tag in zip(node.outputs, tags, strict=False)
        ]
        self.drafts.append(draft)
        return draft.outputs

    def _fold(self, node: Node, entry: Entry, inputs: Sequence[Wire | None]) -> list[Tensor]:
        args: list[Value] = []
        for place, wire in enumerate(inputs):
            const = None if wire is None else wire.const
            as_host = const is not None and place in entry.host
            args.append(as_array(const) if as_host and const is not None else const)
        try:
            with torch.inference_mode(mode=False), torch.no_grad():
                self._check_room(node, entry, args)
                made = entry.build(node)(*args)
        except (RuntimeError, ValueError, IndexError, TypeError, MemoryError) as problem:
            raise node.refuse(f"cannot be computed from its constants: {problem}") from problem
        found = made if isinstance(made, tuple | list) else (made,)
        return [_as_tensor(value) for value in found]

    def _check_room(self, node: Node, entry: Entry, args: Sequence[Value]) -> None:
        """Refuse to fold what would be large; found out without memory where torch can."""
        device, self.precision.device = self.precision.device, torch.device("meta")
        try:
            made = entry.build(node)(
                *(arg.to("meta") if isinstance(arg, Tensor) else arg for arg in args)
            )
        except (RuntimeError, NotImplementedError, ValueError, IndexError, TypeError):
            return  # a kernel that reads values: it makes nothing larger than its inputs
        finally:
            self.precision.device = device
        found = made if isinstance(made, tuple | list) else (made,)
        within([sum(value.numel() for value in found if isinstance(value, Tensor))], FOLDED)

    def _branch(self, proto: NodeProto) -> None:
        condition = self.wires[proto.input[0]].const
        if condition is None:
            node = self._node(proto, [self.wires[proto.input[0]]])
            raise node.refuse("its condition is not a constant, so the branch is not known")
        wanted = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
        branch = next(attr.g for attr in proto.attribute if attr.name == wanted)
        outer = dict(self.wires)
        self._inside(branch)
        made = [self.wires[value.name] for value in branch.output]
        self.wires = outer
        self.operators["If"] += 1
        self.wires.update(zip(proto.output, made, strict=False))

    def _inside(self, graph: GraphProto) -> None:
        for tensor in graph.initializer:
            self.constant(tensor.name, tensor)
        self.add(in_order(graph.node, set(self.wires)))


def _told(node: Node, inputs: Sequence[Wire | None]) -> Node:
    """`node` with what is known of its inputs."""
    return dataclasses.replace(
        node,
        constants=tuple(None if wire is None else wire.const for wire in inputs),
        present=tuple(wire is not None for wire in inputs),
        tags=tuple(None if wire is None else wire.tag for wire in inputs),
        elems=tuple(None if wire is None else wire.elem or wire.tag for wire in inputs),
    )


def _unknown(node: Node, opsets: Mapping[str, int]) -> str:
    if node.domain and node.domain not in opsets:
        return f"the domain '{node.domain}' is not declared in the file"
    if find(node.domain, node.op, 1 << 30) is not None:
        return f"is not supported at opset {node.opset}"
    if node.domain not in ("", "ai.onnx.ml", "com.microsoft"):
        return f"the domain '{node.domain}' is unknown (a custom operator)"
    return "is not supported"


def _tags(node: Node, entry: Entry) -> list[int | None]:
    """The tags of the outputs; refuses operators that would compute on quantised integers."""
    count = max(len(node.outputs), 1)
    if entry.tag is not None:
        made = entry.tag(node)
        found = list(made) if isinstance(made, tuple) else [made]
        return found + [None] * (count - len(found))
    tags = [tag for tag in node.tags if tag is not None]
    if not tags or entry.quant == "read":
        return [None] * count
    if entry.quant == "refuse":
        raise node.refuse("integer arithmetic on quantised values has no useful gradient")
    return [tags[0]] * count


def as_array(tensor: Tensor) -> Host:
    """A tensor as a host array; waits for the device where the tensor is not on the CPU."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    array: Host = tensor.cpu().numpy()
    return array


def _as_tensor(value: Value) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray | np.generic):
        return torch.from_numpy(np.array(value))
    raise ModelError(f"a constant folds to {type(value).__name__}, which is not a tensor")


def compile_graph(
    graph: Graph,
    wanted: Sequence[str],
    precision: Precision,
    *,
    rewrites: Mapping[str, Sequence[Rewrite]],
    tagged: Mapping[str, int],
) -> tuple[Compiler, list[Wire], list[Wire]]:
    """Draft what `wanted` needs of `graph`; returns the compiler, input wires, wanted wires.

    `tagged`: inputs that hold integers in the file and stand as floats here, with their types.
    """
    compiler = Compiler(graph.opsets, precision, rewrites)
    needed = _needed(graph, wanted)
    for name, tensor in graph.initializers.items():
        if name in needed.names:
            compiler.constant(name, tensor)
    inputs = [Wire(tag=tagged.get(name), elem=elem) for name, elem in graph.inputs.items()]
    compiler.wires.update(zip(graph.inputs, inputs, strict=True))
    compiler.add(needed.nodes)
    return compiler, inputs, [compiler.wires[name] for name in wanted]


@dataclass(frozen=True, slots=True)
class _Needed:
    names: set[str]
    nodes: list[NodeProto]


def _needed(graph: Graph, wanted: Sequence[str]) -> _Needed:
    from .reader import reads

    names = set(wanted)
    nodes: list[NodeProto] = []
    for node in reversed(graph.nodes):
        if names.intersection(node.output):
            nodes.append(node)
            names.update(reads(node))
    return _Needed(names, nodes[::-1])
