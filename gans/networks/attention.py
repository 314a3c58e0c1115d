"""Self-attention over the places of a feature map (Zhang et al. 2019, section 3)."""

from collections.abc import Sequence

import tensorflow as tf

from sparring.errors import UserError
from sparring.gans.networks.spectral_norm import SpectralConv2D


class SelfAttention(tf.keras.layers.Layer):
    """Feature map plus what each place gathers from all: [B, h, w, F] -> the same.

    Queries and keys have F / 8 channels, values F / 2; keys and values are averaged over squares
    of four places, of which the authors' program takes the maximum. What is gathered counts by a
    learned weight, at first zero.
    """

    def __init__(self, spectral: bool) -> None:
        super().__init__()
        self.spectral = spectral

    def build(self, input_shape: tf.TensorShape) -> None:
        conv = SpectralConv2D if self.spectral else tf.keras.layers.Conv2D
        channels = input_shape[-1]
        self.query = conv(max(channels // 8, 1), 1, use_bias=False)
        self.key = conv(max(channels // 8, 1), 1, use_bias=False)
        self.value = conv(max(channels // 2, 1), 1, use_bias=False)
        self.out = conv(channels, 1, use_bias=False)
        self.weight = self.add_weight("weight", [], initializer="zeros")
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        _, h, w, _ = x.shape
        query = _rows(self.query(x))  # [B, h w, F / 8]
        key = _rows(_pooled(self.key(x)))  # [B, h w / 4, F / 8]
        value = _rows(_pooled(self.value(x)))  # [B, h w / 4, F / 2]
        share = tf.nn.softmax(tf.matmul(query, key, transpose_b=True), axis=-1)
        gathered = tf.reshape(tf.matmul(share, value), [-1, h, w, value.shape[-1]])
        return x + tf.cast(self.weight, x.dtype) * self.out(gathered)


def check_side(side: int | None, sides: Sequence[int], key: str) -> int | None:
    """Return the place of `side` among the sides of a network's maps; None of None.

    Raises:
      UserError: no map has that side; the message names the nearest that one has.
    """
    if side is None:
        return None
    if side not in sides:
        nearest = min(sides, key=lambda other: abs(other - side))
        raise UserError(
            f"{key}={side}: no feature map has that side; the nearest is {nearest} (of "
            f"{', '.join(map(str, sides))})."
        )
    return list(sides).index(side)


def _rows(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(x, [-1, x.shape[1] * x.shape[2], x.shape[3]])


def _pooled(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.avg_pool2d(x, 2, 2, "VALID")
