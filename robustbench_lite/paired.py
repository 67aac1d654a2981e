"""Two rates on the same n samples: their difference, its limits, and the n that would decide.

b: samples where only the first was right; c: only the second. The difference is the second rate
minus the first, (c - b) / n. Limits are those of Tango's score test (Statistics in Medicine 17,
1998), which keep their coverage where few pairs disagree; Wald's interval is empty there.
"""

from __future__ import annotations

import math

from scipy.stats import norm

from .stats import MOST_SAMPLES

_HALVINGS = 60  # of [-1, 1]: far below the spacing of 1 / n


def difference(b: int, c: int, n: int) -> float:
    """Second rate minus the first; NaN where n is 0."""
    _check(b, c, n)
    return (c - b) / n if n else math.nan


def score(b: float, c: float, n: int, supposed: float) -> float:
    """How far the difference lies above a `supposed` one, in standard errors under it.

    Tango 1998, eq. 8 to 10, the nuisance parameter at its restricted maximum likelihood.
    """
    half = 2 * n - c + b
    linear = half * supposed - b - c
    root = math.sqrt(max(linear**2 + 8 * n * b * supposed * (1 - supposed), 0.0))
    only_first = (root - linear) / (4 * n)
    variance = n * max(2 * only_first + supposed * (1 - supposed), 0.0)
    above = c - b - n * supposed
    if variance == 0:
        return math.copysign(math.inf, above) if above else 0.0
    return above / math.sqrt(variance)


def lower_limit(b: int, c: int, n: int, confidence: float = 0.95) -> float:
    """One-sided: the difference is at least this; -1 where n is 0."""
    _check(b, c, n)
    if n == 0:
        return -1.0
    z = float(norm.ppf(confidence))
    low, high = -1.0, (c - b) / n
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if score(b, c, n, middle) > z else (low, middle)
    return low


def upper_limit(b: int, c: int, n: int, confidence: float = 0.95) -> float:
    """One-sided: the difference is at most this; 1 where n is 0."""
    return -lower_limit(c, b, n, confidence)


def interval(b: int, c: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided limits of the difference."""
    one_sided = (1 + confidence) / 2
    return lower_limit(b, c, n, one_sided), upper_limit(b, c, n, one_sided)


def samples_to_decide(
    b: int, c: int, n: int, bound: float, confidence: float = 0.95, power: float = 0.8
) -> int | None:
    """About how many samples put the limit of the difference past `bound`, with chance `power`.

    As if the difference and the share of discordant pairs were what they are now (one pair where
    there is none): the smallest n at which the score of the difference's unlucky quantile decides.
    None where a thousand million would not do, above all where difference and bound are equal.
    """
    found = difference(b, c, n)
    if not abs(found - bound) > 0:
        return None
    sign = 1 if found > bound else -1
    discordant = max(b + c, 1) / n
    spread = float(norm.ppf(power)) * math.sqrt(max(discordant - found**2, 0.0))
    z = float(norm.ppf(confidence))

    def decides(size: int) -> bool:
        unlucky = max(-1.0, min(1.0, found - sign * spread / math.sqrt(size)))
        pairs = max(discordant, abs(unlucky))
        first, second = size * (pairs - unlucky) / 2, size * (pairs + unlucky) / 2
        return sign * score(first, second, size, bound) > z

    enough = 1
    while not decides(enough):
        enough *= 2
        if enough > MOST_SAMPLES:
            return None
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        enough, too_few = (middle, too_few) if decides(middle) else (enough, middle)
    return enough


def _check(b: int, c: int, n: int) -> None:
    if min(b, c) < 0 or b + c > n:
        raise ValueError(f"expected b, c >= 0 and b + c <= n, found b={b}, c={c}, n={n}")
