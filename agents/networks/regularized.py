"""Layers that act otherwise while they learn: dropout and batch renormalisation.

Keras' own draw from a global generator and change their statistics wherever they are called. These
are told by `Learning` what to do, so that a stopped run goes on exactly, and replicas agree.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from sparring.distribute import replicas
from sparring.errors import UserError
from sparring.networks.mlp import fresh
from sparring.xla import random


class Learning(NamedTuple):
    """Instructions to layers that learn from a batch of B rows.

    `keys` uint32 [B, 2] are those of dropout; None: nothing is dropped. `weights` [B] say how much
    a row counts in the moments of its batch; None: running moments are used, and stay. The running
    moments move by the share `update` [] of what they usually do.
    """

    keys: tf.Tensor | None = None
    weights: tf.Tensor | None = None
    update: tf.Tensor | float = 1.0


ACTING = Learning()


def dropout(inputs: tf.Tensor, rate: float, keys: tf.Tensor) -> tf.Tensor:
    """Return inputs [B, F], each zero with probability `rate` and else divided by 1 - rate.

    Row i's are drawn from keys[i] [2] alone (Srivastava et al. 2014, "Dropout: a simple way to
    prevent neural networks from overfitting", in the form that needs no scaling when acting).
    """
    kept = random.uniform(keys, inputs.shape[-1]) >= rate
    return tf.where(kept, inputs / (1.0 - rate), 0.0)


class BatchRenorm(tf.keras.layers.Layer):
    """Batch renormalisation of features [B, F] (Ioffe 2017, algorithm 1).

    While learning, (x - batch mean) / batch standard deviation * r + d, in which r and d make it
    the running moments' normalisation as far as r_max and d_max allow; no gradient passes through
    them. For the first `warmup` batches r is 1 and d is 0: batch normalisation (Ioffe and Szegedy
    2015). Else the running moments normalise. Moments are of all replicas' rows.
    """

    def __init__(
        self,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        r_max: float = 3.0,
        d_max: float = 5.0,
        warmup: int = 100_000,
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.epsilon = epsilon
        self.r_max = r_max
        self.d_max = d_max
        self.warmup = float(warmup)

    def build(self, input_shape: tf.TensorShape) -> None:
        size = [input_shape[-1]]
        self.gamma = self.add_weight("gamma", size, initializer="ones")
        self.beta = self.add_weight("beta", size, initializer="zeros")
        self.mean = replicas.replicated(tf.zeros(size))
        self.variance = replicas.replicated(tf.ones(size))
        self.batches = replicas.replicated(0.0)  # learned from so far
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, learning: Learning = ACTING) -> tf.Tensor:
        if learning.weights is None:
            scale = tf.math.rsqrt(self.variance + self.epsilon)
            return (inputs - self.mean) * scale * self.gamma + self.beta
        total, mean, variance = self._moments(inputs, learning.weights)
        deviation = tf.sqrt(variance + self.epsilon)
        running = tf.sqrt(self.variance + self.epsilon)
        r = tf.clip_by_value(deviation / running, 1.0 / self.r_max, self.r_max)
        d = tf.clip_by_value((mean - self.mean) / running, -self.d_max, self.d_max)
        warm = self.batches >= self.warmup
        r = tf.stop_gradient(tf.where(warm, r, 1.0))
        d = tf.stop_gradient(tf.where(warm, d, 0.0))
        normalized = (inputs - mean) / deviation * r + d
        self._take_up(mean, variance, learning.update * tf.cast(total > 0.0, tf.float32))
        return normalized * self.gamma + self.beta

    def _moments(
        self, inputs: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return the sum of `weights` [B], and the weighted mean and variance [F] of the inputs."""
        column = weights[:, tf.newaxis]
        total, away = replicas.all_reduce_sum(
            [tf.reduce_sum(weights), tf.reduce_sum(column * inputs, axis=0)]
        )
        mean = away / tf.maximum(total, 1e-8)
        squares = tf.reduce_sum(column * tf.square(inputs - mean), axis=0)
        return total, mean, replicas.all_reduce_sum(squares) / tf.maximum(total, 1e-8)

    def _take_up(self, mean: tf.Tensor, variance: tf.Tensor, update: tf.Tensor) -> None:
        share = (1.0 - self.momentum) * update
        self.mean.assign_add(share * (tf.stop_gradient(mean) - self.mean))
        self.variance.assign_add(share * (tf.stop_gradient(variance) - self.variance))
        self.batches.assign_add(update)


class RegularizedMLP(tf.keras.layers.Layer):
    """Dense layers of `units` with what holds values down: [B, ...] -> [B, units[-1]].

    `dropout` and `layer_norm` stand between a layer and its activation, in this order (DroQ:
    Hiraoka et al. 2022, "Dropout Q-functions for doubly efficient reinforcement learning", figure
    1). With `batch_renorm`, a factory, the inputs and what follows each activation are normalised
    (CrossQ: Bhatt et al. 2024, "CrossQ: batch normalization in deep reinforcement learning for
    greater sample efficiency and simplicity", section 4).
    """

    def __init__(
        self,
        units: Sequence[int] = (256, 256),
        activation: str = "relu",
        layer_norm: bool = False,
        dropout: float = 0.0,
        batch_renorm: Callable[[], BatchRenorm] | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= dropout < 1.0:
            raise UserError(
                f"network: dropout={dropout} is no share of features: 0 or more, below 1."
            )
        kernel = tf.keras.initializers.Orthogonal(2.0**0.5)
        self.flatten = tf.keras.layers.Flatten()
        self.hidden = [tf.keras.layers.Dense(n, kernel_initializer=fresh(kernel)) for n in units]
        self.activation = tf.keras.activations.get(activation)
        self.norms = [tf.keras.layers.LayerNormalization() for _ in units] if layer_norm else []
        self.rate = dropout
        self.renorms = [] if batch_renorm is None else [batch_renorm() for _ in (0, *units)]

    @property
    def reduces(self) -> bool:
        """Whether replicas meet in a call, in which XLA cannot compile it."""
        return bool(self.renorms)

    def call(self, inputs: tf.Tensor, learning: Learning = ACTING) -> tf.Tensor:
        x = self._renormalized(0, self.flatten(inputs), learning)  # [B, F]
        for i, layer in enumerate(self.hidden):
            x = layer(x)  # [B, units]
            if self.rate > 0.0 and learning.keys is not None:
                x = dropout(x, self.rate, random.fold(learning.keys, i))
            if self.norms:
                x = self.norms[i](x)
            x = self._renormalized(i + 1, self.activation(x), learning)
        return x

    def _renormalized(self, i: int, x: tf.Tensor, learning: Learning) -> tf.Tensor:
        return self.renorms[i](x, learning) if self.renorms else x


def features(network: tf.keras.layers.Layer, inputs: Any, learning: Learning) -> tf.Tensor:
    """Return a network's features [B, F], telling it how it learns if it asks for that."""
    if isinstance(network, RegularizedMLP):
        return network(inputs, learning)
    return network(inputs)
