"""Environments and rollouts to follow by hand, for the tests of trainers."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sparring.agents.training.rollout import Rollout


class Coin(gym.Env):
    """Observes two numbers no other step has; pays one of them and the action; ends one time in
    six, cut at nine.
    """

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return self._look(), {}

    def step(self, action: int):
        observation = self._look()
        return (
            observation,
            float(observation[0]) + 10.0 * int(action),
            bool(self.np_random.random() < 1 / 6),
            False,
            {},
        )

    def _look(self) -> np.ndarray:
        return self.np_random.normal(size=2).astype(np.float32)


gym.register("toy/Coin-v0", "tests.helpers.rollouts:Coin", max_episode_steps=9)


def assert_follows(rollouts: list[Rollout], seed: int) -> None:
    """The rollouts, one after the other, are what `toy/Coin-v0` gives when it is stepped alone with
    their actions.

    Environment b is seeded with seed + b. After an end, the next row is a reset: its action is
    ignored, its reward 0.
    """
    count = np.asarray(rollouts[0].reward).shape[1]
    for b in range(count):
        env = gym.make("toy/Coin-v0")
        observation, _ = env.reset(seed=seed + b)
        over = False
        for rollout in rollouts:
            columns = [np.asarray(x)[:, b] for x in rollout[:6]]
            seen, action, reward, terminated, truncated, first = columns
            for t in range(len(reward)):
                np.testing.assert_array_equal(seen[t], observation)
                expected: tuple[Any, ...] = (0.0, False, False, True)
                if over:
                    observation, _ = env.reset()
                else:
                    observation, paid, ended, cut, _ = env.step(int(action[t]))
                    expected = (np.float32(paid), ended, cut, False)
                assert (reward[t], terminated[t], truncated[t], first[t]) == expected, (b, t)
                over = expected[1] or expected[2]
            # The state the rollout ended in
            np.testing.assert_array_equal(seen[len(reward)], observation)
