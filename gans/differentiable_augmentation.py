"""Augmentations of images for little data, which the gradient passes through.

Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training", section 3 and
appendix; Zhao et al. 2020, "Image augmentations for GAN training", for flips. Real and generated
images are both augmented, so that the generator does not learn the augmentation. Images are [B, h,
w, C], in [-1, 1] before.
"""

import tensorflow as tf

from sparring.errors import UserError
from sparring.xla import random


class Color:
    """Brightness, saturation and contrast of each image's own (Zhao et al. 2020, "color").

    Brightness is moved by -0.5 to 0.5, distances of channels from their mean are scaled by 0 to 2,
    those of an image from its mean by 0.5 to 1.5.
    """

    def __call__(self, examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        _require_images(examples, "color")
        drawn = random.uniform(keys, 3)[:, tf.newaxis, tf.newaxis]  # [B, 1, 1, 3]
        x = examples + (drawn[..., :1] - 0.5)
        gray = tf.reduce_mean(x, axis=3, keepdims=True)
        x = gray + 2.0 * drawn[..., 1:2] * (x - gray)
        mean = tf.reduce_mean(x, axis=[1, 2, 3], keepdims=True)
        return mean + (0.5 + drawn[..., 2:]) * (x - mean)


class Translation:
    """Moves each image by up to `share` of its sides, rounded; zeros come in at the borders."""

    def __init__(self, share: float = 0.125) -> None:
        self.share = share

    def __call__(self, examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        _require_images(examples, "translation")
        drawn = random.uniform(keys, 2)  # [B, 2]
        x = examples
        for axis in (1, 2):
            side = x.shape[axis]
            most = int(side * self.share + 0.5)
            by = tf.cast(tf.floor(drawn[:, axis - 1] * (2 * most + 1)), tf.int32) - most  # [B]
            source = tf.range(side)[tf.newaxis] - by[:, tf.newaxis]  # [B, side]
            # A product with a matrix of zeros and ones: its gradient is quick, that of a gather not
            moves = tf.one_hot(source, side, dtype=x.dtype)  # [B, side, side]; outside: zeros
            x = tf.einsum("bts,bswc->btwc" if axis == 1 else "bts,bhsc->bhtc", moves, x)
        return x


class Cutout:
    """Blanks a rectangle of `share` of the sides in each image, with zeros.

    Its middle is anywhere in the image, so that a part may lie outside.
    """

    def __init__(self, share: float = 0.5) -> None:
        self.share = share

    def __call__(self, examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        _require_images(examples, "cutout")
        drawn = random.uniform(keys, 2)  # [B, 2]
        inside = []
        for axis in (1, 2):
            side = examples.shape[axis]
            size = int(side * self.share + 0.5)
            # The first row of the rectangle: its middle, from 0 to `side`, less half its size
            first = tf.floor(drawn[:, axis - 1] * (side + 1 - size % 2)) - size // 2  # [B]
            place = tf.range(side, dtype=tf.float32)[tf.newaxis]  # [1, side]
            first = first[:, tf.newaxis]
            inside.append((place >= first) & (place < first + size))
        blank = inside[0][:, :, tf.newaxis] & inside[1][:, tf.newaxis]  # [B, h, w]
        return examples * tf.cast(~blank, examples.dtype)[..., tf.newaxis]


class Flip:
    """Mirrors half of the images from left to right."""

    def __call__(self, examples: tf.Tensor, keys: tf.Tensor, progress: tf.Tensor) -> tf.Tensor:
        _require_images(examples, "flip")
        chosen = random.uniform(keys, 1)[:, :, tf.newaxis, tf.newaxis] < 0.5  # [B, 1, 1, 1]
        return tf.where(chosen, tf.reverse(examples, [2]), examples)


def _require_images(examples: tf.Tensor, name: str) -> None:
    """Raise UserError for examples other than images [B, h, w, C]."""
    if examples.shape.rank != 4:
        raise UserError(
            f"augmentation={name}: it is for images [h, w, C], and an example here is "
            f"{list(examples.shape[1:])}."
        )
