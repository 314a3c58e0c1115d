"""Gradient accumulation: a batch in parts, whose gradients are added."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from sparring.distribute import replicas
from sparring.gans.players import Values
from sparring.xla import loops

Gradients = list[tf.Tensor]
Learn = Callable[[tf.Tensor], tuple[Gradients, Values]]


def accumulate(
    learn: Learn, parts: int, weights: Sequence[tf.Variable], tags: Sequence[str]
) -> tuple[Gradients, Values]:
    """Sum the gradients of `weights` and the values of `tags` that `learn(part)` returns."""
    if parts == 1:
        return learn(tf.constant(0, tf.int64))
    if replicas.num_replicas() > 1:
        # Unrolled: replicas may meet in a part, which they cannot in a loop
        found = [learn(tf.constant(part, tf.int64)) for part in range(parts)]
        return functools.reduce(functools.partial(tf.nest.map_structure, tf.add), found)

    def add_part(part: tf.Tensor, sums: Any) -> Any:
        return tf.nest.map_structure(tf.add, sums, learn(part))

    zero_gradients = [tf.zeros(weight.shape) for weight in weights]
    zero_values = {tag: tf.zeros([]) for tag in tags}
    return loops.repeated(add_part, (zero_gradients, zero_values), parts, most=parts)
