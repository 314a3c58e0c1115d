"""PQN by hand, with Q(s) = s: a network without hidden layers, whose kernel is the identity."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.conformance import check_agent
from sparring.agents.pqn import PQN, Steps
from sparring.agents.training.rollout import Rollout
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.optim.schedules import Linear
from sparring.xla import random

SEEN = spaces.Box(-100, 100, (2,))
KEY = tf.constant([1, 2], tf.uint32)
HALF = tf.constant(0.5)


def make(learning_rate: float = 0.0, **settings) -> PQN:
    scheduled = Scheduled(tf.keras.optimizers.SGD(), learning_rate)
    network = functools.partial(MLP, ())
    agent = PQN(SEEN, spaces.Discrete(2), network, scheduled, **{"discount": 0.5} | settings)
    kernel, bias = agent._q_network.trainable_weights
    kernel.assign(np.eye(2))
    bias.assign([0.0, 0.0])
    return agent


def rollout(agent: PQN, observation, reward, terminated, truncated, first) -> Rollout:
    """Of one environment; actions are those of the higher value."""
    seen = tf.constant(observation, tf.float32)[:, tf.newaxis]  # [T + 1, 1, 2]
    flags = (tf.constant(x)[:, tf.newaxis] > 0 for x in (terminated, truncated, first))
    value = tf.reduce_max(seen[:-1], axis=2)
    action = tf.argmax(seen[:-1], axis=2, output_type=tf.int32)
    reward = tf.constant(reward, tf.float32)[:, tf.newaxis]
    return Rollout(seen, action, reward, *flags, {"value": value}, ())


def returns(agent: PQN, *columns) -> list[float]:
    given = rollout(agent, *columns)
    return agent.examples(given, given.reward).returns[:, 0].numpy().tolist()


def test_lambda_returns_mix_the_next_value_with_the_next_return() -> None:
    agent = make(trace=0.5)
    observation = [[1, 0], [0, 2], [4, 3], [8, 0]]  # values 1, 2, 4, 8
    none = [0, 0, 0]
    # The last: 1 + 8/2 = 5. Before it: 1 + (4/2 + 5/2)/2 = 3.25. First: 1 + (2/2 + 3.25/2)/2 =
    # 2.3125
    assert returns(agent, observation, [1, 1, 1], none, none, none) == [2.3125, 3.25, 5.0]
    # Terminated by the second step: 1; first: 1 + (2/2 + 1/2)/2
    assert returns(agent, observation, [1, 1, 1], [0, 1, 0], none, [0, 0, 1])[:2] == [1.75, 1.0]
    # Truncated there: 1 + 4/2; first: 1 + (2/2 + 3/2)/2
    assert returns(agent, observation, [1, 1, 1], none, [0, 1, 0], [0, 0, 1])[:2] == [2.25, 3.0]


def test_the_loss_is_over_the_steps_that_count() -> None:
    agent = make(learning_rate=1.0)
    batch = Steps(
        tf.constant([[1.0, 2.0], [3.0, 1.0], [9.0, 9.0]]),
        tf.constant([1, 0, 0]),
        tf.constant([5.0, 2.0, 100.0]),
        tf.constant([1.0, 1.0, 0.0]),
    )
    # Errors 5 - 2 and 2 - 3: half of 9 and 1, mean over two
    gradients, scalars = agent.gradients(batch, KEY, HALF)
    assert float(scalars["loss/td"]) == pytest.approx((4.5 + 0.5) / 2)
    assert float(scalars["q/td_error"]) == pytest.approx((3 + 1) / 2)
    assert float(scalars["q/mean"]) == pytest.approx((2 + 3) / 2)
    # Minus the error times the observation, over two, in the column of the action
    expected = -np.array([[-1 * 3, 3 * 1], [-1 * 1, 3 * 2]]) / 2
    np.testing.assert_allclose(gradients[0], expected)
    norms = agent.step(gradients, HALF)
    np.testing.assert_allclose(agent._q_network.trainable_weights[0], np.eye(2) - expected)
    assert float(norms["gradient/norm"]) > 0.0


def test_acting_follows_epsilon_and_keeps_the_best_value() -> None:
    agent = make(epsilon=Linear(1.0, 0.0))
    seen = tf.tile([[1.0, 2.0]], [4000, 1])
    keys = random.members(random.stream(0, "policy"), 4000)
    action, kept = agent.act(seen, keys, HALF)
    np.testing.assert_array_equal(kept["value"], np.full(4000, 2.0, np.float32))
    # A half of the actions is uniform: a quarter is the other one
    assert abs(float(np.mean(action == 0)) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)


@pytest.mark.long
def test_it_keeps_the_contract_with_masks() -> None:
    mask = spaces.Box(0, 1, (3,), np.uint8)
    space = spaces.Dict(observation=spaces.Box(-1, 1, (3,)), action_mask=mask)
    network = functools.partial(MLP, (4,), layer_norm=True)
    make = functools.partial(PQN, network=network, normalize_observations=True, boltzmann=1.0)
    check_agent(make, space, spaces.Discrete(3))


def test_a_memory_is_refused() -> None:
    with pytest.raises(UserError, match=r"agent.memory: .* use agent=ppo or agent=r2d2"):
        make(memory=MLP)
