"""Sequential loop on the device, in a program of any compile mode."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def repeated(
    body: Callable[[tf.Tensor, Any], Any],
    value: Any,
    count: tf.Tensor | int,
    most: int | None = None,
) -> Any:
    """Return `value` after value = body(i, value) for i = 0, ..., count - 1.

    `value` is any structure of tensors, `i` an int64 scalar. `most` is an upper bound of `count`
    known beforehand, which XLA needs where a gradient is taken through the loop.
    """
    return tf.while_loop(
        lambda i, _: i < count,
        lambda i, value: (i + 1, body(i, value)),
        (tf.constant(0, tf.int64), value),
        parallel_iterations=1,
        maximum_iterations=most,
    )[1]
