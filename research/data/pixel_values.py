"""Values of pictures: bytes, and float32 in [-1, 1] as networks are given them."""

import numpy as np
import tensorflow as tf


def scaled(examples: tf.Tensor) -> tf.Tensor:
    """Return bytes as float32 in [-1, 1], floats unchanged."""
    return (
        tf.cast(examples, tf.float32) * np.float32(1 / 127.5) - 1.0
        if examples.dtype == tf.uint8
        else examples
    )


def unit(examples: np.ndarray) -> np.ndarray:
    """Return what `scaled` does, computed on the host with equal results."""
    if examples.dtype != np.uint8:
        return examples
    return examples.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1.0)


def eight_bits(values: np.ndarray) -> np.ndarray:
    """Return values of 16 bits as bytes: 0 to 65535 become 0 to 255."""
    return np.rint(np.clip(values, 0, 65535) / np.float32(257.0)).astype(np.uint8)


def pixels(examples: np.ndarray) -> np.ndarray:
    """Return images in [-1, 1] as bytes: the inverse of `unit`, for images."""
    return np.clip(np.rint((examples + 1.0) * 127.5), 0, 255).astype(np.uint8)
