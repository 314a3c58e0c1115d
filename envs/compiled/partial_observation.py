"""Compiled environments that show an agent only a part of the observation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.wrapper import Wrapper
from sparring.errors import UserError


class Masked(Wrapper):
    """Show only the entries `keep` of an environment's observation vector.

    The agent has to remember the rest.
    """

    def __init__(
        self,
        environment: CompiledEnvironment,
        keep: Sequence[int],
        max_episode_steps: int | None = None,
    ) -> None:
        super().__init__(environment, f"{environment.name}, masked", max_episode_steps)
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
        self.keep = list(keep)
        self.observation_space = spaces.Box(
            space.low[self.keep], space.high[self.keep], dtype=np.float32
        )

    def observe(self, state: Any) -> tf.Tensor:
        return tf.gather(self.environment.observe(state), self.keep, axis=1)  # [B, len(keep)]
