"""Feature extractors: pixels, or small networks with random or trained weights.

An extractor is made for one data set. It consists of functions of arrays of weights, without
variables, so it works in the scope of any strategy; its features are reproducible on one machine.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from sparring.data.dataset import Data
from sparring.errors import UserError
from sparring.xla import compilation, random

Weights = list[tf.Tensor]
_FEATURES = 64  # of a network's last hidden layer


class Extractor(Protocol):
    """Extractor of features float32 [N, D] from examples [N, *shape], by one or several networks.

    Examples are in the data's range.
    """

    name: (
        str  # what a score's tag says of it, as in fid_classifier; "": published scores use it too
    )
    members: Sequence[
        Callable[[np.ndarray], np.ndarray]
    ]  # a score is the mean of its values over them

    @property
    def notes(self) -> Mapping[str, Any]:
        """Name, dimension D and hash of the extractor, as plain values."""


class Pixels:
    """Flattened examples as features."""

    name = "pixels"

    def __init__(self, data: Data) -> None:
        self.members = (flat,)
        self.notes = {"features": "pixels", "dimension": int(np.prod(data.shape))}


def flat(examples: np.ndarray) -> np.ndarray:
    """Flatten [N, ...] -> [N, F]."""
    return examples.reshape(len(examples), -1)


class RandomNetworks:
    """Ensemble of `count` small random networks, whose scores are averaged.

    The weights are fixed by a network's number. Random features rank generators nearly as trained
    ones do and need no training (Lee et al. 2022, "Trained networks are not needed: FID with random
    features", arXiv 2208.09218; Naeem et al. 2020 for precision and recall).
    """

    name = "random"

    def __init__(self, data: Data, count: int = 3) -> None:
        if count < 1:
            raise UserError(f"extractor.count={count}: 1 at least.")
        weights = [
            initial(data.shape, 1, random.stream(i, "random features")) for i in range(count)
        ]
        self.members = [functools.partial(in_batches, Network(w).features) for w in weights]
        self.notes = {
            "features": f"{count} networks with random weights",
            "dimension": _FEATURES,
            "extractor": fingerprint([array for w in weights for array in w]),
        }


class Network:
    """Small network as functions of its weights.

    Convolutions halve an image until it is at most 4 pixels wide, then dense layers follow. Vectors
    take two dense layers instead. All hidden layers are rectified; the last has 64 units: the
    features.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._mode = compilation.resolve("auto", weights)

    def features(self, examples: tf.Tensor) -> tf.Tensor:
        """Compute features of examples [B, *shape], float32 [B, 64]."""
        return _compiled(hidden, self._mode)(self.weights, examples)

    def probabilities(self, examples: tf.Tensor) -> tf.Tensor:
        """Compute class probabilities of examples [B, *shape], float32 [B, classes]."""
        return tf.nn.softmax(_compiled(logits, self._mode)(self.weights, examples))


@functools.cache
def _compiled(
    function: Callable[[Weights, tf.Tensor], tf.Tensor], mode: str
) -> Callable[..., tf.Tensor]:
    """Compile once for all networks: weights are arguments, so equal sizes share a trace."""
    return compilation.function(function, mode)


def initial(shape: Sequence[int], outputs: int, key: tf.Tensor) -> Weights:
    """Draw weights from `key` (He et al. 2015), biases zero: kernel, bias, kernel, bias, ..."""
    kernels: list[tuple[int, ...]] = []
    if len(shape) == 3:
        height, width, channels = shape
        filters = 32
        while max(height, width) > 4 or not kernels:
            kernels.append((3, 3, channels, filters))
            height = -(-height // 2)
            width = -(-width // 2)
            channels = filters
            filters = min(2 * filters, 128)
        shape = (height * width * channels,)
    else:
        kernels.append((int(np.prod(shape)), _FEATURES))
        shape = (_FEATURES,)
    kernels += [(int(np.prod(shape)), _FEATURES), (_FEATURES, outputs)]
    weights: Weights = []
    for i, kernel in enumerate(kernels):
        fan_in = int(np.prod(kernel[:-1]))
        numbers = random.normal(random.fold(key, i), int(np.prod(kernel)))
        weights += [tf.reshape(numbers, kernel) * (2.0 / fan_in) ** 0.5, tf.zeros(kernel[-1:])]
    return weights


def hidden(weights: Weights, examples: tf.Tensor) -> tf.Tensor:
    """Compute the features [B, 64] of examples [B, *shape]."""
    x = examples
    for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        if kernel.shape.rank == 4:
            x = tf.nn.conv2d(x, kernel, strides=2, padding="SAME")  # [B, H / 2, W / 2, C]
        else:
            x = tf.reshape(x, (-1, kernel.shape[0])) @ kernel  # [B, units]
        x = tf.nn.relu(x + bias)
    return x


def logits(weights: Weights, examples: tf.Tensor) -> tf.Tensor:
    """Compute the outputs of the last layer, [B, classes]."""
    return hidden(weights, examples) @ weights[-2] + weights[-1]


def in_batches(
    function: Callable[[tf.Tensor], tf.Tensor], examples: np.ndarray, batch: int = 256
) -> np.ndarray:
    """Apply `function` to examples [N, *shape] in batches of one shape: an array [N, ...]."""
    found = []
    for start in range(0, len(examples), batch):
        block = examples[start : start + batch]
        padded = np.zeros((batch, *examples.shape[1:]), np.float32)
        padded[: len(block)] = block
        found.append(np.asarray(function(tf.constant(padded)))[: len(block)])
    return np.concatenate(found)


def fingerprint(arrays: Sequence[Any], *words: Any) -> str:
    """Hash arrays, their shapes and types, and words: 16 hex digits of their SHA-256."""
    digest = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    digest.update(repr(words).encode())
    return digest.hexdigest()[:16]
