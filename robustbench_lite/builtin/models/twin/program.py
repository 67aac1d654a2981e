"""A compiled graph as a torch module: buffers, a flat list of steps, nothing looked up by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_lite import ModelError

from .compiler import Draft, Wire, as_array
from .precision import Precision
from .table import Host, Kernel

_REMEMBERED = 8  # input shapes whose fixed values are kept

Slot: TypeAlias = Tensor | Host | None


@dataclass(frozen=True, slots=True)
class Step:
    """One call: `kernel(*slots[inputs])` goes to `outputs`; `frees` are read here last."""

    kernel: Kernel
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    frees: tuple[int, ...]
    fixed: bool
    name: str
    operator: str

    @property
    def label(self) -> str:
        """The node as messages name it."""
        return f"'{self.name}' ({self.operator})"


class Program(nn.Module):
    """The steps of a graph and its constants as buffers.

    Values that depend on the shapes of the inputs alone are computed once per combination of
    shapes and remembered, so a forward pass runs float kernels only and never waits for the
    device.
    """

    def __init__(
        self,
        drafts: Sequence[Draft],
        inputs: Sequence[Wire],
        outputs: Sequence[Wire],
        precision: Precision,
    ) -> None:
        super().__init__()
        self.precision = precision
        self._places: dict[tuple[int, bool], int] = {}
        self._wires: list[Wire] = []
        self.register_buffer("c0", torch.zeros(0, dtype=torch.bool))
        self._count = 1
        self._halves: dict[str, torch.dtype] = {}
        drafts = _alive(drafts, outputs)
        self.dynamic = any(draft.dynamic for draft in drafts)
        self._place_constants(drafts, outputs)
        self._host: list[Host] = []
        self._place_host(drafts)
        self._inputs = [self._new(wire, host=False) for wire in inputs]
        steps = self._link(drafts, outputs)
        self._outputs = [self._places[id(wire), False] for wire in outputs]
        first = len(self._buffers) + len(self._host)
        self.steps = _with_frees(steps, set(self._outputs), first)
        quick = [step for step in steps if not step.fixed]
        self._quick = _with_frees(quick, set(self._outputs), first)
        self._lasting = frozenset(place for step in quick for place in step.inputs).union(
            self._outputs
        )
        self._seen: dict[tuple[torch.Size, ...], list[tuple[int, Slot]]] = {}
        del self._places, self._wires
        self._fit()

    @property
    def device(self) -> torch.device:
        """Where the constants live."""
        return self.get_buffer("c0").device

    @property
    def is_half(self) -> bool:
        """Whether the file holds weights of a half type: its own results are rounded to that."""
        return bool(self._halves)

    def _new(self, wire: Wire, *, host: bool) -> int:
        self._places[id(wire), host] = self._count
        self._wires.append(wire)
        self._count += 1
        return self._count - 1

    def _place_constants(self, drafts: Sequence[Draft], outputs: Sequence[Wire]) -> None:
        wires = [wire for draft in drafts for wire, as_host in draft.ports if not as_host]
        for wire in [*wires, *outputs]:
            if wire is None or wire.const is None or (id(wire), False) in self._places:
                continue
            name = f"c{self._new(wire, host=False)}"
            self.register_buffer(name, wire.const)
            if wire.const.dtype in (torch.float16, torch.bfloat16):
                self._halves[name] = wire.const.dtype

    def _place_host(self, drafts: Sequence[Draft]) -> None:
        for draft in drafts:
            for wire, as_host in draft.ports:
                const = None if wire is None or not as_host else wire.const
                if wire is None or const is None or (id(wire), True) in self._places:
                    continue
                self._new(wire, host=True)
                self._host.append(as_array(const))

    def _link(self, drafts: Sequence[Draft], outputs: Sequence[Wire]) -> list[Step]:
        none = self._new(Wire(), host=False)
        steps: list[Step] = []
        for draft in drafts:
            places = []
            for wire, as_host in draft.ports:
                places.append(none if wire is None else self._read(wire, as_host, steps))
            made = tuple(self._new(wire, host=wire.host) for wire in draft.outputs)
            node = draft.node
            steps.append(
                Step(draft.kernel, tuple(places), made, (), draft.fixed, node.name, str(node.op))
            )
        for wire in outputs:
            self._read(wire, False, steps)
        return steps

    def _read(self, wire: Wire, as_host: bool, steps: list[Step]) -> int:
        """The slot of `wire` on the wanted side; adds the step that brings it there."""
        place = self._places.get((id(wire), as_host))
        if place is not None:
            return place
        source = self._places[id(wire), not as_host]
        kernel: Kernel = as_array if as_host else self._upload
        self.dynamic = self.dynamic or (as_host and not wire.fixed)
        place = self._new(wire, host=as_host)
        steps.append(Step(kernel, (source,), (place,), (), wire.fixed, "", "copy"))
        return place

    def _upload(self, array: Host) -> Tensor:
        tensor = torch.from_numpy(np.array(array))
        return tensor.to(self.device, self.precision.float_type(tensor.dtype))

    def _fit(self) -> None:
        """Give the constants of half types the type that they have on this device."""
        self.precision.device = self.device
        self.precision.widen = self.device.type == "cpu"
        for name, dtype in self._halves.items():
            self._buffers[name] = self.get_buffer(name).to(self.precision.float_type(dtype))
        self._seen.clear()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Program:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch
        self._fit()
        return self

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The wanted outputs for the inputs of the graph, in the order of the graph."""
        slots: list[Slot] = [*self._buffers.values(), *self._host]
        slots += [None] * (self._count - len(slots))
        for place, x in zip(self._inputs, inputs, strict=True):
            slots[place] = x
        if self.dynamic:
            _run(self.steps, slots)
        else:
            self._run_known(slots, tuple(x.shape for x in inputs))
        made = [slots[place] for place in self._outputs]
        return tuple(value for value in made if isinstance(value, Tensor))

    def step_names(self) -> list[str]:
        """Names and operators of the nodes whose gradient can be replaced."""
        steps = [step for step in self.steps if not step.fixed]
        return [name for step in steps for name in (step.name, step.operator) if name]

    @contextmanager
    def straight_through(self, names: Sequence[str]) -> Iterator[None]:
        """Inside, gradients pass the named nodes as if each were the identity."""
        kept = self.steps, self._quick
        self.steps = [_passing(step, names) for step in self.steps]
        self._quick = [_passing(step, names) for step in self._quick]
        try:
            yield
        finally:
            self.steps, self._quick = kept

    def _run_known(self, slots: list[Slot], shapes: tuple[torch.Size, ...]) -> None:
        seen = self._seen.get(shapes)
        if seen is not None:
            for place, value in seen:
                slots[place] = value
            _run(self._quick, slots)
            return
        kept = _run(self.steps, slots, self._lasting)
        if len(self._seen) >= _REMEMBERED:
            self._seen.pop(next(iter(self._seen)))
        self._seen[shapes] = kept


def _passing(step: Step, names: Sequence[str]) -> Step:
    """The step with the gradient of the identity, if it is one of `names`."""
    if step.fixed or not {step.name, step.operator} & set(names):
        return step

    def kernel(*values: Slot) -> Tensor:
        made, x = step.kernel(*values), values[0]
        if not isinstance(made, Tensor) or not isinstance(x, Tensor) or made.shape != x.shape:
            raise ModelError(
                f"bpda: node {step.label} changes the shape of its input; only a node that keeps it"
                " can pass gradients on as the identity"
            )
        return x + (made - x).detach()

    return replace(step, kernel=kernel)


def _alive(drafts: Sequence[Draft], outputs: Sequence[Wire]) -> list[Draft]:
    """The steps that the outputs need: folding and rewriting leave some without readers."""
    needed = {id(wire) for wire in outputs}
    alive = []
    for draft in reversed(drafts):
        if any(id(wire) in needed for wire in draft.outputs):
            alive.append(draft)
            needed.update(id(wire) for wire, _ in draft.ports if wire is not None)
    return alive[::-1]


def _with_frees(steps: Sequence[Step], kept: set[int], first: int) -> list[Step]:
    """`steps` with the slots from `first` on that each one reads last."""
    done: list[Step] = []
    seen = set(kept)
    for step in reversed(steps):
        used = {*step.inputs, *step.outputs}
        frees = tuple(sorted(place for place in used - seen if place >= first))
        seen |= used
        done.append(replace(step, frees=frees))
    return done[::-1]


def _run(
    steps: Sequence[Step], slots: list[Slot], lasting: frozenset[int] = frozenset()
) -> list[tuple[int, Slot]]:
    """Run the steps on `slots`; returns what the fixed ones put into the slots `lasting`."""
    kept: list[tuple[int, Slot]] = []
    for step in steps:
        args = [slots[place] for place in step.inputs]
        try:
            if step.fixed:
                with torch.inference_mode(mode=False), torch.no_grad():
                    made = step.kernel(*args)
            else:
                made = step.kernel(*args)
        except (ModelError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as problem:
            raise ModelError(_failed(step, args, problem)) from problem
        if isinstance(made, tuple | list):
            for place, value in zip(step.outputs, made, strict=False):
                slots[place] = value
        else:
            slots[step.outputs[0]] = made
        if step.fixed:
            kept += [(place, slots[place]) for place in step.outputs if place in lasting]
        for place in step.frees:
            slots[place] = None
    return kept


def _failed(step: Step, args: Sequence[Slot], problem: Exception) -> str:
    shapes = [None if arg is None else tuple(arg.shape) for arg in args]
    return (
        f"node {step.label} cannot run on inputs of shapes {shapes}: {problem}; "
        "check that the input has the size that the model was exported for"
    )
