"""Compiled environments that show an agent the newest few observations at once."""

from typing import Any

import numpy as np
import tensorflow as tf

from sparring import frame_stacks, nested
from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.wrapper import Wrapper
from sparring.frame_stacks import FrameStack


class Stacked(Wrapper):
    """Show the newest `frames` observations of an environment, one behind the other.

    They are concatenated along the last axis, the oldest first; the first of an episode stands for
    those before it. See sparring.frame_stacks.
    """

    def __init__(
        self, environment: CompiledEnvironment, frames: int, max_episode_steps: int | None = None
    ) -> None:
        super().__init__(environment, f"{environment.name}, {frames} frames", max_episode_steps)
        self.observation_space = frame_stacks.stacked(environment.observation_space, frames)

    def initial(self, keys: tf.Tensor) -> Any:
        state = self.environment.initial(keys)

        def of_part(box: Any, part: tf.Tensor) -> tf.Tensor:
            return tf.concat([part] * box.frames, -1) if isinstance(box, FrameStack) else part

        shown = self.environment.observe(state)
        return state, nested.map_parts(of_part, self.observation_space, shown)

    def observe(self, state: Any) -> Any:
        return state[1]

    def transition(
        self, state: Any, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[Any, tf.Tensor, tf.Tensor]:
        inner, stack = state
        inner, reward, terminated = self.environment.transition(inner, action, keys)

        def of_part(box: Any, before: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
            if not isinstance(box, FrameStack):
                return part
            return tf.concat([before[..., box.frame.shape[-1] :], part], -1)

        shown = self.environment.observe(inner)
        stack = nested.map_parts(of_part, self.observation_space, stack, shown)
        return (inner, stack), reward, terminated

    def measure(self, state: Any) -> dict[str, tf.Tensor]:
        return self.environment.measure(state[0])

    def render(self, state: Any) -> np.ndarray | None:
        return self.environment.render(state[0])
