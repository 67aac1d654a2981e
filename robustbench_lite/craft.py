"""One call of one attack on one batch, under guard: what it touches beside its job is noticed.

The global random state is put back, the clean input is a private clone, passes are counted.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .access import BatchMemory, Granted, Tally
from .hookspecs import AttackSpec
from .rng import SampleRng
from .types import Batch, Budget, Classifier

TOUCHED_RNG = "touched rng"
CHANGED_INPUT = "changed input"
CHANGED_MODEL = "changed model"
BROKEN_GRADIENT = "broken gradient"
ZERO_GRADIENT = "zero gradient"

AttackFunction = Callable[..., object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crafted:
    """What one call returned, with its cost per row (float64 [n]) and what was noticed."""

    candidate: object
    tally: Tally
    seconds: float
    observed: Mapping[str, float]


def craft(
    spec: AttackSpec,
    function: AttackFunction,
    params: Mapping[str, object],
    memory: BatchMemory,
    batch: Batch,
    *,
    rows: Tensor,
    budget: Budget,
    rng: SampleRng,
    goal: Tensor | None,
) -> Crafted:
    """Call the attack on `rows` (int64 [m]) of a batch; the caller reports what it raises."""
    clean = batch.x[rows]  # indexing copies: the attack's own
    kept = clean.clone()
    labels = batch.y[rows]
    tally = Tally(clean.shape[0], clean.device)
    model: Classifier = Granted(memory, batch.box, spec.access, tally, clean=clean, base=rows)
    extra = {"target": None if goal is None else goal[rows]} if spec.targeted else {}
    state = _global_state(clean.device)
    begin = time.perf_counter()
    try:
        candidate = function(model, clean, labels, budget=budget, rng=rng, **params, **extra)
    finally:
        touched = _restore(state, clean.device)
    seconds = time.perf_counter() - begin
    observed: dict[str, float] = {}
    if touched:
        observed[TOUCHED_RNG] = 1
    if not torch.equal(clean, kept):
        observed[CHANGED_INPUT] = 1
        if isinstance(candidate, Tensor) and candidate.data_ptr() == clean.data_ptr():
            candidate = candidate.clone()
    return Crafted(candidate=candidate, tally=tally, seconds=seconds, observed=observed)


def fingerprint(module: nn.Module | None) -> tuple[int, ...]:
    """A checksum of a module's parameters, buffers and training flags."""
    if module is None:
        return ()
    sums = []
    for tensor in [*module.parameters(), *module.buffers()]:
        raw = tensor.detach().contiguous().view(-1)
        if raw.is_floating_point() and raw.element_size() in (2, 4, 8):
            integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[raw.element_size()]
            raw = raw.view(integer)
        weights = torch.arange(raw.numel(), device=raw.device, dtype=torch.int64) % 8191 + 1
        sums.append(int((raw.to(torch.int64) * weights).sum()))
    flags = [int(part.training) for part in module.modules()]
    return (*sums, *flags)


def targets(kind: str, memory: BatchMemory, batch: Batch, rng: SampleRng) -> Tensor:
    """Target classes int64 [n]: "next", "random", "least-likely" or a class index as text."""
    classes = memory.model.num_classes
    if kind == "next":
        return (batch.y + 1) % classes
    if kind == "random":
        step = 1 + rng.fork("target").integers(0, classes - 1, ())
        return (batch.y + step) % classes
    if kind == "least-likely":
        return memory.logits().argmin(dim=1)
    return torch.full_like(batch.y, int(kind))


State = tuple[Tensor, Tensor | None, tuple[object, ...], tuple[object, ...]]


def _global_state(device: torch.device) -> State:
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    legacy = np.random.get_state(legacy=True)  # noqa: NPY002  (the global state is what is guarded)
    return torch.get_rng_state(), cuda, tuple(legacy), random.getstate()


def _restore(before: State, device: torch.device) -> bool:
    """Put the global random state back; whether anything had moved it."""
    after = _global_state(device)
    same_cuda = before[1] is None or torch.equal(before[1], after[1])  # type: ignore[arg-type]
    same_numpy = all(np.array_equal(a, b) for a, b in zip(before[2], after[2], strict=True))  # type: ignore[arg-type]
    same = torch.equal(before[0], after[0]) and same_cuda and same_numpy and before[3] == after[3]
    if not same:
        torch.set_rng_state(before[0])
        if before[1] is not None:
            torch.cuda.set_rng_state(before[1], device)
        np.random.set_state(before[2])  # type: ignore[arg-type]  # noqa: NPY002
        random.setstate(before[3])
    return not same
