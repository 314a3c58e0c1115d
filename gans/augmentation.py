"""What is done to real and generated examples alike before the discriminator sees them.

An augmentation is called as `augment(examples [B, ...], keys [B, 2], progress)` and returns
examples of the same shape, differentiable in them. It draws from the keys alone.
"""

from typing import Protocol

import tensorflow as tf

from sparring.optim.schedules import Schedule, as_schedule
from sparring.xla import random


class Augmentation(Protocol):
    """A random, differentiable change of examples."""

    def __call__(self, examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        """Examples `[B, ...]` of the same shape."""


class InstanceNoise:
    """Normal noise of standard deviation `scale`, a number or a schedule (Sonderby et al. 2016,
    section 3.3).
    """

    def __init__(self, scale: Schedule | float) -> None:
        self.scale = as_schedule(scale)

    def __call__(self, examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        noise = random.normal(keys, examples.shape[1:].num_elements())  # [B, F]
        return examples + self.scale(progress) * tf.reshape(noise, tf.shape(examples))


def pack(examples: tf.Tensor, count: int) -> tf.Tensor:
    """`count` neighbours side by side in the last axis, judged as one (PacGAN, Lin et al. 2018).

    [B, ..., C] -> [B / count, ..., count * C].
    """
    if count == 1:
        return examples
    shape = examples.shape
    together = tf.reshape(examples, [-1, count, *shape[1:]])  # [B / count, count, ..., C]
    order = [0, *range(2, shape.rank), 1, shape.rank]
    return tf.reshape(tf.transpose(together, order), [-1, *shape[1:-1], count * shape[-1]])
