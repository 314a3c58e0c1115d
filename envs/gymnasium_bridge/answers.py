"""Answers of a Gymnasium environment in plain types, or a sentence that says what is wrong.

Environments in the wild give rewards as arrays of one number, lists for a Box, 0 and 1 for the two
ends. What has one meaning is read that way; what has none is refused by name.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class AnswerError(Exception):
    """Wrong answer: what came, and what is expected, as a sentence without its full stop."""


def of_reset(answer: Any, space: gym.Space) -> Any:
    """Return the observation in what `reset` returned, in `space`'s own types.

    Raises:
        AnswerError: it is no pair, or the observation is not of `space`.
    """
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise AnswerError(
            f"reset() returned {_described(answer)}, where (observation, info) is expected"
        )
    return observation_of(answer[0], space)


def of_step(answer: Any, space: gym.Space) -> tuple[Any, float, bool, bool]:
    """Return observation, reward, terminated and truncated of what `step` returned, as plain types.

    Raises:
        AnswerError: one of the five is missing, or is not what it should be.
    """
    if not isinstance(answer, tuple) or len(answer) != 5:
        raise AnswerError(
            f"step() returned {_described(answer)}, where (observation, reward, terminated, "
            "truncated, info) is expected"
        )
    observation, reward, terminated, truncated, _ = answer
    return (
        observation_of(observation, space),
        _number(reward),
        _flag(terminated, "terminated"),
        _flag(truncated, "truncated"),
    )


def observation_of(value: Any, space: gym.Space, where: str = "the observation") -> Any:
    """Return an observation in the types and shapes of `space`.

    Raises:
        AnswerError: it has another structure or shape, or a value that `space` cannot hold.
    """
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping):
            raise AnswerError(f"{where} is {_described(value)}, where a dict is expected")
        missing = [key for key in space.spaces if key not in value]
        if missing:
            raise AnswerError(f"{where} lacks {missing[0]!r}, which its space has")
        return {
            key: observation_of(value[key], child, f"{where}[{key!r}]")
            for key, child in space.spaces.items()
        }
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, Sequence) or len(value) != len(space.spaces):
            raise AnswerError(
                f"{where} is {_described(value)}, where a tuple of {len(space.spaces)} is expected"
            )
        return tuple(
            observation_of(item, child, f"{where}[{i}]")
            for i, (item, child) in enumerate(zip(value, space.spaces, strict=True))
        )
    return _array(value, space, where)


def _array(value: Any, space: gym.Space, where: str) -> Any:
    """Return a leaf as an array of its space's dtype and shape."""
    if not isinstance(value, np.ndarray) or value.dtype != space.dtype:
        value = _cast(value, space, where)
    shape = space.shape or ()
    if value.shape != shape:
        if value.size != 1 or math.prod(shape) != 1:
            raise AnswerError(
                f"{where} has the shape {list(value.shape)}, where its space says {list(shape)}"
            )
        value = value.reshape(shape)
    _check_choices(value, space, where)
    return value


def _cast(value: Any, space: gym.Space, where: str) -> np.ndarray:
    try:
        given = np.asarray(value)
        with np.errstate(over="ignore", invalid="ignore"):
            cast = given.astype(space.dtype)
    except (TypeError, ValueError) as error:
        raise AnswerError(
            f"{where} is {_described(value)}, where {space.dtype} {list(space.shape or ())} is "
            "expected"
        ) from error
    if np.issubdtype(cast.dtype, np.integer) and not np.array_equal(cast, given):
        lost = given[cast != given].flat[0]
        raise AnswerError(f"{where} holds {lost}, which its space's {space.dtype} cannot hold")
    return cast


def _check_choices(value: np.ndarray, space: gym.Space, where: str) -> None:
    """Refuse a choice outside its range, which one-hot would be all zeros."""
    if isinstance(space, spaces.Discrete):
        low = space.start
        count: Any = space.n
    elif isinstance(space, spaces.MultiDiscrete):
        low = space.start
        count = space.nvec
    else:
        return
    if np.any(value < low) or np.any(value >= low + count):
        raise AnswerError(f"{where} is {value.tolist()}, outside its space {space}")


def _number(value: Any) -> float:
    try:
        given = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        given = np.zeros(0)
    if given.size != 1 or value is None:
        raise AnswerError(f"the reward is {_described(value)}, where one number is expected")
    number = float(given.reshape(()))
    if not math.isfinite(number):
        raise AnswerError(f"the reward is {number}, where a finite number is expected")
    return number


def _flag(value: Any, name: str) -> bool:
    given = np.asarray(value)
    if given.size != 1 or given.dtype.kind not in "biuf" or given.reshape(()) not in (0, 1):
        raise AnswerError(f"{name} is {_described(value)}, where True or False is expected")
    return bool(given.reshape(()))


def _described(value: Any) -> str:
    """Return a value in a few words: "None", "an array [2, 1]", "a tuple of 4"."""
    if isinstance(value, np.ndarray):
        return f"an array {list(value.shape)} of {value.dtype}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"
