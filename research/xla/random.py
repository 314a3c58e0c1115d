"""Stateless random numbers: (seed, stream, step, member) -> key -> numbers.

XLA ignores TensorFlow's seeds, so nothing here or above reads a global generator. A key is two
32-bit words; folding a number into a key gives a new, independent key; numbers are drawn from a key
by Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"),
the generator JAX uses. It is written in elementwise integer ops, so that it fuses under XLA, gives
the same bits on every device, TensorFlow version and compile mode, and draws for a batch of keys at
once: member i's numbers depend on member i's key alone, however large the batch.

Keys are uint32 tensors [..., 2].
"""

import zlib

import numpy as np
import tensorflow as tf

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def _word(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint32)


def _rotate_left(x: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.bitwise.bitwise_or(
        tf.bitwise.left_shift(x, _word(bits)), tf.bitwise.right_shift(x, _word(32 - bits))
    )


def threefry(key: tf.Tensor, x0: tf.Tensor, x1: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Encrypt the counter words (x0, x1) under `key` [..., 2] by Threefry-2x32 with 20 rounds.

    All shapes broadcast.
    """
    k0 = key[..., 0]
    k1 = key[..., 1]
    schedule = (k0, k1, tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(k0, k1), _word(_PARITY)))
    x0 = x0 + schedule[0]
    x1 = x1 + schedule[1]
    for group in range(5):
        for bits in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = tf.bitwise.bitwise_xor(x0, _rotate_left(x1, bits))
        x0 = x0 + schedule[(group + 1) % 3]
        x1 = x1 + schedule[(group + 2) % 3] + _word(group + 1)
    return x0, x1


def stream(seed: int | tf.Tensor, name: str) -> tf.Tensor:
    """Return the key [2] of a named stream ("policy", "replay", ...) of a run with this seed.

    The seed is from 0 to 2**32 - 1. Streams of one seed, and one stream of two seeds, are
    independent.
    """
    seed = tf.cast(
        tf.convert_to_tensor(np.int64(seed) if isinstance(seed, int) else seed), tf.uint32
    )
    root = tf.stack([seed, tf.zeros_like(seed)])
    return fold(root, _word(zlib.crc32(name.encode())))


def fold(key: tf.Tensor, number: tf.Tensor | int) -> tf.Tensor:
    """Return a new key [..., 2] from `key` [..., 2] and integers of the key's leading shape.

    A scalar integer serves all keys. Signed 64-bit integers keep their low and high words, so that
    a step counter beyond 2**32 repeats nothing.
    """
    number = tf.convert_to_tensor(number)
    if number.dtype == tf.uint32:
        low = number
        high = tf.zeros_like(number)
    else:
        number = tf.cast(number, tf.int64)
        low = tf.cast(tf.bitwise.bitwise_and(number, tf.constant(0xFFFFFFFF, tf.int64)), tf.uint32)
        high = tf.cast(tf.bitwise.right_shift(number, tf.constant(32, tf.int64)), tf.uint32)
    return tf.stack(threefry(key, low, high), axis=-1)


def members(key: tf.Tensor, count: int, first: tf.Tensor | int = 0) -> tf.Tensor:
    """Return the keys [count, 2] of the members first, first + 1, ... of a batch.

    A member has the same key in any batch.
    """
    return fold(key[tf.newaxis, :], tf.range(count, dtype=tf.int64) + tf.cast(first, tf.int64))


def bits(key: tf.Tensor, count: int) -> tf.Tensor:
    """Return uniform 32-bit words, uint32 [..., count], from `key` [..., 2]."""
    pairs = (count + 1) // 2
    counter = tf.cast(tf.range(pairs), tf.uint32)  # [P]
    x0, x1 = threefry(key[..., tf.newaxis, :], counter, tf.zeros_like(counter))  # [..., P]
    return tf.concat([x0, x1], axis=-1)[..., :count]


def uniform(key: tf.Tensor, count: int) -> tf.Tensor:
    """Return uniform numbers in [0, 1), float32 [..., count], each a multiple of 2**-24."""
    return tf.cast(tf.bitwise.right_shift(bits(key, count), _word(8)), tf.float32) * 2.0**-24


def open_uniform(key: tf.Tensor, count: int) -> tf.Tensor:
    """Return uniform numbers strictly inside (0, 1), float32 [..., count]: safe for logarithms."""
    return (
        tf.cast(tf.bitwise.right_shift(bits(key, count), _word(9)), tf.float32) * 2.0**-23
        + 2.0**-24
    )


def normal(key: tf.Tensor, count: int) -> tf.Tensor:
    """Return standard normal numbers, float32 [..., count], by inverse transform sampling."""
    return tf.math.ndtri(open_uniform(key, count))


def gumbel(key: tf.Tensor, count: int) -> tf.Tensor:
    """Return standard Gumbel numbers, float32 [..., count].

    argmax(logits + gumbel) samples softmax(logits).
    """
    return -tf.math.log(-tf.math.log(open_uniform(key, count)))


def integers(key: tf.Tensor, count: int, bound: tf.Tensor | int) -> tf.Tensor:
    """Return integers in [0, bound), int64 [..., count].

    `bound` is at most 2**31; the bias is below bound / 2**32.
    """
    words = tf.cast(bits(key, count), tf.int64)
    return tf.bitwise.right_shift(words * tf.cast(bound, tf.int64), tf.constant(32, tf.int64))


def permutation(key: tf.Tensor, count: int) -> tf.Tensor:
    """Return a random order of 0 .. count - 1, int32 [count], in which each appears once.

    Equal random words keep their order.
    """
    return tf.argsort(bits(key, count), stable=True)
