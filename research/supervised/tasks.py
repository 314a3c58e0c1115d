"""Tasks of supervised training: the size of a model's output, its loss, and its scores.

A loss is a pure function of outputs and targets that returns one value per example; the trainer
alone reduces it.
"""

import functools
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from sparring.data.dataset import labels
from sparring.errors import UserError, listed
from sparring.supervised import plots

Values = dict[str, tf.Tensor]


class Task(Protocol):
    """Protocol of a task on the examples of one data set."""

    outputs: int  # size of the model's output for an example
    objective: str  # tag of the scalar of `evaluate` to optimise
    maximize: bool  # whether a larger objective is better
    trained: Mapping[str, str]  # descriptions of `measures`, by tag
    descriptions: Mapping[str, str]  # descriptions of `evaluate`, by tag
    notes: Mapping[str, Any]  # how the scalars were computed, as plain values
    answered: Mapping[str, str]  # descriptions of `answers`, by name

    def loss(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Return the loss of outputs float32 [B, outputs], float32 [B]."""

    def measures(self, outputs: tf.Tensor, targets: tf.Tensor) -> Values:
        """Return further values to log of a training batch: each [B], by tag."""

    def answers(self, outputs: tf.Tensor) -> Values:
        """Return predictions for an exported model from outputs [B, outputs].

        Each is [B, ...], by name.
        """

    def evaluate(
        self, outputs: np.ndarray, targets: np.ndarray, network: tf.keras.layers.Layer
    ) -> dict[str, float]:
        """Return scores of the outputs [N, outputs] of the test split, by tag."""

    def pictures(
        self, inputs: np.ndarray, outputs: np.ndarray, targets: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return images of outputs beside targets, uint8 [1, H, W, C] by tag."""


class Classification:
    """Classification of an example into the data's classes, by softmax cross-entropy.

    `label_smoothing` mixes the target with that share of the uniform distribution (Szegedy et al.
    2016, section 7).
    """

    objective = "eval/accuracy"
    maximize = True
    trained = {"train/accuracy": "Share of training examples named rightly, mean over batches."}  # noqa: RUF012
    descriptions = {  # noqa: RUF012
        "eval/accuracy": "Share of the test split that is named rightly.",
        "eval/cross_entropy": "Cross-entropy of the test split, in nats, mean over examples.",
    }
    answered = {  # noqa: RUF012
        "class": "the likeliest one's number",
        "probabilities": "of each class",
    }

    def __init__(self, data: Any, label_smoothing: float = 0.0) -> None:
        if data.classes < 2:
            raise UserError(
                "task=classification: the data has no labels to learn; give data.labels, sort "
                "images into one folder a "
                "class, or choose another task."
            )
        if not 0.0 <= label_smoothing < 1.0:
            raise UserError(f"task.label_smoothing={label_smoothing}: at least 0 and below 1.")
        self.outputs = data.classes
        self.names = data.names
        self.smoothing = label_smoothing
        self.notes: dict[str, Any] = {"classes": data.classes}

    def loss(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Return the loss of each example, as `Task.loss` does."""
        exact = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, outputs)  # [B]
        uniform = -tf.reduce_mean(tf.nn.log_softmax(outputs), axis=-1)  # [B]
        return (
            (1.0 - self.smoothing) * exact + self.smoothing * uniform if self.smoothing else exact
        )

    def measures(self, outputs: tf.Tensor, targets: tf.Tensor) -> Values:
        """Return measures of a batch, as `Task.measures` does."""
        right = tf.equal(tf.argmax(outputs, axis=-1, output_type=tf.int64), targets)
        return {"train/accuracy": tf.cast(right, tf.float32)}

    def answers(self, outputs: tf.Tensor) -> Values:
        """Return predictions by name, as `Task.answers` does."""
        return {"class": tf.argmax(outputs, axis=-1), "probabilities": tf.nn.softmax(outputs)}

    def evaluate(
        self, outputs: np.ndarray, targets: np.ndarray, network: tf.keras.layers.Layer
    ) -> dict[str, float]:
        """Return scores by tag, as `Task.evaluate` does."""
        return {
            "eval/accuracy": float((outputs.argmax(axis=1) == targets).mean()),
            "eval/cross_entropy": float(
                -log_softmax(outputs)[np.arange(len(targets)), targets].mean()
            ),
        }

    def pictures(
        self, inputs: np.ndarray, outputs: np.ndarray, targets: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return a confusion matrix, and images with their predictions.

        Of images there are the first ones, and the first of those misclassified.
        """
        named = outputs.argmax(axis=1)
        found = {"eval/confusion": plots.confusion(named, targets, self.names)}
        if inputs.ndim == 4:
            words = [
                f"{self.names[n]} ({self.names[t]})" for n, t in zip(named, targets, strict=True)
            ]
            wrong = np.flatnonzero(named != targets)
            found["eval/predictions"] = plots.labelled(inputs, words)
            if len(wrong):
                found["eval/mistakes"] = plots.labelled(inputs[wrong], [words[i] for i in wrong])
        return found


class Regression:
    """Regression by squared error, averaged over a target's entries.

    For a model that is linear in its inputs, `evaluate` also gives the distance of its weights from
    those of least squares on the whole train split, computed in double precision.
    """

    objective = "eval/rmse"
    maximize = False
    trained = {"train/squared_error": "Squared error of training examples, mean over batches."}  # noqa: RUF012
    answered = {"values": "in the targets' own units"}  # noqa: RUF012

    def __init__(self, data: Any) -> None:
        targets = labels(data, "train")
        if targets.ndim != 2 or targets.dtype.kind != "f":
            raise UserError(
                f"task=regression: targets are {targets.dtype} {list(targets.shape)}, where float "
                "[N, K] are needed: "
                "choose data=table, or another task."
            )
        self.outputs = targets.shape[1]
        self.names = [str(i) for i in range(self.outputs)]
        self._data = data
        self._restored = getattr(data, "restored", lambda outputs: outputs)
        self.notes: dict[str, Any] = {"targets": self.outputs}

    @property
    def descriptions(self) -> Mapping[str, str]:
        """Descriptions of the scalars of `evaluate`, by tag."""
        return {
            "eval/rmse": "Root of the mean squared error over the test split and a target's "
            "numbers.",
            "eval/r2": "1 less the mean squared error over the variance of the test split's "
            "targets, mean over them.",
            "eval/weight_error": "Largest difference of a linear model's weights from the least "
            "squares solution.",
        }

    def loss(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Return the loss of each example, as `Task.loss` does."""
        return tf.reduce_mean(tf.square(outputs - targets), axis=-1)

    def measures(self, outputs: tf.Tensor, targets: tf.Tensor) -> Values:
        """Return measures of a batch, as `Task.measures` does."""
        return {"train/squared_error": self.loss(outputs, targets)}

    def answers(self, outputs: tf.Tensor) -> Values:
        """Return predictions by name, as `Task.answers` does."""
        return {"values": self._restored(outputs)}

    def evaluate(
        self, outputs: np.ndarray, targets: np.ndarray, network: tf.keras.layers.Layer
    ) -> dict[str, float]:
        """Return scores by tag, as `Task.evaluate` does."""
        error = np.square(outputs - targets, dtype=np.float64)  # [N, K]
        mean_error = error.mean(axis=0)  # [K]
        variance = targets.var(axis=0, dtype=np.float64)
        # A constant target has none: a share of it cannot be explained
        unexplained = np.divide(
            mean_error, variance, out=np.ones_like(mean_error), where=variance > 0.0
        )
        found = {
            "eval/rmse": float(np.sqrt(error.mean())),
            "eval/r2": float((1.0 - unexplained).mean()),
        }
        weights = network.linear_weights() if hasattr(network, "linear_weights") else None
        if weights is not None:
            found["eval/weight_error"] = float(np.abs(weights - self._best).max())
        return found

    @functools.cached_property
    def _best(self) -> np.ndarray:
        return least_squares(*self._data.examples("train"))

    def pictures(
        self, inputs: np.ndarray, outputs: np.ndarray, targets: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return a plot of predictions over targets, for all of a target's entries."""
        return {"eval/predictions": plots.diagonal(outputs, targets)}


def least_squares(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the least-squares weights [F + 1, K] of targets [N, K] on inputs [N, ...].

    The last row is the bias; float64.
    """
    flat = inputs.reshape(len(inputs), -1).astype(np.float64)
    return np.linalg.lstsq(with_bias(flat), targets.astype(np.float64), rcond=None)[0]


def with_bias(flat: np.ndarray) -> np.ndarray:
    """Append a one to each row: [N, F] -> [N, F + 1]."""
    return np.concatenate([flat, np.ones((len(flat), 1))], axis=1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of the softmax over the last axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def needs(data: Any, attribute: str, task: str, options: list[str]) -> Any:
    """Return an attribute of the data that a task requires beyond `Data`.

    Raises:
        UserError: the data lacks it; the message names data that have it.
    """
    found = getattr(data, attribute, None)
    if found is None:
        raise UserError(
            f"task={task}: this data is not for it. {listed([f'data={o}' for o in options])}"
        )
    return found
