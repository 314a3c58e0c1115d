"""Heads of value networks, by hand, and under the agent that is given one."""

import functools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.conformance import check_agent
from sparring.agents.dqn import DQN
from sparring.agents.networks.distributions import CategoricalHead
from sparring.agents.networks.q_heads import DuelingHead, QHead
from sparring.agents.ppo import PPO
from sparring.networks.mlp import MLP

SEEN = spaces.Box(-1.0, 1.0, (3,))


def test_a_dueling_head_adds_the_value_to_centred_advantages() -> None:
    head = DuelingHead(3, units=())
    features = tf.constant([[1.0, 2.0]])
    head(features)
    head.value.layers[-1].kernel.assign([[1.0], [1.0]])
    head.value.layers[-1].bias.assign([0.5])
    head.advantage.layers[-1].kernel.assign([[1.0, 0.0, 2.0], [0.0, 1.0, 2.0]])
    # V = 1 + 2 + 0.5 = 3.5; A = (1, 2, 6), whose mean is 3
    np.testing.assert_allclose(head(features), [[1.5, 2.5, 6.5]])
    head.advantage.layers[-1].bias.assign([7.0, 7.0, 7.0])  # which says nothing of the actions
    np.testing.assert_allclose(head(features), [[1.5, 2.5, 6.5]])


@pytest.mark.long
def test_an_agent_with_a_dueling_head_has_a_target_with_weights_of_its_own() -> None:
    head = functools.partial(DuelingHead, units=(5,))
    make = functools.partial(DQN, double=True, network=functools.partial(MLP, (4,)), head=head)
    check_agent(make, SEEN, spaces.Discrete(3))
    agent = make(SEEN, spaces.Discrete(3))
    assert isinstance(agent._q_network._head, DuelingHead)
    # A torso's layer, and two layers in each branch: kernels and biases
    assert len(agent.trainable) == 2 + 2 * 2 * 2
    ours = {w.ref() for w in agent.trainable}
    assert not ours & {w.ref() for w in agent._target_q_network.trainable_weights}


@pytest.mark.long
def test_a_policy_has_the_head_that_it_is_given() -> None:
    class Stubborn(CategoricalHead):
        """Has logits that do not depend on what is seen."""

        def __init__(self, space: spaces.Discrete) -> None:
            super().__init__(int(space.n))

        def call(self, features: tf.Tensor) -> Any:
            return super().call(tf.zeros_like(features))

    agent = PPO(SEEN, spaces.Discrete(3), functools.partial(MLP, (4,)), head=Stubborn)
    agent._actor_net._head.logits.bias.assign([0.0, 1.0, 2.0])
    assert np.asarray(agent.act_greedy(tf.random.normal([5, 3]))).tolist() == [2] * 5


def test_the_usual_head_is_a_dense_layer() -> None:
    head = QHead(2)
    head.build([None, 3])
    assert head.kernel.shape == (3, 2)
    # Uniform within sqrt(3 / 3) of zero: VarianceScaling(1, fan_in, uniform)
    assert np.abs(head.kernel).max() <= 1.0
