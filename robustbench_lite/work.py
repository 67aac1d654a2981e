"""One attack on one batch: crafted once per eps and draw, judged on each target.

Rows that a smaller eps or an earlier draw has broken keep that result; on white-box cells they
also leave the work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from . import norms
from .access import BatchMemory
from .craft import (
    BROKEN_GRADIENT,
    BROKEN_WITH,
    ZERO_GRADIENT,
    ZERO_WITH,
    craft,
    fixed_chance,
    targets,
)
from .errors import FOREIGN
from .group import (
    ATTACKABLE,
    FOUND_ON_TWIN,
    GALLERY,
    NOT_CONFIRMED,
    RISING,
    SILENT,
    TAKEN_BACK,
    UNBROKEN,
    UNCHANGED,
    UNSPENT,
    Chunk,
    Failure,
    out_of_memory,
)
from .hookspecs import AttackSpec
from .judge import judge
from .ledger import Clock
from .params import Params
from .rng import SampleRng
from .standing import OUTCOME, State, budget_of, judged, rows_of, settles
from .types import (
    NORMS,
    Batch,
    Budget,
    Candidates,
    Cell,
    Examples,
    LoadedModel,
    Outcome,
    Samples,
)


def attack(
    spec: AttackSpec,
    function: Callable[..., object],
    cells: Sequence[Cell],
    batch: Batch,
    memory: BatchMemory,
    *,
    targets: Mapping[str, LoadedModel],
    clean: Mapping[str, Samples],
    seed: int,
    params: Params,
    clock: Clock | None = None,
    keep: int = 0,
) -> dict[str, Chunk | Failure]:
    """Craft and judge one batch for every cell of a group: cell id -> its rows, or why not.

    `keep`: of how many samples of the selection, the first ones, the points are kept.
    """
    clock = clock or Clock(float("inf"))
    work = _Work(spec, function, batch, memory, targets, clean, seed, params, clock, keep)
    results: dict[str, Chunk | Failure] = {}
    if spec.kind == "minimal-norm":
        return work.minimal_norm(cells)
    states: dict[str, State] = {}
    for _, group in _by_eps(cells):
        states = {name: state.at_next_eps() for name, state in states.items() if spec.carries}
        results |= work.fixed_budget(group, states)
    return results


def _by_eps(cells: Sequence[Cell]) -> list[tuple[float, list[Cell]]]:
    grid: dict[float, list[Cell]] = {}
    for cell in sorted(cells, key=_radius):
        grid.setdefault(_radius(cell), []).append(cell)
    return list(grid.items())


def _faults(
    state: State, correct: NDArray[np.bool_], zero_of: NDArray[np.bool_]
) -> dict[str, float]:
    """Samples with faulty gradients, in all and for every loss that was tried.

    A zero gradient counts in the rows `zero_of`, one that is not finite in all of them, for a
    single loss in those that were classified correctly.
    """
    found: dict[str, float] = {}
    kinds = (
        (BROKEN_GRADIENT, BROKEN_WITH, np.ones_like(correct), correct),
        (ZERO_GRADIENT, ZERO_WITH, zero_of, zero_of),
    )
    for kind, (total, each, whole, part) in enumerate(kinds):
        faulty = {loss: faults[kind] for loss, faults in state.faults.items()}
        count = int((np.any([whole & False, *faulty.values()], axis=0) & whole).sum())
        if count:
            found[total] = count
            found |= {each + loss: int(rows[part].sum()) for loss, rows in faulty.items()}
    return found


def _radius(cell: Cell) -> float:
    assert cell.eps is not None
    return float(cell.eps)


@dataclass(frozen=True, slots=True)
class _Work:
    """One attack on one batch."""

    spec: AttackSpec
    function: Callable[..., object]
    batch: Batch
    memory: BatchMemory
    targets: Mapping[str, LoadedModel]
    clean: Mapping[str, Samples]
    seed: int
    params: Params
    clock: Clock
    keep: int

    def fixed_budget(
        self, cells: Sequence[Cell], states: dict[str, State]
    ) -> dict[str, Chunk | Failure]:
        """Every cell at one eps; `states` carries broken rows from one eps to the next."""
        failures = self._draws(cells, states, _radius(cells[0]))
        return {
            cell.id: failures.get(cell.model) or self._chunk(cell, states[cell.model])
            for cell in cells
        }

    def minimal_norm(self, cells: Sequence[Cell]) -> dict[str, Chunk | Failure]:
        """One call at the largest eps, judged against every eps by its distances."""
        reach = cells[0].reach
        assert reach is not None
        states: dict[str, State] = {}
        failures = self._draws(cells, states, float(reach))
        chunks: dict[str, Chunk | Failure] = {}
        for cell in cells:
            if cell.model in failures:
                chunks[cell.id] = failures[cell.model]
                continue
            state = states[cell.model]
            assert state.outcome is not None
            within = self._within(state.outcome, cell)
            chunks[cell.id] = self._chunk(cell, dataclasses.replace(state, outcome=within))
        return chunks

    def _draws(
        self, cells: Sequence[Cell], states: dict[str, State], eps: float
    ) -> dict[str, Failure]:
        """Every draw at one eps, into `states`; target -> why it has no outcome."""
        failures: dict[str, Failure] = {}
        names = list(dict.fromkeys(cell.model for cell in cells))
        for repeat in range(cells[0].repeats):
            open_names = [name for name in names if name not in failures]
            try:
                failures |= self._draw(
                    cells[0],
                    open_names,
                    states,
                    repeat,
                    budget_of(self.spec, self.params, cells[0], eps, self.batch.box),
                )
            except FOREIGN as problem:
                if out_of_memory(problem):
                    raise
                failure = Failure.of(f"attack '{self.spec.name}' raised", problem)
                return dict.fromkeys(names, failure)
        return failures

    def _draw(
        self,
        first: Cell,
        names: Sequence[str],
        states: dict[str, State],
        repeat: int,
        budget: Budget,
    ) -> dict[str, Failure]:
        minimal = self.spec.kind == "minimal-norm"
        white_box = first.model == first.source and not minimal
        state = states.get(first.model)
        rows = state.open_rows() if white_box and state else np.arange(self.batch.x.shape[0])
        if len(rows) == 0:
            return {}
        index = torch.from_numpy(rows).to(self.batch.x.device)
        rng = SampleRng(self.seed, self.spec.name, self.batch.keys)
        if repeat:
            rng = rng.fork(f"repeat {repeat}")
        goal = None
        if first.target is not None:
            goal = targets(first.target, self.memory, self.batch, rng)
        params = self.params
        crafted = craft(
            self.spec,
            self.function,
            {name: getattr(params, name) for name in type(params).model_fields},
            self.memory,
            self.batch,
            rows=index,
            budget=budget,
            rng=rng.rows(index),
            goal=goal,
            eot=first.eot,
            bpda=first.bpda,
            seconds=self.clock.left,
        )
        self.clock.left -= crafted.seconds
        part = rows_of(self.batch, index)
        reach = dataclasses.replace(budget, eps=float("inf")) if minimal else budget
        failures: dict[str, Failure] = {}
        some = None if goal is None else goal[index]
        settled: NDArray[np.bool_] | None = None
        if crafted.seen.best() is not None and set(names) != {first.source}:
            with fixed_chance(rng.rows(index).fork("judge")):
                own = judge(self.memory.model, part, crafted.candidate, reach, goal=some)
            settled = settles(own, crafted.seen, first.norm if minimal else None)
        for name in names:
            try:
                with fixed_chance(rng.rows(index).fork("judge")):
                    found = judged(
                        self.targets[name],
                        part,
                        crafted,
                        reach,
                        some,
                        first.norm if minimal else None,
                        None if name == first.source else settled,
                    )
            except FOREIGN as problem:
                if out_of_memory(problem):
                    raise
                what = f"model '{name}' could not judge what '{self.spec.name}' returned"
                failures[name] = Failure.of(what, problem)
                continue
            state = states.setdefault(name, State.fresh(self.batch.x))
            state.update(rows, crafted, found, budget.box, first.norm if minimal else None)
        return failures

    def _within(self, outcome: Outcome, cell: Cell) -> Outcome:
        """Rows farther than the cell's eps count as not broken: the clean input stands for them."""
        far = outcome.legal & ~(getattr(outcome, str(cell.norm)) <= self._limit(cell))
        clean = self.clean[cell.model]
        return dataclasses.replace(
            outcome,
            adv_pred=np.where(far, clean.clean_pred, outcome.adv_pred),
            adv_confidence=np.where(far, clean.clean_confidence, outcome.adv_confidence),
            adv_correct=np.where(far, clean.clean_correct, outcome.adv_correct),
            success=outcome.success & ~far,
            survives_uint8=outcome.survives_uint8 & ~far,
        )

    def _limit(self, cell: Cell) -> float:
        """The cell's eps with the judge's slack."""
        assert cell.norm is not None
        eps = _radius(cell)
        return eps + norms.tolerance(cell.norm, eps, self.batch.box, tuple(self.batch.x.shape[1:]))

    def _chunk(self, cell: Cell, state: State) -> Chunk:
        outcome = state.outcome
        assert outcome is not None
        clean = self.clean[cell.model]
        correct = clean.clean_correct
        decided = outcome.adv_pred >= 0
        samples = Samples(
            sample_id=clean.sample_id,
            sample_hash=clean.sample_hash,
            label=clean.label,
            clean_pred=clean.clean_pred,
            clean_confidence=clean.clean_confidence,
            clean_correct=correct,
            **{name: getattr(outcome, name).copy() for name in OUTCOME},
            queries=state.queries.copy(),
            gradients=state.gradients.copy(),
            status=np.select([~outcome.legal, ~decided], ["illegal", "no-decision"], "ok").astype(
                object
            ),
        )
        rows = np.flatnonzero(outcome.success & correct)[:GALLERY]
        index = torch.from_numpy(rows).to(self.batch.x.device)
        examples = Examples(
            positions=self.batch.start + rows,
            x=self.batch.x[index].cpu().numpy(),
            x_adv=state.x_adv[index].cpu().numpy(),
        )
        return Chunk(
            samples=samples,
            examples=examples,
            observed=self._observed(cell, state, outcome, correct),
            seconds=state.seconds,
            candidates=self._candidates(cell, state, outcome),
        )

    def _candidates(self, cell: Cell, state: State, outcome: Outcome) -> Candidates | None:
        """The points to keep: every break, and what else an attack (no control) ended on."""
        kept = outcome.legal & self.clean[cell.model].clean_correct
        if cell.role == "control":
            kept &= outcome.success
        if cell.kind == "minimal-norm":
            kept &= getattr(outcome, str(cell.norm)) <= self._limit(cell)
        chosen = np.flatnonzero(kept)
        chosen = chosen[self.batch.start + chosen < self.keep]
        if not len(chosen):
            return None
        index = torch.from_numpy(chosen).to(self.batch.x.device)
        return Candidates(
            sample_id=np.array([self.batch.ids[row] for row in chosen], dtype=np.str_),
            x=self.batch.x[index].cpu().numpy(),
            x_adv=state.x_adv[index].cpu().numpy(),
        )

    def _observed(
        self, cell: Cell, state: State, outcome: Outcome, correct: NDArray[np.bool_]
    ) -> dict[str, float]:
        observed = dict(state.observed)
        unbroken = correct & ~outcome.success
        observed |= _faults(state, correct, unbroken & (_radius(cell) > 0))
        observed |= self._confirmed(cell, state, outcome)
        if cell.role == "attack" and _radius(cell) > 0:
            observed[ATTACKABLE] = int(correct.sum())
            observed[UNCHANGED] = int((correct & outcome.legal & (outcome.linf == 0)).sum())
            observed |= self._effort(cell, state, outcome, unbroken)
        return observed

    def _effort(
        self, cell: Cell, state: State, outcome: Outcome, unbroken: NDArray[np.bool_]
    ) -> dict[str, float]:
        """Signs that the attack could have done more with the samples that it left."""
        counts = {SILENT: int((state.silent & self.clean[cell.model].clean_correct).sum())}
        if cell.source == cell.model and self.targets[cell.model].verify is None and cell.eot == 1:
            counts[TAKEN_BACK] = int((state.taken_back & unbroken).sum())
        if cell.effort == "iterative":
            counts[RISING] = int((state.rising & unbroken).sum())
        if cell.effort == "iterative" and cell.kind == "fixed-budget" and cell.norm in NORMS:
            spent = getattr(outcome, cell.norm) >= _radius(cell) / 2
            counts[UNSPENT] = int((unbroken & outcome.legal & ~spent).sum())
        counts[UNBROKEN] = int(unbroken.sum())
        return {key: count for key, count in counts.items() if count}

    def _confirmed(self, cell: Cell, state: State, outcome: Outcome) -> dict[str, float]:
        """How many points break the twin, and how many of those the file does not confirm."""
        model = self.targets[cell.model]
        if cell.norm not in NORMS:
            return {}
        if model.verify is None or self.spec.access != "gradient" or cell.source != cell.model:
            return {}
        assert model.differentiable is not None
        with torch.no_grad():
            pred = model.differentiable(state.x_adv).argmax(dim=1)
        limit = self._limit(cell)
        near = outcome.legal & (getattr(outcome, str(cell.norm)) <= limit)
        found = (pred != self.batch.y).cpu().numpy() & near & self.clean[cell.model].clean_correct
        unconfirmed = found & outcome.adv_correct
        return {FOUND_ON_TWIN: int(found.sum()), NOT_CONFIRMED: int(unconfirmed.sum())}
