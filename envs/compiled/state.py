"""State of a batch of compiled environments between two steps, and the keys of steps."""

from typing import Any, NamedTuple

import tensorflow as tf

from sparring.xla import random


class EnvState(NamedTuple):
    """State of B environments between two steps."""

    state: Any  # the author's state, a nest of tensors [B, ...]
    elapsed: tf.Tensor  # [B] int32: steps into the episode
    done: tf.Tensor  # [B] bool: the next step opens an episode


def step_stream(seed: int | tf.Tensor) -> tf.Tensor:
    """Return the key [2] that all steps of a run's environments draw from."""
    return random.stream(seed, "environment")


def step_keys(
    stream: tf.Tensor, t: tf.Tensor | int, num_envs: int, first: tf.Tensor | int = 0
) -> tf.Tensor:
    """Return the keys [B, 2] of vector step `t`, counted in 64 bits from the run's beginning.

    `stream` is `step_stream(seed)`. The keys are those of the environments with indices `first`,
    first + 1, ...
    """
    return random.members(random.fold(stream, t), num_envs, first)


def first_keys(seed: int | tf.Tensor, num_envs: int) -> tf.Tensor:
    """Return the keys [B, 2] of the episodes that a run opens with."""
    return random.members(random.fold(random.stream(seed, "reset"), 0), num_envs)
