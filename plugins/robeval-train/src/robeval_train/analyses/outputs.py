"""What a loaded model says: probabilities of the classes, and gradients of its scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from robustbench_lite import DataSource, LoadedModel, ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BATCH = 500


def probabilities(model: LoadedModel, x: Tensor) -> Tensor:
    """[n, k]: of a softmax, or of every class' own yes."""
    output = model.predict(x)
    if model.output in {"probabilities", "independent-probabilities"}:
        return output
    return output.softmax(dim=1)


def network(model: LoadedModel, name: str) -> torch.nn.Module:
    """The differentiable network. Raises ModelError where there is none."""
    if model.differentiable is None:
        raise ModelError(f"model '{name}' gives no gradients: {model.no_gradient}")
    return model.differentiable


def cost_gradient(model: LoadedModel, name: str, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of what the network is trained on, with respect to x alone."""
    import torch

    from ..training import costs

    net = network(model, name)
    cost = costs.per_class if model.output == "independent-probabilities" else costs.cross_entropy
    leaf = x.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        return costs.gradient(cost(net(leaf), y), leaf)


def batches(
    source: DataSource, samples: int | None, device: str
) -> Iterator[tuple[Sequence[int], Tensor, Tensor]]:
    """Positions, inputs and labels of the first `samples`, in order."""
    total = len(source.ids) if samples is None else min(samples, len(source.ids))
    for begin in range(0, total, BATCH):
        rows = range(begin, min(begin + BATCH, total))
        yield rows, source.read(rows).to(device), source.labels[list(rows)].to(device)
