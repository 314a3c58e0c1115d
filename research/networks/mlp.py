"""Fully connected networks."""

from collections.abc import Sequence

import tensorflow as tf


def fresh(
    initializer: tf.keras.initializers.Initializer | str,
) -> tf.keras.initializers.Initializer:
    """Return a new initializer of the same settings.

    One unseeded Keras initializer gives every layer the same numbers.
    """
    initializer = tf.keras.initializers.get(initializer)
    return type(initializer).from_config(initializer.get_config())


class MLP(tf.keras.layers.Layer):
    """Dense layers of `units`, each followed by `activation`: [B, ...] -> [B, units[-1]].

    Inputs are flattened. The default initialisation is orthogonal with gain sqrt(2) and zero
    biases, as in the PPO baselines (Huang et al. 2022, "The 37 implementation details of proximal
    policy optimization", detail 2).
    """

    def __init__(
        self,
        units: Sequence[int] = (64, 64),
        activation: str = "tanh",
        kernel_initializer: tf.keras.initializers.Initializer | str | None = None,
        bias_initializer: tf.keras.initializers.Initializer | str = "zeros",
    ) -> None:
        super().__init__()
        kernel = (
            tf.keras.initializers.Orthogonal(2.0**0.5)
            if kernel_initializer is None
            else kernel_initializer
        )
        self.flatten = tf.keras.layers.Flatten()
        self.hidden = [
            tf.keras.layers.Dense(
                n,
                activation,
                kernel_initializer=fresh(kernel),
                bias_initializer=fresh(bias_initializer),
            )
            for n in units
        ]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = self.flatten(inputs)  # [B, F]
        for layer in self.hidden:
            x = layer(x)  # [B, units]
        return x
