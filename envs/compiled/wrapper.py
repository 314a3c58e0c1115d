"""Base of compiled environments that change another one."""

import copy
from typing import Any, Self

import numpy as np
import tensorflow as tf

from sparring.envs.compiled.base import CompiledEnvironment


class Wrapper(CompiledEnvironment):
    """Be as the environment inside, in all that a subclass does not change.

    Args:
      environment: the one inside.
      name: of this one.
      max_episode_steps: truncate episodes there; None: where the environment inside does.
    """

    def __init__(
        self, environment: CompiledEnvironment, name: str, max_episode_steps: int | None = None
    ) -> None:
        super().__init__(
            environment.max_episode_steps if max_episode_steps is None else max_episode_steps
        )
        self.environment = environment
        self.name = name
        self.info = environment.info
        self.curriculum = environment.curriculum
        self.observation_space = environment.observation_space
        self.action_space = environment.action_space

    @property
    def renders(self) -> bool:
        """Whether `render` returns images."""
        return self.environment.renders

    def at(self, progress: tf.Tensor | float) -> Self:
        """Return this with the environment inside as it is at a share `progress` [] of the run."""
        other = copy.copy(self)
        other.environment = self.environment.at(progress)
        return other

    def initial(self, keys: tf.Tensor) -> Any:
        return self.environment.initial(keys)

    def observe(self, state: Any) -> Any:
        return self.environment.observe(state)

    def transition(
        self, state: Any, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[Any, tf.Tensor, tf.Tensor]:
        return self.environment.transition(state, action, keys)

    def measure(self, state: Any) -> dict[str, tf.Tensor]:
        return self.environment.measure(state)

    def render(self, state: Any) -> np.ndarray | None:
        return self.environment.render(state)
