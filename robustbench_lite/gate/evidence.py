"""What is known of one number: its value, its n, one-sided limits, the n that would decide.

Rates have the exact limits of Clopper and Pearson (anytime-valid ones where counting may have been
stopped on what was seen), means those of Anderson, medians order
statistics, paired differences those of Tango's score test (`stats`, `paired`). `low` and `high`
are monotone in the confidence, which lies above 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.stats import norm

from .. import paired, stats
from ..stats import Values

POWER = 0.8  # chance that the suggested number of samples decides
NAMED = 5  # newly broken samples that a reason names before it only counts them


class Evidence(Protocol):
    """A number measured on n samples."""

    @property
    def value(self) -> float:
        """The number itself."""
        ...

    @property
    def n(self) -> int:
        """How many samples it rests on."""
        ...

    @property
    def newly_broken(self) -> tuple[str, ...]:
        """Samples right in the baseline alone; empty for a number of one run."""
        ...

    def low(self, confidence: float) -> float:
        """It is at least this."""
        ...

    def high(self, confidence: float) -> float:
        """It is at most this."""
        ...

    def needed(self, bound: float, confidence: float) -> int | None:
        """About how many samples put a limit past `bound`, None if no number can."""
        ...

    def shown(self, value: float) -> str:
        """A value of this kind as text."""
        ...


@dataclass(frozen=True, slots=True)
class Share:
    """A count of n; `anytime`: its limits hold wherever the counting was stopped."""

    count: int
    n: int
    newly_broken: tuple[str, ...] = ()
    anytime: bool = False

    @property
    def value(self) -> float:
        """The rate."""
        return self.count / self.n

    def low(self, confidence: float) -> float:
        """Clopper-Pearson, or the anytime-valid limit."""
        return stats.limits(self.count, self.n, confidence, anytime=self.anytime)[0]

    def high(self, confidence: float) -> float:
        """Clopper-Pearson, or the anytime-valid limit."""
        return stats.limits(self.count, self.n, confidence, anytime=self.anytime)[1]

    def needed(self, bound: float, confidence: float) -> int | None:
        """For a true rate that is the measured one."""
        return stats.samples_to_decide(self.value, bound, confidence, POWER, anytime=self.anytime)

    def shown(self, value: float) -> str:
        """In percent."""
        return f"{100 * value:.2f} %"


@dataclass(frozen=True, slots=True)
class Drop:
    """The difference of a rate, run minus baseline, on the n samples of both.

    `newly_fixed`: how many were right in this run alone.
    """

    newly_broken: tuple[str, ...]
    newly_fixed: int
    n: int

    @property
    def value(self) -> float:
        """Below 0 where the run is worse."""
        return paired.difference(len(self.newly_broken), self.newly_fixed, self.n)

    def low(self, confidence: float) -> float:
        """Tango."""
        return paired.lower_limit(len(self.newly_broken), self.newly_fixed, self.n, confidence)

    def high(self, confidence: float) -> float:
        """Tango."""
        return paired.upper_limit(len(self.newly_broken), self.newly_fixed, self.n, confidence)

    def needed(self, bound: float, confidence: float) -> int | None:
        """For the difference and the disagreement measured."""
        b, c = len(self.newly_broken), self.newly_fixed
        return paired.samples_to_decide(b, c, self.n, bound, confidence, POWER)

    def shown(self, value: float) -> str:
        """In points of a percentage, with its sign."""
        return f"{100 * value:+.2f} points"

    def names(self) -> str:
        """The samples that disagree, the first few by name."""
        some = ", ".join(self.newly_broken[:NAMED])
        more = ", ..." if len(self.newly_broken) > NAMED else ""
        listed = f" ({some}{more})" if some else ""
        return f"{len(self.newly_broken)} newly broken{listed}, {self.newly_fixed} newly fixed"


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of values from 0 to 1."""

    values: Values
    newly_broken: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """How many values."""
        return len(self.values)

    @property
    def value(self) -> float:
        """The mean."""
        return float(np.mean(self.values))

    def low(self, confidence: float) -> float:
        """Anderson."""
        return stats.mean_lower_limit(self.values, confidence)

    def high(self, confidence: float) -> float:
        """Anderson."""
        return stats.mean_upper_limit(self.values, confidence)

    def needed(self, bound: float, confidence: float) -> int | None:
        """The distance of the limit and the spread of the mean both shrink with the root of n."""
        gap = abs(self.value - bound)
        if not gap > 0:
            return None
        above = self.value > bound
        reach = self.value - self.low(confidence) if above else self.high(confidence) - self.value
        spread = float(norm.ppf(POWER)) * float(np.std(self.values))
        return math.ceil(((reach * math.sqrt(self.n) + spread) / gap) ** 2)

    def shown(self, value: float) -> str:
        """In percent."""
        return f"{100 * value:.2f} %"


@dataclass(frozen=True, slots=True)
class Median:
    """The median of distances in `unit`."""

    values: Values
    unit: str
    newly_broken: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """How many values."""
        return len(self.values)

    @property
    def value(self) -> float:
        """The median."""
        return float(np.median(self.values))

    def low(self, confidence: float) -> float:
        """An order statistic; no distance is below 0."""
        return max(stats.median_lower_limit(self.values, confidence), 0.0)

    def high(self, confidence: float) -> float:
        """An order statistic, infinite for a few values."""
        return stats.median_upper_limit(self.values, confidence)

    def needed(self, bound: float, confidence: float) -> int | None:
        """The median lies above the bound just if more than half of the values do."""
        above = float(np.mean(self.values > bound))
        return stats.samples_to_decide(above, 0.5, confidence, POWER)

    def shown(self, value: float) -> str:
        """In its own unit."""
        return f"{value:.4g} in {self.unit}"
