"""Random numbers one by one, as a state of separate vectors wants them."""

import tensorflow as tf

from sparring.xla import random


def uniforms(keys: tf.Tensor, count: int) -> list[tf.Tensor]:
    """The columns of `random.uniform(keys, count)`, as `count` vectors float32 [B], from keys [B,
    2].

    Taking a matrix apart makes XLA compute it once for each column; two of these come from one
    Threefry.
    """
    zeros = tf.zeros_like(keys[:, 0])  # [B]
    pairs = [
        random.threefry(keys, zeros + tf.cast(i, zeros.dtype), zeros)
        for i in range((count + 1) // 2)
    ]
    words = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    shift = tf.constant(8, tf.uint32)
    return [
        tf.cast(tf.bitwise.right_shift(word, shift), tf.float32) * 2.0**-24
        for word in words[:count]
    ]
