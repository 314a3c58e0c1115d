"""Random network distillation by hand: errors, returns that go on over ends, statistics, losses."""

import functools

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.intrinsic import RND
from sparring.agents.ppo import PPO
from sparring.agents.training.rollout import Rollout
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from tests.helpers.small_ppo import KEY, START

NO = tf.zeros([3, 1], tf.bool)
SEEN = tf.constant([[[0.0]], [[1.0]], [[2.0]], [[3.0]]])  # [T + 1, B, 1]


def made(**settings) -> PPO:
    """An agent whose target is 2 x, whose predictor and intrinsic values are 0."""
    agent = PPO(
        spaces.Box(-10.0, 10.0, (1,)),
        spaces.Discrete(2),
        functools.partial(MLP, ()),
        Scheduled(tf.keras.optimizers.SGD(), 0.1),
        discount=0.9,
        gae_lambda=1.0,
        normalize_advantage=False,
        normalize_observations=False,
        intrinsic=functools.partial(RND, features=1, discount=0.5, **settings),
    )
    rnd = agent.intrinsic
    for variable in rnd.trainable:
        variable.assign(tf.zeros_like(variable))
    rnd.target.variables[0].assign([[2.0]])
    for variable in agent._value_net.variables:
        variable.assign(tf.zeros_like(variable))
    return agent


def rollout(agent: PPO, **flags: tf.Tensor) -> Rollout:
    """Three steps of one environment, from 0 to 3, that it pays nothing for."""
    action, kept = agent.act(
        tf.reshape(SEEN[:-1], [3, 1]), tf.zeros([3, 2], tf.uint32), tf.constant(0.0)
    )
    extras = {name: value[:, tf.newaxis] for name, value in kept.items()}
    none = {"terminated": NO, "truncated": NO, "first": NO}
    return Rollout(
        observation=SEEN,
        action=action[:, tf.newaxis],
        reward=tf.zeros([3, 1]),
        extras=extras,
        **none | flags,
    )


def flat(steps):
    return tf.nest.map_structure(lambda x: tf.reshape(x, [-1, *x.shape[2:]]), steps)


def test_the_reward_is_the_error_of_what_is_reached_and_its_return_goes_on_over_ends() -> None:
    agent = made(coefficient=0.25)
    ended = tf.constant([[False], [True], [False]])
    reset = tf.constant([[False], [False], [True]])
    for flags in ({}, {"terminated": ended, "first": reset}):
        steps = agent.examples(rollout(agent, **flags), tf.zeros([3, 1]))
        # (2 x)^2 of 1, 2 and 3; then 36, 16 + 36 / 2 and 4 + 34 / 2; so far 4, 16 + 4 / 2, 36 + 9
        np.testing.assert_allclose(steps.intrinsic.reward[:, 0], [4.0, 16.0, 36.0], rtol=1e-6)
        np.testing.assert_allclose(steps.intrinsic.returns[:, 0], [21.0, 34.0, 36.0], rtol=1e-6)
        np.testing.assert_allclose(steps.intrinsic.so_far[:, 0], [4.0, 18.0, 45.0], rtol=1e-6)
        # The environment's own advantages are zero
        np.testing.assert_allclose(steps.advantage[:, 0], [5.25, 8.5, 9.0], rtol=1e-6)


def test_its_return_bootstraps_from_its_own_value() -> None:
    agent = made()
    agent.intrinsic.critic.variables[1].assign([8.0])  # V is 8 everywhere
    steps = agent.examples(rollout(agent), tf.zeros([3, 1]))
    # 36 + 8 / 2, 16 + 40 / 2, 4 + 36 / 2
    np.testing.assert_allclose(steps.intrinsic.returns[:, 0], [22.0, 36.0, 40.0], rtol=1e-6)
    np.testing.assert_allclose(steps.advantage[:, 0], [7.0, 14.0, 16.0], rtol=1e-6)


def test_rewards_are_divided_by_the_deviation_of_returns_after_an_iteration() -> None:
    agent = made()
    steps = flat(agent.examples(rollout(agent), tf.zeros([3, 1])))
    said = agent.finish(steps, START)
    np.testing.assert_allclose(said["rollout/intrinsic_reward"], 56.0 / 3.0, rtol=1e-6)
    # Of 4, 18 and 45: (16 + 324 + 2025) / 3 - (67 / 3)^2
    np.testing.assert_allclose(agent.intrinsic.returns.variance(), 289.5556, rtol=1e-5)
    # Observations 0, 1 and 2 have mean 1 and variance 2 / 3: x is (x - 1) / 0.8165 from now on
    np.testing.assert_allclose(agent.intrinsic.error(tf.constant([[2.0]])), [4.0 * 1.5], rtol=1e-5)
    again = agent.examples(rollout(agent), tf.zeros([3, 1])).intrinsic.reward[:, 0]
    expected = 4.0 * 1.5 * np.square([0.0, 1.0, 2.0]) / np.sqrt(289.5556)
    np.testing.assert_allclose(again, expected, rtol=1e-4, atol=1e-6)
    # Five standard deviations at most
    np.testing.assert_allclose(agent.intrinsic.error(tf.constant([[90.0]])), [100.0], rtol=1e-5)


def test_losses_are_of_all_steps_and_the_target_stays() -> None:
    agent = made()
    ended = tf.constant([[False], [True], [False]])
    reset = tf.constant([[False], [False], [True]])
    steps = flat(
        agent.examples(rollout(agent, terminated=ended, first=reset), tf.zeros([3, 1]))
    )._replace(first=(), state=())
    before = [v.numpy() for v in agent.intrinsic.target.variables]
    said = agent.update(steps, KEY, START)
    # (0 + 4 + 16) / 3, and half of (21^2 + 34^2 + 36^2) / 3
    np.testing.assert_allclose(said["loss/predictor"], 20.0 / 3.0, rtol=1e-6)
    np.testing.assert_allclose(said["loss/intrinsic_value"], 0.5 * 2893.0 / 3.0, rtol=1e-6)
    losses = [value for name, value in said.items() if name.startswith("loss/")]
    total = said["loss/total"]
    np.testing.assert_allclose(total, sum(losses) - total, rtol=1e-5)
    for variable, value in zip(agent.intrinsic.target.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    # The weight's gradient is the mean of -2 (2 x) x over 0, 1 and 2: -20 / 3
    np.testing.assert_allclose(agent.intrinsic.predictor.variables[0], [[2.0 / 3.0]], rtol=1e-5)


def test_its_weights_are_in_the_model() -> None:
    agent = made()
    assert agent.parts()["intrinsic"] is agent.intrinsic
    assert not {v.ref() for v in agent.intrinsic.target.variables} & {
        v.ref() for v in agent.trainable
    }
