"""Generator of one-hot data, such as the cells of a board."""

from typing import Any

import tensorflow as tf

from sparring.gans.networks.mlp import MLPGenerator


class CategoricalGenerator(MLPGenerator):
    """Fully connected generator whose outputs are choices: latents [B, Z] -> examples [B, *shape].

    Each `categories` numbers that follow each other are a softmax; with `hard` they are the one-hot
    of its largest, and the gradient is the softmax's (straight-through, Bengio et al. 2013).
    """

    def __init__(
        self, *arguments: Any, categories: int, hard: bool = True, **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self.categories = categories
        self.hard = hard

    def call(self, latents: tf.Tensor, labels: tf.Tensor, training: bool = False) -> tf.Tensor:
        logits = super().call(latents, labels, training=training)  # [B, *shape]
        choices = tf.nn.softmax(tf.reshape(logits, [-1, self.categories]))  # [B * cells, K]
        if self.hard:
            largest = tf.one_hot(tf.argmax(choices, axis=-1), self.categories, dtype=choices.dtype)
            choices += tf.stop_gradient(largest - choices)
        return tf.reshape(choices, tf.shape(logits))
