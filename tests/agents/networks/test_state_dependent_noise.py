"""Noise that depends on the state: its law by hand, and how long its matrix stays in training."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.networks.state_dependent_noise import (
    StateDependentNoise,
    StateDependentNoiseHead,
)
from sparring.agents.ppo import PPO
from sparring.agents.training.on_policy import OnPolicyTrainer
from sparring.agents.training.rollout import Rollout
from sparring.envs.compiled.toys import PointMass
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.xla import random

FEATURES = tf.constant([[1.0, 2.0]])
SCALE = tf.constant([[0.1], [0.2]])


def policy(features: tf.Tensor) -> StateDependentNoise:
    return StateDependentNoise(0.5 * tf.ones([features.shape[0], 1]), features, SCALE)


def test_its_density_by_hand() -> None:
    """The variance is 1 * 0.01 + 4 * 0.04 = 0.17."""
    found = policy(FEATURES)
    np.testing.assert_allclose(found.stddev(), [[np.sqrt(0.17)]], rtol=1e-4)
    expected = -0.5 * 0.3**2 / 0.17 - 0.5 * np.log(2.0 * np.pi * 0.17)
    np.testing.assert_allclose(found.log_prob([[0.8]]), [expected], rtol=1e-4)
    entropy = 0.5 * np.log(2.0 * np.pi * np.e * 0.17)
    np.testing.assert_allclose(found.entropy(), [entropy], rtol=1e-4)
    np.testing.assert_array_equal(found.mode(), [[0.5]])


def test_samples_follow_it_and_with_one_key_are_a_function_of_the_state() -> None:
    count = 10_000
    keys = random.members(random.stream(0, "policy"), count)
    noise = policy(tf.repeat(FEATURES, count, axis=0)).sample_from(keys) - 0.5
    # The deviation of a sample's deviation is 0.7 % of it
    np.testing.assert_allclose(np.std(noise), np.sqrt(0.17), rtol=0.04)
    three = tf.constant([[1.0, 0.0], [0.0, 1.0], [3.0, -2.0]])
    one, other, both = policy(three).sample_from(tf.repeat(keys[:1], 3, axis=0)) - 0.5
    np.testing.assert_allclose(both, 3.0 * one - 2.0 * other, rtol=1e-4)


def test_a_state_without_features_has_a_finite_density() -> None:
    with tf.GradientTape() as tape:
        tape.watch(SCALE)
        log_prob = StateDependentNoise(tf.zeros([1, 1]), tf.zeros([1, 2]), SCALE).log_prob([[0.0]])
    assert np.isfinite(log_prob).all()
    assert np.isfinite(tape.gradient(log_prob, SCALE)).all()


class Trainer(OnPolicyTrainer):
    """Keeps its rollouts."""

    def learn(self, rollout: Rollout, iteration: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        self.__dict__.setdefault("rollouts", []).append(rollout)
        return super().learn(rollout, iteration, total)


def test_a_matrix_stays_for_its_steps_over_the_end_of_a_rollout() -> None:
    """Of one feature, noise divided by the feature and its scale is the matrix."""
    tf.keras.utils.set_random_seed(0)
    trainer = Trainer(
        functools.partial(
            PPO, head=StateDependentNoiseHead, noise_steps=4, normalize_observations=False
        ),
        PointMass(),
        functools.partial(MLP, (1,)),
        Scheduled(tf.keras.optimizers.SGD(), 0.0),
        num_envs=2,
        rollout_steps=6,
        epochs=1,
        minibatches=1,
        compile="eager",
    )
    trainer.train(24)
    matrices = []
    for rollout in trainer.rollouts:
        for t in range(6):
            found = trainer.agent.distribution(rollout.observation[t])
            noise = rollout.action[t] - found.mean()
            matrices.append(noise / (found.features * found.scale))
    blocks = np.reshape(matrices, [3, 4, -1])  # of twelve steps
    np.testing.assert_allclose(blocks, np.repeat(blocks[:, :1], 4, axis=1), rtol=1e-3, atol=1e-4)
    # Each block, environment and action has its own
    assert len(np.unique(np.round(blocks[:, 0], 2))) == blocks[:, 0].size > 3


def test_other_noise_may_not_stay() -> None:
    seen = spaces.Box(-1.0, 1.0, (3,))
    with pytest.raises(UserError, match=r"agent\.noise_steps=4: only noise that depends on"):
        PPO(seen, spaces.Box(-1.0, 1.0, (2,)), noise_steps=4)
