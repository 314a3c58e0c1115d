"""Evaluating an agent: whole episodes on fresh environments, and a video of one."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from agents import memory
from research import gif
from research.errors import UserError

_log = logging.getLogger("sparring")
LONGEST = 100_000  # steps: an episode that is longer has no end

Act = Callable[[np.ndarray, int], np.ndarray]  # (observations [B, ...], vector step) -> actions [B, ...]


class Player:
    """An `Act` that remembers, from the start of an episode on, for as many environments as it is first shown.

    `act(observation, known, t) -> (actions, known)`; `start(B)` is what is known at first (see agents.memory).
    """

    def __init__(self, act: Callable[..., Any], start: Callable[[int], memory.State]) -> None:
        self._act, self._start, self._known = act, start, None

    def __call__(self, observation: np.ndarray, t: int) -> np.ndarray:
        known = self._start(len(observation)) if self._known is None else self._known
        action, self._known = self._act(observation, known, np.int64(t))
        return np.asarray(action)

    def forget(self, first: np.ndarray) -> None:
        """Be at the start again in the environments in `first` [B]."""
        self._known = memory.restarted(self._known, first)


def episodes(
    environment: Any,
    act: Act,
    count: int,
    seed: int,
    at_once: int = 16,
    longest: int = LONGEST,
    forget: Callable[[np.ndarray], None] = lambda first: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths, both [count], of whole episodes, each environment playing the same number of them.

    Counting the first `count` to finish would favour short episodes; here environment i plays episodes i, i + B, ...
    `forget` is told after every step which environments it opened an episode in, [B].
    Raises UserError for an environment whose episodes do not end within `longest` steps.
    """
    batch = min(count, at_once)
    vector = environment.vector(batch, seed)
    quota = np.array([len(range(i, count, batch)) for i in range(batch)])
    returns: list[list[float]] = [[] for _ in range(batch)]
    lengths: list[list[int]] = [[] for _ in range(batch)]
    running_return, running_length = np.zeros(batch), np.zeros(batch, np.int64)
    try:
        observation, t = vector.reset(), 0
        while any(len(r) < q for r, q in zip(returns, quota, strict=True)):
            step = vector.step(act(observation, t))
            running_return += step.reward
            running_length += ~step.first
            for i in np.flatnonzero(step.terminated | step.truncated):
                returns[i].append(float(running_return[i]))
                lengths[i].append(int(running_length[i]))
                running_return[i], running_length[i] = 0.0, 0
            if running_length.max() >= longest:
                raise UserError(f"An evaluation episode did not end within {longest} steps: set env.max_episode_steps.")
            forget(step.first)
            observation, t = step.observation, t + 1
    finally:
        vector.close()
    order = [(i, k) for k in range(int(quota.max())) for i in range(batch) if k < quota[i]]
    return np.array([returns[i][k] for i, k in order]), np.array([lengths[i][k] for i, k in order])


def video(environment: Any, act: Act, seed: int, longest: int) -> np.ndarray | None:
    """Frames uint8 [T, H, W, 3] of one episode of up to `longest` steps, at the size a GIF of ours has.

    None if the environment draws nothing. One that should and can't is told of once and costs no training.
    """
    if not environment.renders:
        return None
    try:
        return _filmed(environment, act, seed, longest)
    except UserError as error:
        _tell_once(f"No videos: {error}")
        return None


def _filmed(environment: Any, act: Act, seed: int, longest: int) -> np.ndarray:
    vector = environment.vector(1, seed, render=True)
    try:
        observation = vector.reset()
        first = _small(vector.render())
        frames = np.empty((longest + 1, *first.shape), np.uint8)  # pages never written cost nothing
        frames[0] = first
        for t in range(longest):
            step = vector.step(act(observation, t))
            frames[t + 1] = _small(vector.render())
            if step.terminated[0] or step.truncated[0]:
                return frames[: t + 2]
            observation = step.observation
        return frames
    finally:
        vector.close()


def _small(frame: np.ndarray) -> np.ndarray:
    """A frame as small as it will be shown: an episode of large ones would fill the memory."""
    return np.asarray(Image.fromarray(frame).reduce(gif.reduction(frame)))


@functools.cache
def _tell_once(message: str) -> None:
    _log.warning("%s", message)
