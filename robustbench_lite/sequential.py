"""Cells that end early: the random order of their samples, when to look, and what decides.

A sequential gate looks at its cell again and again. Its limits hold at every look at once
(`stats.anytime_limits`), so that stopping at a clear one errs no more often than the gate's
confidence allows. The samples come in an order drawn from the seed and their ids, and the looks
are at fixed numbers of samples: neither the batch size nor a resumed run moves the answer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from .stats import anytime_limits
from .types import Gate, Samples

Bits = NDArray[np.bool_]
FIRST_LOOK = 32  # samples; no useful floor is decided by fewer
GROWTH = 1.25  # from one look to the next: at most a quarter more is run than is needed

COUNTED: Mapping[str, Callable[[Samples], Bits]] = MappingProxyType(
    {
        "robust_accuracy": lambda table: table.clean_correct & ~table.success,
        "attack_success_rate": lambda table: table.success[table.clean_correct],
        "adversarial_error": lambda table: ~table.adv_correct,
    }
)
"""Metric -> one bit per sample in its denominator, as `summary` counts them."""


def order(ids: Sequence[str], seed: int) -> NDArray[np.int64]:
    """Positions of the samples in the order in which they are run: by a hash of seed and id."""
    drawn = [hashlib.sha256(f"order\0{seed}\0{name}".encode()).digest() for name in ids]
    return np.array(sorted(range(len(drawn)), key=drawn.__getitem__), dtype=np.int64)


def looks(n: int) -> Iterator[int]:
    """Numbers of samples, below n, at which the gates are looked at."""
    at = FIRST_LOOK
    while at < n:
        yield at
        at = math.ceil(at * GROWTH)


def decided(gate: Gate, table: Samples) -> bool:
    """Whether the samples so far put the gate's limits past its floor and its ceiling."""
    bits = COUNTED[gate.metric](table)
    if not len(bits):
        return False
    low, high = anytime_limits(int(bits.sum()), len(bits), gate.confidence)
    floor = -math.inf if gate.minimum is None else gate.minimum
    ceiling = math.inf if gate.maximum is None else gate.maximum
    return high < floor or low > ceiling or (low >= floor and high <= ceiling)


def told(gates: Sequence[Gate], n: int, total: int) -> str:
    """That these gates ended a cell after n of its samples."""
    names = ", ".join(f"'{gate.name}'" for gate in gates)
    plural = "s" if len(gates) > 1 else ""
    return f"stopped early: gate{plural} {names} decided after {n} of {total} samples"
