"""Uniform random numbers as separate vectors, for states made of separate vectors."""

import tensorflow as tf

from sparring.xla import random


def uniforms(keys: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Return the columns of `random.uniform(keys, count)` as `count` vectors float32 [B].

    `keys` is uint32 [B, 2]. Slicing columns out of a matrix makes XLA compute the matrix once for
    each column; here one Threefry gives two of the vectors.
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
