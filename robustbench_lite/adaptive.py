"""Adaptive parts of an attack: what is done about a step whose own gradient says nothing.

BPDA (Athalye, Carlini, Wagner 2018, section 4.1): the forward pass keeps the step, the backward
pass treats it as the identity. A step is a submodule of a torch model (its dotted name or its
class), or a node of an ONNX file (its name or its operator).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from .errors import ModelError

_SHOWN = 12  # names of steps in a message


@runtime_checkable
class HasSteps(Protocol):
    """A module whose steps are no submodules of their own, such as an ONNX graph."""

    def step_names(self) -> Sequence[str]:
        """Every name that a step can be called by."""
        ...

    def straight_through(self, names: Sequence[str]) -> AbstractContextManager[None]:
        """Inside, gradients pass the named steps as if these were the identity."""
        ...


@contextmanager
def straight_through(module: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Inside, gradients pass the steps `names` of `module` as if they were the identity.

    Raises ModelError for a name that no step has, or for a step that changes the shape.
    """
    with ExitStack() as stack:
        for name in names:
            own = _submodules(module, name)
            graphs = [part for part in module.modules() if isinstance(part, HasSteps)]
            graphs = [graph for graph in graphs if name in graph.step_names()]
            if not own and not graphs:
                raise ModelError(_unknown(module, name))
            for part in own:
                handle = part.register_forward_hook(_as_identity(name))
                stack.callback(handle.remove)
            for graph in graphs:
                stack.enter_context(graph.straight_through([name]))
        yield


def identity(x: Tensor, made: Tensor, name: str) -> Tensor:
    """The value of `made` with the gradient of `x`."""
    if made.shape != x.shape:
        raise ModelError(
            f"bpda: the step '{name}' turns shape {list(x.shape)} into {list(made.shape)}; only a"
            " step that keeps the shape can pass gradients on as the identity"
        )
    return x + (made - x).detach()


def _as_identity(
    name: str,
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...], made: Tensor) -> Tensor:
        return identity(inputs[0], made, name)

    return hook


def _submodules(module: nn.Module, name: str) -> list[nn.Module]:
    """The submodule of that dotted name, or every one of that class."""
    named = dict(module.named_modules())
    exact = [part for path, part in named.items() if path == name or path.endswith(f".{name}")]
    return exact or [part for path, part in named.items() if path and type(part).__name__ == name]


def _unknown(module: nn.Module, name: str) -> str:
    known = [path for path, _ in module.named_modules() if path]
    for part in module.modules():
        if isinstance(part, HasSteps):
            known += part.step_names()
    shown = ", ".join(dict.fromkeys(known[:_SHOWN])) or "none"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"bpda: the model has no step '{name}'; it has: {shown}{more}"
