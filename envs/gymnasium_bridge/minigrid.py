"""MiniGrid's observations as agents here can take them."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sparring.errors import UserError

_HIGHEST = 10  # of the numbers of objects, colours and states


class Cells(gym.ObservationWrapper):
    """Show the cells before an agent alone, uint8 [7, 7, 3]: object, colour and state of each.

    The mission's text and the direction are left out. MiniGrid says that the numbers go up to 255;
    none passes 10, and bytes are divided by the highest they can be.

    Raises:
        UserError: the environment's observations have no picture of cells.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        inner = env.observation_space
        found: Any = inner.spaces.get("image") if isinstance(inner, spaces.Dict) else None
        if found is None:
            raise UserError(
                "env=minigrid is for environments of MiniGrid, whose observations have an image; "
                f"this one's are {inner}: take env=gymnasium."
            )
        self.observation_space = spaces.Box(0, _HIGHEST, found.shape, np.uint8)

    def observation(self, observation: Any) -> np.ndarray:
        """Return the picture of cells in an observation."""
        return observation["image"]
