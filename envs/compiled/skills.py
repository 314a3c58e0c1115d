"""Compiled environments whose episodes each have a skill, which the agent is told."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from gymnasium import spaces

from sparring.envs.compiled.base import CompiledEnvironment
from sparring.envs.compiled.wrapper import Wrapper
from sparring.errors import UserError
from sparring.xla import random

_SKILL = 0x5C111  # folded into an environment's key


class SkillState(NamedTuple):
    """State inside, and number of the skill, int32 [B]."""

    inner: Any
    skill: tf.Tensor


class Skills(Wrapper):
    """Draw a skill z for every episode, each equally likely, and show it behind the observation.

    Eysenbach et al. 2019, "Diversity is all you need", algorithm 1. Observations [B, F] become
    [B, F + skills], the skill one-hot.

    Args:
      environment: the one inside, compiled, of vectors observed.
      skills: number of skills.
      max_episode_steps: truncate episodes there; None: where the environment inside does.
    """

    def __init__(
        self,
        environment: CompiledEnvironment,
        skills: int = 8,
        max_episode_steps: int | None = None,
    ) -> None:
        name = getattr(environment, "name", type(environment).__name__)
        if not environment.compiled:
            raise UserError(
                f"intrinsic=diayn: {name} is no compiled environment: env=point_mass is."
            )
        seen = environment.observation_space
        if not (isinstance(seen, spaces.Box) and seen.dtype == np.float32 and len(seen.shape) == 1):
            raise UserError(
                f"intrinsic=diayn: {name} observes {seen}; a skill is shown behind a vector of "
                "float32, as env=point_mass has it."
            )
        if skills < 2:
            raise UserError(f"reward_source.skills={skills}: at least 2.")
        super().__init__(environment, f"{name}, {skills} skills", max_episode_steps)
        self.skills = skills
        low = np.concatenate([seen.low, np.zeros(skills, np.float32)])
        high = np.concatenate([seen.high, np.ones(skills, np.float32)])
        self.observation_space = spaces.Box(low, high, dtype=np.float32)

    def initial(self, keys: tf.Tensor) -> SkillState:
        drawn = random.integers(random.fold(keys, _SKILL), 1, self.skills)[:, 0]
        return SkillState(self.environment.initial(keys), tf.cast(drawn, tf.int32))

    def observe(self, state: SkillState) -> tf.Tensor:
        inner = self.environment.observe(state.inner)  # [B, F]
        return tf.concat([inner, tf.one_hot(state.skill, self.skills)], axis=-1)

    def transition(
        self, state: SkillState, action: tf.Tensor, keys: tf.Tensor
    ) -> tuple[SkillState, tf.Tensor, tf.Tensor]:
        inner, reward, terminated = self.environment.transition(state.inner, action, keys)
        return SkillState(inner, state.skill), reward, terminated

    def measure(self, state: SkillState) -> dict[str, tf.Tensor]:
        return self.environment.measure(state.inner)

    def render(self, state: SkillState) -> np.ndarray | None:
        return self.environment.render(state.inner)
