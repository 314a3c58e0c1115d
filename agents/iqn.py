"""IQN (Dabney et al. 2018, "Implicit quantile networks for distributional reinforcement
learning").
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import tensorflow as tf

from sparring.agents.networks.q_heads import DistributionalHead
from sparring.agents.qr_dqn import QRDQN, midpoints
from sparring.xla import random


class ImplicitQuantiles(DistributionalHead):
    """Quantiles of each action's return at any levels, of features [B, F].

    A level's embedding is a layer of rectified units over `cosines` cosines of it (eq. 4), and
    multiplies the features. Called as a layer it takes the `levels` levels (i + 1/2) / levels.
    """

    def __init__(self, values: tf.keras.layers.Layer, levels: int, cosines: int) -> None:
        super().__init__()
        self.values = values
        self.levels = levels
        self.cosines = cosines

    def build(self, input_shape: Any) -> None:
        self.embedding = tf.keras.layers.Dense(int(input_shape[-1]), "relu")

    def call(self, features: tf.Tensor) -> tf.Tensor:
        return self.at(features, midpoints(self.levels)[tf.newaxis])

    def at(self, features: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
        """Return quantiles [B, A, N] at `levels` [1 or B, N]."""
        orders = tf.range(1, self.cosines + 1, dtype=tf.float32)
        embedded = self.embedding(tf.cos(math.pi * levels[..., tf.newaxis] * orders))
        joint = features[:, tf.newaxis, :] * embedded  # [B, N, F]
        width = joint.shape[2]
        values = self.values(tf.reshape(joint, [-1, width]))  # [B * N, A]
        each = tf.reshape(values, [-1, levels.shape[1], values.shape[1]])
        return tf.transpose(each, [0, 2, 1])

    def expected(self, outputs: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(outputs, axis=-1)


class IQN(QRDQN):
    """DQN of quantiles of the return at levels that are drawn for each update.

    `quantiles` levels are drawn of the online network, `next_quantiles` of the target network
    (the paper's N and N'), and `acting_quantiles` fixed ones are averaged for an action's value.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        *arguments: Any,
        quantiles: int = 8,
        next_quantiles: int = 8,
        acting_quantiles: int = 32,
        cosines: int = 64,
        **settings: Any,
    ) -> None:
        self.next_quantiles = int(next_quantiles)
        self.acting_quantiles = int(acting_quantiles)
        self.cosines = int(cosines)
        self._key: tf.Tensor | None = None  # while an update is traced
        super().__init__(
            observation_space, action_space, *arguments, quantiles=quantiles, **settings
        )

    def _make_head(self, head: Callable[..., tf.keras.layers.Layer]) -> tf.keras.layers.Layer:
        return ImplicitQuantiles(head(self.num_actions), self.acting_quantiles, self.cosines)

    @contextmanager
    def _drawing(self, key: tf.Tensor) -> Iterator[None]:
        self._key = key
        with super()._drawing(key):
            yield
        self._key = None

    def now(self, observation: Any) -> tuple[tf.Tensor, tf.Tensor]:
        return self._drawn(self._q_network, observation, 2, self.quantiles)

    def after(self, observation: Any) -> tuple[tf.Tensor, tf.Tensor]:
        drawn, _ = self._drawn(self._target_q_network, observation, 3, self.next_quantiles)
        return drawn, self._target_q_network(observation)[0]

    def _drawn(
        self, network: Any, observation: Any, number: int, count: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Quantiles [M, A, count] of a network at levels [M, count] of their own, and these."""
        assert self._key is not None
        features = network.features(observation)  # [M, F]
        keys = random.members(random.fold(self._key, number), features.shape[0])
        levels = random.uniform(keys, count)
        return network._head.at(features, levels), levels
