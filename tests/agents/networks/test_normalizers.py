"""Running statistics against numpy over everything seen at once, and what normalising
leaves alone.
"""

import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.networks.normalizers import Moments, ObservationNormalizer, RewardNormalizer

RNG = np.random.default_rng(3)


def ones(count: int) -> tf.Tensor:
    return tf.ones([count])


@pytest.mark.parametrize("splits", [[], [1], [30], [1, 2, 3, 40], list(range(1, 60))])
def test_moments_are_those_of_all_batches_together(splits):
    data = RNG.normal([5.0, -300.0], [2.0, 0.5], (60, 2)).astype(np.float32)
    moments = Moments((2,), "m")
    for part in np.split(data, splits):
        moments.update(tf.constant(part), ones(len(part)))
    assert float(moments.count) == 60.0
    np.testing.assert_allclose(moments.mean, data.mean(0, np.float64), rtol=1e-6)
    np.testing.assert_allclose(moments.variance(), data.var(0, np.float64), rtol=1e-4)


def test_masked_entries_do_not_count():
    moments = Moments((), "m")
    moments.update(tf.constant([1.0, 1e6, 3.0]), tf.constant([1.0, 0.0, 1.0]))
    assert (float(moments.count), float(moments.mean), float(moments.variance())) == (2.0, 2.0, 1.0)
    moments.update(tf.constant([-1e6, 9.0]), tf.constant([0.0, 0.0]))  # nothing at all
    assert (float(moments.count), float(moments.mean), float(moments.variance())) == (2.0, 2.0, 1.0)
    # 1, 3, 5: mean 3, variance 8/3
    moments.update(tf.constant([1e6, 5.0]), tf.constant([0.0, 1.0]))
    np.testing.assert_allclose([moments.mean, moments.variance()], [3.0, 8 / 3], rtol=1e-6)


def test_moments_by_hand_compiled():
    moments = Moments((), "m")
    update = tf.function(moments.update, jit_compile=True, autograph=False)
    for values in ([2.0, 4.0], [9.0, 9.0]):
        update(tf.constant(values), ones(2))
    # 2, 4, 9, 9: mean 6; squared deviations 16 + 4 + 9 + 9 = 38
    np.testing.assert_allclose(
        [moments.mean, moments.deviation, moments.variance()], [6.0, 38.0, 9.5], rtol=1e-6
    )


@pytest.mark.parametrize("constant", [0.1, 1e6 / 7])
def test_a_feature_that_never_changes_is_zero_however_large(constant):
    # 1e6 / 7 summed 148 times rounds: were the mean one unit of float32 off, the feature would be
    # -1
    normalizer = ObservationNormalizer((1,))
    for _ in range(20):
        normalizer.update(tf.fill([148, 1], tf.constant(constant)), ones(148))
    assert normalizer.normalize(tf.constant([[constant]])).numpy().tolist() == [[0.0]]
    assert normalizer.moments.variance().numpy().tolist() == [0.0]


# ---- observations --------------------------------------------------------------------------------


def test_observations_are_unchanged_before_any_data():
    normalizer = ObservationNormalizer((2,))
    x = tf.constant([[0.1, -7.0], [1.0, 3.0]])
    np.testing.assert_allclose(normalizer.normalize(x), x, rtol=1e-6)
    normalizer.update(x, tf.zeros([2]))  # all of it masked
    np.testing.assert_allclose(normalizer.normalize(x), x, rtol=1e-6)


def test_stock_normaliser_saturates_the_first_observations():
    # the mending: TF-Agents starts at a count of 1e-8 and divides by sqrt(0.001): 0.1 becomes 3.16,
    # and 1 is cut off
    from tf_agents.specs import tensor_spec
    from tf_agents.utils import tensor_normalizer

    stock = tensor_normalizer.StreamingTensorNormalizer(
        tensor_spec.TensorSpec([1], tf.float32), "stock"
    )
    np.testing.assert_allclose(
        stock.normalize(tf.constant([[0.1], [1.0]])), [[3.162278], [5.0]], rtol=1e-4
    )


def test_observations_by_hand():
    normalizer = ObservationNormalizer((2,), clip=3.0)
    # Means 2, 20; spreads 1, 10
    normalizer.update(tf.constant([[1.0, 10.0], [3.0, 30.0]]), ones(2))
    x = tf.constant([[2.5, 0.0], [2.0 + 4.0, 20.0 - 50.0]])
    # 4 and -5 are clipped
    np.testing.assert_allclose(normalizer.normalize(x), [[0.5, -2.0], [3.0, -3.0]], rtol=1e-6)


def test_bytes_are_counted_as_numbers():
    normalizer = ObservationNormalizer((1,))
    # 200 + 200 would not fit a byte
    normalizer.update(tf.constant([[0], [200]], tf.uint8), ones(2))
    assert [float(x[0]) for x in (normalizer.moments.mean, normalizer.moments.variance())] == [
        100.0,
        10_000.0,
    ]


# ---- rewards -------------------------------------------------------------------------------------


def returns_by_loop(rewards, ended, valid, discount) -> np.ndarray:
    """Every counted discounted return, environment by environment, as VecNormalize follows them."""
    found = []
    for b in range(rewards.shape[1]):
        running = 0.0
        for t in range(len(rewards)):
            running = rewards[t, b] + discount * running
            if valid[t, b]:
                found.append(running)
            if ended[t, b]:
                running = 0.0
    return np.array(found)


@pytest.mark.parametrize("rollout_steps", [1, 4, 12])
def test_rewards_are_divided_by_the_spread_of_the_discounted_return(rollout_steps):
    rewards = RNG.normal(1.0, 2.0, (12, 3)).astype(np.float32)
    ended = np.zeros((12, 3), np.float32)
    ended[[2, 7, 3, 11], [0, 0, 1, 2]] = (
        1.0  # 3 is the last step of a rollout of four, 11 of the data
    )
    first = np.roll(ended, 1, axis=0)
    first[0] = 0.0
    rewards *= 1.0 - first  # a step that was a reset gains nothing and does not count
    normalizer = RewardNormalizer(3, discount=0.9, clip=100.0)
    for part in range(0, 12, rollout_steps):
        rows = slice(part, part + rollout_steps)
        normalizer.update(*(tf.constant(x[rows]) for x in (rewards, ended, 1.0 - first)))
    spread = returns_by_loop(rewards, ended, 1.0 - first, 0.9).std()
    np.testing.assert_allclose(
        normalizer.normalize(tf.constant(rewards)), rewards / spread, rtol=1e-4
    )


def test_returns_by_hand():
    # rewards 1, 2, end, (reset), 4 at discount 1/2: returns 1, 2.5, -, 4; then in the next rollout
    # 0 + 2 = 2
    normalizer = RewardNormalizer(1, discount=0.5)
    ended = tf.constant([[0.0], [1.0], [0.0], [0.0]])
    valid = tf.constant([[1.0], [1.0], [0.0], [1.0]])
    normalizer.update(tf.constant([[1.0], [2.0], [0.0], [4.0]]), ended, valid)
    np.testing.assert_allclose(normalizer.moments.mean, 2.5)  # (1 + 2.5 + 4) / 3
    np.testing.assert_allclose(normalizer.moments.variance(), 1.5)  # (2.25 + 0 + 2.25) / 3
    # 3 / sqrt(1.5)
    np.testing.assert_allclose(normalizer.normalize(tf.constant([3.0])), [2.449490], rtol=1e-6)
    normalizer.update(tf.constant([[0.0]]), tf.zeros([1, 1]), tf.ones([1, 1]))
    np.testing.assert_allclose(normalizer.running, [2.0])
    np.testing.assert_allclose(normalizer.moments.mean, 2.375)  # 9.5 / 4


def test_a_return_starts_anew_where_a_restart_broke_the_episode_off():
    # 4, then the end of the rollout; the next begins with a reset that no end announced: 0 is not
    # counted, 1 is
    normalizer = RewardNormalizer(1, discount=0.5)
    normalizer.update(tf.constant([[4.0]]), tf.zeros([1, 1]), tf.ones([1, 1]))
    normalizer.update(tf.constant([[0.0], [1.0]]), tf.zeros([2, 1]), tf.constant([[0.0], [1.0]]))
    np.testing.assert_allclose(normalizer.running, [1.0])  # not 1 + 4/4
    np.testing.assert_allclose(normalizer.moments.mean, 2.5)  # (4 + 1) / 2


def test_rewards_are_unchanged_before_any_data_and_clipped():
    normalizer = RewardNormalizer(1, 0.99, clip=10.0)
    np.testing.assert_allclose(
        normalizer.normalize(tf.constant([0.5, -3.0, 50.0, -50.0])), [0.5, -3.0, 10.0, -10.0]
    )


def test_constant_rewards_with_constant_returns_pass_unchanged_where_stock_makes_them_tens():
    # episodes of one step: every return is 0.7, whose spread is zero
    normalizer = RewardNormalizer(2, 0.99)
    rewards = tf.fill([50, 2], 0.7)
    all_true = tf.ones([50, 2])
    for _ in range(3):
        normalizer.update(rewards, all_true, all_true)
    np.testing.assert_allclose(normalizer.normalize(rewards), rewards, rtol=1e-6)
    from tf_agents.specs import tensor_spec
    from tf_agents.utils import tensor_normalizer

    stock = tensor_normalizer.StreamingTensorNormalizer(
        tensor_spec.TensorSpec([], tf.float32), "stock"
    )
    stock.update(rewards, outer_dims=[0, 1])
    np.testing.assert_allclose(
        stock.normalize(rewards, center_mean=False, clip_value=10), tf.fill([50, 2], 10.0)
    )


def test_constant_rewards_of_long_episodes_are_divided_by_their_returns_spread():
    # one a step at discount 0.5: returns 1, 1.5, 1.75: mean 17/12, variance (25 + 1 + 16) / 144 / 3
    # = 0.097222
    normalizer = RewardNormalizer(1, 0.5)
    normalizer.update(tf.ones([3, 1]), tf.zeros([3, 1]), tf.ones([3, 1]))
    np.testing.assert_allclose(normalizer.normalize(tf.ones([1])), [0.097222**-0.5], rtol=1e-4)


def test_reward_statistics_compile():
    rewards = tf.constant([[1.0, -1.0], [2.0, 0.5]])
    ended = tf.constant([[0.0, 1.0], [0.0, 0.0]])
    valid = tf.constant([[1.0, 1.0], [1.0, 0.0]])
    eager = RewardNormalizer(2, 0.9)
    compiled = RewardNormalizer(2, 0.9)
    update = tf.function(compiled.update, jit_compile=True, autograph=False)
    for _ in range(2):
        eager.update(rewards, ended, valid)
        update(rewards, ended, valid)
    for a, b in zip(eager.variables, compiled.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
