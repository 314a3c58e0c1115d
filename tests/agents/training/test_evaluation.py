"""Evaluation against environments whose returns are known, and against Gymnasium stepped one at a
time.
"""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from sparring.agents.training import evaluation
from sparring.agents.training.evaluation import CompiledEvaluation
from sparring.envs.compiled.toys import PointMass
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError
from sparring.tensorboard import gif
from tests.helpers.toy_envs import Chain, Closes, Dice

pytestmark = pytest.mark.long


def right(observation: np.ndarray, t: int) -> np.ndarray:
    return np.ones(len(observation), np.int64)


def stay(observation: np.ndarray, t: int) -> np.ndarray:
    return np.zeros(len(observation), np.int64)


def test_returns_and_lengths_are_those_of_whole_episodes() -> None:
    chain = Gymnasium("tests.helpers.toy_envs:Chain", max_episode_steps=5)
    # to the right: 10 * 0 + 1, 10 * 1 + 1, 10 * 2 + 1, and position 3 ends it
    returns, lengths = evaluation.episodes(chain, right, 7, seed=0, at_once=3)
    np.testing.assert_array_equal(returns, [33.0] * 7)
    np.testing.assert_array_equal(lengths, [3] * 7)
    # standing still pays nothing, until the clock runs out after five steps
    returns, lengths = evaluation.episodes(chain, stay, 2, seed=0)
    np.testing.assert_array_equal(returns, [0.0] * 2)
    np.testing.assert_array_equal(lengths, [5] * 2)


def play_alone(seed: int, count: int) -> list[tuple[float, int]]:
    """Episodes of one Dice after the other, through Gymnasium alone."""
    env = gym.make("toy/Dice-v0")
    found = []
    observation, _ = env.reset(seed=seed)
    for _ in range(count):
        total = 0.0
        length = 0
        over = False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(np.tanh(observation[:1]))
            total = total + float(np.float32(reward))
            length = length + 1
            over = terminated or truncated
        found.append((total, length))
        observation, _ = env.reset()
    return found


def test_every_environment_plays_its_share_whatever_the_lengths_of_its_episodes() -> None:
    dice = Gymnasium("tests.helpers.toy_envs:toy/Dice-v0")
    returns, lengths = evaluation.episodes(
        dice, lambda o, t: np.tanh(o[:, :1]), 10, seed=5, at_once=4
    )
    shares = [play_alone(5 + i, share) for i, share in enumerate((3, 3, 2, 2))]
    expected = [shares[i][k] for k in range(3) for i in range(4) if k < len(shares[i])]
    np.testing.assert_allclose(returns, [r for r, _ in expected], rtol=1e-6)
    np.testing.assert_array_equal(lengths, [n for _, n in expected])
    assert len(set(lengths.tolist())) > 2  # or the shares would not matter


def test_the_seed_decides_and_the_step_number_is_handed_on() -> None:
    dice = Gymnasium("tests.helpers.toy_envs:toy/Dice-v0")
    seen = []

    def act(observation: np.ndarray, t: int) -> np.ndarray:
        seen.append(t)
        return np.zeros((len(observation), 1), np.float32)

    first = evaluation.episodes(dice, act, 4, seed=1)
    assert seen == list(range(len(seen)))
    np.testing.assert_array_equal(first, evaluation.episodes(dice, act, 4, seed=1))
    assert not np.array_equal(first[0], evaluation.episodes(dice, act, 4, seed=2)[0])


class Endless(Chain):
    def step(self, action: int) -> Any:
        observation, reward, _, truncated, info = super().step(0)
        return observation, reward, False, truncated, info


def test_episodes_that_do_not_end_are_an_error_that_names_the_fix() -> None:
    with pytest.raises(UserError, match=r"did not end within 50 steps: set env\.max_episode_steps"):
        evaluation.episodes(
            Gymnasium("tests.agents.training.test_evaluation:Endless"), right, 2, seed=0, longest=50
        )
    # a limit of as many steps is an end
    evaluation.episodes(
        Gymnasium("tests.agents.training.test_evaluation:Endless", max_episode_steps=50),
        right,
        2,
        seed=0,
        longest=50,
    )


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_compiled_episodes_that_do_not_end_are_the_same_error(mode: str) -> None:
    def play(limit: int) -> np.ndarray:
        mass = PointMass(max_episode_steps=limit)
        still = tf.zeros([2, *mass.action_space.shape])
        return CompiledEvaluation(
            mass, lambda observation, known, t: (still, known), mode, longest=50
        )(2, seed=0)[1]

    with pytest.raises(UserError, match=r"did not end within 50 steps: set env\.max_episode_steps"):
        play(51)
    lengths = play(50)
    np.testing.assert_array_equal(lengths, [50, 50])  # a limit of as many steps is an end


def test_environments_are_closed_even_when_acting_fails(tmp_path: Path) -> None:
    env = Gymnasium(f"{Closes.__module__}:Closes", kwargs={"folder": str(tmp_path)})
    for path in tmp_path.iterdir():
        path.unlink()  # of the one that was tried when it was named

    def fail(observation: np.ndarray, t: int) -> np.ndarray:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        evaluation.episodes(env, fail, 3, seed=0)
    assert len(list(tmp_path.iterdir())) == 3


# ---- video ---------------------------------------------------------------------------------------


def test_a_video_shows_one_episode_from_its_first_state_to_its_last() -> None:
    chain = Gymnasium("tests.helpers.toy_envs:Chain", max_episode_steps=5)
    frames = evaluation.video(chain, right, seed=0, longest=100)
    assert frames is not None
    assert frames.shape == (4, 4, 6, 3)
    np.testing.assert_array_equal(frames[:, 0, 0, 0], [0, 1, 2, 3])  # a frame shows the position
    cut = evaluation.video(chain, right, seed=0, longest=2)
    assert cut is not None
    np.testing.assert_array_equal(cut[:, 0, 0, 0], [0, 1, 2])
    timed_out = evaluation.video(chain, stay, seed=0, longest=100)
    assert timed_out is not None
    assert len(timed_out) == 6


class Poster(Chain):
    def render(self) -> np.ndarray:
        return np.random.default_rng(self.position).integers(0, 255, (400, 600, 3), np.uint8)


def test_large_frames_are_kept_at_the_size_they_are_shown_in_and_make_the_same_gif() -> None:
    frames = evaluation.video(
        Gymnasium("tests.agents.training.test_evaluation:Poster"), right, seed=0, longest=100
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
        evaluation.video(Gymnasium("tests.helpers.toy_envs:toy/Dice-v0"), still, seed=0, longest=5)
        is None
    )
    assert caplog.messages == []
    blind = Gymnasium("tests.agents.training.test_evaluation:Blind")
    for _ in range(2):
        assert evaluation.video(blind, right, seed=0, longest=5) is None
    assert caplog.messages == [
        "No videos: Blind cannot be drawn: render() gave NoneType, not a colour picture."
    ]
