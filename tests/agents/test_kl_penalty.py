"""The KL penalty: divergences, its loss and its gradient by hand, and its coefficient's course."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from tensorflow_probability import distributions as tfd

from sparring.agents.kl_penalty import AdaptiveKL
from sparring.agents.networks import distributions
from sparring.agents.networks.box_heads import BoxBeta, SquashedNormal
from sparring.agents.networks.distributions import IMPOSSIBLE
from sparring.agents.networks.state_dependent_noise import StateDependentNoise
from sparring.agents.ppo import PPO
from sparring.errors import UserError
from tests.helpers.small_ppo import KEY, OBSERVATIONS, START, batch_of, keys, make, observations

EVEN = np.log([[0.5, 0.5]]).astype(np.float32)
QUARTER = np.log([[0.25, 0.75]]).astype(np.float32)
# KL((1/2, 1/2) || (1/4, 3/4)) = (log 2 + log 2/3) / 2
DIVERGENCE = 0.1438410
NORMAL = {"mean": tf.zeros([1, 2]), "stddev": tf.ones([1, 2])}
BOUNDS = np.float32([-3.0, -3.0]), np.float32([5.0, 5.0])
# Each of two numbers: log 2 + (1 + 1) / (2 * 4) - 1/2
OF_NORMALS = 2 * 0.4431472


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"logits": EVEN}, tfd.Categorical(logits=QUARTER), DIVERGENCE),
        (  # the same, with an action that neither allows
            {"logits": np.append(EVEN, [[IMPOSSIBLE]], 1).astype(np.float32)},
            tfd.Categorical(logits=np.append(QUARTER, [[IMPOSSIBLE]], 1).astype(np.float32)),
            DIVERGENCE,
        ),
        (  # two choices, the second of which has not changed
            {"logits": np.stack([EVEN, QUARTER], 1)},
            tfd.Independent(tfd.Categorical(logits=np.stack([QUARTER, QUARTER], 1)), 1),
            DIVERGENCE,
        ),
        (NORMAL, tfd.MultivariateNormalDiag(tf.ones([1, 2]), 2 * tf.ones([1, 2])), OF_NORMALS),
        (NORMAL, SquashedNormal(tf.ones([1, 2]), 2 * tf.ones([1, 2]), *BOUNDS), OF_NORMALS),
        (  # a standard deviation of sqrt(1^2 * 2^2)
            NORMAL,
            StateDependentNoise(tf.ones([1, 2]), tf.ones([1, 1]), 2 * tf.ones([1, 2])),
            OF_NORMALS,
        ),
        (  # the integral of 2 x log(2 x) from 0 to 1: log 2 - 1/2, whatever the bounds
            {"alpha": tf.constant([[2.0, 1.0]]), "beta": tf.ones([1, 2])},
            BoxBeta(tf.ones([1, 2]), tf.ones([1, 2]), *BOUNDS),
            0.1931472,
        ),
    ],
)
def test_divergences_by_hand(old, new, expected) -> None:
    np.testing.assert_allclose(distributions.kl_divergence(old, new), [expected], rtol=1e-5)


def moved(**settings) -> tuple[PPO, object]:
    """An agent of probabilities 1/4 and 3/4, and three steps of one of 1/2 and 1/2."""
    agent = make(
        spaces.Discrete(2),
        clip=None,
        value_coefficient=0.0,
        kl_penalty=functools.partial(AdaptiveKL, **settings),
        normalize_advantage=False,
        learning_rate=1.0,
    )
    agent.trainable[2].assign(tf.zeros([4, 2]))  # the logits' kernel
    agent.trainable[3].assign(QUARTER[0])
    batch = batch_of(agent, 3, advantage=0.0, mask=[1.0, 1.0, 0.0])
    # The step that does not count was taken by another policy
    old = np.concatenate([EVEN, EVEN, 9.0 * EVEN * [[0.0, 1.0]]]).astype(np.float32)
    return agent, batch._replace(policy={"logits": tf.constant(old)})


def test_the_loss_is_the_coefficient_times_the_divergence() -> None:
    agent, batch = moved(coefficient=3.0)
    result = agent.update(batch, KEY, START)
    np.testing.assert_allclose(result["loss/kl"], 3.0 * DIVERGENCE, rtol=1e-5)
    np.testing.assert_allclose(result["loss/total"], result["loss/kl"], rtol=1e-5)
    # Its gradient by the new logits is 3 times new minus old: 3 * (1/4 - 1/2, 3/4 - 1/2)
    change = agent.trainable[3].numpy() - QUARTER[0]
    np.testing.assert_allclose(change, [0.75, -0.75], rtol=1e-5)


@pytest.mark.parametrize(
    ("target", "after"),
    [
        (0.09, 6.0),  # 0.1438 is above 1.5 * 0.09 = 0.135
        (0.1, 3.0),  # within 0.0667 and 0.15
        (0.21, 3.0),  # above 0.21 / 1.5 = 0.14
        (0.22, 1.5),  # below 0.1467
    ],
)
def test_the_coefficient_follows_the_divergence_of_an_iteration(target, after) -> None:
    agent, batch = moved(target=target, coefficient=3.0)
    result = agent.finish(batch, START)
    np.testing.assert_allclose(result["policy/kl"], DIVERGENCE, rtol=1e-5)
    assert float(result["policy/kl_coefficient"]) == 3.0
    assert float(agent.kl_penalty.coefficient) == after


def test_a_coefficient_finds_back_from_either_end() -> None:
    for target, first, last in ((1e-9, 1e6, 1e6), (1e9, 1e-6, 1e-6)):
        agent, batch = moved(target=target, coefficient=first)
        agent.finish(batch, START)
        np.testing.assert_allclose(agent.kl_penalty.coefficient, last, rtol=1e-6)


def test_the_surrogate_is_not_clipped() -> None:
    agent = make(clip=None, normalize_advantage=False)
    result = agent.update(batch_of(agent, 1, 1.5, 2.0), KEY, START)
    np.testing.assert_allclose(result["loss/policy"], -3.0, rtol=1e-5)
    assert not {"policy/clip_fraction", "schedule/clip"} & {
        *result,
        *agent.finish(batch_of(agent, 1), START),
    }


def test_the_old_policy_is_the_one_that_acted() -> None:
    agent = make(spaces.MultiDiscrete([2, 3]), clip=None, kl_penalty=AdaptiveKL)
    _, kept = agent.act(observations(5), keys(5), tf.constant(0.0))
    old = agent.kl_penalty.parameters(kept)
    policy = agent.distribution(observations(5))
    assert old.keys() == {"logits"}
    np.testing.assert_allclose(distributions.kl_divergence(old, policy), np.zeros(5), atol=1e-6)


class Laplaces(tf.keras.layers.Layer):
    """A policy that nothing here knows."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self.mean = tf.keras.layers.Dense(space.shape[0])

    def call(self, features: tf.Tensor) -> tfd.Distribution:
        return tfd.Independent(tfd.Laplace(self.mean(features), 1.0), 1)


class Own(distributions.KeyedDistribution):
    """A distribution without a divergence."""

    def __init__(self) -> None:
        super().__init__(tf.float32, tfd.NOT_REPARAMETERIZED, False, True)


def test_a_policy_of_unknown_divergence_is_refused() -> None:
    agent = PPO(OBSERVATIONS, spaces.Box(-1, 1, (2,)), head=Laplaces, kl_penalty=AdaptiveKL)
    with pytest.raises(UserError, match=r"agent\.kl_penalty: .* of a Independent is not known"):
        agent.act(observations(2), keys(2), tf.constant(0.0))
    with pytest.raises(UserError, match=r"agent\.kl_penalty: Own has no divergence_from"):
        distributions.kl_divergence({}, Own())
