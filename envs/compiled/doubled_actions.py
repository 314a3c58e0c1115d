"""Compiled environments some of whose actions are not allowed, as their mask says."""

from typing import Any

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring import nested
from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.wrapper import Wrapper
from sparring.errors import UserError


class DoubledActions(Wrapper):
    """Have each of the n actions twice, of which one is allowed, and say so by a mask.

    Where the first number observed is negative, the allowed ones are 0 to n - 1, else n to 2 n - 1.
    An action that is not allowed does what action 0 does.

    Args:
      environment: the one inside, of Discrete actions and a vector observed.
      masked: whether the observation has the mask; else an agent has to find out.
      max_episode_steps: truncate episodes there; None: where the environment inside does.
    """

    def __init__(
        self,
        environment: CompiledEnvironment,
        masked: bool = True,
        max_episode_steps: int | None = None,
    ) -> None:
        super().__init__(environment, f"{environment.name}, doubled actions", max_episode_steps)
        seen = environment.observation_space
        actions = environment.action_space
        is_vector = isinstance(seen, spaces.Box) and len(seen.shape) == 1
        if not (is_vector and isinstance(actions, spaces.Discrete)):
            raise UserError(
                f"env.environment: {environment.name} observes {seen} and acts in {actions}; "
                "actions are doubled where both are a vector and Discrete."
            )
        self.masked = masked
        self.count = int(actions.n)  # type: ignore[arg-type]
        self.action_space = spaces.Discrete(2 * self.count)
        if masked:
            mask = spaces.Box(0, 1, (2 * self.count,), np.uint8)
            self.observation_space = spaces.Dict({nested.OBSERVATION: seen, nested.MASK: mask})

    def observe(self, state: Any) -> Any:
        seen = self.environment.observe(state)
        if not self.masked:
            return seen
        upper = tf.repeat(self._upper(seen)[:, tf.newaxis], self.count, axis=1)  # [B, n]
        mask = tf.cast(tf.concat([~upper, upper], axis=1), tf.uint8)
        return {nested.OBSERVATION: seen, nested.MASK: mask}

    def transition(
        self, state: Any, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[Any, tf.Tensor, tf.Tensor]:
        allowed = (action >= self.count) == self._upper(self.environment.observe(state))
        inner = tf.where(allowed, action % self.count, tf.zeros_like(action))
        return self.environment.transition(state, inner, keys)

    def _upper(self, seen: tf.Tensor) -> tf.Tensor:
        """Whether the second n actions are the allowed ones, bool [B]."""
        return seen[:, 0] >= 0.0
