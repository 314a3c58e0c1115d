"""Networks over integer ids: words of a text, or any other tokens."""

from collections.abc import Callable

import tensorflow as tf

PADDING = 0  # the id that fills texts up to a common length


class Embedded(tf.keras.layers.Layer):
    """Torso over learned vectors of ids: [B, T] -> [B, T, dimension] -> features [B, F].

    Args:
        torso: a factory of a layer called with (vectors [B, T, dimension], mask=bool [B, T]); the
          mask is false where there is padding, the id 0.
        vocabulary: the number of ids.
        dimension: the length of a vector.
    """

    def __init__(
        self, torso: Callable[[], tf.keras.layers.Layer], vocabulary: int, dimension: int = 32
    ) -> None:
        super().__init__()
        self.vectors = tf.keras.layers.Embedding(vocabulary, dimension)
        self.torso = torso()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.torso(self.vectors(inputs), mask=tf.not_equal(inputs, PADDING))


class Bag(tf.keras.layers.Layer):
    """Mean of the vectors, [B, T, D] -> [B, D]: a text as a bag of words, whose order is lost."""

    def call(self, inputs: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        weights = tf.cast(mask, inputs.dtype)[..., tf.newaxis]  # [B, T, 1]
        return tf.reduce_sum(inputs * weights, axis=1) / tf.maximum(
            tf.reduce_sum(weights, axis=1), 1.0
        )
