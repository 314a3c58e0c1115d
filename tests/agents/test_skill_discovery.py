"""DIAYN by hand: the reward, the discriminator's step, skills of episodes, and exactness."""

import functools
import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents import skill_paths
from sparring.agents.ppo import PPO
from sparring.agents.skill_discovery import DIAYN
from sparring.agents.training.evaluation import EvaluationSettings
from sparring.agents.training.on_policy import OnPolicyTrainer
from sparring.agents.training.rollout import Rollout
from sparring.envs.compiled.skills import Skills
from sparring.envs.compiled.toys import PointMass
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.training.conformance import check_trainer
from tests.helpers import replicas

pytestmark = pytest.mark.long

# Two skills behind one number: three steps of one environment, the second a reset
SEEN = tf.constant([[[0.0, 1.0, 0.0]], [[1.0, 1.0, 0.0]], [[9.0, 0.0, 1.0]], [[2.0, 0.0, 1.0]]])
FIRST = tf.constant([[False], [True], [False]])


def rollout() -> Rollout:
    no = tf.zeros([3, 1], tf.bool)
    action = tf.zeros([3, 1, 1])
    return Rollout(SEEN, action, tf.ones([3, 1]), no, no, FIRST, {})


def linear(rate: float = 0.5) -> DIAYN:
    """A discriminator whose logits are 0 and x."""
    space = spaces.Box(-10.0, 10.0, (3,), np.float32)
    source = DIAYN(
        agent=None,
        observation_space=space,
        action_space=None,
        seed=0,
        network=functools.partial(MLP, ()),
        optimizer=Scheduled(tf.keras.optimizers.SGD(), rate),
        skills=2,
        normalize=False,
        drawn=(0, 0),
    )
    source.network.trainable_weights[0].assign([[0.0, 1.0]])
    source.network.trainable_weights[1].assign([0.0, 0.0])
    return source


def test_the_reward_is_the_log_of_q_over_p_and_a_reset_counts_in_nothing() -> None:
    source = linear()
    taken = source.take_up(rollout())
    reward, values = source.rewards(rollout(), taken, tf.constant(0))
    # Skill 0 at x = 1: log(1 / (1 + e)); skill 1 at x = 2: log(e^2 / (1 + e^2)); p = 1/2
    first = math.log(2.0) - math.log(1.0 + math.e)
    last = math.log(2.0) + 2.0 - math.log(1.0 + math.e**2)
    np.testing.assert_allclose(reward[:, 0], [first, 0.0, last], rtol=1e-5)
    assert values["diayn/reward"].numpy() == pytest.approx((first + last) / 2.0, rel=1e-5)
    assert values["diayn/accuracy"].numpy() == 0.5  # the second alone
    loss = math.log(2.0) - (first + last) / 2.0
    assert values["loss/discriminator"].numpy() == pytest.approx(loss, rel=1e-5)


def test_a_step_of_the_discriminator_is_cross_entropys() -> None:
    source = linear()
    values = source.update(source.take_up(rollout()), tf.constant(0), tf.constant(0.0))
    # Mean over two steps of (q - onehot): of the biases' second, q1(1) - 0 and q1(2) - 1
    q = [math.e / (1.0 + math.e), math.e**2 / (1.0 + math.e**2)]
    slope = (q[0] + (q[1] - 1.0)) / 2.0
    np.testing.assert_allclose(
        source.network.trainable_weights[1], [0.5 * slope, -0.5 * slope], rtol=1e-5
    )
    kernel = (1.0 * q[0] + 2.0 * (q[1] - 1.0)) / 2.0
    np.testing.assert_allclose(
        source.network.trainable_weights[0], [[0.5 * kernel, 1.0 - 0.5 * kernel]], rtol=1e-5
    )
    norm = math.sqrt(2.0 * slope**2 + 2.0 * kernel**2)
    assert values["gradient/discriminator_norm"].numpy() == pytest.approx(norm, rel=1e-5)


def make(num_envs: int = 8, **settings: Any) -> OnPolicyTrainer:
    tf.keras.utils.set_random_seed(0)
    # A larger epsilon: Adam makes no full step of a gradient that is zero but for rounding
    adam = Scheduled(tf.keras.optimizers.Adam(epsilon=1e-3), 1e-2)
    source = functools.partial(
        DIAYN,
        network=functools.partial(MLP, (8,), "relu"),
        optimizer=Scheduled(tf.keras.optimizers.Adam(epsilon=1e-3), 1e-2),
        skills=3,
        updates=2,
    )
    return OnPolicyTrainer(
        PPO,
        Skills(PointMass(5), 3),
        functools.partial(MLP, (8,)),
        adam,
        num_envs=num_envs,
        rollout_steps=8,
        epochs=1,
        minibatches=1,
        total_steps=10_000,
        normalize_rewards=False,
        evaluation=EvaluationSettings(2, sampled=False, video_every=0),
        reward_source=source,
        **settings,
    )


def test_the_contract_is_kept() -> None:
    check_trainer(make, steps=128)


def test_two_replicas_are_one_with_all_environments() -> None:
    one, two = replicas.pair(make)
    for trainer in (one, two):
        trainer.train(192)
    replicas.assert_alike(one, two, atol=1e-5)
    replicas.assert_in_agreement(two)
    replicas.assert_same_means(one, two, rel=1e-3)


def test_paths_are_kept_and_drawn_in_the_skills_colour() -> None:
    trainer = make(num_envs=8)
    trainer.train(64)
    found = trainer.evaluate()
    assert found.images["diayn/paths"].dtype == np.uint8
    kept = trainer.reward_source._paths.numpy()
    # Eight environments by turns, eight steps and then the last again
    np.testing.assert_array_equal(kept[:, :8], kept[:, 8:16])
    np.testing.assert_array_equal(kept[7], kept[20])
    assert set(kept[..., 2].ravel()) <= {0.0, 1.0, 2.0}
    # The sixth step of each, after five of an episode, is a reset
    np.testing.assert_array_equal(kept[5, :, 3], 0.0)
    assert kept[:5, :, 3].all()
    path = np.zeros([4, 1, 4], np.float32)
    path[:, 0, 0] = [0.0, 1.0, 0.0, 1.0]  # from left to right, twice
    path[2:, 0, 2] = 1.0  # the second time with the other skill
    path[:, 0, 3] = [1.0, 1.0, 0.0, 1.0]
    path[2:, 0, 1] = 1.0  # and higher up
    colours = skill_paths.picture(path, 2)
    # Red of skill 0 below, cyan of skill 1 above, nothing between them
    assert colours[456, 200].tolist() == [204, 0, 0]
    assert colours[24, 200].tolist() == [0, 204, 204]
    assert (colours[240] == 255).all()


def test_what_cannot_have_skills_is_refused_in_a_line() -> None:
    make_source = functools.partial(DIAYN, skills=2, network=MLP, optimizer=None)
    space = spaces.Box(-1.0, 1.0, (6,), np.float32)
    with pytest.raises(UserError, match="two of the observation's numbers 0 to 3"):
        make_source(None, space, None, 0, drawn=(0, 4))
