"""What is looked at once, on a few samples, before the work of a group begins.

The model before any attack (`preflight.py`); an attack twice, whether it gives the same points.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from . import preflight
from .access import BatchMemory
from .craft import craft, targets
from .group import (
    BOX_HIGH,
    BOX_LOW,
    DIMENSION,
    NO_PREFLIGHT,
    NOT_REPEATED,
    REPEATED,
    Group,
    TimeLimit,
    out_of_memory,
)
from .hookspecs import AttackSpec
from .params import Params
from .plugins import Registry, implementation
from .rng import SampleRng
from .samples import Selected
from .standing import budget_of
from .stock import Stock
from .types import CLEAN, Batch, Budget, Cell, LoadedModel, Plan

log = logging.getLogger(__name__)

FEWEST, MOST, SHARE = 1, 8, 40  # samples run twice: one of forty, at least one, at most eight


def look(
    group: Group,
    source: LoadedModel,
    selected: Selected,
    *,
    stock: Stock,
    registry: Registry,
    plan: Plan,
    batch_size: int,
) -> dict[str, float]:
    """What was seen, as counts; what cannot be looked at is left to the cells to report."""
    clean = group.cells[0].attack == CLEAN
    try:
        if clean:
            return _at_model(source, selected, stock, plan)
        return _at_attack(group, source, selected, stock, registry, plan, batch_size)
    except Exception as problem:  # the cells themselves say what cannot be read or run
        log.info("%s: no look beforehand", group.source, exc_info=True)
        if clean:
            return {NO_PREFLIGHT: 1}
        late = isinstance(problem, TimeLimit)
        return {} if late or out_of_memory(problem) else {REPEATED: 1, NOT_REPEATED: 1}


def _at_model(
    source: LoadedModel, selected: Selected, stock: Stock, plan: Plan
) -> dict[str, float]:
    few = preflight.chosen(selected, stock.device)
    extent = {BOX_LOW: few.box.low, BOX_HIGH: few.box.high}
    extent |= {f"{DIMENSION}{at}": size for at, size in enumerate(selected.shape)}
    seen = preflight.observe(source, few, classes=selected.classes, seed=plan.seed)
    return extent | dict(seen)


def _at_attack(
    group: Group,
    source: LoadedModel,
    selected: Selected,
    stock: Stock,
    registry: Registry,
    plan: Plan,
    batch_size: int,
) -> dict[str, float]:
    last = max(group.cells, key=lambda cell: cell.eps.value if cell.eps else 0)
    if last.role != "attack" or not last.eps or last.eps.value == 0:
        return {}
    registered = registry.attacks[last.attack]
    batch = stock.batch(selected, 0, min(batch_size, selected.n))
    params = cast("Params", plan.arguments[last.id])
    return repeated(
        registered.spec,
        implementation(registered),
        last,
        batch,
        stock.memory(group.source, source, batch),
        budget_of(registered.spec, params, last, float(last.eps), batch.box),
        n=selected.n,
        seed=plan.seed,
        params=params,
    )


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
            seconds=cell.time_limit or float("inf"),
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
