"""The generator against a big-integer SplitMix64, and statistical tests."""

import hashlib
import itertools
import math

import pytest
import torch
from scipy import stats

from tlresearch.functional import random
from tlresearch.functional.random import make_key

DRAWS = 100_000
KEYS = [make_key(0, "a"), make_key(1, "a"), make_key(0, "b"), make_key(0, "a", 7), make_key(-5, "")]
UNLIKELY = 1e-4
"""Smallest p-value let pass; keys are fixed, so a test that passes once always passes."""

WORD = (1 << 64) - 1


def mix(word: int) -> int:
    """SplitMix64's finaliser on Python's integers, as published (Steele, Lea and Flood 2014)."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


def fold(key: int, counter: int) -> int:
    return mix((key + (counter + 1) * 0x9E3779B97F4A7C15) & WORD)


def reference_key(seed: int, purpose: str, *counters: int) -> int:
    digest = hashlib.sha256(purpose.encode()).digest()
    key = fold(mix(seed & WORD), int.from_bytes(digest[:8], "big"))
    for counter in counters:
        key = fold(key, counter)
    return key


def reference_bits(key: int, size: int) -> list[int]:
    return [fold(key, i) & (WORD >> 1) for i in range(size)]


def frequencies_p(values: torch.Tensor, classes: int) -> float:
    """p-value of the chi-square test that integers are equally frequent."""
    return stats.chisquare(torch.bincount(values, minlength=classes).numpy()).pvalue


def cells(u: torch.Tensor, parts: int = 10) -> torch.Tensor:
    return (u * parts).long()


def assert_independent(a: torch.Tensor, b: torch.Tensor) -> None:
    """No correlation (|z| < 4.5), and all 10 x 10 pairs of cells equally frequent."""
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 4.5 / len(a) ** 0.5
    assert frequencies_p(cells(a) * 10 + cells(b), 100) > UNLIKELY


# --- the numbers themselves -------------------------------------------------------------------


def test_finaliser_is_the_published_splitmix64():
    """The first outputs of SplitMix64 with state 1234567, which other implementations print."""
    key = torch.tensor(1234567)
    words = [int(random.fold(key, i)) & WORD for i in range(3)]
    assert words == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_golden_values_never_change():
    """Written down once; a change would silently change every seed of every table."""
    assert make_key(0, "sampler").item() == -4013763007084166469
    golden = [6014339794435984460, 6646503285358676599, 6520496390747931498]
    assert random.bits(make_key(3, "golden", 2), (3,)).tolist() == golden
    assert reference_bits(reference_key(3, "golden", 2), 3) == golden


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**63 - 1, -(2**63)])
def test_bits_equal_big_integer_arithmetic(seed):
    """Keys and words equal the unsigned definition, for negative and huge seeds and counters."""
    for counters in [(), (0,), (5, 2**62), (-1,)]:
        key = make_key(seed, "purpose", *counters)
        assert int(key) & WORD == reference_key(seed, "purpose", *counters)
        assert random.bits(key, (50,)).tolist() == reference_bits(int(key) & WORD, 50)


def test_a_seed_beyond_64_bits_is_refused():
    """No two different seeds share a stream by wrapping."""
    with pytest.raises((ValueError, OverflowError, RuntimeError)):
        make_key(2**64, "a")


def test_tensors_of_seeds_and_counters_equal_one_by_one():
    """Keys broadcast, and each equals the key made of integers."""
    seeds, steps = torch.tensor([[0], [-3], [2**62]]), torch.tensor([0, 9])
    keys = make_key(seeds, "a", steps, 4)
    assert keys.shape == (3, 2)
    for i, j in itertools.product(range(3), range(2)):
        assert keys[i, j] == make_key(int(seeds[i]), "a", int(steps[j]), 4)
        assert torch.equal(random.bits(keys, (2, 3))[i, j], random.bits(keys[i, j], (2, 3)))


def test_longer_draw_begins_with_the_shorter():
    """An index's number depends on its row-major place only."""
    for key, draw in itertools.product(KEYS, [random.bits, random.uniform, random.normal]):
        long = draw(key, (60,))
        assert torch.equal(draw(key, (17,)), long[:17])
        assert torch.equal(draw(key, (3, 5, 4)).flatten(), long)


# --- distributions ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_is_uniform(dtype):
    """Kolmogorov-Smirnov and chi-square over 100 cells, for several keys; within [0, 1)."""
    for key in KEYS:
        u = random.uniform(key, (DRAWS,), dtype)
        assert u.dtype == dtype and u.min() >= 0 and u.max() < 1
        assert stats.kstest(u.numpy(), "uniform").pvalue > UNLIKELY
        assert frequencies_p(cells(u, 100), 100) > UNLIKELY
        assert torch.equal(u, (u * 2**53).round() / 2**53)


def test_uniform_has_24_or_53_digits():
    """The lowest binary digit of each type is used, and nothing below it."""
    single = random.uniform(KEYS[0], (1000,)).double() * 2**24
    double = random.uniform(KEYS[0], (1000,), torch.float64) * 2**53
    for scaled in (single, double):
        assert torch.equal(scaled, scaled.round())
        assert 400 < (scaled % 2 == 1).sum() < 600


def test_each_of_63_bits_is_balanced():
    """Each bit is 1 in half the draws (|z| < 5), and the sign bit never."""
    for key in KEYS:
        words = random.bits(key, (DRAWS,))
        assert words.min() >= 0
        ones = torch.stack([(words >> b & 1).sum() for b in range(63)]).double()
        assert ((ones - DRAWS / 2).abs() / (DRAWS / 4) ** 0.5).max() < 5


def test_no_word_repeats():
    """The hash is a bijection of the counter: 63-bit collisions among 1e5 have chance 5e-10."""
    for key in KEYS:
        assert random.bits(key, (DRAWS,)).unique().numel() == DRAWS


PAIRS = {
    "seeds": lambda i: make_key(i, "a"),
    "purposes": lambda i: make_key(0, f"purpose {i}"),
    "steps": lambda i: make_key(0, "a", i),
    "inner counters": lambda i: make_key(0, "a", i, 3),
}


@pytest.mark.parametrize("name", PAIRS)
def test_neighbouring_streams_are_independent(name):
    """Streams 0…3: no correlation, and all 10 x 10 pairs equally likely."""
    draws = [random.uniform(PAIRS[name](i), (DRAWS,), torch.float64) for i in range(4)]
    for a, b in itertools.combinations(draws, 2):
        assert_independent(a, b)


def test_neighbouring_indices_are_independent():
    """Pairs (u_i, u_{i+lag}) fill the square evenly and do not correlate."""
    for key, lag in itertools.product(KEYS, [1, 2, 64]):
        u = random.uniform(key, (DRAWS,), torch.float64)
        assert_independent(u[:-lag], u[lag:])


def test_first_numbers_over_seeds_and_steps_are_uniform():
    """One number from each of 1e5 streams is as uniform as 1e5 numbers of one stream."""
    many = torch.arange(DRAWS)
    for keys in (make_key(many, "a"), make_key(0, "a", many), random.fold(KEYS[0], many)):
        u = random.uniform(keys, (2,))
        assert stats.kstest(u[:, 0].numpy(), "uniform").pvalue > UNLIKELY
        assert frequencies_p(cells(u[:, 0]) * 10 + cells(u[:, 1]), 100) > UNLIKELY


def test_normal_is_standard_normal():
    """Kolmogorov-Smirnov, and moments 0, 1, 0, 3 averaged over keys to 5 standard errors."""
    z = torch.stack([random.normal(key, (DRAWS,), torch.float64) for key in KEYS])
    for row in z:
        assert stats.kstest(row.numpy(), "norm").pvalue > UNLIKELY
    # Variances of z, z², z³, z⁴ are 1, 2, 15, 96.
    for power, (mean, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        assert abs(z.pow(power).mean() - mean) < 5 * (variance / z.numel()) ** 0.5
    assert random.normal(KEYS[0], (3,)).dtype == torch.float32


def test_normal_is_box_and_muller_of_the_reference():
    """√(−2 ln(1 − u)) cos 2πv, with the 53-bit u and v of the sub-keys 0 and 1."""
    key = reference_key(4, "normal")
    u, v = ([w / 2**63 for w in reference_bits(fold(key, i), 200)] for i in (0, 1))
    pairs = zip(u, v, strict=True)
    expected = [math.sqrt(-2 * math.log1p(-a)) * math.cos(2 * math.pi * b) for a, b in pairs]
    drawn = random.normal(make_key(4, "normal"), (200,), torch.float64)
    torch.testing.assert_close(
        drawn, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


def test_integers_are_uniform_below_the_bound():
    """Chi-square for several bounds; a tensor of bounds holds element by element."""
    for key, below in itertools.product(KEYS, [2, 7, 100]):
        drawn = random.integers(key, below, (DRAWS,))
        assert drawn.min() == 0 and drawn.max() == below - 1
        assert frequencies_p(drawn, below) > UNLIKELY
    bounds = torch.tensor([1, 5, 2**62])
    drawn = random.integers(KEYS[0], bounds, (1000, 3))
    assert (drawn >= 0).all() and (drawn < bounds).all() and drawn[:, 2].max() > 2**61


def test_bernoulli_has_its_probability():
    """The count of True is within 5 standard deviations of the binomial's mean."""
    for key, p in itertools.product(KEYS, [0.01, 0.3, 0.5, 0.99]):
        count = random.bernoulli(key, p, (DRAWS,)).sum().item()
        assert abs(count - DRAWS * p) < 5 * (DRAWS * p * (1 - p)) ** 0.5


def test_bernoulli_is_certain_at_0_and_1():
    """Probability 0 is never, probability 1 always."""
    assert not random.bernoulli(KEYS[0], 0.0, (1000,)).any()
    assert random.bernoulli(KEYS[0], 1.0, (1000,)).all()


def test_permutation_is_a_permutation_of_equally_likely_orders():
    """Every row holds 0 … n − 1; first elements are uniform; all 6 orders of 3 equally frequent."""
    keys = make_key(0, "order", torch.arange(30_000))
    three = random.permutation(keys, 3)
    orders = torch.tensor(list(itertools.permutations(range(3))))
    is_order = (three.unsqueeze(1) == orders).all(-1).long()
    assert (is_order.sum(1) == 1).all()
    assert frequencies_p(is_order.argmax(1), 6) > UNLIKELY
    twenty = random.permutation(keys, 20)
    assert torch.equal(twenty.sort(-1).values, torch.arange(20).expand(30_000, 20))
    assert (
        frequencies_p(twenty[:, 0], 20) > UNLIKELY and frequencies_p(twenty[:, 19], 20) > UNLIKELY
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_categorical_has_its_frequencies(dtype):
    """Chi-square over the possible classes; impossible ones, also first and last, never."""
    p = torch.tensor([0.0, 0.1, 0.0, 0.0, 0.6, 0.3, 0.0, 0.0], dtype=dtype)
    for key in KEYS:
        drawn = random.categorical(key, p.expand(DRAWS, 8))
        counts = torch.bincount(drawn, minlength=8).double()
        assert counts[p == 0].sum() == 0
        expected = (p[p > 0].double() / p.double().sum() * DRAWS).numpy()
        assert stats.chisquare(counts[p > 0].numpy(), expected).pvalue > UNLIKELY


def test_categorical_at_the_ends_of_the_unit_interval(monkeypatch):
    """u = 0 and u = 1 − 2⁻⁵³ draw possible classes, even where a float32 sum falls short of 1."""
    p = torch.tensor([[0.0, 0.7, 0.1, 0.2, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]]) * (1 - 1e-6)
    for word, classes in [(0, [1, 2]), (2**63 - 1, [3, 2])]:
        monkeypatch.setattr(random, "bits", lambda _k, s, _f, word=word: torch.full(s, word))
        assert random.categorical(KEYS[0], p).tolist() == classes


def test_long_draws_can_be_made_in_parts():
    """`first` is the place of the first number: rows from i on equal the whole draw's."""
    p = torch.full((40, 10), 0.1)
    drawn, words = random.categorical(KEYS[0], p), random.bits(KEYS[0], (40,))
    assert drawn.unique().numel() > 5
    for i in (0, 1, 17, 39):
        assert torch.equal(random.categorical(KEYS[0], p[i:], i), drawn[i:])
        assert torch.equal(random.bits(KEYS[0], (40 - i,), i), words[i:])
