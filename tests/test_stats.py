"""Statistics against published numbers, scipy, and exact sums over the binomial distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats as scipy_stats

from robustbench_lite import stats

# ---------------------------------------------------------------- intervals of a rate


@pytest.mark.parametrize(
    ("count", "n", "low", "high", "digits"),
    [
        (8850, 10_000, 87.86, 89.11, 2),
        (4404, 10_000, 43.07, 45.02, 2),
        (8940, 10_000, 88.78, 89.99, 2),
        (1790, 10_000, 17.16, 18.66, 2),
        (78, 10_000, 0.63, 0.97, 2),
        (885, 1_000, 86.4, 90.3, 1),
        (0, 1_000, 0.0, 0.38, 2),
        (177, 200, 83.3, 92.2, 1),
        (0, 300, 0.0, 1.26, 2),
    ],
)
def test_wilson_of_published_rates(
    count: int, n: int, low: float, high: float, digits: int
) -> None:
    found = stats.wilson(count, n)
    assert [round(100 * end, digits) for end in found] == [low, high]


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("count", "n"), [(0, 5), (1, 5), (17, 20), (5, 5), (300, 1000)])
def test_intervals_are_scipys(count: int, n: int, confidence: float) -> None:
    exact = scipy_stats.binomtest(count, n).proportion_ci(confidence, method="exact")
    score = scipy_stats.binomtest(count, n).proportion_ci(confidence, method="wilson")
    assert stats.clopper_pearson(count, n, confidence) == pytest.approx((exact.low, exact.high))
    assert stats.wilson(count, n, confidence) == pytest.approx((score.low, score.high), abs=1e-12)


@pytest.mark.parametrize(
    ("half_width", "p", "n"),
    [(0.005, 0.5, 38_612), (0.01, 0.5, 9_701), (0.01, 0.9, 3_788), (0.02, 0.5, 2_449)],
)
def test_published_sample_sizes_give_their_half_width(half_width: float, p: float, n: int) -> None:
    """Clopper-Pearson sample sizes, up to the rounding of p * n to a count."""
    for samples, enough in ((n, True), (round(0.97 * n), False)):
        low, high = stats.clopper_pearson(round(p * samples), samples)
        width = max(high - p, p - low)
        assert width <= half_width + 1 / n if enough else width > half_width


def coverage(intervals: Sequence[tuple[float, float]], p: float) -> float:
    """Exact chance that an interval covers p: a sum over the binomial distribution."""
    n = len(intervals) - 1
    covers = [low <= p <= high for low, high in intervals]
    return float(scipy_stats.binom.pmf(np.arange(n + 1), n, p)[covers].sum())


@pytest.mark.parametrize("n", [10, 100])
def test_coverage(n: int) -> None:
    exact = [stats.clopper_pearson(k, n) for k in range(n + 1)]
    wilson = [stats.wilson(k, n) for k in range(n + 1)]
    chances = np.linspace(0.001, 0.999, 333)
    assert min(coverage(exact, p) for p in chances) >= 0.95
    assert np.mean([coverage(wilson, p) for p in chances]) == pytest.approx(0.95, abs=0.01)
    if n == 100:
        assert min(coverage(wilson, p) for p in chances if 0.02 <= p <= 0.98) >= 0.92
        assert coverage(wilson, 0.02) >= 0.93


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_one_sided_limits_err_as_often_as_they_say_and_no_less(confidence: float) -> None:
    n = 60
    lower = [(stats.lower_limit(k, n, confidence), 1.0) for k in range(n + 1)]
    upper = [(0.0, stats.upper_limit(k, n, confidence)) for k in range(n + 1)]
    for p in np.linspace(0.01, 0.99, 99):
        assert coverage(lower, p) >= confidence
        assert coverage(upper, p) >= confidence
    for limit, _ in lower[1:]:  # beside a limit the chance is exact
        assert coverage(lower, limit - 1e-9) == pytest.approx(confidence, abs=1e-6)
    for _, limit in upper[:-1]:
        assert coverage(upper, limit + 1e-9) == pytest.approx(confidence, abs=1e-6)


def test_limits_mirror_each_other() -> None:
    for count in range(11):
        low = stats.lower_limit(count, 10, 0.95)
        assert low == pytest.approx(1 - stats.upper_limit(10 - count, 10, 0.95), abs=1e-12)
    assert (stats.lower_limit(0, 10), stats.upper_limit(10, 10)) == (0.0, 1.0)
    assert stats.lower_limit(10, 10) == pytest.approx(0.05**0.1)
    assert (stats.lower_limit(0, 0), stats.upper_limit(0, 0)) == (0.0, 1.0)


def test_wilson_closes_at_the_ends() -> None:
    assert stats.wilson(0, 7)[0] == 0.0
    assert stats.wilson(7, 7)[1] == 1.0


def test_rate() -> None:
    found = stats.rate(885, 1000)
    assert (found.count, found.n, found.value) == (885, 1000, 0.885)
    assert (found.low, found.high) == stats.wilson(885, 1000)
    nothing = stats.rate(0, 0)
    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.high) == (0.0, 1.0)


@pytest.mark.parametrize(("count", "n"), [(-1, 5), (6, 5), (0, -1)])
def test_a_count_that_cannot_be_is_refused(count: int, n: int) -> None:
    for interval in (stats.wilson, stats.clopper_pearson, stats.lower_limit, stats.upper_limit):
        with pytest.raises(ValueError, match=rf"count={count}, n={n}"):
            interval(count, n)
    with pytest.raises(ValueError, match="count"):
        stats.rate(count, n)


# ---------------------------------------------------------------- paired comparisons


@pytest.mark.parametrize(("b", "c", "p"), [(60, 40, 0.057), (30, 10, 0.0022), (18, 7, 0.043)])
def test_mcnemar_of_published_pairs(b: int, c: int, p: float) -> None:
    assert stats.mcnemar(b, c) == pytest.approx(p, abs=0.5 * 10 ** -len(str(p).split(".")[1]))
    assert stats.mcnemar(b, c) == pytest.approx(scipy_stats.binomtest(b, b + c).pvalue)


@pytest.mark.parametrize(("b", "c"), [(12, 2), (0, 5), (7, 4), (3, 3), (17, 7), (24, 0)])
def test_mcnemar_is_mid_p_for_few_pairs(b: int, c: int) -> None:
    exact = scipy_stats.binomtest(b, b + c).pvalue
    point = float(scipy_stats.binom.pmf(b, b + c, 0.5))
    expected = 1.0 if b == c else exact - point
    assert stats.mcnemar(b, c) == pytest.approx(expected)
    assert stats.mcnemar(c, b) == stats.mcnemar(b, c)


def test_the_exact_p_of_twelve_to_two_is_the_published_one() -> None:
    point = float(scipy_stats.binom.pmf(2, 14, 0.5))
    assert stats.mcnemar(12, 2) + point == pytest.approx(0.013, abs=5e-4)


def test_mcnemar_edges() -> None:
    assert stats.mcnemar(0, 0) == 1.0
    assert stats.mcnemar(50, 50) == 1.0
    with pytest.raises(ValueError, match="count=-1"):
        stats.mcnemar(-1, 4)


@pytest.mark.parametrize("pairs", [10, 24, 25, 40, 100])
def test_mcnemar_errs_rarely(pairs: int) -> None:
    """Under equality the exact chance of p <= 0.05; mid-p may pass it by a little."""
    chances = scipy_stats.binom.pmf(np.arange(pairs + 1), pairs, 0.5)
    rejected = [stats.mcnemar(b, pairs - b) <= 0.05 for b in range(pairs + 1)]
    assert float(chances[rejected].sum()) <= (0.05 if pairs >= stats.MID_P_BELOW else 0.07)


def test_paired_difference_of_published_numbers() -> None:
    difference, low, high = stats.paired_difference(50, 50, 10_000)
    assert difference == 0.0
    assert (round(low, 4), round(high, 4)) == (-0.002, 0.002)
    difference, low, high = stats.paired_difference(60, 40, 10_000)
    assert difference == pytest.approx(-0.002)
    half = 1.959964 * math.sqrt(100 - 400 / 10_000) / 10_000
    assert (low, high) == pytest.approx((-0.002 - half, -0.002 + half))


def test_paired_difference_edges() -> None:
    assert math.isnan(stats.paired_difference(0, 0, 0)[0])
    assert stats.paired_difference(0, 0, 0)[1:] == (-1.0, 1.0)
    assert stats.paired_difference(0, 0, 9) == (0.0, 0.0, 0.0)
    for b, c, n in [(3, 3, 5), (-1, 3, 5)]:
        with pytest.raises(ValueError, match="count"):
            stats.paired_difference(b, c, n)


# ---------------------------------------------------------------- families and sample sizes


def test_holm_of_a_known_table() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.9, 0.02]) == pytest.approx([1.0, 1.0, 0.06])
    assert stats.holm([]) == []
    with pytest.raises(ValueError, match="p-values"):
        stats.holm([0.5, math.nan])


def test_holm_rejects_what_the_step_down_rule_rejects() -> None:
    values = np.random.default_rng(0).beta(0.3, 3, size=(200, 6))
    for row in values:
        rejected, open_ = set(), True
        for rank, at in enumerate(np.argsort(row)):
            open_ = open_ and row[at] <= 0.05 / (6 - rank)
            rejected |= {at} if open_ else set()
        adjusted = stats.holm(row.tolist())
        assert {at for at in range(6) if adjusted[at] <= 0.05} == rejected


@pytest.mark.parametrize(
    ("value", "threshold", "power", "published"),
    [
        (0.50, 0.49, 0.95, 27_051),
        (0.885, 0.875, 0.95, 11_422),
        (0.95, 0.94, 0.95, 5_612),
        (0.50, 0.48, 0.95, 6_759),
        (0.885, 0.865, 0.95, 2_953),
        (0.50, 0.49, 0.80, 15_453),
        (0.885, 0.875, 0.80, 6_602),
        (0.95, 0.94, 0.80, 3_296),
        (0.50, 0.48, 0.80, 3_861),
    ],
)
def test_samples_to_decide_is_near_the_published_normal_approximation(
    value: float, threshold: float, power: float, published: int
) -> None:
    found = stats.samples_to_decide(value, threshold, power=power)
    assert found == pytest.approx(published, rel=0.025)
    assert stats.samples_to_decide(1 - value, 1 - threshold, power=power) == pytest.approx(
        published, rel=0.025
    )


@pytest.mark.parametrize(("value", "threshold"), [(0.9, 0.8), (0.7, 0.8), (0.99, 0.95), (0.5, 0.6)])
def test_that_many_samples_decide_with_that_power(value: float, threshold: float) -> None:
    n = stats.samples_to_decide(value, threshold)
    assert n is not None

    def power(n: int) -> float:
        if value > threshold:
            decided = [stats.lower_limit(k, n) >= threshold for k in range(n + 1)]
        else:
            decided = [stats.upper_limit(k, n) < threshold for k in range(n + 1)]
        return float(scipy_stats.binom.pmf(np.arange(n + 1), n, value)[decided].sum())

    assert power(n) >= 0.8
    assert power(n // 2) < 0.8


def test_samples_to_decide_at_the_ends() -> None:
    assert stats.samples_to_decide(1.0, 0.95) == 59  # 0.95 ** 59 < 0.05 <= 0.95 ** 58
    assert stats.samples_to_decide(0.0, 0.05) == 59
    assert stats.samples_to_decide(0.9, 0.9) is None
    assert stats.samples_to_decide(math.nan, 0.9) is None
    assert stats.samples_to_decide(0.9, 0.9 + 1e-9) is None


# ---------------------------------------------------------------- sequential test


def walk(p: float, p0: float, p1: float, longest: int) -> tuple[float, float, float, float]:
    """Exact chances (accept, reject, still open) and mean number of samples under the rate p."""
    open_ = {0: 1.0}
    accepted = rejected = mean = 0.0
    for n in range(1, longest + 1):
        reached: dict[int, float] = {}
        for successes, chance in open_.items():
            reached[successes + 1] = reached.get(successes + 1, 0.0) + chance * p
            reached[successes] = reached.get(successes, 0.0) + chance * (1 - p)
        open_ = {}
        for successes, chance in reached.items():
            verdict = stats.sprt(successes, n, p0, p1, 0.05, 0.05)
            accepted += chance * (verdict == "accept")
            rejected += chance * (verdict == "reject")
            mean += chance * n * (verdict != "continue")
            if verdict == "continue":
                open_[successes] = chance
    return accepted, rejected, sum(open_.values()), mean


def test_sprt_errs_as_often_as_it_says_and_stops_early() -> None:
    accepted, _, undecided, mean = walk(0.3, 0.3, 0.5, 400)
    assert 0.03 <= accepted <= 0.0527  # Wald's bound: alpha / (1 - beta)
    assert undecided < 1e-6
    assert mean == pytest.approx(31, abs=4)
    _, rejected, undecided, mean = walk(0.5, 0.3, 0.5, 400)
    assert 0.03 <= rejected <= 0.0527
    assert undecided < 1e-6
    assert mean == pytest.approx(31, abs=4)


def test_sprt_stops_where_the_likelihood_ratio_reaches_its_bound() -> None:
    assert stats.sprt(0, 0, 0.3, 0.5, 0.05, 0.05) == "continue"
    assert stats.sprt(5, 5, 0.3, 0.5, 0.05, 0.05) == "continue"  # 5 ln(5/3) = 2.55 < 2.944
    assert stats.sprt(6, 6, 0.3, 0.5, 0.05, 0.05) == "accept"
    assert stats.sprt(1, 1, 0.05, 0.975, 0.05, 0.05) == "accept"  # ln 19.5 > ln 19
    assert stats.sprt(0, 8, 0.3, 0.5, 0.05, 0.05) == "continue"  # 8 ln(5/7) = -2.69
    assert stats.sprt(0, 9, 0.3, 0.5, 0.05, 0.05) == "reject"


@pytest.mark.parametrize(("p0", "p1"), [(0.5, 0.3), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0)])
def test_sprt_refuses_rates_out_of_order(p0: float, p1: float) -> None:
    with pytest.raises(ValueError, match="0 < p0 < p1 < 1"):
        stats.sprt(1, 2, p0, p1, 0.05, 0.05)
