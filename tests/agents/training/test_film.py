"""Films of episodes whose every frame is known."""

from typing import Any

import numpy as np
import pytest

from sparring.agents.training import film
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.tensorboard import gif
from tests.agents.training.test_episodes import right, stay
from tests.helpers.toy_envs import Chain, Dice

pytestmark = pytest.mark.long


def test_a_video_shows_one_episode_from_its_first_state_to_its_last() -> None:
    chain = Gymnasium("tests.helpers.toy_envs:Chain", max_episode_steps=5)
    frames = film.video(chain, right, seed=0, longest=100)
    assert frames is not None
    assert frames.shape == (4, 4, 6, 3)
    np.testing.assert_array_equal(frames[:, 0, 0, 0], [0, 1, 2, 3])  # a frame shows the position
    cut = film.video(chain, right, seed=0, longest=2)
    assert cut is not None
    np.testing.assert_array_equal(cut[:, 0, 0, 0], [0, 1, 2])
    timed_out = film.video(chain, stay, seed=0, longest=100)
    assert timed_out is not None
    assert len(timed_out) == 6


class Poster(Chain):
    def render(self) -> np.ndarray:
        return np.random.default_rng(self.position).integers(0, 255, (400, 600, 3), np.uint8)


def test_large_frames_are_kept_at_the_size_they_are_shown_in_and_make_the_same_gif() -> None:
    frames = film.video(
        Gymnasium("tests.agents.training.test_film:Poster"), right, seed=0, longest=100
    )
    assert frames is not None
    assert frames.shape == (4, 200, 300, 3)
    env = Poster()
    env.reset()
    whole = [env.render()]
    for _ in range(3):
        env.step(1)
        whole.append(env.render())
    counts = np.ones(4, int)
    assert gif.encode(frames, counts, 30) == gif.encode(np.stack(whole), counts, 30)


class Blind(Chain):
    def render(self) -> Any:
        return None


def test_no_video_of_what_draws_nothing_and_one_warning_of_what_cannot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def still(observation: np.ndarray, t: int) -> np.ndarray:
        return np.zeros((len(observation), 1), np.float32)

    assert Dice.metadata["render_modes"] == []
    assert (
        film.video(Gymnasium("tests.helpers.toy_envs:toy/Dice-v0"), still, seed=0, longest=5)
        is None
    )
    assert caplog.messages == []
    blind = Gymnasium("tests.agents.training.test_film:Blind")
    for _ in range(2):
        assert film.video(blind, right, seed=0, longest=5) is None
    assert caplog.messages == [
        "No videos: Blind cannot be drawn: render() gave NoneType, not a colour picture."
    ]
