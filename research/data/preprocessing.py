"""Preprocessing that leaves a run with its model: pixels, texts and numbers in their own units."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.data import pixel_values


def same(values: Any) -> Any:
    """Return `values` unchanged."""
    return values


@dataclass(frozen=True)
class InputSpec:
    """Input as users have it, and its translation to the model's input.

    Args:
        name: of the input.
        spec: its shape, without the batch, and dtype.
        prepare: tensors of it [B, ...] -> the model's input, each member's from its own alone.
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
    """Scaling of numbers [..., K] in their own units: minus `mean` [K], divided by `spread` [K].

    `spread` is the standard deviation, or 1 where that is zero.
    """

    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "Units":
        """Return the units of the columns of values [N, K], as they are in float32."""
        single = values.astype(np.float32)
        constant = single.min(axis=0) == single.max(axis=0)
        exact = single.astype(np.float64)
        mean = np.where(constant, exact[0], exact.mean(axis=0))
        return cls(mean, np.where(constant, 1.0, exact.std(axis=0)))

    def columns(self, chosen: Sequence[int]) -> "Units":
        """Return the units of some of the columns."""
        return Units(self.mean[chosen], self.spread[chosen])

    def scaled(self, values: Any) -> Any:
        """Return float32 values in units of the standard deviation; tensors or arrays."""
        return (values - self.mean.astype(np.float32)) / self.spread.astype(np.float32)

    def unscaled(self, values: Any) -> Any:
        """Return values in their own units, float32; tensors or arrays."""
        return values * self.spread.astype(np.float32) + self.mean.astype(np.float32)


def raw(data: Any) -> InputSpec:
    """Return the specification of raw inputs of `data`: its own `raw`, or the model's input."""
    found = getattr(data, "raw", None)
    if found is not None:
        return found
    shown, _ = data.examples("train", 1)
    return plain(data.shape, getattr(data, "kept", shown.dtype))


def plain(shape: Sequence[int], dtype: np.dtype) -> InputSpec:
    """Return the specification of images as pixels (if stored as bytes), or of plain numbers."""
    spec = tf.TensorSpec(shape, tf.as_dtype(dtype))
    name = "images" if len(shape) == 3 else "inputs"
    if dtype == np.uint8:
        return InputSpec(name, spec, pixel_values.scaled, pixel_values.pixels)
    return InputSpec(name, spec)
