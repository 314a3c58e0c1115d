"""Noisy dense layers (Fortunato et al. 2018, "Noisy networks for exploration").

Their noise comes from keys. Outside of `noise` a layer computes with its mean weights alone.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from sparring.xla import random


class _Source:
    """Key that a layer draws its noise from; not a variable, nor tracked."""

    key: tf.Tensor | None = None


class NoisyDense(tf.keras.layers.Layer):
    """A dense layer whose weights have factorised Gaussian noise (Fortunato et al. 2018, section 3,
    b).

    With p inputs, mean weights begin uniform within 1 / sqrt(p) of zero, and the standard deviation
    of each weight, which is learned, at `std` / sqrt(p).
    """

    def __init__(self, units: int, activation: str | None = None, std: float = 0.5) -> None:
        super().__init__()
        self.units = int(units)
        self.std = float(std)
        self.activation = tf.keras.activations.get(activation)
        self.source = _Source()

    def build(self, input_shape: Any) -> None:
        inputs = int(input_shape[-1])
        reach = inputs**-0.5
        std = tf.keras.initializers.Constant(self.std * reach)
        self.kernel = self.add_weight("kernel", [inputs, self.units], initializer=_within(reach))
        self.bias = self.add_weight("bias", [self.units], initializer=_within(reach))
        self.kernel_std = self.add_weight("kernel_std", [inputs, self.units], initializer=std)
        self.bias_std = self.add_weight("bias_std", [self.units], initializer=std)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        output = tf.matmul(features, self.kernel) + self.bias
        if self.source.key is not None:
            drawn = random.normal(self.source.key, features.shape[-1] + self.units)
            inward = _scaled(drawn[..., : features.shape[-1]])  # [1 or B, p]
            outward = _scaled(drawn[..., features.shape[-1] :])  # [1 or B, units]
            noisy = tf.matmul(features * inward, self.kernel_std) + self.bias_std
            output += noisy * outward
        return self.activation(output)


def layers(network: tf.Module) -> list[NoisyDense]:
    """Return a network's noisy layers, in an order that is the same in every process."""
    return [module for module in network.submodules if isinstance(module, NoisyDense)]


@contextlib.contextmanager
def noise(network: tf.Module, keys: tf.Tensor) -> Iterator[None]:
    """Context in which a network's noisy layers draw from `keys` [1, 2], one noise for all that
    they are given, or [B, 2], one for each member of a batch.
    """
    noisy = layers(network)
    for number, layer in enumerate(noisy):
        layer.source.key = random.fold(keys, number)
    try:
        yield
    finally:
        for layer in noisy:
            layer.source.key = None


def _within(reach: float) -> tf.keras.initializers.Initializer:
    return tf.keras.initializers.RandomUniform(-reach, reach)


def _scaled(drawn: tf.Tensor) -> tf.Tensor:
    """Return sign(x) sqrt(|x|) of Gaussian numbers x."""
    return tf.sign(drawn) * tf.sqrt(tf.abs(drawn))
