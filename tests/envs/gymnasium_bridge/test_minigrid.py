"""MiniGrid's cells as a picture, and nothing that is no such picture."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sparring.envs.gymnasium_bridge.minigrid import Cells
from sparring.errors import UserError


class Room(gym.Env):
    """A room as MiniGrid's: a Dict with a picture of cells, a direction and a text."""

    observation_space = spaces.Dict(
        image=spaces.Box(0, 255, (7, 7, 3), np.uint8),
        direction=spaces.Discrete(4),
        mission=spaces.Text(20),
    )
    action_space = spaces.Discrete(7)

    def reset(self, *, seed=None, options=None):
        cells = np.full((7, 7, 3), 10, np.uint8)
        return {"image": cells, "direction": 0, "mission": "go"}, {}


def test_an_agent_sees_the_cells_whose_numbers_go_up_to_ten():
    room = Cells(Room())
    assert room.observation_space == spaces.Box(0, 10, (7, 7, 3), np.uint8)
    observation, _ = room.reset()
    assert observation in room.observation_space
    assert (observation == 10).all()


def test_an_environment_without_cells_is_refused():
    with pytest.raises(UserError, match=r"env=minigrid is for .*: take env=gymnasium\.$"):
        Cells(gym.make("CartPole-v1"))


def test_minigrids_own_numbers_are_within_these_bounds():
    constants = pytest.importorskip("minigrid.core.constants")
    for numbers in (constants.OBJECT_TO_IDX, constants.COLOR_TO_IDX, constants.STATE_TO_IDX):
        assert max(numbers.values()) <= 10
