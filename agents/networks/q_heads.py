"""Heads of value networks: the last layers, from features [B, F] to the values of actions [B, A].

A head of your own is a Keras layer whose constructor takes the number of actions first.
"""

from collections.abc import Sequence

import tensorflow as tf


def _uniform() -> tf.keras.initializers.Initializer:
    return tf.keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")


class DistributionalHead(tf.keras.layers.Layer):
    """Base of heads that give more of an action's return than its mean: outputs [B, A, ...].

    An agent acts on what `expected` makes of the outputs; its loss reads them by
    `HeadedNetwork.outputs`.
    """

    def expected(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return the values [B, A] of actions."""
        raise NotImplementedError


class QHead(tf.keras.layers.Dense):
    """A dense layer with one output for each of `count` actions."""

    def __init__(self, count: int) -> None:
        super().__init__(count, kernel_initializer=_uniform())


class DuelingHead(tf.keras.layers.Layer):
    """Value of the state plus the advantage of each action over their mean.

    Q(s, a) = V(s) + A(s, a) - mean of A(s, .) (Wang et al. 2016, "Dueling network architectures",
    eq. 9). Value and advantages have hidden layers of `units` rectified units of their own.
    """

    def __init__(self, count: int, units: Sequence[int] = (64,)) -> None:
        super().__init__()
        self.value = _branch(units, 1)
        self.advantage = _branch(units, count)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        advantage = self.advantage(features)  # [B, A]
        centred = advantage - tf.reduce_mean(advantage, axis=-1, keepdims=True)
        return self.value(features) + centred


def _branch(units: Sequence[int], outputs: int) -> tf.keras.Sequential:
    hidden = [tf.keras.layers.Dense(int(n), "relu") for n in units]
    return tf.keras.Sequential(
        [*hidden, tf.keras.layers.Dense(outputs, kernel_initializer=_uniform())]
    )
