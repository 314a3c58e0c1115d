"""Serving signatures of a supervised run: predictions from raw inputs, and the logits."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.data.preprocessing import InputSpec, raw
from sparring.errors import UserError
from sparring.export.signatures import Export, Function, Signature, in_parts


def predictor(trainer: Any) -> Export:
    """Return the signatures of a `sparring.supervised.trainer.SupervisedTrainer`.

    `predict` returns the task's predictions for raw inputs: pixels, texts, numbers in their own
    units. `scores` adds `outputs` [B, outputs], those of the network itself; for texts it takes the
    ids of their words, as small devices have no strings.

    Raises:
        UserError: the task has no `answers`.
    """
    if not hasattr(trainer.task, "answers"):
        raise UserError(
            f"task: {type(trainer.task).__name__} has no answers(outputs), which an export gives."
        )
    given = raw(trainer.data)
    shown = getattr(trainer.data, "ids", None) or given
    asked = _Asked(trainer, shown)
    about = "; ".join(f"{name}: {said}" for name, said in trainer.task.answered.items())
    signatures = {
        "predict": Signature(asked.answering(given, False), {given.name: given.spec}, about),
        "scores": Signature(
            asked.answering(shown, True),
            {shown.name: shown.spec},
            f"{about}; outputs: the network's",
        ),
    }
    notes = {"task": type(trainer.task).__name__, **asked.notes()}
    return Export(
        signatures,
        "scores",
        asked.samples,
        asked.judge,
        notes,
        given.resources,
        drawn=False,
        expected=asked.expected,
    )


class _Asked:
    """Network of a trainer as functions of named tensors. `shown` is the input of `scores`."""

    def __init__(self, trainer: Any, shown: InputSpec) -> None:
        self.trainer = trainer
        self.task = trainer.task
        self.data = trainer.data
        self.shown = shown

    def answering(self, given: InputSpec, scores: bool) -> Callable[..., dict[str, tf.Tensor]]:
        """Return the function of the input `given`, with the network's outputs too if `scores`."""

        def call(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            values = inputs[given.name]
            if given.limit is None:
                return self._answers(given.prepare(values), scores)
            # [B]: a wrong id must not fail the others in the batch
            known = (values >= 0) & (values < given.limit)
            found = self._answers(given.prepare(tf.where(known, values, 0)), scores)
            return {name: _where(known, value) for name, value in found.items()} | {"known": known}

        return call

    def _answers(self, prepared: tf.Tensor, scores: bool) -> dict[str, tf.Tensor]:
        outputs = tf.cast(self.trainer.network(prepared, training=False), tf.float32)
        return {**self.task.answers(outputs), **({"outputs": outputs} if scores else {})}

    def notes(self) -> dict[str, Any]:
        """Return the task's notes, and the names of classes or columns."""
        names = list(self.data.names) if getattr(self.data, "classes", 0) else []
        columns = getattr(self.data, "columns", None)
        return (
            self.task.notes
            | ({"names": names} if names else {})
            | ({"columns": columns} if columns else {})
        )

    def samples(self, count: int) -> dict[str, np.ndarray]:
        """Return inputs of the train split, `count` at most."""
        return {self.shown.name: self._undone(self.data.examples("train", count)[0])}

    def _undone(self, inputs: np.ndarray) -> np.ndarray:
        assert self.shown.undo is not None
        return np.asarray(self.shown.undo(inputs), self.shown.spec.dtype.as_numpy_dtype)

    def expected(self) -> dict[str, float]:
        """Return the scores of the test split by the trainer's own network."""
        inputs, targets = self.data.examples("test")
        found = self.task.evaluate(self.trainer.predict(inputs), targets, self.trainer.network)
        return _named(found)

    def judge(self, function: Function, seed: int) -> dict[str, float]:
        """Return the task's scores of the test split, which do not depend on the seed."""

        def network(inputs: Any, training: bool = False) -> np.ndarray:
            given = self._undone(np.asarray(inputs))
            return in_parts(function, {self.shown.name: given})["outputs"]

        inputs, targets = self.data.examples("test")
        found: Mapping[str, float] = self.task.evaluate(network(inputs), targets, network)
        return _named(found)


def _named(scores: Mapping[str, float]) -> dict[str, float]:
    return {tag.removeprefix("eval/"): value for tag, value in scores.items()}


def _where(known: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Return `value` [B, ...] where `known` [B], else -1 for integers and 0 for floats."""
    shape = tf.concat([tf.shape(known), tf.ones([value.shape.rank - 1], tf.int32)], axis=0)
    blank = tf.constant(-1 if value.dtype.is_integer else 0, value.dtype)
    return tf.where(tf.reshape(known, shape), value, blank)
