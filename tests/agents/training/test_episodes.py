"""Whole episodes against environments whose returns are known, and against Gymnasium stepped one at
a time.
"""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from sparring.agents.training import episodes
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from tests.helpers.toy_envs import Closes

pytestmark = pytest.mark.long


def right(observation: np.ndarray, t: int) -> np.ndarray:
    return np.ones(len(observation), np.int64)


def stay(observation: np.ndarray, t: int) -> np.ndarray:
    return np.zeros(len(observation), np.int64)


def test_returns_and_lengths_are_those_of_whole_episodes() -> None:
    chain = Gymnasium("tests.helpers.toy_envs:Chain", max_episode_steps=5)
    # to the right: 10 * 0 + 1, 10 * 1 + 1, 10 * 2 + 1, and position 3 ends it
    returns, lengths, *_ = episodes.play(chain, right, 7, seed=0, at_once=3)
    np.testing.assert_array_equal(returns, [33.0] * 7)
    np.testing.assert_array_equal(lengths, [3] * 7)
    # standing still pays nothing, until the clock runs out after five steps
    returns, lengths, *_ = episodes.play(chain, stay, 2, seed=0)
    np.testing.assert_array_equal(returns, [0.0] * 2)
    np.testing.assert_array_equal(lengths, [5] * 2)
    # Of seven episodes on three environments, each in its place
    asked = Gymnasium("tests.helpers.toy_envs:Chain", max_episode_steps=5, info=["position"])
    found = episodes.play(asked, right, 7, seed=0, at_once=3)
    assert found.info["position"].tolist() == [3.0] * 7


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
    returns, lengths, *_ = episodes.play(
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

    first = episodes.play(dice, act, 4, seed=1)
    assert seen == list(range(len(seen)))
    np.testing.assert_array_equal(first[:3], episodes.play(dice, act, 4, seed=1)[:3])
    assert not np.array_equal(first[0], episodes.play(dice, act, 4, seed=2)[0])


def test_environments_are_closed_even_when_acting_fails(tmp_path: Path) -> None:
    env = Gymnasium(f"{Closes.__module__}:Closes", kwargs={"folder": str(tmp_path)})
    for path in tmp_path.iterdir():
        path.unlink()  # of the one that was tried when it was named

    def fail(observation: np.ndarray, t: int) -> np.ndarray:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        episodes.play(env, fail, 3, seed=0)
    assert len(list(tmp_path.iterdir())) == 3
