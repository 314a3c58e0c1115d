"""Pair of generator and discriminator factories."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from sparring.errors import UserError
from sparring.optim.precision import computing_in

Factory = Callable[..., tf.keras.layers.Layer]


class Pair:
    """Factories of a GAN's two networks, and the size of a latent vector."""

    def __init__(self, generator: Factory, discriminator: Factory, latent: int) -> None:
        self.generator = generator
        self.discriminator = discriminator
        self.latent = latent

    def build_generator(
        self, shape: Sequence[int], classes: int, dtype: str
    ) -> tf.keras.layers.Layer:
        """Build a generator of examples of `shape` that computes in `dtype`."""
        with computing_in(dtype):
            network = self.generator(shape=shape, classes=classes)
            network(tf.zeros([2, self.latent]), tf.zeros([2], tf.int64), training=False)
        return network

    def build_discriminator(
        self, shape: Sequence[int], classes: int, dtype: str
    ) -> tf.keras.layers.Layer:
        """Build a discriminator of packed examples of `shape` that computes in `dtype`."""
        with computing_in(dtype):
            network = self.discriminator(shape=shape, classes=classes)
            network(tf.zeros([2, *shape]), tf.zeros([2], tf.int64), training=False)
        return network

    def __call__(self, *arguments: Any) -> Any:
        raise UserError(
            "This network is a GAN's pair of a generator and a discriminator: choose one network, "
            "as mlp."
        )
