"""Models of supervised training: made by a factory called with `outputs`, they say that many
numbers of each input.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import tensorflow as tf


class Headed(tf.keras.layers.Layer):
    """A torso, which turns inputs [B, ...] into features [B, F], and a linear head: -> [B,
    outputs].

    The torso comes as a factory, as an agent's network does, so that whatever serves the one serves
    the other.
    """

    def __init__(self, outputs: int, torso: Callable[[], tf.keras.layers.Layer]) -> None:
        super().__init__()
        self.torso = torso()
        self.head = tf.keras.layers.Dense(outputs)

    def features(self, inputs: tf.Tensor) -> tf.Tensor:
        """What the head is shown, [B, F]."""
        return self.torso(inputs)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.head(self.torso(inputs))  # Keras hands `training` on to what asks for it

    def linear_weights(self) -> np.ndarray | None:
        """If the torso has no weights of its own: the head's [F + 1, outputs], the last row the
        bias; else None.
        """
        if self.torso.weights:
            return None
        return np.concatenate([self.head.kernel.numpy(), self.head.bias.numpy()[None]])


class Factors(tf.keras.layers.Layer):
    """Matrix factorisation: users int64 [B] -> a logit for each item [B, outputs], u . v + b (Koren
    et al. 2009).

    Args:
      users: how many there are.
      dimension: numbers that a user, and an item, is made of.
    """

    def __init__(self, outputs: int, users: int, dimension: int = 16) -> None:
        super().__init__()
        start = tf.keras.initializers.RandomNormal(stddev=dimension**-0.5)
        self.users = tf.keras.layers.Embedding(users, dimension, embeddings_initializer=start)
        # Its kernel is v, [D, items]
        self.items = tf.keras.layers.Dense(outputs, kernel_initializer="glorot_normal")

    def features(self, inputs: tf.Tensor) -> tf.Tensor:
        """What users are made of, [B, D]."""
        return self.users(inputs)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.items(self.users(inputs))


@runtime_checkable
class HasFeatures(Protocol):
    """Model that shows the features its head works on, for the projector."""

    def features(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return features [B, F] of inputs [B, ...]."""
