"""Random numbers that belong to a sample: row i depends only on (seed, stream, key i, draw number).

A counter-based generator in the manner of SplitMix64 (Steele, Lea, Flood 2014) with the finaliser
"mix13" of Stafford. There is no state but the number of the next draw, so batch size, order,
shards and device cannot change a number. Everything is torch int64 arithmetic, which wraps.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64
MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
MIX_2 = 0x94D049BB133111EB - 2**64
LOW_32 = 2**32 - 1
LARGEST_SPAN = 2**31


def sample_keys(ids: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
    """What a sample is to random numbers: 64 bits of the SHA-256 of its id, int64 [n]."""
    digests = (hashlib.sha256(name.encode()).digest() for name in ids)
    keys = [int.from_bytes(digest[:8], "little", signed=True) for digest in digests]
    return torch.tensor(keys, dtype=torch.int64, device=device)


class _Counter:
    """The number of the next draw, shared by all views of one stream."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def take(self) -> int:
        self.value += 1
        return self.value - 1


class SampleRng:
    """A stream of random numbers for n samples, one row each, on the device of their keys.

    Every call takes the next draw number, whatever it draws. Uniform numbers, signs, integers and
    permutations are the same bits on every device; normal numbers agree to 1e-6.
    """

    __slots__ = ("_counter", "_keys", "_names", "_seed")

    def __init__(self, seed: int, stream: str, keys: Tensor) -> None:
        self._seed = seed
        self._names: tuple[str, ...] = (stream,)
        self._keys = keys
        self._counter = _Counter()

    @property
    def draw(self) -> int:
        """The number of the next draw, from 0."""
        return self._counter.value

    @property
    def device(self) -> torch.device:
        """Where the numbers are made."""
        return self._keys.device

    @property
    def n(self) -> int:
        """How many samples it has a row for."""
        return self._keys.shape[0]

    def rows(self, index: Tensor) -> SampleRng:
        """The same streams for some rows (int64 [m] or bool [n]); equal rows get equal numbers.

        The view and this stream share one draw counter.
        """
        return self._view(self._names, self._keys[index], self._counter)

    def fork(self, name: str) -> SampleRng:
        """An independent stream for the same samples, counting its own draws from 0.

        Forks of one name are one stream: they give the same numbers.
        """
        return self._view((*self._names, name), self._keys, _Counter())

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 [n, *shape] in [low, high), on a grid of 2^-24 of the range."""
        unit = self._halves(shape).bitwise_right_shift_(8).bitwise_and_(2**24 - 1)
        values = unit.to(torch.float32).mul_(2.0**-24)
        if (low, high) == (0.0, 1.0):
            return values
        ends = torch.tensor((high, low), dtype=torch.float32)
        below = torch.nextafter(ends[0], ends[1]).item()
        return values.mul_(high - low).add_(low).clamp_(max=below)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers, float32 [n, *shape] (Box and Muller 1958, in float64)."""
        count = math.prod(shape)
        words = self._words((count + 1) // 2)
        first = _shift(words, 32).double().add_(0.5).mul_(2.0**-32)
        angle = words.bitwise_and_(LOW_32).double().mul_(2.0**-31 * math.pi)
        radius = first.log_().mul_(-2.0).sqrt_()
        pairs = torch.stack((angle.cos().mul_(radius), angle.sin().mul_(radius)), dim=2)
        return self._shaped(pairs.to(torch.float32).flatten(1), shape)

    def sign(self, shape: tuple[int, ...]) -> Tensor:
        """-1 or 1 with equal chance, float32 [n, *shape]."""
        halves = self._halves(shape).bitwise_right_shift_(31)
        return halves.mul_(2).add_(1).to(torch.float32)

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Tensor:
        """int64 [n, *shape] in [low, high), each within 2^-64 of its chance.

        Raises ValueError for an empty range or one of more than 2^31 numbers.
        """
        span = high - low
        if not 0 < span <= LARGEST_SPAN:
            raise ValueError(f"integers({low}, {high}): expected between 1 and 2^31 numbers")
        words = self._words(math.prod(shape))
        carry = words.bitwise_and(LOW_32).mul_(span).bitwise_right_shift_(32)
        upper = _shift(words, 32).mul_(span)
        return self._shaped(upper.add_(carry).bitwise_right_shift_(32).add_(low), shape)

    def permutation(self, k: int) -> Tensor:
        """A random order of 0..k-1 per row, int64 [n, k]."""
        return self._words(k).argsort(dim=1, stable=True)

    def _view(self, names: tuple[str, ...], keys: Tensor, counter: _Counter) -> SampleRng:
        view = SampleRng(self._seed, names[0], keys)
        view._names = names
        view._counter = counter
        return view

    def _shaped(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        return flat[:, : math.prod(shape)].reshape(self._keys.shape[0], *shape)

    def _halves(self, shape: tuple[int, ...]) -> Tensor:
        """32 random bits per number, int32 [n, *shape]: low half of a word, then high half."""
        words = self._words((math.prod(shape) + 1) // 2)
        return self._shaped(words.view(torch.int32), shape)

    def _words(self, count: int) -> Tensor:
        """64 random bits each, int64 [n, count]; takes one draw number."""
        name = json.dumps([self._seed, *self._names, self._counter.take()])
        digest = hashlib.sha256(name.encode()).digest()
        first, second = (
            int.from_bytes(digest[at : at + 8], "little", signed=True) for at in (0, 8)
        )
        keys = self._keys[:, None]
        start = _mix_(_mix_(keys ^ first).add_(GOLDEN))
        jump = _mix_(_mix_(keys ^ second).add_(GOLDEN))
        places = torch.arange(count, dtype=torch.int64, device=keys.device).mul_(GOLDEN)
        return _mix_(_mix_(places + start).add_(jump))


def _shift(words: Tensor, bits: int) -> Tensor:
    """Logical shift to the right (torch's is arithmetic), int64."""
    return words.bitwise_right_shift(bits).bitwise_and_(2 ** (64 - bits) - 1)


def _mix_(words: Tensor) -> Tensor:
    """Stafford's mix13, in place on a tensor made here: a bijection in which every bit matters."""
    words.bitwise_xor_(_shift(words, 30)).mul_(MIX_1)
    words.bitwise_xor_(_shift(words, 27)).mul_(MIX_2)
    return words.bitwise_xor_(_shift(words, 31))
