"""Observations of several parts: a dict of arrays by name, where their space is a Dict of Boxes.

What is said of an observation [B, ...] elsewhere holds for each part. An observation of one part
is the array itself. Numpy arrays, or tensors: TensorFlow is not imported here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from gymnasium import spaces

MASK = "action_mask"  # name of the part that says which actions are allowed, uint8 [B, A]
OBSERVATION = "observation"  # name of the observation beside a mask, where it has one part


def map_parts(function: Callable[..., Any], first: Any, *others: Any) -> Any:
    """Apply `function` to each part of observations, or spaces, that are built alike."""
    if isinstance(first, spaces.Dict):
        first = first.spaces
    others = tuple(o.spaces if isinstance(o, spaces.Dict) else o for o in others)
    if isinstance(first, Mapping):
        return {name: function(first[name], *(o[name] for o in others)) for name in first}
    return function(first, *others)


def leaves(value: Any) -> list[Any]:
    """Return the parts of an observation, or of a space, in their order."""
    found: list[Any] = []
    map_parts(found.append, value)
    return found


def batch_size(observation: Any) -> int:
    """Return B of observations [B, ...]."""
    return int(leaves(observation)[0].shape[0])


def is_observation_space(space: Any) -> bool:
    """Return whether agents see such a space: a Box, or a Dict of Boxes."""
    if isinstance(space, spaces.Dict) and not space.spaces:
        return False
    return all(isinstance(box, spaces.Box) for box in leaves(space))


def without_mask(value: Any) -> Any:
    """Return observations, or their spaces by name, without their mask of actions."""
    if isinstance(value, spaces.Dict):
        value = value.spaces
    if not isinstance(value, Mapping):
        return value
    seen = {name: part for name, part in value.items() if name != MASK}
    return seen[OBSERVATION] if list(seen) == [OBSERVATION] else seen


def mask_of(value: Any) -> Any:
    """Return the mask of actions among observations, or their spaces; None without one."""
    if isinstance(value, spaces.Dict):
        value = value.spaces
    return value.get(MASK) if isinstance(value, Mapping) else None
