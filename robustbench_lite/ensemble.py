"""Several models as one source: the mean of their logits (Liu et al. 2017; Dong et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from .access import score
from .errors import ModelError
from .types import LoadedModel, Parity


class Mean(nn.Module):
    """x [n, *shape] -> the mean of the members' logits [n, k]."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, k], with a graph when x needs one."""
        return torch.stack([member(x) for member in self.members]).mean(dim=0)


def ensemble(parts: Mapping[str, LoadedModel]) -> LoadedModel:
    """The mean of the logits of `parts`, for crafting; nothing is judged on it.

    It gives gradients if every part does; a part's stand-in that disagrees with its file makes the
    whole unusable. Raises ModelError if the parts differ in their classes or input shapes.
    """
    first = next(iter(parts.values()))
    classes = {name: part.num_classes for name, part in parts.items()}
    if len(set(classes.values())) > 1:
        found = ", ".join(f"'{name}' {count}" for name, count in classes.items())
        raise ModelError(f"a source of several models needs equal classes, found {found}")
    shapes = {part.input_shape for part in parts.values()} - {None}
    if len(shapes) > 1:
        raise ModelError(f"a source of several models needs equal input shapes, found {shapes}")
    modules = [part.differentiable for part in parts.values() if part.differentiable is not None]
    whole = len(modules) == len(parts)
    missing = next((part.no_gradient for part in parts.values() if part.no_gradient), "")
    verifies = any(part.verify is not None for part in parts.values())
    return LoadedModel(
        predict=_predict(tuple(parts.values())),
        differentiable=Mean(modules).eval() if whole else None,
        num_classes=first.num_classes,
        input_shape=next(iter(shapes), None),
        output="logits",
        device=first.device,
        provider=first.provider,
        no_gradient="" if whole else missing,
        verify=_verify(parts) if verifies else None,
    )


def _predict(parts: Sequence[LoadedModel]) -> Callable[[Tensor], Tensor]:
    def predict(x: Tensor) -> Tensor:
        return torch.stack([score(part, x) for part in parts]).mean(dim=0)

    return predict


def _verify(parts: Mapping[str, LoadedModel]) -> Callable[[Tensor], Parity]:
    def verify(x: Tensor) -> Parity:
        """The worst of the members."""
        found = {name: part.verify(x) for name, part in parts.items() if part.verify is not None}
        bad = [(name, parity) for name, parity in found.items() if parity.reason]
        return Parity(
            difference=max(parity.difference for parity in found.values()),
            tolerance=max(parity.tolerance for parity in found.values()),
            agreement=min(parity.agreement for parity in found.values()),
            reason=f"'{bad[0][0]}': {bad[0][1].reason}" if bad else "",
        )

    return verify
