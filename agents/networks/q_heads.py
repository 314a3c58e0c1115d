"""Heads of value networks: the last layers, from features [B, F] to the values of actions [B, A].

A head of your own is a Keras layer whose constructor takes the number of actions first, and, for
agents that learn the distribution of returns, then the numbers `atoms` that describe each action's:
it returns [B, A, atoms].
"""

from collections.abc import Sequence

import tensorflow as tf

from sparring.agents.networks.noisy import NoisyDense


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
    """A dense layer with one output for each of `count` actions, or `atoms` for each."""

    def __init__(self, count: int, atoms: int | None = None) -> None:
        super().__init__(count * (atoms or 1), kernel_initializer=_uniform())
        self.shape = _shape(count, atoms)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        return tf.reshape(super().call(features), [-1, *self.shape])


class NoisyHead(tf.keras.layers.Layer):
    """Noisy dense layers: hidden ones of `units` rectified units, and the last.

    See sparring.agents.networks.noisy; `std` is the noise that it begins with.
    """

    def __init__(
        self, count: int, atoms: int | None = None, units: Sequence[int] = (64,), std: float = 0.5
    ) -> None:
        super().__init__()
        self.branch = _branch(units, count * (atoms or 1), std)
        self.shape = _shape(count, atoms)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        return tf.reshape(self.branch(features), [-1, *self.shape])


class DuelingHead(tf.keras.layers.Layer):
    """Value of the state plus the advantage of each action over their mean.

    Q(s, a) = V(s) + A(s, a) - mean of A(s, .) (Wang et al. 2016, "Dueling network architectures",
    eq. 9); of several `atoms`, each is such a sum (Hessel et al. 2018, "Rainbow", section 4). Value
    and advantages have hidden layers of `units` rectified units of their own; with `std` all of
    these layers are noisy, and begin with that noise (see sparring.agents.networks.noisy).
    """

    def __init__(
        self,
        count: int,
        atoms: int | None = None,
        units: Sequence[int] = (64,),
        std: float | None = None,
    ) -> None:
        super().__init__()
        self.value = _branch(units, atoms or 1, std)
        self.advantage = _branch(units, count * (atoms or 1), std)
        self.shape = _shape(count, atoms)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        advantage = tf.reshape(self.advantage(features), [-1, *self.shape])  # [B, A, ...]
        value = tf.reshape(self.value(features), [-1, 1, *self.shape[1:]])
        return value + advantage - tf.reduce_mean(advantage, axis=1, keepdims=True)


def _shape(count: int, atoms: int | None) -> list[int]:
    return [count] if atoms is None else [count, atoms]


def _branch(units: Sequence[int], outputs: int, std: float | None) -> tf.keras.Sequential:
    if std is not None:
        hidden = [NoisyDense(int(n), "relu", std) for n in units]
        return tf.keras.Sequential([*hidden, NoisyDense(outputs, None, std)])
    hidden = [tf.keras.layers.Dense(int(n), "relu") for n in units]
    return tf.keras.Sequential(
        [*hidden, tf.keras.layers.Dense(outputs, kernel_initializer=_uniform())]
    )
