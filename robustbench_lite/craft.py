"""One call of one attack on one batch, under guard: what it touches beside its job is noticed.

The global random state is seeded and put back, the clean input is a private clone, passes are
counted.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from .access import BatchMemory, Granted, Tally
from .group import TimeLimit
from .hookspecs import AttackSpec
from .rng import SampleRng
from .seen import Seen
from .types import Batch, Budget, Classifier, LoadedModel

TOUCHED_RNG = "touched rng"
CHANGED_INPUT = "changed input"
CHANGED_MODEL = "changed model"
BROKEN_GRADIENT = "broken gradient"
ZERO_GRADIENT = "zero gradient"
BROKEN_WITH = "broken gradient: "  # and the name of a loss
ZERO_WITH = "zero gradient: "
LATE = "its time limit has passed: give it more (`time_limit`), or less to do"

_ODD = -7046029254386353131  # the golden ratio in 64 bits: every bit of place and value counts

AttackFunction = Callable[..., object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crafted:
    """What one call returned, with its cost per row (float64 [n]) and what was noticed.

    `seen`: what it saw on its way. `drawn`: whether it or the model used the global random state.
    """

    candidate: object
    tally: Tally
    seconds: float
    observed: Mapping[str, float]
    seen: Seen
    drawn: bool = False


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
    eot: int = 1,
    bpda: tuple[str, ...] = (),
    seconds: float = float("inf"),
) -> Crafted:
    """Call the attack on `rows` (int64 [m]) of a batch; the caller reports what it raises.

    `eot`, `bpda`: the adaptive parts that the suite asks for. `seconds`: what is left of its time;
    raises TimeLimit after it.
    """
    clean = batch.x[rows]  # indexing copies: the attack's own
    kept = clean.clone()
    labels = batch.y[rows]
    tally = Tally(clean.shape[0], clean.device)
    wanted = None if goal is None else goal[rows]
    seen = Seen(kept, labels, wanted, budget)
    model: Classifier = Granted(
        memory,
        batch.box,
        spec.access,
        tally,
        clean=clean,
        base=rows,
        seen=seen,
        draws=eot,
        bpda=bpda,
    )
    extra = {"target": wanted} if spec.targeted else {}
    state = _global_state(clean.device)
    seeded = _seed(rng)
    begin = time.perf_counter()
    try:
        with limited(seconds):
            candidate = function(model, clean, labels, budget=budget, rng=rng, **params, **extra)
    finally:
        seconds = time.perf_counter() - begin
        touched = _restore(state, seeded, clean.device)
    observed: dict[str, float] = {}
    if touched and not _draws(memory):
        observed[TOUCHED_RNG] = 1
    if not torch.equal(clean, kept):
        observed[CHANGED_INPUT] = 1
        if isinstance(candidate, Tensor) and candidate.data_ptr() == clean.data_ptr():
            candidate = candidate.clone()
    return Crafted(
        candidate=candidate,
        tally=tally,
        seconds=seconds,
        observed=observed,
        seen=seen,
        drawn=touched,
    )


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Inside, TimeLimit is raised once `seconds` have passed, or else at the end.

    A signal interrupts what runs; where there is none (outside the main thread, on Windows) the
    call has to end by itself.
    """
    begin = time.monotonic()
    if seconds <= 0:
        raise TimeLimit(LATE)
    timed = seconds < float("inf") and hasattr(signal, "setitimer")
    timed = timed and threading.current_thread() is threading.main_thread()
    if not timed:
        yield
    else:
        before = signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    if time.monotonic() - begin > seconds:
        raise TimeLimit(LATE)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise TimeLimit(LATE)


@contextmanager
def fixed_chance(rng: SampleRng) -> Iterator[None]:
    """Inside, a model that draws from the global random state draws the same for the same `rng`."""
    state = _global_state(rng.device)
    seeded = _seed(rng)
    try:
        yield
    finally:
        _restore(state, seeded, rng.device)


def _draws(memory: BatchMemory) -> bool:
    """Whether the model itself draws random numbers, so that an attack cannot help doing so."""
    before = _global_state(memory.x.device)
    one = memory.x[:1].clone()
    memory.model.predict(one)
    if memory.model.differentiable is not None:
        with torch.no_grad():
            memory.model.differentiable(one)
    return _restore(before, before, memory.x.device)


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


def changes_itself(model: LoadedModel, x: Tensor) -> bool:
    """Whether a forward pass alone changes the model, as batch normalisation in training does."""
    before = fingerprint(model.differentiable)
    model.predict(x.clone())
    return fingerprint(model.differentiable) != before


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


def _seed(rng: SampleRng) -> _GlobalState:
    """Seed torch's global state from the first sample's stream; the state it then has."""
    if rng.n:
        first = rng.rows(torch.zeros(1, dtype=torch.int64, device=rng.device)).fork("global state")
        torch.manual_seed(int(first.integers(0, 2**31 - 1, ())[0]))
    return _global_state(rng.device)


def _restore(before: _GlobalState, seeded: _GlobalState, device: torch.device) -> bool:
    """Put the global state back; whether random numbers had been drawn since it was `seeded`."""
    torch.set_grad_enabled(before.grad)
    torch.set_default_dtype(before.dtype)
    if torch.are_deterministic_algorithms_enabled() != before.deterministic:
        torch.use_deterministic_algorithms(before.deterministic)  # imports torch.compile: seconds
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before.cudnn
    torch.set_flush_denormal(False)  # has no getter; robeval itself never sets it
    drawn = not _same_chance(seeded, _global_state(device))
    torch.set_rng_state(before.cpu)
    if before.cuda is not None:
        torch.cuda.set_rng_state(before.cuda, device)
    if drawn:
        np.random.set_state(before.numpy)  # type: ignore[arg-type]  # noqa: NPY002
        random.setstate(before.python)
    return drawn


def _same_chance(one: _GlobalState, other: _GlobalState) -> bool:
    same_cuda = one.cuda is None or torch.equal(one.cuda, other.cuda)  # type: ignore[arg-type]
    same_numpy = all(
        np.array_equal(a, b)  # type: ignore[arg-type]
        for a, b in zip(one.numpy, other.numpy, strict=True)
    )
    same_torch = torch.equal(one.cpu, other.cpu)
    return same_torch and same_cuda and same_numpy and one.python == other.python
