"""FrozenLake over many maps: as FrozenLake on each, observed from above, and over files."""

import logging
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from sparring.data import lake_maps
from sparring.envs.compiled.frozen_lake import FrozenLake
from sparring.envs.compiled.frozen_lake_maps import FrozenLakeMaps, FrozenLakeMapsState
from sparring.envs.testing.check import check_environment
from sparring.errors import UserError
from sparring.xla import random

MAPS = np.array([["SFF", "HFG"], ["FGF", "SHF"]])  # two rows of three cells


@pytest.fixture
def path(tmp_path: Path) -> str:
    np.savez(tmp_path / "maps.npz", maps=MAPS)
    return str(tmp_path / "maps.npz")


def keys(count: int) -> tf.Tensor:
    return random.members(random.stream(0, "test"), count)


@pytest.mark.parametrize("slippery", [False, True])
def test_each_map_is_frozen_lake(path: str, slippery: bool) -> None:
    many = FrozenLakeMaps(path, slippery=slippery)
    for number, rows in enumerate(MAPS.tolist()):
        one = FrozenLake(rows, slippery=slippery)
        # Every cell and action, twenty keys each
        cell, action, _ = (x.ravel() for x in np.meshgrid(range(6), range(4), range(20)))
        state = FrozenLakeMapsState(tf.fill([480], number), tf.constant(cell, tf.int32))
        given = (tf.constant(action, tf.int32), keys(480))
        ours, reward, ended = many.transition(state, *given)
        theirs, wanted, over = one.transition(
            one.initial(keys(480))._replace(cell=state.cell), *given
        )
        np.testing.assert_array_equal(ours.cell, theirs.cell)
        np.testing.assert_array_equal(ours.map, state.map)
        np.testing.assert_array_equal(reward, wanted)
        np.testing.assert_array_equal(ended, over)


def test_an_observation_shows_holes_goal_and_agent(path: str) -> None:
    many = FrozenLakeMaps(path)
    state = FrozenLakeMapsState(tf.constant([1, 0]), tf.constant([3, 1]))
    holes, goal, agent = np.moveaxis(many.observe(state).numpy(), -1, 0)
    np.testing.assert_array_equal(holes[0], [[0, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(goal[0], [[0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(agent[0], [[0, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(holes[1], [[0, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(agent[1], [[0, 1, 0], [0, 0, 0]])


def test_every_map_is_drawn_equally_often_and_begins_at_its_start(path: str) -> None:
    state = FrozenLakeMaps(path).initial(keys(2000))
    assert state.map.numpy().mean() == pytest.approx(0.5, abs=0.05)  # standard error 0.011
    np.testing.assert_array_equal(state.cell, np.array([0, 3])[state.map])


def test_maps_that_cannot_be_played_are_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    some = np.array([["SF", "HG"], ["SS", "FG"], ["SH", "HG"], ["FF", "FG"]])
    np.savez(tmp_path / "some.npz", maps=some)
    file = str(tmp_path / "some.npz")
    with caplog.at_level(logging.WARNING, "sparring"):
        assert len(FrozenLakeMaps(file).maps) == 2
    assert "2 of 4 maps are left out: 2 without one start and one goal." in caplog.text
    assert "1 of 2 maps that are kept have no way" in caplog.text
    assert FrozenLakeMaps(file).best_return == 0.5
    caplog.clear()
    with caplog.at_level(logging.WARNING, "sparring"):
        assert len(FrozenLakeMaps(file, solvable=True).maps) == 1
    assert "2 without one start and one goal, 1 without a way" in caplog.text
    np.savez(tmp_path / "none.npz", maps=some[1:2])
    with pytest.raises(UserError, match="none of its 1 maps"):
        FrozenLakeMaps(str(tmp_path / "none.npz"))


def test_random_maps_are_the_seeds(path: str) -> None:
    lake = FrozenLakeMaps(count=7, size=5, map_seed=3)
    expected = lake_maps.random_maps(7, 5, 3, corners=False)
    np.testing.assert_array_equal(lake.maps, expected)
    assert len(FrozenLakeMaps(path, count=1).maps) == 1
    for wrong in ({"count": 0}, {"size": 1}, {"success_rate": 2.0}):
        with pytest.raises(UserError):
            FrozenLakeMaps(**wrong)


def test_every_promise_of_an_environment_is_kept(path: str) -> None:
    check_environment(FrozenLakeMaps(path, slippery=True))
