"""What a model is asked for: how many numbers it says of an example, what they cost, and how good
they are.

A loss is a pure function of outputs and targets that gives one value per example; the trainer alone
reduces it.
"""

import functools
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from sparring.errors import UserError, listed
from sparring.supervised import plots

Values = dict[str, tf.Tensor]


class Task(Protocol):
    """A question put to a model about the examples of one data set."""

    outputs: int  # how many numbers the model says of an example
    objective: (
        str  # the scalar of `evaluate` that says how good it is; larger is better if `maximize`
    )
    maximize: bool
    trained: Mapping[str, str]  # the tags of `measures`, and what they measure
    descriptions: Mapping[str, str]  # those of `evaluate`
    notes: Mapping[str, Any]  # how the scalars were computed, as plain values
    answered: Mapping[str, str]  # the names of `answers`, and what they are

    def loss(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """What outputs float32 [B, outputs] cost, float32 [B]."""

    def measures(self, outputs: tf.Tensor, targets: tf.Tensor) -> Values:
        """What else is logged of a batch while training: each [B], by tag."""

    def answers(self, outputs: tf.Tensor) -> Values:
        """What outputs [B, outputs] mean to whoever asks an exported model, each [B, ...]
        by name.
        """

    def evaluate(
        self, outputs: np.ndarray, targets: np.ndarray, network: tf.keras.layers.Layer
    ) -> dict[str, float]:
        """Scores of the outputs [N, outputs] of the test split, by tag."""

    def pictures(
        self, inputs: np.ndarray, outputs: np.ndarray, targets: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Outputs beside targets, uint8 [1, H, W, C] by tag."""


class Classification:
    """Which of the data's classes an example belongs to: cross-entropy of a softmax over them.

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
        """As `Task.loss`."""
        exact = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, outputs)  # [B]
        uniform = -tf.reduce_mean(tf.nn.log_softmax(outputs), axis=-1)  # [B]
        return (
            (1.0 - self.smoothing) * exact + self.smoothing * uniform if self.smoothing else exact
        )

    def measures(self, outputs: tf.Tensor, targets: tf.Tensor) -> Values:
        """As `Task.measures`."""
        right = tf.equal(tf.argmax(outputs, axis=-1, output_type=tf.int64), targets)
        return {"train/accuracy": tf.cast(right, tf.float32)}

    def answers(self, outputs: tf.Tensor) -> Values:
        """As `Task.answers`."""
        return {"class": tf.argmax(outputs, axis=-1), "probabilities": tf.nn.softmax(outputs)}

    def evaluate(
        self, outputs: np.ndarray, targets: np.ndarray, network: tf.keras.layers.Layer
    ) -> dict[str, float]:
        """As `Task.evaluate`."""
        return {
            "eval/accuracy": float((outputs.argmax(axis=1) == targets).mean()),
            "eval/cross_entropy": float(
                -log_softmax(outputs)[np.arange(len(targets)), targets].mean()
            ),
        }

    def pictures(
        self, inputs: np.ndarray, outputs: np.ndarray, targets: np.ndarray
    ) -> dict[str, np.ndarray]:
        """A confusion matrix; of images the first ones with their predictions, and those that were
        named wrongly.
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
    """Numbers: the squared error, mean over a target's numbers.

    Of a model that is linear in its inputs it also says how far its weights are from those of least
    squares on the whole train split, computed in double precision.
    """

    objective = "eval/rmse"
    maximize = False
    trained = {"train/squared_error": "Squared error of training examples, mean over batches."}  # noqa: RUF012
    answered = {"values": "in the targets' own units"}  # noqa: RUF012

    def __init__(self, data: Any) -> None:
        _, targets = data.examples("train")
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
        """Tag -> what it measures."""
        return {
            "eval/rmse": "Root of the mean squared error over the test split and a target's "
            "numbers.",
            "eval/r2": "1 less the mean squared error over the variance of the test split's "
            "targets, mean over them.",
            "eval/weight_error": "Largest difference of a linear model's weights from the least "
            "squares solution.",
        }

    def loss(self, outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """As `Task.loss`."""
        return tf.reduce_mean(tf.square(outputs - targets), axis=-1)

    def measures(self, outputs: tf.Tensor, targets: tf.Tensor) -> Values:
        """As `Task.measures`."""
        return {"train/squared_error": self.loss(outputs, targets)}

    def answers(self, outputs: tf.Tensor) -> Values:
        """As `Task.answers`."""
        return {"values": self._restored(outputs)}

    def evaluate(
        self, outputs: np.ndarray, targets: np.ndarray, network: tf.keras.layers.Layer
    ) -> dict[str, float]:
        """As `Task.evaluate`."""
        error = np.square(outputs - targets, dtype=np.float64)  # [N, K]
        spread = np.maximum(targets.var(axis=0, dtype=np.float64), 1e-12)
        found = {
            "eval/rmse": float(np.sqrt(error.mean())),
            "eval/r2": float((1.0 - error.mean(axis=0) / spread).mean()),
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
        """Predictions over targets, for each of a target's numbers."""
        return {"eval/predictions": plots.diagonal(outputs, targets)}


def least_squares(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The weights [F + 1, K], the last row the bias, that fit targets [N, K] of inputs [N, ...]
    best; float64.
    """
    flat = inputs.reshape(len(inputs), -1).astype(np.float64)
    return np.linalg.lstsq(with_bias(flat), targets.astype(np.float64), rcond=None)[0]


def with_bias(flat: np.ndarray) -> np.ndarray:
    """[N, F] -> [N, F + 1], a one behind each row."""
    return np.concatenate([flat, np.ones((len(flat), 1))], axis=1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the softmax over the last axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def needs(data: Any, attribute: str, task: str, options: list[str]) -> Any:
    """What a task asks of its data beyond `Data`; UserError naming the data that have it."""
    found = getattr(data, attribute, None)
    if found is None:
        raise UserError(
            f"task={task}: this data is not for it. {listed([f'data={o}' for o in options])}"
        )
    return found
