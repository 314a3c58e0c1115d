"""Stacks of an environment's newest observations, for agents that cannot tell motion from one.

A stack [B, ..., frames * C] has its frames along the last axis, the oldest first. In the first
steps of an episode, the episode's first frame stands for those before it. The observation space
says that it is a stack, so that a replay need store each frame only once. Numpy arrays, or tensors:
TensorFlow is not imported here.
"""

from typing import Any

import numpy as np
from gymnasium import spaces

from sparring import nested
from sparring.errors import UserError


class FrameStack(spaces.Box):
    """Box of the `frames` newest observations of the Box `frame`.

    Raises:
        UserError: an observation is a single number, without a shape.
    """

    def __init__(self, frame: spaces.Box, frames: int) -> None:
        if not frame.shape:
            raise UserError(
                "env.frame_stack: a stack is of vectors or pictures, not of one number."
            )
        low = np.concatenate([frame.low] * frames, axis=-1)
        high = np.concatenate([frame.high] * frames, axis=-1)
        super().__init__(low, high, dtype=low.dtype.type)
        self.frame = frame
        self.frames = frames


def stacked(space: spaces.Box | spaces.Dict, frames: int) -> Any:
    """Return the space of stacks of `frames` observations, of each part but a mask of actions.

    Raises:
        UserError: a stack has one frame at least.
    """
    if frames < 1:
        raise UserError(f"env.frame_stack={frames}: it is at least 1, which stacks none.")
    if frames == 1:
        return space
    if not isinstance(space, spaces.Dict):
        return FrameStack(space, frames)
    parts: dict[str, Any] = dict(space.spaces)
    stacks = {n: FrameStack(part, frames) for n, part in parts.items() if n != nested.MASK}
    return spaces.Dict(parts | stacks)


def one_frame(space: Any) -> Any:
    """Return the space of the newest frame of a space, whether of stacks or not."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({name: one_frame(part) for name, part in space.spaces.items()})
    return space.frame if isinstance(space, FrameStack) else space


def newest(space: Any, observation: Any) -> Any:
    """Return the newest frame [B, ..., C] of observations of a space, whether stacks or not."""

    def of_part(box: spaces.Box, part: Any) -> Any:
        return part[..., -box.frame.shape[-1] :] if isinstance(box, FrameStack) else part

    return nested.map_parts(of_part, space, observation)


def opened(space: Any, frame: Any) -> Any:
    """Return the stacks at the beginning of episodes, of numpy arrays [B, ..., C]."""

    def of_part(box: spaces.Box, part: np.ndarray) -> np.ndarray:
        if not isinstance(box, FrameStack):
            return part
        return np.concatenate([part] * box.frames, axis=-1)

    return nested.map_parts(of_part, space, frame)


def pushed(space: Any, observation: Any, frame: Any, first: np.ndarray) -> Any:
    """Return the stacks after a step, of numpy arrays: those of `first` [B] begin an episode."""

    def of_part(box: spaces.Box, before: np.ndarray, part: np.ndarray) -> np.ndarray:
        if not isinstance(box, FrameStack):
            return part
        after = np.concatenate([before[..., box.frame.shape[-1] :], part], axis=-1)
        after[first] = opened(box, part[first])
        return after

    return nested.map_parts(of_part, space, observation, frame)
