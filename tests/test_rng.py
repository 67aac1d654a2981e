"""Random numbers of a sample: their distribution, and that nothing but the sample decides them.

Seeds are fixed, so every p-value below is a constant: a test that passes once passes always.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from torch import Tensor

from robustbench_lite.rng import SampleRng, sample_keys

LIKELY = 1e-3  # p-values of good numbers are below this once in a thousand tests

DRAWS: dict[str, Callable[[SampleRng], Tensor]] = {
    "uniform": lambda rng: rng.uniform((3, 5)),
    "range": lambda rng: rng.uniform((3, 5), -0.3, 0.3),
    "normal": lambda rng: rng.normal((3, 5)),
    "sign": lambda rng: rng.sign((3, 5)),
    "integers": lambda rng: rng.integers(0, 1000, (3, 5)),
    "permutation": lambda rng: rng.permutation(15),
}
EXACT = [name for name in DRAWS if name != "normal"]


def keys(n: int, device: torch.device | str = "cpu") -> Tensor:
    return sample_keys([f"test/{i:05d}" for i in range(n)], device)


def stream(n: int, seed: int = 0, name: str = "noise") -> SampleRng:
    return SampleRng(seed, name, keys(n))


# ---------------------------------------------------------------- what decides a number


def test_a_key_is_the_start_of_the_hash_of_the_id() -> None:
    digest = hashlib.sha256(b"test/00003").digest()
    assert int(keys(5)[3]) == int.from_bytes(digest[:8], "little", signed=True)
    assert keys(0).shape == (0,)
    assert len(set(keys(1000).tolist())) == 1000


@pytest.mark.parametrize("kind", DRAWS)
def test_the_batch_does_not_decide(kind: str) -> None:
    whole = DRAWS[kind](stream(23))
    for size in (1, 7, 22):
        parts = [DRAWS[kind](SampleRng(0, "noise", part)) for part in torch.split(keys(23), size)]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0))
    assert torch.equal(DRAWS[kind](SampleRng(0, "noise", keys(23)[order])), whole[order])


@pytest.mark.parametrize("kind", DRAWS)
def test_everything_else_does(kind: str) -> None:
    draw = DRAWS[kind]
    rng = stream(4)
    others = [draw(rng), draw(rng), draw(stream(4, seed=1)), draw(stream(4, name="nois"))]
    others += [draw(rng.fork("a")), draw(rng.fork("b")), draw(rng.fork("a").fork("a"))]
    others += [draw(SampleRng(0, "noise", keys(5)[1:]))]
    for one, other in itertools.combinations(others, 2):
        assert not torch.equal(one, other)
    assert not any(torch.equal(*pair) for pair in itertools.combinations(others[0], 2))
    assert torch.equal(draw(stream(4)), others[0])


def test_names_cannot_run_together() -> None:
    parts = [("a", "b"), ("a/b",), ("a,b",), ('a", "b',), ("a", "", "b")]
    drawn = set()
    for first, *rest in parts:
        rng = stream(1, name=first)
        for name in rest:
            rng = rng.fork(name)
        drawn.add(float(rng.uniform(())))
    assert len(drawn) == len(parts)
    assert float(stream(1, seed=12, name="3").uniform(())) != float(
        stream(1, seed=1, name="23").uniform(())
    )


def test_the_shape_does_not_decide_the_first_numbers() -> None:
    for kind in ("uniform", "sign", "normal"):
        short = getattr(stream(3), kind)((7,))
        long = getattr(stream(3), kind)((5, 20))
        assert torch.equal(short, long.flatten(1)[:, :7])


def test_rows_keep_their_streams_and_share_the_counter() -> None:
    rng, reference = stream(6), stream(6)
    index = torch.tensor([4, 1, 1])
    view = rng.rows(index)
    assert torch.equal(view.uniform((3,)), reference.uniform((3,))[index])
    assert (rng.draw, view.draw) == (1, 1)
    assert torch.equal(rng.normal((3,)), reference.normal((3,)))
    assert torch.equal(view.rows(torch.tensor([0])).sign((3,)), reference.sign((3,))[[4]])
    assert (rng.draw, view.draw) == (3, 3)
    mask = torch.tensor([True, False, False, True, False, False])
    assert torch.equal(rng.rows(mask).uniform((2,)), reference.uniform((2,))[mask])


def test_a_fork_counts_for_itself_and_one_name_is_one_stream() -> None:
    rng = stream(3)
    rng.uniform((2,))
    fork = rng.fork("restart-1")
    assert (rng.draw, fork.draw) == (1, 0)
    first = fork.uniform((2,))
    assert (rng.draw, fork.draw) == (1, 1)
    assert torch.equal(stream(3).fork("restart-1").uniform((2,)), first)
    index = torch.tensor([2, 0])
    assert torch.equal(rng.rows(index).fork("restart-1").uniform((2,)), first[index])


def test_every_call_takes_one_draw_number() -> None:
    rng = stream(2)
    for taken, draw in enumerate(DRAWS.values()):
        assert rng.draw == taken
        draw(rng)
    with pytest.raises(ValueError, match="integers"):
        rng.integers(3, 3, ())
    assert rng.draw == len(DRAWS)


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = [draw(stream(3)) for draw in DRAWS.values()]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    second = [draw(stream(3)) for draw in DRAWS.values()]
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", DRAWS)
def test_the_device_does_not_decide(kind: str, device: torch.device) -> None:
    here = DRAWS[kind](stream(50))
    rng = SampleRng(0, "noise", keys(50, device))
    there = DRAWS[kind](rng)
    assert rng.device.type == there.device.type == device.type
    assert there.dtype == here.dtype
    if kind in EXACT:
        assert torch.equal(there.cpu(), here)
    else:
        assert torch.allclose(there.cpu(), here, rtol=0, atol=1e-6)


def plain_word(seed: int, name: str, draw: int, key: int, place: int) -> int:
    """One 64-bit word as Python's unbounded integers compute it: no wrapping, no signs."""
    digest = hashlib.sha256(f'[{seed}, "{name}", {draw}]'.encode()).digest()

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    golden = 0x9E3779B97F4A7C15
    start, jump = (
        mix((mix(key % 2**64 ^ int.from_bytes(digest[at : at + 8], "little")) + golden) % 2**64)
        for at in (0, 8)
    )
    return mix((mix((place * golden + start) % 2**64) + jump) % 2**64)


def test_words_equal_plain_integer_arithmetic(device: torch.device) -> None:
    rng = SampleRng(3, "noise", keys(6, device))
    rng.uniform(())
    words = rng._words(40).tolist()
    for row, key in zip(words, keys(6).tolist(), strict=True):
        assert [word % 2**64 for word in row] == [
            plain_word(3, "noise", 1, key, place) for place in range(40)
        ]


def test_the_numbers_never_change() -> None:
    """Golden values: a change here changes every result that was ever stored."""
    rng = SampleRng(7, "golden", sample_keys(["a", "b"]))
    assert (rng.uniform((3,)) * 2**24).tolist() == UNIFORM
    assert rng.normal((2,)).tolist() == [pytest.approx(row, abs=1e-6) for row in NORMAL]
    assert rng.sign((8,)).tolist() == SIGN
    assert rng.integers(-5, 10**6, (3,)).tolist() == INTEGERS
    assert rng.permutation(6).tolist() == PERMUTATION
    assert rng.fork("x").integers(0, 2**31, ()).tolist() == FORKED


UNIFORM = [[4988109.0, 5443087.0, 9279428.0], [14695961.0, 6283986.0, 5363740.0]]
NORMAL = [[0.9701065, -0.3613064], [0.8066556, 1.1431342]]
SIGN = [
    [1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 1.0],
    [-1.0, -1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0],
]
INTEGERS = [[745523, 17973, 451448], [14092, 265846, 920321]]
PERMUTATION = [[4, 0, 3, 1, 5, 2], [4, 3, 0, 1, 2, 5]]
FORKED = [1714400617, 1765976337]


# ---------------------------------------------------------------- shapes and ranges


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 3, 3), (2, 0)])
def test_shapes_and_dtypes(shape: tuple[int, ...]) -> None:
    rng = stream(3)
    for drawn in (rng.uniform(shape), rng.normal(shape), rng.sign(shape)):
        assert drawn.shape == (3, *shape)
        assert drawn.dtype == torch.float32
    assert rng.integers(0, 5, shape).shape == (3, *shape)
    assert rng.integers(0, 5, shape).dtype == rng.permutation(4).dtype == torch.int64
    assert stream(0).uniform(shape).shape == (0, *shape)
    assert stream(0).permutation(4).shape == (0, 4)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-0.1, 0.1), (0.0, 8 / 255), (100, 101), (-3, 5)]
)
def test_uniform_is_half_open(low: float, high: float) -> None:
    drawn = stream(100).uniform((20_000,), low, high)
    assert float(drawn.min()) >= np.float32(low)
    assert float(drawn.max()) < high
    assert float(drawn.min()) < low + 1e-5 * (high - low) + 1e-5
    assert float(drawn.max()) > high - 1e-5 * (high - low) - 1e-5


def test_uniform_lies_on_its_grid() -> None:
    drawn = stream(10).uniform((1000,)).double() * 2**24
    assert torch.equal(drawn, drawn.round())
    assert bool((drawn % 2 == 1).any())


def test_integers_reach_both_ends_and_no_further() -> None:
    drawn = stream(50).integers(-2, 3, (100,))
    assert sorted(set(drawn.flatten().tolist())) == [-2, -1, 0, 1, 2]
    assert set(stream(50).integers(4, 5, (10,)).flatten().tolist()) == {4}
    wide = stream(50).integers(-(2**31), 0, (1000,))
    assert int(wide.min()) < -(2**31) * 0.999
    assert -(2**31) * 0.001 < int(wide.max()) < 0


def test_integers_are_the_exact_multiply_shift() -> None:
    """floor(word * span / 2^64) for an unsigned 64-bit word, as Python's integers compute it."""
    words = stream(20)._words(50)
    for span in (1, 2, 3, 10, 1000, 2**24 + 1, 2**31):
        expected = [[(word % 2**64) * span >> 64 for word in row] for row in words.tolist()]
        assert stream(20).integers(0, span, (50,)).tolist() == expected


@pytest.mark.parametrize(("low", "high"), [(0, 0), (5, 4), (0, 2**31 + 1)])
def test_a_range_that_cannot_be_is_refused(low: int, high: int) -> None:
    with pytest.raises(ValueError, match=rf"integers\({low}, {high}\)"):
        stream(1).integers(low, high, ())


def test_permutations_are_permutations() -> None:
    drawn = stream(200).permutation(17)
    assert torch.equal(drawn.sort(dim=1).values, torch.arange(17).expand(200, 17))
    assert stream(2).permutation(1).tolist() == [[0], [0]]


# ---------------------------------------------------------------- distribution


def normal_cdf(values: Tensor) -> Tensor:
    chances: Tensor = torch.special.ndtr(values.double())
    return chances


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "all": torch.flatten,
    "one row": lambda u: u[3],
    "one column": lambda u: u[:, 5],
    "first column": lambda u: u[:, 0],
    "even columns": lambda u: u[:, ::2].flatten(),
    "tail": lambda u: (u[u < 0.01] * 100).flatten(),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize("seed", [0, 1])
def test_kolmogorov_smirnov(kind: str, view: str, seed: int) -> None:
    rng = stream(1000, seed=seed)
    drawn = rng.uniform((500,)) if kind == "uniform" else normal_cdf(rng.normal((500,)))
    sample = VIEWS[view](drawn.double()).numpy()
    assert scipy_stats.kstest(sample, "uniform").pvalue > LIKELY


def test_consecutive_and_counted_keys_are_as_good_as_hashes() -> None:
    rng = SampleRng(0, "noise", torch.arange(20_000))
    for _ in range(3):
        drawn = rng.uniform((10,)).double()
        for column in (0, 1, 9):
            assert scipy_stats.kstest(drawn[:, column].numpy(), "uniform").pvalue > LIKELY
        _assert_uncorrelated(drawn[:-1].flatten(), drawn[1:].flatten())


def test_normal_moments_and_tails() -> None:
    drawn = stream(1000).normal((1000,)).double()
    assert float(drawn.mean()) == pytest.approx(0, abs=4e-3)
    assert float(drawn.var()) == pytest.approx(1, abs=6e-3)
    assert float((drawn**3).mean()) == pytest.approx(0, abs=4 * math.sqrt(15) / 1000)
    assert float((drawn**4).mean()) == pytest.approx(3, abs=4 * math.sqrt(96) / 1000)
    beyond, expected = int((drawn.abs() > 4).sum()), 2e6 * float(scipy_stats.norm.sf(4))
    assert abs(beyond - expected) <= 4 * math.sqrt(expected)
    assert bool(drawn.isfinite().all())


@pytest.mark.parametrize("word", [0, -1, 2**32 - 1, -(2**32), 2**63 - 1, -(2**63)])
def test_extreme_words_stay_in_range(word: int) -> None:
    class Extreme(SampleRng):
        def _words(self, count: int) -> Tensor:
            return torch.full((1, count), word)

    rng = Extreme(0, "noise", keys(1))
    assert bool((rng.normal((4,)).abs() < 6.8).all())
    assert bool((rng.uniform((4,), -0.1, 0.1) < 0.1).all())
    assert bool((rng.uniform((4,)) < 1).all())
    assert set(rng.sign((4,)).tolist()[0]) <= {-1.0, 1.0}
    drawn = rng.integers(-3, 2**31 - 3, (4,))
    assert bool(((drawn >= -3) & (drawn < 2**31 - 3)).all())


@pytest.mark.parametrize("span", [2, 3, 10, 97])
def test_integers_are_even(span: int) -> None:
    counts = torch.bincount(stream(500).integers(0, span, (200,)).flatten(), minlength=span)
    assert scipy_stats.chisquare(counts.numpy()).pvalue > LIKELY


def test_signs_are_even_in_every_place() -> None:
    drawn = stream(4000).sign((33,))
    assert set(drawn.flatten().tolist()) == {-1.0, 1.0}
    z = drawn.double().sum(dim=0) / math.sqrt(4000)
    assert scipy_stats.chi2.sf(float(z.square().sum()), 33) > LIKELY


def test_every_number_is_as_likely_in_every_place_of_a_permutation() -> None:
    n, k = 6000, 8
    drawn = stream(n).permutation(k)
    table = torch.stack([(drawn == value).sum(dim=0) for value in range(k)]).double()
    statistic = float(((table - n / k) ** 2 / (n / k)).sum()) * (k - 1) / k
    assert scipy_stats.chi2.sf(statistic, (k - 1) ** 2) > LIKELY


def test_every_order_is_as_likely() -> None:
    drawn = stream(12_000).permutation(4)
    codes = (drawn * torch.tensor([64, 16, 4, 1])).sum(dim=1)
    counts = torch.bincount(codes, minlength=256)
    counts = counts[counts > 0]
    assert len(counts) == 24
    assert scipy_stats.chisquare(counts.numpy()).pvalue > LIKELY


# ---------------------------------------------------------------- independence


def _assert_uncorrelated(one: Tensor, other: Tensor) -> None:
    for a, b in itertools.product((one, (one - 0.5).abs()), (other, (other - 0.5).abs())):
        assert scipy_stats.pearsonr(a.numpy(), b.numpy()).pvalue > LIKELY / 10


def test_rows_draws_streams_and_neighbours_are_uncorrelated() -> None:
    rng = stream(1000)
    one, two = rng.uniform((200,)).double(), rng.uniform((200,)).double()
    seed = stream(1000, seed=1).uniform((200,)).double()
    fork = stream(1000).fork("a").uniform((200,)).double()
    _assert_uncorrelated(one[:-1].flatten(), one[1:].flatten())
    _assert_uncorrelated(one[:, :-1].flatten(), one[:, 1:].flatten())
    _assert_uncorrelated(one[:, ::2].flatten(), one[:, 1::2].flatten())
    for other in (two, seed, fork):
        _assert_uncorrelated(one.flatten(), other.flatten())


def test_serial_correlation_at_many_lags() -> None:
    """Autocorrelations of one long row, summed as the test of Ljung and Box does."""
    row = stream(2).uniform((100_000,)).double()[1] - 0.5
    spectrum = torch.fft.rfft(row, n=2 * len(row)).abs().square()
    correlation = torch.fft.irfft(spectrum)[:1001] / float(row.square().sum())
    weights = len(row) * (len(row) + 2) / (len(row) - torch.arange(1, 1001))
    statistic = float((correlation[1:].square() * weights).sum())
    assert LIKELY < scipy_stats.chi2.sf(statistic, 1000) < 1 - LIKELY


def test_all_pairs_of_rows_and_of_columns_are_uncorrelated() -> None:
    drawn = stream(300).normal((300,)).double()
    for matrix in (drawn, drawn.T):
        between = torch.corrcoef(matrix)[torch.triu_indices(300, 300, 1).unbind()]
        z = torch.atanh(between) * math.sqrt(300 - 3)
        assert float(z.abs().max()) < 5.5
        assert float(z.square().mean()) == pytest.approx(1, abs=4 * math.sqrt(2 / len(z)) + 0.01)


def test_the_two_numbers_of_a_pair_are_independent() -> None:
    drawn = stream(1000).normal((200,)).double()
    cosine, sine = drawn[:, ::2].flatten(), drawn[:, 1::2].flatten()
    _assert_uncorrelated(normal_cdf(cosine), normal_cdf(sine))
    angle = torch.atan2(sine, cosine) / (2 * math.pi) + 0.5
    assert scipy_stats.kstest(angle.numpy(), "uniform").pvalue > LIKELY
    radius = torch.exp(-(cosine**2 + sine**2) / 2)
    assert scipy_stats.kstest(radius.numpy(), "uniform").pvalue > LIKELY


def _bits(words: Tensor) -> Tensor:
    return (words[..., None] >> torch.arange(64)) & 1


def test_one_bit_of_a_key_turns_half_the_bits_of_every_word() -> None:
    base = torch.full((64,), 12345, dtype=torch.int64)
    flipped = base ^ (1 << torch.arange(64, dtype=torch.int64))
    one, other = (SampleRng(0, "noise", k)._words(100) for k in (base, flipped))
    turned = _bits(one ^ other).double().mean(dim=1)  # [key bit, word bit], 100 words each
    z = (turned - 0.5) * 2 * math.sqrt(100)
    assert float(z.abs().max()) < 5.5
    assert float(z.square().mean()) == pytest.approx(1, abs=4 * math.sqrt(2 / z.numel()))


def test_every_bit_of_a_word_is_even_and_independent_of_the_others() -> None:
    bits = _bits(stream(200)._words(100)).reshape(-1, 64).double() * 2 - 1
    correlation = bits.T @ bits / math.sqrt(len(bits))
    off_diagonal = correlation[torch.triu_indices(64, 64, 1).unbind()]
    assert float(off_diagonal.abs().max()) < 5.0
    assert float((bits.sum(dim=0) / math.sqrt(len(bits))).abs().max()) < 4.5


def test_no_two_words_are_equal() -> None:
    words = stream(1000)._words(1000)
    assert len(set(words.flatten().tolist())) == 1_000_000
