"""Whether training has run into NaN or infinity: in what it reports, and in what it would save."""

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from sparring.storage.variable_names import named_variables


class Watch:
    """Looks for numbers that are not finite among the floating variables of a checkpoint.

    Variables that are not finite to begin with, such as a smallest value so far, are left out,
    unless `keep`.
    """

    def __init__(self, checkpoint: tf.train.Checkpoint, keep: bool = False) -> None:
        self._variables = {
            name: v for name, v in named_variables(checkpoint).items() if v.dtype.is_floating
        }
        if not keep:
            self._variables = {
                name: v for name, v in self._variables.items() if np.all(np.isfinite(v.numpy()))
            }
        self._each = tf.function(self._finite, autograph=False)

    def found(self) -> list[str]:
        """The names of the variables that hold a NaN or an infinity."""
        if not self._variables:
            return []
        return [
            name
            for name, fine in zip(self._variables, self._each().numpy(), strict=True)
            if not fine
        ]

    def _finite(self) -> tf.Tensor:
        return tf.stack([tf.reduce_all(tf.math.is_finite(v)) for v in self._variables.values()])


def bad_values(values: Mapping[str, float]) -> dict[str, float]:
    """The entries that are not finite."""
    return {name: value for name, value in values.items() if not math.isfinite(value)}
