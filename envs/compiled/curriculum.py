"""Compiled environments whose parameters follow the progress of a run."""

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import tensorflow as tf

from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.wrapper import Wrapper
from sparring.envs.gymnasium_bridge.curriculum import absent, course, is_number
from sparring.optim.schedules import Linear


class Curriculum(Wrapper):
    """Set attributes of an environment, as episodes begin, to what the progress of a run says.

    Evaluations are made at the end of all schedules.

    Args:
      environment: one that reads these attributes in `initial`, `observe`, `transition`, `measure`
        or `render`, as numbers or float32 tensors [B].
      curriculum: for each attribute a number, a schedule (see sparring.optim.schedules), or what
        `Linear` takes.
      max_episode_steps: truncate episodes there; None: where the environment inside does.

    Raises:
      UserError: the environment has no number of such a name.
    """

    def __init__(
        self,
        environment: CompiledEnvironment,
        curriculum: Mapping[str, Any],
        max_episode_steps: int | None = None,
    ) -> None:
        super().__init__(environment, environment.name, max_episode_steps)
        for name in curriculum:
            if not is_number(getattr(environment, name, None)):
                raise absent(name, environment)
        self._schedules = {n: course(n, given, Linear) for n, given in curriculum.items()}
        self.curriculum = {**environment.curriculum, **self._schedules}
        self._progress: tf.Tensor | float = 1.0

    def at(self, progress: tf.Tensor | float) -> Self:
        """Return the environment as episodes begin in it at a share `progress` [] of the run."""
        other = super().at(progress)
        other._progress = progress
        return other

    def initial(self, keys: tf.Tensor) -> Any:
        progress = tf.convert_to_tensor(self._progress, tf.float32)
        parameters = {
            name: tf.fill(keys.shape[:1], tf.cast(schedule(progress), tf.float32))
            for name, schedule in self._schedules.items()
        }
        return self._with(parameters).initial(keys), parameters

    def observe(self, state: Any) -> Any:
        inner, parameters = state
        return self._with(parameters).observe(inner)

    def transition(
        self, state: Any, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[Any, tf.Tensor, tf.Tensor]:
        inner, parameters = state
        inner, reward, terminated = self._with(parameters).transition(inner, action, keys)
        return (inner, parameters), reward, terminated

    def measure(self, state: Any) -> dict[str, tf.Tensor]:
        inner, parameters = state
        return self._with(parameters).measure(inner)

    def render(self, state: Any) -> np.ndarray | None:
        inner, parameters = state
        return self._with(parameters).render(inner)

    def _with(self, parameters: Mapping[str, Any]) -> CompiledEnvironment:
        """The environment inside, with its parameters, each [B]."""
        other = copy.copy(self.environment)
        for name, value in parameters.items():
            setattr(other, name, value)
        return other
