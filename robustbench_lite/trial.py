"""What is looked at once, on a few samples, before the work of a group begins.

The model before any attack (`preflight.py`); an attack twice, whether it gives the same points.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from . import preflight
from .access import BatchMemory
from .craft import AttackFunction, craft, targets
from .errors import FOREIGN
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
from .selftest import SAMPLES
from .selftest import self_test as self_test_of
from .standing import budget_of
from .stock import Stock
from .types import CLEAN, NORMS, Batch, Budget, Cell, LoadedModel, Plan

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
    self_test: bool,
    seconds: float = float("inf"),
) -> dict[str, float]:
    """What was seen, as counts; what cannot be looked at is left to the cells to report.

    `seconds`: what is left for it.
    """
    clean = group.cells[0].attack == CLEAN
    try:
        if clean:
            return _at_model(source, selected, stock, plan)
        cell = max(group.cells, key=lambda cell: cell.eps.value if cell.eps else 0)
        if cell.role != "attack" or not cell.eps or cell.eps.value == 0:
            return {}
        plants = self_test and _searches(cell)
        size = min(max(batch_size, SAMPLES) if plants else batch_size, selected.n)
        own = cell.time_limit or float("inf")
        trial = _Trial.of(
            cell, source, selected, stock, registry, plan, size, min(own, max(seconds, 0))
        )
        return trial.repeated() | (trial.planted() if plants else {})
    except FOREIGN as problem:  # the cells themselves say what cannot be read or run
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


def _searches(cell: Cell) -> bool:
    """Whether the attack is made to find what was planted: on the model itself, step by step."""
    steps = cell.effort == "iterative" or cell.kind == "minimal-norm"
    return steps and cell.model == cell.source and cell.norm in NORMS


@dataclass(frozen=True, slots=True)
class _Trial:
    """The attack of a group at its largest eps, on the first samples; `n`: of how many."""

    spec: AttackSpec
    function: AttackFunction
    params: Params
    cell: Cell
    batch: Batch
    memory: BatchMemory
    budget: Budget
    seed: int
    n: int
    seconds: float

    @staticmethod
    def of(
        cell: Cell,
        source: LoadedModel,
        selected: Selected,
        stock: Stock,
        registry: Registry,
        plan: Plan,
        size: int,
        seconds: float,
    ) -> _Trial:
        """The attack of `cell` on the first `size` samples."""
        assert cell.eps is not None
        registered = registry.attacks[cell.attack]
        batch = stock.batch(selected, 0, size)
        params = cast("Params", plan.arguments[cell.id])
        return _Trial(
            registered.spec,
            implementation(registered),
            params,
            cell,
            batch,
            stock.memory(cell.source, source, batch),
            budget_of(registered.spec, params, cell, float(cell.eps), batch.box),
            plan.seed,
            selected.n,
            seconds,
        )

    @property
    def own(self) -> dict[str, object]:
        """The attack's parameters by name."""
        return {name: getattr(self.params, name) for name in type(self.params).model_fields}

    def repeated(self) -> dict[str, float]:
        """Run the attack twice on a few samples; how many came out differently."""
        few = min(max(self.n // SHARE, FEWEST), MOST, self.batch.x.shape[0])
        first, second = self._once(few), self._once(few)
        if not isinstance(first, Tensor) or not isinstance(second, Tensor):
            return {}  # the judge refuses it
        if first.shape != second.shape:
            return {REPEATED: few, NOT_REPEATED: few}
        same = (first == second) | (first.isnan() & second.isnan())
        different = int((~same.flatten(1).all(dim=1)).sum()) if first.ndim > 1 else 0
        return {REPEATED: few, NOT_REPEATED: different} if different else {REPEATED: few}

    def _once(self, few: int) -> object:
        rows = torch.arange(few, device=self.batch.x.device)
        kind = self.cell.target
        goal = None if kind is None else targets(kind, self.memory, self.batch, self._stream())
        return craft(
            self.spec,
            self.function,
            self.own,
            self.memory,
            self.batch,
            rows=rows,
            budget=self.budget,
            rng=self._stream().rows(rows),
            goal=goal,
            eot=self.cell.eot,
            bpda=self.cell.bpda,
            seconds=self.seconds,
        ).candidate

    def _stream(self) -> SampleRng:
        """The stream from its first number on."""
        return SampleRng(self.seed, self.spec.name, self.batch.keys)

    def planted(self) -> dict[str, float]:
        """What the attack does with adversarial examples planted for it (`selftest.py`)."""
        return dict(
            self_test_of(
                self.spec,
                self.function,
                self.own,
                self.memory.model,
                self.batch,
                self.budget,
                self._stream(),
                target=self.cell.target,
                eot=self.cell.eot,
                bpda=self.cell.bpda,
                seconds=self.seconds,
            )
        )
