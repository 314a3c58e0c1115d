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


class LayerNorm(tf.keras.layers.Layer):
    """Layer normalisation (Ba et al. 2016) over the last axis, or `axes`, and an activation."""

    def __init__(self, activation: str, axes: Sequence[int] = (-1,)) -> None:
        super().__init__()
        self.norm = tf.keras.layers.LayerNormalization(list(axes), epsilon=1e-6)
        self.activation = tf.keras.activations.get(activation)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.activation(self.norm(inputs))


class MLP(tf.keras.layers.Layer):
    """Dense layers of `units`, each followed by `activation`: [B, ...] -> [B, units[-1]].

    Inputs are flattened. The default initialisation is orthogonal with gain sqrt(2) and zero
    biases, as in the PPO baselines (Huang et al. 2022, "The 37 implementation details of proximal
    policy optimization", detail 2).
    With `layer_norm` each layer is normalised (Ba et al. 2016) before its activation.
    """

    def __init__(
        self,
        units: Sequence[int] = (64, 64),
        activation: str = "tanh",
        kernel_initializer: tf.keras.initializers.Initializer | str | None = None,
        bias_initializer: tf.keras.initializers.Initializer | str = "zeros",
        layer_norm: bool = False,
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
                None if layer_norm else activation,
                kernel_initializer=fresh(kernel),
                bias_initializer=fresh(bias_initializer),
            )
            for n in units
        ]
        self.norms = [LayerNorm(activation) for _ in units] if layer_norm else []

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = self.flatten(inputs)  # [B, F]
        for number, layer in enumerate(self.hidden):
            x = layer(x)  # [B, units]
            if self.norms:
                x = self.norms[number](x)
        return x
