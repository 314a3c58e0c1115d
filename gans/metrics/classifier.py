"""Classifier trained on the real training split, as a feature extractor."""

import contextlib
import functools
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.data.dataset import Data, Order
from sparring.errors import UserError
from sparring.gans.metrics import extractors
from sparring.gans.metrics.extractors import (
    Network,
    Weights,
    fingerprint,
    in_batches,
    initial,
    logits,
)
from sparring.xla import compilation, random

_log = logging.getLogger("sparring")
_VERSION = 1  # of what follows: a change to the network or its training makes another classifier


class Classifier:
    """Extractor of the last hidden layer of a classifier trained on the train split.

    Trained once for each data set and kept in `cache` (null: ~/.cache/sparring), under the hash of
    the training data and of everything the training depends on, as plain arrays of weights. Adam,
    `steps` batches of 128, the learning rate falling linearly to zero; initialisation and shuffling
    are fixed. Its accuracy on the test split is in the notes. Features are scaled to a mean square
    of 1 over the train split, so that scores of different data are of similar size. At most `limit`
    training examples are used. UserError if the data has no labels.
    """

    name = "classifier"

    def __init__(
        self,
        data: Data,
        cache: str | None = None,
        steps: int = 1500,
        learning_rate: float = 2e-3,
        limit: int | None = 50_000,
    ) -> None:
        if data.classes < 2:
            raise UserError(
                "extractor=classifier: the data has no classes to learn; use random features or "
                "pixels."
            )
        self.data = data
        self.steps = steps
        self.learning_rate = learning_rate
        self.limit = limit
        self.folder = Path(cache) if cache else _default_cache()
        self.members = (self.features,)

    def features(self, examples: np.ndarray) -> np.ndarray:
        """Compute features of examples [N, *shape], float32 [N, 64]."""
        return in_batches(self._network.features, examples)

    def probabilities(self, examples: np.ndarray) -> np.ndarray:
        """Compute class probabilities of examples [N, *shape], float32 [N, classes]."""
        return in_batches(self._network.probabilities, examples)

    @functools.cached_property
    def accuracy(self) -> float:
        """Accuracy on the test split."""
        examples, labels = self.data.examples("test", self.limit)
        return float((self.probabilities(examples).argmax(axis=1) == labels).mean())

    @property
    def notes(self) -> dict[str, Any]:
        """Protocol of the extractor, as `Extractor.notes`."""
        return {
            "features": "last hidden layer of a classifier of the real train split",
            "dimension": extractors._FEATURES,
            "extractor": fingerprint(self._network.weights),
            "accuracy on the real test split": self.accuracy,
        }

    @functools.cached_property
    def _network(self) -> Network:
        examples, labels = self.data.examples("train", self.limit)
        key = fingerprint(
            [examples, labels], _VERSION, self.data.classes, self.steps, self.learning_rate
        )
        file = self.folder / f"classifier_{key}.npz" if self.folder else None
        start = initial(self.data.shape, self.data.classes, random.stream(0, "classifier"))
        weights = _load(file, start)
        if weights is None:
            kept = f"; it is kept as {file}" if file else ""
            _log.info("Training a classifier of the data for its metrics, once%s.", kept)
            weights = fit(start, examples, labels, self.steps, self.learning_rate)
            weights = _scaled(weights, self._mean_square(weights, examples))
            _save(file, weights)
        return Network(weights)

    @staticmethod
    def _mean_square(weights: Weights, examples: np.ndarray) -> float:
        return float(
            np.mean(np.square(in_batches(Network(weights).features, examples), dtype=np.float64))
        )


def _scaled(weights: Weights, mean_square: float) -> Weights:
    """Rescale weights so that features have mean square 1 and predictions stay the same.

    A rectified layer may be scaled if the next one is unscaled.
    """
    *below, kernel, bias, last, offset = weights
    scale = max(mean_square, 1e-12) ** 0.5
    return [*below, kernel / scale, bias / scale, last * scale, offset]


def fit(
    weights: Weights, examples: np.ndarray, labels: np.ndarray, steps: int, learning_rate: float
) -> Weights:
    """Train weights by `steps` steps of Adam (Kingma and Ba 2014) on the cross-entropy.

    Batches have 128 examples.
    """
    mode = compilation.resolve("auto", weights)
    step = compilation.function(functools.partial(_adam_step, len(weights)), mode)
    state = [*weights, *(tf.zeros_like(w) for w in weights), *(tf.zeros_like(w) for w in weights)]
    order = Order(len(examples), seed=0)
    for i in range(steps):
        rows = order.plan(i, 1, 128)[0]
        rate = (
            learning_rate
            * (1.0 - i / steps)
            * (1.0 - 0.999 ** (i + 1)) ** 0.5
            / (1.0 - 0.9 ** (i + 1))
        )
        state = step(
            state,
            tf.constant(rate, tf.float32),
            tf.constant(examples[rows]),
            tf.constant(labels[rows]),
        )
    return list(state[: len(weights)])


def _adam_step(
    count: int, state: list[tf.Tensor], rate: tf.Tensor, examples: tf.Tensor, labels: tf.Tensor
) -> list[tf.Tensor]:
    """Take one Adam step.

    `state`: weights, means of gradients and means of squared gradients, `count` of each.
    """
    weights = state[:count]
    first = state[count : 2 * count]
    second = state[2 * count :]
    with tf.GradientTape() as tape:
        tape.watch(weights)
        # [B]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits(weights, examples))
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, weights)
    first = [0.9 * m + 0.1 * g for m, g in zip(first, gradients, strict=True)]
    second = [0.999 * v + 0.001 * g * g for v, g in zip(second, gradients, strict=True)]
    moved = [
        w - rate * m / (tf.sqrt(v) + 1e-7) for w, m, v in zip(weights, first, second, strict=True)
    ]
    return [*moved, *first, *second]


def _default_cache() -> Path | None:
    """Return the folder of caches, or None for a user without a home, as in some containers."""
    named = os.environ.get("XDG_CACHE_HOME")
    if named:
        return Path(named) / "sparring"
    try:
        return Path.home() / ".cache" / "sparring"
    except RuntimeError:
        _log.warning(
            "There is no home to keep the classifier of the metrics in: it is trained anew in each "
            "run. XDG_CACHE_HOME names a folder for it."
        )
        return None


def _load(file: Path | None, like: Weights) -> Weights | None:
    """Load the weights in a file, if they are intact and have the shapes of `like`."""
    if file is None:
        return None
    try:
        with file.open("rb") as opened:  # np.load leaves a damaged file open
            found = np.load(opened, allow_pickle=False)
            arrays = [found[f"{i:03d}"] for i in range(len(like))]
            sound = str(found["fingerprint"]) == fingerprint(arrays)
    except FileNotFoundError:
        return None
    except Exception as error:
        _log.warning("%s cannot be read (%s): it is made anew.", file, error)
        return None
    if not sound or [a.shape for a in arrays] != [tuple(w.shape) for w in like]:
        _log.warning("%s is damaged: it is made anew.", file)
        return None
    return [tf.constant(a) for a in arrays]


def _save(file: Path | None, weights: Weights) -> None:
    """Write weights atomically; warn if the folder is not writable, as the next run must train."""
    if file is None:
        return
    arrays = {f"{i:03d}": np.asarray(w) for i, w in enumerate(weights)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(file) as target:
            np.savez(target, fingerprint=fingerprint(list(arrays.values())), **arrays)
    except OSError as error:
        _log.warning(
            "The classifier of the metrics cannot be kept in %s: %s.",
            file.parent,
            error.strerror or error,
        )


@contextlib.contextmanager
def _replacing(file: Path) -> Iterator[Any]:
    """Yield a temporary file beside `file` that replaces it once written."""
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as target:
        try:
            yield target
            target.flush()
            Path(target.name).replace(file)
        except BaseException:
            Path(target.name).unlink(missing_ok=True)
            raise
