"""Running statistics: observations to zero mean and unit spread, rewards by the spread of the
discounted return.

TF-Agents' own normalisers start so that the first batch saturates, turn constant rewards into tens,
and drift apart between replicas; these merge exact batch moments (Chan et al. 1979) and are the
identity until they have seen data.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.distribute import replicas, sharding
from sparring.errors import warn_once


class Moments(tf.Module):
    """Count, mean and sum of squared deviations of a stream of vectors, merged batch by batch, over
    all replicas.
    """

    def __init__(self, shape: tuple[int, ...], name: str) -> None:
        super().__init__(name=name)
        self.count = replicas.replicated(0.0)
        self.mean = replicas.replicated(tf.zeros(shape))
        # Sum of squared deviations from the mean
        self.deviation = replicas.replicated(tf.zeros(shape))

    def update(self, values: tf.Tensor, mask: tf.Tensor) -> None:
        """Merge `values` [N, ...] where `mask` [N] is one."""
        weight = tf.reshape(mask, [-1] + [1] * (values.shape.rank - 1))
        # Sums of differences are exact where sums of large, equal numbers round
        near = replicas.broadcast_from_first(values[0])
        count, away = replicas.all_reduce_sum(
            [tf.reduce_sum(mask), tf.reduce_sum((values - near) * weight, axis=0)]
        )
        mean = near + away / tf.maximum(count, 1.0)
        deviation = replicas.all_reduce_sum(
            tf.reduce_sum(weight * tf.square(values - mean), axis=0)
        )
        share = count / tf.maximum(self.count + count, 1.0)
        delta = mean - self.mean
        self.deviation.assign_add(deviation + tf.square(delta) * self.count * share)
        self.mean.assign_add(delta * share)
        self.count.assign_add(count)

    def variance(self) -> tf.Tensor:
        """The population variance; one before any data."""
        return tf.where(
            self.count > 0.0,
            self.deviation / tf.maximum(self.count, 1.0),
            tf.ones_like(self.deviation),
        )


class ObservationNormalizer(tf.Module):
    """(observation - mean) / spread, clipped to +-`clip` (Huang et al. 2022, details 28 and 29)."""

    def __init__(self, shape: tuple[int, ...], clip: float = 10.0, epsilon: float = 1e-8) -> None:
        super().__init__(name="observation_normalizer")
        self.moments = Moments(shape, "observation_moments")
        self.clip = clip
        self.epsilon = epsilon

    def normalize(self, observation: tf.Tensor) -> tf.Tensor:
        """Observations [B, ...] by the statistics as they stand; the identity before any update."""
        spread = tf.sqrt(self.moments.variance() + self.epsilon)
        return tf.clip_by_value((observation - self.moments.mean) / spread, -self.clip, self.clip)

    def update(self, observations: tf.Tensor, mask: tf.Tensor) -> None:
        """Merge observations [N, ...] where mask [N] is one."""
        self.moments.update(tf.cast(observations, tf.float32), mask)


class PartsNormalizer(tf.Module):
    """A normalizer for each part of observations that has numbers, of those of several parts."""

    def __init__(self, parts: dict[str, ObservationNormalizer]) -> None:
        super().__init__(name="parts_normalizer")
        self.parts = parts

    def update(self, observations: dict[str, tf.Tensor], mask: tf.Tensor) -> None:
        """Merge observations [N, ...] where mask [N] is one."""
        for name, normalizer in self.parts.items():
            normalizer.update(observations[name], mask)


Normalizer = ObservationNormalizer | PartsNormalizer


def observation_normalizer(space: Any, clip: float = 10.0) -> Normalizer | None:
    """Return the normalizer of observations, of a Box or of several by name: None, which is said,
    if they are bytes. `clip` is how many standard deviations they may be off.
    """
    if isinstance(space, Mapping):
        parts = {
            name: ObservationNormalizer(tuple(box.shape or ()), clip)
            for name, box in space.items()
            if box.dtype != np.uint8
        }
        return PartsNormalizer(parts) if parts else None
    if space.dtype == np.uint8:
        warn_once(
            "agent.normalize_observations: these observations are bytes, which are divided by the "
            "highest they can be and not normalised besides."
        )
        return None
    return ObservationNormalizer(tuple(space.shape or ()), clip)


class RewardNormalizer(tf.Module):
    """Rewards divided by the spread of the running discounted return of each environment (Huang et
    al. 2022, 30, 31).

    The mean is not removed, which would change the task. Constant rewards are divided by the spread
    of their returns, not blown up, and before any data, or with no spread at all, rewards pass
    unchanged.
    """

    def __init__(
        self, num_envs: int, discount: float, clip: float = 10.0, epsilon: float = 1e-8
    ) -> None:
        super().__init__(name="reward_normalizer")
        self.discount = discount
        self.clip = clip
        self.epsilon = epsilon
        self.moments = Moments((), "return_moments")
        self.shard = sharding.Sharded(tf.zeros([num_envs]))
        self.running = self.shard.whole  # discounted return so far, [B]

    def update(self, rewards: tf.Tensor, ended: tf.Tensor, valid: tf.Tensor) -> None:
        """Follow the returns through rewards [T, B].

        `ended` [T, B] is one where the episode ended with the step; `valid` [T, B] is zero where
        the step was a reset, which does not count, and from which the return starts anew even where
        a restart broke the episode off.
        """

        def advance(
            running: tf.Tensor, inputs: tuple[tf.Tensor, tf.Tensor, tf.Tensor]
        ) -> tf.Tensor:
            reward, previous_ended, counts = inputs
            return counts * (reward + self.discount * running * (1.0 - previous_ended))

        started = tf.concat([tf.zeros_like(ended[:1]), ended[:-1]], axis=0)
        returns = _scan(advance, (rewards, started, valid), self.shard.part)  # [T, B]
        self.moments.update(tf.reshape(returns, [-1]), tf.reshape(valid, [-1]))
        self.shard.part.assign(returns[-1] * (1.0 - ended[-1]))

    def normalize(self, rewards: tf.Tensor) -> tf.Tensor:
        """Rewards of any shape, scaled and clipped."""
        variance = self.moments.variance()
        spread = tf.where(variance > self.epsilon, tf.sqrt(variance + self.epsilon), 1.0)
        return tf.clip_by_value(rewards / spread, -self.clip, self.clip)


def _scan(function, inputs, initial):  # type: ignore[no-untyped-def]
    """tf.scan over the leading, static axis of `inputs`, by a while loop that XLA compiles."""
    steps = inputs[0].shape[0]
    rows = tf.TensorArray(initial.dtype, steps, element_shape=initial.shape)

    def body(t, state, rows):  # type: ignore[no-untyped-def]
        state = function(state, tuple(x[t] for x in inputs))
        return t + 1, state, rows.write(t, state)

    _, _, rows = tf.while_loop(
        lambda t, *_: t < steps,
        body,
        (0, tf.convert_to_tensor(initial), rows),
        maximum_iterations=steps,
    )
    return rows.stack()
