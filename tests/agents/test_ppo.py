"""PPO's losses, updates and actions by hand; its advantages are in test_advantages.py.

Losses are checked through `update` with a learning rate of zero: a ratio r of new to old
  probability is made by storing
the logarithm of the present probability minus ln r.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.advantages import Minibatch
from sparring.agents.networks import distributions
from sparring.agents.ppo import PPO
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.optim.schedules import Linear
from tests.helpers.small_ppo import (
    END,
    KEY,
    OBSERVATIONS,
    START,
    batch_of,
    keys,
    make,
    observations,
)


def copied(agent: PPO, **settings) -> PPO:
    """A second agent with the first one's weights."""
    other = make(**settings)
    for a, b in zip(agent.trainable, other.trainable, strict=True):
        b.assign(a)
    return other


def weights(agent: PPO) -> list[np.ndarray]:
    return [v.numpy() for v in agent.trainable]


# ---- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective"),
    [
        (1.5, 2.0, 2.4),  # above: clipped to 1.2 * 2
        (1.5, -2.0, -3.0),  # above, but worse than its clipped self, -2.4: kept
        (0.5, 2.0, 1.0),  # below, but worse than 0.8 * 2: kept
        (0.5, -2.0, -1.6),  # below: clipped to 0.8 * -2
        (1.1, 2.0, 2.2),  # inside
        (0.9, -2.0, -1.8),
    ],
)
def test_the_clipped_surrogate(ratio, advantage, objective):
    agent = make(clip=0.2, normalize_advantage=False, value_coefficient=0.0, learning_rate=1.0)
    before = weights(agent)
    result = agent.update(batch_of(agent, 1, ratio, advantage), KEY, START)
    np.testing.assert_allclose(result["loss/policy"], -objective, rtol=1e-5)
    np.testing.assert_allclose(result["loss/total"], -objective, rtol=1e-5)
    assert float(result["policy/clip_fraction"]) == float(abs(ratio - 1) > 0.2)
    # where the clipped one is the smaller there is nothing to gain, and no gradient
    moved = any(np.any(a != b) for a, b in zip(before, weights(agent), strict=True))
    assert moved == (ratio * advantage == pytest.approx(objective))


def test_clip_fraction_and_divergence_are_means_over_the_steps_that_count():
    agent = make(clip=0.2)
    # r - 1 - ln r: 1.5: 0.094535, 0.5: 0.193147, 1.1: 0.004690; the last does not count
    result = agent.update(batch_of(agent, 4, [1.5, 0.5, 1.1, 3.0], mask=[1, 1, 1, 0]), KEY, START)
    np.testing.assert_allclose(result["policy/clip_fraction"], 2 / 3, rtol=1e-5)
    np.testing.assert_allclose(result["policy/approximate_kl"], 0.097457, rtol=1e-4)


def test_the_clip_and_the_entropys_coefficient_follow_their_schedules():
    agent = make(
        clip=Linear(0.4, 0.1), entropy_coefficient=Linear(1.0, 0.0), normalize_advantage=False
    )
    batch = batch_of(agent, 1, 2.0, 1.0)
    entropy = float(agent.distribution(batch.observation).entropy()[0])
    for progress, clipped, coefficient in (
        (START, 1.4, 1.0),
        (tf.constant(0.5), 1.25, 0.5),
        (END, 1.1, 0.0),
    ):
        result = agent.update(batch, KEY, progress)
        np.testing.assert_allclose(result["loss/policy"], -clipped, rtol=1e-5)
        np.testing.assert_allclose(result["loss/entropy"], -coefficient * entropy, rtol=1e-5)


def test_the_learning_rate_follows_its_schedule():
    agent = make(learning_rate=Linear(1.0, 0.0))
    batch = batch_of(agent, 4, advantage=[1.0, -1.0, 2.0, 0.0], returns=1.0)
    first = agent.update(batch, KEY, tf.constant(0.75))
    np.testing.assert_allclose(
        first["gradient/update_norm"], 0.25 * first["gradient/norm"], rtol=1e-4
    )
    assert float(agent.update(batch, KEY, END)["gradient/update_norm"]) == 0.0


@pytest.mark.parametrize(
    ("value_clip", "value", "returns", "loss"),
    # the present value is `old - value`: with value=-1 it has moved by +1 from the stored one.
    # Returns are from there.
    [
        (0.2, -1.0, 2.0, 0.5 * 1.8**2),  # errors 1, or 1.8 with the move clipped to 0.2: the larger
        (0.2, -1.0, -1.0, 0.5 * 2.0**2),  # errors -2, or -1.2
        (0.2, 1.0, -2.0, 0.5 * 1.8**2),  # moved down
        (0.2, -0.1, 1.0, 0.5 * 0.9**2),  # inside: as it is
        (None, -1.0, 2.0, 0.5 * 1.0**2),
    ],
)
def test_value_clipping(value_clip, value, returns, loss):
    agent = make(value_clip=value_clip, value_coefficient=0.5)
    result = agent.update(
        batch_of(agent, 2, advantage=0.0, value=value, returns=returns), KEY, START
    )
    np.testing.assert_allclose(result["loss/value"], loss, rtol=1e-4)


def test_the_total_is_the_sum_and_coefficients_scale_their_part():
    agent = make(value_coefficient=0.25, entropy_coefficient=0.1, normalize_advantage=False)
    batch = batch_of(agent, 4, 1.0, [1.0, 2.0, 3.0, 6.0], returns=2.0)
    result = {k: float(v) for k, v in agent.update(batch, KEY, START).items()}
    entropy = float(tf.reduce_mean(agent.distribution(batch.observation).entropy()))
    assert result["loss/policy"] == pytest.approx(-3.0, rel=1e-5)
    assert result["loss/value"] == pytest.approx(0.25 * 4.0, rel=1e-5)
    assert result["loss/entropy"] == pytest.approx(-0.1 * entropy, rel=1e-5)
    assert result["policy/entropy"] == pytest.approx(entropy, rel=1e-5)
    assert result["loss/total"] == pytest.approx(-3.0 + 1.0 - 0.1 * entropy, rel=1e-5)


def test_a_reward_for_entropy_raises_it():
    agent = make(
        entropy_coefficient=1.0, value_coefficient=0.0, learning_rate=0.5, normalize_advantage=False
    )
    agent.trainable[3].assign([2.0, 0.0, 0.0])  # the logits' bias
    seen = observations(4)
    before = float(tf.reduce_mean(agent.distribution(seen).entropy()))
    agent.update(batch_of(agent, 4, advantage=0.0), KEY, START)
    assert float(tf.reduce_mean(agent.distribution(seen).entropy())) > before + 0.01


# ---- what does not count -------------------------------------------------------------------------


@pytest.mark.parametrize("normalize_advantage", [True, False])
def test_steps_that_do_not_count_have_no_influence(normalize_advantage):
    settings = {
        "learning_rate": 0.1,
        "normalize_advantage": normalize_advantage,
        "entropy_coefficient": 0.01,
    }
    agent = make(**settings)
    # The logits' kernel: policies differ
    agent.trainable[2].assign(tf.reshape(tf.range(12.0) % 5.0 - 2.0, [4, 3]))
    mask = tf.constant([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    batch = batch_of(agent, 6, 1.1, [1.0, 2.0, -1.0, 0.5, 3.0, -2.0], mask, returns=0.5)
    junk = batch_of(agent, 6, 4.0, 1e4, returns=-1e3)
    hidden = mask == 0.0
    altered = Minibatch(
        tf.where(hidden[:, tf.newaxis], 9.0, batch.observation),
        tf.where(hidden, 2 - batch.action, batch.action),
        *(tf.where(hidden, j, b) for j, b in zip(junk[2:6], batch[2:6], strict=True)),
        mask,
    )
    # The steps that count, alone
    short = tf.nest.map_structure(lambda x: tf.boolean_mask(x, ~hidden), batch)
    others = [copied(agent, **settings) for _ in range(2)]
    results = [
        a.update(b, KEY, START)
        for a, b in zip([agent, *others], [batch, altered, short], strict=True)
    ]
    for other, result in zip(others, results[1:], strict=True):
        for a, b in zip(weights(agent), weights(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
        for name, value in results[0].items():
            np.testing.assert_allclose(result[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_minibatch_in_which_nothing_counts_changes_nothing():
    agent = make(learning_rate=1.0, entropy_coefficient=1.0)
    before = weights(agent)
    result = agent.update(
        batch_of(agent, 4, 2.0, [1.0, 2.0, 3.0, 4.0], mask=0.0, returns=5.0), KEY, START
    )
    assert all(np.isfinite(float(v)) for v in result.values())
    assert float(result["gradient/norm"]) == 0.0
    for a, b in zip(before, weights(agent), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- the first update of an iteration ------------------------------------------------------------


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 4]), spaces.Box(-1, 1, (2,))]
)
@pytest.mark.parametrize("normalize", [False, True])
def test_the_first_ratio_is_one(space, normalize):
    agent = make(space, normalize_observations=normalize)
    if normalize:
        agent.observation_normalizer.update(5.0 + 3.0 * observations(50, "earlier"), tf.ones([50]))
    batch = batch_of(agent, 8, advantage=[1, -1, 2, 0, 1, 1, 3, -4])
    result = agent.update(batch, KEY, START)
    assert float(result["policy/approximate_kl"]) == 0.0
    assert float(result["policy/clip_fraction"]) == 0.0
    if normalize:  # the statistics are used, and an update does not move them
        assert float(agent.observation_normalizer.moments.count) == 50.0
        agent.observation_normalizer.update(100.0 + observations(50), tf.ones([50]))
        assert float(agent.update(batch, KEY, START)["policy/approximate_kl"]) > 1e-9


# ---- the optimizer -------------------------------------------------------------------------------


def test_the_gradient_is_clipped_as_a_whole():
    agent = make(learning_rate=1.0, optimizer=tf.keras.optimizers.SGD(global_clipnorm=0.5))
    result = agent.update(
        batch_of(agent, 4, advantage=[1.0, -1.0, 5.0, 0.0], returns=30.0), KEY, START
    )
    assert float(result["gradient/norm"]) > 5.0
    np.testing.assert_allclose(result["gradient/update_norm"], 0.5, rtol=1e-4)


def shift_layer_names() -> None:
    """Make layers until the next two are called dense_9 and dense_10, or dense_99 and dense_100, or
    the like.
    """
    while True:
        number = tf.keras.layers.Dense(1).name.removeprefix("dense").removeprefix("_") or "0"
        if not str(int(number) + 1).strip("9"):
            return


def test_slots_do_not_depend_on_how_many_layers_were_made_before(tmp_path):
    def fresh() -> PPO:
        return make(learning_rate=0.01, optimizer=tf.keras.optimizers.Adam(), units=(4, 4))

    first = fresh()
    shift_layer_names()
    second = fresh()
    slots = [[v.shape for v in a.scheduled.keras.variables] for a in (first, second)]
    assert slots[0] == slots[1]

    def by_name(agent: PPO) -> list[int]:  # the order stock would take
        return sorted(range(len(agent.trainable)), key=lambda i: agent.trainable[i].name)

    assert by_name(first) != by_name(second)

    def checkpoint(agent: PPO) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(agent=agent, optimizer=agent.scheduled.keras, **agent.parts())

    batch = batch_of(first, 8, advantage=[1, -1, 2, 0, 1, 1, 3, -4], returns=1.0)
    for _ in range(3):
        first.update(batch, KEY, START)
    path = checkpoint(first).write(str(tmp_path / "c"))
    checkpoint(second).read(path).assert_consumed()
    for agent in (first, second):
        agent.update(batch, KEY, START)
    for a, b in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_update_compiles_to_the_same_numbers():
    settings = {"learning_rate": 0.1, "entropy_coefficient": 0.01, "value_clip": 0.2}
    eager = make(**settings)
    compiled = copied(eager, **settings)
    update = tf.function(compiled.update, jit_compile=True, autograph=False)
    batch = batch_of(
        eager, 8, 1.3, [1, -1, 2, 0, 1, 1, 3, -4], [1, 1, 1, 0, 1, 1, 1, 1], value=0.5, returns=1.0
    )
    for _ in range(3):
        a = eager.update(batch, KEY, START)
        b = update(batch, KEY, START)
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-6, err_msg=name)
    for a, b in zip(weights(eager), weights(compiled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_every_scalar_is_described():
    agent = make()
    batch = batch_of(agent, 2)
    found = set(agent.update(batch, KEY, START)) | set(agent.finish(batch, START))
    assert found == set(agent.descriptions) - {"schedule/learning_rate"}


# ---- acting --------------------------------------------------------------------------------------


def test_sampled_actions_follow_the_policy():
    agent = make()
    count = 10_000
    agent.trainable[3].assign([1.0, 0.0, -1.0])  # the logits' bias
    seen = tf.tile(observations(1), [count, 1])
    actions, kept = agent.act(seen, keys(count), tf.constant(0.0))
    p = tf.nn.softmax(agent.distribution(seen[:1]).logits[0]).numpy().astype(np.float64)
    shares = np.bincount(actions, minlength=3) / count
    assert (np.abs(shares - p) < 5 * np.sqrt(p * (1 - p) / count)).all()  # five standard errors
    np.testing.assert_allclose(kept["log_prob"], np.log(p)[actions], rtol=1e-4)


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 4]), spaces.Box(-1, 1, (2,))]
)
def test_members_act_by_their_own_keys(space):
    agent = make(space)
    seen = observations(6)
    together = agent.act(seen, keys(6), tf.constant(0.0))
    tf.nest.map_structure(
        np.testing.assert_array_equal, together, agent.act(seen, keys(6), tf.constant(0.0))
    )
    for i in range(6):
        alone = agent.act(seen[i : i + 1], keys(6)[i : i + 1], tf.constant(0.0))
        for a, b in zip(tf.nest.flatten(together), tf.nest.flatten(alone), strict=True):
            np.testing.assert_allclose(a[i], b[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(together[0], agent.act_sampled(seen, keys(6), END))
    assert np.any(together[0] != agent.act(seen, keys(6, seed=1), tf.constant(0.0))[0])


def test_greedy_actions_are_the_likeliest():
    agent = make()
    seen = observations(20)
    logits = agent.distribution(seen).logits.numpy()
    np.testing.assert_array_equal(agent.act_greedy(seen), logits.argmax(-1))
    choices = make(spaces.MultiDiscrete([2, 4]))
    logits = choices.distribution(seen).distribution.logits.numpy()
    np.testing.assert_array_equal(choices.act_greedy(seen), logits.argmax(-1))
    assert choices.act_greedy(seen).dtype == tf.int32
    box = make(spaces.Box(-1, 1, (2,)))
    np.testing.assert_array_equal(box.act_greedy(seen), box.distribution(seen).mean())


def test_choices_of_unequal_sizes():
    agent = make(spaces.MultiDiscrete([2, 5]))
    count = 10_000
    seen = tf.tile(observations(1), [count, 1])
    actions, kept = agent.act(seen, keys(count), tf.constant(0.0))
    assert actions.numpy().max(0).tolist() == [1, 4]  # never past a size, and every size reached
    logits = agent.distribution(seen[:1]).distribution.logits[0].numpy()
    parts = [tf.nn.log_softmax(logits[0, :2]).numpy(), tf.nn.log_softmax(logits[1]).numpy()]
    np.testing.assert_allclose(
        kept["log_prob"], parts[0][actions[:, 0]] + parts[1][actions[:, 1]], rtol=1e-5
    )
    entropy = -sum((np.exp(x) * x).sum() for x in parts)
    batch = Minibatch(seen, actions, kept["log_prob"], *[tf.zeros([count])] * 3, tf.ones([count]))
    np.testing.assert_allclose(
        agent.update(batch, KEY, START)["policy/entropy"], entropy, rtol=1e-5
    )


def test_box_actions_are_kept_as_they_were_sampled():
    agent = make(spaces.Box(-1, 1, (2,)), log_std=1.0)  # a spread of e: most leave the box
    seen = observations(1000)
    actions, kept = agent.act(seen, keys(1000), tf.constant(0.0))
    assert np.mean(np.abs(actions) > 1.0) > 0.5
    z = (actions.numpy() - agent.distribution(seen).mean().numpy()) / np.e
    # ln N = -z**2/2 - ln sqrt(2 pi) - ln e, for each of two numbers
    expected = np.sum(-0.5 * z**2 - 0.918939 - 1.0, axis=-1)
    np.testing.assert_allclose(kept["log_prob"], expected, rtol=1e-4)


# ---- networks of one's own -----------------------------------------------------------------------


class Wide(tf.keras.layers.Layer):
    """A dense layer whose squared weights, times a half, are added to the loss."""

    def __init__(self) -> None:
        super().__init__()
        half = tf.keras.regularizers.L2(0.5)
        self.dense = tf.keras.layers.Dense(2, kernel_regularizer=half)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        return self.dense(features)


def test_a_network_that_actor_and_critic_share_is_stepped_once():
    made = []

    def network() -> tf.keras.layers.Layer:
        made.append(tf.keras.layers.Dense(4))
        return made[-1]

    agent = PPO(
        OBSERVATIONS,
        spaces.Discrete(3),
        network,
        Scheduled(tf.keras.optimizers.SGD(), 1.0),
        normalize_advantage=False,
        share_network=True,
    )
    (shared,) = made
    assert [v.ref() for v in agent.trainable].count(shared.kernel.ref()) == 1
    batch = batch_of(agent, 3, advantage=[1.0, -1.0, 2.0], returns=1.0)
    before = shared.kernel.numpy()
    with tf.GradientTape() as tape:
        policy = agent.distribution(batch.observation).log_prob(batch.action)
        surrogate = tf.reduce_mean(tf.exp(policy - batch.log_prob) * batch.advantage)
        value = tf.reduce_mean(tf.square(batch.returns - agent.value(batch.observation)))
        loss = 0.5 * value - surrogate
    gradient = tape.gradient(loss, shared.kernel).numpy()
    agent.update(batch, KEY, START)
    np.testing.assert_allclose(shared.kernel.numpy(), before - gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_what_layers_add_to_the_loss_counts_and_a_shared_layers_once(shared):
    wide = Wide()
    agent = PPO(
        OBSERVATIONS,
        spaces.Discrete(3),
        (lambda: wide) if shared else Wide,
        Scheduled(tf.keras.optimizers.SGD(), 0.0),
    )
    kernels = [v.numpy() for v in agent.trainable if v.shape == [3, 2]]
    assert len(kernels) == 2 - shared
    result = agent.update(batch_of(agent, 2, advantage=[1.0, -1.0]), KEY, START)
    added = result["loss/total"] - result["loss/policy"] - result["loss/value"]
    # L2(0.5) is half the sum of squares
    expected = sum(0.5 * np.square(kernel).sum() for kernel in kernels)
    np.testing.assert_allclose(added, expected, rtol=1e-4)


def test_the_loss_is_of_the_distribution_that_a_subclass_gives():
    class Even(PPO):
        def distribution(self, observation):
            logits = 0.0 * super().distribution(observation).logits
            return distributions.tfd.Categorical(logits=logits)

    agent = Even(OBSERVATIONS, spaces.Discrete(4), functools.partial(MLP, (4,)))
    result = agent.update(batch_of(agent, 3), KEY, START)
    np.testing.assert_allclose(result["policy/entropy"], np.log(4.0), rtol=1e-6)


def test_what_draws_random_numbers_of_its_own_is_refused():
    def dropping() -> tf.keras.layers.Layer:
        return tf.keras.Sequential([tf.keras.layers.Dense(4), tf.keras.layers.Dropout(0.5)])

    class Noisy(tf.keras.layers.Layer):
        def call(self, features):
            return features + tf.random.normal(tf.shape(features))

    with pytest.raises(UserError, match=r"network: the layer dropout.* \(Dropout\) draws random"):
        PPO(OBSERVATIONS, spaces.Discrete(3), dropping)
    with pytest.raises(UserError, match=r"network: RandomStandardNormal in actor draws random"):
        PPO(OBSERVATIONS, spaces.Discrete(3), Noisy)


def test_actions_out_of_reach_bytes_and_batch_statistics_are_told_of(caplog):
    def normalizing() -> tf.keras.layers.Layer:
        return tf.keras.Sequential(
            [tf.keras.layers.Flatten(), tf.keras.layers.BatchNormalization(name="norm_7")]
        )

    far = spaces.Box(0, 1000, (2,), np.float32)
    PPO(OBSERVATIONS, far)
    assert "Actions go from 0 to 1000, and the policy begins around 0" in caplog.text
    caplog.clear()
    PPO(OBSERVATIONS, far, log_std=5.0)  # e^5 is 148
    PPO(OBSERVATIONS, spaces.Box(-2, 2, (1,), np.float32))
    assert caplog.text == ""
    picture = spaces.Box(0, 255, (4, 4, 1), np.uint8)
    agent = PPO(picture, spaces.Discrete(2), normalizing, normalize_observations=True)
    assert agent.observation_normalizer is None
    assert "agent.normalize_observations: these observations are bytes" in caplog.text
    assert "the batch normalisation norm_7 stays at the statistics it begins with" in caplog.text
