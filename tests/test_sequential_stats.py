"""Anytime-valid limits: exact error rates under continuous looking, by sums over all paths."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate

from robustbench_lite import sequential, stats
from tests.finished_run import rule, table

N = 600
CASES = [(0.1, 0.95), (0.5, 0.9), (0.85, 0.95), (0.95, 0.95), (0.9, 0.99)]


def boundary(clears: Callable[[int, int], bool]) -> NDArray[np.int64]:
    """For each n up to N, the least count that clears (n + 1 if none does)."""
    found = [1]
    for n in range(1, N + 1):
        count = max(found[-1] - 1, 0)
        while count <= n and not clears(count, n):
            count += 1
        found.append(count)
    return np.array(found)


@cache
def needed(threshold: float, confidence: float) -> NDArray[np.int64]:
    """For each n the least count whose anytime-valid lower limit clears the threshold."""
    enough = -math.log(1 - confidence)
    return boundary(lambda count, n: stats.log_evidence(count, n, threshold) >= enough)


def crossing(bound: NDArray[np.int64], p: float) -> NDArray[np.float64]:
    """Chance that a count of samples with rate p reaches `bound` at n, and not before: exact."""
    alive = np.zeros(N + 2)
    alive[0] = 1.0
    first = np.zeros(N + 1)
    for n in range(1, N + 1):
        alive[1:] = alive[1:] * (1 - p) + alive[:-1] * p
        alive[0] *= 1 - p
        first[n] = alive[bound[n] :].sum()
        alive[bound[n] :] = 0
    return first


@pytest.mark.parametrize(("threshold", "confidence"), CASES)
def test_looking_after_every_sample_errs_no_more_often_than_allowed(
    threshold: float, confidence: float
) -> None:
    bound = needed(threshold, confidence)
    at_threshold = crossing(bound, threshold).sum()
    assert at_threshold <= 1 - confidence
    assert at_threshold > 0.2 * (1 - confidence)  # and it is no empty promise
    assert crossing(bound, threshold - 0.05).sum() < at_threshold


def test_an_exact_limit_read_again_and_again_errs_far_more_often() -> None:
    bound = boundary(lambda count, n: stats.lower_limit(count, n) >= 0.5)
    assert crossing(bound, 0.5).sum() > 0.2


@pytest.mark.parametrize(
    ("p", "threshold", "samples"), [(0.99, 0.8, 22.4), (0.95, 0.85, 70.0), (0.9, 0.8, 95.5)]
)
def test_clear_cases_are_decided_by_few_samples(p: float, threshold: float, samples: float) -> None:
    first = crossing(needed(threshold, 0.95), p)
    assert first.sum() > 0.99
    mean = (first * np.arange(N + 1)).sum() / first.sum()
    assert mean == pytest.approx(samples, abs=0.1)
    assert mean < N / 3


@settings(deadline=None)
@given(n=st.integers(1, 2000), share=st.floats(0, 1), confidence=st.floats(0.7, 0.999))
def test_limits_are_where_the_evidence_suffices(n: int, share: float, confidence: float) -> None:
    count = round(share * n)
    low, high = stats.anytime_limits(count, n, confidence)
    assert 0 <= low <= count / n <= high <= 1
    enough = -math.log(1 - confidence)
    if low > 1e-9:
        assert stats.log_evidence(count, n, low) >= enough
        assert stats.log_evidence(count, n, min(low * (1 + 1e-6), count / n)) < enough
    # they are wider than limits for one look
    exact = stats.lower_limit(count, n, confidence), stats.upper_limit(count, n, confidence)
    assert low <= exact[0] + 1e-12
    assert high >= exact[1] - 1e-12


def test_failures_are_successes_of_the_other_side() -> None:
    for count, n in ((0, 10), (3, 10), (10, 10), (940, 1000)):
        low, high = stats.anytime_limits(count, n)
        mirrored = stats.anytime_limits(n - count, n)
        assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-12)
    assert stats.anytime_limits(0, 0) == (0.0, 1.0)
    assert stats.anytime_limits(0, 50)[0] == 0
    assert stats.anytime_limits(50, 50)[1] == 1


@pytest.mark.parametrize(("count", "n", "t"), [(8, 10, 0.5), (45, 50, 0.8), (3, 30, 0.2)])
def test_the_evidence_is_the_integral_that_it_says(count: int, n: int, t: float) -> None:
    def likelihood(q: float) -> float:
        return float(q**count * (1 - q) ** (n - count))

    mixed = integrate.quad(likelihood, t, 1)[0] / (1 - t)
    assert math.exp(stats.log_evidence(count, n, t)) == pytest.approx(mixed / likelihood(t))


def test_the_number_that_would_decide_does() -> None:
    n = stats.samples_to_decide(0.9, 0.85, anytime=True)
    assert n is not None
    assert stats.anytime_limits(round(0.9 * n), n)[0] >= 0.85
    assert stats.anytime_limits(round(0.9 * (n // 2)), n // 2)[0] < 0.85
    assert n > (stats.samples_to_decide(0.9, 0.85, power=0.5) or 0)
    assert stats.samples_to_decide(0.85, 0.85, anytime=True) is None


# ---------------------------------------------------------------- a gate on a stream of samples


def ends(p: float, seed: int, n: int = 1000) -> tuple[str, int]:
    """Where a gate of at least 85 % ends on samples that are robust with chance p."""
    gate = rule(minimum=0.85, sequential=True)
    broken = np.random.default_rng(seed).random(n) >= p
    for at in (*sequential.looks(n), n):
        samples = table(np.ones(at, dtype=bool), broken[:at])
        if sequential.decided(gate, samples):
            return ("PASS" if (~broken[:at]).mean() > 0.85 else "FAIL"), at
    return "INCONCLUSIVE", n


def test_answers_and_samples_of_a_sequential_gate() -> None:
    """150 runs each: at the threshold both errors are rare, away from it the gate is quick."""
    answers = {p: [ends(p, seed) for seed in range(150)] for p in (0.85, 0.96, 0.6)}
    at_threshold = [answer for answer, _ in answers[0.85]]
    assert at_threshold.count("PASS") <= 0.05 * 150
    assert at_threshold.count("FAIL") <= 0.05 * 150
    assert [answer for answer, _ in answers[0.96]].count("PASS") >= 0.99 * 150
    assert np.mean([n for _, n in answers[0.96]]) < 120
    assert [answer for answer, _ in answers[0.6]].count("FAIL") >= 0.99 * 150
    assert np.mean([n for _, n in answers[0.6]]) < 50


def test_each_metric_counts_what_the_summary_counts() -> None:
    samples = table([True, True, False, True], [True, False, False, False])
    counts = {name: count(samples).tolist() for name, count in sequential.COUNTED.items()}
    assert counts == {
        "robust_accuracy": [False, True, False, True],
        "attack_success_rate": [True, False, False],
        "adversarial_error": [True, False, True, False],
    }


def test_a_gate_of_two_bounds_needs_both() -> None:
    both = rule(minimum=0.5, maximum=0.97, sequential=True)
    near = table(np.ones(100, dtype=bool), np.arange(100) < 1)
    assert sequential.decided(rule(minimum=0.5, sequential=True), near)
    assert not sequential.decided(both, near)
    assert not sequential.decided(rule("asr", "attack_success_rate", maximum=0.5), table([], []))


def test_the_order_is_of_seed_and_id_alone() -> None:
    ids = [f"sample-{i}" for i in range(100)]
    order = sequential.order(ids, 3)
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() != sorted(order.tolist())
    assert order.tolist() != sequential.order(ids, 4).tolist()
    some = [name for i, name in enumerate(ids) if i % 3]
    drawn = [ids[i] for i in order if i % 3]
    assert [some[i] for i in sequential.order(some, 3)] == drawn


def test_looks_come_at_fixed_numbers() -> None:
    assert list(sequential.looks(32)) == []
    few, many = list(sequential.looks(100)), list(sequential.looks(10_000))
    assert many[: len(few)] == few == [32, 40, 50, 63, 79, 99]
    assert len(many) < 30
