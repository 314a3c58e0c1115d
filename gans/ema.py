"""Exponential moving average of a generator's parameters, from which samples are drawn."""

import tensorflow as tf

from sparring.distribute import replicas


class EMA:
    """Settings of the average (Karras et al. 2020, "Training GANs with limited data", `ema_kimg`).

    Args:
      half_life: images after which the weight of the past has halved; 0: the average is the
        generator itself.
      ramp_up: the half-life is at most this share of the images so far, so that early parameters
        are forgotten; null: no such limit.
    """

    def __init__(self, half_life: float = 10_000.0, ramp_up: float | None = 0.05) -> None:
        self.half_life = half_life
        self.ramp_up = ramp_up

    def decay(self, images: tf.Tensor, batch: int) -> tf.Tensor:
        """Compute the weight of the past, float32 in [0, 1), after a step of `batch` images.

        `images` (int64) is the number of images so far.
        """
        half_life = tf.constant(self.half_life, tf.float32)
        if self.ramp_up is not None:
            half_life = tf.minimum(half_life, tf.cast(images, tf.float32) * self.ramp_up)
        return tf.pow(0.5, batch / tf.maximum(half_life, 1e-8))

    def update(
        self, average: tf.keras.layers.Layer, network: tf.keras.layers.Layer, decay: tf.Tensor
    ) -> None:
        """Move `average` towards `network`; copy buffers, such as moving statistics."""
        for shadow, value in zip(
            average.trainable_variables, network.trainable_variables, strict=True
        ):
            replicas.assign(shadow, value + decay * (shadow - value))
        for shadow, value in zip(
            average.non_trainable_variables, network.non_trainable_variables, strict=True
        ):
            replicas.assign(shadow, value)


def copy(target: tf.keras.layers.Layer, source: tf.keras.layers.Layer) -> None:
    """Copy parameters and buffers from `source` to `target`, networks of the same architecture."""
    for theirs, ours in zip(target.variables, source.variables, strict=True):
        theirs.assign(ours)
