"""Models of supervised training, created by factories called with `outputs`, their output size."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import tensorflow as tf


class Headed(tf.keras.layers.Layer):
    """Linear head on a torso: inputs [B, ...] -> features [B, F] -> [B, outputs].

    The torso is given as a factory, as an agent's network is, so that one serves as the other.
    """

    def __init__(self, outputs: int, torso: Callable[[], tf.keras.layers.Layer]) -> None:
        super().__init__()
        self.torso = torso()
        self.head = tf.keras.layers.Dense(outputs)

    def features(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the input of the head, [B, F]."""
        return self.torso(inputs)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.head(self.torso(inputs))  # Keras passes `training` on to layers that take it

    def linear_weights(self) -> np.ndarray | None:
        """Return the head's weights [F + 1, outputs], the last row the bias, of a linear model.

        The model is linear if the torso has no weights of its own; otherwise returns None.
        """
        if self.torso.weights:
            return None
        return np.concatenate([self.head.kernel.numpy(), self.head.bias.numpy()[None]])


class Factors(tf.keras.layers.Layer):
    """Matrix factorisation: users int64 [B] -> a logit u . v + b for each item [B, outputs].

    Koren et al. 2009.

    Args:
        outputs: the number of items.
        users: the number of users.
        dimension: the length of the vectors of users and items.
    """

    def __init__(self, outputs: int, users: int, dimension: int = 16) -> None:
        super().__init__()
        start = tf.keras.initializers.RandomNormal(stddev=dimension**-0.5)
        self.users = tf.keras.layers.Embedding(users, dimension, embeddings_initializer=start)
        # Its kernel is v, [D, items]
        self.items = tf.keras.layers.Dense(outputs, kernel_initializer="glorot_normal")

    def features(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the vectors of users, [B, D]."""
        return self.users(inputs)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.items(self.users(inputs))


@runtime_checkable
class HasFeatures(Protocol):
    """Model that shows the features its head works on, for the projector."""

    def features(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return features [B, F] of inputs [B, ...]."""
