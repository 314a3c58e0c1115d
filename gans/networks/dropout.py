"""Dropout whose masks come from keys, for discriminators.

Keras' own draws from a global generator, so that a stopped run would go on otherwise.
"""

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from sparring.xla import random


class _Source:
    """Keys that a layer draws its masks from, and its calls so far; neither is tracked."""

    keys: tf.Tensor | None = None
    calls = 0


class Dropout(tf.keras.layers.Layer):
    """Features [N, F], each zero with probability `rate` and else divided by 1 - rate.

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", in
    the form that needs no scaling at rest. Outside of `dropping`, and where `training` is false,
    features are as they are.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = float(rate)
        self.source = _Source()

    def call(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or self.source.keys is None:
            return features
        keys = random.fold(self.source.keys, self.source.calls)  # [N, 2]
        self.source.calls += 1
        kept = random.uniform(keys, features.shape[-1]) >= self.rate
        return tf.where(kept, features / (1.0 - self.rate), tf.zeros_like(features))


def layers(network: tf.Module) -> list[Dropout]:
    """Return a network's dropout layers, in an order that is the same in every process."""
    modules = (network, *network.submodules)
    return [module for module in modules if isinstance(module, Dropout)]


@contextlib.contextmanager
def dropping(network: tf.Module, keys: tf.Tensor) -> Iterator[None]:
    """Context in which a network's dropout draws from `keys` [N, 2], one for each row it is given.

    Each layer has masks of its own, and another at each of its calls.
    """
    dropouts = layers(network)
    for number, layer in enumerate(dropouts):
        layer.source.keys = random.fold(keys, number)
        layer.source.calls = 0
    try:
        yield
    finally:
        for layer in dropouts:
            layer.source.keys = None
