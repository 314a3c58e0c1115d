"""Evaluating an agent: whole episodes on fresh environments, and a video of one."""

from collections.abc import Callable
from typing import Any

import numpy as np

Act = Callable[[np.ndarray, int], np.ndarray]  # (observations [B, ...], vector step) -> actions [B, ...]


def episodes(environment: Any, act: Act, count: int, seed: int, at_once: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths, both [count], of whole episodes, each environment playing the same number of them.

    Counting the first `count` to finish would favour short episodes; here environment i plays episodes i, i + B, ...
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
            observation, t = step.observation, t + 1
    finally:
        vector.close()
    order = [(i, k) for k in range(int(quota.max())) for i in range(batch) if k < quota[i]]
    return np.array([returns[i][k] for i, k in order]), np.array([lengths[i][k] for i, k in order])


def video(environment: Any, act: Act, seed: int, longest: int) -> np.ndarray | None:
    """Frames uint8 [T, H, W, 3] of one episode of up to `longest` steps; None if the environment draws nothing."""
    vector = environment.vector(1, seed, render=True)
    try:
        observation = vector.reset()
        frames = [vector.render()]
        for t in range(longest):
            if frames[-1] is None:
                return None
            step = vector.step(act(observation, t))
            frames.append(vector.render())
            if step.terminated[0] or step.truncated[0]:
                break
            observation = step.observation
        return np.stack(frames)
    finally:
        vector.close()
