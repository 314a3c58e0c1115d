"""Random numbers from keys: Threefry's published answers, the same bits however compiled, and
moments in their bounds.

Every draw is a fixed function of its key, so a bound that holds once holds always; bounds are five
standard errors.
"""

import statistics
import zlib

import numpy as np
import pytest
import tensorflow as tf

from sparring.xla import random

N = 2**16
KEY = random.stream(7, "test")


def word(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint32)


def number(seed_key: tuple[int, int]) -> tf.Tensor:
    return tf.constant(seed_key, tf.uint32)


# ---- the generator -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "counter", "expected"),  # Random123's known answers for threefry2x32 with 20 rounds
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        (
            (0x13198A2E, 0x03707344),
            (0x243F6A88, 0x85A308D3),
            (0xC4923A9C, 0x483DF7A0),
        ),  # digits of pi
    ],
)
def test_threefry_gives_the_published_answers(key, counter, expected):
    x0, x1 = random.threefry(number(key), word(counter[0]), word(counter[1]))
    assert (int(x0), int(x1)) == expected


def test_words_are_the_generators_outputs_for_counters_from_zero():
    # five words need three counters: the first outputs of counters 0, 1, 2, then the second outputs
    # of 0 and 1
    pairs = [random.threefry(KEY, word(c), word(0)) for c in range(3)]
    expected = [
        int(pairs[0][0]),
        int(pairs[1][0]),
        int(pairs[2][0]),
        int(pairs[0][1]),
        int(pairs[1][1]),
    ]
    assert random.bits(KEY, 5).numpy().tolist() == expected


def test_eager_graph_and_xla_give_the_same_bits():
    def draw(key, step):
        keys = random.members(random.fold(key, step), 5)
        return (
            random.bits(keys, 7),
            random.uniform(keys, 7),
            random.integers(keys, 7, 10),
            random.permutation(key, 100),
        )

    step = tf.constant(2**33 + 5, tf.int64)
    eager = draw(KEY, step)
    for jit in (False, True):
        compiled = tf.function(draw, jit_compile=jit, autograph=False)(KEY, step)
        for a, b in zip(eager, compiled, strict=True):
            np.testing.assert_array_equal(a, b)


# ---- keys ----------------------------------------------------------------------------------------


def test_a_seed_repeats_and_two_seeds_or_two_streams_differ():
    first = random.bits(random.stream(1, "policy"), N).numpy()
    np.testing.assert_array_equal(first, random.bits(random.stream(1, "policy"), N))
    for other in (random.stream(2, "policy"), random.stream(1, "replay")):
        # equal words among N by chance: N / 2**32, less than one in ten thousand
        assert not np.any(first == random.bits(other, N).numpy())


def test_a_seed_may_be_a_tensor_and_as_large_as_a_word():
    for seed in (0, 5, 2**32 - 1):
        given = random.stream(seed, "policy")
        np.testing.assert_array_equal(given, random.stream(tf.constant(seed, tf.int64), "policy"))
        np.testing.assert_array_equal(
            given, random.fold(number((seed, 0)), word(zlib.crc32(b"policy")))
        )


def test_counters_count_beyond_32_bits():
    numbers = [0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33, 2**62, -1]
    keys = {tuple(random.fold(KEY, tf.constant(n, tf.int64)).numpy().tolist()) for n in numbers}
    assert len(keys) == len(numbers)
    # a plain int, an int32, an int64 and a uint32 are the same number
    same = [5, tf.constant(5), tf.constant(5, tf.int64), word(5)]
    assert len({tuple(random.fold(KEY, n).numpy().tolist()) for n in same}) == 1
    # the words of 2**32 + 3 are low 3, high 1
    expected = tf.stack(random.threefry(KEY, word(3), word(1)))
    np.testing.assert_array_equal(random.fold(KEY, 2**32 + 3), expected)


def test_folding_one_number_into_many_keys_is_folding_it_into_each():
    keys = random.members(KEY, 4)
    together = random.fold(keys, tf.constant(9, tf.int64))
    np.testing.assert_array_equal(together, [random.fold(key, 9) for key in keys])


@pytest.mark.parametrize("count", [1, 3, 8])
def test_members_of_a_batch_draw_as_they_would_alone(count):
    keys = random.members(KEY, count)
    for i in range(count):
        alone = random.members(KEY, 1, first=i)
        np.testing.assert_array_equal(keys[i], alone[0])
        np.testing.assert_array_equal(random.bits(keys, 6)[i], random.bits(alone, 6)[0])
        np.testing.assert_array_equal(random.uniform(keys, 6)[i], random.uniform(alone, 6)[0])
        np.testing.assert_allclose(random.normal(keys, 6)[i], random.normal(alone, 6)[0], rtol=1e-6)
    shifted = random.members(KEY, count, first=tf.constant(2, tf.int64))
    np.testing.assert_array_equal(shifted, random.members(KEY, count + 2)[2:])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (random.stream(0, "a"), random.stream(1, "a")),
        (random.stream(0, "a"), random.stream(0, "b")),
        (random.fold(KEY, 0), random.fold(KEY, 1)),
        (random.fold(KEY, 0), random.fold(random.fold(KEY, 0), 0)),
    ],
)
def test_neighbouring_keys_draw_independent_numbers(one, other):
    a = random.normal(one, N).numpy()
    b = random.normal(other, N).numpy()
    # the correlation of N independent pairs has standard error 1 / sqrt(N) = 0.0039
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 * N**-0.5
    # ... and so have one key's numbers with each other: the first outputs with the second, and
    # neighbours
    assert abs(np.corrcoef(a[: N // 2], a[N // 2 :])[0, 1]) < 5 * (N // 2) ** -0.5
    assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 5 * N**-0.5


# ---- numbers -------------------------------------------------------------------------------------


def assert_moments(x: np.ndarray, mean: float, variance: float, kurtosis: float) -> None:
    """Mean and variance of N draws within five standard errors: s / sqrt(N) and s**2 * sqrt((k - 1)
    / N).
    """
    assert abs(x.mean(dtype=np.float64) - mean) < 5 * (variance / len(x)) ** 0.5
    assert abs(x.var(dtype=np.float64) - variance) < 5 * variance * ((kurtosis - 1) / len(x)) ** 0.5


def test_uniform_numbers():
    x = random.uniform(KEY, N).numpy()
    assert x.dtype == np.float32
    assert x.min() >= 0.0
    assert x.max() < 1.0
    assert_moments(x, 1 / 2, 1 / 12, 1.8)
    multiples = x.astype(np.float64) * 2**24
    np.testing.assert_array_equal(multiples, np.floor(multiples))
    assert abs((multiples % 2).mean() - 0.5) < 5 * 0.5 * N**-0.5  # the 24th bit is used


def test_uniform_numbers_stay_in_range_for_the_most_extreme_words():
    # keys found by search: their first word is 0, and 0xFFFFFF41, whose top 24 bits are all ones
    low = number((4166419, 0))
    high = number((17762771, 0))
    assert random.bits(low, 1).numpy().tolist() == [0]
    assert random.bits(high, 1).numpy().tolist() == [0xFFFFFF41]

    def draw(key):
        return tf.concat(
            [
                f(key, 1)
                for f in (random.uniform, random.open_uniform, random.gumbel, random.normal)
            ],
            0,
        )

    for f in (draw, tf.function(draw, jit_compile=True, autograph=False)):
        # uniform: 0 and 1 - 2**-24. open: 2**-24 and 1 - 2**-24. -log(-log u): -log(24 log 2) =
        # -2.8115 and 24 log 2 = 16.6355. The normal quantile of 2**-24 is -5.2947.
        np.testing.assert_allclose(f(low), [0.0, 2.0**-24, -2.811541, -5.294704], rtol=1e-6)
        np.testing.assert_allclose(
            f(high), [1 - 2.0**-24, 1 - 2.0**-24, 16.635532, 5.294704], rtol=1e-6
        )
        assert f(high).numpy()[0] < 1.0


def test_normal_numbers():
    x = random.normal(KEY, N).numpy()
    assert_moments(x, 0.0, 1.0, 3.0)
    inside = statistics.NormalDist().cdf(1.0) * 2 - 1  # 0.6827
    assert abs((np.abs(x) < 1).mean() - inside) < 5 * (inside * (1 - inside) / N) ** 0.5


def test_gumbel_numbers():
    # mean: Euler's constant; variance: pi**2 / 6; kurtosis: 5.4
    assert_moments(random.gumbel(KEY, N).numpy(), 0.5772157, np.pi**2 / 6, 5.4)


@pytest.mark.parametrize("bound", [1, 2, 3, 7, 1000])
def test_integers_are_uniform_below_their_bound(bound):
    x = random.integers(KEY, N, tf.constant(bound, tf.int64)).numpy()
    assert x.dtype == np.int64
    counts = np.bincount(x, minlength=bound)
    assert len(counts) == bound  # none at or above it
    # chi-square with bound - 1 degrees of freedom: mean bound - 1, variance twice that
    chi_square = np.sum((counts - N / bound) ** 2 / (N / bound))
    assert chi_square <= bound - 1 + 5 * (2 * (bound - 1)) ** 0.5


def test_integers_reach_the_largest_bound():
    x = random.integers(KEY, N, 2**31).numpy()
    assert x.min() >= 0
    assert 2**31 * 0.999 < x.max() < 2**31
    assert abs(x.mean() / 2**31 - 0.5) < 5 * (1 / 12 / N) ** 0.5


# ---- permutations --------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 64, 1000])
def test_a_permutation_has_every_number_once(count):
    order = random.permutation(KEY, count).numpy()
    assert order.dtype == np.int32
    assert sorted(order.tolist()) == list(range(count))


def test_all_orders_are_equally_likely():
    # 6000 orders of three things: each of the six 1000 times, standard deviation sqrt(6000 * 5 /
    # 36) = 29
    words = random.bits(random.members(KEY, 6000), 3)
    orders = tf.argsort(words, stable=True).numpy()
    for i in range(3):
        np.testing.assert_array_equal(
            random.permutation(random.members(KEY, 1, i)[0], 3), orders[i]
        )
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.abs(counts - 1000).max() < 5 * 29


def test_equal_words_keep_their_order_however_compiled():
    # a key found by search: two of its 8192 words are equal
    key = random.members(random.stream(3, "x"), 1, 57)[0]
    words = random.bits(key, 8192).numpy()
    assert len(np.unique(words)) == 8191
    expected = np.argsort(words, kind="stable")
    np.testing.assert_array_equal(random.permutation(key, 8192), expected)
    compiled = tf.function(lambda k: random.permutation(k, 8192), jit_compile=True, autograph=False)
    np.testing.assert_array_equal(compiled(key), expected)
