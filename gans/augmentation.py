"""Augmentation of real and generated examples before the discriminator sees them.

An augmentation is called as `augment(examples [B, ...], keys [B, 2], progress)` and returns
examples of the same shape, differentiable in them. Its random numbers come from the keys alone.
State that it keeps in `tf.Variable`s is part of the checkpoint; create them in its constructor.
"""

from typing import Protocol

import tensorflow as tf

from sparring.optim.schedules import Schedule, as_schedule
from sparring.xla import random


class Augmentation(Protocol):
    """Random, differentiable transformation of examples."""

    def __call__(self, examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        """Return transformed examples of the same shape `[B, ...]`."""


class InstanceNoise:
    """Gaussian noise of standard deviation `scale` (Sonderby et al. 2016, section 3.3).

    `scale` is a number or a schedule.
    """

    def __init__(self, scale: Schedule | float) -> None:
        self.scale = as_schedule(scale)

    def __call__(self, examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        noise = random.normal(keys, examples.shape[1:].num_elements())  # [B, F]
        return examples + self.scale(progress) * tf.reshape(noise, tf.shape(examples))


def pack(examples: tf.Tensor, count: int) -> tf.Tensor:
    """Concatenate `count` neighbouring examples in the last axis (PacGAN, Lin et al. 2018).

    [B, ..., C] -> [B / count, ..., count * C]; the discriminator judges a pack as one.
    """
    if count == 1:
        return examples
    shape = examples.shape
    together = tf.reshape(examples, [-1, count, *shape[1:]])  # [B / count, count, ..., C]
    order = [0, *range(2, shape.rank), 1, shape.rank]
    return tf.reshape(tf.transpose(together, order), [-1, *shape[1:-1], count * shape[-1]])
