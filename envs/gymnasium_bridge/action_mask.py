"""Masks of actions: a wrapper that shows that of a step's info, and random actions under one."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sparring.errors import UserError
from sparring.nested import MASK, OBSERVATION, mask_of


def sample(action_space: Any, observation: Any) -> Any:
    """Return a random action, of those that one observation's mask allows if it has one."""
    mask = mask_of(observation)
    if mask is None or not np.any(mask):
        return action_space.sample()
    allowed = np.asarray(mask).astype(np.int8)
    if isinstance(action_space, spaces.Discrete):
        return action_space.sample(allowed)
    ends = np.cumsum(action_space.nvec)[:-1]
    return action_space.sample(tuple(np.split(allowed, ends)))


class ActionMask(gym.Wrapper):
    """Show the action mask of each step's info beside the observation.

    The observation becomes a Dict of `observation` and `action_mask`, bytes [A], of which A is the
    number of a Discrete space's actions, or the sum of a MultiDiscrete space's. One that is a Dict
    has the mask among its parts.

    Raises:
        UserError: the actions are of another space, or an info has no mask of that length.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        actions: Any = env.action_space
        if isinstance(actions, spaces.Discrete):
            self._count = int(actions.n)  # type: ignore[arg-type]
        elif isinstance(actions, spaces.MultiDiscrete):
            self._count = int(np.sum(actions.nvec))
        else:
            raise UserError(
                f"env.action_mask: the actions are {actions}, and masks are of Discrete and "
                "MultiDiscrete actions."
            )
        mask = spaces.Box(0, 1, (self._count,), np.uint8)
        seen = env.observation_space
        self._parts = seen.spaces if isinstance(seen, spaces.Dict) else None
        parts = {OBSERVATION: seen} if self._parts is None else dict(self._parts)
        self.observation_space = spaces.Dict({**parts, MASK: mask})

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**arguments)
        return self._beside(observation, info), info

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._beside(observation, info), reward, terminated, truncated, info

    def _beside(self, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        if MASK not in info:
            raise UserError(
                "env.action_mask: a step's info has no action_mask; it has "
                f"{', '.join(map(str, info)) or 'nothing'}."
            )
        mask = np.asarray(info[MASK])
        if mask.size != self._count:
            raise UserError(
                f"env.action_mask: a step's info has a mask of {mask.size} actions, where there "
                f"are {self._count}."
            )
        parts = {OBSERVATION: observation} if self._parts is None else dict(observation)
        return {**parts, MASK: (mask.reshape(-1) != 0).astype(np.uint8)}
