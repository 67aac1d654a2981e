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

_ODD = -7046029254386353131  # the golden ratio in 64 bits: every bit of place and value counts

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
        place = torch.arange(raw.numel(), device=raw.device, dtype=torch.int64)
        mixed = (raw.to(torch.int64) + place * _ODD) * _ODD
        sums.append(int((mixed ^ (mixed >> 29)).mul_(_ODD).sum()))
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


@dataclass(frozen=True, slots=True)
class _GlobalState:
    """What an attack must leave as found beside its arguments."""

    cpu: Tensor
    cuda: Tensor | None
    numpy: tuple[object, ...]
    python: tuple[object, ...]
    grad: bool
    dtype: torch.dtype
    deterministic: bool
    cudnn: tuple[bool, bool]


def _global_state(device: torch.device) -> _GlobalState:
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    legacy = np.random.get_state(legacy=True)  # noqa: NPY002  (the global state is what is guarded)
    return _GlobalState(
        cpu=torch.get_rng_state(),
        cuda=cuda,
        numpy=tuple(legacy),
        python=random.getstate(),
        grad=torch.is_grad_enabled(),
        dtype=torch.get_default_dtype(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
        cudnn=(torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
    )


def _restore(before: _GlobalState, device: torch.device) -> bool:
    """Put the global state back; whether random numbers had been drawn from it."""
    torch.set_grad_enabled(before.grad)
    torch.set_default_dtype(before.dtype)
    torch.use_deterministic_algorithms(before.deterministic)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before.cudnn
    torch.set_flush_denormal(False)  # has no getter; robeval itself never sets it
    after = _global_state(device)
    same_cuda = before.cuda is None or torch.equal(before.cuda, after.cuda)  # type: ignore[arg-type]
    same_numpy = all(
        np.array_equal(a, b)  # type: ignore[arg-type]
        for a, b in zip(before.numpy, after.numpy, strict=True)
    )
    same_torch = torch.equal(before.cpu, after.cpu)
    if same_torch and same_cuda and same_numpy and before.python == after.python:
        return False
    torch.set_rng_state(before.cpu)
    if before.cuda is not None:
        torch.cuda.set_rng_state(before.cuda, device)
    np.random.set_state(before.numpy)  # type: ignore[arg-type]  # noqa: NPY002
    random.setstate(before.python)
    return True
