"""What is tried once per attack before it counts: whether the same seed gives the same points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .access import BatchMemory
from .craft import craft, targets
from .group import NOT_REPEATED, REPEATED
from .hookspecs import AttackSpec
from .params import Params
from .rng import SampleRng
from .types import Batch, Budget, Cell

FEWEST, MOST, SHARE = 1, 8, 40  # samples run twice: one of forty, at least one, at most eight


def repeated(
    spec: AttackSpec,
    function: Callable[..., object],
    cell: Cell,
    batch: Batch,
    memory: BatchMemory,
    budget: Budget,
    *,
    n: int,
    seed: int,
    params: Params,
) -> dict[str, float]:
    """Run the attack twice on a few of `n` samples; how many came out differently."""
    few = min(max(n // SHARE, FEWEST), MOST, batch.x.shape[0])
    rows = torch.arange(few, device=batch.x.device)

    def once() -> object:
        rng = SampleRng(seed, spec.name, batch.keys)
        goal = None if cell.target is None else targets(cell.target, memory, batch, rng)
        return craft(
            spec,
            function,
            {name: getattr(params, name) for name in type(params).model_fields},
            memory,
            batch,
            rows=rows,
            budget=budget,
            rng=rng.rows(rows),
            goal=goal,
            eot=cell.eot,
            bpda=cell.bpda,
        ).candidate

    first, second = once(), once()
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return {}  # the judge refuses it
    if first.shape != second.shape:
        return {REPEATED: few, NOT_REPEATED: few}
    same = first.detach() == second.detach()
    same |= first.detach().isnan() & second.detach().isnan()
    different = int((~same.flatten(1).all(dim=1)).sum()) if first.ndim > 1 else int((~same).any())
    return {REPEATED: few, NOT_REPEATED: different} if different else {REPEATED: few}
