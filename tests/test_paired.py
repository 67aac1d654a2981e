"""The difference of two paired rates: against brute force, and its errors by exact sums."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import binom, norm

from robustbench_lite import paired


def by_search(b: int, c: int, n: int, supposed: float) -> float:
    """The score statistic with the nuisance parameter found by maximising the likelihood."""

    def log_likelihood(only_first: float) -> float:
        parts = (
            (b, only_first),
            (c, only_first + supposed),
            (n - b - c, 1 - 2 * only_first - supposed),
        )
        return sum(count * math.log(max(chance, 1e-300)) for count, chance in parts if count)

    least, most = max(0.0, -supposed), (1 - supposed) / 2
    found = minimize_scalar(
        lambda q: -log_likelihood(q),
        bounds=(least, most),
        method="bounded",
        options={"xatol": 1e-12},
    )
    variance = n * (2 * found.x + supposed - supposed**2)
    return (c - b - n * supposed) / math.sqrt(variance)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_score_is_that_of_the_restricted_likelihood(data: st.DataObject) -> None:
    n = data.draw(st.integers(5, 400))
    b = data.draw(st.integers(1, n - 2))
    c = data.draw(st.integers(1, n - b))
    supposed = data.draw(st.integers(-80, 80)) / 100
    assert paired.score(b, c, n, supposed) == pytest.approx(by_search(b, c, n, supposed), abs=2e-4)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.data())
def test_limits_are_where_the_score_reaches_its_quantile(n: int, data: st.DataObject) -> None:
    b = data.draw(st.integers(0, n))
    c = data.draw(st.integers(0, n - b))
    low, high = paired.interval(b, c, n)
    assert -1 <= low <= paired.difference(b, c, n) <= high <= 1
    if low > -1 + 1e-6:
        assert paired.score(b, c, n, low) == pytest.approx(norm.ppf(0.975), abs=1e-3)
    assert paired.interval(c, b, n) == pytest.approx((-high, -low))
    wider = paired.interval(b, c, n, 0.99)
    assert wider[0] <= low <= high <= wider[1]


def test_of_many_samples_it_is_the_usual_interval() -> None:
    low, high = paired.interval(60, 40, 10_000)
    half = 1.959964 * math.sqrt(100 - 400 / 10_000) / 10_000
    assert (low, high) == pytest.approx((-0.002 - half, -0.002 + half), abs=1.2e-4)


def test_how_many_samples_show_a_point_where_nothing_broke() -> None:
    assert paired.lower_limit(0, 0, 268) > -0.01 >= paired.lower_limit(0, 0, 267)


def test_without_disagreement_it_is_not_empty() -> None:
    low, high = paired.interval(0, 0, 1000)
    z = norm.ppf(0.975)
    assert (low, high) == pytest.approx((-(z**2) / (1000 + z**2), z**2 / (1000 + z**2)), abs=1e-9)
    assert math.isnan(paired.difference(0, 0, 0))
    assert paired.interval(0, 0, 0) == (-1.0, 1.0)
    for b, c, n in [(3, 3, 5), (-1, 3, 5)]:
        with pytest.raises(ValueError, match="b, c >= 0"):
            paired.lower_limit(b, c, n)


# ---------------------------------------------------------------- how often it errs, exactly


def most_b(n: int, supposed: float, z: float) -> NDArray[np.int64]:
    """Per number of discordant pairs 0..n, the largest b whose score still exceeds z; -1: none."""
    found = []
    b = 0
    for pairs in range(n + 1):
        b = min(b, pairs)
        while b < pairs and paired.score(b + 1, pairs - b - 1, n, supposed) > z:
            b += 1
        while b >= 0 and not paired.score(b, pairs - b, n, supposed) > z:
            b -= 1
        found.append(b)
        b = max(b, 0)
    return np.array(found)


def errors(n: int, supposed: float, limits: NDArray[np.int64]) -> list[float]:
    """P(b <= its limit) where the true difference is `supposed`, at many rates of discordance."""
    pairs = np.arange(n + 1)
    found = []
    drop = abs(supposed)
    for discordant in np.concatenate(
        [drop * np.linspace(1, 3, 40), np.linspace(3 * drop, 0.6, 40)]
    ):
        only_first = (discordant - supposed) / (2 * discordant)
        passes = binom.cdf(limits, pairs, only_first)
        found.append(float((binom.pmf(pairs, n, discordant) * passes).sum()))
    return found


@pytest.mark.parametrize(("n", "most"), [(200, 0.056), (1000, 0.052)])
@pytest.mark.parametrize("drop", [0.005, 0.01, 0.02, 0.05])
def test_a_model_that_dropped_by_the_margin_passes_in_one_of_twenty(
    n: int, most: float, drop: float
) -> None:
    """The error of non-inferiority, summed exactly over all outcomes, at every discordance."""
    limits = most_b(n, -drop, float(norm.ppf(0.95)))
    for b, pairs in ((int(limits[at]), at) for at in (n // 40, n // 8)):
        if b >= 0:
            assert paired.lower_limit(b, pairs - b, n) > -drop
        if b < pairs:
            assert paired.lower_limit(b + 1, pairs - b - 1, n) <= -drop
    wrong = errors(n, -drop, limits)
    assert max(wrong) <= most
    assert max(wrong) >= 0.03, "it is not merely cautious"


@pytest.mark.parametrize("n", [200, 1000])
def test_it_fails_what_only_reached_the_margin_in_few_of_twenty(n: int) -> None:
    for drop in (0.01, 0.05):
        kept = most_b(n, -drop, float(norm.ppf(0.05)))  # beyond them the upper limit is below -drop
        assert max(1 - chance for chance in errors(n, -drop, kept)) <= 0.075


@pytest.mark.parametrize("n", [30, 100])
def test_the_interval_covers_at_small_n_where_walds_does_not(n: int) -> None:
    rng = np.random.default_rng(5)
    score, wald = [], []
    for first, second in ((0.02, 0.01), (0.03, 0.03), (0.1, 0.05), (0.3, 0.2)):
        drawn = rng.multinomial(n, (first, second, 1 - first - second), 4000)
        values, counts = np.unique(drawn[:, :2], axis=0, return_counts=True)
        covered = covered_by_wald = 0
        for (b, c), count in zip(values.tolist(), counts.tolist(), strict=True):
            low, high = paired.interval(b, c, n)
            covered += count * (low <= second - first <= high)
            half = 1.96 * math.sqrt(b + c - (b - c) ** 2 / n) / n
            covered_by_wald += count * (abs((c - b) / n - (second - first)) <= half)
        score.append(covered / 4000)
        wald.append(covered_by_wald / 4000)
    assert min(score) >= 0.93
    assert min(wald) < 0.9


def test_samples_to_decide_do_decide() -> None:
    assert paired.samples_to_decide(5, 5, 100, 0.0) is None, "no number tells a value from itself"
    assert paired.samples_to_decide(0, 0, 0, -0.01) is None
    assert paired.samples_to_decide(0, 0, 100, -1e-12) is None


@pytest.mark.parametrize(
    ("b", "c", "bound"),
    [
        (50, 50, -0.02),
        (10, 10, -0.05),
        (5, 5, -0.05),
        (100, 20, -0.02),
        (20, 50, -0.01),
        (9, 1, 0.0),
    ],
)
def test_that_many_samples_decide_in_four_of_five_runs(b: int, c: int, bound: float) -> None:
    """Of 1,000 samples; passed where the difference lies above the bound, failed below it."""
    n = paired.samples_to_decide(b, c, 1000, bound)
    assert n is not None
    drawn = np.random.default_rng(6).multinomial(n, (b / 1000, c / 1000, 1 - (b + c) / 1000), 1000)
    if c - b > 1000 * bound:
        decided = [paired.lower_limit(int(x), int(y), n) > bound for x, y, _ in drawn]
    else:
        decided = [paired.upper_limit(int(x), int(y), n) < bound for x, y, _ in drawn]
    assert np.mean(decided) == pytest.approx(0.8, abs=0.08)  # few pairs come in steps


def test_the_sample_sizes_of_the_documentation() -> None:
    page = Path(__file__).parents[1] / "docs" / "gate-a-release.md"
    rows = re.findall(r"^\| (\d+) % \| (.+) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert [share for share, _ in rows] == ["1", "5", "10"]
    for share, cells in rows:
        each = int(share) * 5_000  # of a million, broken and fixed alike
        found = [paired.samples_to_decide(each, each, 10**6, -d) for d in (0.005, 0.01, 0.02, 0.05)]
        assert cells.split(" | ") == [f"{n:,}" for n in found]
