"""Compiled environments whose parameters follow the progress of a run."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.wrapper import Wrapper
from sparring.errors import UserError, near
from sparring.optim.schedules import Linear, Schedule, as_schedule


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
      UserError: the environment has no such attribute.
    """

    def __init__(
        self,
        environment: CompiledEnvironment,
        curriculum: Mapping[str, Any],
        max_episode_steps: int | None = None,
    ) -> None:
        super().__init__(environment, environment.name, max_episode_steps)
        self.curriculum = {name: _schedule(name, given) for name, given in curriculum.items()}
        for name in self.curriculum:
            if not isinstance(getattr(environment, name, None), int | float | np.number):
                raise UserError(
                    f"env.curriculum.{name}: {type(environment).__name__} has no number of that "
                    f"name. {near(name, _numbers(environment))}".rstrip()
                )
        self._progress: tf.Tensor | float = 1.0

    def at(self, progress: tf.Tensor | float) -> "Curriculum":
        """Return the environment as episodes begin in it at a share `progress` [] of the run."""
        other = copy.copy(self)
        other._progress = progress
        return other

    def initial(self, keys: tf.Tensor) -> Any:
        progress = tf.convert_to_tensor(self._progress, tf.float32)
        parameters = {
            name: tf.fill(keys.shape[:1], tf.cast(schedule(progress), tf.float32))
            for name, schedule in self.curriculum.items()
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


def _schedule(name: str, given: Any) -> Schedule:
    if not isinstance(given, Mapping):
        return as_schedule(given)
    try:
        return Linear(**given)
    except TypeError as error:
        raise UserError(
            f"env.curriculum.{name}={dict(given)}: give start and end, and fraction of the run "
            "unless it is the whole."
        ) from error


def _numbers(environment: CompiledEnvironment) -> list[str]:
    """The names of an environment's numbers, which a parameter may be."""
    named = {n: v for kind in type(environment).__mro__ for n, v in vars(kind).items()}
    named |= vars(environment)
    return [n for n, v in named.items() if not n.startswith("_") and isinstance(v, int | float)]
