"""Pair of generator and discriminator factories."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from sparring.errors import UserError

Factory = Callable[..., tf.keras.layers.Layer]


class Pair:
    """What a GAN consists of: factories of its two networks, and the size of a latent vector."""

    def __init__(self, generator: Factory, discriminator: Factory, latent: int) -> None:
        self.generator = generator
        self.discriminator = discriminator
        self.latent = latent

    def __call__(self, *arguments: Any) -> Any:
        raise UserError(
            "This network is a GAN's pair of a generator and a discriminator: choose one network, "
            "as mlp."
        )
