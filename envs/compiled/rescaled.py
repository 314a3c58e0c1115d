"""Compiled environments whose actions an agent chooses between -1 and 1."""

from typing import Any

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.wrapper import Wrapper
from sparring.errors import UserError


class Rescaled(Wrapper):
    """Take actions from -1 to 1, stretched to the bounds of the environment's Box."""

    def __init__(
        self, environment: CompiledEnvironment, max_episode_steps: int | None = None
    ) -> None:
        super().__init__(environment, f"{environment.name}, rescaled", max_episode_steps)
        space = environment.action_space
        if not isinstance(space, spaces.Box):
            raise UserError(
                f"env.environment: the actions of {environment.name} are {space}; those of a Box "
                "can be rescaled."
            )
        self.action_space = spaces.Box(-1.0, 1.0, space.shape, np.float32)
        self._low = space.low
        self._half = (space.high - space.low) / 2.0

    def transition(
        self, state: Any, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[Any, tf.Tensor, tf.Tensor]:
        return self.environment.transition(state, self._low + self._half * (action + 1.0), keys)
