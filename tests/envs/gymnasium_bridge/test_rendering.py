"""Drawing that ends its process natively costs the film, and nothing else."""

import logging
import os
from collections.abc import Mapping

import pytest

from sparring.agents.training import film
from sparring.envs.gymnasium_bridge import rendering
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.envs.gymnasium_bridge.episode_replay import Replayable
from sparring.errors import UserError
from tests.agents.training.test_episodes import right
from tests.helpers.toy_envs import Chain

pytestmark = pytest.mark.long


class Aborts(Chain):
    """A chain whose picture aborts the process, unless a backend is chosen."""

    def render(self):
        if os.environ.get("MUJOCO_GL") != "osmesa":
            os.abort()
        return super().render()


NAME = "tests.envs.gymnasium_bridge.test_rendering:Aborts"


def test_a_native_abort_ends_another_process_and_costs_the_film(caplog):
    environment = Gymnasium(NAME)
    with pytest.raises(UserError, match=r"Aborts cannot be drawn: worker 0 died \(signal 6"):
        environment.vector(1, seed=0, render=True)
    assert film.video(environment, right, seed=0, longest=5) is None
    assert "No videos: Aborts cannot be drawn: worker 0 died" in caplog.text
    environment.vector(1, seed=0).close()  # without pictures


class Seat:
    """Factory of the environment in another process, under other environment variables."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = variables

    def __call__(self):
        os.environ.update(self.variables)
        return Replayable(Aborts(render_mode="rgb_array"), 0)


def test_without_a_display_mujocos_backend_is_the_first_that_draws(monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="sparring")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MUJOCO_GL", "")  # and put back after the test
    rendering.require(Seat, "gymnasium.envs.mujoco.ant_v5:AntEnv", "Ant")
    assert os.environ["MUJOCO_GL"] == "osmesa"
    assert "MuJoCo draws with MUJOCO_GL=osmesa" in caplog.text


def test_a_backend_that_was_chosen_is_not_chosen_again(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(UserError, match=r"Ant cannot be drawn: .*MUJOCO_GL=egl or MUJOCO_GL=osm"):
        rendering.require(Seat, "gymnasium.envs.mujoco.ant_v5:AntEnv", "Ant")
    assert os.environ["MUJOCO_GL"] == "egl"
