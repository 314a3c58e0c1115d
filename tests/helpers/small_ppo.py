"""PPO of few weights, and minibatches whose ratios and returns are chosen.

A ratio r of new to old probability is made by storing the logarithm of the present probability
minus ln r.
"""

import functools

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.advantages import Minibatch
from sparring.agents.ppo import PPO
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.xla import random

OBSERVATIONS = spaces.Box(-10, 10, (3,))
START = tf.constant(0.0)
END = tf.constant(1.0)
KEY = tf.constant([1, 2], tf.uint32)  # nothing is drawn with it


def make(space=None, learning_rate=0.0, optimizer=None, units=(4,), **settings) -> PPO:
    space = space or spaces.Discrete(3)
    scheduled = Scheduled(optimizer or tf.keras.optimizers.SGD(), learning_rate)
    return PPO(OBSERVATIONS, space, functools.partial(MLP, units), scheduled, **settings)


def observations(count: int, stream: str = "observations") -> tf.Tensor:
    return tf.reshape(random.normal(random.stream(0, stream), 3 * count), [count, 3])


def keys(count: int, seed: int = 0) -> tf.Tensor:
    return random.members(random.stream(seed, "policy"), count)


def batch_of(
    agent: PPO, count: int, ratio=1.0, advantage=1.0, mask=1.0, value=None, returns=None
) -> Minibatch:
    seen = observations(count)
    action, kept = agent.act(seen, keys(count), tf.constant(0.0))
    log_prob = kept["log_prob"]
    now = kept["value"]
    value = now if value is None else now + tf.cast(value, tf.float32)
    returns = value if returns is None else value + tf.cast(returns, tf.float32)
    advantage, mask = (tf.zeros([count]) + tf.cast(x, tf.float32) for x in (advantage, mask))
    return Minibatch(
        seen, action, log_prob - np.log(ratio).astype(np.float32), value, returns, advantage, mask
    )
