"""Statistics against published numbers, scipy, and exact sums over the binomial distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

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
        assert coverage(wilson, 0.02) >= 0.93


@pytest.mark.parametrize(("n", "edge"), [(100, 0.1), (200, 0.05), (1000, 0.01), (5000, 0.01)])
def test_wilson_covers_at_least_093_but_for_rates_at_the_ends(n: int, edge: float) -> None:
    """Exact, at a grid of rates and beside every limit, where coverage jumps."""
    wilson, exact = (
        np.array([interval(k, n) for k in range(n + 1)])
        for interval in (stats.wilson, stats.clopper_pearson)
    )
    for intervals, least, end in ((wilson, 0.93, edge), (exact, 0.95, 0.0005)):
        beside = np.concatenate([intervals[:, 0] - 1e-9, intervals[:, 1] + 1e-9])
        rates = np.concatenate([np.linspace(end, 1 - end, 999), beside])
        rates = rates[(rates >= end) & (rates <= 1 - end)]
        most = np.searchsorted(intervals[:, 0], rates, "right") - 1
        fewest = np.searchsorted(intervals[:, 1], rates, "left")
        inside = np.asarray(scipy_stats.binom.cdf(most, n, rates))
        inside -= scipy_stats.binom.cdf(fewest - 1, n, rates)
        assert inside.min() >= least


# ---------------------------------------------------------------- means and medians

SHAPES: Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], stats.Values]] = {
    "uniform": lambda rng, shape: rng.random(shape),
    "confident": lambda rng, shape: rng.beta(8, 1, shape),
    "two points": lambda rng, shape: (rng.random(shape) < 0.1).astype(float),
    "rare": lambda rng, shape: np.where(rng.random(shape) < 0.02, 1.0, 0.2),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [5, 50, 400])
def test_limits_of_a_mean_hold_whatever_the_shape(shape: str, n: int) -> None:
    rng = np.random.default_rng(3)
    mean = float(SHAPES[shape](rng, (1_000_000,)).mean())
    draws = SHAPES[shape](rng, (800, n))
    low = np.array([stats.mean_lower_limit(row, 0.9) for row in draws])
    high = np.array([stats.mean_upper_limit(row, 0.9) for row in draws])
    assert (low <= mean).mean() >= 0.9
    assert (high >= mean).mean() >= 0.9
    hoeffding = math.sqrt(math.log(10) / (2 * n))
    assert (low >= draws.mean(axis=1) - hoeffding - 1e-9).all(), "never wider than Hoeffding's"
    assert (high <= draws.mean(axis=1) + hoeffding + 1e-9).all()
    assert (low <= draws.mean(axis=1)).all()


def test_limits_of_a_mean_are_the_integral_of_the_band() -> None:
    values = np.array([0.2, 0.5, 0.9])
    band = math.sqrt(math.log(1 / 0.4) / 6)
    fine = np.linspace(0, 1, 200_001)[:-1]
    largest = np.minimum(1, np.searchsorted(np.sort(values), fine, "right") / 3 + band)
    assert stats.mean_lower_limit(values, 0.6) == pytest.approx((1 - largest).mean(), abs=1e-4)
    assert (stats.mean_lower_limit(np.array([])), stats.mean_upper_limit(np.array([]))) == (
        0.0,
        1.0,
    )


@pytest.mark.parametrize("n", [1, 4, 5, 60, 401])
def test_limits_of_a_median_are_those_of_the_sign_test(n: int) -> None:
    values = np.arange(1.0, n + 1)
    low, high = stats.median_lower_limit(values), stats.median_upper_limit(values)
    below = np.floor(low) - 1 if math.isfinite(low) else -1  # values below the limit
    assert scipy_stats.binom.cdf(below, n, 0.5) <= 0.05
    assert scipy_stats.binom.cdf(below + 1, n, 0.5) > 0.05
    assert high == (n + 1 - low if math.isfinite(low) else math.inf)
    assert math.isfinite(low) == (n >= 5)


@pytest.mark.parametrize("n", [20, 200])
def test_limits_of_a_median_hold_for_skewed_and_tied_values(n: int) -> None:
    rng = np.random.default_rng(4)
    for draws, median in (
        (rng.exponential(1.0, (2000, n)), math.log(2)),
        (rng.integers(0, 4, (2000, n)) / 1.0, 1.5),
    ):
        low = np.array([stats.median_lower_limit(row, 0.9) for row in draws])
        assert (low <= median).mean() >= 0.89


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


@pytest.mark.parametrize("pairs", [1, 24, 25, 60, 300])
def test_mcnemar_is_the_binomial_test_of_scipy(pairs: int) -> None:
    for b in range(pairs + 1):
        exact = scipy_stats.binomtest(b, pairs, 0.5).pvalue
        if pairs >= stats.MID_P_BELOW:
            assert stats.mcnemar(b, pairs - b) == pytest.approx(exact, rel=1e-9)
        else:
            assert stats.mcnemar(b, pairs - b) <= exact


# ---------------------------------------------------------------- families and sample sizes


def test_holm_levels_reject_what_holm_rejects() -> None:
    values = np.random.default_rng(1).beta(0.3, 3, size=(200, 6))
    for row in values.tolist():
        levels, adjusted = stats.holm_levels(row, 0.05), stats.holm(row)
        assert [p <= level for p, level in zip(row, levels, strict=True)] == [
            p <= 0.05 for p in adjusted
        ]
    assert stats.holm_levels([0.5], 0.05) == [0.05], "alone, nothing is corrected"
    assert stats.holm_levels([0.0, 0.5, 0.5], 0.06) == pytest.approx([0.02, 0.03, 0.03])
    assert stats.holm_levels([], 0.05) == []


@pytest.mark.parametrize("true_ones", [0, 3, 10])
def test_holm_keeps_the_error_of_the_whole_family(true_ones: int) -> None:
    """20,000 families of 10: however many claims are wrong, some wrong one is believed in 5 %."""
    rng = np.random.default_rng(2)
    p = rng.random((20_000, 10))
    p[:, true_ones:] *= 1e-3  # claims that hold, with small p-values
    ordered = np.sort(p, axis=1)
    stop = np.argmax(ordered > 0.05 / (10 - np.arange(10)), axis=1)
    none_stops = (ordered <= 0.05 / (10 - np.arange(10))).all(axis=1)
    cut = np.where(none_stops, 1.0, ordered[np.arange(len(p)), stop])
    wrong = np.asarray((p[:, :true_ones] < cut[:, None]).any(axis=1))
    for row, believed in zip(p[:200].tolist(), wrong[:200], strict=True):
        levels = stats.holm_levels(row, 0.05)
        assert any(row[at] <= levels[at] for at in range(true_ones)) == believed
    assert wrong.mean() <= 0.053


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
