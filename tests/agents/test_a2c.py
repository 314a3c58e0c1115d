"""agent=a2c is the actor-critic's gradient: that of log pi(a|s) A, and of the squared error."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.config import targets
from sparring.config.composer import Composer
from sparring.config.validation import Command
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from tests.helpers.small_ppo import KEY, OBSERVATIONS, START, batch_of


def test_a_step_is_along_the_plain_policy_gradient() -> None:
    cfg = Composer("rl").compose(["agent=a2c", "env=cartpole", "agent.entropy_coefficient=0.1"])
    agent = targets.instantiate(cfg.agent)(
        OBSERVATIONS,
        spaces.Discrete(3),
        functools.partial(MLP, (4,)),
        Scheduled(tf.keras.optimizers.SGD(), 1.0),
    )
    # Policies that differ, so that there is something to gain
    agent.trainable[2].assign(tf.reshape(tf.range(12.0) % 5.0 - 2.0, [4, 3]))
    batch = batch_of(agent, 4, advantage=[1.0, -2.0, 3.0, 9.0], mask=[1, 1, 1, 0], returns=2.0)
    counted = tf.nest.map_structure(lambda x: x[:3], batch)
    before = [v.numpy() for v in agent.trainable]
    with tf.GradientTape() as tape:
        policy = agent.distribution(counted.observation)
        log_prob = policy.log_prob(counted.action)
        error = tf.square(counted.returns - agent.value(counted.observation))
        gain = log_prob * counted.advantage + 0.1 * policy.entropy()
        loss = tf.reduce_mean(0.5 * error - gain)
    gradients = tape.gradient(loss, agent.trainable)
    agent.update(batch, KEY, START)
    for variable, value, gradient in zip(agent.trainable, before, gradients, strict=True):
        np.testing.assert_allclose(variable, value - gradient, rtol=1e-4, atol=1e-6)


def test_it_takes_one_step_on_a_rollout_by_rmsprop_and_refuses_several() -> None:
    cfg = Composer("rl").compose(["agent=a2c", "env=cartpole"])
    assert (cfg.trainer.epochs, cfg.trainer.minibatches) == (1, 1)
    assert cfg.optimizer.optimizer._target_.endswith("RMSprop")
    assert cfg.optimizer.optimizer.rho == 0.99
    command = ["agent=a2c", "env=cartpole", "memory=lstm", "run.name=x"]
    with pytest.raises(UserError, match=r"trainer\.minibatches=4: A2C takes one step"):
        Command(Composer("rl"), command, multirun=False)
    Command(Composer("rl"), [*command, "trainer.minibatches=1"], multirun=False)
