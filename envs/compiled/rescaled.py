"""Compiled environments whose actions an agent chooses between -1 and 1."""

from typing import Any

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring.envs.compiled.base import CompiledEnvironment
from sparring.errors import UserError


class Rescaled(CompiledEnvironment):
    """Take actions from -1 to 1, stretched to the bounds of the environment's Box."""

    def __init__(
        self, environment: CompiledEnvironment, max_episode_steps: int | None = None
    ) -> None:
        super().__init__(
            environment.max_episode_steps if max_episode_steps is None else max_episode_steps
        )
        space = environment.action_space
        if not isinstance(space, spaces.Box):
            raise UserError(
                f"env.environment: the actions of {environment.name} are {space}; those of a Box "
                "can be rescaled."
            )
        self.environment = environment
        self.info = environment.info
        self.name = f"{environment.name}, rescaled"
        self.observation_space = environment.observation_space
        self.action_space = spaces.Box(-1.0, 1.0, space.shape, np.float32)
        self._low = space.low
        self._half = (space.high - space.low) / 2.0

    def initial(self, keys: tf.Tensor) -> Any:
        return self.environment.initial(keys)

    def observe(self, state: Any) -> Any:
        return self.environment.observe(state)

    def transition(
        self, state: Any, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[Any, tf.Tensor, tf.Tensor]:
        return self.environment.transition(state, self._low + self._half * (action + 1.0), keys)

    def measure(self, state: Any) -> dict[str, tf.Tensor]:
        return self.environment.measure(state)

    def render(self, state: Any) -> np.ndarray | None:
        return self.environment.render(state)
