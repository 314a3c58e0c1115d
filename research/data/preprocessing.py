"""What a model is given once it has left its run: pixels, texts, numbers in their own units; and
how they become what the model is shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.data import dataset


def same(values: Any) -> Any:
    """As they are."""
    return values


@dataclass(frozen=True)
class InputSpec:
    """An input as people have it.

    Args:
      name: of the input.
      spec: its shape, without the batch, and dtype.
      prepare: tensors of it [B, ...] -> what the model is shown, each member's from its own alone.
      undo: the inverse, on arrays; None if there is none.
      limit: of ids, how many there are, 0 to `limit` - 1; of others None.
      resources: tables that `prepare` looks up.
    """

    name: str
    spec: tf.TensorSpec
    prepare: Callable[[tf.Tensor], tf.Tensor] = same
    undo: Callable[[np.ndarray], np.ndarray] | None = same
    limit: int | None = None
    resources: Sequence[Any] = ()


@dataclass(frozen=True)
class Units:
    """How numbers [..., K] in their own units were scaled: less `mean` [K], over `spread` [K]."""

    mean: np.ndarray
    spread: np.ndarray

    def scaled(self, values: tf.Tensor) -> tf.Tensor:
        """In units of the spread, float32."""
        return (values - self.mean.astype(np.float32)) / self.spread.astype(np.float32)

    def unscaled(self, values: Any) -> Any:
        """In their own units, float32; tensors or arrays."""
        return values * self.spread.astype(np.float32) + self.mean.astype(np.float32)


def raw(data: Any) -> InputSpec:
    """What stands for an input of `data`: its own `raw`, or what it shows the model."""
    found = getattr(data, "raw", None)
    if found is not None:
        return found
    shown, _ = data.examples("train", 1)
    return plain(data.shape, getattr(data, "kept", shown.dtype))


def plain(shape: Sequence[int], dtype: np.dtype) -> InputSpec:
    """Images as pixels (bytes, if they are kept so), other numbers as they are."""
    spec = tf.TensorSpec(shape, tf.as_dtype(dtype))
    name = "images" if len(shape) == 3 else "inputs"
    if dtype == np.uint8:
        return InputSpec(name, spec, dataset.scaled, dataset.pixels)
    return InputSpec(name, spec)
