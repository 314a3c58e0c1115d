"""Fully connected generator and discriminator."""

from collections.abc import Sequence

import tensorflow as tf

from sparring.gans.networks.dropout import Dropout
from sparring.gans.networks.layers import (
    NORMALIZATIONS,
    DenseLayer,
    Head,
    append_label,
    check_choice,
    leaky_relu,
)


class MLPGenerator(tf.keras.layers.Layer):
    """Fully connected generator with ReLU: latents [B, Z] -> examples [B, *shape].

    A label is appended to the latents as a one-hot vector. `normalization`: none | batch. `bounded`
    ends in tanh, for images in [-1, 1].
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int = 0,
        units: Sequence[int] = (128, 128),
        normalization: str = "none",
        bounded: bool = False,
    ) -> None:
        super().__init__()
        check_choice(normalization, ("none", "batch"), "network.generator")
        self.shape = tuple(shape)
        self.classes = classes
        self.bounded = bounded
        self.hidden = [DenseLayer(n, normalization, tf.nn.relu) for n in units]
        self.out = tf.keras.layers.Dense(tf.TensorShape(self.shape).num_elements())

    def call(self, latents: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = append_label(latents, labels, self.classes)  # [B, Z + classes]
        for layer in self.hidden:
            x = layer(x, training=training)  # [B, units]
        x = tf.reshape(self.out(x), [-1, *self.shape])
        return tf.tanh(x) if self.bounded else x


class MLPDiscriminator(tf.keras.layers.Layer):
    """Fully connected discriminator with leaky ReLU: examples [B, *shape] -> logits [B].

    Inputs are flattened. `normalization`: none | batch | layer | spectral. `dropout` is the share
    of a hidden layer's features that is zero in a learning step (see
    `sparring.gans.networks.dropout`). A label adds its projection (Miyato and Koyama 2018).
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int = 0,
        units: Sequence[int] = (128, 128),
        normalization: str = "none",
        slope: float = 0.2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice(normalization, NORMALIZATIONS, "network.discriminator")
        self.flatten = tf.keras.layers.Flatten()
        self.dropouts = [Dropout(dropout) for _ in units] if dropout > 0.0 else []
        self.hidden = [DenseLayer(n, normalization, leaky_relu(slope)) for n in units]
        self.head = Head(classes, normalization)

    def call(self, examples: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = self.flatten(examples)  # [B, F]
        for i, layer in enumerate(self.hidden):
            x = layer(x, training=training)  # [B, units]
            if self.dropouts:
                x = self.dropouts[i](x, training=training)
        return self.head(x, labels)
