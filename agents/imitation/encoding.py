"""Steps as rows of numbers, which a discriminator judges."""

from typing import Any, NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf

from sparring import nested
from sparring.agents.networks import headed, specs


class Rows(NamedTuple):
    """Steps as numbers, float32 [N, ...] each.

    `log_prob` [N, 1] is the agent's of the action, 0 where nobody asks for it; `terminated` [N, 1]
    is 0 or 1.
    """

    observation: tf.Tensor  # [N, O]
    action: tf.Tensor  # [N, A]
    following: tf.Tensor  # [N, O], the observation that the step led to
    terminated: tf.Tensor
    log_prob: tf.Tensor


class Encoder:
    """Encoder of observations and actions as vectors: choices as one-hots, vectors in [-1, 1].

    Parts of observations are joined, bytes divided by the highest they can be. Vectors of actions
    are clipped to their bounds first, as the environment does: an action beyond them is judged by
    what it did.
    """

    def __init__(self, observation_space: gymnasium.Space, action_space: gymnasium.Space) -> None:
        space = nested.without_mask(observation_space)
        spec = specs.time_step_spec(space).observation
        self._highest = headed.highest_bytes(spec)
        self.observation_width = sum(int(np.prod(box.shape)) for box in nested.leaves(space))
        self._space = action_space
        self._choices = _choices(action_space)
        self.action_width = sum(self._choices) or int(np.prod(action_space.shape or (1,)))

    def observation(self, observation: Any) -> tf.Tensor:
        """Return observations [N, ...] as float32 [N, O]."""
        seen = headed.prepare(nested.without_mask(observation), None, self._highest)
        flat = [tf.reshape(part, [part.shape[0], -1]) for part in nested.leaves(seen)]
        return tf.concat(flat, axis=-1)

    def action(self, action: tf.Tensor) -> tf.Tensor:
        """Return actions [N, ...] as float32 [N, A]."""
        if self._choices:
            columns = tf.reshape(action, [action.shape[0], len(self._choices)])
            each = [tf.one_hot(columns[:, i], n) for i, n in enumerate(self._choices)]
            return tf.concat(each, axis=-1)
        space: Any = self._space
        clipped = tf.clip_by_value(tf.cast(action, tf.float32), space.low, space.high)
        finite = np.isfinite(space.high - space.low)
        middle = np.where(finite, (space.high + space.low) / 2.0, 0.0).astype(np.float32)
        half = np.where(finite, (space.high - space.low) / 2.0, 1.0).astype(np.float32)
        return tf.reshape((clipped - middle) / half, [action.shape[0], -1])


def _choices(space: gymnasium.Space) -> list[int]:
    """Return how many choices each number of an action has; none of a Box."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return [int(space.n)]  # type: ignore[arg-type]
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return [int(n) for n in np.ravel(space.nvec)]
    return []
