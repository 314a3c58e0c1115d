"""Restoring a running environment without pickling it, by replaying its episode.

Most Gymnasium environments are a function of their random generator and their actions. So the
parent process keeps, for each environment, the generator's state from before its last reset (or the
seed of that reset) and the actions since; a fresh environment given both reaches an identical
state. The record lives with the parent, not in the workers, so that it survives a worker that dies:
the checkpoint written then still holds every environment.
"""

import contextlib
import copy
import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space, create_empty_array, iterate

from sparring.envs.gymnasium_bridge import answers, curriculum

_log = logging.getLogger("sparring")
# Keys of `info`, on their way from a worker to the parent
START = "sparring_episode_start"
FAULT = "sparring_fault"
INFO = "sparring_info_"  # and the name of a number


class Start(NamedTuple):
    """Beginning of an episode: reset(seed=seed), or a reset from a generator's state.

    Both are None if it is unknown. `parameters` were set before it (see
    sparring.envs.gymnasium_bridge.curriculum).
    """

    seed: int | None
    generator: dict[str, Any] | None
    parameters: Mapping[str, float] = {}


class Episode(NamedTuple):
    """Record from which an episode can be replayed.

    `actions` is [T, ...], `rewards` [T]. `seed` is that of the environment's last seeded reset;
    `generator` is None while that reset's episode still runs.
    """

    seed: int
    generator: dict[str, Any] | None
    actions: np.ndarray
    rewards: np.ndarray
    ended: bool
    parameters: Mapping[str, float] = {}

    @classmethod
    def of(cls, saved: Mapping[str, Any], ended: bool) -> "Episode | None":
        """Return the episode saved by History.snapshot, or None if it kept no record of one."""
        if saved["actions"] is None:
            return None
        kept = (saved["seed"], saved["generator"], saved["actions"], saved["rewards"], ended)
        return cls(*kept, saved.get("parameters", {}))


class Replayed(NamedTuple):
    """Last observation of a replayed environment, or the problem that prevented it."""

    observation: Any
    problem: str | None


class Replayable(gym.Wrapper):
    """Outermost wrapper of every environment, in whichever process it runs.

    It turns answers into plain types, reports to the parent how each episode began, hands over an
    environment's exception as text (Gymnasium's own way waits for ever on an exception that cannot
    be pickled), and replays an episode on request. The environment's own `info` stays behind, as
    Gymnasium merges those of a vector by rules that not every `info` keeps, but for the numbers
    under the names in `info` at the end of an episode, and those in `record` at every step.
    """

    def __init__(
        self, env: gym.Env, index: int, info: Sequence[str] = (), record: Sequence[str] = ()
    ):
        super().__init__(env)
        self.index = index
        self.info = info
        self.record = record
        self.past: Episode | None = None  # set by the parent before `replay`
        self.parameters: Mapping[str, float] = {}  # likewise, before a reset
        # Arguments of a reset that the next step performs instead
        self.due: dict[str, Any] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset, and report in `info` how the episode began."""
        self.due = None
        generator = None if seed is not None else self._generator_state()
        start = Start(seed, generator, self.parameters)
        try:
            curriculum.assign(self.env, self.parameters)
            observation = answers.of_reset(
                self.env.reset(seed=seed, options=options), self.observation_space
            )
        except Exception as error:
            return empty(self.observation_space), {FAULT: _told(error)}
        return observation, {START: start}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, or perform a reset that a restore left due, as NEXT_STEP does.

        Such a reset has no reward and ends nothing.
        """
        if self.due is not None:
            arguments = self.due
            self.due = None
            observation, info = self.reset(**arguments)
            return observation, 0.0, False, False, info
        try:
            answer = self.env.step(action)
            plain = answers.of_step(answer, self.observation_space)
            names = self.info if plain[2] or plain[3] else self.record
            return *plain, self._numbers(answer[4], names) if names else {}
        except Exception as error:
            return empty(self.observation_space), 0.0, False, False, {FAULT: _told(error)}

    def _numbers(self, info: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
        """Return what an info says under the names that are asked for, where it is a number."""
        numbers = {}
        for name in names:
            with contextlib.suppress(KeyError, TypeError, ValueError):
                numbers[INFO + name] = float(info[name])
        return numbers

    def replay(self, limit: float) -> Replayed:
        """Replay `past` from its start, for `limit` seconds at most."""
        past = self.past
        self.past = None
        if past is None:
            return Replayed(None, None)
        try:
            return self._replay(past, time.perf_counter() + limit)
        except Exception as fault:
            return Replayed(None, f"replaying its actions raised {type(fault).__name__}: {fault}")

    def _replay(self, past: Episode, deadline: float) -> Replayed:
        # Every replay begins with the seeded reset: some keep more from it than np_random
        space = self.observation_space
        curriculum.assign(self.env, past.parameters)
        observation = answers.of_reset(self.env.reset(seed=past.seed), space)
        if past.generator is not None:
            self.env.unwrapped.np_random.bit_generator.state = past.generator
            observation = answers.of_reset(self.env.reset(), space)
        count = len(past.actions)
        for step, (action, reward) in enumerate(
            zip(past.actions, past.rewards, strict=True), start=1
        ):
            observation, again, terminated, truncated = answers.of_step(
                self.env.step(action.copy()), space
            )
            same = np.float32(again).tobytes() == reward.tobytes()
            if not same or (terminated or truncated) != (past.ended and step == count):
                return Replayed(
                    None, f"step {step} of {count} came out differently: it is not deterministic"
                )
            if time.perf_counter() > deadline:
                return Replayed(
                    None, f"replaying its {count} actions takes longer than env.replay_limit"
                )
        return Replayed(observation, None)

    def frame(self) -> Any:
        """Return the image of environment 0 (None of the others), or the exception's text."""
        if self.index != 0:
            return None
        try:
            return self.env.render()
        except Exception as fault:
            return f"{type(fault).__name__}: {fault}"

    def close(self) -> None:
        """Close the environment; that it fails to costs nothing."""
        close_quietly(self.env)

    def _generator_state(self) -> dict[str, Any] | None:
        try:
            return dict(self.env.unwrapped.np_random.bit_generator.state)
        # An environment with another kind of generator will restart its episode, and say so.
        except Exception:
            return None


def close_quietly(env: gym.Env | gym.vector.VectorEnv) -> None:
    """Close an environment, and say so once if that raises."""
    try:
        env.close()
    except Exception as error:
        _log.warning(
            "close() of %s raised %s: %s. Nothing is lost by it.",
            type(env.unwrapped).__name__,
            type(error).__name__,
            error,
        )


def _told(error: Exception) -> str:
    """Return a sentence for an answer that is wrong, the traceback of anything else."""
    return f"{error}." if isinstance(error, answers.AnswerError) else traceback.format_exc()


def empty(space: gym.Space) -> Any:
    """Return one observation of zeros, as a placeholder."""
    return next(iterate(batch_space(space, 1), create_empty_array(space, 1)))


class History:
    """Record of the actions that B environments took since their episodes began.

    One row of actions per vector step for all of them, dropped once no running episode needs it. At
    most `limit` actions in all are kept: an episode that outgrows that is forgotten, and restarts
    on resume.
    """

    def __init__(self, num_envs: int, action_space: gym.Space, limit: int = 1_000_000):
        self._capacity_limit = max(limit // num_envs, 1)
        rows = min(256, self._capacity_limit)
        # [rows, B, ...]
        self._actions = np.empty((rows, num_envs, *(action_space.shape or ())), action_space.dtype)
        self._rewards = np.empty((rows, num_envs), np.float32)  # [rows, B]
        self._used = 0
        # The row of each running episode's first action
        self._first: list[int | None] = [None] * num_envs
        self._starts = [Start(None, None)] * num_envs
        self._seeds: list[int | None] = [None] * num_envs
        self._episodes = [0] * num_envs

    def propose(self, actions: np.ndarray) -> None:
        """Note the actions [B, ...] of the coming step, as the environments will receive them.

        They are copied now, because some environments change theirs.
        """
        if self._used == len(self._actions):
            self._make_room()
        self._actions[self._used] = actions

    def confirm(self, rewards: np.ndarray) -> None:
        """Note that all environments have taken the step, and their rewards, float32 [B]."""
        self._rewards[self._used] = rewards
        self._used += 1

    def begin(self, index: int, start: Start) -> None:
        """Note that environment `index` has just been reset."""
        self._first[index] = self._used
        self._starts[index] = start
        self._seeds[index] = start.seed if start.seed is not None else self._seeds[index]
        self._episodes[index] += 1

    def fresh_seed(self, index: int) -> int:
        """Return an unused seed for a new episode, identical at every resume from here."""
        return int(
            np.random.SeedSequence([self._seeds[index] or 0, self._episodes[index]]).generate_state(
                1
            )[0]
        )

    def snapshot(self) -> list[dict[str, Any]]:
        """Return, per environment, seed, generator state, actions [T, ...] and rewards [T].

        They describe the episode the environment is in.
        """
        return [self._one(index) for index in range(len(self._first))]

    def _one(self, index: int) -> dict[str, Any]:
        first = self._first[index]
        start = self._starts[index]
        lost = first is None or (start.seed is None and start.generator is None)
        rows = slice(first, self._used)
        return {
            "seed": self._seeds[index],
            "generator": copy.deepcopy(start.generator),
            "episodes": self._episodes[index],
            "parameters": dict(start.parameters),
            "actions": None if lost else self._actions[rows, index].copy(),
            "rewards": None if lost else self._rewards[rows, index].copy(),
        }

    def restore(self, environments: Sequence[Mapping[str, Any]], rebuilt: Sequence[bool]) -> None:
        """Restore the record of the environments that were rebuilt, and the seeds of the others."""
        longest = max(
            [len(e["actions"]) for e, good in zip(environments, rebuilt, strict=True) if good],
            default=0,
        )
        if longest > len(self._actions):
            self._resize(longest)
        # All episodes end in the same row: the next row is the next step of all
        self._used = longest
        for index, (saved, good) in enumerate(zip(environments, rebuilt, strict=True)):
            self._seeds[index] = saved["seed"]
            self._episodes[index] = saved["episodes"]
            self._starts[index] = Start(
                saved["seed"] if saved["generator"] is None else None,
                saved["generator"],
                saved.get("parameters", {}),
            )
            self._first[index] = longest - len(saved["actions"]) if good else None
            if good:
                self._actions[self._first[index] : longest, index] = saved["actions"]
                self._rewards[self._first[index] : longest, index] = saved["rewards"]

    def _make_room(self) -> None:
        """Drop the rows that no episode needs, and grow while more than half are needed."""
        # At the limit, episodes that fill half of the rows are forgotten
        if len(self._actions) >= self._capacity_limit:
            half = self._used - self._capacity_limit // 2
            self._first = [
                first if first is not None and first > half else None for first in self._first
            ]
        oldest = min([first for first in self._first if first is not None], default=self._used)
        kept = self._used - oldest
        for rows in (self._actions, self._rewards):
            rows[:kept] = rows[oldest : self._used].copy()
        self._used = kept
        self._first = [None if first is None else first - oldest for first in self._first]
        if kept > len(self._actions) // 2:
            self._resize(min(2 * len(self._actions), self._capacity_limit))

    def _resize(self, rows: int) -> None:
        grow = [(0, max(rows - len(self._actions), 0))]
        self._actions = np.pad(self._actions, grow + [(0, 0)] * (self._actions.ndim - 1))
        self._rewards = np.pad(self._rewards, [*grow, (0, 0)])
