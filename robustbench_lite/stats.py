"""What a count of n says: intervals, paired tests, corrections, sample sizes (on scipy).

Wilson intervals are for display, Clopper-Pearson limits for decisions: their coverage is
guaranteed. A `count` is a number of successes among n independent samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy import stats as scipy_stats

from .types import Rate

Values = NDArray[np.float64]
MID_P_BELOW = 25  # discordant pairs; the exact test is too cautious under it
MOST_SAMPLES = 10**9  # more are not worth naming
BISECTIONS = 50  # to about 1e-15


def wilson(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided score interval of a rate (Wilson 1927); [0, 1] where n is 0."""
    _check(count, n)
    if n == 0:
        return 0.0, 1.0
    z = _quantile((1 + confidence) / 2)
    p = count / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    low = 0.0 if count == 0 else max(centre - half, 0.0)
    high = 1.0 if count == n else min(centre + half, 1.0)
    return low, high


def clopper_pearson(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided exact interval of a rate (Clopper and Pearson 1934): coverage is guaranteed."""
    one_sided = (1 + confidence) / 2
    return lower_limit(count, n, one_sided), upper_limit(count, n, one_sided)


def lower_limit(count: int, n: int, confidence: float = 0.95) -> float:
    """One-sided Clopper-Pearson limit: the rate is at least this, with that confidence."""
    _check(count, n)
    if count == 0:
        return 0.0
    return float(special.betaincinv(count, n - count + 1, 1 - confidence))


def upper_limit(count: int, n: int, confidence: float = 0.95) -> float:
    """One-sided Clopper-Pearson limit: the rate is at most this, with that confidence."""
    _check(count, n)
    if count == n:
        return 1.0
    return float(special.betaincinv(count + 1, n - count, confidence))


def limits(
    count: int, n: int, confidence: float = 0.95, *, anytime: bool = False
) -> tuple[float, float]:
    """Both one-sided limits of a rate, each with that confidence: Clopper-Pearson, or anytime."""
    if anytime:
        return anytime_limits(count, n, confidence)
    return lower_limit(count, n, confidence), upper_limit(count, n, confidence)


def anytime_limits(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """One-sided limits that hold at every n at once, so that one may stop when one likes.

    The chance that the lower limit is ever above the true rate, at any n, is at most
    1 - confidence; so is the chance that the upper one is ever below it. The lower limit is the
    least t with M(t) < 1 / (1 - confidence), where M(t) is the likelihood of the samples averaged
    over the rates above t, divided by that at t: under any rate up to t a test supermartingale
    that starts at 1 (mixture of Robbins 1970, Ville's inequality).
    """
    _check(count, n)
    return _anytime_lower(count, n, confidence), 1 - _anytime_lower(n - count, n, confidence)


def _anytime_lower(count: int, n: int, confidence: float) -> float:
    enough = -math.log(1 - confidence)
    low, high = 0.0, count / n if n else 0.0
    if count == 0:
        return low
    for _ in range(BISECTIONS):  # M falls in t wherever it is above e
        middle = (low + high) / 2
        if log_evidence(count, n, middle) >= enough:
            low = middle
        else:
            high = middle
    return low


def log_evidence(count: int, n: int, threshold: float) -> float:
    """ln M: evidence that the rate is above `threshold` (0 < threshold < 1); see above."""
    failures = n - count
    above = float(special.betaincc(count + 1, failures + 1, threshold))
    if above == 0:  # no likelihood is above; its logarithm is not worth having
        return -math.inf
    mixed = math.log(above) + special.betaln(count + 1, failures + 1)
    mixed -= math.log1p(-threshold)
    at_threshold = count * math.log(threshold) + failures * math.log1p(-threshold)
    return float(mixed - at_threshold)


def rate(count: int, n: int, *, anytime: bool = False) -> Rate:
    """`count` of `n` with its two-sided 95 % interval; NaN in [0, 1] where n is 0.

    The interval is Wilson's; with `anytime` it is the one of `anytime_limits`, 97.5 % either side.
    """
    low, high = anytime_limits(count, n, 0.975) if anytime else wilson(count, n)
    if n == 0:
        low, high = 0.0, 1.0
    return Rate(count, n, count / n if n else math.nan, low, high)


def mcnemar(b: int, c: int) -> float:
    """Two-sided p-value that two paired rates are equal, from the discordant pairs alone.

    b: only the first succeeded; c: only the second. Exact binomial test; below 25 discordant pairs
    its mid-p version (Fagerland, Lydersen, Laake 2013). 1 where there is no discordant pair.
    """
    n = b + c
    _check(b, n)
    if n == 0:
        return 1.0
    smaller = min(b, c)
    tail = float(scipy_stats.binom.cdf(smaller, n, 0.5))
    if n < MID_P_BELOW:
        tail -= 0.5 * float(scipy_stats.binom.pmf(smaller, n, 0.5))
    return min(1.0, 2 * tail)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for a family of tests (Holm 1979, step-down), in the given order."""
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"expected p-values between 0 and 1, found {list(p_values)}")
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted


def holm_levels(p_values: Sequence[float], error: float) -> list[float]:
    """The error that each test of a family may spend, so that all together spend `error`.

    A test rejects at its level just if Holm's procedure rejects it.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    levels = [0.0] * len(p_values)
    level = error
    stopped = False
    for rank, at in enumerate(order):
        if not stopped:
            level = error / (len(p_values) - rank)
            stopped = p_values[at] > level
        levels[at] = level
    return levels


def mean_lower_limit(values: Values, confidence: float = 0.95) -> float:
    """One-sided: the mean of values that lie from 0 to 1 is at least this, whatever their shape.

    Anderson 1969: the mean of the largest distribution function in the band of Dvoretzky, Kiefer
    and Wolfowitz with Massart's constant (1990). Never wider than Hoeffding's; 0 without values.
    """
    n = len(values)
    if n == 0:
        return 0.0
    band = math.sqrt(math.log(1 / (1 - confidence)) / (2 * n))
    known = np.clip(np.sort(values), 0.0, 1.0)
    above = np.maximum(1 - band - np.arange(n) / n, 0.0)  # chance of at least the i-th value
    return float((np.diff(known, prepend=0.0) * above).sum())


def mean_upper_limit(values: Values, confidence: float = 0.95) -> float:
    """One-sided: the mean of values that lie from 0 to 1 is at most this; 1 without values."""
    return 1.0 - mean_lower_limit(1.0 - values, confidence)


def median_lower_limit(values: Values, confidence: float = 0.95) -> float:
    """One-sided: the median is at least this order statistic (sign test); -inf where none is."""
    n = len(values)
    if n == 0:
        return -math.inf
    below = int(scipy_stats.binom.ppf(1 - confidence, n, 0.5))
    if scipy_stats.binom.cdf(below, n, 0.5) > 1 - confidence:
        below -= 1
    return -math.inf if below < 0 else float(np.sort(values)[below])


def median_upper_limit(values: Values, confidence: float = 0.95) -> float:
    """One-sided: the median is at most this order statistic; infinite where none is."""
    return -median_lower_limit(-values, confidence)


def samples_to_decide(
    value: float,
    threshold: float,
    confidence: float = 0.95,
    power: float = 0.8,
    *,
    anytime: bool = False,
) -> int | None:
    """About how many samples put the Clopper-Pearson limit of a true rate `value` past `threshold`.

    With chance `power`; the limit is the lower one if `value` is above, the upper one if below.
    None where a thousand million samples would not do, above all where the two are equal.
    With `anytime` it is the limit of `anytime_limits`, and the number where the mean gets there.
    """
    if not abs(value - threshold) > 0:
        return None
    good, bad = (value, threshold) if value > threshold else (1 - value, 1 - threshold)

    def decides(n: int) -> bool:
        if anytime:
            return log_evidence(round(good * n), n, bad) >= -math.log(1 - confidence)
        most_if_bad = _binomial_quantile(confidence, n, bad)
        return most_if_bad < n and bool(special.bdtrc(most_if_bad, n, good) >= power)

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


def sprt(
    successes: int, n: int, p0: float, p1: float, alpha: float = 0.05, beta: float = 0.05
) -> Literal["accept", "reject", "continue"]:
    """Wald's sequential test of "the rate is p0" (bad) against "the rate is p1" (good), p0 < p1.

    "accept": it is good (wrong with chance about alpha); "reject": it is bad (about beta).
    """
    _check(successes, n)
    if not 0 < p0 < p1 < 1:
        raise ValueError(f"sprt: expected 0 < p0 < p1 < 1, found p0={p0}, p1={p1}")
    evidence = successes * math.log(p1 / p0) + (n - successes) * math.log((1 - p1) / (1 - p0))
    if evidence >= math.log((1 - beta) / alpha):
        return "accept"
    if evidence <= math.log(beta / (1 - alpha)):
        return "reject"
    return "continue"


def _binomial_quantile(probability: float, n: int, p: float) -> float:
    """Smallest count that is not exceeded with that probability; scipy's, without its checks."""
    count = math.ceil(special.bdtrik(probability, n, p)) if 0 < p < 1 else n * p
    return count - 1.0 if count and special.bdtr(count - 1, n, p) >= probability else float(count)


def _quantile(probability: float) -> float:
    return float(scipy_stats.norm.ppf(probability))


def _check(count: int, n: int) -> None:
    if not 0 <= count <= n:
        raise ValueError(f"expected 0 <= count <= n, found count={count}, n={n}")
