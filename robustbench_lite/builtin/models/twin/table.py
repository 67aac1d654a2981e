"""The operator table: one builder per operator and opset, and what it is told about its node.

A builder reads the attributes of a `Node` once and returns a kernel, a plain function of the
input values. Adding an operator is one decorated function here and one test.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustbench_lite import ModelError

from .precision import Precision, tensor_of

Host: TypeAlias = NDArray[np.generic]
"""A small array on the host: shapes, axes, sizes. Kernels never read one back from the device."""
Value: TypeAlias = Tensor | Host | None
Made: TypeAlias = "Tensor | Host | tuple[Value, ...] | list[Tensor]"
Kernel: TypeAlias = Callable[..., Made]
"""Takes one value per input of the node (None: left out), returns a value or several."""
Quant: TypeAlias = Literal["refuse", "keep", "read"]

NEEDS = (
    "export the model without this operator, fold it into constants, "
    "or attack the file with an attack that needs no gradient (square)"
)
MAX_ELEMENTS = 1 << 30
OWN = "robeval.twin"
"""The domain of operators that rewrites put into a graph; no file can hold them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of the graph as its builder sees it.

    `constants` holds the inputs that are known at load time, by position (None: not known);
    `present` says which inputs exist, `outputs` the names of the outputs ("" where not wanted),
    `tags` the ONNX element type of inputs that are quantised values standing as floats, `elems`
    the element type of inputs where the file tells it.
    """

    op: str
    name: str
    domain: str = ""
    opset: int = 0
    attributes: Mapping[str, onnx.AttributeProto] = field(default_factory=dict)
    constants: tuple[Tensor | None, ...] = ()
    present: tuple[bool, ...] = ()
    outputs: tuple[str, ...] = ("",)
    tags: tuple[int | None, ...] = ()
    elems: tuple[int | None, ...] = ()
    precision: Precision = field(default_factory=Precision)

    def has(self, position: int) -> bool:
        """Whether the input at `position` is given."""
        return position < len(self.present) and self.present[position]

    def elem(self, position: int) -> int | None:
        """The element type of the input at `position`, where the file tells it."""
        return self.elems[position] if position < len(self.elems) else None

    def wants(self, position: int) -> bool:
        """Whether the output at `position` has a name, so somebody may read it."""
        return position < len(self.outputs) and bool(self.outputs[position])

    def const(self, position: int) -> Tensor | None:
        """The input at `position` where it is known at load time."""
        return self.constants[position] if position < len(self.constants) else None

    def integer(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        found = self.attributes.get(name)
        return default if found is None else int(found.i)

    def number(self, name: str, default: float = 0.0) -> float:
        """A float attribute."""
        found = self.attributes.get(name)
        return default if found is None else float(found.f)

    def text(self, name: str, default: str = "") -> str:
        """A string attribute."""
        found = self.attributes.get(name)
        return default if found is None else found.s.decode()

    def integers(self, name: str) -> list[int] | None:
        """A list of integers, or None where it is left out."""
        found = self.attributes.get(name)
        return None if found is None else list(found.ints)

    def numbers(self, name: str) -> list[float] | None:
        """A list of floats, or None where it is left out."""
        found = self.attributes.get(name)
        return None if found is None else list(found.floats)

    def texts(self, name: str) -> list[str] | None:
        """A list of strings, or None where it is left out."""
        found = self.attributes.get(name)
        return None if found is None else [text.decode() for text in found.strings]

    def tensor(self, name: str) -> Tensor | None:
        """A tensor attribute, or None where it is left out."""
        found = self.attributes.get(name)
        return None if found is None else tensor_of(found.t, self.precision)

    def refuse(self, why: str) -> ModelError:
        """The error that refuses this node, in the user's words."""
        kind = f"{self.domain}.{self.op}" if self.domain else self.op
        return ModelError(f"operator {kind} (node '{self.name}'): {why}; {NEEDS}")


Builder: TypeAlias = Callable[[Node], Kernel]
Tagger: TypeAlias = Callable[[Node], "int | tuple[int | None, ...] | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """How one operator is built from opset `since` on.

    `host` lists the inputs wanted as host arrays; `to_host` says that the result is one.
    `quant` says what happens to quantised inputs; `tag` gives the element type of the result
    where the operator itself makes a quantised value. `dynamic`: the shape of the result
    depends on the values of the inputs.
    """

    since: int
    build: Builder
    host: frozenset[int]
    to_host: bool
    quant: Quant
    tag: Tagger | None
    dynamic: bool


_TABLE: dict[tuple[str, str], list[Entry]] = {}
_ON_HOST: dict[str, Builder] = {}


def op(
    *names: str,
    since: int = 1,
    domain: str = "",
    host: Iterable[int] = (),
    to_host: bool = False,
    quant: Quant = "refuse",
    tag: Tagger | None = None,
    dynamic: bool = False,
) -> Callable[[Builder], Builder]:
    """Register a builder for the operators `names` of `domain` from opset `since` on."""

    def register(build: Builder) -> Builder:
        entry = Entry(
            since=since,
            build=build,
            host=frozenset(host),
            to_host=to_host,
            quant=quant,
            tag=tag,
            dynamic=dynamic,
        )
        for name in names:
            versions = _TABLE.setdefault((domain, name), [])
            versions.append(entry)
            versions.sort(key=lambda version: version.since)
        return build

    return register


def simple(kernels: Mapping[str, Kernel], *, quant: Quant = "refuse") -> None:
    """Register operators without attributes: each name stands for one kernel."""
    for name, kernel in kernels.items():
        op(name, quant=quant)(lambda _, kernel=kernel: kernel)  # type: ignore[misc]  # bound now


def on_host(*names: str) -> Callable[[Builder], Builder]:
    """Register the numpy kernel of operators that exporters use for shape arithmetic."""

    def register(build: Builder) -> Builder:
        for name in names:
            _ON_HOST[name] = build
        return build

    return register


def host_builder(domain: str, name: str) -> Builder | None:
    """The numpy kernel of an operator, where there is one."""
    return _ON_HOST.get(name) if domain == "" else None


def find(domain: str, name: str, opset: int) -> Entry | None:
    """The entry that holds for `opset`, or None where the operator is not supported."""
    versions = _TABLE.get((domain, name), [])
    place = bisect_right([version.since for version in versions], opset)
    return versions[place - 1] if place else None


def supported() -> dict[str, tuple[str, ...]]:
    """The supported operators of each domain, sorted ("" is ai.onnx); If is folded, not run."""
    found: dict[str, list[str]] = {"": ["If"]}
    for domain, name in _TABLE:
        if domain == OWN:
            continue
        found.setdefault(domain, []).append(name)
    return {domain: tuple(sorted(names)) for domain, names in sorted(found.items())}


def integers(host: Host) -> list[int]:
    """The elements of a host array as Python integers, flat."""
    return [int(element) for element in np.asarray(host).ravel().tolist()]


def within(shape: Sequence[int], limit: int = MAX_ELEMENTS) -> list[int]:
    """`shape`, refused where a tensor of that shape could only exhaust the memory."""
    total = 1
    for size in shape:
        if size < 0:
            raise ModelError(f"the graph asks for a tensor of shape {list(shape)}: negative size")
        total *= size
    if total > limit:
        raise ModelError(
            f"the graph asks for a tensor of shape {list(shape)}: {total} elements are more than "
            f"the {limit} allowed; the file is damaged or its shape arithmetic overflows"
        )
    return list(shape)


def is_float(x: Tensor) -> bool:
    """Whether x holds floating point values of any width."""
    return x.dtype.is_floating_point


def widened(x: Tensor) -> Tensor:
    """x in a type that every torch kernel accepts: integers and booleans become float32."""
    return x if x.dtype.is_floating_point else x.to(torch.float32)
