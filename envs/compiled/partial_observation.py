"""Compiled environments that show an agent only a part of the observation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring.envs.compiled.base import CompiledEnvironment
from sparring.errors import UserError


class Masked(CompiledEnvironment):
    """Show only the entries `keep` of an environment's observation vector.

    The agent has to remember the rest.
    """

    def __init__(
        self,
        environment: CompiledEnvironment,
        keep: Sequence[int],
        max_episode_steps: int | None = None,
    ) -> None:
        super().__init__(
            environment.max_episode_steps if max_episode_steps is None else max_episode_steps
        )
        space = environment.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise UserError(
                f"env.environment: {environment.name} observes {space}; numbers of a vector can be "
                "left out."
            )
        if not keep or not all(0 <= i < space.shape[0] for i in keep):
            raise UserError(
                f"env.keep={list(keep)}: give indices of numbers that {environment.name} observes: "
                f"{space}."
            )
        self.environment = environment
        self.info = environment.info
        self.keep = list(keep)
        self.name = f"{environment.name}, masked"
        self.observation_space = spaces.Box(
            space.low[self.keep], space.high[self.keep], dtype=np.float32
        )
        self.action_space = environment.action_space

    def initial(self, keys: tf.Tensor) -> Any:
        return self.environment.initial(keys)

    def observe(self, state: Any) -> tf.Tensor:
        return tf.gather(self.environment.observe(state), self.keep, axis=1)  # [B, len(keep)]

    def transition(
        self, state: Any, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[Any, tf.Tensor, tf.Tensor]:
        return self.environment.transition(state, action, keys)

    def measure(self, state: Any) -> dict[str, tf.Tensor]:
        return self.environment.measure(state)

    def render(self, state: Any) -> np.ndarray | None:
        return self.environment.render(state)
