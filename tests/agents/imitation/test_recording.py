"""Recording: what a policy met and did, step by step, in whole episodes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparring.agents.imitation.demonstrations import load
from sparring.agents.imitation.recording import record
from sparring.agents.training import episodes
from sparring.envs.compiled.classic_control import CartPole, Pendulum
from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.errors import UserError

COIN = "tests.helpers.rollouts:toy/Coin-v0"


def right_if_falling(observation: np.ndarray, t: int) -> np.ndarray:
    del t
    return (observation[:, 2] > 0.0).astype(np.int64)


@pytest.mark.parametrize("count", [3, 20])  # fewer and more than are played at once
def test_episodes_are_those_that_are_played(count: int) -> None:
    environment = CartPole(max_episode_steps=30)
    found = record(environment, right_if_falling, count, seed=5)
    played = episodes.play(environment, right_if_falling, count, seed=5)
    np.testing.assert_array_equal(found.returns, played.returns)
    assert found.episodes == count
    steps = found.transitions()
    np.testing.assert_array_equal(found.action, right_if_falling(steps.observation, 0))
    # The cart moves by its speed: x' = x + 0.02 v, within an episode and into its last observation
    moved = steps.observation[:, 0] + 0.02 * steps.observation[:, 1]
    np.testing.assert_allclose(steps.following[:, 0], moved, atol=1e-6)
    ends = found.terminated | found.truncated
    np.testing.assert_array_equal(
        np.diff(np.append(np.flatnonzero(found.first), found.steps)),
        np.diff(np.append(-1, np.flatnonzero(ends))),
    )
    found.check(environment)
    assert 5.0 < found.random_return < 30.0


def test_environments_on_the_host_are_recorded_and_the_same_seed_gives_the_same() -> None:
    environment = Gymnasium(COIN)

    def act(observation: np.ndarray, t: int) -> np.ndarray:
        return (observation[:, 1] > 0.0).astype(np.int64)

    found = record(environment, act, 5, seed=1)
    again = record(environment, act, 5, seed=1)
    other = record(environment, act, 5, seed=2)
    assert found.fingerprint == again.fingerprint != other.fingerprint
    # It pays the first number of the observation reached, and ten for action 1
    reached = found.transitions().following
    np.testing.assert_allclose(found.reward, reached[:, 0] + 10.0 * found.action, rtol=1e-6)


def test_vectors_are_recorded_as_they_act() -> None:
    def act(observation: np.ndarray, t: int) -> np.ndarray:
        return np.full((len(observation), 1), 7.0, np.float32)

    found = record(Pendulum(max_episode_steps=5), act, 2, seed=0)
    np.testing.assert_array_equal(found.action, np.full((10, 1), 2.0))  # the largest torque


def test_a_trained_agent_is_recorded_greedily_or_sampled(tmp_path: Path) -> None:
    from tests.helpers.small_imitation import make

    trainer = make()
    found: dict[bool, Any] = {}
    for sampled in (False, True):
        path = tmp_path / "mine.npz"
        lines = trainer.demonstrate(path, 3, 0, sampled, {"run": "mine"})
        assert lines[0].startswith(f"{path}: 3 episodes, ")
        found[sampled] = load(str(path))
    assert found[False].metadata["sampled"] is False
    assert found[True].metadata["run"] == "mine"
    seen = found[False].observation
    np.testing.assert_array_equal(found[False].action, trainer.agent.act_greedy(seen))
    greedy = trainer.agent.act_greedy(found[True].observation)
    assert not np.array_equal(found[True].action, greedy)


def test_an_agent_with_a_memory_is_refused(tmp_path: Path) -> None:
    class Remembers:
        def start(self, batch: int) -> np.ndarray:
            return np.zeros((batch, 2))

    class Evaluator:
        agent = Remembers()

    from sparring.agents.imitation.recording import demonstrated

    with pytest.raises(UserError, match="This agent has a memory: its actions depend on more"):
        demonstrated(Evaluator(), tmp_path / "x.npz", 1, 0, False, {})
