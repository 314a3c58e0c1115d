"""Tiny environments whose every step is known, for the tests of the bridge. Importing this
registers some of them.
"""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Chain(gym.Env):
    """A corridor: action 1 goes right, 0 stays; every step pays 10 * (position before) + action;
    position 3 ends it.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (as Gymnasium writes it)

    def __init__(self, render_mode: str | None = None, start: float = 0):
        self.render_mode = render_mode
        self.start = start
        self.observation_space = spaces.Box(0, 10, (1,), np.float64)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.position = self.start
        return np.array([self.position], np.float64), {}

    def step(self, action: int):
        reward = 10.0 * self.position + int(action)
        self.position += int(action)
        return (
            np.array([self.position], np.float64),
            reward,
            self.position == 3,
            False,
            {"position": self.position},
        )

    def render(self) -> np.ndarray:
        return np.full((4, 6, 3), self.position, np.uint8)


class Film(Chain):
    """A chain that is seen as a picture, as bright as the position."""

    def __init__(self, render_mode: str | None = None):
        super().__init__(render_mode)
        self.observation_space = spaces.Box(0, 255, (40, 40, 1), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return self._seen(), {}

    def step(self, action: int):
        _, *rest = super().step(action)
        return self._seen(), *rest

    def _seen(self) -> np.ndarray:
        return np.full((40, 40, 1), self.position, np.uint8)


class Counted(Chain):
    """A chain that counts an episode's steps in `taken`."""

    taken = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.taken = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: int):
        self.taken += 1
        return super().step(action)


class SameArray(Chain):
    """A chain that hands out one array again and again, and changes it in place."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.buffer = super().reset(seed=seed)[0]
        return self.buffer, {}

    def step(self, action: int):
        observation, *rest = super().step(action)
        self.buffer[:] = observation
        return self.buffer, *rest


class Echo(gym.Env):
    """Its observation is the action it received, as float64, its first one -1; never ends."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, action_space: gym.Space):
        self.action_space = action_space
        self.shape = action_space.shape or (1,)
        self.observation_space = spaces.Box(-np.inf, np.inf, self.shape, np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return np.full(self.shape, -1.0), {}

    def step(self, action: Any):
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        return np.asarray(action, np.float64).reshape(self.shape), 0.0, False, False, {}


class Shows(gym.Env):
    """Its observations are samples of the space it is given, drawn from its seeded copy of that
    space.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, observation_space: gym.Space):
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: int):
        return self.observation_space.sample(), 0.0, False, False, {}


class Dice(gym.Env):
    """Draws from np_random at every step: its observation, its reward, and whether it ends (one in
    eight).
    """

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.total = 0.0
        return self._look(), {}

    def step(self, action: np.ndarray):
        self.total += float(action[0]) * self.np_random.normal()
        return (
            self._look(),
            self.np_random.normal(),
            bool(self.np_random.random() < 1 / 8),
            False,
            {},
        )

    def _look(self) -> np.ndarray:
        return np.array([self.total, self.np_random.normal()], np.float32)


class Stubborn(Dice):
    """Keeps a number it drew at its last seeded reset, and overwrites every action it is given."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        observation, info = super().reset(seed=seed)
        if seed is not None:
            self.scale = self.np_random.normal()
        return observation, info

    def step(self, action: np.ndarray):
        action *= self.scale
        return super().step(action)


class Restless(Chain):
    """Pays what the operating system's entropy says: no seed brings it back."""

    def step(self, action: int):
        observation, _, *rest = super().step(action)
        return observation, float(os.urandom(1)[0]), *rest


class Elsewhere(Chain):
    """Rewards are always alike, but the observation drifts with the number of instances ever made
    in this process.
    """

    made = 0

    def __init__(self, render_mode: str | None = None):
        super().__init__(render_mode)
        Elsewhere.made += 1
        self.start = Elsewhere.made / 100

    def step(self, action: int):
        observation, _, *rest = super().step(0)
        return observation, 0.0, *rest


class LockError(Exception):
    """An exception that cannot be sent to another process."""

    def __init__(self):
        super().__init__("the simulator is jammed")
        self.lock = threading.Lock()


class Jams(Chain):
    """Raises an exception that cannot be pickled, at step `at` counted from the first reset."""

    def __init__(self, render_mode: str | None = None, at: int = 3):
        super().__init__(render_mode)
        self.left = at

    def step(self, action: int):
        self.left -= 1
        if self.left == 0:
            raise LockError
        return super().step(action)


class Dies(Jams):
    """Its process is killed at step `at`, as by the kernel when memory runs out."""

    def step(self, action: int):
        if self.left == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class FailsLater(Chain):
    """Can be built `good` times in all, counted in a file."""

    def __init__(self, render_mode: str | None = None, counter: str = "", good: int = 0):
        super().__init__(render_mode)
        with Path(counter).open("a") as file:
            file.write("x")
        if Path(counter).stat().st_size > good:
            raise RuntimeError("no licence left")


class Closes(Chain):
    """Leaves a file behind for every instance that was closed."""

    def __init__(self, render_mode: str | None = None, folder: str = ""):
        super().__init__(render_mode)
        self.folder = folder

    def close(self) -> None:
        (Path(self.folder) / f"{os.getpid()}-{id(self)}").touch()


class OwnDraw(Chain):
    """Observes a number from numpy's global generator, which nobody seeded."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return np.array([np.random.random()]), {}


gym.register("toy/Chain-v0", "tests.helpers.toy_envs:Chain", max_episode_steps=5)
gym.register("toy/Chain-v1", "tests.helpers.toy_envs:Chain", max_episode_steps=5)
DICE: Any = Dice
gym.register("toy/Dice-v0", DICE, max_episode_steps=12)  # registered by its class, not by name


class Slow(gym.Wrapper):
    """Every step takes so many seconds longer."""

    def __init__(self, env: gym.Env, seconds: float) -> None:
        super().__init__(env)
        self.seconds = seconds

    def step(self, action: Any):
        time.sleep(self.seconds)
        return self.env.step(action)


class Gates(gym.Env):
    """A picture and two numbers; of three actions the last is never allowed, the second every other
    step, and one that is not allowed ends the episode with -100. `masked`: the mask is in the info.
    """

    def __init__(self, masked: bool = True):
        self.masked = masked
        self.observation_space = spaces.Dict(
            camera=spaces.Box(0, 255, (4, 4, 1), np.uint8),
            place=spaces.Box(-10.0, 10.0, (2,), np.float32),
        )
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.taken = 0
        self.noise = self.np_random.integers(0, 255, (4, 4, 1)).astype(np.uint8)
        return self._see(), self._info()

    def step(self, action: int):
        wrong = not self._allowed()[action]
        self.taken += 1
        reward = -100.0 if wrong else float(action)
        return self._see(), reward, wrong or self.taken == 7, False, self._info()

    def _allowed(self) -> np.ndarray:
        return np.array([1, self.taken % 2, 0], np.int8)

    def _see(self) -> dict[str, np.ndarray]:
        place = np.array([self.taken, -self.taken], np.float32)
        return {"camera": self.noise, "place": place}

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self._allowed()} if self.masked else {}
